"""The training behind `mgnet fit`: a KAN on the rows of a table, by multigrid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mgnet import Hierarchy, Schedule, Solver
from mgnet.app.columns.encoding import Encoding
from mgnet.app.data import Data, Settings, Trained, intervals_on
from mgnet.app.ensemble_text import ensemble_text
from mgnet.app.files.columns import listed
from mgnet.app.model import Model
from mgnet.estimators import KANClassifier, KANRegressor
from mgnet.estimators.evidence.ensemble import Ensemble
from mgnet.estimators.rows import (
    checked_weights,
    constant_inputs,
    distinct_rows,
    validation_rows,
)
from mgnet.estimators.training_budget import UNLIMITED, TrainingBudget, endless
from mgnet.options import solver_from_options
from mgnet.options.reader import OptionReader

__all__ = ["Fitted", "fit", "without_constants"]

ENSEMBLE = "KAN ensemble"


@dataclass(frozen=True, eq=False)
class Fitted:
    """The result of `fit`.

    Attributes
    ----------
    model : Model
        The best model found.
    trained : Trained
        The model with its cost and errors.
    settings : Settings
        Settings, including changes by PETSc's options.
    hierarchy : Hierarchy or None
        Hierarchy of the training; None for an ensemble.
    schedule : Schedule or None
        Schedule of the training; None for an ensemble.
    ensembles : sequence of Ensemble
        One ensemble for each target, or one for all classes; empty for a single network.
    interrupted : bool
        Whether Ctrl-C ended the training.
    """

    model: Model
    trained: Trained
    settings: Settings
    hierarchy: Hierarchy | None
    schedule: Schedule | None
    interrupted: bool
    ensembles: Sequence[Ensemble] = ()

    @property
    def summary(self) -> str:
        """A description of the hierarchy and the schedule, or of the ensemble."""
        if self.ensembles:
            targets = self.model.targets
            return ensemble_text(
                self.ensembles, targets.outputs, "log loss" if targets.classes else "MSE"
            )
        return f"{self.hierarchy}\n\n{self.schedule}"


def fit(
    data: Data,
    settings: Settings,
    progress: Callable[[float, float, float, int], None] | None = None,
    announce: Callable[[Hierarchy | None, Schedule | None], None] | None = None,
    name: str = "KAN, multigrid",
    prefix: str = "",
    interruptible: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Fitted:
    """Train a KAN on a table, coarse knots first.

    The training uses `KANRegressor`, or `KANClassifier` for classes: an ensemble, or a single
    network. Without a cycle in the settings, the training of a single network is a cascade: every
    level runs until it stagnates, its validation loss no longer decreases, or its share of the
    budget is used (30 % for all but the finest). Ctrl-C ends the training and keeps the best
    network so far.

    Parameters
    ----------
    data : Data
        Training and held-out rows.
    settings : Settings
        Settings of the training.
    progress : callable, optional
        `(seconds, fraction of the budget, training MSE, level)`, called after every sweep.
    announce : callable, optional
        `(hierarchy, schedule)`, called before the training; both are None for an ensemble.
    name : str
        Name of the model in tables.
    prefix : str
        Prefix of the PETSc options for the training: see `mgnet.petsc.solver_from_options`.
    interruptible : callable
        The same as for `TrainingBudget`.

    Returns
    -------
    Fitted
        The result; its model omits inputs that did not vary.

    Raises
    ------
    ValueError
        If settings or options do not fit the data; this is raised before `announce` is called.

    Examples
    --------
    >>> from mgnet.app.columns.targets import Targets
    >>> x = np.linspace(0.0, 1.0, 200)[:, None]
    >>> data = Data(("x",), Targets(("y",)), x, np.sin(9 * x[:, 0]), x, np.sin(9 * x[:, 0]))
    >>> fitted = fit(data, Settings(hidden=(3,), levels=2, evaluations=100, seconds=10.0))
    >>> fitted.trained.held_loss < 1e-3
    True
    """
    steered = partial(solver_of_options, prefix)
    budget = TrainingBudget(
        *limits(settings),
        progress=progress,
        interruptible=interruptible,
        announce=announce,
        solver=steered,
    )
    if settings.ensemble > 1 and announce is not None:
        announce(None, None)
    estimator = trained_estimator(data, settings, budget)
    scales = estimator.scales_
    used = np.delete(np.arange(len(data.names)), scales.left_out)
    encoding = data.encoding or Encoding.of_numbers(data.names)
    if scales.left_out:
        encoding = encoding.without(data.names[number] for number in scales.left_out)
    network = estimator.network_
    model = Model(network, encoding, data.targets, scales.narrowed())
    predict = model.predict if len(used) == len(data.names) else _of_columns(used, model.predict)
    losses, history = data.losses(predict), tuple(budget.history)
    if settings.ensemble > 1:
        history, budget.work = ((budget.seconds, math.nan, losses[0], 0),), math.nan
        name = ENSEMBLE
    trained = Trained(
        name,
        predict,
        sum(p.numel() for p in network.parameters()),
        budget.seconds,
        budget.work,
        *losses,
        history,
    )
    if settings.ensemble > 1:
        own = estimator.ensembles_
        return Fitted(model, trained, settings, None, None, budget.interrupted, own)
    changed = _in_effect(settings, prefix, budget.hierarchy)
    return Fitted(model, trained, changed, budget.hierarchy, budget.schedule, budget.interrupted)


def _of_columns(
    used: np.ndarray, predict: Callable[[np.ndarray], np.ndarray]
) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: predict(x[:, used])


def without_constants(data: Data, settings: Settings) -> tuple[Data, tuple[str, ...]]:
    """The rows, without the inputs that do not vary in training, and the names of these inputs.

    Parameters
    ----------
    data : Data
        Training and held-out rows.
    settings : Settings
        Settings of the training.

    Raises
    ------
    ValueError
        If no input varies.

    Examples
    --------
    >>> from mgnet.app.columns.targets import Targets
    >>> x, y = np.column_stack([np.arange(9.0), np.ones(9)]), np.arange(9.0)
    >>> data = Data(("a", "b"), Targets(("y",)), x, y, x, y)
    >>> data, constant = without_constants(data, Settings())
    >>> data.names, constant
    (('a',), ('b',))
    """
    names, left = data.names, set[str]()
    encoding = data.encoding or Encoding.of_numbers(names)
    while constant := _constant(data, settings):
        if len(constant) == len(data.names):
            raise ValueError(
                "no input varies in the training rows "
                f"({listed(encoding.columns)}); there is nothing to fit"
            )
        left |= {data.names[number] for number in constant}
        data = replace(
            data,
            names=tuple(name for name in data.names if name not in left),
            x=np.delete(data.x, constant, 1),
            x_held=np.delete(data.x_held, constant, 1),
            encoding=encoding.without(left),
        )
    return data, tuple(encoding.columns_of(left))


def _constant(data: Data, settings: Settings) -> list[int]:
    """Numbers of the inputs that the estimators treat as constant."""
    x, y, weights = data.x, data.y, checked_weights("mgnet fit", data.weights, data.x)
    x, y, weights = distinct_rows(x, y, weights)
    if settings.ensemble > 1:
        return constant_inputs(x)
    strata = y if data.targets.classes else np.zeros(len(y))
    kept = validation_rows(strata, settings.validation, settings.seed, weights)
    return constant_inputs(x[~kept])


def limits(settings: Settings) -> tuple[float, float, float]:
    """The limits for `TrainingBudget`: sweeps, evaluations, seconds."""
    if settings.evaluations is None:
        return math.inf, math.inf, settings.seconds
    return math.inf, settings.evaluations, math.inf


def trained_estimator(
    data: Data, settings: Settings, budget: TrainingBudget
) -> KANRegressor | KANClassifier:
    """The estimator with these settings, fitted; the budget replaces the estimator's own limits."""
    kind = KANClassifier if data.targets.classes else KANRegressor
    most = settings.most_intervals
    if settings.ensemble > 1:
        several = kind(
            ensemble=settings.ensemble, degree=settings.degree, random_state=settings.seed
        )
        return several.fit(data.x, data.y, data.weights, budget=budget)
    estimator = kind(
        settings.hidden,
        ensemble=1,
        intervals=settings.intervals,
        levels=settings.levels,
        degree=settings.degree,
        roughness=settings.roughness,
        optimizer=settings.optimizer,
        most_intervals=most[0] if len(most) == 1 else most or None,
        cycle=settings.cycle,
        n_init="auto" if settings.starts is None else settings.starts,
        early_stopping=settings.validation > 0.0,
        validation_fraction=settings.validation or 0.1,
        random_state=settings.seed,
    )
    return estimator.fit(data.x, data.y, data.weights, budget=budget)


