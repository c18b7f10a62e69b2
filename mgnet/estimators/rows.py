"""Prepare the rows of a table for training: distinct rows with weights, and validation rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import _check_sample_weight

from mgnet.estimators.scales import exponents

__all__ = [
    "as_doubles",
    "checked_weights",
    "constant_inputs",
    "distinct_rows",
    "finite_targets",
    "merged_rows",
    "single_precision",
    "validation_rows",
]

ROUNDING = 8.0  # units of rounding; a column that varies by less counts as constant
# Newer versions of scikit-learn refuse weights of zeros, without the name of the estimator.
CHECKED_HERE = {"allow_all_zero_weights"} & signature(_check_sample_weight).parameters.keys()


@contextmanager
def as_doubles(owner: str) -> Iterator[None]:
    """Context in which a user's arrays are converted to doubles; numbers that overflow are refused.

    Raises
    ------
    ValueError
        If an integer or a fraction exceeds the largest double.

    Examples
    --------
    >>> with as_doubles("KANRegressor"):
    ...     float(10**400)
    Traceback (most recent call last):
    ValueError: KANRegressor got a number beyond the largest double, 1.8e308; rescale its column
    """
    # scikit-learn tests for NaN with sums, which may overflow; it then tests the numbers.
    with np.errstate(over="ignore", invalid="ignore"):
        try:
            yield
        except OverflowError:
            raise ValueError(
                f"{owner} got a number beyond the largest double, 1.8e308; rescale its column"
            ) from None


def checked_weights(owner: str, sample_weight: Any, x: np.ndarray) -> np.ndarray | None:
    """Check weights of rows and scale them so that the largest is below 1; None if there are none.

    Raises
    ------
    ValueError
        Unless there is one weight for each row, no weight is negative, and at least one is
        positive.

    Examples
    --------
    >>> checked_weights("KANRegressor", [1.0, 4.0], np.zeros((2, 1)))
    array([0.125, 0.5  ])
    """
    if sample_weight is None:
        return None
    with as_doubles(owner):
        weights = _check_sample_weight(
            sample_weight,
            x,
            dtype=np.float64,
            ensure_non_negative=True,
            **dict.fromkeys(CHECKED_HERE, True),
        )
    if not weights.any():
        raise ValueError(
            f"{owner} got a sample_weight of zeros alone; at least one row must have a positive "
            "weight"
        )
    return np.ldexp(weights, -exponents(weights))


def finite_targets(y: np.ndarray) -> np.ndarray:
    """Convert targets to doubles of shape (rows, outputs), including those in object arrays.

    Raises
    ------
    ValueError
        If a target is not finite.

    Examples
    --------
    >>> finite_targets(np.array([1, 2])).shape
    (2, 1)
    """
    with as_doubles("KANRegressor"):
        y = y.reshape(len(y), -1).astype(float)
    finite = np.isfinite(y).all(1)
    if not finite.all():
        raise ValueError(
            f"KANRegressor got a y that is NaN or infinite as a double in {(~finite).sum()} of "
            f"{len(y)} rows, first in row {finite.argmin()}; leave these rows out"
        )
    return y


def distinct_rows(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The distinct rows, and their weights: the number of repetitions, or the sum of the weights.

    A repeated row and a row with the corresponding weight are therefore equivalent, even in the
    choice of the validation rows. Rows with weights are sorted, so that their order in the table
    does not matter; rows without weights keep their order.

    Parameters
    ----------
    x : array of shape (rows, inputs)
        Inputs.
    y : array of shape (rows,) or (rows, outputs)
        Targets or labels.
    weights : array of shape (rows,), optional
        Weights, not negative. Rows of weight 0 are omitted.

    Returns
    -------
    x, y : array
        Distinct rows.
    weights : array or None
        Weights; None if all are the same.

    Examples
    --------
    >>> x, y, weights = distinct_rows(np.array([[3.0], [1.0], [3.0]]), np.array([0, 1, 0]))
    >>> x.tolist(), y.tolist(), weights.tolist()
    ([[1.0], [3.0]], [1, 0], [1.0, 2.0])
    """
    first, total, _ = merged_rows(x, y, weights)
    if total.min() < total.max():
        return x[first], y[first], total
    first = np.sort(first)
    return x[first], y[first], None


