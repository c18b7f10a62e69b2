"""What `levenberg_marquardt` is given: problems that change from cycle to cycle."""

import pytest
import torch

from mgnet import Reason
from mgnet.training import LeastSquares, NewPoints, levenberg_marquardt

X = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64).unsqueeze(1)


def network(seed=0):
    torch.manual_seed(seed)
    layers = torch.nn.Linear(1, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1)
    return torch.nn.Sequential(*layers).double()


def sines(module, shift=0.0, count=40):
    x = X[:count]
    return LeastSquares(module, (x, torch.sin(3.0 * x) + shift))


def test_every_cycle_is_that_of_the_problem_it_was_given():
    module, problems, seen = network(), [], []

    def refresh(cycle, problem, u):
        seen.append(cycle)
        problems.append(sines(module, 0.01 * cycle, 30 + cycle))
        return problems[-1]

    states = []
    solution = levenberg_marquardt(
        sines(module),
        refresh=refresh,
        max_cycles=6,
        monitor=lambda record, u: states.append(u.clone()),
    )
    assert seen == [1, 2, 3, 4, 5, 6]
    expected = [sines(module).value(states[0])]
    expected += [problem.value(u) for problem, u in zip(problems, states[1:], strict=True)]
    assert solution.values == pytest.approx(expected, rel=1e-12)
    work = [record.work for record in solution.history]
    assert all(a < b for a, b in zip(work, work[1:], strict=False))
    assert solution.work == pytest.approx(work[-1])
    flat = torch.cat([p.detach().flatten() for p in module.parameters()])
    assert torch.equal(flat, solution.value)


def test_a_refresh_that_changes_nothing_changes_nothing():
    a, b = network(), network()
    plain = levenberg_marquardt(sines(a), max_cycles=20)
    kept = levenberg_marquardt(sines(b), max_cycles=20, refresh=lambda cycle, p, u: p)
    assert torch.equal(plain.value, kept.value)


def test_several_are_called_one_after_the_other():
    module = network()

    def first(cycle, problem, u):
        return sines(module, 1.0)

    def second(cycle, problem, u):
        assert float(problem.data[1].mean()) == pytest.approx(1.0)
        return problem

    levenberg_marquardt(sines(module), max_cycles=2, refresh=[first, second])


def line(shift):
    return LeastSquares(LINE, (X, 2.0 * X + shift * X**2))


LINE = torch.nn.Linear(1, 1).double()


@pytest.mark.parametrize("every", [2, 4, 7])
def test_a_test_counts_in_the_first_cycle_of_a_problem(every):
    """A line is found in a few steps; the training goes on until new data move it no more."""
    torch.nn.init.zeros_(LINE.weight)

    def refresh(cycle, problem, u):
        moves = 1.0 if cycle < 20 else 0.0
        return line(moves * cycle) if cycle % every == 0 else problem

    solution = levenberg_marquardt(line(0.0), refresh=refresh, max_cycles=100)
    assert solution.reason.converged
    # The first changes after cycle 20 bring the last curve; the one after, the same one again.
    assert 20 < len(solution.history) - 1 <= 20 + 2 * every + 1


def test_a_problem_that_changes_no_more_is_trained_to_the_end():
    torch.nn.init.zeros_(LINE.weight)

    def refresh(cycle, problem, u):
        return line(1.0) if cycle == 3 else problem

    solution = levenberg_marquardt(line(0.0), refresh=refresh, max_cycles=100)
    assert solution.reason.converged
    assert len(solution.history) - 1 <= 3 + 30 + 5


def test_what_is_no_refresh_is_refused_before_anything_is_trained():
    module = network()
    before = torch.cat([p.detach().clone().flatten() for p in module.parameters()])
    with pytest.raises(TypeError, match="refresh of type int"):
        levenberg_marquardt(sines(module), refresh=3)
    for refresh in ([3], [NewPoints]):
        with pytest.raises(TypeError, match="refresh of type list"):
            levenberg_marquardt(sines(module), refresh=refresh)
    with pytest.raises(TypeError, match="refresh of type type"):
        levenberg_marquardt(sines(module), refresh=NewPoints)
    after = torch.cat([p.detach().flatten() for p in module.parameters()])
    assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("give", "kind", "told"),
    [
        (lambda p: None, TypeError, "gave NoneType"),
        (lambda p: p.terms if hasattr(p, "terms") else 5, TypeError, "gave int"),
        (lambda p: sines(network(1)), ValueError, "another network"),
        (
            lambda p: LeastSquares(p.network, (X, X * float("nan"))),
            ValueError,
            "at cycle 3, with the problem that was new then.*residuals are NaN or Inf, first 0",
        ),
    ],
)
def test_what_a_refresh_must_not_give_is_refused_and_the_best_state_kept(give, kind, told):
    module = network()
    states = []
    with pytest.raises(kind, match=told):
        levenberg_marquardt(
            sines(module),
            refresh=lambda cycle, p, u: give(p) if cycle == 3 else p,
            monitor=lambda record, u: states.append(u.clone()),
            max_cycles=5,
        )
    flat = torch.cat([p.detach().flatten() for p in module.parameters()])
    assert bool(torch.isfinite(flat).all())
    assert sines(module).value(flat) <= sines(module).value(states[-1])


def test_it_cannot_change_the_state_behind_the_back():
    module = network()

    def refresh(cycle, problem, u):
        u.zero_()
        return problem

    solution = levenberg_marquardt(sines(module), refresh=refresh, max_cycles=10)
    assert solution.reason in (Reason.MAX_CYCLES, Reason.FTOL)
    assert solution.values[-1] < solution.values[0]
