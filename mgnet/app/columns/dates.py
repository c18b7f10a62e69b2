"""Dates stored as text, recognized if all texts of a column are dates in the same layout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import numpy as np

from mgnet.app.files.columns import shown

__all__ = ["LAYOUTS", "date_layout", "date_text", "read_dates"]

YEAR, MONTH, DAY = r"(?P<y>[12]\d{3})", r"(?P<m>\d{1,2})", r"(?P<d>\d{1,2})"
NAME = r"(?P<b>[A-Za-z]{3,9})\.?"
TIME = (
    r"(?:(?:[T ]|, ?)(?P<H>\d{1,2}):(?P<M>\d{2})(?::(?P<S>\d{2})(?:[.,](?P<f>\d{1,9}))?)?"
    r" ?(?P<half>[AaPp][Mm])?(?: ?(?P<zone>Z|UTC|[+-]\d{2}(?::?\d{2})?))?)?"
)
MONTHS = "january february march april may june july august september october november december"
NUMBERS = {name: number for number, name in enumerate(MONTHS.split(), 1)}
NUMBERS |= {name[:3]: number for name, number in NUMBERS.items()} | {"sept": 9}

# Layout -> pattern of its texts. The third and fourth differ only in their meaning.
LAYOUTS = {
    name: re.compile(pattern + TIME, re.ASCII)
    for name, pattern in {
        "year-month-day": rf"{YEAR}(?P<mark>[-/.]){MONTH}(?P=mark){DAY}",
        "day.month.year": rf"{DAY}\.{MONTH}\.{YEAR}",
        "day/month/year": rf"{DAY}(?P<mark>[-/]){MONTH}(?P=mark){YEAR}",
        "month/day/year": rf"{MONTH}(?P<mark>[-/]){DAY}(?P=mark){YEAR}",
        "day month year": rf"{DAY}[- ]{NAME}[- ]{YEAR}",
        "month day year": rf"{NAME} {DAY},? {YEAR}",
    }.items()
}
BOTH = ["day/month/year", "month/day/year"]


def date_layout(texts: Sequence[str]) -> str:
    """The layout that all texts share; empty if there is none.

    Parameters
    ----------
    texts : sequence of str
        Texts, not empty.

    Returns
    -------
    str
        One of `LAYOUTS`, or empty.

    Raises
    ------
    ValueError
        If days and months cannot be distinguished.

    Examples
    --------
    >>> date_layout(["3/14/2015", "1/2/2016"]), date_layout(["2015-03-14", "2015-13-14"])
    ('month/day/year', '')
    >>> date_layout(["3/4/2015"])
    Traceback (most recent call last):
    ValueError: dates such as '3/4/2015' may begin with the day or with the month; write 2015-04-03
    """
    left = list(LAYOUTS)
    for text in texts:
        left = [layout for layout in left if _date(text, layout) is not None]
        if not left:
            return ""
    if left == BOTH:
        own = next((text for text in texts if _date(text, BOTH[0]) != _date(text, BOTH[1])), None)
        if own is not None:
            as_iso = date_text(np.datetime64(_date(own, BOTH[0])))
            raise ValueError(
                f"dates such as '{shown(own)}' may begin with the day or with the month; "
                f"write {as_iso}"
            )
    zones = {LAYOUTS[left[0]].fullmatch(text)["zone"] is None for text in texts}  # type: ignore
    return left[0] if len(zones) == 1 else ""


def read_dates(texts: np.ndarray, layout: str) -> np.ndarray:
    """Convert texts to datetime64[us], with NaT for None and texts not in this layout.

    Times with a time zone are converted to UTC.

    Parameters
    ----------
    texts : array of objects
        Texts of the column.
    layout : str
        One of `LAYOUTS`.

    Examples
    --------
    >>> read_dates(np.array(["1.2.2020 12:30", None], dtype=object), "day.month.year")
    array(['2020-02-01T12:30:00.000000',                        'NaT'],
          dtype='datetime64[us]')
    """
    known = {text: _date(text, layout) for text in set(texts.tolist()) if text is not None}
    return np.array([known.get(text) for text in texts.tolist()], dtype="datetime64[us]")


def date_text(date: np.datetime64) -> str:
    """A date as text for a message, without the time of day if it is midnight.

    Examples
    --------
    >>> date_text(np.datetime64("2020-02-01T00:00")), date_text(np.datetime64("2020-02-01T12:30"))
    ('2020-02-01', '2020-02-01 12:30:00')
    """
    text = str(date.astype("datetime64[s]"))
    return text.removesuffix("T00:00:00").replace("T", " ")


def _date(text: str, layout: str) -> datetime | None:
    found = LAYOUTS[layout].fullmatch(text)
    if found is None:
        return None
    parts = found.groupdict()
    month = parts.get("m") or NUMBERS.get(parts["b"].lower(), 0)
    hour, half = int(parts["H"] or 0), (parts["half"] or "").lower()
    if half and not 1 <= hour <= 12:
        return None
    hour = hour % 12 + 12 * (half == "pm") if half else hour
    micro = int((parts["f"] or "0")[:6].ljust(6, "0"))
    clock = hour, int(parts["M"] or 0), int(parts["S"] or 0), micro
    try:
        date = datetime(int(parts["y"]), int(month), int(parts["d"]), *clock)
        return date - _offset(parts["zone"])
    except (ValueError, OverflowError):
        return None


def _offset(zone: str | None) -> timedelta:
    if zone in (None, "Z", "UTC"):
        return timedelta(0)
    digits = zone[1:].replace(":", "").ljust(4, "0")  # type: ignore[index]
    size = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    timezone(size)  # refuses more than a day
    return size if zone[0] == "+" else -size  # type: ignore[index]
