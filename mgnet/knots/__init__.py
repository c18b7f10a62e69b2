"""The grid of a Kolmogorov-Arnold network is its knots.

Splines and the networks made of them, knot insertion as an exact prolongation, the change between
the spline and the truncated-power basis, and hierarchies of networks that differ only in their
knots. Needs the core and PyTorch.
"""

from mgnet.knots.change_of_basis import change_of_basis
from mgnet.knots.descent import GradientDescent
from mgnet.knots.hierarchy import knot_hierarchy, knot_transfer
from mgnet.knots.kan import KAN, roughness
from mgnet.knots.multichannel import MultichannelMLP

__all__ = [
    "KAN",
    "GradientDescent",
    "MultichannelMLP",
    "change_of_basis",
    "knot_hierarchy",
    "knot_transfer",
    "roughness",
]
