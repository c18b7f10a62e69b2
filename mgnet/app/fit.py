"""The job behind `mgnet fit`: train a KAN on a table by multigrid, and compare it if asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np

from mgnet import Hierarchy, Schedule, Solver
from mgnet.app.model import Model
from mgnet.estimators import KANRegressor
from mgnet.estimators.course import UNLIMITED, Course, endless
from mgnet.options.reader import Values
from mgnet.petsc import solver_from_options

__all__ = ["Data", "Fitted", "Settings", "Trained", "fit", "parameters"]


@dataclass(frozen=True)
class Settings:
    """What `fit` may be told.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers.
    intervals : int
        Spline intervals per edge on the coarsest level; each level above has twice as many.
    degree : int
        Of the splines, 1 to 5.
    levels : int
    cycle : str
        A schedule as text; empty: a cascade whose sweeps per level follow from the budget.
    smoother : "lm", "lbfgs" or "adam"
    seconds : float
        Training time; the budget unless `evaluations` is given.
    evaluations : int or None
        Gradient evaluations of the finest network.
    seed : int
    held_out : float
        Fraction of the rows that is kept from training, between 0 and 1.
    roughness : float
        Weight of the integral of phi''^2 over the edges, for standardised data. The default holds
        the splines where rows are few, and costs nothing where they are many and without noise.
    validation : float
        Fraction of the training rows that decides when to stop, and which network is best; 0 for
        none.

    Examples
    --------
    >>> Settings(hidden=(5,)).levels
    4
    """

    hidden: tuple[int, ...] = (8,)
    intervals: int = 4
    degree: int = 3
    levels: int = 4
    cycle: str = ""
    smoother: str = "lm"
    seconds: float = 20.0
    evaluations: int | None = None
    seed: int = 0
    held_out: float = 0.2
    roughness: float = 1e-12
    validation: float = 0.1


@dataclass(frozen=True)
class Data:
    """The rows of a table, split, inputs and target as they are in the file.

    Attributes
    ----------
    names : tuple of str
        Of the inputs.
    target : str
    x, y : array of shape (rows, inputs), (rows,)
        Training rows.
    x_held, y_held : array
        Held-out rows.

    Examples
    --------
    >>> x, y = np.zeros((2, 1)), np.array([1.0, 3.0])
    >>> data = Data(("T",), "rho", x, y, x[:0], y[:0])
    >>> data.mse(np.array([1.0, 1.0]), data.y)
    2.0
    """

    names: tuple[str, ...]
    target: str
    x: np.ndarray
    y: np.ndarray
    x_held: np.ndarray
    y_held: np.ndarray

    def mse(self, predicted: np.ndarray, true: np.ndarray) -> float:
        """Mean squared error, standardised: over the variance of the training target."""
        return float(np.mean((predicted - true) ** 2) / np.var(self.y))


@dataclass(frozen=True)
class Trained:
    """A trained model, ours or a rival's, with what it cost.

    Attributes
    ----------
    name : str
    predict : callable
        (rows, inputs) -> (rows,), both as in the file.
    parameters : int
    seconds : float
        Training time.
    work : float
        Gradient evaluations of the finest network; nan where that means nothing.
    train_mse, held_mse : float
        Standardised.
    history : tuple of (seconds, work, standardised training MSE, level)
    note : str
        What a reader must know beside the figures.
    """

    name: str
    predict: Callable[[np.ndarray], np.ndarray] = field(repr=False)
    parameters: int
    seconds: float
    work: float
    train_mse: float
    held_mse: float
    history: tuple[tuple[float, float, float, int], ...] = field(default=(), repr=False)
    note: str = ""


def parameters(inputs: int, settings: Settings) -> int:
    """Number of parameters of the finest network.

    Parameters
    ----------
    inputs : int
    settings : Settings

    Examples
    --------
    >>> parameters(2, Settings(hidden=(8,), intervals=4, degree=3, levels=4))
    840
    """
    widths = (inputs, *settings.hidden, 1)
    intervals = settings.intervals * 2 ** (settings.levels - 1)
    return sum(a * b for a, b in pairwise(widths)) * (intervals + settings.degree)


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `fit` returns.

    Attributes
    ----------
    model : Model
        The best that was met.
    trained : Trained
    hierarchy : Hierarchy
    schedule : Schedule
    interrupted : bool
        Whether Ctrl-C ended the training.
    """

    model: Model
    trained: Trained
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
    >>> x = np.linspace(0.0, 1.0, 200)[:, None]
    >>> data = Data(("x",), "y", x, np.sin(9 * x[:, 0]), x, np.sin(9 * x[:, 0]))
    >>> fitted = fit(data, Settings(hidden=(3,), levels=2, evaluations=100, seconds=10.0))
    >>> fitted.trained.held_mse < 1e-3
    True
    """
    steered = partial(solver_of_options, prefix)
    course = Course(*limits(settings), progress=progress, announce=announce, solver=steered)
    estimator = regressor(settings).fit(data.x, data.y, course=course)
    scales = estimator.scales_
    numbers = scales.mean[0], scales.scale[0]
    model = Model(estimator.network_, data.names, data.target, scales.ranges, *numbers)
    trained = Trained(
        name,
        model.predict,
        sum(p.numel() for p in model.network.parameters()),
        course.seconds,
        course.work,
        data.mse(model.predict(data.x), data.y),
        data.mse(model.predict(data.x_held), data.y_held) if len(data.y_held) else float("nan"),
        tuple(course.history),
    )
    return Fitted(model, trained, course.hierarchy, course.schedule, course.interrupted)


def limits(settings: Settings) -> tuple[float, float, float]:
    """The budget as `Course` takes it: sweeps, evaluations, seconds."""
    if settings.evaluations is None:
        return math.inf, math.inf, settings.seconds
    return math.inf, settings.evaluations, math.inf


def regressor(settings: Settings) -> KANRegressor:
    """The estimator of these settings; its own limits are left to a `Course`."""
    return KANRegressor(
        settings.hidden,
        intervals=settings.intervals,
        levels=settings.levels,
        degree=settings.degree,
        roughness=settings.roughness,
        solver=settings.smoother,
        cycle=settings.cycle,
        early_stopping=settings.validation > 0.0,
        validation_fraction=settings.validation or 0.1,
        random_state=settings.seed,
    )


def solver_of_options(prefix: str, hierarchy: Hierarchy, cycle: str) -> Solver:
    """The solver that PETSc's options make of a hierarchy and a cycle."""
    values = Values(prefix)
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
