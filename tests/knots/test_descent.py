"""Descent in the ReLU geometry is descent on the MLP's weights, which finer knots do not help."""

import pytest
import torch

from mgnet import Level, cascade, parse, run
from mgnet.knots import KAN, GradientDescent, MultichannelMLP, knot_hierarchy
from mgnet.knots.change_of_basis import from_channels
from mgnet.knots.refinement import uniform_knots
from mgnet.training import LeastSquares, Objective

NETWORKS = [
    {"widths": [2, 3, 1], "intervals": 4},
    {"widths": [2, 3, 2, 1], "intervals": [6, 3], "degree": 2, "linear": True},
]


def problem(kan):
    generator = torch.Generator().manual_seed(0)
    x = 2.0 * torch.rand(150, 2, generator=generator, dtype=torch.float64) - 1.0
    return LeastSquares(kan, (x, torch.sin(4 * x[:, :1]) * x[:, 1:]))


def one_edge(intervals, degree=3):
    """Of a function whose features lie on every scale: |sin(3 pi x^2)|."""
    x = torch.linspace(-1, 1, 400, dtype=torch.float64).unsqueeze(1)
    return LeastSquares(KAN([1, 1], intervals, degree), (x, torch.sin(3 * torch.pi * x**2).abs()))


def level_of(objective, geometry):
    return Level(objective, GradientDescent(geometry), objective=objective.value)


@pytest.mark.parametrize("options", NETWORKS)
def test_a_step_in_the_relu_geometry_is_a_gradient_step_on_the_channel_weights(options):
    kan, eta = KAN(**options), 1e-3
    one = level_of(problem(kan), "relu")
    u, length = one.smoother.smooth(one, one.operator.start(), None, 1, eta)
    assert length == 2 * eta  # so this was the step that was taken
    mlp = MultichannelMLP(kan)
    x, y = one.operator.data
    optimizer = torch.optim.SGD(mlp.parameters(), lr=eta)
    (0.5 * (mlp(x) - y).square().mean()).backward()
    optimizer.step()
    expected = torch.nn.utils.parameters_to_vector(mlp.to_kan().parameters())
    start = one.operator.start()
    assert (u - expected).norm() < 1e-9 * (u - start).norm()


@pytest.mark.parametrize("geometry", ["spline", "relu"])
@pytest.mark.parametrize("options", NETWORKS)
def test_no_sweep_raises_the_objective_whatever_the_right_hand_side(options, geometry):
    one = level_of(problem(KAN(**options)), geometry)
    u, length = one.operator.start(), one.smoother.start(one, None)
    f = 1e-3 * torch.randn(len(u), generator=torch.Generator().manual_seed(2)).double()
    values = [one.value(u, f)]
    for _ in range(20):
        u, length = one.smoother.smooth(one, u, f, 1, length)
        values.append(one.value(u, f))
    assert all(b < a for a, b in zip(values[:-1], values[1:], strict=True))


def test_one_visit_is_as_good_as_two_and_a_minimum_is_left_alone():
    one = level_of(one_edge(8), "spline")
    u = one.operator.start()
    whole, length = one.smoother.smooth(one, u, None, 7, 1.0)
    half, memory = one.smoother.smooth(one, u, None, 3, 1.0)
    assert torch.equal(one.smoother.smooth(one, half, None, 4, memory)[0], whole)
    assert one.smoother.carry(length, None) == length
    zero = torch.zeros(3)
    flat = Level(lambda u: u, GradientDescent(), objective=lambda u: 0.5 * float(u @ u))
    assert flat.smoother.smooth(flat, zero, None, 5, 0.5) == (zero, 0.5)
    assert flat.tally == [1.0]


