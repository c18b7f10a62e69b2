"""A network as an equation: the gradient of its loss.

Objectives and least-squares residuals over a flat parameter vector, optimizers as smoothers,
Gauss-Newton and Levenberg-Marquardt, and the adaptive basis (least squares for the last layer,
descent for the rest). Needs the core and PyTorch.
"""

from mgnet.training.adaptive_basis import AdaptiveBasis
from mgnet.training.batches import by_residual, minibatches, resampled
from mgnet.training.box import Residual, box_init_
from mgnet.training.broyden import Broyden
from mgnet.training.collocation import Collocation, Term
from mgnet.training.derivatives import Ansatz
from mgnet.training.early_stop import EarlyStop, Patience
from mgnet.training.last_layer import LastLayer, solve_last_layer_
from mgnet.training.levenberg_marquardt import (
    Ending,
    LevenbergMarquardt,
    Minimum,
    levenberg_marquardt,
)
from mgnet.training.newton_krylov import NewtonKrylov
from mgnet.training.newton_last_layer import NewtonLastLayer
from mgnet.training.objective import LeastSquares, Objective
from mgnet.training.optimizer import LBFGS, TorchOptimizer
from mgnet.training.record import Record, Row
from mgnet.training.refinement import gradient_share, train

__all__ = [
    "AdaptiveBasis",
    "Ansatz",
    "Broyden",
    "Collocation",
    "EarlyStop",
    "Ending",
    "LBFGS",
    "LastLayer",
    "LeastSquares",
    "LevenbergMarquardt",
    "Minimum",
    "NewtonKrylov",
    "NewtonLastLayer",
    "Objective",
    "Patience",
    "Record",
    "Residual",
    "Row",
    "Term",
    "TorchOptimizer",
    "box_init_",
    "by_residual",
    "gradient_share",
    "levenberg_marquardt",
    "minibatches",
    "resampled",
    "solve_last_layer_",
    "train",
]
