"""Knot hierarchies nest exactly; their cycles, in the subspace form, never raise the loss."""

import pytest
import torch

from mgnet import cascade, parse, run
from mgnet.knots import KAN, knot_hierarchy, knot_transfer
from mgnet.training import LBFGS, LeastSquares, LevenbergMarquardt, Objective


def problem(kan):
    generator = torch.Generator().manual_seed(0)
    x = 2.0 * torch.rand(200, 2, generator=generator, dtype=torch.float64) - 1.0
    return LeastSquares(kan, (x, torch.sin(3 * x[:, :1]) * torch.cos(4 * x[:, 1:])))


@pytest.mark.parametrize("linear", [False, True])
def test_the_transfer_carries_a_network_to_its_refinement(linear):
    kan = KAN([2, 3, 3, 1], linear=linear)
    u = torch.nn.utils.parameters_to_vector(kan.parameters()).detach()
    fine = torch.nn.utils.parameters_to_vector(kan.refine().parameters()).detach()
    transfer = knot_transfer(kan)
    torch.testing.assert_close(transfer.prolong(u), fine)
    torch.testing.assert_close(transfer.inject(fine), u)


def test_all_laws_hold():
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, problem(kan), 3, LevenbergMarquardt())
    told = hierarchy.check(hierarchy[0].operator.start())
    assert told.count("gradient of the objective") == 3
    assert told.count("recentring") == 2
    objective = Objective(kan, torch.nn.functional.mse_loss, problem(kan).data)
    plain = knot_hierarchy(kan, objective, 3, LBFGS())
    assert plain.check(plain[0].operator.start()).count("nesting") == 2


def test_refinement_in_a_cascade_loses_nothing():
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, problem(kan), 3, LevenbergMarquardt())
    values = []

    def record(step, data):
        if step.action in ("solve", "interpolate", "post"):
            values.append((step.action, data.level.operator.value(data.state)))

    run(cascade([5, 4, 3]), hierarchy, hierarchy[0].operator.start(), None, record=record)
    assert [action for action, _ in values] == ["solve", *["interpolate", "post"] * 2]
    for (_, before), (action, after) in zip(values[:-1], values[1:], strict=True):
        assert after == pytest.approx(before, rel=1e-10) if action == "interpolate" else True
        assert after <= before * (1 + 1e-10)


@pytest.mark.parametrize("text", ["V(1,1)", "F(1,0)", "W(0,1)"])
@pytest.mark.parametrize(
    "smoother", [LevenbergMarquardt(), LBFGS()], ids=lambda s: type(s).__name__
)
def test_cycles_around_a_trained_state_never_raise_the_loss(text, smoother):
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, problem(kan), 3, smoother)
    fine = hierarchy[0].operator
    u, memory = run(cascade([10, 5, 5]), hierarchy, fine.start(), None)
    values = [fine.value(u)]
    for _ in range(3):
        u, memory = run(parse(text, 3), hierarchy, u, None, memory)
        values.append(fine.value(u))
    assert all(b <= a for a, b in zip(values[:-1], values[1:], strict=True))
    assert values[-1] < 0.9 * values[0]


def test_the_network_of_a_level():
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, problem(kan), 2, LevenbergMarquardt())
    u = hierarchy[0].operator.start() + 0.1
    network = hierarchy.network(0, u)
    assert network.intervals == (4, 4)
    x = problem(kan).data[0]
    torch.testing.assert_close(network(x), hierarchy[0].operator.outputs(u))


def test_refusal():
    kan = KAN([1, 1])
    with pytest.raises(ValueError, match="knot_hierarchy got 0 levels"):
        knot_hierarchy(kan, problem(KAN([2, 1])), 0, LevenbergMarquardt())
