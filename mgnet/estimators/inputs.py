"""Refuse arrays whose values scikit-learn would convert to other values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.sparse as sp

__all__ = ["check_arrays", "check_labels"]


def check_arrays(owner: str, X: Any = None, y: Any = None, sample_weight: Any = None) -> None:
    """Refuse masked entries, which have no values, and dates, whose numbers depend on a unit.

    Parameters
    ----------
    owner : str
        Name of the caller in errors.
    X, y, sample_weight : array-like, optional
        Arrays to check. scikit-learn checks sparse arrays itself, but it would accept a sparse y.

    Raises
    ------
    ValueError
        If an array has masked entries or dates, or if y is sparse.

    Examples
    --------
    >>> check_arrays("KANRegressor", X=np.array([["2026-01-31"]], "datetime64[D]"))
    Traceback (most recent call last):
    ValueError: KANRegressor got X of dates or times; give numbers, such as days since the first
    """
    for name, array in (("X", X), ("y", y), ("sample_weight", sample_weight)):
        if np.ma.is_masked(array):
            raise ValueError(
                f"{owner} got {name} with masked entries; leave these rows out, or fill them in"
            )
        kinds = getattr(array, "dtypes", getattr(array, "dtype", None))
        kinds = kinds if isinstance(kinds, Iterable) and not isinstance(kinds, str) else [kinds]
        if any(getattr(kind, "kind", None) in ("M", "m") for kind in kinds):
            raise ValueError(
                f"{owner} got {name} of dates or times; give numbers, such as days since the first"
            )
        if name == "y" and sp.issparse(array):
            raise ValueError(f"{owner} got a sparse y; give y.toarray()")


def check_labels(owner: str, y: Any) -> None:
    """Refuse labels in an object array unless all of them are text; the message is scikit-learn's.

    Raises
    ------
    ValueError
        If labels are of several kinds.

    Examples
    --------
    >>> check_labels("KANClassifier", np.array(["a", None, 3], dtype=object))
    Traceback (most recent call last):
    ValueError: Unknown label type: KANClassifier got objects of the kinds NoneType, int, str as \
labels; give text only, or numbers as an array of numbers
    """
    y = np.asarray(y)
    if y.dtype == object and not all(isinstance(label, str) for label in y.flat):
        kinds = ", ".join(sorted({type(label).__name__ for label in y.flat}))
        raise ValueError(
            f"Unknown label type: {owner} got objects of the kinds {kinds} as labels; give text "
            "only, or numbers as an array of numbers"
        )
