"""Knot hierarchies nest exactly; their cycles, in both forms, never raise the loss."""

import numpy as np
import pytest
import torch

from mgnet import cascade, parse, run
from mgnet.knots import KAN, knot_hierarchy, knot_transfer, kronecker_matrix
from mgnet.training import LBFGS, LeastSquares, LevenbergMarquardt, Objective


def data():
    generator = torch.Generator().manual_seed(0)
    x = 2.0 * torch.rand(200, 2, generator=generator, dtype=torch.float64) - 1.0
    return x, torch.sin(3 * x[:, :1]) * torch.cos(4 * x[:, 1:])


def problem(kan):
    return LeastSquares(kan, data())


def quartic(kan):
    """An objective that is no sum of squares known to be one."""
    return Objective(kan, lambda outputs, targets: (outputs - targets).pow(4).mean(), data())


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("factor", [2, 3])
def test_the_transfer_carries_a_network_to_its_refinement(linear, factor):
    kan = KAN([2, 3, 3, 1], linear=linear)
    u = torch.nn.utils.parameters_to_vector(kan.parameters()).detach()
    fine = torch.nn.utils.parameters_to_vector(kan.refine(factor).parameters()).detach()
    transfer = knot_transfer(kan, factor)
    torch.testing.assert_close(transfer.prolong(u), fine)
    torch.testing.assert_close(transfer.inject(fine), u)
    fine += torch.linspace(-1.0, 1.0, len(fine), dtype=torch.float64) ** 3
    network = kan.refine(factor)
    torch.nn.utils.vector_to_parameters(fine, network.parameters())
    coarse = torch.nn.utils.parameters_to_vector(network.coarsen(factor).parameters())
    torch.testing.assert_close(transfer.inject(fine), coarse.detach())


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("factor", [2, 3])
def test_the_kronecker_matrix_is_the_prolongation(linear, factor):
    kan = KAN([2, 3, 2, 1], [2, 5] if linear else [2, 5, 3], linear=linear)
    columns = torch.eye(sum(p.numel() for p in kan.parameters()), dtype=torch.float64)
    expected = torch.stack([knot_transfer(kan, factor).prolong(column) for column in columns], 1)
    np.testing.assert_array_equal(kronecker_matrix(kan, factor).toarray(), expected.numpy())
    u = torch.nn.utils.parameters_to_vector(kan.parameters()).detach().numpy()
    fine = torch.nn.utils.parameters_to_vector(kan.refine(factor).parameters()).detach().numpy()
    np.testing.assert_allclose(kronecker_matrix(kan, factor) @ u, fine, atol=1e-15)


@pytest.mark.parametrize("form", ["subspace", "injected"])
@pytest.mark.parametrize("objective", [problem, quartic])
@pytest.mark.parametrize("factor", [2, 3])
def test_all_laws_hold(form, objective, factor):
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, objective(kan), 3, LBFGS(), factor=factor, form=form)
    assert hierarchy.network(0, hierarchy[0].operator.start()).intervals == (2 * factor**2,) * 2
    told = hierarchy.check(hierarchy[0].operator.start())
    assert told.count("gradient of the objective") == 3
    assert told.count("recentring") == (2 if form == "subspace" else 0)
    assert told.count("nesting") == (2 if form == "injected" else 0)


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


@pytest.mark.parametrize("form", ["subspace", "injected"])
@pytest.mark.parametrize("text", ["V(1,1)", "F(1,0)", "W(0,1)"])
@pytest.mark.parametrize(
    ("objective", "smoother"),
    [(problem, LevenbergMarquardt()), (problem, LBFGS()), (quartic, LBFGS())],
    ids=["Levenberg-Marquardt", "L-BFGS", "L-BFGS, fourth powers"],
)
def test_cycles_around_a_trained_state_never_raise_the_loss(text, objective, smoother, form):
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, objective(kan), 3, smoother, form=form)
    fine = hierarchy[0].operator
    u, memory = run(cascade([10, 5, 5]), hierarchy, fine.start(), None)
    values = [fine.value(u)]
    for _ in range(3):
        u, memory = run(parse(text, 3), hierarchy, u, None, memory)
        values.append(fine.value(u))
    assert all(b <= a for a, b in zip(values[:-1], values[1:], strict=True))
    assert values[-1] < 0.9 * values[0]


@pytest.mark.parametrize("form", ["subspace", "injected"])
@pytest.mark.parametrize("objective", [problem, quartic])
def test_coarse_corrections_alone_lower_the_loss(form, objective):
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, objective(kan), 3, LBFGS(), form=form)
    fine = hierarchy[0].operator
    lengths = []

    def record(step, told):
        if step.action == "up":
            lengths.append(told.step_length)

    u, _ = run(parse("V(0,0,5)", 3), hierarchy, fine.start(), None, record=record)
    assert all(length > 0.0 for length in lengths)
    assert fine.value(u) < 0.8 * fine.value(fine.start())


def test_the_network_of_a_level():
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, problem(kan), 2, LevenbergMarquardt())
    u = hierarchy[0].operator.start() + 0.1
    network = hierarchy.network(0, u)
    assert network.intervals == (4, 4)
    x = data()[0]
    torch.testing.assert_close(network(x), hierarchy[0].operator.outputs(u))


def test_levels_with_a_part_of_the_samples_cost_less():
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, problem(kan), 3, LBFGS(), samples=[1.0, 0.5, 0.25])
    samples = [len(level.operator.data[0]) for level in hierarchy]
    assert [level.cost for level in hierarchy] == [count / samples[0] for count in samples]
    around = hierarchy[1].recenter(hierarchy[1].operator.start())
    assert around.cost == hierarchy[1].cost == 0.5
    # Losses over other samples do not agree, as nested levels of the same samples do.
    assert knot_hierarchy(kan, problem(kan), 3, LBFGS()).nested and not hierarchy.nested
    finer = hierarchy[0].transfer.prolong(hierarchy[1].operator.start())
    coarse, fine = (
        hierarchy[1].objective(hierarchy[1].operator.start()),
        hierarchy[0].objective(finer),
    )
    assert coarse != pytest.approx(fine, rel=1e-6)


def test_refusal():
    kan = KAN([1, 1])
    with pytest.raises(ValueError, match="knot_hierarchy got 0 levels"):
        knot_hierarchy(kan, problem(KAN([2, 1])), 0, LevenbergMarquardt())
    with pytest.raises(ValueError, match="got form 'fas'; it must be 'subspace' or 'injected'"):
        knot_hierarchy(kan, problem(KAN([2, 1])), 2, LevenbergMarquardt(), form="fas")
