"""A tournament is what its members would do alone, ranked by the samples that they did not see."""

import math
import time
from dataclasses import replace

import pytest
import torch

from mgnet import Hierarchy, Level, ProgressLines, Reason, Schedule, gallery, run
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import (
    LBFGS,
    Broyden,
    LeastSquares,
    LevenbergMarquardt,
    Objective,
    TorchOptimizer,
    coarse_rows,
    train,
)
from mgnet.training.tournament import (
    Member,
    best,
    first_members,
    members_on_levels,
    parts_of_seconds,
)

X = torch.linspace(-1.0, 1.0, 600, dtype=torch.float64).unsqueeze(1)
Y = torch.sin(8.0 * X)
WHOLE = {"patience": 100, "gain": 0.0, "rows": 10.0}  # no level ends before max_cycles


def made(smoother=None, levels=3, seed=1):
    kan = KAN([1, 2, 1], 2, generator=torch.Generator().manual_seed(seed))
    problem = LeastSquares(kan, (X, Y))
    hierarchy = knot_hierarchy(kan, problem, levels, smoother or LevenbergMarquardt())
    return hierarchy, hierarchy[0].operator.start()


def coarsest(hierarchy, u):
    for level in hierarchy[:-1]:
        u = level.transfer.inject(u)
    return u


def by_hand(hierarchy, members, kept, cycles):
    """The members that are left after each level, and the last state: loops over the smoothers."""
    thin, course = coarse_rows(hierarchy, 10.0), []
    states = {number: (u, None) for number, u in members.items()}
    for number in range(len(thin) - 1, -1, -1):
        level, scores = thin[number], {}
        seen = torch.isin(X[:, 0], level.operator.data[0][:, 0])
        others = torch.ones_like(seen) if bool(seen.all()) else ~seen
        for member, (u, memory) in states.items():
            if number < len(thin) - 1:
                u = level.transfer.interpolate(u)
                memory = level.smoother.carry(memory, level.transfer)
            memory = level.smoother.start(level, u) if memory is None else memory
            for _ in range(cycles):
                u, memory = level.smoother.smooth(level, u, None, 1, memory)
            states[member] = u, memory
            network = hierarchy.network(number, u)
            scores[member] = float((network(X[others]) - Y[others]).detach().square().mean())
        left = kept[len(thin) - 1 - number]
        states = {m: states[m] for m in sorted(sorted(scores, key=scores.__getitem__)[:left])}
        course.append(list(states))
    return course, states


@pytest.mark.parametrize("smoother", [LevenbergMarquardt(), LBFGS(), Broyden()], ids=str)
@pytest.mark.parametrize(("starts", "keep"), [(5, None), (3, [3, 2]), (4, [1, 1])])
def test_it_is_what_its_members_do_alone(smoother, starts, keep):
    hierarchy, u = made(smoother)
    field = first_members(hierarchy, coarsest(hierarchy, u), starts, seed=4)
    members = {member.number: member.u for member in field}
    numbers = members_on_levels(starts, keep, 3)
    course, states = by_hand(hierarchy, members, [*numbers[1:], 1], 4)
    options = {"starts": starts, "keep": keep, "seed": 4, "max_cycles": 4}
    solution = train(hierarchy, u, **WHOLE, **options)
    (winner,) = states
    assert solution.member == winner
    assert torch.equal(solution.value, states[winner][0])
    trained = [
        sorted({entry.member for entry in solution.history if entry.level == level})
        for level in (2, 1, 0)
    ]
    assert trained == [list(members), *course[:2]]
    assert solution.cycles == 4 * sum(numbers)
    assert solution.reason is Reason.MAX_CYCLES
    again = train(hierarchy, u, **WHOLE, **options)
    assert torch.equal(solution.value, again.value)


def test_members_do_not_depend_on_each_other_nor_on_threads():
    hierarchy, u = made()
    one = train(hierarchy, u, max_cycles=3)
    only = train(hierarchy, u, max_cycles=3, starts=1, seed=9)
    assert torch.equal(one.value, only.value)
    assert one.member == 0
    threads = torch.get_num_threads()
    many = []
    for count in (1, 3):
        torch.set_num_threads(count)
        many.append(train(hierarchy, u, max_cycles=3, starts=4, seed=2))
    torch.set_num_threads(threads)
    assert many[0].member == many[1].member  # some processors add up otherwise with more threads
    assert torch.allclose(many[0].value, many[1].value, rtol=1e-9)
    first = [e.value for e in many[0].history if e.member == 0 and e.level == 2]
    assert first == pytest.approx([e.value for e in one.history if e.level == 2], rel=1e-9)


