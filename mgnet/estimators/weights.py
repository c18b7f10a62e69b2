"""Weights of rows and of classes, as an ensemble takes them: for how many rows each row counts."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_sample_weight

from mgnet.estimators.rows import merged_rows
from mgnet.estimators.scales import exponents
from mgnet.limits import is_one_of, shown

__all__ = ["class_factors", "counted", "counted_rows"]

MOST_COUNTED = 1e6  # rows that one row may stand for


def class_factors(
    owner: str, class_weight: Any, y: np.ndarray, weights: np.ndarray | None
) -> np.ndarray | None:
    """What the weight of each row is multiplied by for its class; None without.

    "balanced" gives all classes the same weight in all; rows of weight 2 count twice there, too.

    Parameters
    ----------
    owner : str
        Whose errors these are.
    class_weight : None, "balanced" or dict
        Weights of classes; 1 for those that are not named.
    y : array of shape (rows,)
        Labels.
    weights : array of shape (rows,) or None

    Raises
    ------
    ValueError
        For weights of classes that are negative or no numbers.

    Examples
    --------
    >>> y = np.array(["a", "b", "b", "b"])
    >>> class_factors("KANClassifier", "balanced", y, None).round(3).tolist()
    [2.0, 0.667, 0.667, 0.667]
    """
    if class_weight is None:
        return None
    if is_one_of(class_weight, ("balanced",)):
        labels = np.unique(y, return_inverse=True)[1]
        totals = np.bincount(labels, weights)
        known = np.where(totals > 0.0, totals, np.inf)
        return (totals.sum() / (np.count_nonzero(totals) * known))[labels]
    values = list(class_weight.values()) if isinstance(class_weight, dict) else []
    numbers = np.array([v if _is_weight(v) else np.nan for v in values], dtype=float)
    if not np.isfinite(numbers).all():
        raise ValueError(
            f"{owner} got class_weight {shown(class_weight)}; weights of classes must be finite "
            "numbers and not negative"
        )
    factors = compute_sample_weight(class_weight, y)
    return np.ldexp(factors, -exponents(factors))


def _is_weight(value: Any) -> bool:
    try:
        return float(value) >= 0.0 and not isinstance(value, str)
    except (TypeError, ValueError, OverflowError):
        return False


def counted_rows(
    x: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray | None = None,
    factors: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows that differ, for how many rows each counts, and how many it stands for.

    Factors of classes move weight from one class to another: all rows together count for as many
    as they would without.

    Parameters
    ----------
    x : array of shape (rows, inputs)
    y : array of shape (rows, targets), or labels of shape (rows,)
    weights : array of shape (rows,), optional
    factors : array of shape (classes,), optional

    Returns
    -------
    x, y : array
    counts : array of shape (different,)
    times : array of shape (different,)
        The counts without factors, where weights are numbers of rows.

    Examples
    --------
    >>> x, y = np.array([[3.0], [1.0], [3.0]]), np.array([0, 1, 0])
    >>> counted_rows(x, y, factors=np.array([1.0, 2.0]))[2:]
    (array([1.5, 1.5]), array([1., 2.]))
    """
    first, total, repeats = merged_rows(x, y, weights)
    if factors is None and total.min() == total.max():
        first = np.sort(first)  # as in the table
        return x[first], y[first], np.ones(len(first)), np.ones(len(first))
    x, y = x[first], y[first]
    counts, times = counted(total, repeats)
    if factors is not None:
        shifted = counts * factors[y]
        counts = shifted * (counts.sum() / shifted.sum())
    return x, y, counts, times


def counted(weights: np.ndarray, repeats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights as numbers of rows, and how many rows each row stands for.

    Whole numbers count rows, also over a power of two, and but for a common factor. Others, such as
    1 / variance, count for as many rows together as there are; they tell nothing of how many a row
    stands for, but repeats do.

    Parameters
    ----------
    weights : array of shape (rows,)
        Positive; of all rows that are the same.
    repeats : array of int of shape (rows,)
        How many these are.

    Examples
    --------
    >>> once = np.array([1, 1])
    >>> counted(np.array([0.25, 0.75]), once)[0], counted(np.array([0.3, 0.9]), once)[0]
    (array([1., 3.]), array([0.5, 1.5]))
    """
    if weights.min() * MOST_COUNTED >= weights.max():
        whole = np.ldexp(weights, 52 - exponents(weights))
        if (whole == np.rint(whole)).all():
            whole = whole / np.gcd.reduce(whole.astype(np.int64))
            if whole.max() <= MOST_COUNTED:
                return whole, whole
    times = repeats / np.gcd.reduce(repeats)
    return weights * (times.sum() / weights.sum()), times
