"""A network as an equation: the gradient of its loss.

Objectives and least-squares residuals over a flat parameter vector, optimizers as smoothers,
Gauss-Newton and Levenberg-Marquardt, and the adaptive basis (least squares for the last layer,
descent for the rest). Needs the core and PyTorch.
"""

from mgnet.training.levenberg_marquardt import (
    Ending,
    LevenbergMarquardt,
    Minimum,
    levenberg_marquardt,
)
from mgnet.training.newton_krylov import NewtonKrylov
from mgnet.training.objective import LeastSquares, Objective
from mgnet.training.optimizer import LBFGS, TorchOptimizer

__all__ = [
    "Ending",
    "LBFGS",
    "LeastSquares",
    "LevenbergMarquardt",
    "Minimum",
    "NewtonKrylov",
    "Objective",
    "TorchOptimizer",
    "levenberg_marquardt",
]