def test_the_record_of_a_member_is_a_schedule():
    hierarchy, u = made()
    solution = train(hierarchy, u, starts=4, max_cycles=3, seed=1, keep=[2, 1], rows=10.0)
    steps = [entry.step for entry in solution.record if entry.member == solution.member]
    thin = coarse_rows(hierarchy, 10.0)
    field = first_members(hierarchy, coarsest(hierarchy, u), 4, 1)
    member = field[solution.member]
    assert member.number != 0
    fine = hierarchy[0].transfer.prolong(hierarchy[1].transfer.prolong(member.u))
    again, _ = run(Schedule(steps), thin, fine, None)
    torch.testing.assert_close(again, solution.value, rtol=1e-5, atol=1e-7)
    evaluations = sum(entry.work for entry in solution.record)
    assert 0.0 < evaluations < solution.work


def test_the_work_of_all_members_is_counted():
    hierarchy, u = made(TorchOptimizer(torch.optim.SGD))
    one = train(hierarchy, u, **WHOLE, max_cycles=2)
    many = train(hierarchy, u, **WHOLE, max_cycles=2, starts=3, keep=[3, 3])
    thin = coarse_rows(hierarchy, 10.0)
    # On the finest level its own objective ranks them; on the others all go on.
    assert many.work == pytest.approx(3 * one.work + 3)
    fewer = train(hierarchy, u, **WHOLE, max_cycles=2, starts=3, keep=[1, 1])
    share = [thin[level].cost for level in (2, 1, 0)]
    per_level = [one.work * part / sum(share) for part in share]
    left = 1.0 - thin[2].operator.samples / 600
    assert fewer.work == pytest.approx(3 * per_level[0] + sum(per_level[1:]) + 3 * left)
    assert sum(entry.seconds for entry in many.record) < many.seconds


def test_monitors_and_lines_tell_the_members(capsys):
    hierarchy, u = made()
    told = []

    def leave(entry, state):
        told.append(entry)
        return entry.member == 1 and entry.cycle > 3

    solution = train(hierarchy, u, **WHOLE, starts=2, max_cycles=3, keep=[1, 1], monitor=leave)
    assert [(e.level, e.member, e.cycle) for e in told[:6]] == [
        *((2, 0, cycle) for cycle in range(4)),
        (2, 1, 3),
        (2, 1, 4),
    ]
    assert list(solution.history[:5]) == [*told[:4], told[5]]
    seconds = [entry.seconds for entry in told]
    assert seconds == sorted(seconds)
    train(hierarchy, u, starts=2, max_cycles=1, monitor=ProgressLines(every=1e9))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("cycle 0, level 2: objective")
    assert lines[1].startswith("cycle 1, level 2, start 1: objective")
    assert solution.explain().splitlines()[-2].startswith(f"total  {solution.cycles} cycles")


def poisoned(which):
    """A loss that is NaN for some starts, told apart by their first coefficient."""

    def loss(outputs, targets):
        value = (outputs - targets).square().mean()
        return value * float("nan") if any(abs(float(value) - k) < 1e-9 for k in which) else value

    return loss


@pytest.mark.parametrize("bad", [{0}, {1, 2}, {0, 1, 2, 3}])
def test_members_with_nan_drop_out_and_their_end_is_told(bad):
    kan = KAN([1, 2, 1], 2, generator=torch.Generator().manual_seed(1))
    plain = Objective(kan, torch.nn.functional.mse_loss, (X, Y))
    adam = TorchOptimizer(torch.optim.Adam, {"lr": 0.02})
    levels = knot_hierarchy(kan, plain, 2, adam)
    u = levels[0].operator.start()
    field = first_members(levels, coarsest(levels, u), 4, 0)
    values = [coarse_rows(levels, 10.0)[1].operator.value(field[number].u) for number in bad]
    problem = Objective(kan, poisoned(values), (X, Y))
    hierarchy = knot_hierarchy(kan, problem, 2, adam)
    solution = train(hierarchy, u, starts=4, keep=[4], max_cycles=4, **WHOLE)
    on_finest = {entry.member for entry in solution.history if entry.level == 0}
    assert on_finest == {0, 1, 2, 3} - bad
    if len(bad) < 4:
        assert solution.member not in bad
        assert solution.reason is Reason.MAX_CYCLES
        assert math.isfinite(
            problem.with_network(hierarchy[0].operator.network).value(solution.value)
        )
    else:
        assert solution.reason is Reason.NOT_FINITE
        assert "train has no start left after level 1 (2 intervals" in solution.message
        assert solution.value.shape == u.shape
        assert bool(torch.isfinite(solution.value).all())


