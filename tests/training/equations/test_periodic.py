"""Periodic inputs: exactly periodic networks, exact derivatives by every way."""

import copy
import math
import pickle

import pytest
import torch

from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import Ansatz, Collocation, LevenbergMarquardt, Term, periodic
from mgnet.training.equations.derivatives import carries, derivatives_of

DOMAIN = [(-2.0, 3.0), (0.5, 1.0), (-7.0, 4.0)]


def points(count=40, seed=0):
    unit = torch.rand(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    low, high = torch.tensor(DOMAIN, dtype=torch.float64).T
    return low + (high - low) * unit


def mlp(inputs):
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)
    ).double()


def test_columns_are_those_of_the_formula():
    x = points()
    angle = 2.0 * math.pi * (x[:, 1] - 0.5) / 0.5
    expected = [2.0 * (x[:, 0] + 2.0) / 5.0 - 1.0, angle.cos(), angle.sin()]
    expected += [(2 * angle).cos(), (2 * angle).sin(), 2.0 * (x[:, 2] + 7.0) / 11.0 - 1.0]
    features = periodic(DOMAIN, dims=1, harmonics=2)
    assert features.width == 6
    torch.testing.assert_close(features(x), torch.stack(expected, 1), rtol=0.0, atol=1e-13)


@pytest.mark.parametrize("kind", ["mlp", "kan"])
def test_both_ends_give_the_same_bits(kind):
    features = periodic(DOMAIN, dims=[0, 2], harmonics=3)
    inner = mlp(features.width) if kind == "mlp" else KAN([features.width, 3, 2])
    u = Ansatz(inner, features=features)
    low, high = points(), points()
    low[:, 0], high[:, 0] = -2.0, 3.0
    low[:, 2], high[:, 2] = -7.0, 4.0
    assert torch.equal(u(low), u(high))
    first, second = derivatives_of(u, low), derivatives_of(u, high)
    for axes in ((0,), (2,), (0, 0), (0, 2)):
        assert torch.equal(first.d(*axes), second.d(*axes))
    shifted = points() + torch.tensor([10.0, 0.0, -33.0])
    torch.testing.assert_close(u(points()), u(shifted), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("kind", ["mlp", "kan", "linear kan"])
def test_derivatives_are_those_of_autograd(kind):
    features = periodic(DOMAIN, dims=[0], harmonics=2)
    inner = mlp(features.width)
    if kind != "mlp":
        inner = KAN([features.width, 4, 2], linear=kind == "linear kan", degree=5)
    u = Ansatz(inner, features=features, output=lambda x, y: x[:, 1:2] * y)
    x = points().requires_grad_()
    values = u(x)
    found = derivatives_of(u, points())
    assert carries(u) or kind == "mlp"
    torch.testing.assert_close(found.value, values, rtol=1e-13, atol=1e-13)
    for output in range(2):
        (slopes,) = torch.autograd.grad(values[:, output].sum(), x, create_graph=True)
        for i in range(3):
            torch.testing.assert_close(found.d(i)[:, output], slopes[:, i], rtol=1e-12, atol=1e-12)
            (bends,) = torch.autograd.grad(slopes[:, i].sum(), x, create_graph=True)
            for j in range(3):
                d = found.d(i, j)[:, output]
                torch.testing.assert_close(d, bends[:, j], rtol=1e-12, atol=1e-11)


def test_a_periodic_problem_on_finer_and_finer_knots():
    """The equation u' = cos x, whose constant is given at one point."""
    features = periodic([(0.0, 2.0 * math.pi)], dims=[0])
    network = Ansatz(KAN([2, 2, 1]), features=features)
    x = torch.linspace(0.0, 6.0, 60, dtype=torch.float64).unsqueeze(1)
    terms = [Term(lambda u: u.d(0) - torch.cos(u.points), x), Term(lambda u: u.value, x[:1])]
    problem = Collocation(network, terms)
    hierarchy = knot_hierarchy(network, problem, 2, LevenbergMarquardt())
    fine = hierarchy[0].operator
    u, memory = fine.start(), LevenbergMarquardt().start(hierarchy[0], fine.start())
    u, _ = LevenbergMarquardt().smooth(hierarchy[0], u, None, 20, memory)
    ends = hierarchy.network(0, u)(torch.tensor([[0.0], [2.0 * math.pi]], dtype=torch.float64))
    assert fine.value(u) < 1e-6 and ends[0] == ends[1]


def test_copies_and_precisions():
    features = periodic(DOMAIN, dims=[1])
    assert pickle.loads(pickle.dumps(features)) == copy.deepcopy(features) == features
    assert features(points().float()).dtype is torch.float32
    traced = torch.func.vmap(lambda x: features(x.unsqueeze(0))[0])(points())
    torch.testing.assert_close(traced, features(points()))


@pytest.mark.parametrize(
    ("dims", "harmonics", "match"),
    [
        ([3], 1, "periodic got dims .3. for 3 inputs"),
        (-1, 1, "periodic got dims -1 for 3 inputs"),
        ([0, 0], 1, "different numbers from 0 to 2"),
        ([], 1, "periodic got dims"),
        ("x", 1, "periodic got dims"),
        ([True], 1, "periodic got dims"),
        (None, 1, "periodic got dims None"),
        (0, 0, "periodic got harmonics 0; it must be an integer from 1 to 1000"),
        (0, 1.5, "periodic got harmonics 1.5"),
    ],
)
def test_refusals(dims, harmonics, match):
    with pytest.raises(ValueError, match=match):
        periodic(DOMAIN, dims, harmonics=harmonics)


def test_points_of_other_inputs():
    with pytest.raises(
        ValueError, match=r"periodic inputs of 3 inputs got points of shape \(4, 2\)"
    ):
        periodic(DOMAIN, 0)(torch.zeros(4, 2))
