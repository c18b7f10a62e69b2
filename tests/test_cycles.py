"""Law: what is too large is refused with its count, before a step is made.

What the schedules are is in test_schedule.py and test_step_count.py.
"""

import math
import re

import numpy as np
import pytest

from mgnet import Schedule, Step, cascade, cycle, nested, parse
from mgnet.app.cost_model import cost_model
from mgnet.limits import MOST_STEPS, MOST_SWEEPS, shown

ODD = [math.nan, math.inf, -math.inf, -1, 0.5, True, "1", None, 1j, [1], np.ones(2), -(10**5000)]
LARGE = [10**9, 10**30, 10**5000]


@pytest.mark.parametrize(
    ("text", "levels", "steps"),
    [
        ("W(1,1)", 22, 9437180),
        ("W(0,0,2)", 22, 5242878),
        ("nested F(1,1)", 100, None),
        ("K999999999(1,1)", 40, None),
        ("V(1,1)", 10**30, None),
        ("nested V(1,1)", 10**9, None),
        ("cascade 5", 10**9, None),
        ("cascade 5", 300_000, 600_000),
    ],
)
def test_what_is_refused(text, levels, steps):
    with pytest.raises(ValueError, match=f"at most {MOST_STEPS} (steps )?are allowed") as refusal:
        parse(text, levels)
    if steps is not None:
        assert f" has {steps} steps" in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_large_ones_within_the_limit():
    assert len(cycle(16, math.inf)) == 147452
    assert len(cycle(20000)) == 79997  # no recursion
    with pytest.raises(ValueError, match="the cascade over 300000 levels has 600000 steps"):
        cascade([1] * 300_000)


@pytest.mark.parametrize("value", [*ODD, *LARGE], ids=shown)
@pytest.mark.parametrize("name", ["levels", "kappa", "pre", "post", "coarsest", "cycles"])
def test_odd_counts(name, value):
    arguments = {"levels": 3, "cycles": 1, name: value}
    for make in (cycle, nested):
        given = {k: v for k, v in arguments.items() if make is nested or k != "cycles"}
        if make is cycle and name == "cycles":
            continue
        if name == "kappa" and any(value is kappa for kappa in (*LARGE, math.inf)):
            assert make(**given) == make(**{**given, "kappa": 3})
            continue
        with pytest.raises(ValueError) as refusal:
            make(**given)
        assert re.fullmatch(r"[^\n]{20,300}", str(refusal.value))


@pytest.mark.parametrize("value", [*ODD, *LARGE], ids=shown)
def test_odd_steps(value):
    for steps in (
        [Step("pre", value)],
        [Step("pre", 0, value)],
        [Step("start", value), Step("interpolate", 0)],
        [Step("start", value)],
        [("pre", value, value)],
        [(value, 0)],
        [value],
        value,
    ):
        with pytest.raises((ValueError, TypeError)) as refusal:
            Schedule(steps)
        assert re.fullmatch(r"[^\n]{20,300}", str(refusal.value))
    with pytest.raises(ValueError, match="cascade got the counts"):
        cascade([1, value])


def test_numbers_of_numpy_are_plain_ones():
    steps = [Step("start", np.int8(1)), ("interpolate", np.int8(0)), ("pre", 0, np.int8(100))]
    schedule = Schedule([*steps, *2 * [("pre", 0, np.int8(100))]])
    assert len(schedule.split()) == 302
    assert {type(number) for step in schedule for number in step[1:]} == {int}
    assert cycle(np.int64(3), np.int64(2)) == cycle(3, 2)


def test_steps_without_an_end(monkeypatch):
    for module in ("schedule", "notation"):
        monkeypatch.setattr(f"mgnet.{module}.MOST_STEPS", 1000)

    def forever():
        while True:
            yield "pre", 0

    with pytest.raises(ValueError, match="^schedule has more than 1000 steps"):
        Schedule(forever())
    assert len(parse(999 * "pre," + "pre", 1)) == 1000
    for text in (1000 * "pre," + "pre", "cascade 1" + 2000 * ",1"):
        with pytest.raises(ValueError, match="at most 500000 steps are allowed"):
            parse(text, 1)


def test_many_sweeps_are_one_step_but_do_not_split():
    schedule = parse(f"V({MOST_SWEEPS},1)", 2)
    assert schedule == parse(schedule.text, 2)
    assert schedule.work(cost_model(2)).units == MOST_SWEEPS + 2.5
    with pytest.raises(ValueError, match=f"^this schedule, .*, has {MOST_SWEEPS + 4} steps; "):
        schedule.split()


@pytest.mark.parametrize(
    "schedule", [cycle(14, math.inf), nested(40, 2), cycle(9000), cascade(2 * [1])]
)
@pytest.mark.parametrize("width", [1, 100, 10**12])
def test_pictures_are_bounded(schedule, width):
    picture = schedule.picture(width)
    assert len(picture) < 1.1e6
    moves = len(schedule.path()[1])
    shown = len(re.findall(r"[\\/:]", picture))
    left = int((re.findall(r"\((\d+) of \d+ moves", picture) or ["0"])[0])
    assert shown + left == moves
    assert left == 0 or len(picture) > 1e5 or schedule.levels > 100


@pytest.mark.parametrize("width", [0, -5, 1.5, math.nan, "100", None, True])
def test_widths_that_are_none(width):
    with pytest.raises(ValueError, match="^picture got width .*; give the number of columns"):
        cycle(2).picture(width)
