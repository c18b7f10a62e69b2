"""Checks of a user's propagator: edits of arguments and unsuitable results are refused."""

from __future__ import annotations

from typing import Any

from mgnet import vector
from mgnet.callbacks import Watched, duplicate, refuse_result, unfit

__all__ = ["CheckedPropagator"]

State = Any


class CheckedPropagator:
    """Wraps a propagator from outside mgnet; all other attributes of it remain accessible.

    Parameters
    ----------
    inner : Propagator
        The user's propagator.

    Examples
    --------
    >>> import numpy as np
    >>> class Halve:
    ...     def advance(self, level, which, states):
    ...         states *= 0.5
    ...         return states
    >>> CheckedPropagator(Halve()).advance(0, slice(0, 2), np.ones((2, 1)))
    Traceback (most recent call last):
    ValueError: layer_hierarchy has a propagator, Halve, with a method advance that edits its
    argument in place, ndarray (2, 1) of float64; make it work on a copy, such as u = u.copy(), and
    return a new state each time
    """

    def __init__(self, inner: Any):
        self.inner = inner
        self._watched: dict[int, Watched] = {}  # per level
        march = getattr(inner, "march", None)
        if march is not None:
            self.march = march
        if hasattr(inner, "linearize"):
            self.linearize = self._linearized

    def advance(self, level: int, which: slice, states: State) -> State:
        """The propagator's result, copied because it may return the same array each time."""
        watched = self._watched.setdefault(level, Watched(self.inner, "a propagator"))
        new = watched.method("advance", "layer_hierarchy", level, which, states)
        if unfit(new, states):
            wanted = f"the states on the other side of its layers, {vector.describe(states)}"
            refuse_result("layer_hierarchy", watched.named("advance"), new, wanted)
        return duplicate(new)

    def _linearized(
        self, level: int, which: slice, states: State, structure: str
    ) -> tuple[State, State]:
        watched = self._watched.setdefault(level, Watched(self.inner, "a propagator"))
        found = watched.method("linearize", "layer_hierarchy", level, which, states, structure)
        if not isinstance(found, tuple) or len(found) != 2:
            wanted = "a pair, the states on the other side of its layers and their Jacobians"
            refuse_result("layer_hierarchy", watched.named("linearize"), found, wanted)
        new, jacobian = found
        return duplicate(new), duplicate(jacobian)

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # not yet set, for example while a copy is being made
            raise AttributeError(name)
        return getattr(self.inner, name)
