"""Law: carried derivatives and Jacobians of plain networks are those of automatic differentiation.

The oracle is the same problem told that its network is not plain, or torch.func.
"""

import copy
import math

import pytest
import torch

from mgnet import Level
from mgnet.training import Ansatz, Collocation, LeastSquares, LevenbergMarquardt, Term
from mgnet.training.equations.derivatives import Points, derivatives_of
from mgnet.training.equations.mlp_derivatives import MLPDerivatives, NotCarriedError, layers_of
from mgnet.training.equations.sine import Sine

nn = torch.nn


class Waves(nn.Module):
    def forward(self, x):
        return torch.sin(3.0 * x)


class Neighbors(nn.Module):
    """It looks at the shape of what it gets and at other features, as no activation does."""

    def forward(self, x):
        half = x.shape[-1] // 2
        return torch.cat([x[..., :half].sin(), x[..., half:].tanh()], -1) / x.shape[-1] ** 0.5


ACTIVATIONS = [
    nn.Tanh,
    nn.Sigmoid,
    nn.SiLU,
    nn.GELU,
    lambda: nn.GELU(approximate="tanh"),
    lambda: nn.Softplus(beta=2.0, threshold=1.5),
    Waves,
    nn.Mish,
    Neighbors,
    lambda: Sine(1.3),
    lambda: Sine(0.7, learn=True),
    lambda: nn.SiLU(inplace=True),
]


OWN = Waves, Neighbors  # of a user: what they do to shapes is not known


def mlp(widths, activation=nn.Tanh, bias=True, seed=0):
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(inputs, outputs, bias=bias), activation()]
    return nn.Sequential(*layers[:-1]).double()


def points(count, inputs=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.rand(count, inputs, dtype=torch.float64, generator=generator) - 1.0


def everything(u):
    """All derivatives in two inputs, nonlinearly, in several components."""
    first = u.d(0) * u.value + u.d(1) ** 2 - 0.1 * u.d(0, 0) * u.d(1, 1)
    return torch.cat([first, u.points[:, :1] * u.d(0, 1) + u.d(1, 0).sin()], 1)


def terms(count=11):
    pair = points(7, 2, 1), points(7, 2, 2)
    return [
        Term(everything, points(count), weight=3.0),
        Term(lambda u, v: torch.cat([u.d(0) - v.d(1), u.value * v.value], 1), pair),
        Term(lambda u: u.value.sum(1), points(5, 2, 3), attention=torch.arange(5.0).double()),
    ]


def by_autograd(problem):
    oracle = Collocation(problem.network, problem.terms)
    oracle._plain = False
    return oracle


def assert_same(problem, carried=True, tolerance=1e-12):
    """Values and Jacobian, and which way they were made."""
    oracle, u = by_autograd(problem), problem.start()
    (r, J), (expected, K) = problem.linearize(u), oracle.linearize(u)
    assert problem._plain == carried
    for one, other in ((r, expected), (problem.residuals(u), expected), (J.dense(), K.dense())):
        assert one.dtype == torch.float64
        assert float((one - other).norm()) <= tolerance * float(other.norm())
    blocks = zip(problem.unscaled(u), oracle.unscaled(u), strict=True)
    for one, other in blocks:
        torch.testing.assert_close(one, other)
        assert not one.requires_grad


@pytest.mark.parametrize("number", range(len(ACTIVATIONS)))
def test_every_activation(number):
    problem = Collocation(mlp([2, 6, 5, 2], ACTIVATIONS[number], seed=number), terms())
    assert_same(problem, ACTIVATIONS[number] not in OWN)


@pytest.mark.parametrize("seed", range(8))
def test_drawn_networks(seed):
    draw = torch.Generator().manual_seed(seed)

    def integer(low, high):
        return int(torch.randint(low, high, (), generator=draw))

    depth = integer(0, 4)
    widths = [2, *(integer(1, 9) for _ in range(depth)), integer(1, 4)]
    known = [activation for activation in ACTIVATIONS if activation not in OWN]
    network = mlp(widths, known[integer(0, len(known))], bool(integer(0, 2)), seed)
    if integer(0, 2):
        network.append(nn.Tanh())
    network = nn.Sequential(nn.Identity(), nn.Sequential(network), nn.Identity())
    assert_same(Collocation(network, terms(integer(7, 700))))


@pytest.mark.parametrize("coefficients", [{}, {"nu": 0.3, "unused": 2.0}], ids=["none", "two"])
def test_ansatz(coefficients):
    network = Ansatz(
        mlp([3, 7, 7, 1]),
        output=lambda x, y: torch.exp(y * x[:, :1]) - torch.sin(x[:, 1:]) * y**2,
        features=lambda x: torch.cat([torch.cos(math.pi * x), x[:, :1] * x[:, 1:]], 1),
        coefficients=coefficients,
    )

    def equation(u):
        nu = u.coefficients["nu"] if coefficients else 0.3
        return (u.d(1) + u.value * u.d(0) - nu * u.d(0, 0) * u.d(0, 1)).squeeze(1) * nu**2

    assert_same(Collocation(network, [Term(equation, points(20)), *terms(7)]))


def test_derivatives_against_torch_func():
    network, x = mlp([2, 5, 5, 2], nn.SiLU), points(9)
    u = MLPDerivatives(network, Points(x))
    first = torch.func.vmap(torch.func.jacfwd(network))(x)
    second = torch.func.vmap(torch.func.hessian(network))(x)
    torch.testing.assert_close(u.value, network(x))
    torch.testing.assert_close(u.d(1), first[:, :, 1])
    torch.testing.assert_close(u.d(1, 0), second[:, :, 0, 1])
    torch.testing.assert_close(u.d(1, 1), second[:, :, 1, 1])
    assert u.d(0, 1) is u.d(1, 0)


def test_tied_layers_and_single_precision():
    torch.manual_seed(1)
    twice = nn.Linear(4, 4)
    network = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), twice, nn.Tanh(), twice, nn.Linear(4, 1))
    assert_same(Collocation(copy.deepcopy(network).double(), terms()))
    network[5].weight = nn.Parameter(network[5].weight.detach())
    single = [Term(t.residual, tuple(p.float() for p in t.places), t.weight) for t in terms()[1:2]]
    assert_same(Collocation(network, single), tolerance=1e-5)


