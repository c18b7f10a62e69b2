"""A file of columns as inputs and a target, checked; and its split into training and held-out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from mgnet.app.data import Data
from mgnet.app.files.columns import DataFile, listed, shown
from mgnet.app.files.opening import open_data_file

__all__ = ["Table", "columns", "read_table", "split"]

FEWEST_ROWS = 10
COMPARED = 1000  # names among which a similar one is looked for
LONGEST_COMPARED = 100


@dataclass(frozen=True, eq=False)
class Table:
    """Inputs and target of every row, as they are in the file; all finite.

    Neither the target nor all inputs are constant.

    Attributes
    ----------
    names : tuple of str
        Of the inputs.
    target : str
    x, y : array of shape (rows, inputs), (rows,)
        float64.
    dropped : int
        Rows of the file that had a missing value.

    Examples
    --------
    >>> Table(("T",), "rho", np.ones((2, 1)), np.ones(2))
    Table(names=('T',), target='rho', dropped=0)
    """

    names: tuple[str, ...]
    target: str
    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    dropped: int = 0


def read_table(
    path: str | Path,
    target: str,
    inputs: Sequence[str] | None = None,
    drop_missing: bool = False,
    decimal: str | None = None,
) -> Table:
    r"""The inputs and the target of a file of columns.

    Parameters
    ----------
    path : str or Path
    target : str
        Name of the column to predict.
    inputs : sequence of str, optional
        Names of the columns to predict it from; all others by default.
    drop_missing : bool
        Leave out rows with an empty, NaN or infinite cell, instead of refusing them.
    decimal : "." or ",", optional
        Decimal mark of a text file that does not tell it.

    Returns
    -------
    Table

    Raises
    ------
    OSError
        If there is no such file, or if it cannot be read.
    ValueError
        If the file is no table of numbers with these columns, says which one is wrong.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "data.csv")
    ...     _ = path.write_text("T,rho\n" + "".join(f"{k},{k * k}\n" for k in range(20)))
    ...     table = read_table(path, "rho")
    >>> table.names, table.x.shape
    (('T',), (20, 1))
    """
    file = open_data_file(path, decimal)
    _require(file, [target])
    if inputs is None:
        inputs = [name for name in file.names if name != target]
    if not inputs:
        raise ValueError(
            f"{file.source} has no column beside the target '{shown(target)}'; an input is needed"
        )
    if target in inputs:
        raise ValueError(f"target '{shown(target)}' is among the inputs; leave it out of --inputs")
    twins = [name for name, count in Counter(inputs).items() if count > 1]
    if twins:
        raise ValueError(f"input '{shown(min(twins))}' is named twice; once is enough")
    numbers = columns(file, [*inputs, target])
    rows = len(numbers)
    if not rows:
        raise ValueError(
            f"{file.source} has a header but no rows; at least {FEWEST_ROWS} are needed"
        )
    numbers = _complete(file, numbers, [*inputs, target], drop_missing)
    if len(numbers) < FEWEST_ROWS:
        raise ValueError(
            f"{file.source} has only {len(numbers)} complete rows; at least {FEWEST_ROWS} are "
            "needed"
        )
    _refuse_constants(file.source, [*inputs, target], numbers)
    x, y = numbers[:, :-1].copy(), numbers[:, -1].copy()
    return Table(tuple(inputs), target, x, y, rows - len(numbers))


def columns(file: DataFile, wanted: Sequence[str]) -> np.ndarray:
    """Columns by name, of shape (rows, wanted), NaN where a value is missing or infinite.

    Parameters
    ----------
    file : DataFile
    wanted : sequence of str

    Raises
    ------
    ValueError
        If a column is not there (names the nearest ones), or holds something else than numbers.

    Examples
    --------
    >>> from mgnet.app.files.arrays import ArrayFile
    >>> columns(ArrayFile("x.npz", ("a",), {"a": np.array([1.0, np.inf])}), ["a"]).ravel()
    array([ 1., nan])
    """
    _require(file, wanted)
    numbers = file.numbers(wanted)
    numbers[np.isinf(numbers)] = np.nan
    return numbers


def _require(file: DataFile, wanted: Sequence[str]) -> None:
    there = set(file.names)
    for name in wanted:
        if name not in there:
            near = _similar(name, file.names)
            raise ValueError(
                f"{file.source} has no column '{shown(name)}'; "
                f"{'the nearest names are' if near else 'it has'} {listed(near or file.names)}"
            )


def _similar(name: str, names: Iterable[str]) -> list[str]:
    """Names that may have been meant; of very many, only those of about the same length."""
    if len(name) > LONGEST_COMPARED:
        return []
    lower = {other.lower(): other for other in names if len(other) <= LONGEST_COMPARED}
    nearest = sorted(lower, key=lambda other: (other != name.lower(), abs(len(other) - len(name))))
    near = get_close_matches(name.lower(), nearest[:COMPARED], n=3, cutoff=0.5)
    return [lower[other] for other in near]


def _complete(
    file: DataFile, numbers: np.ndarray, names: Sequence[str], drop_missing: bool
) -> np.ndarray:
    missing = np.isnan(numbers)
    bad = missing.any(axis=1)
    if bad.any() and not drop_missing:
        first = int(bad.argmax())
        raise ValueError(
            f"{file.source}: {bad.sum()} of {len(numbers)} rows have an empty, NaN or infinite "
            f"cell, the first is {file.row_label(first)}, "
            f"column '{shown(names[int(missing[first].argmax())])}'; leave such rows out with "
            "--drop-missing"
        )
    return numbers[~bad] if bad.any() else numbers


def _refuse_constants(source: str, names: Sequence[str], numbers: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        spread = np.ptp(numbers, axis=0)
    if not np.isfinite(spread).all():
        name = shown(names[int(np.isfinite(spread).argmin())])
        raise ValueError(f"{source}: column '{name}' spans more than a double can hold; rescale it")
    if spread[-1] == 0.0:
        raise ValueError(
            f"{source}: {len(numbers)} rows have the same value {numbers[0, -1]:g} in column "
            f"'{shown(names[-1])}'; a constant target leaves nothing to fit"
        )
    if not spread[:-1].any():
        raise ValueError(
            f"{source}: {len(numbers)} rows have the same value in every input "
            f"({listed(names[:-1])}); there is nothing to predict from"
        )


def split(table: Table, held_out: float, seed: int) -> Data:
    """Training and held-out rows, drawn at random.

    Parameters
    ----------
    table : Table
    held_out : float
        Fraction of the rows that is kept from training, between 0 and 1.
    seed : int

    Returns
    -------
    Data

    Raises
    ------
    ValueError
        If the fraction leaves no row to train on or none to hold out, or only training rows that
        agree in the target, or in all inputs.

    Examples
    --------
    >>> table = Table(("T",), "rho", np.arange(10.0)[:, None], np.arange(10.0))
    >>> data = split(table, 0.2, seed=0)
    >>> len(data.y), len(data.y_held)
    (8, 2)
    """
    rows = len(table.y)
    held = round(held_out * rows) if 0.0 < held_out < 1.0 else 0
    if not 0 < held < rows - 1:
        raise ValueError(
            f"held-out fraction is {held_out:g} of {rows} rows; it must leave a row to hold out "
            "and two to train on, 0.2 is usual"
        )
    order = np.random.default_rng(seed).permutation(rows)
    x, y = table.x[order], table.y[order]
    _refuse_constants(
        "training rows", [*table.names, table.target], np.column_stack([x[held:], y[held:]])
    )
    return Data(table.names, table.target, x[held:], y[held:], x[:held], y[:held])
