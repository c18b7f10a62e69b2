"""Checks of a user's step function: it may edit its arguments, but some results are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from mgnet import callbacks, vector

__all__ = ["CheckedStep", "StepFunction", "check_step", "check_unequal"]

StepFunction = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

# NumPy's phrases about shapes that do not match; other errors are those of the step itself.
_SHAPES = re.compile(r"broadcast|mismatch|dimension|shape|size-1|length-1|aligned|sequence|index")


SINGLE = (
    ", or call a function of one state in a loop: np.stack([one(*each) for each in zip(t, dt, u)])"
)


class CheckedStep:
    """A step that may edit its arguments, and whose results are new states of the right shape.

    The step gets a copy of the states, so it may edit them, as XBraid's Step does. Copying the
    times and the result takes as long as a small step, so they are copied only if the step was
    observed to need it.

    Parameters
    ----------
    step : callable
        The user's function `(t, dt, states) -> states`.

    Attributes
    ----------
    edits_times, reuses_results : bool
        Whether the step was observed to edit t or dt, or to return the same array again. Both are
        True until this is known.

    Examples
    --------
    >>> def halve(t, dt, u):
    ...     u *= 0.5
    ...     return u
    >>> u = np.ones((2, 1))
    >>> CheckedStep(halve)(np.zeros(2), np.ones(2), u).ravel(), u.ravel()
    (array([0.5, 0.5]), array([1., 1.]))
    """

    def __init__(self, step: StepFunction):
        self.step = step
        self.edits_times = True
        self.reuses_results = True

    def __call__(self, t: np.ndarray, dt: np.ndarray, states: np.ndarray) -> np.ndarray:
        if self.edits_times:
            t, dt = t.copy(), dt.copy()
        new = self.step(t, dt, states.copy())
        if (
            type(new) is not np.ndarray
            or new.shape != states.shape
            or new.dtype is not states.dtype
        ):
            new = _fitted(new, states)
        return new.copy() if self.reuses_results else new

    def observe(self, initial: np.ndarray, times: np.ndarray, steps: np.ndarray) -> None:
        """Observe whether the step edits its arguments; raise an error unless rows are independent.

        See `check_step`.
        """
        given, results = list[tuple[np.ndarray, ...]](), list[np.ndarray]()

        def watched(*parts: np.ndarray) -> np.ndarray:
            t, dt, states = (part.copy() for part in parts)
            given.append((t, dt, *parts[:2]))
            results.append(_fitted(self.step(t, dt, states), parts[2]))
            return results[-1].copy()

        check_step(watched, initial, times, steps)
        self.edits_times = any(
            not (np.array_equal(t, old_t) and np.array_equal(dt, old_dt))
            for t, dt, old_t, old_dt in given
        )
        self.reuses_results = any(
            np.may_share_memory(a, b) for k, a in enumerate(results) for b in results[:k]
        )


def _fitted(new: Any, states: np.ndarray) -> np.ndarray:
    """Check a result; a different precision is allowed."""
    if callbacks.unfit(new, states):
        raise TypeError(
            f"OneStep got a step that takes the states, {vector.describe(states)}, to "
            f"{vector.describe(new)}; {_remedy(new, states)}"
        )
    return np.asarray(new)


def _remedy(new: Any, states: np.ndarray) -> str:
    many = "one row for each of t and dt"
    if not isinstance(new, np.ndarray) or isinstance(new, np.matrix | np.ma.MaskedArray):
        return f"it must give a plain NumPy array of the shape of the states, {many}"
    if new.shape == states.shape and new.dtype.kind == "c":
        return "give a complex initial state, initial.astype(complex), and begin with guess()"
    if new.shape == states.shape:
        return f"it must give numbers of {states.dtype}, such as new.astype({states.dtype})"
    return f"it must keep their shape, {many}: {_index(states)}"


def _index(states: np.ndarray) -> str:
    count = states.ndim - 1
    if not count:
        return "t and dt have the shape of the states, (steps,), so leave [:, None] out"
    return f"t and dt have shape (steps,), so write dt[:{', None' * count}] and t likewise"


def check_step(
    step: StepFunction, initial: np.ndarray, times: np.ndarray, steps: np.ndarray
) -> None:
    """Raise an error unless a checked step processes several states independently in one call.

    If there are as many steps as unknowns, a wrong shape may broadcast silently, so a different
    number of steps is used. The results for several states at once are compared with those for each
    state alone. The states are scaled by different factors and placed at distant times, because
    states of one trajectory hardly differ.

    Parameters
    ----------
    step : callable
        The checked step.
    initial : array of shape (...)
        Initial state.
    times, steps : arrays of shape (N,)
        The time at the start of every step, and its length.

    Raises
    ------
    TypeError, ValueError
        If the step fails for several states, mixes them, or returns a different shape or type.

    Examples
    --------
    >>> step = CheckedStep(lambda t, dt, u: u / (1.0 + dt))
    >>> check_step(step, np.ones(2), np.zeros(4), np.ones(4))
    Traceback (most recent call last):
    ValueError: OneStep got a step that fails for 3 states at once, ndarray (3, 2) of float64, but
    not for one; t and dt have shape (steps,), so write dt[:, None] and t likewise, or call a
    function of one state in a loop: np.stack([one(*each) for each in zip(t, dt, u)])
    """
    count = next(k for k in range(2, initial.ndim + 3) if k not in initial.shape)
    # Take unequal steps first, if there are any: a step may use dt[0] or t[0] for all rows.
    unequal = np.unique(steps, return_index=True)[1]
    which = np.r_[unequal, np.arange(count) % len(steps)][:count]
    t, dt = times[which], steps[which]
    rows = [initial[None]]
    for k in range(count - 1):
        try:
            rows.append(step(t[k : k + 1], dt[k : k + 1], rows[k]))
        except (TypeError, ValueError, IndexError) as error:
            if _says_ours(error) or not _SHAPES.search(str(error)):
                raise
            raise ValueError(
                "OneStep got a step that cannot take the states, "
                f"{vector.describe(rows[k])}, with t and dt of shape (1,); it must take many at "
                f"once, on axis 0: {_together(rows[k], error)}{SINGLE}"
            ) from error
    states = np.concatenate(rows)
    scaled = states * (1.0 + np.arange(count) / 2.0).reshape(-1, *[1] * initial.ndim)
    spread = np.linspace(0, len(steps) - 1, count).astype(int)
    apart = list(dict.fromkeys([*unequal, *spread, *which]))
    apart = np.resize(apart[:count], count)
    far = times[apart], steps[apart], scaled
    try:
        with np.errstate(all="ignore"):
            together = step(*far)
            parts = [step(*(part[k : k + 1] for part in far)) for k in range(count)]
    except Exception as error:  # the scaled states may be outside the domain of the equation
        if _says_ours(error):
            raise
        _check_together(step, t, dt, states)
        return
    _compare(scaled, together, np.concatenate(parts))


def check_unequal(
    step: StepFunction, initial: np.ndarray, times: np.ndarray, steps: np.ndarray
) -> None:
    """Raise an error unless a user's step, even in a wrapper, handles unequal step sizes together.

    Parameters
    ----------
    step : callable
        A `CheckedStep`, or an object that contains one as `inner`; other steps are not checked.
    initial, times, steps
        The arguments of `check_step`.

    Raises
    ------
    TypeError, ValueError
        If the step does not handle unequal step sizes; see `check_step`.

    Examples
    --------
    >>> step = CheckedStep(lambda t, dt, u: u / (1.0 + dt[0]))
    >>> check_unequal(step, np.ones(1), np.zeros(2), np.ones(2))
    >>> check_unequal(step, np.ones(1), np.zeros(2), np.array([0.1, 0.9]))
    Traceback (most recent call last):
    ValueError: OneStep got a step whose values for 2 states at once differ from those one by one by
    0.52; it must take each row on its own: give sums, norms and rolls an axis, write u @ A.T for
    A @ u, and take all of t in place of t[0]
    """
    part: Any = step
    while part is not None and not isinstance(part, CheckedStep):
        part = getattr(part, "inner", None)
    if part is not None and (steps != steps[0]).any():
        check_step(part, initial, times, steps)


def _check_together(step: StepFunction, t: np.ndarray, dt: np.ndarray, states: np.ndarray) -> None:
    try:
        step(t, dt, states)
    except Exception as error:
        if _says_ours(error):
            raise
        raise ValueError(
            f"OneStep got a step that fails for {len(states)} states at once, "
            f"{vector.describe(states)}, but not for one; {_together(states, error)}{SINGLE}"
        ) from error


def _says_ours(error: Exception) -> bool:
    """Whether the error was raised by `_fitted`."""
    return isinstance(error, TypeError) and str(error).startswith("OneStep got a step")


def _together(states: np.ndarray, error: Exception) -> str:
    if "truth value" in str(error):
        return "t and dt have shape (steps,), so write np.where for an `if` on one of them"
    if "converted to" in str(error):
        return f"{_index(states)}, in place of float(dt)"
    return _index(states)


def _compare(states: np.ndarray, together: np.ndarray, single: np.ndarray) -> None:
    """Refuse a step that mixes states; small differences from inner iterations are allowed."""
    if not (np.isfinite(together).all() and np.isfinite(single).all()):
        return  # values that are not finite are reported by a solve
    difference = abs(together - single).max(initial=0.0)
    change = abs(single - states).max(initial=0.0)
    if difference > 0.01 * change + 1e-6 * abs(states).max(initial=0.0):
        raise ValueError(
            f"OneStep got a step whose values for {len(states)} states at once differ from those "
            f"one by one by {difference:.2g}; it must take each row on its own: give sums, norms "
            "and rolls an axis, write u @ A.T for A @ u, and take all of t in place of t[0]"
        )
