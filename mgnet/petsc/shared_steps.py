"""The steps of an initial-value problem shared out over MPI ranks: `distribute_steps`.

All ranks run the same solver on the same states. What they share is each batched call of the step:
its rows are cut into pieces of a fixed size, whatever the ranks, and every rank steps some of them;
then all have all of them. So results have the same bits on any number of ranks, and every decision,
as to refine an interval, is the same on all.
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
    """A step whose rows the ranks share; all of them call it together, with the same arguments.

    Parameters
    ----------
    inner : callable
        `(t, dt, states) -> states`, as in `OneStep`.
    rows : int
        Of a piece.
    comm : PETSc.Comm

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
    """The same problem, with its steps shared out over MPI ranks.

    `adaptive`, `richardson`, `parallel_in_time`, `periodic_hierarchy` and `Solver` on its
    hierarchies then run on all ranks, which must make the same calls. A batched call of at most
    `rows` states is made on every rank, without a message; so are the steps of a serial march. An
    error of a shared call is raised on all ranks. One that nobody catches ends the job, as in
    `end_all_ranks_on_error`, also where a call without a message fails on one rank alone.
    After any other call all states go to all ranks, which pays where a step costs much more than
    sending its state.

    Parameters
    ----------
    problem : OneStep
        The same on all ranks.
    rows : int
        States that are stepped together. Bits may depend on it, but not on the number of ranks.
    comm : PETSc.Comm, optional
        `PETSc.COMM_WORLD` by default.

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