def test_frozen_parameters():
    network = mlp([2, 4, 4, 1])
    network[0].bias.requires_grad_(False)
    problem = Collocation(network, terms())
    assert problem.linearize(problem.start())[1].shape[1] == 8 + 20 + 5
    assert_same(problem)


class Shifted(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1.0


class Normalized(nn.Module):
    """No parameters, and no function of single entries."""

    def forward(self, x):
        return x / (1.0 + x.square().sum(1, keepdim=True))


class MyAnsatz(Ansatz):
    def forward(self, x):
        return super().forward(x).exp()


class Borrowing(nn.Module):
    def __init__(self, other):
        super().__init__()
        self.others = [other]

    def forward(self, x):
        return torch.sin(x * self.others[0].weight.sum())


def borrowing():
    first = nn.Linear(2, 4)
    return nn.Sequential(first, Borrowing(first), nn.Linear(4, 1)).double()


def hooked():
    network = mlp([2, 4, 1])
    network[0].register_forward_hook(lambda module, given, out: 2.0 * out)
    return network


def replaced():
    network = mlp([2, 4, 1])
    forward = network[1].forward
    network[1].forward = lambda x: 2.0 * forward(x)
    return network


def depending_features():
    inner = mlp([2, 4, 1])
    return Ansatz(inner, features=lambda x: x * inner[0].weight.sum())


def feature_module():
    return Ansatz(mlp([2, 4, 1]), features=nn.Linear(2, 2).double())


OTHERS = {
    "subclass": lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), Shifted(3, 1)).double(),
    "hook": hooked,
    "borrowed parameters": borrowing,
    "replaced": replaced,
    "parametrization": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)), nn.Tanh(), nn.Linear(3, 1)
    ).double(),
    "own parameters": lambda: mlp([2, 4, 1], lambda: nn.PReLU(4)),
    "layer norm": lambda: mlp([2, 4, 4, 1], lambda: nn.LayerNorm(4)),
    "coupled": lambda: mlp([2, 4, 4, 1], Normalized),
    "batch norm": lambda: mlp([2, 4, 4, 1], lambda: nn.BatchNorm1d(4, affine=False)),
    "ansatz": lambda: MyAnsatz(mlp([2, 4, 1])),
    "features of parameters": depending_features,
    "feature module": feature_module,
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_are_differentiated_automatically(name):
    torch.manual_seed(3)
    simple = Term(lambda u: u.d(0) * u.value - u.d(1, 1), points(9))
    assert_same(Collocation(OTHERS[name](), [simple]), carried=False)


