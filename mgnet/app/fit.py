"""The job behind `mgnet fit`: train a KAN on a table by multigrid, and compare it if asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from mgnet import Hierarchy, Schedule, Solver
from mgnet.app.data import Data, Settings, Trained
from mgnet.app.model import Model
from mgnet.estimators import KANRegressor
from mgnet.estimators.training_budget import UNLIMITED, TrainingBudget, endless
from mgnet.options import solver_from_options
from mgnet.options.reader import OptionReader

__all__ = ["Fitted", "fit"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `fit` returns.

    Attributes
    ----------
    model : Model
        The best that was met.
    trained : Trained
    settings : Settings
        As PETSc's options changed them.
    hierarchy : Hierarchy
    schedule : Schedule
    interrupted : bool
        Whether Ctrl-C ended the training.
    """

    model: Model
    trained: Trained
    settings: Settings
    hierarchy: Hierarchy
    schedule: Schedule
    interrupted: bool


def fit(
    data: Data,
    settings: Settings,
    progress: Callable[[float, float, float, int], None] | None = None,
    announce: Callable[[Hierarchy, Schedule], None] | None = None,
    name: str = "KAN, multigrid",
    prefix: str = "",
) -> Fitted:
    """Train a KAN on a table, coarse knots first.

    By `KANRegressor`. Without a cycle in the settings the training is a cascade: every level until
    it stagnates, the loss over the validation rows falls no longer, or its share of the budget is
    used (30 % for all but the finest). Ctrl-C ends the training and keeps the best network so far.

    Parameters
    ----------
    data : Data
    settings : Settings
    progress : callable, optional
        `(seconds, fraction of the budget, training MSE, level)`, after every sweep.
    announce : callable, optional
        `(hierarchy, schedule)`, before the training.
    name : str
        For the tables.
    prefix : str
        Of the PETSc options that steer the training: see `mgnet.petsc.solver_from_options`.

    Returns
    -------
    Fitted

    Raises
    ------
    ValueError
        For settings or options that do not fit, before anything is announced.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(0.0, 1.0, 200)[:, None]
    >>> data = Data(("x",), "y", x, np.sin(9 * x[:, 0]), x, np.sin(9 * x[:, 0]))
    >>> fitted = fit(data, Settings(hidden=(3,), levels=2, evaluations=100, seconds=10.0))
    >>> fitted.trained.held_mse < 1e-3
    True
    """
    steered = partial(solver_of_options, prefix)
    budget = TrainingBudget(*limits(settings), progress=progress, announce=announce, solver=steered)
    estimator = regressor(settings).fit(data.x, data.y, budget=budget)
    model = Model(estimator.network_, data.names, data.target, estimator.scales_)
    trained = Trained(
        name,
        model.predict,
        sum(p.numel() for p in model.network.parameters()),
        budget.seconds,
        budget.work,
        data.mse(model.predict(data.x), data.y),
        data.mse(model.predict(data.x_held), data.y_held) if len(data.y_held) else float("nan"),
        tuple(budget.history),
    )
    changed = _in_effect(settings, prefix, budget.hierarchy)
    return Fitted(model, trained, changed, budget.hierarchy, budget.schedule, budget.interrupted)


def limits(settings: Settings) -> tuple[float, float, float]:
    """The budget as `TrainingBudget` takes it: sweeps, evaluations, seconds."""
    if settings.evaluations is None:
        return math.inf, math.inf, settings.seconds
    return math.inf, settings.evaluations, math.inf


def regressor(settings: Settings) -> KANRegressor:
    """The estimator of these settings; its own limits are left to a `TrainingBudget`."""
    return KANRegressor(
        settings.hidden,
        intervals=settings.intervals,
        levels=settings.levels,
        degree=settings.degree,
        roughness=settings.roughness,
        optimizer=settings.optimizer,
        cycle=settings.cycle,
        early_stopping=settings.validation > 0.0,
        validation_fraction=settings.validation or 0.1,
        random_state=settings.seed,
    )


def solver_of_options(prefix: str, hierarchy: Hierarchy, cycle: str) -> Solver:
    """The solver that PETSc's options make of a hierarchy and a cycle."""
    values = OptionReader(prefix)
    budget = "a fit ends with its budget; set that"
    best = "a fit keeps the best network, and combines none; leave it out"
    for name, why in (("rtol", budget), ("atol", budget), ("acceleration", best)):
        if values.text(f"mgnet_{name}") is not None:
            raise ValueError(f"option {values.shown(name)}: {why}")
    cycle = cycle or endless(values.get("levels", len(hierarchy)))
    solver = solver_from_options(hierarchy, prefix=prefix, cycle=cycle, max_cycles=UNLIMITED)
    for level in solver.hierarchy:
        for smoother in filter(None, (level.smoother, level.post_smoother)):
            try:
                smoother.start(level, level.operator.start())
            except TypeError as error:  # an option brought one that needs a matrix, for example
                raise ValueError(f"{smoother} cannot train this network: {error}") from None
    return solver


def _in_effect(settings: Settings, prefix: str, hierarchy: Hierarchy) -> Settings:
    """The settings as PETSc's options changed them."""
    values, levels = OptionReader(prefix), len(hierarchy)
    return replace(
        settings,
        intervals=settings.intervals * 2 ** (settings.levels - levels),
        levels=levels,
        cycle=values.get("cycle", settings.cycle),
        optimizer=values.get("smoother", settings.optimizer),
    )
