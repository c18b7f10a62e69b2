"""What both estimators share: parameters, checks of their values, and training on scaled rows."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import inf
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from mgnet.estimators.budgeted_training import train_within
from mgnet.estimators.ensembles import check_ensemble, trained_ensembles
from mgnet.estimators.evidence.ensemble import Ensemble
from mgnet.estimators.rows import constant_inputs, distinct_rows, validation_rows
from mgnet.estimators.scales import Scales
from mgnet.estimators.training_budget import SweepLines, TrainingBudget
from mgnet.estimators.weights import counted_rows
from mgnet.knots import KAN, KnotSolver, knot_hierarchy
from mgnet.limits import doubled, is_count, is_whole, shown, written
from mgnet.smoother import Smoother
from mgnet.training import LBFGS, LevenbergMarquardt, NewtonKrylov, Objective, TorchOptimizer

__all__ = ["KANEstimator"]

DIRECT = 5000  # parameters; above it, systems of Levenberg-Marquardt are solved iteratively
MOST_PARAMETERS = 1_000_000  # for this number L-BFGS stores 1.6 GB

# Name -> the smoother, and how many of its steps make one sweep.
OPTIMIZERS: dict[str, tuple[Smoother, int]] = {
    "lm": (LevenbergMarquardt(linear_solver=NewtonKrylov(KnotSolver(), direct=DIRECT)), 1),
    "lbfgs": (LBFGS(), 10),
    "adam": (TorchOptimizer(torch.optim.Adam, {"lr": 1e-2}), 50),
}
# Meaning of "auto" for the training of a single network.
SINGLE = {"hidden": (8,), "intervals": 4, "levels": 3, "roughness": 1e-3}
NAMED = 8  # columns listed in a warning


class KANEstimator(BaseEstimator, ABC):
    """What both estimators share: their parameters, and the training on scaled rows."""

    network_: KAN
    scales_: Scales
    ensembles_: list[Ensemble]
    _single = False  # whether the training rows were in single precision

    def __init__(
        self,
        hidden: int | Sequence[int] | str = "auto",
        *,
        ensemble: int = 5,
        intervals: int | Sequence[int] | str = "auto",
        levels: int | str = "auto",
        most_intervals: int | Sequence[int | None] | None = None,
        degree: int = 3,
        roughness: float | str = "auto",
        optimizer: str = "auto",
        cycle: str = "",
        n_init: int | str = "auto",
        max_iter: int = 200,
        seconds: float | None = None,
        tol: float = 1e-3,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        random_state: Any = 0,
        verbose: bool = False,
    ):
        self.hidden = hidden
        self.ensemble = ensemble
        self.intervals = intervals
        self.levels = levels
        self.most_intervals = most_intervals
        self.degree = degree
        self.roughness = roughness
        self.optimizer = optimizer
        self.cycle = cycle
        self.n_init = n_init
        self.max_iter = max_iter
        self.seconds = seconds
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state = random_state
        self.verbose = verbose

    @property
    @abstractmethod
    def _optimizers(self) -> tuple[str, ...]:
        """Names of the optimizers that can minimize this loss; the first is the default."""

    def _forget(self) -> None:
        """Remove the results of an earlier fit, so that a failed fit leaves none of them."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)

    def _train(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray | None,
        objective: Callable[[KAN, Any, float], Objective],
        budget: TrainingBudget | None,
        factors: np.ndarray | None = None,
    ) -> None:
        """Train a network on scaled rows; `objective(network, rows, roughness)` is minimized.

        `y` contains targets, of shape (rows, outputs), or labels, of shape (rows,). With labels,
        the weights of rows are multiplied by the factors of their classes.
        """
        name = self._optimizers[0] if self.optimizer == "auto" else self.optimizer
        self._check(name)
        if not isinstance(budget, TrainingBudget | None):
            raise TypeError(
                f"{type(self).__name__} got budget {shown(budget)}; it must be a TrainingBudget"
            )
        if self.ensemble > 1:
            self._train_ensemble(X, y, weights, budget, factors)
            return
        own = budget is None
        if budget is None:
            budget = TrainingBudget(
                self.max_iter,
                seconds=inf if self.seconds is None else float(self.seconds),
                window=self.n_iter_no_change,
                patience=self.n_iter_no_change,
                tol=self.tol,
                progress=SweepLines() if self.verbose else None,
            )
        if factors is not None:
            weights = factors[y] * (1.0 if weights is None else weights)
        seed = self._seed()
        outputs = y.shape[1] if y.ndim > 1 else len(np.unique(y))
        rows, kept = self._scaled(*distinct_rows(X, y, weights), seed)
        widths = [rows[0].shape[1], *self._hidden(), outputs]
        self._check_size(widths)
        generator = torch.Generator().manual_seed(seed)
        coarsest = KAN(widths, self._own("intervals"), self.degree, generator=generator)
        held_out = None
        if kept.any():  # there may be too few rows
            held_out = objective(coarsest, _part(rows, kept), 0.0)
            rows = _part(rows, ~kept)
        problem = objective(coarsest, rows, self._own("roughness"))
        (smoother, step), levels = OPTIMIZERS[name], self._own("levels")
        hierarchy = knot_hierarchy(
            coarsest, problem, levels, smoother, most_intervals=self.most_intervals
        )
        starts = None if self.n_init == "auto" else int(self.n_init)
        level, u = train_within(
            budget, hierarchy, self.cycle, {str(smoother): step}, held_out, starts, seed
        )
        self.network_ = hierarchy.network(level, u)  # type: ignore[assignment]
        self.ensembles_ = []
        self.n_iter_ = len(budget.history)
        self.loss_curve_ = [loss for _, _, loss, _ in budget.history]
        if own and budget.interrupted:
            raise KeyboardInterrupt

    def _seed(self) -> int:
        seed: Any = self.random_state
        if isinstance(seed, Integral) and not is_whole(seed):
            raise ValueError(
                f"{type(self).__name__} got random_state {shown(seed)}; it must be at least 0 and "
                "less than 2**63"
            )
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(2**31 - 1)
        return int(seed)

    def _train_ensemble(
        self,
        X: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray | None,
        budget: TrainingBudget | None,
        factors: np.ndarray | None,
    ) -> None:
        """Train an ensemble on all rows."""
        X, y, counts, times = counted_rows(X, y, weights, factors)
        self._scale(X, y, counts, constant_inputs(X, self._single))
        x = self.scales_.inputs(X).numpy()
        targets = self.scales_.targets(y).numpy() if y.ndim > 1 else y
        found = trained_ensembles(self, x, targets, counts, times, budget)
        self.network_, self.ensembles_ = found.network, found.ensembles
        self.n_iter_ = sum(own.levels for own in found.ensembles)
        self.loss_curve_ = [loss for own in found.ensembles for loss in own.losses]
        if budget is None and found.interrupted:
            raise KeyboardInterrupt

    def _scale(
        self, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None, constant: list[int]
    ) -> None:
        if constant:
            self._warn_constant(constant)
        self.scales_ = Scales.of(x, y if y.ndim > 1 else None, weights, constant)

    def _scaled(
        self, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None, seed: int
    ) -> tuple[tuple[Any, ...], np.ndarray]:
        """Rows in the units of the network, and a mask of those excluded from training."""
        kept = np.zeros(len(x), dtype=bool)
        if self.early_stopping:
            strata = kept if y.ndim > 1 else y
            kept = validation_rows(strata, self.validation_fraction, seed, weights)
        self._scale(x, y, weights, constant_inputs(x[~kept], self._single))
        targets = self.scales_.targets(y) if y.ndim > 1 else torch.from_numpy(y)
        return (self.scales_.inputs(x), targets, weights), kept

    def _warn_constant(self, constant: Sequence[int]) -> None:
        known = getattr(self, "feature_names_in_", range(constant[-1] + 1))
        shown = ", ".join(str(known[number]) for number in constant[:NAMED])
        if len(constant) > NAMED:
            shown += f" and {len(constant) - NAMED} more"
        warnings.warn(
            f"{type(self).__name__} got the same value in all training rows in "
            f"{'column' if len(constant) == 1 else 'columns'} {shown}; predictions do not depend "
            f"on {'it' if len(constant) == 1 else 'them'}",
            UserWarning,
            stacklevel=6,
        )

    def _own(self, name: str) -> Any:
        """The value of a parameter; "auto" is replaced with its meaning for a single network."""
        value = getattr(self, name)
        return SINGLE.get(name, value) if isinstance(value, str) and value == "auto" else value

    def _hidden(self) -> list[int]:
        """The widths of the hidden layers."""
        given = self._own("hidden")
        given = given.tolist() if isinstance(given, np.ndarray) else given
        widths = list(given) if isinstance(given, Sequence) else [given]
        if not all(map(is_count, widths)):
            raise ValueError(
                f"{type(self).__name__} got hidden {shown(given)}; give a positive integer, or a "
                "sequence of them"
            )
        return [int(width) for width in widths]

    def _check_size(self, widths: Sequence[int]) -> None:
        """Check the size of the finest network before the coarsest is built."""
        kind, per_layer, levels = type(self).__name__, self._own("intervals"), self._own("levels")
        if not isinstance(per_layer, Sequence):
            per_layer = [per_layer] * (len(widths) - 1)
        known = all(map(is_count, per_layer)) and len(per_layer) == len(widths) - 1
        if not known or not is_count(levels) or not is_count(self.degree):
            raise ValueError(
                f"{kind} got intervals {shown(self.intervals)}, levels {shown(self.levels)} and "
                f"degree {shown(self.degree)}; give positive integers"
            )
        times = min(int(levels), 1000) - 1
        most = self.most_intervals
        own = most if isinstance(most, Sequence) and len(most) == len(per_layer) else [most]
        caps: list[Any] = [cap if is_count(cap) else inf for cap in own]
        caps *= len(per_layer) // len(own)
        edges = zip(widths[:-1], widths[1:], per_layer, caps, strict=True)
        count = sum(
            p * q * (doubled(int(n), times, cap) + int(self.degree)) for p, q, n, cap in edges
        )
        if count > MOST_PARAMETERS:
            raise ValueError(
                f"{kind} got intervals {shown(self.intervals)} and levels {shown(self.levels)} for "
                f"the widths {shown(list(widths))}: the finest network has {written(count)} "
                f"parameters, and more than {MOST_PARAMETERS} are not trained here; use fewer "
                "levels, intervals or hidden"
            )

    def _check(self, optimizer: str) -> None:
        kind = type(self).__name__
        check_ensemble(self)
        if optimizer not in self._optimizers:
            *others, last = self._optimizers
            raise ValueError(
                f"{kind} got optimizer {self.optimizer!r}; it must be "
                f"{', '.join(['auto', *others])} or {last}"
            )
        if self.n_init != "auto" and not is_count(self.n_init):
            raise ValueError(
                f'{kind} got n_init {shown(self.n_init)}; it must be a positive integer or "auto"'
            )
        if not isinstance(self.verbose, bool | np.bool_):
            raise ValueError(f"{kind} got verbose {shown(self.verbose)}; it must be True or False")
        numbers: dict[str, Any] = {
            name: self._own(name)
            for name in (
                "max_iter",
                "n_iter_no_change",
                "seconds",
                "tol",
                "validation_fraction",
                "roughness",
            )
        }
        for name, value in numbers.items():
            missing = name == "seconds" and value is None
            plain = isinstance(value, Real) and not isinstance(value, bool)
            huge = isinstance(value, Integral) and abs(value) >= 2**63
            if not missing and (not plain or huge or value != value):
                raise ValueError(f"{kind} got {name} {shown(value)}; it must be a number")
        limits = self.max_iter, self.n_iter_no_change, 1.0 if self.seconds is None else self.seconds
        if not all(limit > 0 for limit in limits) or min(limits[:2]) < 1:
            raise ValueError(
                f"{kind} got max_iter {self.max_iter}, n_iter_no_change {self.n_iter_no_change} "
                f"and seconds {self.seconds}; they must be positive"
            )
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(
                f"{kind} got validation_fraction {self.validation_fraction}; it must lie between "
                "0 and 1"
            )
        if not 0.0 <= numbers["roughness"] < np.inf:
            raise ValueError(
                f"{kind} got roughness {numbers['roughness']}; it must be finite and not negative"
            )


def _part(rows: tuple[Any, ...], kept: np.ndarray) -> tuple[Any, ...]:
    return tuple(None if part is None else part[kept] for part in rows)
