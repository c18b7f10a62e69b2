"""Apply a trained model to a file of columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mgnet.app.columns.codes import CategoryCode
from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.selection import read_columns, require
from mgnet.app.files.columns import DataFile, shown
from mgnet.app.files.opening import open_data_file

if TYPE_CHECKING:
    from mgnet.app.model import Model

__all__ = ["predict_file"]

BATCH = 2**14  # rows per call of the network, whose splines need many times the memory of the rows
NAMED = 8  # inputs named in a remark


def predict_file(
    model: str | Path, data: str | Path, decimal: str | None = None
) -> tuple[Iterator[str], list[str]]:
    """The lines of a table with additional columns for the predictions, and remarks on its rows.

    There is one column for each target; for classes, the most likely one and a probability for
    each.

    Parameters
    ----------
    model : str or Path
        An output folder of `mgnet fit`, or the model.json in it.
    data : str or Path
        A file of columns with the inputs of the model.
    decimal : "." or ",", optional
        Decimal mark of a text file that does not make it clear.

    Returns
    -------
    lines : iterator of str
        The lines of a text file in its own dialect, or of any other file as CSV. Rows with a
        missing input have an empty prediction.
    remarks : list of str
        Numbers of rows that are outside the training range, have new levels, or are incomplete.

    Raises
    ------
    OSError, ValueError
        If the model or the table is missing or damaged, or if they do not fit together.
    """
    from mgnet.app.model import Model

    trained = Model.load(model)
    file = open_data_file(data, decimal)
    x, new = _inputs(file, trained.encoding)
    names = trained.targets.predicted
    for name in names:
        if name in file.names:
            raise ValueError(f"{file.source} has a column '{shown(name)}' already; rename it")
    complete: np.ndarray = np.logical_not(np.isnan(x).any(axis=1))
    values, rows = np.full((len(x), len(trained.targets.outputs)), np.nan), np.flatnonzero(complete)
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        values[batch] = trained.predict(x[batch]).reshape(len(batch), -1)
    remarks = [_of_new_levels(trained.encoding, name, new[name]) for name in new]
    remarks += _out_of_range(trained, x, complete)
    lost = complete & ~np.isfinite(values).all(axis=1)
    if lost.any():
        remarks.append(
            f"{lost.sum()} of {len(x)} rows have predictions beyond the largest number; they are "
            "empty or inf"
        )
    if not complete.all():
        remarks.append(
            f"{(~complete).sum()} of {len(x)} rows lack an input; their prediction is empty"
        )
    return file.with_columns(dict(zip(names, _columns(trained, values), strict=True))), remarks


def _inputs(file: DataFile, encoding: Encoding) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The inputs of every row (NaN if missing), and the rows with a new level."""
    require(file, encoding.columns)
    there = read_columns(file, encoding.columns)
    text = [name for name in encoding.numeric if there[name].kind not in ("number", "boolean")]
    if text:
        file.numbers(text)  # refuses them with the positions of their cells
    try:
        return encoding.encode(there)
    except ValueError as error:
        raise ValueError(f"{file.source}: {error}") from None


def _columns(trained: Model, values: np.ndarray) -> list[np.ndarray]:
    """Additional columns: values; or the class (empty if there is none) and all probabilities."""
    if not trained.targets.classes:
        return list(values.T)
    known = np.logical_and.reduce(np.isfinite(values), axis=1)
    likeliest = np.where(known, np.where(known[:, None], values, 0.0).argmax(axis=1), -1)
    labels = np.array([*trained.targets.classes, ""], dtype=object)[likeliest]
    return [labels, *values.T]


def _of_new_levels(encoding: Encoding, name: str, new: np.ndarray) -> str:
    code = encoding.code(name)
    joined = isinstance(code, CategoryCode) and code.rare
    how = "they count as other" if joined else "none of its levels is set there"
    return (
        f"{new.sum()} of {len(new)} rows have a value in '{shown(name)}' that is new or too rare "
        f"in the training data; {how}"
    )


def _out_of_range(trained: Model, x: np.ndarray, complete: np.ndarray) -> list[str]:
    low, high = np.asarray(trained.scales.ranges, dtype=float).T
    outside = ((x < low) | (x > high)) & complete[:, None]
    if not outside.any():
        return []
    told = trained.encoding.told
    counts = zip(trained.names, outside.sum(axis=0), low, high, strict=True)
    parts = [f"{shown(n)}: {k} outside {told(n, a)} to {told(n, b)}" for n, k, a, b in counts if k]
    if len(parts) > NAMED:
        parts[NAMED:] = [f"and {len(parts) - NAMED} inputs more"]
    how = "the nearest point of it is used" if trained.targets.classes else (
        "the model is extrapolated linearly"
    )  # fmt: skip
    return [
        f"{outside.any(axis=1).sum()} of {len(x)} rows are outside the range of the training "
        f"data ({'; '.join(parts)}); there {how}"
    ]
