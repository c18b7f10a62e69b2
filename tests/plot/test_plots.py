"""Law: a picture shows the schedule, and only it: every stop, count and move, in its place."""

import math

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mgnet import Schedule, Solver, Step, cascade, cycle, gallery, nested
from mgnet.plot.plots import plot_convergence, plot_records, plot_schedule
from mgnet.training import Record, Row

SCHEDULES = [
    *(
        make(levels, kappa)
        for levels in range(2, 11)
        for make, kappa in ((cycle, 1), (cycle, 2), (nested, 1))
    ),
    cycle(6, math.inf, 2, 3),
    cycle(4, 3, 0, 12),
    cascade([32, 16, 0, 4]),
    Schedule([Step("solve", 0, 3)]),
]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def walk(schedule):
    """Follow the steps by hand: (level, sweeps, solved) of every stop, and the moves between."""
    stops, moves = [[schedule[0].level if schedule[0].action == "start" else 0, 0, False]], []
    for action, level, count in schedule:
        if action in ("pre", "post", "solve"):
            stops[-1][1] += count
            stops[-1][2] |= action == "solve"
        elif action != "start":
            moves.append(action)
            stops.append([level + (action == "down"), 0, False])
    return stops, moves


def data(line):
    """Return the coordinates of a line as two arrays."""
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def drawn(ax, kind):
    """Return the points of the marker series of one kind."""
    lines = [line for line in ax.lines if line.get_label() == kind]
    points = [zip(*data(line), strict=True) for line in lines]
    return [(int(x), int(y)) for series in points for x, y in series]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_stops_stand_in_order_on_their_levels(schedule):
    stops, _ = walk(schedule)
    ax = plot_schedule(schedule)
    kinds = {"solve": [], "sweeps": [], "none": []}
    for k, (level, sweeps, solved) in enumerate(stops):
        kinds["solve" if solved else "sweeps" if sweeps else "none"].append((k, level))
    for kind, points in kinds.items():
        assert drawn(ax, kind) == points
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the finest level is on top"
    assert len(ax.get_yticklabels()) == schedule.levels


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_numbers_are_the_sweeps_of_their_stop(schedule):
    stops, _ = walk(schedule)
    _, ax = plt.subplots(figsize=(60, 20))  # room for every number
    plot_schedule(schedule, ax)
    texts = {int(text.get_position()[0]): text for text in ax.texts}
    assert {k: int(text.get_text()) for k, text in texts.items()} == {
        k: sweeps for k, (_, sweeps, _) in enumerate(stops) if sweeps
    }
    assert all(text.get_position()[1] == stops[k][0] for k, text in texts.items())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_interpolations_are_double_lines_and_other_moves_single(schedule):
    stops, moves = walk(schedule)
    ax = plot_schedule(schedule)
    segments = {}
    for line in ax.lines:
        if line.get_linestyle() == "-":
            x, y = data(line)
            for k in range(len(x) - 1):
                segments.setdefault((x[k], x[k + 1]), []).append((y[k], y[k + 1]))
    assert sorted(segments) == [(k, k + 1) for k in range(len(moves))]
    for (k, _), ends in segments.items():
        assert set(ends) == {(stops[k][0], stops[k + 1][0])}
        assert len(ends) == (2 if moves[k] == "interpolate" else 1)


def test_w_on_six_levels_is_legible():
    ax = plot_schedule(cycle(6, math.inf))
    assert len(ax.texts) == len(walk(cycle(6, math.inf))[0])
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert all(
        a.x1 < b.x0 or a.y1 < b.y0 or b.y1 < a.y0 for a, b in zip(boxes, boxes[1:], strict=False)
    )


def test_numbers_go_where_there_is_no_room():
    _, ax = plt.subplots(figsize=(4, 3))
    assert not plot_schedule(cycle(9, math.inf), ax).texts


def test_a_given_axes_is_used():
    _, ax = plt.subplots()
    assert plot_schedule(cycle(3), ax) is ax
    assert plot_convergence({}, ax) is ax


@pytest.mark.parametrize("text", ["V(1,1)", "nested F(1,1)"])
def test_convergence_shows_norms_over_work_and_cycles(text):
    solution = Solver(gallery.poisson((15, 15)), text).solve(np.ones(225))
    work, norms = data(plot_convergence({text: solution}).lines[0])
    np.testing.assert_allclose(
        norms, np.array(solution.residual_norms) / solution.residual_norms[0]
    )
    assert work[0] == 1.0  # the first residual norm
    assert work[-1] == pytest.approx(solution.work)
    first = sum(entry.work for entry in solution.record if entry.cycle == 1)
    assert work[1] == pytest.approx(work[0] + first + 1.0)
    cycles, _ = data(plot_convergence({text: solution}, over="cycles").lines[0])
    assert list(cycles) == list(range(solution.cycles + 1))


def test_many_solutions_differ_in_more_than_colour():
    solution = Solver(gallery.poisson(15)).solve(np.ones(15))
    lines = plot_convergence({str(k): solution for k in range(7)}).lines
    assert len({str(line.get_marker()) for line in lines}) == 7


def test_a_zero_residual_is_drawn():
    solution = Solver(gallery.poisson(15)).solve(np.zeros(15))
    assert list(data(plot_convergence({"zero": solution}).lines[0])[1]) == [0.0]


def test_other_axes_are_refused():
    with pytest.raises(ValueError, match="'work' or 'cycles'"):
        plot_convergence({}, over="time")


# Records


def course(rows, held_out=False):
    """A record of (action, loss) rows, one evaluation, two work units and three seconds each."""
    record = Record()
    for k, (action, loss) in enumerate(rows, 1):
        other = 2.0 * loss if held_out else math.nan
        record.rows.append(Row(action, 0, loss, other, k, 2 * k, 3 * k))
    return record


ROWS = [("start", 8.0), ("solve", 4.0), ("down", math.nan), ("interpolate", 4.0), ("post", 1.0)]


def test_records_are_drawn_over_evaluations_work_and_seconds():
    figure = plot_records({"ours": course(ROWS, True), "theirs": course(ROWS[:2])})
    for ax, price in zip(figure.axes, (1, 2, 3), strict=True):
        assert ax.get_yscale() == "log"
        full, held, other = (line for line in ax.lines if line.get_linestyle() != "None")
        np.testing.assert_array_equal(
            data(full), [[price, 2 * price, 4 * price, 5 * price], [8, 4, 4, 1]]
        )
        np.testing.assert_array_equal(data(held)[1], [16, 8, 8, 2])
        np.testing.assert_array_equal(data(other), [[price, 2 * price], [8, 4]])
        marks = [line for line in ax.lines if line.get_linestyle() == "None" and len(data(line)[0])]
        assert [data(line)[1].tolist() for line in marks] == [[4.0], [8.0]]  # loss, held out
        assert {data(line)[0].item() for line in marks} == {4 * price}
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["ours", "ours, held out", "theirs", "refinement"]


def test_the_legend_of_records_names_only_what_is_drawn():
    figure = plot_records({"one": course(ROWS[:2])})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one"]
    assert not plot_records({}).legends
