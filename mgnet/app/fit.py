"""The job behind `mgnet fit`: train a KAN on a table by multigrid, and compare it if asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from mgnet import Hierarchy, Schedule, Solver, cascade, run
from mgnet.app.course import Course, timed
from mgnet.app.model import Model
from mgnet.knots import KAN, knot_hierarchy, roughness
from mgnet.petsc import solver_from_options
from mgnet.petsc.options import Values
from mgnet.smoother import Smoother
from mgnet.training import LBFGS, LeastSquares, LevenbergMarquardt, TorchOptimizer

__all__ = ["Data", "Fitted", "Settings", "Trained", "fit", "parameters"]

# Weight of the integral of phi''^2 over the edges, for standardised data: holds the splines where
# rows are few, and costs nothing where they are many.
SMOOTHNESS = 1e-12
UNLIMITED = 10**6  # sweeps: the course ends them


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


def smoothers(name: str) -> tuple[Smoother, int]:
    """The smoother of a name in `Settings`, and how many of its steps make one sweep."""
    if name == "lm":
        return LevenbergMarquardt(), 1
    if name == "lbfgs":
        return LBFGS(), 10
    if name == "adam":
        return TorchOptimizer(torch.optim.Adam, {"lr": 1e-2}), 50
    raise ValueError(f"fit got smoother '{name}'; it must be lm, lbfgs or adam")


def scaled(data: Data, network: KAN) -> tuple[Model, tuple[torch.Tensor, torch.Tensor]]:
    """An untrained model with the scales of the training rows, and these rows on its scales."""
    ranges = tuple(zip(data.x.min(0).tolist(), data.x.max(0).tolist(), strict=True))
    mean, scale = float(data.y.mean()), float(data.y.std())
    model = Model(network, data.names, data.target, ranges, mean, scale)
    return model, (model.inputs(data.x), torch.from_numpy((data.y - mean) / scale).unsqueeze(1))


def fit(
    data: Data,
    settings: Settings,
    progress: Callable[[float, float, float, int], None] | None = None,
    announce: Callable[[Hierarchy, Schedule], None] | None = None,
    name: str = "KAN, multigrid",
    prefix: str = "",
) -> Fitted:
    """Train a KAN on a table, coarse knots first.

    Without a cycle in the settings the training is a cascade: every level until it stagnates or has
    used its share of the budget (30 % for all but the finest). Ctrl-C ends the training and keeps
    the best network so far.

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
    began = time.perf_counter()
    inner, step = smoothers(settings.smoother)
    generator = torch.Generator().manual_seed(settings.seed)
    widths = (len(data.names), *settings.hidden, 1)
    coarsest = KAN(widths, settings.intervals, settings.degree, generator=generator)
    model, rows = scaled(data, coarsest)
    problem = LeastSquares(coarsest, rows, partial(roughness, weight=SMOOTHNESS))
    course = Course(began, settings.seconds, settings.evaluations, settings.levels, progress)
    hierarchy = knot_hierarchy(coarsest, problem, settings.levels, inner)
    solver = steered(hierarchy, settings.cycle, prefix, {str(inner): step}, course)
    hierarchy, schedule = solver.hierarchy, solver.schedule
    if announce is not None:
        announce(hierarchy, schedule)
    interrupted = train(solver, course)
    level, u = course.best()
    network = hierarchy.network(level, u)  # type: ignore[misc]
    model = Model(network, data.names, data.target, model.ranges, model.mean, model.scale)
    trained = Trained(
        name,
        model.predict,
        len(u),
        course.seconds,
        course.work,
        data.mse(model.predict(data.x), data.y),
        data.mse(model.predict(data.x_held), data.y_held) if len(data.y_held) else float("nan"),
        tuple(course.history),
    )
    return Fitted(model, trained, hierarchy, schedule, interrupted)


def steered(
    hierarchy: Hierarchy, cycle: str, prefix: str, steps: dict[str, int], course: Course
) -> Solver:
    """The solver that PETSc's options make of a hierarchy and a cycle, ended by the course.

    Without a cycle it is a cascade by shares of the budget. What only goes upward is done once.
    """
    values = Values(prefix)
    for name in ("rtol", "atol"):
        if values.text(f"mgnet_{name}") is not None:
            raise ValueError(f"option {values.shown(name)}: a fit ends with its budget; set that")
    count = values.get("levels", len(hierarchy))
    default = "cascade " + ",".join([str(UNLIMITED)] * count)
    solver = solver_from_options(
        hierarchy, prefix=prefix, cycle=cycle or default, max_cycles=UNLIMITED
    )
    for level in solver.hierarchy:
        for smoother in filter(None, (level.smoother, level.post_smoother)):
            try:
                smoother.start(level, level.operator.start())
            except TypeError as error:  # an option brought one that needs a matrix, for example
                raise ValueError(f"{smoother} cannot train this network: {error}") from None
    hierarchy, schedule = timed(solver.hierarchy, steps, course), solver.schedule
    course.follow(hierarchy, by_share=schedule == cascade([UNLIMITED] * len(hierarchy)))
    upward = len(hierarchy) > 1 and all(step.action != "down" for step in schedule)
    cycles = 1 if upward and solver.max_cycles == UNLIMITED else solver.max_cycles
    return Solver(hierarchy, schedule, max_cycles=cycles, monitor=solver.monitor)


def train(solver: Solver, course: Course) -> bool:
    """Repeat a solver's cycle until the budget is used; say whether Ctrl-C came.

    Unlike `Solver.solve` it takes no gradients between the cycles, unless there is a monitor.
    """
    hierarchy, schedule = solver.hierarchy, solver.schedule
    u, memory = hierarchy[0].operator.start(), None
    try:
        _tell(solver, 0, u)
        for cycle in range(1, solver.max_cycles + 1):
            work = course.work
            u, memory = run(schedule, hierarchy, u, None, memory)
            _tell(solver, cycle, u)
            if course.exhausted or course.work == work:  # a schedule without sweeps
                break
            schedule = Schedule(solver.schedule[solver.schedule.opening :])
    except KeyboardInterrupt:
        course.best()  # without a network there is nothing to keep: the interrupt goes on
        return True
    return False


def _tell(solver: Solver, cycle: int, u: torch.Tensor) -> None:
    if solver.monitor is not None:
        norm = solver.hierarchy.norm(solver.hierarchy[0].residual_at(u, None))
        solver.monitor(cycle, norm, u)
