"""The steps of an initial-value problem distributed over MPI ranks: `distribute_steps`.

All ranks run the same solver on the same states. They share the work of each batched call of the
step: its rows are divided into pieces of a fixed size, for any number of ranks, and each rank
computes some pieces, which are then sent to all. Results therefore have the same bits on any number
of ranks, and decisions, such as the refinement of an interval, are the same on all of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from petsc4py import PETSc

from mgnet.depth import OneStep
from mgnet.limits import is_whole, shown
from mgnet.petsc.hooks import end_all_ranks_on_error
from mgnet.petsc.watch import portable, watch_of

__all__ = ["SharedStep", "distribute_steps"]


class SharedStep:
    """A step whose rows are divided among the ranks, which all call it with the same arguments.

    Parameters
    ----------
    inner : callable
        The step `(t, dt, states) -> states`, as in `OneStep`.
    rows : int
        Number of rows of a piece.
    comm : PETSc.Comm
        The communicator of the ranks.

    Examples
    --------
    >>> step = SharedStep(lambda t, dt, u: u / (1.0 + dt[:, None]), 2, PETSc.COMM_SELF)
    >>> step(np.zeros(3), np.ones(3), np.ones((3, 1))).ravel()
    array([0.5, 0.5, 0.5])
    """

    def __init__(self, inner: Any, rows: int, comm: PETSc.Comm):
        self.inner, self.rows, self.comm = inner, rows, comm
        self.watch = watch_of(comm.tompi4py())

    def __call__(self, t: np.ndarray, dt: np.ndarray, states: np.ndarray) -> np.ndarray:
        begins = np.arange(0, len(states), self.rows)
        ranks, rank = self.comm.getSize(), self.comm.getRank()
        if ranks == 1 or len(begins) < 2:
            return np.concatenate([self._piece(int(a), t, dt, states) for a in begins])
        own = np.array_split(begins, ranks)[rank]
        try:
            told: Any = [self._piece(int(a), t, dt, states) for a in own]
        except Exception as error:  # the other ranks wait for this one
            told = portable(error)
        parts = self.watch.allgather(told)
        for part in parts:
            if isinstance(part, Exception):
                raise part
        return np.concatenate([piece for part in parts for piece in part])

    def _piece(self, begin: int, t: np.ndarray, dt: np.ndarray, states: np.ndarray) -> np.ndarray:
        rows = slice(begin, begin + self.rows)
        return self.inner(t[rows], dt[rows], states[rows])


def distribute_steps(problem: OneStep, rows: int = 16, comm: PETSc.Comm | None = None) -> OneStep:
    """Return the same problem with its steps distributed over MPI ranks.

    `adaptive`, `richardson`, `parallel_in_time`, `periodic_hierarchy` and `Solver` on its
    hierarchies then run on all ranks, which must make the same calls. Every rank computes batched
    calls of at most `rows` states, and the steps of a serial march, by itself, without messages. An
    error in a shared call is raised on all ranks. An uncaught error ends the job, as with
    `end_all_ranks_on_error`, even if it occurred in a call without messages on one rank only. Each
    larger call sends all states to all ranks, so a speedup requires steps that cost much more than
    sending their states.

    Parameters
    ----------
    problem : OneStep
        The problem, which must be the same on all ranks.
    rows : int
        Number of states in a piece. Rounding may depend on it, but not on the number of ranks.
    comm : PETSc.Comm, optional
        The communicator; `PETSc.COMM_WORLD` by default.

    Returns
    -------
    OneStep
        The problem with the distributed step.

    Raises
    ------
    TypeError
        If `problem` is not a `OneStep`.
    ValueError
        If `rows` is not an integer of at least 1.

    Examples
    --------
    >>> from mgnet.depth import heat, richardson
    >>> print(richardson(distribute_steps(heat(15, 64), comm=PETSc.COMM_SELF), order=1))
    order 1, extrapolated to 2 at 33 points; largest error of the plain solution 0.024
    """
    if not isinstance(problem, OneStep):
        raise TypeError(
            f"distribute_steps got a {type(problem).__name__}; give a OneStep, such as heat()"
        )
    if not is_whole(rows, 1):
        raise ValueError(
            f"distribute_steps got rows = {shown(rows)}; give an integer of at least 1"
        )
    world = PETSc.COMM_WORLD if comm is None else comm
    end_all_ranks_on_error(world)
    return replace(problem, step=SharedStep(problem.checked_step, int(rows), world))
