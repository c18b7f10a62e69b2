"""PyTorch's optimizers as smoothers take the very steps that they take in a training loop."""

import pytest
import torch

from mgnet import Hierarchy, Level, cascade, run
from mgnet.knots import KAN, knot_hierarchy, knot_transfer
from mgnet.training import LBFGS, LeastSquares, Objective, TorchOptimizer
from mgnet.training.optimizers.optimizer import carried_moments, carried_pairs

X = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64).unsqueeze(1)


def level(smoother):
    problem = LeastSquares(KAN([1, 2, 1], 3), (X, torch.sin(4 * X)))
    return Level(problem, smoother, objective=problem.value)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.Adam, {"lr": 1e-2}),
        (torch.optim.SGD, {"lr": 1e-1, "momentum": 0.9}),
        (torch.optim.RMSprop, {"lr": 1e-3}),
    ],
)
def test_the_steps_are_those_of_a_training_loop(kind, options):
    one = level(TorchOptimizer(kind, options))
    u, memory = one.operator.start(), None
    for sweeps in (1, 3, 2):  # the state survives between visits
        u, memory = one.smoother.smooth(one, u, None, sweeps, memory)
    network = KAN([1, 2, 1], 3)
    optimizer = kind(network.parameters(), **options)
    for _ in range(6):
        optimizer.zero_grad()
        (0.5 * (network(X) - torch.sin(4 * X)).square().mean()).backward()
        optimizer.step()
    expected = torch.nn.utils.parameters_to_vector(network.parameters())
    torch.testing.assert_close(u, expected.detach(), rtol=0, atol=1e-12)
    assert one.tally[0] == 6


def test_the_options_are_those_of_the_smoother_and_not_of_the_memory():
    """Levels may differ in learning rate, visits in their number of sweeps."""
    one = level(TorchOptimizer(torch.optim.Adam, {"lr": 1e-2}))
    u, memory = one.smoother.smooth(one, one.operator.start(), None, 2, None)
    still, after = TorchOptimizer(torch.optim.Adam, {"lr": 0.0}).smooth(one, u, None, 1, memory)
    assert torch.equal(still, u)
    assert float(after["state"][0]["step"]) == 3.0
    u, memory = LBFGS().smooth(one, u, None, 2, None)
    _, memory = LBFGS().smooth(one, u, None, 5, memory)
    assert memory[0]["state"][0]["n_iter"] == 7


def test_a_right_hand_side_is_subtracted_from_the_gradient():
    one = level(TorchOptimizer(torch.optim.SGD, {"lr": 0.5}))
    u = one.operator.start()
    f = torch.ones_like(u)
    after, _ = one.smoother.smooth(one, u, f, 1, None)
    torch.testing.assert_close(after, u - 0.5 * (one.operator(u) - f))


def test_moments_are_carried_at_the_size_that_gradients_have_on_the_finer_level():
    """Averages of the last gradient alone, carried, are close to those of the finer gradient."""
    smoother = TorchOptimizer(torch.optim.Adam, {"lr": 0.0, "betas": (0.0, 0.0)})
    kan, x = KAN([1, 1], 16), torch.linspace(-1.0, 1.0, 900, dtype=torch.float64).unsqueeze(1)
    coarse = LeastSquares(kan, (x, kan(x).detach() + 1.0 + 0.3 * x))
    one = Level(coarse, smoother)
    u, memory = smoother.smooth(one, one.operator.start(), None, 4, None)
    transfer = knot_transfer(kan, 3)
    carried = smoother.carry(memory, transfer)
    state, gradient = carried["state"][0], coarse.with_network(kan.refine(3))(transfer.prolong(u))
    assert float(state["step"]) == 4.0
    inner = slice(8, -8)  # at the ends a spline lies partly outside the domain
    for name, power in (("exp_avg", 1), ("exp_avg_sq", 2)):
        torch.testing.assert_close(
            state[name][inner], gradient[inner] ** power, rtol=0.05, atol=0.0
        )
        assert len(state[name]) == len(gradient)
    assert len(memory["state"][0]["exp_avg"]) == len(u)  # the old one is as it was
    momentum = {"momentum_buffer": u, "lr": 0.1}  # steps, not gradients
    assert torch.equal(carried_moments(momentum, transfer)["momentum_buffer"], transfer.prolong(u))


