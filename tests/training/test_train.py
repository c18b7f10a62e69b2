"""Levels are left when they are exhausted; what was done is a schedule that `run` repeats."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from mgnet import (
    Hierarchy,
    Jacobi,
    Level,
    MatrixTransfer,
    Reason,
    Schedule,
    cascade,
    gallery,
    nested,
    run,
)
from mgnet.knots import KAN, knot_hierarchy, kronecker_matrix
from mgnet.training import (
    LBFGS,
    Broyden,
    LeastSquares,
    LevenbergMarquardt,
    TorchOptimizer,
    gradient_share,
    train,
)

X = torch.linspace(-1.0, 1.0, 80, dtype=torch.float64).unsqueeze(1)


def made(smoother=None, levels=3, form="subspace"):
    kan = KAN([1, 2, 1], 2, generator=torch.Generator().manual_seed(1))
    problem = LeastSquares(kan, (X, torch.sin(8 * X)))
    hierarchy = knot_hierarchy(kan, problem, levels, smoother or LevenbergMarquardt(), form=form)
    return hierarchy, hierarchy[0].operator.start()


def steps_of(solution):
    return Schedule(entry.step for entry in solution.record)


@pytest.mark.parametrize(
    "smoother", [LevenbergMarquardt(), Broyden(), LBFGS(), TorchOptimizer(torch.optim.SGD)], ids=str
)
def test_what_was_done_is_a_schedule(smoother):
    hierarchy, u = made(smoother)
    solution = train(hierarchy, u, gain=0.3, max_cycles=40)
    again, memory = run(steps_of(solution), hierarchy, u, None)
    assert torch.equal(solution.value, again)
    assert solution.memory.keys() == memory.keys()
    assert solution.cycles == sum(step.action == "post" for step in steps_of(solution))
    assert len(solution.values) == len(solution.residual_norms) == solution.cycles + 1


def test_the_history_is_that_of_the_level_at_hand():
    plain, u = made()
    levels = [replace(level, cost=4.0 / 2**number) for number, level in enumerate(plain)]
    told = []
    solution = train(
        Hierarchy(levels), u, max_cycles=4, gain=0.0, monitor=lambda *given: told.append(given)
    )
    assert [(entry.level, entry.cycle) for entry, _ in told] == [
        *((2, cycle) for cycle in range(5)),
        *((1, cycle) for cycle in range(4, 9)),  # a start on a finer level is no cycle
        *((0, cycle) for cycle in range(8, 13)),
    ]
    entries = [entry for entry, _ in told]
    assert list(solution.history) == entries[:5] + entries[6:10] + entries[11:]
    for entry, state in told:
        network = plain.network(entry.level, state)
        r = (network(X) - torch.sin(8 * X))[:, 0]
        slopes = torch.autograd.grad(0.5 * r.square().mean(), list(network.parameters()))
        norm = np.sqrt(sum(np.sum(slope.numpy() ** 2) for slope in slopes))
        assert entry.value == pytest.approx(0.5 * np.mean(r.detach().numpy() ** 2))
        assert entry.residual_norm == pytest.approx(norm, abs=1e-12)
        looks = sum(2.0 * 0.5**e.level for e in entries[: 1 + entries.index(entry)])
        steps = sum(e.work for e in solution.record if e.cycle <= entry.cycle)
        assert entry.work == pytest.approx(looks + steps)  # looks: a gradient and a value
    assert entries[-1].work == pytest.approx(solution.work)
    seconds = [entry.seconds for entry in entries]
    assert seconds == sorted(seconds)
    assert seconds[-1] <= solution.seconds


def test_it_explains_itself_without_a_cycle_on_the_finest_level():
    hierarchy, u = made(TorchOptimizer(torch.optim.SGD))  # slow: there is something to explain
    solution = train(hierarchy, u, monitor=lambda entry, u: entry.level == 0 or entry.cycle == 1)
    assert (solution.cycles, solution.reason) == (1, Reason.MONITOR)
    assert solution.explain().splitlines()[-2].startswith("total  1 cycles")


def test_it_is_the_cascade_when_the_levels_are_left_at_its_counts():
    hierarchy, u = made()
    counts, looks = [4, 3, 5], [0, 0, 0]

    def leave(entry, state):
        level = entry.level
        assert entry.value == hierarchy[level].operator.value(state)
        looks[level] += 1
        return looks[level] > counts[2 - level]

    solution = train(hierarchy, u, gain=0.0, monitor=leave)
    expected, _ = run(cascade(counts), hierarchy, u, None)
    assert torch.equal(solution.value, expected)
    assert solution.reason is Reason.MONITOR
    assert [entry.cycle for entry in solution.record][-1] == 12


def test_one_cycle_per_level_is_full_multigrid():
    hierarchy, u = made()
    solution = train(hierarchy, u, cycle="V(1,2)", max_cycles=1)
    expected, _ = run(nested(3, 1, 1, 2), hierarchy, u, None)
    assert torch.equal(solution.value, expected)
    assert steps_of(solution).text == nested(3, 1, 1, 2).text
    assert solution.reason is Reason.MAX_CYCLES
    assert sum(entry.work for entry in solution.record) < solution.work
    assert solution.corrections.keys() == {0, 1}


def test_a_level_that_stagnates_is_left():
    """A linear network: Levenberg-Marquardt has the minimum of a level after a few sweeps."""
    kan = KAN([1, 1], 4)
    hierarchy = knot_hierarchy(kan, LeastSquares(kan, (X, X.abs())), 3, LevenbergMarquardt())
    u = hierarchy[0].operator.start()
    solution = train(hierarchy, u, patience=3, gain=0.1, rows=None)
    assert solution.reason is Reason.STAGNATES
    visits = [sum(e.step == ("post", level, 1) for e in solution.record) for level in (0, 1, 2)]
    assert all(3 <= count <= 9 for count in visits)
    target = X.abs().numpy() / math.sqrt(80)
    for level in hierarchy:
        J = level.operator.jacobian(level.operator.start()).numpy()
        rest = target - J @ np.linalg.lstsq(J, target, rcond=None)[0]
        assert min(abs(np.array(solution.values) / (0.5 * np.sum(rest**2)) - 1.0)) < 1e-2


def test_the_share_is_that_of_the_projected_gradient():
    hierarchy, _ = made(levels=2)
    kan = hierarchy.network(1, hierarchy[1].operator.start())
    P = torch.as_tensor(kronecker_matrix(kan).toarray())
    u = hierarchy[1].operator.start()
    g = hierarchy[0].operator(P @ u)
    projected = P @ torch.linalg.solve(P.T @ P, P.T @ g)
    share = gradient_share(hierarchy[0], u)
    assert 0.2 * float(projected @ projected / (g @ g)) < share
    assert share <= float(projected @ projected / (g @ g))  # columns sums bound P^T P
    aggregates = torch.kron(torch.eye(3), torch.ones(2, 1)).double()  # P^T P is diagonal
    g = torch.arange(6.0).double()
    level = Level(lambda u: g, Jacobi(), MatrixTransfer(aggregates))
    Q = torch.linalg.qr(aggregates).Q
    exact = float((Q.T @ g).square().sum() / g.square().sum())
    assert gradient_share(level, torch.zeros(3).double()) == pytest.approx(exact)
    assert gradient_share(Level(lambda u: 0 * u, Jacobi(), level.transfer), g[:3]) == 0.0


def test_a_level_that_sees_little_of_the_gradient_is_left():
    kan = KAN([1, 1], 4)
    smoother = TorchOptimizer(torch.optim.SGD, {"lr": 5.0})
    hierarchy = knot_hierarchy(kan, LeastSquares(kan, (X, X.abs())), 2, smoother)
    u, looks = hierarchy[0].operator.start(), []

    def watch(entry, state):
        if entry.level == 1:
            looks.append(gradient_share(hierarchy[0], state))

    train(hierarchy, u, gain=0.0, share=0.05, patience=2, max_cycles=200, monitor=watch)
    assert max(looks[-2:]) <= 0.05 < min(looks[0], looks[-3])
    assert len(looks) < 200


def test_every_level_has_its_part_of_the_seconds():
    hierarchy, u = made(LBFGS())
    entered, began = {}, time.perf_counter()

    def note(entry, state):
        entered.setdefault(entry.level, time.perf_counter() - began)

    solution = train(hierarchy, u, gain=0.0, max_cycles=10**6, seconds=0.8, monitor=note)
    assert solution.reason is Reason.SECONDS
    assert entered[1] >= 0.2
    assert entered[0] >= 0.4
    assert 0.8 <= solution.seconds < 4.0
    assert train(hierarchy, u, seconds=1e-9).cycles == 0


def test_it_never_ends_above_a_state_on_the_way():
    hierarchy, u = made(TorchOptimizer(torch.optim.Adam, {"lr": 0.3}))
    solution = train(hierarchy, u, gain=0.0, max_cycles=25)
    assert max(solution.values) > 2.0 * min(solution.values)
    assert hierarchy[0].operator.value(solution.value) <= min(solution.values) * (1.0 + 1e-9)


def test_what_does_not_fit_is_refused():
    hierarchy, u = made()
    with pytest.raises(ValueError, match="seconds 0"):
        train(hierarchy, u, seconds=0.0)
    with pytest.raises(TypeError, match="state has the type Linear"):
        train(hierarchy, torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match="without an objective"):
        train(gallery.poisson(15), np.ones(15))
    with pytest.raises(TypeError, match="no `inject`"):
        level = Level(np.eye(2), Jacobi(), MatrixTransfer(np.ones((2, 1))), objective=np.sum)
        train(Hierarchy([level, Level(np.eye(1), Jacobi(), objective=np.sum)]), np.ones(2))
