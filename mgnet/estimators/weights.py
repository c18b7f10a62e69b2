"""Weights of rows and of classes for an ensemble, converted to effective numbers of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_sample_weight

from mgnet.estimators.rows import merged_rows
from mgnet.estimators.scales import exponents
from mgnet.limits import is_one_of, shown

__all__ = ["class_factors", "counted", "counted_rows"]

MOST_COUNTED = 1e6  # rows that one row may represent


def class_factors(
    owner: str, class_weight: Any, y: np.ndarray, weights: np.ndarray | None
) -> np.ndarray | None:
    """For each row, the factor that its class gives to its weight; None without class weights.

    "balanced" gives all classes the same total weight, where a row of weight 2 counts twice.

    Parameters
    ----------
    owner : str
        Name of the caller in errors.
    class_weight : None, "balanced" or dict
        Weights of classes; classes that are not named have weight 1.
    y : array of shape (rows,)
        Labels of the rows.
    weights : array of shape (rows,) or None
        Weights of the rows.

    Raises
    ------
    ValueError
        If weights of classes are negative or not numbers.

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
    """Merge equal rows; return the distinct rows, with the number of rows that each counts as.

    Factors of classes only move weight between classes: the total over all rows is the same as
    without factors.

    Parameters
    ----------
    x : array of shape (rows, inputs)
        Inputs.
    y : array of shape (rows, targets), or labels of shape (rows,)
        Targets or labels.
    weights : array of shape (rows,), optional
        Weights of the rows.
    factors : array of shape (classes,), optional
        Factors of the classes.

    Returns
    -------
    x, y : array
        Distinct rows.
    counts : array of shape (different,)
        Number of rows that each distinct row counts as.
    times : array of shape (different,)
        Number of rows of the table that each distinct row represents, without factors of classes.

    Examples
    --------
    >>> x, y = np.array([[3.0], [1.0], [3.0]]), np.array([0, 1, 0])
    >>> counted_rows(x, y, factors=np.array([1.0, 2.0]))[2:]
    (array([1.5, 1.5]), array([1., 2.]))
    """
    first, total, repeats = merged_rows(x, y, weights)
    if factors is None and total.min() == total.max():
        first = np.sort(first)  # in the order of the table
        return x[first], y[first], np.ones(len(first)), np.ones(len(first))
    x, y = x[first], y[first]
    counts, times = counted(total, repeats)
    if factors is not None:
        shifted = counts * factors[y]
        counts = shifted * (counts.sum() / shifted.sum())
    return x, y, counts, times


def counted(weights: np.ndarray, repeats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convert weights to numbers of rows, and find how many rows each row represents.

    Integers are numbers of rows, even if they are divided by a power of two or have a common
    factor. Other weights, such as 1 / variance, are scaled so that their sum is the number of rows.
    They do not show how many rows a row represents; its repetitions do.

    Parameters
    ----------
    weights : array of shape (rows,)
        Positive sums of the weights of equal rows.
    repeats : array of int of shape (rows,)
        Numbers of equal rows.

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
