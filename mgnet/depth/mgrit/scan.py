"""Recurrences of affine maps, `d[i + 1] = J[i] d[i] + r[i]`, for many i at once.

The composition of affine maps is an affine map, so the steps of an interval can be composed to one
step. The maps are composed within all intervals at once, then applied from interval to interval,
and then within all intervals again. Source: Blelloch, "Prefix sums and their applications" (1990),
in a blocked form suited to CPUs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mgnet import vector

__all__ = ["affine_scan", "composed", "pushed"]

State = Any
# Size of the matrices of one step from which products of matrices cost more than they save. Then
# the steps are computed one after another, with matrix-vector products.
DENSE_NUMBERS = 512
SHORTEST = 16  # number of steps from which intervals are faster


def affine_scan(jacobian: State | None, rows: State, start: State, reverse: bool = False) -> State:
    """Compute all values of the recurrence `d[0] = start` and `d[i + 1] = J[i] d[i] + r[i]`.

    The order of all operations depends only on the shapes. If a product of matrices overflows
    although the recurrence itself does not, the steps are computed one by one.

    Parameters
    ----------
    jacobian : state or None
        The matrices J: dense ones, shape (k, ..., H, H); diagonals, with the shape of the rows; or
        None for the identity, for which the recurrence is a running sum.
    rows : state of shape (k, ..., H)
        The vectors r, a NumPy array or a tensor.
    start : state of shape (..., H)
        The first value, or in reverse the last one.
    reverse : bool
        If true, the recurrence is `d[k] = start` and `d[i] = J[i] d[i + 1] + r[i]`.

    Returns
    -------
    state of shape (k + 1, ..., H)
        The values d.

    Raises
    ------
    ValueError
        If the shapes do not match.

    Examples
    --------
    >>> affine_scan(np.array([[2.0], [3.0]]), np.array([[1.0], [1.0]]), np.array([1.0])).ravel()
    array([ 1.,  3., 10.])
    >>> affine_scan(None, np.ones((3, 1)), np.zeros(1), reverse=True).ravel()
    array([3., 2., 1., 0.])
    """
    _check(jacobian, rows, start)
    if jacobian is None:
        return _running_sum(rows, start, reverse)
    count = len(rows)
    dense = jacobian.ndim > rows.ndim
    large = dense and math.prod(jacobian.shape[1:]) > DENSE_NUMBERS
    with np.errstate(over="ignore", invalid="ignore"):  # the caller checks the values
        if count >= SHORTEST and not large:
            values = _by_intervals(jacobian, rows, start, reverse)
            if vector.is_finite(values):
                return values
        return _in_turn(jacobian, rows, start, reverse)


def pushed(jacobian: State | None, states: State) -> State:
    """The products `J d` of every step, for states of shape (k, ..., H).

    Examples
    --------
    >>> pushed(np.array([[[0.0, 1.0], [2.0, 0.0]]]), np.array([[3.0, 4.0]]))
    array([[4., 6.]])
    """
    if jacobian is None:
        return states
    if jacobian.ndim > states.ndim:
        return (jacobian @ states[..., None])[..., 0]
    return jacobian * states


def composed(later: State | None, earlier: State | None, dense: bool) -> State | None:
    """The Jacobians of consecutive steps; None is the identity.

    Examples
    --------
    >>> two = np.full((1, 1, 1), 2.0)
    >>> composed(two, two, dense=True).item()
    4.0
    """
    if later is None or earlier is None:
        return earlier if later is None else later
    return later @ earlier if dense else later * earlier


def _check(jacobian: State | None, rows: State, start: State) -> None:
    shape = tuple(rows.shape)
    fits = tuple(start.shape) == shape[1:]
    if jacobian is not None:
        fits = fits and tuple(jacobian.shape) in (shape, (*shape, *shape[-1:]))
    if not fits:
        of = "" if jacobian is None else f"Jacobians {vector.describe(jacobian)}, "
        raise ValueError(
            f"affine_scan got {of}rows {vector.describe(rows)} and the start "
            f"{vector.describe(start)}; rows have shape (k, ..., H), the start (..., H), Jacobians "
            "(k, ..., H, H) or (k, ..., H)"
        )


def _running_sum(rows: State, start: State, reverse: bool) -> State:
    if isinstance(rows, np.ndarray):
        if reverse:
            return np.concatenate([rows, start[None]])[::-1].cumsum(0)[::-1]
        return np.concatenate([start[None], rows]).cumsum(0)
    if reverse:
        return vector.join([rows, start[None]]).flip(0).cumsum(0).flip(0)
    return vector.join([start[None], rows]).cumsum(0)


def _in_turn(jacobian: State, rows: State, start: State, reverse: bool) -> State:
    count = len(rows)
    values = vector.empty_like(rows, (count + 1, *rows.shape[1:]))
    now = values[count if reverse else 0] = start
    dense = jacobian.ndim > rows.ndim
    for i in reversed(range(count)) if reverse else range(count):
        moved = (jacobian[i] @ now[..., None])[..., 0] if dense else jacobian[i] * now
        now = values[i if reverse else i + 1] = moved + rows[i]
    return values


def _by_intervals(jacobian: State, rows: State, start: State, reverse: bool) -> State:
    """Process intervals of about sqrt(k) steps at once, then the remaining steps one by one."""
    count = len(rows)
    length = math.isqrt(count)
    parts = count // length
    if reverse:  # the remaining steps come last, too
        whole = slice(count - parts * length, count)
        rest = slice(0, count - parts * length)
    else:
        whole, rest = slice(0, parts * length), slice(parts * length, count)
    shape = parts, length
    maps = jacobian[whole].reshape(*shape, *jacobian.shape[1:])
    added = rows[whole].reshape(*shape, *rows.shape[1:])
    order = list(reversed(range(length))) if reverse else list(range(length))
    dense = jacobian.ndim > rows.ndim
    whole_map, whole_row = maps[:, order[0]], added[:, order[0]]
    for j in order[1:]:
        whole_row = pushed(maps[:, j], whole_row) + added[:, j]
        whole_map = composed(maps[:, j], whole_map, dense)
    between = _in_turn(whole_map, whole_row, start, reverse)
    now = between[1:] if reverse else between[:-1]
    inner = vector.empty_like(rows, (*shape, *rows.shape[1:]))
    for j in order:
        now = inner[:, j] = pushed(maps[:, j], now) + added[:, j]
    values = inner.reshape(parts * length, *rows.shape[1:])
    end = values[0] if reverse else values[-1]
    others = _in_turn(jacobian[rest], rows[rest], end, reverse)
    if reverse:
        return vector.join([others[:-1], values, start[None]])
    return vector.join([start[None], values, others[1:]])