def solver_of_options(prefix: str, hierarchy: Hierarchy, cycle: str) -> Solver:
    """The solver for a hierarchy and a cycle, changed by PETSc's options."""
    values = OptionReader(prefix)
    budget = "a fit ends with its budget; set that"
    best = "a fit keeps the best network, and combines none; leave it out"
    wrong = {"rtol": budget, "atol": budget, "seconds": budget, "acceleration": best}
    for name, why in wrong.items():
        if values.text(f"mgnet_{name}") is not None:
            raise ValueError(f"option {values.shown(name)}: {why}")
    cycle = cycle or endless(values.get("levels", len(hierarchy)))
    solver = solver_from_options(hierarchy, prefix=prefix, cycle=cycle, max_cycles=UNLIMITED)
    for level in solver.hierarchy:
        for smoother in filter(None, (level.smoother, level.post_smoother)):
            try:
                smoother.start(level, level.operator.start())
            except TypeError as error:  # for example, an option chose one that needs a matrix
                raise ValueError(f"{smoother} cannot train this network: {error}") from None
    return solver


def _in_effect(settings: Settings, prefix: str, hierarchy: Hierarchy) -> Settings:
    """The settings, including changes by PETSc's options."""
    values, levels = OptionReader(prefix), len(hierarchy)
    return replace(
        settings,
        intervals=intervals_on(settings, settings.levels - levels),
        levels=levels,
        cycle=values.get("cycle", settings.cycle),
        optimizer=values.get("smoother", settings.optimizer),
    )
