"""Coarser states on coarser levels: the spatial grid is coarsened together with the time grid.

FAS needs three spatial transfer operators. States are restricted by `inject`, residuals by an
average, and corrections are interpolated by `prolong`. Only the change of the coarse solution is
added to the fine one, so once the fine equation is solved, the coarse level changes nothing,
whatever the transfer is. Source: Falgout, Friedhoff, Kolev, MacLachlan, Schroder, "Parallel time
integration with multigrid", SIAM J. Sci. Comput. 36 (2014), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mgnet import vector
from mgnet.depth.mgrit.c_layers import CLayers
from mgnet.depth.mgrit.checked_step import StepFunction
from mgnet.hierarchy import Hierarchy
from mgnet.limits import shown
from mgnet.transfer import AxisTransfer, MatrixTransfer, Transfer

__all__ = ["SpaceTimeTransfer", "SpatialCoarsening", "check_spatial", "coarsened_in_space"]

Rows = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class SpatialCoarsening:
    """The transfer of states from one level to the next coarser one, and the step on that level.

    Parameters
    ----------
    step : callable
        The function `(t, dt, states) -> states` for the coarser states, as in `OneStep`.
    transfer : Transfer, or tuple of two or three functions
        A `Transfer` between single states. If its `restrict` is the transpose of `prolong`,
        `restrict` is divided by its row sums, because residuals are treated like states here and
        must be averaged. States are restricted by `inject` if there is one, else by that average.
        Alternatively, a tuple `(restrict, prolong)` or `(restrict, prolong, inject)` of functions
        of many states, shape (k, ...), which process each state separately; without `inject`,
        states are restricted by `restrict`. An average is not a left inverse of `prolong`. This
        does not slow down convergence but violates a law of FAS, which `Hierarchy.check` reports.

    Raises
    ------
    TypeError
        If `step` or `transfer` has a different form.

    Examples
    --------
    >>> from mgnet import MatrixTransfer, Solver, interpolation_matrix
    >>> from mgnet.depth import SpatialCoarsening, heat
    >>> fine, coarse = heat(31, 128), heat(15, 128)
    >>> space = SpatialCoarsening(coarse.step, MatrixTransfer(interpolation_matrix(15)))
    >>> hierarchy = fine.hierarchy(coarsening=4, relaxation="FCF", spatial=[space])
    >>> print(hierarchy)
    Hierarchy of 2 levels, 4494 unknowns in all (1.12 times the finest)
    level  unknowns   cost  smoother                             transfer
        0      3999      1  Relaxation('FCF') / Relaxation('F')  CLayers(4), 31 to 15 unknowns
        1       495  0.121  SerialSweep()                        -
    >>> Solver(hierarchy, rtol=1e-8).solve(u=fine.guess()).reason.name
    'RTOL'
    """

    step: StepFunction
    transfer: Transfer | tuple[Rows, ...]

    def __post_init__(self) -> None:
        if not callable(self.step):
            raise TypeError(
                f"SpatialCoarsening got a step of type {type(self.step).__name__}; give a function "
                "(t, dt, states) -> states for the coarser states"
            )
        given = self.transfer
        functions = isinstance(given, tuple) and len(given) in (2, 3) and all(map(callable, given))
        if not functions and not isinstance(given, Transfer):
            raise TypeError(
                f"SpatialCoarsening got the transfer {shown(given)}; give a Transfer between "
                "single states, or functions of many: (restrict, prolong) or with a third, inject"
            )

    def restrict(self, rows: np.ndarray) -> np.ndarray:
        """Residuals, shape (k, ...), averaged to the coarser states."""
        if isinstance(self.transfer, tuple):
            return self.transfer[0](rows.copy())
        coarse = _each(self.transfer, "restrict", rows)
        if self.transfer.adjoint:
            coarse = coarse / _each(self.transfer, "restrict", np.ones_like(rows[:1]))
        return coarse

    def prolong(self, rows: np.ndarray) -> np.ndarray:
        """Corrections, shape (k, ...), interpolated to the finer states."""
        if isinstance(self.transfer, tuple):
            return self.transfer[1](rows.copy())
        return _each(self.transfer, "prolong", rows)

    def inject(self, rows: np.ndarray) -> np.ndarray:
        """States, shape (k, ...), restricted to coarser ones."""
        if isinstance(self.transfer, tuple):
            return self.transfer[-1 if len(self.transfer) == 3 else 0](rows.copy())
        if self.transfer.inject is None:
            return self.restrict(rows)
        return _each(self.transfer, "inject", rows)

    def coarse(self, state: np.ndarray) -> np.ndarray:
        """One state on the coarser level, which defines the shape of all states there.

        Raises
        ------
        TypeError
            If the transfer changes the number of states, the number of axes, or the dtype.
        """
        rows = self.inject(np.stack([state, state]))
        fits = isinstance(rows, np.ndarray) and rows.dtype == state.dtype
        if not fits or rows.ndim != state.ndim + 1 or len(rows) != 2:
            raise TypeError(
                f"SpatialCoarsening got a transfer that takes 2 states of shape {state.shape} and "
                f"{state.dtype} down to {vector.describe(rows)}; it must give 2 states with as "
                "many axes, shape (2, ...), and the same dtype"
            )
        return rows[0]


def _each(transfer: Transfer, method: str, rows: np.ndarray) -> np.ndarray:
    """Apply a method of a transfer between single states to many states."""
    if isinstance(transfer, MatrixTransfer) and rows.ndim == 2:
        along = AxisTransfer(transfer.P, 1, transfer.R, transfer.injection, transfer.interpolation)
        return getattr(along, method)(rows)
    return np.stack([getattr(transfer, method)(row) for row in rows])


@dataclass(frozen=True, eq=False)
class SpaceTimeTransfer(Transfer):
    """A transfer to the C-points in time and to coarser states in space.

    Parameters
    ----------
    time : CLayers
        The transfer in time.
    space : SpatialCoarsening
        The transfer in space.
    fine, coarse : tuple of int
        Shapes of a fine and of a coarse state.

    Examples
    --------
    >>> from mgnet.depth import Intervals
    >>> halves = (lambda u: u.reshape(len(u), -1, 2).mean(axis=2), lambda u: u.repeat(2, axis=1))
    >>> space = SpatialCoarsening(lambda t, dt, u: u, halves)
    >>> transfer = SpaceTimeTransfer(CLayers(Intervals(4, 2)), space, (4,), (2,))
    >>> transfer.inject(np.arange(20.0).reshape(5, 4))
    array([[ 0.5,  2.5],
           [ 8.5, 10.5],
           [16.5, 18.5]])
    """

    time: CLayers
    space: SpatialCoarsening
    fine: tuple[int, ...]
    coarse: tuple[int, ...]

    def inject(self, state: np.ndarray) -> np.ndarray:  # type: ignore[override]
        return self._down("inject", self.time.inject(state))

    def restrict(self, residual: np.ndarray) -> np.ndarray:
        return self._down("restrict", self.time.restrict(residual))

    def prolong(self, correction: np.ndarray) -> np.ndarray:
        return self.time.prolong(self._up(correction))

    def interpolate(self, state: np.ndarray) -> np.ndarray:
        return self.time.interpolate(self._up(state))

    def correct(self, state: np.ndarray, correction: np.ndarray) -> np.ndarray:
        return self.time.replace(state, self.time.inject(state) + self._up(correction))

    def _down(self, method: str, rows: np.ndarray) -> np.ndarray:
        return _fitted(method, getattr(self.space, method)(rows), rows, self.coarse)

    def _up(self, rows: np.ndarray) -> np.ndarray:
        return _fitted("prolong", self.space.prolong(rows), rows, self.fine)

    @property
    def adjoint(self) -> bool:  # type: ignore[override]
        return False

    def __str__(self) -> str:
        fine, coarse = (math.prod(shape) for shape in (self.fine, self.coarse))
        return f"{self.time}, {fine} to {coarse} unknowns"


def _fitted(method: str, new: np.ndarray, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    wanted = (len(rows), *shape)
    if not isinstance(new, np.ndarray) or new.shape != wanted or new.dtype != rows.dtype:
        raise TypeError(
            f"SpatialCoarsening got a {method} that takes {vector.describe(rows)} to "
            f"{vector.describe(new)}; it must give an array {wanted} of {rows.dtype}"
        )
    return new


def check_spatial(
    spatial: Sequence[SpatialCoarsening | None], levels: int
) -> tuple[SpatialCoarsening | None, ...]:
    """One entry for each level except the coarsest, after checking the number of entries.

    Raises
    ------
    ValueError
        If the entries do not match the levels.

    Examples
    --------
    >>> check_spatial([], 3)
    (None, None)
    """
    given = tuple(spatial) if isinstance(spatial, Sequence) else None
    if given == ():
        return (None,) * (levels - 1)
    fits = given is not None and len(given) == levels - 1
    if (
        given is None
        or not fits
        or not all(part is None or isinstance(part, SpatialCoarsening) for part in given)
    ):
        raise ValueError(
            f"OneStep.hierarchy got spatial = {shown(spatial)} for {levels} levels; give "
            f"{levels - 1} entries, finest first: SpatialCoarsening(step, transfer), or None where "
            "states stay as they are"
        )
    return given


def coarsened_in_space(
    hierarchy: Hierarchy,
    spatial: Sequence[SpatialCoarsening | None],
    initials: Sequence[np.ndarray],
) -> Hierarchy:
    """The levels of MGRIT with coarser states on coarser levels.

    Parameters
    ----------
    hierarchy : Hierarchy
        The levels made by `layer_hierarchy`.
    spatial : sequence of (SpatialCoarsening or None)
        The spatial coarsening from each level to the next.
    initials : sequence of array
        The initial state on each level.

    Returns
    -------
    Hierarchy
        The levels with their spatial transfers.

    Examples
    --------
    >>> from mgnet.depth import heat
    >>> problem = heat(15, 64)
    >>> plain = problem.hierarchy()
    >>> len(coarsened_in_space(plain, [None], [problem.initial, problem.initial]))
    2
    """
    levels = []
    for number, level in enumerate(hierarchy.levels):
        ratio = initials[number].size / initials[0].size
        transfer = level.transfer
        if number < len(spatial) and spatial[number] is not None:
            shapes = initials[number].shape, initials[number + 1].shape
            transfer = SpaceTimeTransfer(transfer, spatial[number], *shapes)  # type: ignore[arg-type]
        size = level.size // initials[0].size * initials[number].size
        level.operator.pose(level.operator.propagator, initials[number])
        levels.append(
            replace(level, transfer=transfer, size=size, cost=level.evaluation_cost * ratio)
        )
    return hierarchy.with_levels(levels)
