"""A network as an equation: the gradient of its loss.

Objectives and least-squares residuals over a flat parameter vector, optimizers as smoothers,
Gauss-Newton and Levenberg-Marquardt, and the adaptive basis (least squares for the last layer,
descent for the rest). Needs the core and PyTorch.
"""

from mgnet.training.broyden import Broyden
from mgnet.training.levenberg_marquardt import (
    Ending,
    LevenbergMarquardt,
    Minimum,
    levenberg_marquardt,
)
from mgnet.training.objective import LeastSquares, Objective
from mgnet.training.optimizer import LBFGS, TorchOptimizer
from mgnet.training.refinement import gradient_share, train

__all__ = [
    "Broyden",
    "Ending",
    "LBFGS",
    "LeastSquares",
    "LevenbergMarquardt",
    "Minimum",
    "Objective",
    "TorchOptimizer",
    "gradient_share",
    "levenberg_marquardt",
    "train",
]
