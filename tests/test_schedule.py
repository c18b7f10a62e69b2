"""A cycle is data: its text reads back, its picture shows its path, its work is predicted."""

import math
import re
from collections import Counter
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgnet import (
    Backtracking,
    Chebyshev,
    Direct,
    GaussSeidel,
    Hierarchy,
    Jacobi,
    Krylov,
    Level,
    MatrixTransfer,
    Schedule,
    Smoother,
    Step,
    cascade,
    cycle,
    gallery,
    interpolation_matrix,
    nested,
    parse,
    run,
)
from mgnet.schedule import Work

KAPPAS = [1, 2, 3, math.inf]

counts = st.integers(0, 3)
kappas = st.sampled_from([1, 2, 3, 4, math.inf])


@st.composite
def programs(draw):
    """Draw a program by hand: any walk that the rules allow, then the way back to level 0."""
    levels = draw(st.integers(1, 5))
    lifted = draw(st.booleans())
    position, depth = (levels - 1 if lifted else 0), 0
    steps = [Step("start", position)] if lifted else []

    def move(action):
        nonlocal position, depth
        position -= action in ("up", "interpolate")
        count = draw(st.integers(1, 20)) if action in ("pre", "post", "solve") else 1
        steps.append(Step(action, position, count))
        position += action == "down"
        depth += (action == "down") - (action == "up")

    for _ in range(draw(st.integers(0, 12))):
        choices = ["pre", "post"]
        choices += ["solve"] if position == levels - 1 else ["down"]
        choices += ["up"] if depth else []
        choices += ["interpolate"] if lifted and not depth and position else []
        move(draw(st.sampled_from(choices)))
    while position:
        move("up" if depth else "interpolate")
    if not steps:
        move("pre")
    return Schedule(steps), levels


@st.composite
def schedules(draw):
    levels = draw(st.integers(1, 5))
    sweeps = {"pre": draw(counts), "post": draw(counts), "coarsest": draw(st.integers(1, 3))}
    kind = draw(st.sampled_from(["cycle", "nested", "cascade", "program"]))
    if kind == "cycle":
        return cycle(levels, draw(kappas), **sweeps), levels
    if kind == "nested":
        return nested(levels, draw(kappas), **sweeps, cycles=draw(st.integers(1, 2))), levels
    if kind == "cascade":
        return cascade([sweeps["coarsest"], *(draw(counts) for _ in range(levels - 1))]), levels
    return draw(programs())


@given(schedules())
def test_the_text_of_a_schedule_reads_back(case):
    schedule, levels = case
    assert parse(schedule.text, levels) == schedule


# Rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "number", "why"),
    [
        ([("pre", 0), ("sweep", 0)], 2, "'sweep' is not an action; use one of pre, post"),
        ([("pre", 0, 0)], 1, "'pre' has count 0; sweeps need an integer of at least 1"),
        ([("pre", 0, 1.5)], 1, "'pre' has count 1.5; sweeps need an integer"),
        ([("down", 0, 2), ("up", 0)], 1, "'down' has count 2; .* moves have none"),
        ([("pre", 0), ("start", 1)], 2, "'start' comes after other steps"),
        ([("up", 0)], 1, "'up' has no 'down' before it"),
        ([("start", 1), ("up", 0)], 2, "'up' has no 'down' before it"),
        ([("interpolate", 0)], 1, "'interpolate' is not on the way up from 'start'"),
        ([("start", 1), ("down", 1), ("interpolate", 1)], 3, "not on the way up from 'start'"),
        ([("start", 0), ("interpolate", -1)], 2, "not on the way up from 'start'"),
        ([("pre", 1)], 1, "'pre' has level 1, but the steps before it lead to level 0"),
        ([("down", 0), ("up", 1)], 2, "'up' has level 1, but the steps before it lead to level 0"),
        ([("pre", 0.0)], 1, "'pre' has level 0.0"),
        ([("pre", "0")], 1, "'pre' has level '0'"),
        ([("start", -1)], 1, "'start' has level -1"),
        ([("pre", 0), ("down", 0)], 2, "'down' ends the schedule on level 1; it must end on"),
    ],
)
def test_each_rule_names_the_step_that_breaks_it(steps, number, why):
    with pytest.raises(ValueError, match=rf"^schedule: step {number} .*{why}"):
        Schedule(Step(*step) for step in steps)


def test_an_empty_schedule_is_refused():
    with pytest.raises(ValueError, match="schedule has no steps"):
        Schedule([])


