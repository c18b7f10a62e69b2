"""Smoothing and transfers of each level as PETSc events, for `-log_view`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mgnet import Hierarchy, Level, Smoother, Transfer

__all__ = ["logged"]

State = Any


def logged(hierarchy: Hierarchy) -> Hierarchy:
    """Return the same hierarchy; if PETSc keeps a log, each part of each level has an event.

    The events are called `mgnet 0 smooth`, `mgnet 0 down`, `mgnet 0 up`.

    Parameters
    ----------
    hierarchy : Hierarchy
        The hierarchy to be logged.

    Examples
    --------
    >>> from mgnet import gallery
    >>> hierarchy = gallery.poisson(7)
    >>> logged(hierarchy) is hierarchy  # without -log_view
    True
    """
    petsc = sys.modules.get("petsc4py.PETSc")
    if petsc is None or not petsc.Log.isActive():
        return hierarchy
    return hierarchy.with_levels(lambda levels: _levels(petsc, levels))


def _levels(petsc: Any, levels: Any) -> list[Level]:
    made = []
    for number, level in enumerate(levels):
        smooth, down, up = (petsc.Log.Event(f"mgnet {number} {w}") for w in _PARTS)
        post = level.post_smoother
        made.append(
            replace(
                level,
                smoother=_Smoother(level.smoother, smooth),
                post_smoother=None if post is None else _Smoother(post, smooth),
                transfer=None if level.transfer is None else _Transfer(level.transfer, down, up),
            )
        )
    return made


_PARTS = ("smooth", "down", "up")


@dataclass(frozen=True)
class _Smoother(Smoother):
    """A timed smoother. Its memory is (class of the inner smoother, memory of that smoother)."""

    inner: Smoother
    event: Any

    def start(self, level: Level, u: State) -> Any:
        with self.event:
            return type(self.inner), self.inner.start(level, u)

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        kind, inner = memory
        with self.event:
            if kind is not type(self.inner):  # comes from a level with another smoother
                inner = self.inner.start(level, u)
            u, inner = self.inner.smooth(level, u, f, sweeps, inner)
        return u, (type(self.inner), inner)

    def carry(self, memory: Any, transfer: Transfer) -> Any:
        carried = self.inner.carry(memory[1], transfer)
        return None if carried is None else (memory[0], carried)

    def work(self, level: Level, sweeps: int) -> float:
        return self.inner.work(level, sweeps)

    @property
    def fixed_work(self) -> bool:  # type: ignore[override]
        return self.inner.fixed_work

    @property
    def monotone(self) -> bool:  # type: ignore[override]
        return self.inner.monotone

    def __str__(self) -> str:
        return str(self.inner)


@dataclass(frozen=True)
class _Transfer(Transfer):
    """A timed transfer."""

    inner: Transfer
    down: Any
    up: Any

    def prolong(self, correction: State) -> State:
        with self.up:
            return self.inner.prolong(correction)

    def restrict(self, residual: State) -> State:
        with self.down:
            return self.inner.restrict(residual)

    def interpolate(self, state: State) -> State:
        with self.up:
            return self.inner.interpolate(state)

    def correct(self, state: State, correction: State) -> State:
        with self.up:
            return self.inner.correct(state, correction)

    @property
    def inject(self) -> Callable[[State], State] | None:  # type: ignore[override]
        inject = self.inner.inject
        return None if inject is None else self._inject

    def _inject(self, state: State) -> State:
        with self.down:
            return self.inner.inject(state)  # type: ignore[misc]

    @property
    def adjoint(self) -> bool:  # type: ignore[override]
        return self.inner.adjoint

    def __str__(self) -> str:
        return str(self.inner)
