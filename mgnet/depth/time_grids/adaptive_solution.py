"""The result of `adaptive`: the trajectory, its error estimates, and a table of the grids."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from mgnet.depth.mgrit.one_step import OneStep

__all__ = ["AdaptiveSolution", "Ending", "GridRecord"]


class Ending(Enum):
    """The reason why `adaptive` ended.

    Examples
    --------
    >>> Ending.TOLERANCE.converged, Ending.MAX_STEPS.converged
    (True, False)
    """

    TOLERANCE = "the error estimate of every interval is within the tolerance"
    MAX_GRIDS = "max_grids were solved on; allow more of them, or begin with shorter steps"
    MAX_STEPS = "the next grid would have more than max_steps steps; allow more, or a larger rtol"
    TOO_SHORT = (
        "an interval would be halved more than 40 times; the step fails there however short it is"
    )

    @property
    def converged(self) -> bool:
        return self is Ending.TOLERANCE


@dataclass(frozen=True)
class GridRecord:
    """A record of one grid of `adaptive`.

    Attributes
    ----------
    steps : int
        Number of steps of the grid, two per interval.
    shortest, longest : float
        Smallest and largest step size, in units of time.
    levels, cycles : int
        Numbers of MGRIT levels and cycles; one level and no cycle for a serial march.
    stepped : int
        Number of all steps computed on this grid: cycles on all levels, march and error estimate.
    in_a_row : int
        Number of consecutive batched calls, each of which needs the results of the previous one.
    largest : float
        Largest error estimate, in units of the tolerance; inf if a step failed.
    refined : int
        Number of intervals with an estimate above the tolerance.
    notes : tuple of str
        Notes, as in `TimeSolution`.

    Examples
    --------
    >>> GridRecord(8, 0.1, 0.2, 1, 0, 12, 9, 3.5, 2, ()).steps
    8
    """

    steps: int
    shortest: float
    longest: float
    levels: int
    cycles: int
    stepped: int
    in_a_row: int
    largest: float
    refined: int
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class AdaptiveSolution:
    """A trajectory on an adaptive grid.

    Attributes
    ----------
    problem : OneStep
        The problem, with the steps of the last grid.
    states : array of shape (N + 1, ...)
        The solution of the problem.
    errors : array of shape (N / 2, ...)
        Estimated error that each pair of steps adds (fine minus exact), in units of the state.
    order : int
        Order p, given or observed on the last grid; 1 if it was not given and cannot be observed,
        which makes the estimates conservative.
    grids : tuple of GridRecord
        A record of each grid.
    ending : Ending
        The reason why `adaptive` ended.

    Examples
    --------
    >>> from mgnet.depth import OneStep
    >>> from mgnet.depth.time_grids.adaptive import adaptive
    >>> def euler(t, dt, u):  # u' = -50 (u - cos t), backward
    ...     h = dt[:, None]
    ...     return (u + 50.0 * h * np.cos(t[:, None] + h)) / (1.0 + 50.0 * h)
    >>> problem = OneStep(euler, np.array([0.0]), np.full(8, 0.125))
    >>> print(adaptive(problem, rtol=1e-3, atol=1e-3, order=1))
    grid  steps  shortest   longest  levels  cycles  stepped  in a row  estimate  refined
       0     16  6.25e-02  6.25e-02       1  serial       24        17      41.1        2
       1     32  7.81e-03  6.25e-02       3       3      472        61      29.9        5
       2     70  9.77e-04  6.25e-02       3       2      739        66      1.81        5
       3     80  4.88e-04  6.25e-02       3       1      470        35     0.975        0
    order 1; 1705 steps taken, 179 in a row, for a grid of 80; estimates in units of the tolerance
    the error estimate of every interval is within the tolerance
    """

    problem: OneStep
    states: np.ndarray
    errors: np.ndarray
    order: int
    grids: tuple[GridRecord, ...]
    ending: Ending

    @property
    def times(self) -> np.ndarray:
        """The times of the states, shape (N + 1,)."""
        return self.problem.times

    @property
    def converged(self) -> bool:
        """Whether the tolerance is met."""
        return self.ending.converged

    @property
    def stepped(self) -> int:
        """Total number of steps on all grids and levels."""
        return sum(grid.stepped for grid in self.grids)

    @property
    def in_a_row(self) -> int:
        """Number of consecutive batched calls of the step."""
        return sum(grid.in_a_row for grid in self.grids)

    def require(self) -> AdaptiveSolution:
        """Return this solution, or raise an error if the tolerance is not met.

        Raises
        ------
        RuntimeError
            If the tolerance is not met.
        """
        if not self.converged:
            last = self.grids[-1]
            raise RuntimeError(
                f"adaptive ended with {last.steps} steps and an error estimate of "
                f"{last.largest:.3g} tolerances: {self.ending.value}"
            )
        return self

    def __str__(self) -> str:
        head = ("grid", "steps", "shortest", "longest", "levels", "cycles")
        head += ("stepped", "in a row", "estimate", "refined")
        rows: list[tuple[str, ...]] = [head]
        for number, grid in enumerate(self.grids):
            told = (number, grid.steps, f"{grid.shortest:.2e}", f"{grid.longest:.2e}")
            told += (grid.levels, grid.cycles or "serial", grid.stepped, grid.in_a_row)
            told += (f"{grid.largest:.3g}", grid.refined)
            rows.append(tuple(map(str, told)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{word:>{width}}" for word, width in zip(row, widths, strict=True))
            for row in rows
        ]
        lines.append(
            f"order {self.order}; {self.stepped} steps taken, {self.in_a_row} in a row, for a grid "
            f"of {self.grids[-1].steps}; estimates in units of the tolerance"
        )
        lines.append(self.ending.value)
        for number, grid in enumerate(self.grids):
            lines += [f"grid {number}: {note}" for note in grid.notes]
        return "\n".join(lines)