@pytest.mark.parametrize(
    ("schedule", "number", "why"),
    [
        (cycle(4), 6, "'down' on level 2 leaves the levels 0 to 2"),
        (cycle(2), 3, "'solve' is on level 1, but the coarsest level is 2; use pre or post there"),
        (cascade([1, 1]), 1, "'start' is on level 1, but the coarsest level is 2"),
        (cascade([1, 1, 1, 1]), 1, "'start' on level 3 leaves the levels 0 to 2"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(schedule, number, why):
    hierarchy = gallery.poisson(7)  # three levels
    refusal = rf"^schedule does not fit this hierarchy: step {number} {why}"
    for use in (
        schedule.fit,
        schedule.work,
        lambda hierarchy: run(schedule, hierarchy, None, np.ones(7)),
    ):
        with pytest.raises(ValueError, match=refusal):
            use(hierarchy)


@given(programs())
def test_a_program_fits_its_hierarchy(case):
    schedule, levels = case
    schedule.fit(gallery.poisson(2**levels - 1))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: cycle(0), "levels = 0; it must be an integer of at least 1"),
        (lambda: cycle(2, pre=-1), "pre = -1; it must be an integer of at least 0"),
        (lambda: cycle(2, post=0.5), "post = 0.5; it must be an integer of at least 0"),
        (lambda: cycle(2, coarsest=0), "coarsest = 0; it must be an integer of at least 1"),
        (lambda: nested(2, cycles=0), "cycles = 0; it must be an integer of at least 1"),
        (lambda: cycle(2, kappa=0), "kappa = 0; it must be an integer of at least 1"),
        (lambda: cycle(2, kappa=1.5), "kappa = 1.5; it must be an integer of at least 1"),
        (lambda: cascade([]), r"cascade got the counts \[\]"),
        (lambda: cascade([0, 1]), r"cascade got the counts \[0, 1\]"),
        (lambda: cascade([1, -1]), r"cascade got the counts \[1, -1\]"),
        (lambda: cascade([1, 1.0]), r"cascade got the counts \[1, 1.0\]"),
    ],
)
def test_bad_counts_are_refused(make, why):
    with pytest.raises(ValueError, match=why):
        make()


# The kappa cycle -----------------------------------------------------------------------------


@pytest.mark.parametrize("levels", range(1, 10))
@pytest.mark.parametrize("kappa", [*KAPPAS, 4, 5])
def test_visits_of_the_kappa_cycle(levels, kappa):
    # A call with counter k makes calls with k and k - 1, none with 0.
    def calls(level):
        return sum(comb(level, i) for i in range(int(min(kappa, level + 1))))

    schedule = cycle(levels, kappa)
    downs = Counter(step.level for step in schedule if step.action == "down")
    assert downs == {level: calls(level) for level in range(levels - 1)}
    solves = sum(step.action == "solve" for step in schedule)
    assert solves == calls(max(levels - 2, 0))  # two calls in a row on the coarsest level are one
    assert solves == {1: 1, 2: max(levels - 1, 1), math.inf: 2 ** max(levels - 2, 0)}.get(
        kappa, solves
    )
    assert {step.level for step in schedule if step.action == "solve"} == {levels - 1}


def brute_force(levels, kappa):
    """List the levels that a kappa cycle passes, from a stack of the calls still to be made."""
    passed, calls = [], [(0, kappa)]
    while calls:
        level, k = calls.pop()
        if k is None:  # back on this level
            passed.append(level)
            continue
        passed.append(level)
        if level < levels - 1:
            calls.append((level, None))
            if k > 1 and level + 1 < levels - 1:
                calls.append((level + 1, k - 1))
            calls.append((level + 1, k))
    # A second call begins where the first one ended.
    return [
        level for level, before in zip(passed, [None, *passed], strict=False) if level != before
    ]


def levels_of(schedule):
    return [level for level, _ in schedule.path()[0]]


@pytest.mark.parametrize("levels", range(1, 9))
@pytest.mark.parametrize("kappa", [*KAPPAS, 4])
def test_path_of_the_kappa_cycle(levels, kappa):
    assert levels_of(cycle(levels, kappa)) == brute_force(levels, kappa)


def test_paths_by_hand():
    assert levels_of(cycle(4, 1)) == [0, 1, 2, 3, 2, 1, 0]
    assert levels_of(cycle(4, 2)) == [0, 1, 2, 3, 2, 3, 2, 1, 2, 3, 2, 1, 0]
    assert levels_of(cycle(4, math.inf)) == [0, 1, 2, 3, 2, 3, 2, 1, 2, 3, 2, 3, 2, 1, 0]
    assert levels_of(nested(3)) == [2, 1, 2, 1, 0, 1, 2, 1, 0]
    assert levels_of(cascade([1, 1, 1])) == [2, 1, 0]


