"""Law: autograd meets one function, whose gradients are those of the steps."""

from functools import partial

import pytest
import torch

from mgnet.depth import CyclesToTolerance, FixedCycles, PassReport
from mgnet.depth.parallel.solve import WarmStarts
from mgnet.depth.recurrent.cell_steps import CellSteps
from mgnet.depth.recurrent.cycles import TimeCycles
from mgnet.depth.recurrent.gru_steps import GRUSteps
from mgnet.depth.recurrent.solve import TimeCall, solve


def drawn(bias=True):
    torch.manual_seed(0)
    weight = torch.randn(9, 3, dtype=torch.float64).requires_grad_()
    start, inputs = torch.randn(2, 3).double(), torch.randn(40, 2, 9).double()
    return (
        start.requires_grad_(),
        inputs.requires_grad_(),
        [
            weight,
            torch.randn(9, dtype=torch.float64).requires_grad_() if bias else None,
        ],
    )


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_by_finite_differences(bias):
    start, inputs, weights = drawn(bias)
    reports = []
    call = TimeCall(
        GRUSteps,
        TimeCycles(2, 4),
        CyclesToTolerance(1e-13, max_cycles=40),
        lambda *told: reports.append(told),
    )
    given = [w for w in weights if w is not None]

    def f(start, inputs, *given):
        return solve(call, start, inputs, [*given, None][:2])

    assert torch.autograd.gradcheck(f, (start, inputs[:9].detach().requires_grad_(), *given))
    assert {told[0] for told in reports} == {"forward", "backward"}
    assert all(made.cycles > 0 and solved for _, made, solved in reports)


def test_each_direction_has_its_limit_and_points_get_gradients():
    start, inputs, weights = drawn()
    reports = {}
    call = TimeCall(
        GRUSteps,
        TimeCycles(2, 4),
        FixedCycles(2, 3),
        lambda direction, made, solved: reports.update({direction: made.cycles}),
    )
    points = solve(call, start, inputs, weights)
    assert torch.equal(points[0], start)
    (gradient,) = torch.autograd.grad(points[0].sum(), start)
    torch.testing.assert_close(gradient, torch.ones_like(start))
    assert reports == {"forward": 2, "backward": 3}


def test_derivatives_of_gradients_are_refused():
    start, inputs, weights = drawn()
    call = TimeCall(GRUSteps, TimeCycles(2, 4), CyclesToTolerance(1e-8), lambda *told: None)
    points = solve(call, start, inputs, weights)
    (first,) = torch.autograd.grad(points.square().sum(), inputs, create_graph=True)
    plain = torch.autograd.grad(solve(call, start, inputs, weights).square().sum(), inputs)[0]
    torch.testing.assert_close(first, plain)
    for wanted in (inputs, weights[0], start):
        with pytest.raises(RuntimeError, match="use mode='serial'"):
            torch.autograd.grad(first.sum(), wanted, retain_graph=True)


def test_a_cell_without_weights():
    steps = partial(CellSteps, lambda x, h: 0.5 * h + x, None, (1,))
    call = TimeCall(steps, TimeCycles(2, 4), CyclesToTolerance(1e-12), lambda *told: None)
    inputs = torch.ones(12, 1, 1, dtype=torch.float64).requires_grad_()
    points = solve(call, torch.zeros(1, 1, dtype=torch.float64), inputs, [])
    (gradient,) = torch.autograd.grad(points[-1].sum(), inputs)
    wanted = 0.5 ** torch.arange(11.0, -1.0, -1.0, dtype=torch.float64)
    torch.testing.assert_close(gradient.flatten(), wanted)


def test_states_are_left_for_the_next_call_only_if_they_are_finite():
    call = TimeCall(GRUSteps, TimeCycles(), FixedCycles(1), lambda *told: None, 3, WarmStarts())
    states = torch.ones(41, 2, 3)
    call.finish("forward", states, PassReport(1, 0.1, float("nan")), True)
    assert call.guess("forward", states[0], 40) is None
    call.finish("forward", states, PassReport(1, 0.1, 0.01), True)
    assert torch.equal(call.guess("forward", states[0], 40), states)
    for direction, like, steps in (
        ("backward", states[0], 40),
        ("forward", states[0], 39),
        ("forward", states[0, :1], 40),
        ("forward", states[0].double(), 40),
        ("forward", states[0].to("meta"), 40),
    ):
        assert call.guess(direction, like, steps) is None
    other = TimeCall(*[getattr(call, name) for name in ("steps", "cycles", "control", "report")])
    assert other.guess("forward", states[0], 40) is None
