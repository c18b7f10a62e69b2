"""The derivative of a one-step method by its state: given by the user, or by differences."""

from __future__ import annotations

import math

import numpy as np

from mgnet import vector
from mgnet.depth.mgrit.checked_step import StepFunction

__all__ = ["MOST_DIFFERENCES", "step_jacobian"]

MOST_DIFFERENCES = 64  # entries of a state up to which differences are taken


def step_jacobian(
    step: StepFunction,
    jacobian: StepFunction | None,
    times: np.ndarray,
    steps: np.ndarray,
    states: np.ndarray,
    structure: str,
) -> np.ndarray:
    """The Jacobians of k steps.

    Central differences have a relative error of about 1e-10 in float64; it slows the last sweeps of
    Newton's method a little, and changes no result.

    Parameters
    ----------
    step, jacobian : callable
        As in `OneStep`.
    times, steps : arrays of shape (k,)
    states : array of shape (k, ...)
    structure : {"dense", "diagonal"}

    Returns
    -------
    array of shape (k, n, n); of the shape of the states, if diagonal

    Raises
    ------
    ValueError
        If there is no Jacobian and states are large, or it has another shape.

    Examples
    --------
    >>> step = lambda t, dt, u: u + dt[:, None] * u**2
    >>> step_jacobian(step, None, np.zeros(1), np.ones(1), np.array([[3.0]]), "dense").round(6)
    array([[[7.]]])
    """
    count, n = len(states), math.prod(states.shape[1:])
    if jacobian is not None:
        found = np.asarray(jacobian(times.copy(), steps.copy(), states.copy()))
        if found.shape != (count, n, n) or found.dtype.kind not in "iufc":
            raise ValueError(
                f"OneStep got a jacobian that gives {vector.describe(found)} for the states "
                f"{vector.describe(states)}; it must give an array of shape {(count, n, n)}, the "
                "derivative of entry i of the next state by entry j of the state at [:, i, j]"
            )
        found = found.astype(states.dtype, copy=False)
    elif n > MOST_DIFFERENCES:
        raise ValueError(
            f"OneStep has no jacobian and states of {n} entries, whose derivatives by differences "
            f"would take {2 * n} steps each; give jacobian=, for at most {MOST_DIFFERENCES} are "
            "differences taken, or use NewtonSweep('identity')"
        )
    else:
        found = _differences(step, times, steps, states.reshape(count, n), states.shape)
    if structure == "dense":
        return found
    return np.einsum("kii->ki", found).reshape(states.shape).copy()


def _differences(
    step: StepFunction,
    times: np.ndarray,
    steps: np.ndarray,
    states: np.ndarray,
    shape: tuple[int, ...],
) -> np.ndarray:
    count, n = states.shape
    found = np.empty((count, n, n), states.dtype)
    sizes = np.maximum(abs(states), 1e-3 * abs(states).max(initial=0.0))
    widths = np.finfo(states.dtype).eps ** (1 / 3) * np.where(sizes > 0.0, sizes, 1.0)
    for j in range(n):
        ends = []
        for sign in (1.0, -1.0):
            moved = states.copy()
            moved[:, j] += sign * widths[:, j]
            ends.append((moved[:, j].copy(), step(times, steps, moved.reshape(shape))))
        (right, above), (left, below) = ends
        found[:, :, j] = (above - below).reshape(count, n) / (right - left)[:, None]
    return found
