"""Multigrid methods whose grid is the knots of a Kolmogorov-Arnold network (KAN).

This package contains splines and networks of splines, knot insertion as an exact prolongation, the
change between the spline basis and the truncated-power basis, and hierarchies of networks that
differ only in their knots. It needs the core and PyTorch.
"""

from mgnet.knots.adaptive_refinement import TrialRefinement, refine_where_needed
from mgnet.knots.change_of_basis import change_of_basis
from mgnet.knots.conversion import from_efficient_kan, from_pykan
from mgnet.knots.descent import GradientDescent
from mgnet.knots.free_knots import FreeKnotKAN
from mgnet.knots.hierarchy import knot_hierarchy, knot_transfer, kronecker_matrix
from mgnet.knots.input_bands import InputBands
from mgnet.knots.kan import KAN
from mgnet.knots.knot_bpx import KnotBPX
from mgnet.knots.knot_solver import KnotSolver
from mgnet.knots.layer import spline_layer
from mgnet.knots.multichannel import MultichannelMLP
from mgnet.knots.newton_multigrid import KnotMultigrid
from mgnet.knots.optimizer_state import refine_optimizer
from mgnet.knots.patches import Patches
from mgnet.knots.plain_operators import plain_operators
from mgnet.knots.roughness import roughness

__all__ = [
    "InputBands",
    "KAN",
    "FreeKnotKAN",
    "GradientDescent",
    "KnotBPX",
    "KnotMultigrid",
    "KnotSolver",
    "MultichannelMLP",
    "Patches",
    "TrialRefinement",
    "change_of_basis",
    "from_efficient_kan",
    "from_pykan",
    "knot_hierarchy",
    "knot_transfer",
    "kronecker_matrix",
    "plain_operators",
    "refine_optimizer",
    "refine_where_needed",
    "roughness",
    "spline_layer",
]