@pytest.mark.parametrize(("kappa", "steps"), [(1, 29), (2, 119), (math.inf, 572)])
def test_steps_of_eight_levels(kappa, steps):
    assert len(cycle(8, kappa)) == steps


@pytest.mark.parametrize("cycles", [1, 2])
def test_a_nested_schedule_ends_with_its_cycle(cycles):
    inner = cycle(4, 2, 2, 1)
    schedule = nested(4, 2, 2, 1, cycles)
    assert schedule[schedule.opening :] == cycles * inner
    assert cycle(4).opening == 0


def test_split_steps_are_single_sweeps():
    schedule = cycle(3, math.inf, 2, 3, 4)
    single = schedule.split()
    assert {step.count for step in single} == {1}
    sweeps = [step for step in schedule for _ in range(step.count)]
    assert [step[:2] for step in single] == [step[:2] for step in sweeps]
    assert single.split() == single


def test_sweeps_of_a_cascade():
    steps = [step for step in cascade([32, 16, 0, 4]) if step.action in ("solve", "post", "pre")]
    assert steps == [("solve", 3, 32), ("post", 2, 16), ("post", 0, 4)]


# Pictures ------------------------------------------------------------------------------------


def read(picture):
    """Read stops and moves back from a drawing, its blocks joined at their common stop."""
    stops, moves = [], []
    for block in re.split(r"\n\n(?=level 0\b)", picture):
        marks, slopes = [], []
        for row, line in enumerate(block.split("\n")):
            assert line[:9].strip() == ("" if row % 2 else f"level {row // 2}")
            for column, mark in enumerate(line[9:]):
                if mark != " ":
                    (slopes if row % 2 else marks).append((column, row, mark))
        marks.sort()
        slopes.sort()
        assert len(slopes) == len(marks) - 1
        for (x, y, _), (column, row, slope), (x2, y2, _) in zip(
            marks, slopes, marks[1:], strict=False
        ):
            assert 2 * column == x + x2 and 2 * row == y + y2, "the slope joins its two stops"
            assert (slope == "\\") == (y2 > y) and abs(y2 - y) == 2
        found = [(row // 2, mark) for _, row, mark in marks]
        assert not stops or stops[-1] == found[0], "a block begins where the one before it ends"
        stops += found[1:] if stops else found
        moves += [{"\\": "down", "/": "up", ":": "interpolate"}[slope] for *_, slope in slopes]
    return stops, moves


def drawn(schedule):
    stops, moves = [], []
    for step in schedule:
        if step.action in ("pre", "post", "solve"):
            stops = stops or [[0, set()]]
            stops[-1][1].add(step.action)
        elif step.action == "start":
            stops = [[step.level, set()]]
        else:
            stops = stops or [[0, set()]]
            moves.append(step.action)
            stops.append([step.level + (step.action == "down"), set()])
    marks = [
        (level, "#" if "solve" in actions else "o" if actions else ".") for level, actions in stops
    ]
    return marks, moves


@pytest.mark.parametrize("levels", range(2, 11))
@pytest.mark.parametrize(
    "make",
    [*(lambda levels, k=k: cycle(levels, k) for k in KAPPAS)]
    + [lambda levels: nested(levels, 2), lambda levels: cascade([3] * levels)],
    ids=["V", "F", "kappa 3", "W", "nested", "cascade"],
)
def test_the_picture_shows_the_path(levels, make):
    schedule = make(levels)
    assert read(str(schedule)) == drawn(schedule)
    assert max(map(len, str(schedule).split("\n"))) <= 100


@given(schedules(), st.integers(14, 120))
def test_a_picture_of_any_width(case, width):
    schedule, _ = case
    picture = schedule.picture(width)
    assert max(map(len, picture.split("\n"))) <= width
    assert read(picture) == drawn(schedule)


def test_stops_without_work_are_points():
    assert str(cycle(2, pre=0, post=0)).replace(" ", "") == "level0..\n\\/\nlevel1#"


def test_repr_is_one_line():
    assert repr(cycle(3)) == "<Schedule of 9 steps on 3 levels>"


# Work ----------------------------------------------------------------------------------------


class Sweep(Smoother):
    """Two evaluations per sweep, of a level that need not have a matrix."""

    def smooth(self, level, u, f, sweeps, memory):
        for _ in range(2 * sweeps):
            u = u + 0.1 * (f - level.apply(u))
        return u, memory

    def work(self, level, sweeps):
        return 2.0 * sweeps


def with_residuals(smoother, injection=True):
    """Make levels with functions and costs of their own; a residual costs a quarter."""
    levels, n = [], 15
    for number in range(4):
        A = gallery.poisson(n, levels=1)[0].matrix
        P = interpolation_matrix((n - 1) // 2) if number < 3 else None
        R = None if P is None else P.T.tocsr()
        transfer = (
            None if P is None else MatrixTransfer(P, injection=0.5 * R if injection else None)
        )
        levels.append(
            Level(
                lambda u, A=A: A @ u,
                smoother,
                transfer,
                residual=lambda u, f, A=A: -(A @ u) if f is None else f - A @ u,
                linearize=lambda u, A=A: A,
                cost=2.0 + number,
                residual_cost=0.25,
            )
        )
        n = (n - 1) // 2
    return Hierarchy(levels)


HIERARCHIES = {
    "Jacobi": lambda: gallery.poisson(15),
    "symmetric Gauss-Seidel": lambda: gallery.poisson((15, 15), smoother=GaussSeidel("symmetric")),
    "Chebyshev, then Jacobi": lambda: gallery.poisson(
        15, smoother=Chebyshev(3), post_smoother=Jacobi(), coarse_solver=Chebyshev(2)
    ),
    "FAS, Jacobi": lambda: gallery.reaction(15),
    "FAS, symmetric Gauss-Seidel": lambda: gallery.reaction(15, smoother=GaussSeidel("symmetric")),
    "FAS, Chebyshev": lambda: gallery.reaction((15, 15), smoother=Chebyshev(2)),
    "own residuals": lambda: with_residuals(Sweep()),
    "own residuals, no injection": lambda: with_residuals(Sweep(), injection=False),
}
# Smoothers that take residuals, on levels whose residual costs less than an evaluation.
CHEAP_RESIDUALS = [Jacobi(), GaussSeidel("symmetric"), Chebyshev(2), Direct()]
SCHEDULES = ["V(2,1)", "F(1,1)", "W(1,2)", "K3(1,1)", "nested F(2,1,3)", "cascade 5,3,2,1"]


def counted_work(schedule, hierarchy):
    works = []
    size = hierarchy[0].unknowns or 15
    run(
        schedule,
        hierarchy,
        None,
        np.ones(size) / size,
        record=lambda _, data: works.append(data.work),
    )
    return sum(works)


@pytest.mark.parametrize("text", SCHEDULES)
@pytest.mark.parametrize("make", HIERARCHIES.values(), ids=HIERARCHIES)
def test_predicted_work_is_counted_work(make, text):
    hierarchy = make()
    schedule = parse(text, len(hierarchy))
    predicted = schedule.work(hierarchy)
    assert predicted.exact
    assert predicted.units == pytest.approx(counted_work(schedule, hierarchy), rel=1e-12)


@pytest.mark.parametrize("smoother", CHEAP_RESIDUALS, ids=str)
def test_smoothers_predict_cheap_residuals(smoother):
    test_predicted_work_is_counted_work(lambda: with_residuals(smoother), "F(2,1)")


def test_work_of_a_v_cycle_by_hand():
    # 7, 3 and 1 unknowns: two sweeps and a residual on each but the coarsest, one solve there.
    assert cycle(3).work(gallery.poisson(7)).units == pytest.approx((3 * 7 + 3 * 3 + 1) / 7)
    # FAS adds A_{l+1}(inject(u)) on every level below the finest.
    assert cycle(3).work(gallery.reaction(7)).units == pytest.approx((3 * 7 + 4 * 3 + 2) / 7)


def line_searched():
    levels = list(gallery.reaction(3))
    fine = levels[0]
    search = Level(
        fine.operator,
        fine.smoother,
        fine.transfer,
        linearize=fine.linearize,
        objective=fine.objective,
        line_search=Backtracking(),
        size=3,
    )
    return Hierarchy([search, *levels[1:]])


def recentred():
    fine, coarse = gallery.poisson(3)
    level = Level(fine.matrix, Jacobi(), fine.transfer, recenter=lambda u: coarse)
    return Hierarchy([level, coarse])


@pytest.mark.parametrize(
    "make",
    [lambda: gallery.poisson(3, smoother=Krylov()), line_searched, recentred],
    ids=["Krylov", "line search", "recenter"],
)
def test_work_that_depends_on_the_way_is_about(make):
    work = cycle(2).work(make())
    assert not work.exact
    assert str(work).startswith("about ")


def test_work_as_text():
    assert str(Work(2.0, True)) == "2 work units"
    assert not str(cycle(2).work(gallery.poisson(3))).startswith("about")


def test_a_schedule_that_fitted_is_still_refused_elsewhere():
    schedule = cycle(3)
    fitting, other = gallery.poisson(7), gallery.poisson(7, levels=2)
    for _ in range(2):
        schedule.fit(fitting)
        with pytest.raises(ValueError, match="does not fit this hierarchy"):
            schedule.fit(other)
