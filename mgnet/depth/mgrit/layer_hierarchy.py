"""The levels and cycles of MGRIT: `layer_hierarchy` and `mgrit`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from mgnet.callbacks import ours
from mgnet.cycles import cascade, cycle
from mgnet.depth.mgrit.c_layers import CLayers, intervals, level_factors, level_sizes
from mgnet.depth.mgrit.checked_propagator import CheckedPropagator
from mgnet.depth.mgrit.communicator import (
    SERIAL_COMMUNICATOR,
    Communicator,
    Gathered,
    gathered_norm,
)
from mgnet.depth.mgrit.layer_equation import LayerEquation, Propagator
from mgnet.depth.mgrit.newton import newton_of
from mgnet.depth.mgrit.relaxation import Relaxation, SerialSweep
from mgnet.depth.mgrit.step_costs import checked_costs, level_costs
from mgnet.hierarchy import Hierarchy
from mgnet.level import Level
from mgnet.limits import shown
from mgnet.notation import Scanner
from mgnet.schedule import Schedule, Step
from mgnet.smoother import Smoother

__all__ = ["layer_hierarchy", "layer_levels", "mgrit", "posed", "relaxation_words"]

State = Any


def layer_hierarchy(
    propagator: Propagator,
    layers: int,
    initial: State,
    *,
    levels: int = 2,
    coarsening: int | Sequence[int] = 4,
    relaxation: Sequence[str] = ("F", "FCF"),
    reverse: bool = False,
    weight: float = 1.0,
    c_points_only: bool = False,
    communicator: Communicator = SERIAL_COMMUNICATOR,
    solver: Smoother = SerialSweep(),  # noqa: B008
    costs: Sequence[float] | None = None,
) -> Hierarchy:
    """Build the layer equation on every level: the forward one or, with `reverse`, the adjoint.

    Parameters
    ----------
    propagator : Propagator
        Computes the steps over the layers of every level.
    layers : int
        Number of layers, N, at least 1; the last interval of a level may be short.
    initial : state
        The value at one point, without the axis of the layers: the left end of the layers (with
        `reverse`, the right end). It is used if a run gets `f = None`.
    levels : int
        Number of levels.
    coarsening : int or sequence of int
        Coarsening factor between a level and the next: one factor for all levels, or one for each,
        finest first.
    relaxation : sequence of str
        Relaxation before the coarse correction, finest level first; the last word is used for all
        further levels. After the correction, F-relaxation is applied on every level.
    reverse : bool
        Whether the equation runs from right to left.
    weight : float
        Weight of C-relaxation, dimensionless.
    c_points_only : bool
        Whether only the ceil(N / c) + 1 C-points of a state of level 0 are stored (by default, all
        N + 1 points). Cycles then neither allocate nor copy a trajectory, with the same number of
        evaluations; `hierarchy[0].operator.trajectory(u)` returns the whole trajectory.
    communicator : Communicator, optional
        The processes that hold other layers; `layers` and the states are then those of this
        process, and norms are over all processes.
    solver : Smoother
        Solver on the coarsest level, which is the only level if `levels` is 1: the serial march, or
        `NewtonSweep`.
    costs : sequence of float, optional
        Cost of each layer, in any unit, if costs differ; a coarse layer costs the mean of the
        layers it represents. One work unit is the cost of evaluating all layers once.

    Returns
    -------
    Hierarchy
        The levels, with relaxation, transfers and the coarse solver.

    Raises
    ------
    ValueError
        If there are too many levels (the message contains the largest possible number), or if
        another argument is invalid.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import run
    >>> class Halve:
    ...     def advance(self, level, which, states):
    ...         return 0.5 ** (4**level) * states
    >>> hierarchy = layer_hierarchy(Halve(), 8, np.array([256.0]))
    >>> print(hierarchy)
    Hierarchy of 2 levels, 12 unknowns in all (1.33 times the finest)
    level  unknowns  cost  smoother         transfer
        0         9     1  Relaxation('F')  CLayers(4)
        1         3  0.25  SerialSweep()    -
    >>> opening, _ = mgrit(2)
    >>> u, _ = run(opening, hierarchy, np.zeros((9, 1)), None)
    >>> u[::4].ravel()
    array([256.,  16.,   1.])
    """
    made = layer_levels(
        layers,
        initial.shape,
        level_factors(levels, coarsening),
        relaxation,
        reverse=reverse,
        weight=weight,
        c_points_only=c_points_only,
        communicator=communicator,
        solver=solver,
        costs=checked_costs("layer_hierarchy", costs, layers),
    )
    checked = propagator if ours(propagator) else CheckedPropagator(propagator)
    for level in made:
        level.operator.pose(checked, initial)
    if communicator is SERIAL_COMMUNICATOR:
        return Hierarchy(made)
    return Hierarchy(made, norm=lambda u: gathered_norm(communicator, u, reverse))


def layer_levels(
    layers: int,
    shape: Sequence[int],
    factors: Sequence[int],
    relaxation: Sequence[str],
    *,
    reverse: bool = False,
    weight: float = 1.0,
    c_points_only: bool = False,
    communicator: Communicator = SERIAL_COMMUNICATOR,
    gathered: Gathered | None = None,
    solver: Smoother = SerialSweep(),  # noqa: B008
    finest: Smoother | None = None,
    costs: np.ndarray | None = None,
) -> list[Level]:
    """The levels of `layer_hierarchy`, whose equations are posed later; see `posed`.

    Parameters
    ----------
    layers : int
        Number of layers of the finest level.
    shape : sequence of int
        Shape of a state at one point.
    factors : sequence of int
        Coarsening factor of every level except the coarsest.
    relaxation, reverse, weight, c_points_only, communicator, solver
        The arguments of `layer_hierarchy`.
    finest : Smoother, optional
        Smoother that replaces relaxation before the coarse correction on the finest level.
    costs : array of shape (layers,), optional
        Cost of each layer, as in `layer_hierarchy`.
    gathered : Gathered, optional
        The position of this process if every process holds all layers of the coarsest level; to the
        propagator, these gathered layers are one more level.

    Returns
    -------
    list of Level
        The levels, finest first.

    Examples
    --------
    >>> [level.operator.layers for level in layer_levels(130, (8,), (4, 4), ("F", "FCF"))]
    [130, 33, 9]
    """
    words = relaxation_words(relaxation, len(factors))
    sizes = level_sizes(layers, factors, part=communicator is not SERIAL_COMMUNICATOR)
    weights = None if costs is None else level_costs(costs, factors, "mean")
    levels = []
    for number, size in enumerate(sizes):
        transfer = None
        if number < len(factors):
            parts = intervals(size, factors[number], reverse)
            transfer = CLayers(parts, c_points_only and number == 0)
        ends = communicator, gathered if transfer is None else None
        equation = LayerEquation(None, number, size, None, transfer, reverse, *ends)
        if weights is not None:
            equation.costs = weights[number]
        word = words[min(number, len(words) - 1)]
        c_layers = [call.which for call in transfer.intervals.c_steps] if transfer else []
        stored = transfer.intervals.count if transfer and transfer.c_points_only else size
        smoother = solver if transfer is None else Relaxation(word, weight)
        if not number and transfer is not None and finest is not None:
            smoother = finest
        level = Level(
            equation,
            smoother,
            transfer,
            post_smoother=None if transfer is None or word == "F" else Relaxation("F"),
            residual=equation.residual,
            size=(stored + 1) * math.prod(shape),
            name=f"level {number}",
            cost=float(size if weights is None else weights[number].sum()),
            residual_cost=1.0 if transfer is None else equation.share(*c_layers),
        )
        levels.append(level)
    return levels


def relaxation_words(relaxation: Sequence[str], factors: int) -> tuple[str, ...]:
    """The word of the relaxation for each level, to be parsed by `Relaxation`.

    Parameters
    ----------
    relaxation : sequence of str, or one
        One word for all levels, or one per level, finest first.
    factors : int
        Number of levels except the coarsest.

    Returns
    -------
    tuple of str
        One word for each level except the coarsest.

    Raises
    ------
    ValueError
        If the number of words does not match.

    Examples
    --------
    >>> relaxation_words("FCF", 1)
    ('FCF',)
    """
    words = (relaxation,) if isinstance(relaxation, str) else relaxation
    fits = isinstance(words, Sequence) and 0 < len(words) <= max(factors, 2)
    if not fits or not all(isinstance(word, str) for word in words):
        raise ValueError(
            f"layer_hierarchy got the relaxation {shown(relaxation)} for {factors + 1} levels; "
            "give one word, or one per level but the coarsest, finest first, such as ('F', 'FCF')"
        )
    return tuple(words)


@contextmanager
def posed(hierarchy: Hierarchy, propagator: Propagator, initial: State) -> Iterator[Hierarchy]:
    """A context in which a stored hierarchy has the propagator and initial value of one solution.

    Afterwards, the hierarchy no longer refers to data of that solution.

    Parameters
    ----------
    hierarchy : Hierarchy
        The levels made by `layer_levels`.
    propagator : Propagator
        The steps over layers.
    initial : state
        The value at one point, as in `layer_hierarchy`.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import Hierarchy
    >>> class Halve:
    ...     def advance(self, level, which, states):
    ...         return 0.5 * states
    >>> kept = Hierarchy(layer_levels(3, (1,), (), ("F",)))
    >>> for start in (8.0, 16.0):
    ...     with posed(kept, Halve(), np.array([start])) as hierarchy:
    ...         hierarchy[0].operator.march(None).ravel()
    array([8., 4., 2., 1.])
    array([16.,  8.,  4.,  2.])
    """
    for level in hierarchy.levels:
        level.operator.pose(propagator, initial)
    try:
        yield hierarchy
    finally:
        for level in hierarchy.levels:
            level.operator.pose(None, None)


def mgrit(levels: int, text: str = "cascade + V") -> tuple[Schedule | None, Schedule]:
    """The schedules of MGRIT: the opening, if there is one, and the cycle to be repeated.

    On the finest level, F-relaxation comes first and nothing follows the coarse correction, because
    the next cycle relaxes anyway; callers who need the F-points add one F-relaxation at the end. A
    cascade solves on the coarsest level and interpolates the solution (the "skipped" first
    down-cycle of XBraid); a cycle follows.

    Parameters
    ----------
    levels : int
        Number of levels.
    text : str
        "V", "F" or "W", or "cascade + V" and so on. The text "newton", like the other strings of
        `newton_of`, means a sweep on the finest level, whose smoother is then the `NewtonSweep`.

    Returns
    -------
    tuple of (Schedule or None, Schedule)
        The opening and the cycle.

    Raises
    ------
    ValueError
        If the text has a different form; the message contains the position.
    TypeError
        If `text` is not a string.

    Examples
    --------
    >>> opening, V = mgrit(3)
    >>> opening.text
    'start, solve 1, interpolate, post 1, interpolate'
    >>> V.text
    'pre 1, down, pre 1, down, solve 1, up, post 1, up'
    >>> mgrit(3, "cascade V")
    Traceback (most recent call last):
    ValueError: cycle 'cascade V', character 9: got 'V'; expected '+'
    """
    if not isinstance(text, str):
        raise TypeError(f"mgrit got a {type(text).__name__}; give a text such as 'cascade + V'")
    scanner = Scanner(text)
    cascaded = scanner.take(r"cascade\b") is not None
    if cascaded:
        scanner.expect(r"\+", "'+'")
    opening = cascade([1] * (levels - 1) + [0]) if cascaded and levels > 1 else None
    if newton_of(text) is not None:
        return opening, Schedule([Step("pre" if levels > 1 else "solve", 0)])
    letter = scanner.expect(r"[VFW]\b", "V, F or W" if cascaded else "V, F, W or 'cascade +'")
    scanner.end()
    whole = cycle(levels, {"V": 1, "F": 2, "W": math.inf}[letter])
    if levels == 1:
        return None, whole
    return opening, Schedule(whole[:-1])
