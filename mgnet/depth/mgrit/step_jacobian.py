"""The derivative of a one-step method with respect to the state, given or from differences."""

from __future__ import annotations

import math

import numpy as np

from mgnet import vector
from mgnet.depth.mgrit.checked_step import StepFunction

__all__ = ["MOST_DIFFERENCES", "step_jacobian"]

MOST_DIFFERENCES = 64  # largest number of entries of a state for which differences are used


def step_jacobian(
    step: StepFunction,
    jacobian: StepFunction | None,
    times: np.ndarray,
    steps: np.ndarray,
    states: np.ndarray,
    structure: str,
) -> np.ndarray:
    """The Jacobians of k steps.

    Central differences have a relative error of about 1e-10 in float64. This error slightly slows
    the last sweeps of Newton's method but does not change its results.

    Parameters
    ----------
    step, jacobian : callable
        The step and its derivative, as in `OneStep`.
    times, steps : arrays of shape (k,)
        Times at the start of the steps, and step sizes.
    states : array of shape (k, ...)
        States at the start of the steps.
    structure : {"dense", "diagonal"}
        Structure of the Jacobians.

    Returns
    -------
    array
        Shape (k, n, n); the shape of the states if diagonal.

    Raises
    ------
    ValueError
        If a given Jacobian has the wrong shape, or if none is given and states have too many
        entries.

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
                "derivative of entry i of the next state with respect to entry j at [:, i, j]"
            )
        found = found.astype(states.dtype, copy=False)
    elif n > MOST_DIFFERENCES:
        raise ValueError(
            f"OneStep has no jacobian and states of {n} entries, whose derivatives by differences "
            f"would take {2 * n} steps each; give jacobian=, because differences are used only for "
            f"at most {MOST_DIFFERENCES} entries, or use NewtonSweep('identity')"
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
