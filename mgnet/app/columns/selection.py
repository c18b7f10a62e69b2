"""Choose the columns of a file that are inputs; omit empty columns, row numbers and free text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import numpy as np

from mgnet.app.columns.codes import RARE
from mgnet.app.columns.meaning import looks_like_numbers, meant
from mgnet.app.files.columns import Column, DataFile, listed, shown

__all__ = ["Chosen", "chosen", "input_names", "read_columns", "require"]

COMPARED = 1000  # names that are searched for a similar one
LONGEST_COMPARED = 100
# Names of an index that pandas wrote, and of one that it read.
UNNAMED = re.compile(r"|Unnamed: \d+")
COUNTERS = {"id", "index", "row", "rownames", "row_id", "rowid", "no", "no.", "nr"}


@dataclass
class Chosen:
    """Inputs, and information on the other columns.

    Attributes
    ----------
    columns : list of Column
        Columns from `meant`.
    layouts : dict of str to str
        Layouts of dates that were stored as text.
    remarks : list of str
        Remarks on columns that were omitted.
    wrong : list of str
        Messages on columns that cannot be inputs.
    """

    columns: list[Column] = field(default_factory=list)
    layouts: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def input_names(
    file: DataFile,
    targets: Sequence[str],
    inputs: Sequence[str] | None,
    exclude: Sequence[str] = (),
    weights: str | None = None,
) -> list[str]:
    """Names of the requested inputs, or of all columns that have no other role.

    Parameters
    ----------
    file : DataFile
        File with the columns.
    targets, inputs, exclude : sequence of str
        Names of columns with these roles.
    weights : str, optional
        Name of the column with weights.

    Raises
    ------
    ValueError
        If a column is missing, is named twice or has two roles, or if no input is left.

    Examples
    --------
    >>> from mgnet.app.files.arrays import ArrayFile
    >>> columns = {name: np.ones(2) for name in ("a", "b", "c")}
    >>> input_names(ArrayFile("x.npz", tuple(columns), columns), ["c"], None, ["a"])
    ['b']
    """
    others = [*targets, *([weights] if weights is not None else [])]
    require(file, [*others, *(inputs or ()), *exclude])
    for role, names in (("target", targets), ("input", inputs or ())):
        twins = [name for name, count in Counter(names).items() if count > 1]
        if twins:
            raise ValueError(f"{role} '{shown(min(twins))}' is named twice; once is enough")
    if weights in targets:
        raise ValueError(
            f"target '{shown(str(weights))}' cannot also be the weights; name another column"
        )
    for name in others:
        role = "target" if name in targets else "weights column"
        if inputs is not None and name in inputs:
            raise ValueError(
                f"{role} '{shown(name)}' is among the inputs; leave it out of --inputs"
            )
        if name in exclude:
            raise ValueError(f"{role} '{shown(name)}' is also excluded; leave it out of --exclude")
    left = {*others, *exclude}
    found = [name for name in (file.names if inputs is None else inputs) if name not in left]
    if not found:
        beside = f"the target '{shown(targets[0])}'" if len(left) == 1 else f"{listed(others)}"
        raise ValueError(f"{file.source} has no column besides {beside}; an input is needed")
    return found


def require(file: DataFile, wanted: Iterable[str]) -> None:
    """Refuse names that a file does not have, in one sentence that suggests similar names.

    Raises
    ------
    ValueError
        If a name is missing.

    Examples
    --------
    >>> from mgnet.app.files.arrays import ArrayFile
    >>> require(ArrayFile("x.npz", ("rho",), {"rho": np.ones(2)}), ["Rho", "q"])
    Traceback (most recent call last):
    ValueError: x.npz has no columns Rho, q; the nearest names are rho
    """
    there = set(file.names)
    absent = list(dict.fromkeys(name for name in wanted if name not in there))
    if absent:
        near = list(dict.fromkeys(n for name in absent for n in _similar(name, file.names)))
        names = f" '{shown(absent[0])}'" if len(absent) == 1 else f"s {listed(absent)}"
        raise ValueError(
            f"{file.source} has no column{names}; "
            f"{'the nearest names are' if near else 'it has'} {listed(near or file.names)}"
        )


def _similar(name: str, names: Iterable[str]) -> list[str]:
    """Names that may have been intended; among very many names, only those of similar length."""
    if len(name) > LONGEST_COMPARED:
        return []
    lower = {other.lower(): other for other in names if len(other) <= LONGEST_COMPARED}
    nearest = sorted(lower, key=lambda other: (other != name.lower(), abs(len(other) - len(name))))
    near = get_close_matches(name.lower(), nearest[:COMPARED], n=3, cutoff=0.5)
    return [lower[other] for other in near]


def read_columns(file: DataFile, wanted: Sequence[str]) -> dict[str, Column]:
    """Read columns by name, whatever they hold, and check that they have the same length.

    Parameters
    ----------
    file : DataFile
        File to read.
    wanted : sequence of str
        Names of the columns.

    Raises
    ------
    ValueError
        If some columns cannot be read, or if they differ in length; the message names all of these.

    Examples
    --------
    >>> from mgnet.app.files.arrays import ArrayFile
    >>> read_columns(ArrayFile("x.npz", ("a",), {"a": np.array([True])}), ["a"])
    {'a': Column(name='a', kind='boolean', units=None)}
    """
    found: dict[str, Column] = {}
    wrong: list[str] = []
    for name in wanted:
        try:
            found[name] = file.column(name)
        except ValueError as error:
            wrong.append(str(error).removeprefix(f"{file.source}: "))
    if wrong:
        raise ValueError(f"{file.source}: {'; '.join(dict.fromkeys(wrong))}")
    rows = {name: len(column.values) for name, column in found.items()}
    if len(set(rows.values())) > 1:
        text = listed([f"{name} {count}" for name, count in rows.items()])
        raise ValueError(
            f"{file.source}: arrays differ in length ({text}); every column needs one value per row"
        )
    return found


def chosen(file: DataFile, columns: Sequence[Column], named: bool) -> Chosen:
    """Divide columns into inputs, columns to omit, and columns to refuse.

    Parameters
    ----------
    file : DataFile
        File that is asked about cells that are not numbers.
    columns : sequence of Column
        Columns of the file.
    named : bool
        Whether the user named the columns; none is then omitted, and unsuitable ones are errors.

    Examples
    --------
    >>> from mgnet.app.files.arrays import ArrayFile
    >>> names = np.array([f"no {k}" for k in range(20)], dtype=object)
    >>> columns = [Column("T", "number", np.arange(20.0)), Column("name", "text", names)]
    >>> found = chosen(ArrayFile("x.npz", (), {}), columns, named=False)
    >>> [column.name for column in found.columns], found.remarks
    (['T'], ["column 'name' left out: 20 different texts in 20 rows are not categories"])
    """
    found = Chosen()
    mixed = [column.name for column in columns if looks_like_numbers(column)]
    if mixed:
        try:
            file.numbers(mixed)
        except ValueError as error:
            found.wrong.append(str(error).removeprefix(f"{file.source}: "))
    for column in columns:
        if column.name in mixed:
            continue
        if not column.name and not _tells_apart(column):
            found.wrong.append("column 1 has no name, but does not number the rows; name it")
            continue
        if why := _useless(column, named):
            if named:
                found.wrong.append(f"column '{shown(column.name)}' is not an input: {why}")
            else:
                which = f"'{shown(column.name)}'" if column.name else "1, which has no name,"
                found.remarks.append(f"column {which} left out: {why}")
            continue
        try:
            known, layout = meant(column)
        except ValueError as error:
            found.wrong.append(f"column '{shown(column.name)}': {error}")
            continue
        found.columns.append(known)
        if layout:
            found.layouts[column.name] = layout
    return found


def _useless(column: Column, named: bool) -> str:
    """The reason why a column says nothing about its rows; empty if there is none."""
    values = column.values
    if column.kind == "number":
        if len(values) and np.isnan(values).all():
            return "it is empty"
        if named:
            return ""
        counts = column.name.lower() in COUNTERS and _counts(values)
        index = UNNAMED.fullmatch(column.name) and _tells_apart(column)
        return "it only numbers the rows" if counts or index else ""
    if column.kind != "text":
        return ""
    counted = Counter(text for text in values.tolist() if text is not None)
    total = counted.total()
    if not total:
        return "it is empty"
    many = 2 * len(counted) > total or max(counted.values()) < RARE
    if many and len(counted) > 2 and _kind(column) == "text":
        return f"{len(counted)} different texts in {total} rows are not categories"
    return ""


def _counts(values: np.ndarray) -> bool:
    """Whether each number is the previous number plus one."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool((np.diff(values) == 1.0).all())


def _kind(column: Column) -> str:
    """The kind that `meant` finds; also "date" for ambiguous dates, which it refuses."""
    try:
        return meant(column)[0].kind
    except ValueError:
        return "date"


def _tells_apart(column: Column) -> bool:
    """Whether the column has a different integer or text in every row."""
    values = column.values.tolist()
    if column.kind == "number" and not np.array_equal(column.values, np.round(column.values)):
        return False
    return column.kind in ("number", "text") and len(set(values)) == len(values)
