"""Turns of several MPI ranks: who has nothing to do sleeps, so that the others have the cores."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from mpi4py import MPI

WORLD = MPI.COMM_WORLD
Result = TypeVar("Result")


def sleep_until_all_are_here() -> None:
    request = WORLD.Ibarrier()
    while not request.Test():
        time.sleep(1e-3)


def timed(work: Callable[[], Result] | None, calls: int = 1) -> tuple[float, Result | None]:
    """Seconds of a call of what this rank does, if anything, and what the last call gave.

    Nothing begins before all ranks are ready, and no rank goes on before all have ended.
    """
    sleep_until_all_are_here()
    began, found = time.perf_counter(), None
    if work is not None:
        for _ in range(calls):
            found = work()
    seconds = (time.perf_counter() - began) / calls
    sleep_until_all_are_here()
    return seconds, found
