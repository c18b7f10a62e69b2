"""Norms and inner products of states over the whole range of their precision.

A sum of squares overflows or underflows at the square root of the largest or smallest number of its
format: in float32, if entries are above 1e19 or all are below 1e-19. In that case it is computed
again for states scaled by a power of two, which is exact; otherwise the only extra cost is a
comparison. Source of the three ranges: Blue, ACM Trans. Math. Softw. 4 (1978) 15, doi
10.1145/355769.355771.
"""

from __future__ import annotations

import cmath
import math
import sys
from typing import Any

import numpy as np

from mgnet import kernels
from mgnet.kinds import is_tensor, is_vec

__all__ = ["binary_exponent", "dot", "is_finite", "norm", "times_power_of_two"]

State = Any

# A sum of squares above this is accurate in float32 for all sizes in use.
SAFE_SQUARES = 1e-30
# Factor that moves numbers near either end of the range of float64 to its middle.
SHIFT = 600


def unknown(u: State) -> TypeError:
    """The error for an object that is not a state."""
    return TypeError(
        f"state has the type {type(u).__name__}; "
        "a state must be a NumPy array, a torch tensor or a PETSc Vec"
    )


def dot(u: State, v: State) -> float:
    """Euclidean inner product of two states: the real part of the sum of `conj(u) * v`.

    Parameters
    ----------
    u, v : array, tensor or Vec
        States of one kind and shape. float32 tensors are summed in float64.

    Examples
    --------
    >>> dot(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    11.0
    """
    if isinstance(u, np.ndarray):
        value = float(np.vdot(u, v).real)
        if SAFE_SQUARES < abs(value) < math.inf:
            return value
        if u.dtype.char in "dD" and abs(value) > 1e-290:
            return value
        (u, exponent), (v, other) = _scaled(u), _scaled(v)
        return _times_power_of_two(float(np.vdot(u, v).real), exponent + other)
    if is_tensor(u):
        torch = sys.modules["torch"]
        wide = torch.complex128 if u.is_complex() else torch.float64
        return float(torch.vdot(*(x.detach().flatten().to(wide) for x in (u, v))).real)
    if is_vec(u):
        return float(u.dot(v).real)
    raise unknown(u)


def norm(u: State) -> float:
    """Euclidean norm of a state; `inf` or `nan` if an entry is, or if float64 cannot hold it.

    Examples
    --------
    >>> norm(np.array([[3.0], [4.0]])), norm(np.array([3e-200, 4e-200]))
    (5.0, 5e-200)
    """
    if isinstance(u, np.ndarray):
        # Runs at memory speed, and on small arrays takes a quarter of the time of
        # numpy.linalg.norm.
        squares = float(np.vdot(u, u).real)
        if SAFE_SQUARES < squares < math.inf:
            return math.sqrt(squares)
        if u.dtype.char in "dD" and 1e-290 < squares < math.inf:
            return math.sqrt(squares)
        u, exponent = _scaled(u)
        return _times_power_of_two(math.sqrt(float(np.vdot(u, u).real)), exponent)
    if is_tensor(u):
        torch, u = sys.modules["torch"], u.detach()
        kind = torch.complex128 if u.is_complex() else torch.float64
        # torch computes the norm of complex64 in float32, which is inaccurate beyond 1e18.
        value = float(torch.linalg.vector_norm(u, dtype=None if u.is_complex() else kind))
        if 1e-15 < value < 1e15:
            return value
        wide = u.to(kind)
        return _in_range(value if wide is u else _length(wide), wide)
    if is_vec(u):
        return _in_range(float(u.norm()), u)
    raise unknown(u)


def _in_range(value: float, u: State) -> float:
    """The value, the norm of a tensor or Vec u, if it is in range; else computed from scaled u."""
    if 1e-145 < value < 1e145:
        return value
    shift = -SHIFT if value > 1.0 else SHIFT
    return _length(times_power_of_two(u, shift)) / 2.0**shift


def _length(u: State) -> float:
    return float(sys.modules["torch"].linalg.vector_norm(u) if is_tensor(u) else u.norm())


def _scaled(u: np.ndarray) -> tuple[np.ndarray, int]:
    """The array as `(v, exponent)` with `u = v * 2**exponent` and a largest entry of v near 1."""
    exponent = binary_exponent(float(abs(u).max(initial=0.0)))
    return times_power_of_two(u, -exponent), exponent


def _times_power_of_two(value: float, exponent: int) -> float:
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.copysign(math.inf, value)


def is_finite(u: State) -> bool:
    """Whether all entries of a state are finite (for a Vec, those of all ranks).

    Examples
    --------
    >>> is_finite(np.array([1.0, np.nan]))
    False
    """
    # A sum is one pass in one thread. A BLAS product would wake up all threads for each of the many
    # states of a cycle, which takes milliseconds on a busy machine.
    if isinstance(u, np.ndarray):
        return cmath.isfinite(kernels.total(u)) or bool(np.isfinite(u).all())
    if is_tensor(u):
        isfinite = sys.modules["torch"].isfinite
        return cmath.isfinite(u.detach().sum()) or bool(isfinite(u.detach()).all())
    value = norm(u)
    # Where float64 cannot hold the norm, the entries may still be finite.
    return math.isfinite(value) or math.isfinite(_length(times_power_of_two(u, -SHIFT)))


def binary_exponent(value: float) -> int:
    """The exponent of the smallest power of two above a norm; 0 for zero, inf and nan.

    Examples
    --------
    >>> binary_exponent(5.0), binary_exponent(0.0), binary_exponent(math.inf)
    (3, 0, 0)
    """
    return math.frexp(value)[1] if math.isfinite(value) else 0


def times_power_of_two(u: State, exponent: int) -> State:
    """Return `u * 2**exponent` as a new state; exact unless it is subnormal or overflows.

    Examples
    --------
    >>> times_power_of_two(np.array([3.0]), -2)
    array([0.75])
    """
    half = exponent // 2  # the whole power may overflow
    if is_vec(u):
        u = u.copy()
        u.scale(2.0**half)
        u.scale(2.0 ** (exponent - half))
        u.stateIncrease()  # otherwise PETSc scales its cached norm, which may be 0 or inf
        return u
    return u * 2.0**half * 2.0 ** (exponent - half)
