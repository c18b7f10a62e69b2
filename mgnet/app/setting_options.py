"""The values of command-line options: names, counts and numbers, and fields of `Settings`."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from mgnet.app.files.columns import shown

__all__ = ["SETTINGS", "column_names", "counts", "finite", "kept", "setting_option"]

SETTINGS = "mgnet.settings"  # where click keeps them while it parses


def column_names(_context: object, _option: object, text: str | None) -> list[str] | None:
    """Read comma-separated names; quotes protect a comma."""
    if text is None:
        return None
    try:
        names = [name.strip() for name in next(csv.reader([text], strict=True), [])]
    except csv.Error:  # a line end, a quote that is not closed, or a name without end
        names = [""]
    if not all(names) or not names:
        raise click.BadParameter(f"got '{shown(text)}'; expected column names with commas between")
    return names


def finite(_context: object, _option: object, number: float | None) -> float | None:
    """A number that is not infinite, nor NaN."""
    if number is not None and not math.isfinite(number):
        raise click.BadParameter(f"got {number}; expected a finite number")
    return number


Check = Callable[[click.Context, click.Parameter, Any], Any]


def kept(check: Check | None = None) -> Check:
    """A callback for an option that is a field of `Settings`: checked, and kept for it."""

    def keep(context: click.Context, option: click.Parameter, value: Any) -> None:
        value = value if check is None else check(context, option, value)
        if value is not None:
            context.meta.setdefault(SETTINGS, {})[option.name] = value

    return keep


setting_option = partial(click.option, expose_value=False, callback=kept())


def counts(_context: object, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Positive integers with commas between."""
    if text is None:
        return None
    try:
        found = tuple(int(count) for count in text.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        what = "widths" if option.name == "hidden" else "one number, or one for each layer,"
        raise click.BadParameter(f"got '{text}'; expected {what} of at least 1, as 8 or 8,8")
    return found
