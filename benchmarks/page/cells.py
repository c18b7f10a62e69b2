"""Rows of results: chosen, and as tables in Markdown."""

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]  # as benchmarks/saved.py keeps them
Rows = Sequence[Row]
SPREAD = "{{{0}_median:{1}}} ({{{0}_least:{1}}} to {{{0}_largest:{1}}})"


def values(rows: Rows, key: str) -> list[Any]:
    """What occurs, each once, in the order of the rows."""
    return list(dict.fromkeys(row[key] for row in rows if key in row))


def where(rows: Rows, **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def find(rows: Rows, **wanted: Any) -> Row:
    found = where(rows, **wanted)
    if len(found) != 1:
        raise LookupError(f"{len(found)} saved rows have {wanted}; one was expected")
    return found[0]


def lowest(rows: Rows, key: str) -> Row:
    return min((row for row in rows if key in row), key=lambda row: row[key])


def spread(key: str, form: str) -> str:
    """The format of a median with its spread."""
    return SPREAD.format(key, form)


def filled(form: str, row: Row) -> str:
    """A cell; a dash where the row lacks what it asks for."""
    try:
        return form.format(**row)
    except KeyError:
        return "-"


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    told = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in told)


def listed(rows: Rows, columns: dict[str, str]) -> str:
    """A line per row; columns are heads and formats."""
    return markdown(list(columns), [[filled(c, row) for c in columns.values()] for row in rows])


def crossed(rows: Rows, index: dict[str, str], by: str, cell: str) -> str:
    """A line for each combination of the index, a column for each value of `by`."""
    names = values(rows, by)
    lines: dict[tuple[str, ...], dict[Any, str]] = {}
    for row in rows:
        key = tuple(filled(form, row) for form in index.values())
        lines.setdefault(key, {})[row[by]] = filled(cell, row)
    cells = [[*key, *(found.get(name, "-") for name in names)] for key, found in lines.items()]
    return markdown([*index, *map(str, names)], cells)
