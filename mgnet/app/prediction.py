"""A trained model applied to a file of columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mgnet.app.files.columns import shown
from mgnet.app.files.opening import open_data_file
from mgnet.app.table import columns

__all__ = ["predict_file"]

BATCH = 2**14  # rows that the network sees at once: its splines take many times their memory
NAMED = 8  # inputs that a remark names


def predict_file(
    model: str | Path, data: str | Path, decimal: str | None = None
) -> tuple[Iterator[str], list[str]]:
    """The lines of a table with the prediction as a column more, and remarks on its rows.

    Parameters
    ----------
    model : str or Path
        An output folder of `mgnet fit`, or the model.json in it.
    data : str or Path
        A file of columns with the inputs of the model.
    decimal : "." or ",", optional
        Decimal mark of a text file that does not tell it.

    Returns
    -------
    lines : iterator of str
        The text in its own dialect, or CSV. Rows with a missing input have an empty prediction.
    remarks : list of str
        How many rows lie out of the training range, and how many are incomplete.

    Raises
    ------
    OSError, ValueError
        If the model or the table is not there, damaged, or does not fit the other.
    """
    from mgnet.app.model import Model

    trained = Model.load(model)
    file = open_data_file(data, decimal)
    x = columns(file, trained.names)
    name = f"{trained.target}_predicted"
    if name in file.names:
        raise ValueError(f"{file.source} has a column '{shown(name)}' already; rename it")
    complete: np.ndarray = np.logical_not(np.isnan(x).any(axis=1))
    column, rows = np.full(len(x), np.nan), np.flatnonzero(complete)
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        column[batch] = trained.predict(x[batch])
    remarks = []
    low, high = np.asarray(trained.scales.ranges, dtype=float).T
    outside = ((x < low) | (x > high)) & complete[:, None]
    if outside.any():
        counts = zip(trained.names, outside.sum(axis=0), low, high, strict=True)
        parts = [f"{shown(n)}: {k} outside {a:g} to {b:g}" for n, k, a, b in counts if k]
        if len(parts) > NAMED:
            parts[NAMED:] = [f"and {len(parts) - NAMED} inputs more"]
        remarks.append(
            f"{outside.any(axis=1).sum()} of {len(x)} rows are out of the range of the training "
            f"data ({'; '.join(parts)}); there the model is extrapolated linearly"
        )
    lost = complete & ~np.isfinite(column)
    if lost.any():
        remarks.append(
            f"{lost.sum()} of {len(x)} rows have predictions beyond the largest number; they are "
            "empty or inf"
        )
    if not complete.all():
        remarks.append(
            f"{(~complete).sum()} of {len(x)} rows lack an input; their prediction is empty"
        )
    return file.with_column(name, column), remarks
