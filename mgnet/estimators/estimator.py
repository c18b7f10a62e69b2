"""What both estimators share: parameters, the checks of a table, the training on scaled rows."""

from __future__ import annotations

import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from mgnet.estimators.rows import constant_inputs, distinct_rows, validation_rows
from mgnet.estimators.scales import Scales
from mgnet.estimators.training_budget import TrainingBudget, train_within
from mgnet.knots import KAN, knot_hierarchy
from mgnet.smoother import Smoother
from mgnet.training import LBFGS, LevenbergMarquardt, Objective, TorchOptimizer

__all__ = ["KANEstimator"]

# Name -> the smoother, and how many of its steps make one sweep.
OPTIMIZERS: dict[str, tuple[Smoother, int]] = {
    "lm": (LevenbergMarquardt(), 1),
    "lbfgs": (LBFGS(), 10),
    "adam": (TorchOptimizer(torch.optim.Adam, {"lr": 1e-2}), 50),
}
NAMED = 8  # columns that a warning names
MOST_LEVELS = 64  # that are counted
VECTORS = 20  # of all parameters, that an optimizer holds


class KANEstimator(BaseEstimator, ABC):
    """What both estimators share: the parameters, and the training on scaled rows."""

    network_: KAN
    scales_: Scales
    _single = False  # whether the training rows came in single precision

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
        X: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray | None,
        objective: Callable[[KAN, Any, float], Objective],
        budget: TrainingBudget | None,
    ) -> None:
        """Train a network on scaled rows; `objective(network, rows, roughness)` is minimised.

        `y` holds targets, of shape (rows, outputs), or labels, of shape (rows,).
        """
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
        outputs = y.shape[1] if y.ndim > 1 else len(np.unique(y))
        rows, kept = self._scaled(*distinct_rows(X, y, weights), int(seed))
        hidden = np.atleast_1d(np.asarray(self.hidden, dtype=int)).tolist()
        widths = [rows[0].shape[1], *hidden, outputs]
        self._refuse_too_large(widths, len(rows[0]) * outputs, name)
        generator = torch.Generator().manual_seed(int(seed))
        coarsest = KAN(widths, self.intervals, self.degree, generator=generator)
        held_out = None
        if kept.any():  # there may be too few rows
            held_out = objective(coarsest, _part(rows, kept), 0.0)
            rows = _part(rows, ~kept)
        problem = objective(coarsest, rows, self.roughness)
        smoother, step = OPTIMIZERS[name]
        hierarchy = knot_hierarchy(coarsest, problem, self.levels, smoother)
        level, u = train_within(budget, hierarchy, self.cycle, {str(smoother): step}, held_out)
        self.network_ = hierarchy.network(level, u)  # type: ignore[assignment]
        self.n_iter_ = len(budget.history)
        self.loss_curve_ = [loss for _, _, loss, _ in budget.history]
        if own and budget.interrupted:
            raise KeyboardInterrupt

    def _scaled(
        self, x: np.ndarray, y: np.ndarray, weights: np.ndarray | None, seed: int
    ) -> tuple[tuple[Any, ...], np.ndarray]:
        """Rows as the network takes them, and a mask of those kept from training."""
        kept = np.zeros(len(x), dtype=bool)
        if self.early_stopping:
            strata = kept if y.ndim > 1 else y
            kept = validation_rows(strata, self.validation_fraction, seed, weights)
        constant = constant_inputs(x[~kept], self._single)
        if constant:
            self._warn_constant(constant)
        self.scales_ = Scales.of(x, y if y.ndim > 1 else None, weights, constant)
        targets = self.scales_.targets(y) if y.ndim > 1 else torch.from_numpy(y)
        return (self.scales_.inputs(x), targets, weights), kept

    def _warn_constant(self, constant: Sequence[int]) -> None:
        known = getattr(self, "feature_names_in_", range(constant[-1] + 1))
        shown = ", ".join(str(known[number]) for number in constant[:NAMED])
        if len(constant) > NAMED:
            shown += f" and {len(constant) - NAMED} more"
        warnings.warn(
            f"{type(self).__name__} got the same value in all rows that are trained on in "
            f"{'column' if len(constant) == 1 else 'columns'} {shown}; predictions do not depend "
            f"on {'it' if len(constant) == 1 else 'them'}",
            UserWarning,
            stacklevel=5,
        )

    def _refuse_too_large(self, widths: Sequence[int], residuals: int, optimizer: str) -> None:
        """Count what the finest network takes, before anything is built."""
        told = (self.intervals, self.levels, self.degree)
        if not all(isinstance(number, Integral) and number > 0 for number in told):
            return  # the network refuses it
        splines = self.intervals * 2 ** min(self.levels - 1, MOST_LEVELS) + self.degree
        count = sum(a * b for a, b in pairwise(widths)) * splines
        bent = bool(self.roughness) and "lm" in self._optimizers  # by rows of least squares
        rows = min(residuals + bent * count, count)
        matrices = 6 * rows if optimizer == "lm" else 2 * bent * count
        needed = 8 * count * (matrices + VECTORS)
        if needed > memory_of_machine():
            raise ValueError(
                f"{type(self).__name__} got {widths[0]} inputs, for which the finest network has "
                f"{rounded(count)} parameters; its training takes about {rounded(needed >> 30)} "
                "GiB, more than this machine has, so use fewer inputs, hidden, intervals or levels"
            )

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


def memory_of_machine() -> float:
    """Bytes; infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # no POSIX
        return math.inf


def rounded(count: int) -> str:
    """A count with all its digits, or its magnitude where these are many.

    Examples
    --------
    >>> rounded(1234), rounded(10**40 + 1)
    ('1234', '10^40')
    """
    return str(count) if count < 10**15 else f"10^{len(str(count)) - 1}"


def _part(rows: tuple[Any, ...], kept: np.ndarray) -> tuple[Any, ...]:
    return tuple(None if part is None else part[kept] for part in rows)
