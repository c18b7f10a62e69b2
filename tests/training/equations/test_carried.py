"""Fixed inputs with their derivatives, and what residuals of plain networks and KANs are given."""

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from mgnet.knots import KAN
from mgnet.training import Collocation, Term
from mgnet.training.equations.carried import (
    CutDerivatives,
    FixedInputs,
    carried_derivatives,
    check_only_carried,
)
from mgnet.training.equations.derivatives import (
    Ansatz,
    Composed,
    MixedSamplesError,
    Points,
    differentiated,
)
from mgnet.training.equations.mlp_derivatives import MLPDerivatives, NotCarriedError


def features(x):
    return torch.cat([x[:, :1] ** 2 * x[:, 1:], torch.sin(x)], 1)


def drawn(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(5, 2, dtype=torch.float64, generator=generator)


def test_features_and_their_derivatives():
    x = drawn()
    inputs = FixedInputs(x, features)
    a, b = x[:, :1], x[:, 1:]
    none = torch.zeros_like(a)
    expected = {
        (): torch.cat([a**2 * b, a.sin(), b.sin()], 1),
        (1,): torch.cat([a**2, none, b.cos()], 1),
        (0, 0): torch.cat([2.0 * b, -a.sin(), none], 1),
        (0, 1): torch.cat([2.0 * a, none, none], 1),
    }
    for axes, value in expected.items():
        torch.testing.assert_close(inputs.d(*axes), value)
        assert not inputs.d(*axes).requires_grad
    assert inputs.value is inputs.d()
    assert FixedInputs(x).d(1).tolist() == [[0.0, 1.0]] * 5


def test_they_hold_for_the_same_points_and_features():
    x = drawn()
    inputs = FixedInputs(x, features)
    assert inputs.hold(x, features) and not inputs.hold(x, torch.sin)
    assert not inputs.hold(x, None) and FixedInputs(x).hold(x, None)
    assert not inputs.hold(x.clone(), features) and not FixedInputs(x).hold(x.clone(), None)
    x.add_(1.0)
    assert not inputs.hold(x, features)


def test_what_was_made_is_kept():
    network, x, known = Ansatz(torch.nn.Linear(3, 1).double(), features=features), drawn(), {}
    first = carried_derivatives(network, x, known)
    first.d(0)
    kept = known[id(x)]
    second = carried_derivatives(network, x, known)
    assert isinstance(second, Composed) and second.inner.inputs is kept  # type: ignore
    assert kept.asked == {(0,)}
    plain = carried_derivatives(torch.nn.Linear(2, 1).double(), x, known)
    assert isinstance(plain, MLPDerivatives) and known[id(x)] is not kept


def test_refusals():
    x, network = drawn(), torch.nn.Linear(2, 1).double()
    with pytest.raises(NotCarriedError, match="features that depend on parameters"):
        carried_derivatives(Ansatz(network, features=lambda x: x * network.bias), x, {})
    with pytest.raises(NotCarriedError, match="does more"):
        carried_derivatives(Ansatz(network, features=torch.nn.Linear(2, 2).double()), x, {})
    u = carried_derivatives(network, x, {})
    check_only_carried(network, [u.value], [[u]])
    with pytest.raises(NotCarriedError, match="call the network"):
        check_only_carried(network, [u.value, u.d(0) + network(x)], [[u]])
    u.points.requires_grad_()
    with pytest.raises(NotCarriedError, match="with respect to the points"):
        check_only_carried(network, [u.value], [[u]])


def test_cut_derivatives_are_those_of_a_kan_without_its_graph():
    network, x = KAN([2, 3, 2], generator=torch.Generator().manual_seed(1)), drawn()
    inner = network.derivatives(Points(x))
    u = CutDerivatives(network.derivatives(Points(x)))
    assert torch.equal(u.d(1, 0), inner.d(0, 1)) and u.d(0, 1) is u.d(1, 0)
    assert u.value.is_leaf and u.value.requires_grad and u.points is x
    residual, same = ((v.value * v.d(0)).sum(1) + v.d(0, 1)[:, 1] ** 2 for v in (u, inner))
    J, K = torch.zeros(2, len(x), len(parameters_to_vector(network.parameters()))).double()
    u.add_jacobian(residual, J)
    inner.add_jacobian(same, K)
    torch.testing.assert_close(J, K)
    with pytest.raises(NotCarriedError, match="several samples"):
        u.add_jacobian(u.d(0)[:, 0].flip(0), J)
    with pytest.raises(AttributeError, match=r"u.coefficients needs an Ansatz"):
        _ = u.coefficients


# What a residual function may do besides, which the Jacobian of carried derivatives is without.
BESIDES = {
    "nothing": lambda u, network: 0.0,
    "stops gradients": lambda u, network: u.value.detach() * u.d(1),
    "calls the network": lambda u, network: network(-u.points)[:, :1],
    "reads parameters": lambda u, network: next(network.parameters()).square().sum() * u.d(0),
    "mean over samples": lambda u, network: u.value.mean(0),
    "shifts samples": lambda u, network: u.value * u.d(1).roll(1, 0),
    "sorts samples": lambda u, network: u.d(0).cumsum(0),
    "differentiates by points": lambda u, network: torch.autograd.grad(
        u.d(1).sum(), u.points, create_graph=True
    )[0][:, :1],
    "coefficient of the module": lambda u, network: (
        u.d(0) * (dict(network.named_parameters()).get("coefficients.c", u.value.mean()))
    ),
}
INSIDE = ("nothing", "stops gradients")


def networks(draw):
    kan = KAN([2, int(torch.randint(1, 4, (), generator=draw)), 1], 3, 4, generator=draw)
    return {
        "kan": kan,
        "ansatz": Ansatz(
            kan,
            output=lambda x, y: x[:, :1] * y,
            features=lambda x: torch.sin(x) * x[:, :1],
            coefficients={"c": 0.7},
        ),
        "output reads parameters": Ansatz(kan, output=lambda x, y: y * kan.coefficients[0].mean()),
        "features read parameters": Ansatz(kan, features=lambda x: x * kan.coefficients[0].mean()),
        "feature module": Ansatz(kan, features=torch.nn.Linear(2, 2).double()),
    }


CASES = [(name, besides) for name in ("kan", "ansatz") for besides in BESIDES]
CASES += [(name, "nothing") for name in [*networks(torch.Generator())][2:]]


def rows_by_autograd(problem):
    """Of the residual that derivatives by torch alone give."""
    u = problem.start().requires_grad_()
    blocks = problem.flat.evaluate(lambda module: problem._terms_of(module, differentiated), u)
    r = torch.cat([block.flatten() for block in blocks])
    return r.detach(), torch.stack([torch.autograd.grad(e, u, retain_graph=True)[0] for e in r])


@pytest.mark.parametrize(("name", "besides"), CASES)
def test_the_jacobian_of_a_kan_is_right_whatever_a_residual_does(name, besides):
    draw = torch.Generator().manual_seed(len(name) * 31 + len(besides))
    network = networks(draw)[name]
    a, b, c = torch.rand(3, generator=draw).tolist()

    def residual(u):
        usual = a * u.value * u.d(0) + b * u.d(0, 1) - c * u.d(1, 1) + u.points[:, :1]
        return usual + BESIDES[besides](u, network)

    x = drawn(len(besides))
    problem = Collocation(network, [Term(residual, x), Term(lambda u: u.d(0) ** 2, x[:3])])
    r, J = problem.linearize(problem.start())
    assert problem._plain == (besides in INSIDE and name in ("kan", "ansatz"))
    expected, K = rows_by_autograd(problem)
    for given in (r, problem.residuals(problem.start())):
        torch.testing.assert_close(given, expected)
    torch.testing.assert_close(J.dense(), K, rtol=1e-8, atol=1e-9 * float(K.abs().max()))


def test_what_a_kan_refuses_is_told_and_changes_nothing():
    problem = Collocation(KAN([2, 1]), [Term(lambda u: u.d(0, 0, 1), drawn())])
    for call in (problem.residuals, problem.linearize):
        with pytest.raises(ValueError, match="for higher derivatives introduce unknowns"):
            call(problem.start())
    assert problem._plain


def mlp():
    layers = torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)
    return torch.nn.Sequential(*layers).double()


class Multiplied(torch.nn.Module):
    """No network that has formulas."""

    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(1).double())

    def forward(self, x):
        return torch.sin(self.factor * x[:, :1] * x[:, 1:])


@pytest.mark.parametrize("mixing", ["output", "features"])
@pytest.mark.parametrize("make", [lambda: KAN([2, 1]), mlp, Multiplied])
def test_functions_that_mix_samples_have_no_derivatives_at_points(make, mixing):
    """Law: where a row depends on others, autograd's slope of a sum is not that at a point."""
    function = {"output": lambda x, y: y - y.mean(0), "features": lambda x: x - x.mean(0)}
    network = Ansatz(make(), **{mixing: function[mixing]})
    value = Collocation(network, [Term(lambda u: u.value, drawn())])
    _, J = value.linearize(value.start())
    torch.testing.assert_close(J.dense(), rows_by_autograd(value)[1])
    slope = Collocation(network, [Term(lambda u: u.d(0), drawn())])
    for call in (slope.residuals, slope.linearize, slope.gradient):
        with pytest.raises(MixedSamplesError, match=f"{mixing}.* mix samples"):
            call(slope.start())
