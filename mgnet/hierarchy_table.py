"""The table that `print(hierarchy)` shows."""

from __future__ import annotations

from collections.abc import Sequence

from mgnet.level import Level

__all__ = ["table"]


def table(levels: Sequence[Level]) -> str:
    """A row for each level.

    Examples
    --------
    >>> from mgnet import gallery
    >>> print(table(gallery.poisson(3)).splitlines()[0])
    Hierarchy of 2 levels, 4 unknowns in all (1.33 times the finest)
    """
    finest = levels[0]
    rows = [("level", "unknowns", "cost", "smoother", "transfer")]
    for number, level in enumerate(levels):
        smoother = str(level.smoother)
        if level.post_smoother is not None:
            smoother += f" / {level.post_smoother}"
        rows.append(
            (
                str(number),
                str(level.unknowns or "?"),
                f"{level.evaluation_cost / finest.evaluation_cost:.3g}",
                smoother,
                "-" if level.transfer is None else str(level.transfer),
            )
        )
    width = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{row[0]:>{width[0]}}  {row[1]:>{width[1]}}  {row[2]:>{width[2]}}  "
        f"{row[3]:<{width[3]}}  {row[4]}"
        for row in rows
    ]
    total = sum(level.unknowns for level in levels)
    head = f"Hierarchy of {len(levels)} levels"
    if all(level.unknowns for level in levels):
        head += f", {total} unknowns in all ({total / finest.unknowns:.3g} times the finest)"
    return "\n".join([head, *lines])
