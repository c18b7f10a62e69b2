"""Law: text is a date only where Python's own parser reads all of it by one layout."""

from datetime import datetime, timedelta

import numpy as np
import pytest

from mgnet.app.columns.dates import LAYOUTS, date_layout, date_text, read_dates

FORMATS = {  # layout -> how Python writes it
    "year-month-day": ["%Y-%m-%d", "%Y/%m/%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S.%f"],
    "day.month.year": ["%d.%m.%Y", "%d.%m.%Y %H:%M"],
    "day/month/year": ["%d/%m/%Y", "%d-%m-%Y %H:%M:%S"],
    "month/day/year": ["%m/%d/%Y", "%m/%d/%Y %I:%M %p"],
    "day month year": ["%d %b %Y", "%d-%b-%Y", "%d %B %Y"],
    "month day year": ["%B %d, %Y", "%b %d %Y"],
}


def drawn(rng, count=40):
    start = datetime(int(rng.integers(1100, 2900)), 1, 1)
    seconds = rng.integers(0, 10**8, count)
    return [start + timedelta(seconds=int(s), microseconds=int(s) % 10**6) for s in seconds]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_python_writes_is_read_as_python_reads_it(layout):
    rng = np.random.default_rng(len(layout))
    for pattern in FORMATS[layout]:
        texts = [date.strftime(pattern) for date in drawn(rng)]
        assert date_layout(texts) == layout, pattern
        expected = [datetime.strptime(text, pattern) for text in texts]
        got = read_dates(np.array([*texts, None, "x"], dtype=object), layout)
        assert got.dtype == "datetime64[us]" and np.isnat(got[-2:]).all()
        assert got[:-2].tolist() == expected


@pytest.mark.parametrize(
    "text",
    ["2020-13-01", "2020-02-30", "1.2.20", "12:30", "2020", "2020-01", "1/2", "x", "2020-01/02",
     "3 Foo 2020", "2020-01-01 24:00", "2020-01-01 13:00 pm", "99-01-01", "２０２０-01-01"],
)  # fmt: skip
def test_what_is_no_date(text):
    assert date_layout([text]) == ""
    assert date_layout(["2020-01-01", text]) == ""


def test_days_and_months_that_nobody_can_tell_apart_are_refused():
    with pytest.raises(ValueError, match="'4/5/2020' may begin with the day .* write 2020-05-04"):
        date_layout(["4/5/2020", "3/3/2020"])
    assert date_layout(["3/3/2020"]) in LAYOUTS  # the same both ways
    assert date_layout(["4/5/2020", "13/5/2020"]) == "day/month/year"
    assert date_layout(["4/5/2020", "5/13/2020"]) == "month/day/year"
    assert date_layout(["13/5/2020", "5/13/2020"]) == ""


def test_zones_become_universal_time_and_are_not_mixed_with_none():
    texts = ["2020-01-01T00:30:00+01:00", "2020-01-01 00:30:00Z", "2020-01-01T00:30-0530"]
    assert date_layout(texts) == "year-month-day"
    times = "2019-12-31T23:30+00:00", "2020-01-01T00:30+00:00", "2020-01-01T06:00+00:00"
    expected = [datetime.fromisoformat(text).timestamp() for text in times]
    got = read_dates(np.array(texts, dtype=object), "year-month-day")
    assert ((got - np.datetime64(0, "us")) / np.timedelta64(1, "s")).tolist() == expected
    assert date_layout([*texts, "2020-01-01"]) == ""


def test_a_date_in_a_sentence():
    assert date_text(np.datetime64("2020-02-29")) == "2020-02-29"
    assert date_text(np.datetime64("2020-02-29T01:02:03.4")) == "2020-02-29 01:02:03"
