"""Linear combinations of states, computed in place; they take most of Krylov methods' time."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import get_blas_funcs

from mgnet import norms
from mgnet.kinds import is_tensor, is_vec

__all__ = ["add_scaled", "advanced", "inner"]

State = Any


def add_scaled(u: State, weight: complex, v: State) -> State:
    """Compute `u + weight * v` in u's memory if u is a contiguous array, a tensor or a Vec.

    Parameters
    ----------
    u, v : state
        States of one kind and shape. The memory of u may be overwritten.
    weight : float, or complex for complex states
        Factor of v.

    Examples
    --------
    >>> add_scaled(np.array([1.0, 2.0]), -2.0, np.array([1.0, 0.0]))
    array([-1.,  2.])
    """
    if is_tensor(u):
        return u.add_(v, alpha=weight)
    if is_vec(u):
        u.axpy(weight, v)
        return u
    plain = u.dtype == v.dtype and u.dtype.char in "dfDF" and u.ndim == 1 and u.size
    if plain and u.flags.c_contiguous and v.flags.c_contiguous:
        (axpy,) = get_blas_funcs(("axpy",), (u,))
        return axpy(v, u, a=weight)
    return u + weight * v


def advanced(
    u: State, d: State | None, step: State, by: tuple[float, float]
) -> tuple[State, State]:
    """Compute `u + s` and `s = by[0] * d + by[1] * step` in the memory of `step` (and d).

    Parameters
    ----------
    u : state
        State to add to.
    d, step : state
        States whose memory may be overwritten; d may be None if by[0] is 0.
    by : tuple of float
        Factors of d and of step.

    Examples
    --------
    >>> advanced(np.ones(1), np.ones(1), np.array([2.0]), (0.5, 2.0))
    (array([5.5]), array([4.5]))
    """
    old, new = by
    if is_vec(u):  # memory traffic dominates the cost
        if old and d is not None:
            step.axpby(old, new, d)
        else:
            step.scale(new)
        v = u.duplicate()
        v.waxpy(1.0, step, u)
        return v, step
    step *= new
    if old:
        d *= old  # type: ignore[operator]
        step += d
    return u + step, step


def inner(u: State, v: State, dot: Any = norms.dot) -> complex:
    """The inner product of u and v, complex for complex states; `dot` gives real parts only.

    Examples
    --------
    >>> inner(np.array([1j]), np.array([1.0])), inner(np.array([2.0]), np.array([3.0]))
    (-1j, 6.0)
    """
    if not _is_complex(u):
        return dot(u, v)
    if dot is norms.dot and isinstance(u, np.ndarray):
        value = complex(np.vdot(u, v))
        if 1e-30 < abs(value) < 1e30:
            return value
    return complex(dot(u, v), dot(1j * u, v))


def _is_complex(u: State) -> bool:
    if is_tensor(u):
        return u.is_complex()
    return not is_vec(u) and u.dtype.kind == "c"
