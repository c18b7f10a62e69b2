"""Law: training ends where the held-out loss ended falling, with the state it was lowest at."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from mgnet import CycleRecord, Hierarchy, Level, Schedule, Smoother, Solver, Step, cascade, run
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import (
    LBFGS,
    EarlyStop,
    LeastSquares,
    LevenbergMarquardt,
    Objective,
    Patience,
    Record,
    TorchOptimizer,
)

ADAM = TorchOptimizer(torch.optim.Adam, {"lr": 0.02})


class Place(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.x = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))


@dataclass(frozen=True)
class Walk(Smoother):
    """Goes one place further per sweep, and counts its sweeps."""

    def start(self, level, u):
        return 0

    def smooth(self, level, u, f, sweeps, memory):
        level.charge(float(sweeps))
        return u + sweeps, memory + sweeps

    def carry(self, memory: Any, transfer: Any):
        return memory


def landscape(heights):
    """A level with the place as state, and the held-out loss as a table."""
    held_out = Objective.from_torch(Place(), lambda m: torch.tensor(heights)[int(m.x)])
    return held_out, lambda patience: Level(
        Objective.from_torch(Place(), lambda m: m.x.sum()), EarlyStop(Walk(), held_out, patience)
    )


HEIGHTS = [5.0, 4.0, 4.0, 4.5, 3.0, 3.5, 3.5, 3.5, 1.0] + [9.0] * 20


@pytest.mark.parametrize(
    ("patience", "sweeps", "place", "walked"),
    [
        (2, 20, 1, 3),  # the lowest so far was at 1
        (3, 20, 4, 7),
        (4, 20, 8, 12),
        (4, 6, 4, 6),  # the sweeps end first
        (1, 1, 1, 1),
    ],
)
@pytest.mark.parametrize("split", [False, True])
def test_the_best_place_is_returned_after_patience_sweeps(patience, sweeps, place, walked, split):
    _, level = landscape(HEIGHTS)
    hierarchy = Hierarchy([level(patience)])
    schedule = cascade([sweeps]).split() if split else cascade([sweeps])
    u, memory = run(schedule, hierarchy, torch.zeros(1, dtype=torch.float64), None)
    assert float(u) == place
    assert hierarchy[0].tally[0] == walked
    assert memory[0, "pre"].best_inner == place  # the inner memory is that of the best place


def test_the_search_begins_anew_where_others_moved_the_state():
    held_out, level = landscape(HEIGHTS)
    smoother = level(2).smoother
    start = torch.zeros(1, dtype=torch.float64)
    u, memory = smoother.smooth(level(2), start, None, 9, smoother.start(level(2), start))
    assert float(u) == 1.0
    carried = smoother.carry(memory, None)
    assert carried.best is None and carried.inner == carried.best_inner == 1
    u, memory = smoother.smooth(level(2), u + 5.0, None, 9, memory)
    assert float(u) == 8.0


def data():
    generator = torch.Generator().manual_seed(3)
    x = torch.linspace(-1, 1, 80, dtype=torch.float64).unsqueeze(1)
    return x, torch.sin(5 * x) + 0.3 * torch.randn(
        x.shape, generator=generator, dtype=torch.float64
    )


def noisy(inner, patience, levels=4):
    x, y = data()
    kan = KAN([1, 3, 1], intervals=2)
    held_out = LeastSquares(kan, (x[1::2], y[1::2]))
    smoother = inner if patience is None else EarlyStop(inner, held_out, patience)
    return knot_hierarchy(kan, LeastSquares(kan, (x[::2], y[::2])), levels, smoother), held_out


@pytest.mark.parametrize("inner", [LevenbergMarquardt(), LBFGS(), ADAM], ids=str)
@pytest.mark.parametrize("split", [False, True])
def test_no_sweep_of_a_cascade_raises_the_held_out_loss(inner, split):
    hierarchy, held_out = noisy(inner, 4)
    schedule, record = cascade([25] * 4), Record(held_out)
    schedule = schedule.split() if split else schedule
    run(schedule, hierarchy, hierarchy[0].operator.start(), None, record=record)
    losses = record.table()["held_out"]
    assert (losses[1:] <= losses[:-1] * (1 + 1e-12)).all()
    if not isinstance(inner, TorchOptimizer):
        # Without it the same cascade fits the noise.
        plain, _ = noisy(inner, None)
        free = Record(held_out)
        run(schedule, plain, plain[0].operator.start(), None, record=free)
        assert free.rows[-1].held_out > 1.2 * losses[-1]
        assert record.rows[-1].work < free.rows[-1].work


@pytest.mark.parametrize("inner", [LevenbergMarquardt(), ADAM], ids=str)
def test_single_sweeps_do_what_a_block_does(inner):
    states = []
    for schedule in (cascade([12] * 3), cascade([12] * 3).split()):
        hierarchy, _ = noisy(inner, 3, levels=3)
        states.append(run(schedule, hierarchy, hierarchy[0].operator.start(), None)[0])
    assert torch.equal(*states)


def test_corrections_are_smoothed_by_the_inner_smoother_alone():
    hierarchy, held_out = noisy(LevenbergMarquardt(), 2, levels=2)
    plain, _ = noisy(LevenbergMarquardt(), None, levels=2)
    schedule = Schedule([Step("down", 0), Step("solve", 1, 3), Step("up", 0)])
    start = hierarchy[0].operator.start()
    values = [run(schedule, each, start, None)[0] for each in (hierarchy, plain)]
    assert torch.equal(*values)


def test_patience_ends_cycles_and_keeps_the_best_state():
    hierarchy, held_out = noisy(LevenbergMarquardt(), None, levels=3)
    network = hierarchy[0].operator.network
    states, patience = [], Patience(held_out.with_network(network).value, 3)

    def monitor(entry, u):
        states.append(u)
        return patience(entry, u)

    solver = Solver(hierarchy, "V(1,1)", max_cycles=30, monitor=monitor)
    solution = solver.solve(u=hierarchy[0].operator.start())
    x, y = data()
    losses = [
        0.5 * float((hierarchy.network(0, u)(x[1::2]) - y[1::2]).detach().square().mean())
        for u in states
    ]
    best = min(range(len(losses)), key=losses.__getitem__)
    assert solution.reason.name == "MONITOR" and solution.cycles == best + 3 < 30
    assert patience.best is states[best] and patience.cycle == best
    assert patience.values == pytest.approx(losses, rel=1e-12)
    first = list(patience.values)
    solver.solve(u=hierarchy[0].operator.start())  # a second solve starts afresh
    assert patience.values == first and patience.cycle == best


@pytest.mark.parametrize("patience", [0, -1, 2.5])
def test_bad_patience_is_refused(patience):
    held_out, _ = landscape(HEIGHTS)
    with pytest.raises(ValueError, match="EarlyStop got patience .*at least 1"):
        EarlyStop(ADAM, held_out, patience)
    with pytest.raises(ValueError, match="Patience got .*at least 1"):
        Patience(held_out.value, patience)


def test_a_memory_that_is_still_empty_is_carried_as_none():
    kan = KAN([1, 1], 2)
    x = torch.linspace(-1, 1, 9, dtype=torch.float64).unsqueeze(1)
    problem = LeastSquares(kan, (x, x))
    levels = knot_hierarchy(kan, problem, 2, EarlyStop(LBFGS(), problem, 1))
    smoother, transfer = levels[1].smoother, levels[0].transfer
    assert smoother.carry(smoother.start(levels[1], problem.start()), transfer) is None


@pytest.mark.parametrize("loss", [None, [1.0], torch.ones(3), "1.0", 1.0j], ids=str)
def test_a_held_out_loss_is_one_number(loss):
    patience = Patience(lambda u: loss, 2)
    with pytest.raises(TypeError, match="Patience has a loss that returned .*; it must return one"):
        patience(CycleRecord(0, 1.0, None, 0.0, 0.0), torch.ones(2))


def test_a_held_out_loss_leaves_the_state():
    u, patience = torch.ones(2), Patience(lambda u: float(u.mul_(0.5).sum()), 2)
    with pytest.raises(ValueError, match="Patience has a loss that edits its argument in place"):
        patience(CycleRecord(0, 1.0, None, 0.0, 0.0), u)
    assert u.tolist() == [1.0, 1.0]


def test_parts_of_other_kinds_are_refused():
    x = torch.zeros(3, 1, dtype=torch.float64)
    problem = LeastSquares(KAN([1, 1]), (x, x))
    with pytest.raises(TypeError, match="held_out of type tuple; it must be an Objective"):
        EarlyStop(ADAM, (x, x), 3)
    with pytest.raises(TypeError, match="inner of type Adam; it must be a Smoother"):
        EarlyStop(torch.optim.Adam(KAN([1, 1]).parameters()), problem, 3)