@pytest.mark.parametrize("part", [0, 1])
def test_nan_in_samples_that_coarse_levels_do_not_see_is_told(part):
    """They decide between the starts, so none is left, though all were trained."""
    kan = KAN([1, 2, 1], 2)
    data = [X.clone(), Y.clone()]
    data[part][unseen_sample(kan)] = math.nan
    problem = LeastSquares(kan, tuple(data))
    hierarchy = knot_hierarchy(kan, problem, 3, LevenbergMarquardt())
    u = hierarchy[0].operator.start()
    solution = train(hierarchy, u, starts=3, max_cycles=2, rows=1.0)
    assert solution.reason is Reason.NOT_FINITE
    assert len(solution.history) > 3  # of the coarsest level
    name = ("inputs", "targets")[part]
    assert f"1 of {len(X)} {name} is not finite, the first at index" in solution.message


def unseen_sample(kan):
    """The number of one that a level of that many parameters does not see."""
    places = torch.arange(len(X)).double().unsqueeze(1)
    problem = LeastSquares(kan, (places, places))
    return int(problem.split(sum(p.numel() for p in kan.parameters()))[1].data[0][0])


def test_the_seconds_are_those_of_all_members():
    hierarchy, u = made(LBFGS(), levels=2)
    began, spans = time.perf_counter(), {}

    def note(entry, state):
        now = time.perf_counter() - began
        spans.setdefault((entry.level, entry.member), [now, now])[1] = now

    options = {"gain": 0.0, "patience": 10**6, "max_cycles": 10**6}
    solution = train(hierarchy, u, starts=3, keep=[1], seconds=1.2, monitor=note, **options)
    assert solution.reason is Reason.SECONDS
    assert len(spans) == 4
    assert spans[1, 0][1] >= 0.3  # 3 : 1 of the seconds, so 0.3 each
    assert spans[1, 1][1] >= 0.6
    assert spans[1, 2][1] >= 0.9
    assert 1.2 <= solution.seconds < 6.0
    assert train(hierarchy, u, starts=3, seconds=1e-9).cycles == 0


@pytest.mark.parametrize("levels", [1, 2, 5])
def test_one_member_has_the_seconds_it_always_had(levels):
    expected = [0.5**level for level in range(levels - 1, -1, -1)]
    assert parts_of_seconds([1] * levels) == expected


def test_one_level_has_several_starts_too():
    network = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    problem = LeastSquares(network.double(), (X, Y))
    level = Level(problem, LevenbergMarquardt(), objective=problem.value)
    u, hierarchy = problem.start(), Hierarchy([level])
    solution = train(hierarchy, u, starts=4, max_cycles=20)
    ends = {entry.member: entry.value for entry in solution.history}
    assert len(ends) == 4
    assert problem.value(solution.value) == pytest.approx(min(ends.values()))
    assert solution.member == min(ends, key=ends.__getitem__)
    assert f"objective {min(ends.values()):.3g}" in str(solution)


def test_ties_go_to_the_earlier_start():
    members = [Member(number, 1.0, {}) for number in range(4)]
    assert [member.number for member in best(members, 2, lambda u: u)] == [0, 1]
    members[1].reason = Reason.NOT_FINITE
    assert [member.number for member in best(members, 3, lambda u: u)] == [0, 2, 3]
    assert best(members, 2, lambda u: math.nan) == []


def test_what_does_not_fit_is_refused():
    hierarchy, u = made()
    for starts in (0, 1.5, "many"):
        with pytest.raises(ValueError, match="train got starts .*; it must be a positive integer"):
            train(hierarchy, u, starts=starts)
    for keep in ([2], [2, 3], [9, 1], [2, 0], "41", 3):
        with pytest.raises(ValueError, match="train got keep .* for 8 starts and 3 levels; give 2"):
            train(hierarchy, u, starts=8, keep=keep)
    for seed in (-1, 2**70):
        with pytest.raises(ValueError, match="train got seed .* integer at least 0"):
            train(hierarchy, u, starts=2, seed=seed)
    bare = gallery.poisson(15)
    levels = [replace(level, objective=lambda u: 0.5 * float(u @ u)) for level in bare]
    with pytest.raises(TypeError, match="2 starts, but level .* has no network"):
        first_members(Hierarchy(levels), torch.zeros(1), 2, 0)


def test_starts_do_not_share_running_statistics():
    x = torch.linspace(-1.0, 1.0, 30, dtype=torch.float64).unsqueeze(1)
    layers = [torch.nn.Linear(1, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)]
    network = torch.nn.Sequential(*layers).double()
    for moving in (True, False):
        problem = Objective(network.train(moving), torch.nn.functional.mse_loss, (x, x))
        u = problem.start()
        level = Level(
            problem, TorchOptimizer(torch.optim.SGD, {"lr": 0.1}), objective=problem.value
        )
        hierarchy = Hierarchy([level])
        if not moving:
            assert train(hierarchy, u, max_cycles=2, starts=2).member in (0, 1)
            continue
        with pytest.raises(TypeError, match="BatchNorm1d '1' keeps running statistics"):
            train(hierarchy, u, max_cycles=2, starts=2)