def test_pairs_are_carried_with_their_curvature():
    one = level(LBFGS())
    u, memory = one.smoother.smooth(one, one.operator.start(), None, 8, None)
    transfer = knot_transfer(KAN([1, 2, 1], 3))
    carried = one.smoother.carry(memory, transfer)
    old, new = memory.state["state"][0], carried.state["state"][0]
    assert carried.f is None
    assert len(new["old_dirs"]) == len(old["old_dirs"]) > 5
    for name in ("old_dirs", "old_stps"):
        for before, after in zip(old[name], new[name], strict=True):
            back = transfer.restrict if name == "old_dirs" else transfer.inject
            torch.testing.assert_close(back(after), before)
    for y, s, ro in zip(new["old_dirs"], new["old_stps"], new["ro"], strict=True):
        torch.testing.assert_close(1.0 / (y @ s), ro)
    torch.testing.assert_close(new["H_diag"], (y @ s) / (y @ y))
    assert one.smoother.carry(memory._replace(f=u), transfer) is None  # other pairs
    _, fresh = one.smoother.smooth(one, u, None, 1, None)  # no pair yet
    assert carried_pairs(fresh[0]["state"][0], transfer) == {}


def test_a_move_between_visits_makes_no_pair():
    """On a quadratic every pair must have the curvature of its matrix."""
    A = torch.diag(torch.linspace(1.0, 5.0, 5, dtype=torch.float64))
    one = Level(lambda u: A @ u, LBFGS(), objective=lambda u: 0.5 * float(u @ A @ u))
    u, memory = one.smoother.smooth(one, torch.ones(5).double(), None, 3, None)
    u = u + torch.tensor([3.0, -2.0, 1.0, 0.0, 1.0], dtype=torch.float64)  # a coarse correction
    _, memory = one.smoother.smooth(one, u, None, 2, memory)
    state = memory.state["state"][0]
    assert len(state["old_dirs"]) == 3
    for y, s in zip(state["old_dirs"], state["old_stps"], strict=True):
        torch.testing.assert_close(y, A @ s)


def test_carried_pairs_pay_in_a_cascade(monkeypatch):
    def ends():
        x = 2.0 * torch.rand(200, 2, generator=torch.Generator().manual_seed(0)).double() - 1.0
        y = torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:] ** 2)
        kan = KAN([2, 5, 1], 4)
        hierarchy = knot_hierarchy(kan, LeastSquares(kan, (x, y)), 3, LBFGS())
        u, memory = run(cascade([40, 20, 20]), hierarchy, hierarchy[0].operator.start(), None)
        return hierarchy[0].operator.value(u), memory[0, "pre"][0]["state"][0]["n_iter"]

    value, iterations = ends()
    monkeypatch.setattr(LBFGS, "carry", lambda *_: None)
    dropped, fewer = ends()
    assert (iterations, fewer) == (80, 20)
    assert value < 0.6 * dropped


def test_lbfgs_continues_as_if_it_had_not_been_left():
    one = level(LBFGS())
    start = one.operator.start()
    u, memory = one.smoother.smooth(one, start, None, 5, None)
    half = one.operator.value(u)
    u, memory = one.smoother.smooth(one, u, None, 7, memory)
    assert memory[0]["state"][0]["n_iter"] > 7  # of both visits
    assert len(memory[0]["state"][0]["old_dirs"]) > 5
    assert one.operator.value(u) < 0.5 * half < 0.1 * one.operator.value(start)
    _, anew = one.smoother.smooth(one, u, torch.zeros_like(u), 1, memory)
    assert anew[0]["state"][0]["n_iter"] == 1  # another right-hand side, another objective


def test_adam_trains_through_a_cascade():
    kan = KAN([1, 2, 1], 2)
    problem = LeastSquares(kan, (X, torch.sin(4 * X)))
    smoother = TorchOptimizer(torch.optim.Adam, {"lr": 1e-2})
    hierarchy = knot_hierarchy(kan, problem, 2, smoother)
    u, memory = run(cascade([150, 50]), hierarchy, hierarchy[0].operator.start(), None)
    assert hierarchy[0].operator.value(u) < 0.1 * problem.value(problem.start())
    assert float(memory[0, "pre"]["state"][0]["step"]) == 200.0
    assert str(smoother) == "Adam(lr=0.01)"


@pytest.mark.parametrize("start", [5.0, 20.0, 80.0])
def test_lbfgs_does_not_end_where_the_loss_is_nan_without_a_word(start):
    module = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(module.weight, start)
    objective = Objective(module, lambda module: torch.log(module.weight).square().sum(), None)
    level = Level(objective, LBFGS(), objective=objective)
    try:
        u, _ = run(cascade([40]), Hierarchy([level]), objective.start(), None)
    except FloatingPointError as error:
        assert "went from a finite loss to one that is not" in str(error)
    else:
        assert objective.value(u) < 1e-12


def test_lbfgs_passes_steps_on_which_the_loss_is_not_finite():
    def energy(u):  # a wall: inf beyond 1
        return float("inf") if float(u.abs().max()) > 1.0 else float((u * u).sum())

    level = Level(lambda u: 2.0 * u, LBFGS(), objective=energy, size=1)
    u, _ = run(cascade([10]), Hierarchy([level]), torch.tensor([0.9], dtype=torch.float64), None)
    assert abs(float(u)) < 1e-8
