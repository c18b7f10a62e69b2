"""Read a file of columns as inputs and targets, check it, and split its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.meaning import looks_like_numbers, meant
from mgnet.app.columns.selection import Chosen, chosen, input_names, read_columns
from mgnet.app.columns.targets import Targets, coded
from mgnet.app.data import Data
from mgnet.app.files.columns import Column, DataFile, listed, shown
from mgnet.app.files.opening import open_data_file

__all__ = ["Table", "read_table", "split"]

FEWEST_ROWS = 10


@dataclass(frozen=True, eq=False)
class Table:
    """Inputs and targets of every row, all of them present and finite.

    At least one input varies, and so does every target.

    Attributes
    ----------
    inputs : tuple of Column
        Columns from `columns.meant`; text may be missing, and missing text is a level.
    targets : Targets
        Names of the targets, and the classes.
    y : array of shape (rows,) or (rows, targets)
        Targets as float64, or the numbers of classes.
    weights : array of shape (rows,), optional
        Weights of the rows.
    layouts : mapping of str to str
        Layouts of inputs whose dates were stored as text.
    cycles : tuple of str
        Cyclic features of dates in addition to days, as for `DateCode`.
    dropped : int
        Number of rows that were omitted because of a missing value.
    remarks : tuple of str
        Remarks on columns that were omitted.
    units : mapping of str to str
        Units of numeric inputs and targets, if the file has them.

    Examples
    --------
    >>> Table.of_numbers(("T",), "rho", np.ones((2, 1)), np.ones(2)).names
    ('T',)
    """

    inputs: tuple[Column, ...]
    targets: Targets
    y: np.ndarray = field(repr=False)
    weights: np.ndarray | None = field(default=None, repr=False)
    layouts: Mapping[str, str] = field(default_factory=dict)
    cycles: tuple[str, ...] = ()
    dropped: int = 0
    remarks: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_numbers(cls, names: Sequence[str], target: str, x: np.ndarray, y: np.ndarray) -> Table:
        """A table of numbers: x of shape (rows, names), y of shape (rows,)."""
        inputs = (Column(n, "number", column) for n, column in zip(names, x.T, strict=True))
        return cls(tuple(inputs), Targets((target,)), y)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns that are inputs."""
        return tuple(column.name for column in self.inputs)


def read_table(
    path: str | Path,
    target: str | Sequence[str],
    inputs: Sequence[str] | None = None,
    drop_missing: bool = False,
    *,
    exclude: Sequence[str] = (),
    weights: str | None = None,
    task: str = "",
    cycles: Sequence[str] = (),
    decimal: str | None = None,
) -> Table:
    r"""Read the inputs and the targets of a file of columns.

    Parameters
    ----------
    path : str or Path
        File to read.
    target : str or sequence of str
        Names of the columns to predict.
    inputs : sequence of str, optional
        Names of the columns to predict the targets from; by default, all other columns.
    drop_missing : bool
        Whether to omit rows with an empty, NaN or infinite cell, instead of refusing them. A
        missing text is not a reason to omit a row, except in a target.
    exclude : sequence of str
        Columns that are not inputs.
    weights : str, optional
        Name of the column with the weights of the rows.
    task : "", "regression" or "classification"
        Task, as for `targets.coded`.
    cycles : sequence of str
        Cyclic features of dates in addition to days, as for `DateCode`.
    decimal : "." or ",", optional
        Decimal mark of a text file that does not make it clear.

    Returns
    -------
    Table
        The rows of the file.

    Raises
    ------
    OSError
        If the file does not exist or cannot be read.
    ValueError
        If the file is not a table with these columns; the message lists all errors.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "data.csv")
    ...     _ = path.write_text("T,rho\n" + "".join(f"{k},{k * k}\n" for k in range(20)))
    ...     table = read_table(path, "rho")
    >>> table.names, len(table.y)
    (('T',), 20)
    """
    file = open_data_file(path, decimal)
    names = (target,) if isinstance(target, str) else tuple(target)
    wanted = input_names(file, names, inputs, exclude, weights)
    extra = [*names, *([] if weights is None else [weights])]
    there = read_columns(file, [*wanted, *extra])
    rows = len(there[names[0]].values)
    if not rows:
        raise ValueError(
            f"{file.source} has a header but no rows; at least {FEWEST_ROWS} are needed"
        )
    found = chosen(file, [there[name] for name in wanted], inputs is not None)
    if not found.columns and not found.wrong:
        found.wrong.append(f"no input is left: {'; '.join(found.remarks)}")
    others = _numbers_alone(file, [there[name] for name in extra], found)
    complete = _complete(file, [*found.columns, *others], drop_missing, found)
    if cycles and not any(column.kind == "date" for column in found.columns):
        found.wrong.append(f"--cyclic {','.join(cycles)} needs an input that holds dates")
    y, classes = np.empty(0), ()
    try:
        if complete.any():
            y, classes = coded([_rows(c, complete) for c in others[: len(names)]], task)
    except ValueError as error:
        found.wrong.append(str(error))
    own = None if weights is None else others[-1].values[complete]
    if weights is not None and (why := _wrong_weights(others[-1].kind, own)):
        found.wrong.append(f"weights '{shown(weights)}' {why}")
    if found.wrong:
        raise ValueError(f"{file.source}: {'; '.join(found.wrong)}")
    if complete.sum() < FEWEST_ROWS:
        raise ValueError(
            f"{file.source} has too few complete rows, {complete.sum()}; at least {FEWEST_ROWS} "
            "are needed"
        )
    table = Table(
        tuple(_rows(column, complete) for column in found.columns),
        Targets(names, classes),
        y,
        own,
        found.layouts,
        tuple(cycles),
        int(rows - complete.sum()),
        tuple(found.remarks),
        {c.name: c.units for c in (*found.columns, *others) if c.units and c.kind == "number"},
    )
    _refuse_constants(file.source, table)
    return table