def merged_rows(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find distinct rows, the sum of the weights of each, and its number of repetitions.

    Parameters
    ----------
    x, y, weights
        The same as for `distinct_rows`.

    Returns
    -------
    first : array of int of shape (different,)
        Index of each distinct row, in sorted order.
    total : array of shape (different,)
        Sums of the weights of equal rows; if there are no weights, numbers of equal rows.
    times : array of int of shape (different,)
        Numbers of equal rows; rows of weight 0 do not count.

    Examples
    --------
    >>> merged_rows(np.array([[3.0], [1.0], [3.0]]), np.array([0, 1, 0]), np.array([0.5, 1.0, 2.0]))
    (array([1, 0]), array([1. , 2.5]), array([1, 2]))
    """
    places = np.arange(len(x)) if weights is None else np.flatnonzero(weights > 0.0)
    table = np.column_stack([x, y])[places]
    order = np.lexsort(table.T[::-1])
    table = table[order]
    new = np.concatenate([[True], (table[1:] != table[:-1]).any(1)])
    groups, places = np.cumsum(new) - 1, places[order]
    times = np.bincount(groups)
    total = times.astype(float) if weights is None else np.bincount(groups, weights[places])
    return places[new], total, times


def validation_rows(
    strata: np.ndarray, fraction: float, seed: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """A mask of rows drawn at random, the same fraction of every stratum, rounded down.

    With weights, neither their number nor their weight exceeds this fraction of the stratum, so
    that a row with most of the total weight is used for training.

    Examples
    --------
    >>> validation_rows(np.repeat([0, 1], 10), 0.2, seed=0).reshape(2, 10).sum(1)
    array([2, 2])
    """
    order, mask = np.random.default_rng(seed).permutation(len(strata)), np.zeros(len(strata), bool)
    for stratum in np.unique(strata):
        members = order[strata[order] == stratum]
        if weights is not None:
            members = _within(members, weights, fraction * weights[members].sum())
        mask[members[: int(fraction * (strata == stratum).sum())]] = True
    return mask


def _within(members: np.ndarray, weights: np.ndarray, room: float) -> np.ndarray:
    """The rows in the given order, without those that would bring the total weight above `room`."""
    taken = []
    for member in members:
        if weights[member] <= room:
            taken.append(member)
            room -= float(weights[member])
    return np.array(taken, dtype=int)


def constant_inputs(x: np.ndarray, single: bool = False) -> list[int]:
    """Numbers of the columns that vary at most by rounding errors.

    Parameters
    ----------
    x : array of shape (rows, inputs)
        Rows of the table.
    single : bool
        Whether the rows were converted from single precision.

    Examples
    --------
    >>> constant_inputs(np.array([[0.3, 1.0], [0.1 + 0.2, 2.0]]))
    [0]
    """
    size = exponents(x)
    low, high = np.ldexp(x.min(0), -size), np.ldexp(x.max(0), -size)
    rounding = ROUNDING * torch.finfo(torch.float32 if single else torch.float64).eps
    return np.flatnonzero(high - low <= rounding * np.maximum(-low, high)).tolist()


def single_precision(table: Any) -> bool:
    """Whether all columns of an array, a tensor or a data frame are float32.

    Examples
    --------
    >>> single_precision(np.zeros((2, 1), np.float32)), single_precision([[0.0]])
    (True, False)
    """
    kinds = getattr(table, "dtypes", getattr(table, "dtype", ""))
    kinds = kinds if isinstance(kinds, Iterable) and not isinstance(kinds, str) else [kinds]
    return all(str(kind).rpartition(".")[2].lower() == "float32" for kind in kinds)
