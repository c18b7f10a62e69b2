"""Training as the solution of an equation: the gradient of the loss is zero.

Objectives and least-squares residuals over a flat parameter vector, optimizers as smoothers,
Gauss-Newton and Levenberg-Marquardt, and the adaptive basis (least squares for the last layer,
descent for the rest). The package needs the core and PyTorch.

Reading order: `loss`, `least_squares`, `optimizers`, `equations`, then `levels`, `train`, `record`
and `box_initialization`.
"""

from mgnet.training.box_initialization import Residual, box_init_
from mgnet.training.coarse_rows import coarse_rows
from mgnet.training.equations.balanced_weights import BalancedWeights
from mgnet.training.equations.batches import by_residual, minibatches, resampled
from mgnet.training.equations.collocation import Collocation
from mgnet.training.equations.derivatives import Ansatz
from mgnet.training.equations.new_points import NewPoints
from mgnet.training.equations.periodic import periodic
from mgnet.training.equations.quasi_random import quasi_random
from mgnet.training.equations.sine import Sine, sine_network
from mgnet.training.equations.term import Term
from mgnet.training.equations.time_slabs import TimeSlabs, time_slabs
from mgnet.training.least_squares.adaptive_basis import AdaptiveBasis
from mgnet.training.least_squares.covariance import Covariance, covariance
from mgnet.training.least_squares.last_layer import LastLayer, solve_last_layer_
from mgnet.training.least_squares.levenberg_marquardt import LevenbergMarquardt
from mgnet.training.least_squares.losses import PointwiseLoss, root_of_loss
from mgnet.training.least_squares.minimization import levenberg_marquardt
from mgnet.training.least_squares.newton_krylov import NewtonKrylov
from mgnet.training.least_squares.newton_last_layer import NewtonLastLayer
from mgnet.training.least_squares.probed_radius import ProbedRadius
from mgnet.training.least_squares.problem import LeastSquares
from mgnet.training.least_squares.step_rules import Nielsen, TrustRegion
from mgnet.training.loss.objective import Objective
from mgnet.training.optimizers.broyden import Broyden
from mgnet.training.optimizers.early_stop import EarlyStop, Patience
from mgnet.training.optimizers.multilevel_gradient import MultilevelGradient
from mgnet.training.optimizers.multilevel_optimizer import MultilevelOptimizer
from mgnet.training.optimizers.optimizer import LBFGS, TorchOptimizer
from mgnet.training.record import Record, Row
from mgnet.training.train import gradient_share, train

__all__ = [
    "AdaptiveBasis",
    "Ansatz",
    "BalancedWeights",
    "Broyden",
    "Collocation",
    "Covariance",
    "EarlyStop",
    "LBFGS",
    "LastLayer",
    "LeastSquares",
    "LevenbergMarquardt",
    "MultilevelGradient",
    "MultilevelOptimizer",
    "NewPoints",
    "NewtonKrylov",
    "Nielsen",
    "ProbedRadius",
    "NewtonLastLayer",
    "Objective",
    "Patience",
    "PointwiseLoss",
    "Record",
    "Residual",
    "Row",
    "Sine",
    "Term",
    "TimeSlabs",
    "TorchOptimizer",
    "TrustRegion",
    "box_init_",
    "by_residual",
    "coarse_rows",
    "covariance",
    "gradient_share",
    "levenberg_marquardt",
    "minibatches",
    "periodic",
    "quasi_random",
    "resampled",
    "root_of_loss",
    "sine_network",
    "solve_last_layer_",
    "time_slabs",
    "train",
]
