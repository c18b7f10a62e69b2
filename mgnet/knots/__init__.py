"""The grid of a Kolmogorov-Arnold network is its knots.

Splines and the networks made of them, knot insertion as an exact prolongation, the change between
the spline and the truncated-power basis, and hierarchies of networks that differ only in their
knots. Needs the core and PyTorch.
"""

from mgnet.knots.hierarchy import knot_hierarchy, knot_transfer, kronecker_matrix
from mgnet.knots.kan import KAN, roughness
from mgnet.knots.memory import carry

__all__ = ["KAN", "carry", "knot_hierarchy", "knot_transfer", "kronecker_matrix", "roughness"]
