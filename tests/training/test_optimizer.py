"""PyTorch's optimizers as smoothers take the very steps that they take in a training loop."""

import pytest
import torch

from mgnet import Level, cascade, run
from mgnet.knots import KAN, knot_hierarchy, knot_transfer
from mgnet.training import LBFGS, LeastSquares, TorchOptimizer

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


def test_a_right_hand_side_is_subtracted_from_the_gradient():
    one = level(TorchOptimizer(torch.optim.SGD, {"lr": 0.5}))
    u = one.operator.start()
    f = torch.ones_like(u)
    after, _ = one.smoother.smooth(one, u, f, 1, None)
    torch.testing.assert_close(after, u - 0.5 * (one.operator(u) - f))


def test_moments_are_carried_by_the_prolongation():
    smoother = TorchOptimizer(torch.optim.Adam, {"lr": 1e-2})
    one = level(smoother)
    u, memory = smoother.smooth(one, one.operator.start(), None, 4, None)
    transfer = knot_transfer(KAN([1, 2, 1], 3))
    carried = smoother.carry(memory, transfer)
    moment = memory["state"][0]["exp_avg"]
    torch.testing.assert_close(carried["state"][0]["exp_avg"], transfer.prolong(moment))
    assert float(carried["state"][0]["step"]) == 4.0
    assert len(memory["state"][0]["exp_avg"]) == len(u)  # the old one is as it was


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
