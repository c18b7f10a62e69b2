"""`KANRegressor` and `KANClassifier`: fit, predict, score, clone, pickle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from mgnet.estimators.scales import Scales, continued
from mgnet.estimators.training_budget import TrainingBudget, train_within
from mgnet.knots import KAN, knot_hierarchy, roughness
from mgnet.knots.spline import roughness_factor
from mgnet.smoother import Smoother
from mgnet.training import LBFGS, LeastSquares, LevenbergMarquardt, Objective, TorchOptimizer

__all__ = ["KANClassifier", "KANRegressor"]

# Name -> the smoother, and how many of its steps make one sweep.
OPTIMIZERS: dict[str, tuple[Smoother, int]] = {
    "lm": (LevenbergMarquardt(), 1),
    "lbfgs": (LBFGS(), 10),
    "adam": (TorchOptimizer(torch.optim.Adam, {"lr": 1e-2}), 50),
}


class KANEstimator(BaseEstimator, ABC):
    """What both estimators share: the parameters, and the training on scaled rows."""

    network_: KAN
    scales_: Scales

    def __init__(
        self,
        hidden: int | Sequence[int] = (8,),
        *,
        intervals: int = 4,
        levels: int = 3,
        degree: int = 3,
        roughness: float = 1e-3,
        optimizer: str = "auto",
        cycle: str = "",
        max_iter: int = 200,
        seconds: float | None = None,
        tol: float = 1e-3,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        random_state: Any = 0,
    ):
        self.hidden = hidden
        self.intervals = intervals
        self.levels = levels
        self.degree = degree
        self.roughness = roughness
        self.optimizer = optimizer
        self.cycle = cycle
        self.max_iter = max_iter
        self.seconds = seconds
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state

    @property
    @abstractmethod
    def _optimizers(self) -> tuple[str, ...]:
        """Names of the optimizers that suit the loss, the default first."""

    def _train(
        self,
        rows: tuple[torch.Tensor, torch.Tensor],
        strata: np.ndarray,
        outputs: int,
        objective: Callable[[KAN, Any, float], Objective],
        budget: TrainingBudget | None,
    ) -> None:
        """Train a network on scaled rows; `objective(network, rows, roughness)` is minimised."""
        name = self._optimizers[0] if self.optimizer == "auto" else self.optimizer
        self._check(name)
        own = budget is None
        if budget is None:
            budget = TrainingBudget(
                self.max_iter,
                seconds=self.seconds or float("inf"),
                window=self.n_iter_no_change,
                patience=self.n_iter_no_change,
                tol=self.tol,
            )
        seed = self.random_state
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(2**31 - 1)
        hidden = np.atleast_1d(np.asarray(self.hidden, dtype=int)).tolist()
        widths = [rows[0].shape[1], *hidden, outputs]
        generator = torch.Generator().manual_seed(int(seed))
        coarsest = KAN(widths, self.intervals, self.degree, generator=generator)
        held_out = None
        if self.early_stopping:
            kept = validation_rows(strata, self.validation_fraction, int(seed))
            if kept.any():  # there may be too few rows
                held_out = objective(coarsest, tuple(part[kept] for part in rows), 0.0)
                rows = rows[0][~kept], rows[1][~kept]
        problem = objective(coarsest, rows, self.roughness)
        smoother, step = OPTIMIZERS[name]
        hierarchy = knot_hierarchy(coarsest, problem, self.levels, smoother)
        level, u = train_within(budget, hierarchy, self.cycle, {str(smoother): step}, held_out)
        self.network_ = hierarchy.network(level, u)  # type: ignore[assignment]
        self.n_iter_ = len(budget.history)
        self.loss_curve_ = [loss for _, _, loss, _ in budget.history]
        if own and budget.interrupted:
            raise KeyboardInterrupt

    def _check(self, optimizer: str) -> None:
        kind = type(self).__name__
        if optimizer not in self._optimizers:
            *others, last = self._optimizers
            raise ValueError(
                f"{kind} got optimizer {self.optimizer!r}; it must be "
                f"{', '.join(['auto', *others])} or {last}"
            )
        if self.max_iter < 1 or self.n_iter_no_change < 1 or not (self.seconds or 1.0) > 0.0:
            raise ValueError(
                f"{kind} got max_iter {self.max_iter}, n_iter_no_change {self.n_iter_no_change} "
                f"and seconds {self.seconds}; they must be positive"
            )
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(
                f"{kind} got validation_fraction {self.validation_fraction}; it must lie between "
                "0 and 1"
            )
        if not self.roughness >= 0.0:
            raise ValueError(f"{kind} got roughness {self.roughness}; it must not be negative")


def validation_rows(strata: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """A mask of rows drawn at random, the same fraction of every stratum, rounded down.

    Examples
    --------
    >>> validation_rows(np.repeat([0, 1], 10), 0.2, seed=0).reshape(2, 10).sum(1)
    array([2, 2])
    """
    order, mask = np.random.default_rng(seed).permutation(len(strata)), np.zeros(len(strata), bool)
    for stratum in np.unique(strata):
        members = order[strata[order] == stratum]
        mask[members[: int(fraction * len(members))]] = True
    return mask


class KANRegressor(RegressorMixin, KANEstimator):
    """Least-squares regression by a Kolmogorov-Arnold network, trained coarse knots first.

    Inputs are scaled to [-1, 1] and targets standardised inside. Every edge of the network is a
    spline; the training starts on few intervals and doubles them when a level is exhausted, which
    changes no value. Beyond the range of the training rows the prediction goes on linearly. Source
    of the training: Southworth et al., arXiv 2603.04827.

    Parameters
    ----------
    hidden : int or sequence of int
        Widths of the hidden layers; empty for a sum of functions of one input each.
    intervals : int
        Of the splines on the coarsest level.
    levels : int
        Each finer level has twice as many intervals.
    degree : int
        Of the splines, 1 to 5.
    roughness : float
        Weight of the integral of the squared second derivative of all edges, for standardised data.
        The default suits tables of some hundred rows; the fewer rows, the more inputs and the more
        noise, the larger. What a grid search should look at first.
    optimizer : "auto", "lm", "lbfgs" or "adam"
        By default Levenberg-Marquardt; its cost grows with the cube of the number of coefficients,
        so above about 5000 take L-BFGS.
    cycle : str
        A schedule over the levels, as "V(1,1)", that is repeated; by default every level once,
        coarsest first, each until it gains little or has used its share of the budget.
    max_iter : int
        Sweeps, of all levels together (the word is scikit-learn's own). One is a step of
        Levenberg-Marquardt, 10 of L-BFGS or 50 of Adam.
    seconds : float, optional
        Another limit; results then depend on the machine.
    tol : float
        The training ends when `n_iter_no_change` sweeps lowered the objective by less than this
        fraction.
    early_stopping : bool
        Keep `validation_fraction` of the rows from training; a level ends when their loss has not
        fallen for `n_iter_no_change` sweeps, and the network that was best on them is returned. So
        they choose the number of knots, too.
    validation_fraction : float
    n_iter_no_change : int
    random_state : int, RandomState instance or None
        Of the initial network and the validation rows.

    Attributes
    ----------
    network_ : KAN
        On scaled inputs, for standardised targets.
    scales_ : Scales
    n_iter_ : int
        Sweeps that were done.
    loss_curve_ : list of float
        Mean squared error of the standardised training rows after each.
    n_features_in_ : int
    feature_names_in_ : array of str
        Where `fit` was given names.

    Examples
    --------
    >>> x = np.random.default_rng(0).uniform(-1.0, 1.0, (300, 2))
    >>> y = np.exp(x[:, 0]) * np.sin(3 * x[:, 1])
    >>> kan = KANRegressor(hidden=4, levels=2, roughness=1e-9, max_iter=40).fit(x[:200], y[:200])
    >>> kan.score(x[200:], y[200:]) > 0.999
    True
    """

    @property
    def _optimizers(self) -> tuple[str, ...]:
        return ("lm", "lbfgs", "adam")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, budget: TrainingBudget | None = None) -> KANRegressor:
        """Train on X of shape (rows, inputs) and y of shape (rows,) or (rows, outputs).

        Parameters
        ----------
        X, y : array-like
        budget : TrainingBudget, optional
            Limits and listeners of your own, in place of `max_iter`, `seconds`, `tol` and
            `n_iter_no_change`. Ctrl-C then ends the training without an error.
        """
        X, y = validate_data(
            self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        self._flat = y.ndim == 1
        y = y.reshape(len(y), -1).astype(float)
        self.scales_ = Scales.of(X, y)
        rows = self.scales_.inputs(X), self.scales_.targets(y)
        self._train(rows, np.zeros(len(X)), y.shape[1], squares, budget)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """(rows, inputs) -> (rows,) or (rows, outputs), as y was."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        y = self.scales_.values(continued(self.network_, self.scales_.inputs(X)))
        return y[:, 0] if self._flat else y


def squares(network: KAN, rows: Any, weight: float) -> LeastSquares:
    """Half the mean squared error, plus half the penalty."""
    penalty = partial(roughness, weight=weight) if weight else None
    return LeastSquares(network, rows, penalty)


class KANClassifier(ClassifierMixin, KANEstimator):
    """Classification by a Kolmogorov-Arnold network: softmax of its outputs, one per class.

    Cross entropy and the penalty are minimised by L-BFGS (or Adam), coarse knots first. Out of the
    range of the training rows the nearest point of the range answers.

    Parameters
    ----------
    hidden, intervals, levels, degree, roughness
        As for `KANRegressor`.
    optimizer : "auto", "lbfgs" or "adam"
        By default L-BFGS.
    cycle, max_iter, seconds, tol
        As for `KANRegressor`.
    early_stopping, validation_fraction, n_iter_no_change
        The same, with the same part of every class.
    random_state : int, RandomState instance or None

    Attributes
    ----------
    classes_ : array of shape (classes,)
    network_ : KAN
        From scaled inputs to logits.
    scales_ : Scales
    n_iter_, loss_curve_
        As for `KANRegressor`; the loss is the objective, penalty included.
    n_features_in_, feature_names_in_

    Examples
    --------
    >>> x = np.random.default_rng(0).uniform(-1.0, 1.0, (300, 2))
    >>> y = np.where(x[:, 0] * x[:, 1] > 0.0, "same", "other")
    >>> kan = KANClassifier(hidden=3, levels=2, max_iter=10).fit(x[:200], y[:200])
    >>> kan.score(x[200:], y[200:]) > 0.9
    True
    """

    @property
    def _optimizers(self) -> tuple[str, ...]:
        return ("lbfgs", "adam")

    def fit(self, X: Any, y: Any, budget: TrainingBudget | None = None) -> KANClassifier:
        """Train on X of shape (rows, inputs) and labels y of shape (rows,), numbers or strings.

        Parameters
        ----------
        X, y : array-like
        budget : TrainingBudget, optional
            As in `KANRegressor.fit`.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"KANClassifier got rows of one class only, {self.classes_[0]!r}; it needs two"
            )
        self.scales_ = Scales.of(X)
        rows = self.scales_.inputs(X), torch.from_numpy(labels)
        self._train(rows, labels, len(self.classes_), entropy, budget)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """(rows, inputs) -> (rows, classes), in the order of `classes_`."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        z = self.scales_.inputs(X).clamp(*self.network_.domain)
        with torch.no_grad():
            return torch.softmax(self.network_(z), 1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """(rows, inputs) -> (rows,), the most probable class."""
        likeliest = self.predict_proba(X).argmax(1)
        return self.classes_[likeliest]


def entropy(network: KAN, rows: Any, weight: float) -> Objective:
    """Mean cross entropy, plus half the penalty."""
    if not weight:
        return Objective(network, torch.nn.functional.cross_entropy, rows)

    def loss(network: Any) -> torch.Tensor:
        outputs = network(rows[0])
        return torch.nn.functional.cross_entropy(outputs, rows[1]) + 0.5 * weight * bending(network)

    return Objective.from_torch(network, loss)


def bending(network: KAN) -> torch.Tensor:
    """The integral of phi''^2, summed over the edges: `|R u|^2` of `roughness`, without its matrix.

    Examples
    --------
    >>> kan = KAN([1, 2, 1])
    >>> u = torch.nn.utils.parameters_to_vector(kan.parameters())
    >>> bool(torch.isclose(bending(kan), (roughness(kan) @ u).square().sum()))
    True
    """
    total = torch.zeros((), dtype=torch.float64)
    for intervals, u in zip(network.intervals, network.coefficients, strict=True):
        bends = torch.einsum("ks,iso->iko", _factor(intervals, network.degree), u)
        total = total + bends.square().sum()
    return total


@lru_cache
def _factor(intervals: int, degree: int) -> torch.Tensor:
    return torch.from_numpy(roughness_factor(intervals, degree))