def _rows(column: Column, rows: np.ndarray) -> Column:
    return replace(column, values=column.values[rows])


def _numbers_alone(file: DataFile, others: Sequence[Column], found: Chosen) -> list[Column]:
    """Targets and weights are returned unchanged; numeric columns with mistakes are errors."""
    mixed = [column.name for column in others if looks_like_numbers(column)]
    if mixed:
        try:
            file.numbers(mixed)
        except ValueError as error:
            found.wrong.append(str(error).removeprefix(f"{file.source}: "))
    known = []
    for column in others:
        own = column
        if column.kind == "number" or (column.kind == "text" and column.name not in mixed):
            try:
                own = meant(column)[0]
            except ValueError:
                own = replace(column, kind="date", values=np.zeros(len(column.values)))
        known.append(own if own.kind in ("number", "date") else column)
    return known


def _complete(
    file: DataFile, every: Sequence[Column], drop_missing: bool, found: Chosen
) -> np.ndarray:
    """A mask of the complete rows; missing values are errors unless rows may be dropped."""
    inputs = {column.name for column in found.columns}
    missing = {
        column.name: _missing(column)
        for column in every
        if column.kind != "text" or column.name not in inputs
    }
    table = np.column_stack(list(missing.values()))
    bad = np.logical_or.reduce(table, axis=1)
    if bad.any() and not drop_missing:
        first = int(bad.argmax())
        names, counts = list(missing), table.sum(0)
        ranked = sorted((n for n in range(len(names)) if counts[n]), key=lambda n: -counts[n])
        each = listed([f"{names[n]} {counts[n]}" for n in ranked])
        which = f" ({each})" if len(ranked) > 1 else ""
        also = ", or columns with --exclude" if any(names[n] in inputs for n in ranked) else ""
        found.wrong.append(
            f"{bad.sum()} of {len(bad)} rows have an empty, NaN or infinite cell, the first is "
            f"{file.row_label(first)}, column '{shown(names[int(table[first].argmax())])}'{which}; "
            f"leave such rows out with --drop-missing{also}"
        )
    return ~bad


def _missing(column: Column) -> np.ndarray:
    values = column.values
    if column.kind == "text":
        return np.array([text is None for text in values], dtype=bool)
    return np.isnat(values) if values.dtype.kind == "M" else np.isnan(values)


def _wrong_weights(kind: str, values: np.ndarray | None) -> str:
    """The reason why a column cannot be weights; empty if it can."""
    why = ""
    if values is None or kind != "number":
        why = f"holds {kind}"
    elif len(values) and values.min() < 0.0:
        why = "has negative numbers"
    elif len(values) and not values.any():
        why = "is 0 in all rows"
    return why and f"{why}; expected numbers of at least 0, some of them positive"