def third(u):
    return u.d(0, 0, 1) + u.value


def through_points(u):
    (gradient,) = torch.autograd.grad(u.value.sum(), u.points, create_graph=True)
    return gradient[:, :1] + u.d(1)


def over_samples(u):
    return u.d(0) - u.value.mean()


RESIDUALS = {"third": third, "through points": through_points, "over samples": over_samples}


@pytest.mark.parametrize("name", RESIDUALS)
def test_residuals_that_need_more(name):
    terms = [Term(lambda u: u.value, points(3)), Term(RESIDUALS[name], points(8))]
    assert_same(Collocation(mlp([2, 5, 1]), terms), carried=False)


@pytest.mark.parametrize("kind", ["network", "coefficient"])
def test_residuals_that_call_the_network_themselves(kind):
    network = Ansatz(mlp([2, 5, 1]), coefficients={"nu": 0.5})

    def residual(u):
        if kind == "network":
            return u.d(0) - network(-u.points)
        return u.d(0) * network.coefficients["nu"]

    assert_same(Collocation(network, [Term(residual, points(8))]), carried=False)


def test_features_are_made_once_and_anew_where_they_change():
    calls, frequency = [], [1.0]

    def features(x):
        calls.append(len(x))
        return torch.sin(frequency[0] * x)

    x = points(6)
    problem = Collocation(Ansatz(mlp([2, 4, 1]), features=features), [Term(everything, x)])
    assert_same(problem)
    calls.clear()
    u = problem.start()
    problem.linearize(u)
    assert len(calls) == 1  # to see that they are the same
    frequency[0] = 2.0
    assert_same(problem)
    x.mul_(0.5)
    assert_same(problem)


def test_an_error_of_a_residual_is_told_and_a_wrong_vector_changes_nothing():
    problem = Collocation(mlp([2, 4, 1]), terms())
    with pytest.raises(ValueError, match="flat tensor"):
        problem.linearize(torch.zeros(3).double())
    assert_same(problem)
    broken = Collocation(mlp([2, 4, 1]), [Term(lambda u: u.d(0) @ u.d(1), points(4))])
    for call in (broken.residuals, broken.linearize):
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            call(broken.start())


def test_several_vectors_at_once():
    problem = Collocation(mlp([2, 4, 1]), terms())
    us = problem.start() * torch.tensor([[1.0], [0.5], [-2.0]], dtype=torch.float64)
    expected = torch.stack([by_autograd(problem).residuals(u) for u in us])
    torch.testing.assert_close(problem.residuals_of_many(us), expected)
    with pytest.raises(ValueError, match=r"residuals_of_many got shape \(17,\)"):
        problem.residuals_of_many(us[0])


def test_levenberg_marquardt_needs_no_automatic_jacobian(monkeypatch):
    monkeypatch.setattr(LeastSquares, "linearize", None)
    x = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64).unsqueeze(1)
    network = Ansatz(mlp([1, 8, 1]), output=lambda x, y: (1.0 - x**2) * y)
    equation = Term(lambda u: u.d(0, 0) / 10.0 + torch.sin(math.pi * x), x)
    problem = Collocation(network, [equation])
    level, smoother = Level(problem, LevenbergMarquardt()), LevenbergMarquardt()
    u = problem.start()
    u, _ = smoother.smooth(level, u, None, 30, smoother.start(level, u))
    assert problem.value(u) < 1e-6 * problem.value(problem.start())


def test_plain_networks():
    network = mlp([2, 3, 1])
    assert layers_of(network) == list(network)
    assert layers_of(nn.Sequential(nn.Tanh())) is None
    with pytest.raises(NotCarriedError, match="float32"):
        MLPDerivatives(network, Points(torch.zeros(3, 2)))
    with pytest.raises(NotCarriedError, match="not a plain network"):
        MLPDerivatives(nn.Bilinear(1, 1, 1), Points(torch.zeros(3, 2)))
    assert derivatives_of(network, points(3)).d(0).grad_fn is not None
