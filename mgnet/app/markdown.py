"""Tables and numbers in Markdown that is also readable in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["exact", "markdown_table", "number"]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose first column is left-aligned, and the others right-aligned.

    Parameters
    ----------
    header : sequence of str
        Titles of the columns.
    rows : sequence of sequences of str
        Cells of each row.

    Returns
    -------
    str
        The table.

    Examples
    --------
    >>> text = markdown_table(("input", "from"), [("T", "305"), ("p", "0.1")])
    >>> text.splitlines()
    ['| input | from |', '| :---- | ---: |', '| T     |  305 |', '| p     |  0.1 |']
    """
    cells = [[cell.replace("|", r"\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in cells]
    lines.insert(1, rule)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    """A number with three digits; a dash for NaN.

    Examples
    --------
    >>> number(1.23456), number(float("nan"))
    ('1.23', '-')
    """
    return "-" if np.isnan(value) else f"{value:.3g}"


def exact(value: float) -> str:
    """A number with six digits.

    Examples
    --------
    >>> exact(1.23456789)
    '1.23457'
    """
    return f"{value:.6g}"