def _refuse_constants(source: str, table: Table) -> None:
    targets, y = table.targets, table.y
    numbers = [(c.name, c.values) for c in table.inputs if c.kind == "number"]
    if not targets.classes:
        numbers += zip(targets.names, np.atleast_2d(y.T), strict=True)
    with np.errstate(over="ignore"):
        for name, values in numbers:
            if not np.isfinite(np.ptp(values)):
                raise ValueError(
                    f"{source}: column '{shown(name)}' spans more than a double can hold; rescale "
                    "it"
                )
    _refuse_constant_targets(source, targets, y)
    if all((c.values == c.values[0]).all() for c in table.inputs):
        raise ValueError(
            f"{source}: {len(y)} rows have the same value in every input "
            f"({listed(table.names)}); there is nothing to predict from"
        )


def _refuse_constant_targets(source: str, targets: Targets, y: np.ndarray) -> None:
    flat = [] if targets.classes else np.flatnonzero(np.ptp(np.atleast_2d(y.T), axis=1) == 0.0)
    if len(flat):
        raise ValueError(
            f"{source}: {len(y)} rows have the same value {y.reshape(len(y), -1)[0, flat[0]]:g} in "
            f"column '{shown(targets.names[flat[0]])}'; a constant target leaves nothing to fit"
        )


def split(table: Table, held_out: float, seed: int) -> Data:
    """Draw training and held-out rows at random; for classes, the same fraction of each.

    The encoding of the inputs follows from the training rows only.

    Parameters
    ----------
    table : Table
        Rows to split.
    held_out : float
        Fraction of the rows that is excluded from training, between 0 and 1.
    seed : int
        Seed of the random order.

    Returns
    -------
    Data
        Training and held-out rows.

    Raises
    ------
    ValueError
        If the fraction leaves no row for training or no row to hold out, or if all training rows
        have the same target or the same inputs.

    Examples
    --------
    >>> table = Table.of_numbers(("T",), "rho", np.arange(10.0)[:, None], np.arange(10.0))
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
    if table.targets.classes:
        order, held = _by_classes(order, table.y, held)
    train = order[held:]
    encoding = Encoding.of(
        (_rows(column, train) for column in table.inputs), table.layouts, table.cycles
    )
    x = encoding.encode({column.name: column for column in table.inputs})[0]
    y, weights = table.y, table.weights
    _refuse_poor("training rows", table, x[train], y[train], train)
    return Data(
        encoding.names,
        table.targets,
        x[train],
        y[train],
        x[order[:held]],
        y[order[:held]],
        None if weights is None else weights[train],
        None if weights is None else weights[order[:held]],
        encoding,
        table.units,
    )


def _by_classes(order: np.ndarray, y: np.ndarray, held: int) -> tuple[np.ndarray, int]:
    """Order the rows so that those to hold out, a part of each class, come first; count these."""
    counts = np.bincount(y)
    exact = held * counts / len(y)
    parts = np.minimum(np.floor(exact).astype(int), counts - 1)
    for number in np.argsort(parts - exact, kind="stable")[: held - parts.sum()]:
        parts[number] += parts[number] < counts[number] - 1
    rank = np.empty(len(y), dtype=int)  # rank of each row in its class, in this order
    for number in range(len(counts)):
        members = order[y[order] == number]
        rank[members] = np.arange(len(members))
    first = rank[order] < parts[y[order]]
    return np.concatenate([order[first], order[~first]]), int(first.sum())


def _refuse_poor(source: str, table: Table, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> None:
    """Refuse training rows that are all equal, or that all have weight 0."""
    _refuse_constant_targets(source, table.targets, y)
    if not np.ptp(x, axis=0).any():
        raise ValueError(
            f"{source}: {len(y)} rows have the same value in every input "
            f"({listed(table.names)}); there is nothing to predict from"
        )
    if table.weights is None:
        return
    counted = table.weights[rows] > 0.0
    classes = table.targets.classes
    lost = [kind for n, kind in enumerate(classes) if not counted[y == n].any()]
    if lost or not counted.any():
        what = f"of class {listed(lost)} have" if lost else "have"
        raise ValueError(f"{source} {what} only weights of 0; give some of them a weight")