@pytest.mark.parametrize("degree", [1, 3])
def test_after_an_exact_coarse_solve_only_the_spline_geometry_goes_on(degree):
    """What 40 sweeps leave of the excess over the best fine fit."""
    coarse, fine = one_edge(20, degree), one_edge(40, degree)
    hierarchy = knot_hierarchy(coarse.network, coarse, 2, GradientDescent())
    best = []
    for p in (coarse, fine):  # linear in the coefficients of one edge
        J = p.jacobian(p.start())
        best.append(p.start() - torch.linalg.lstsq(J, p.residuals(p.start())).solution)
    u = hierarchy[0].transfer.prolong(best[0])
    # The coarse point has converged: the new gradient is orthogonal to the coarse space.
    g = fine.gradient(u)
    assert hierarchy[0].transfer.restrict(g).norm() < 1e-12
    assert g.norm() > 1e-4
    floor = fine.value(best[1])
    left = {}
    for geometry in ("spline", "relu"):
        one = level_of(fine, geometry)
        v, _ = one.smoother.smooth(one, u, None, 40, 1.0)
        left[geometry] = (fine.value(v) - floor) / (fine.value(u) - floor)
    assert left["spline"] < 0.05 and left["relu"] > 0.99, left


def test_the_coarse_gradient_step_descends_as_misprinted_it_ascends():
    """Southworth et al. (arXiv 2603.04827), (19) and (20): the sign of the coarse step."""
    coarse = one_edge(4)
    transfer = knot_hierarchy(coarse.network, coarse, 2, GradientDescent())[0].transfer
    fine, w = coarse.with_network(coarse.network.refine()), coarse.start()
    g = transfer.restrict(fine.gradient(transfer.prolong(w)))
    torch.testing.assert_close(g, coarse.gradient(w))  # P^T (fine gradient)
    step = 0.1 * transfer.prolong(g)
    before = fine.value(transfer.prolong(w))
    assert fine.value(transfer.prolong(w) - step) < before < fine.value(transfer.prolong(w) + step)


@pytest.mark.parametrize("text", ["V(2,1)", "F(1,1)"])
@pytest.mark.parametrize("geometry", ["spline", "relu"])
def test_cycles_run_in_both_geometries_also_around_a_fine_state(geometry, text):
    kan = KAN([2, 3, 1], 2)
    hierarchy = knot_hierarchy(kan, problem(kan), 3, GradientDescent(geometry))
    fine = hierarchy[0].operator
    u, memory = run(cascade([10, 5, 5]), hierarchy, fine.start(), None)
    before = fine.value(u)
    for _ in range(2):
        u, memory = run(parse(text, 3), hierarchy, u, None, memory)
    assert fine.value(u) < before


def test_the_recentred_step_is_taken_on_the_coarse_channels():
    kan = KAN([1, 1], 4)
    hierarchy = knot_hierarchy(kan, one_edge(4).with_network(kan), 2, GradientDescent("relu"))
    u = hierarchy[0].operator.start()
    coarse = hierarchy[0].recenter(u)
    f, eta = hierarchy[0].transfer.restrict(-hierarchy[0].operator(u)), 1e-3
    w, _ = coarse.smoother.smooth(coarse, torch.zeros(7, dtype=torch.float64), f, 1, eta)
    # By autograd: the loss as a function of the channel weights of the coarse correction.
    knots = uniform_knots(4, 3, (-1.0, 1.0))
    channels = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    x, y = hierarchy[0].operator.data
    step = hierarchy[0].transfer.prolong(from_channels(channels, knots, 3))
    outputs = torch.func.functional_call(
        kan.refine(), {"coefficients.0": (u + step).reshape(1, 11, 1)}, (x,)
    )
    (gradient,) = torch.autograd.grad(0.5 * (outputs - y).square().mean(), channels)
    torch.testing.assert_close(w, from_channels(-eta * gradient, knots, 3))


def test_refusals():
    with pytest.raises(ValueError, match="geometry 'newton'"):
        GradientDescent("newton")
    u = torch.ones(2)
    level = Level(lambda u: u, GradientDescent())
    with pytest.raises(TypeError, match="needs an objective"):
        level.smoother.smooth(level, u, None, 1, 1.0)
    linear = Objective(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss, (u[:, None],) * 2)
    for operator in (lambda u: u, linear):
        level = Level(operator, GradientDescent("relu"), objective=lambda u: 0.5 * float(u @ u))
        with pytest.raises(TypeError, match="needs an Objective of a KAN"):
            level.smoother.smooth(level, u, None, 1, 1.0)
