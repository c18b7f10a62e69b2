"""A subclass of KAN is taken as it computes, or refused: its forward is never left out.

The same for what changes a call without a class: hooks, a forward that was replaced, another class
of linear layer, parametrizations, tied and additional parameters, another map of hidden values.
Oracle: `torch.func` on the call itself.
"""

import pytest
import torch
from torch.func import functional_call, jacrev, vmap
from torch.nn.utils import parametrizations, parametrize

from mgnet import Level
from mgnet.knots import KAN, FreeKnotKAN, GradientDescent, MultichannelMLP, knot_hierarchy
from mgnet.plot import plot_edges
from mgnet.training import (
    AdaptiveBasis,
    Ansatz,
    Collocation,
    LeastSquares,
    LevenbergMarquardt,
    Term,
    levenberg_marquardt,
)

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")  # weight norm, vmap
X = 2.0 * torch.rand(30, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 1.0
Y = torch.sin(2.0 * X[:, :1]) * X[:, 1:]


class Positive(KAN):
    def forward(self, x):
        return torch.nn.functional.softplus(super().forward(x))


class Scaled(KAN):
    """One parameter more, and a forward of its own."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.scale = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x):
        return self.scale * super().forward(x)


class Unused(KAN):
    """One parameter more, which only other methods use."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.temperature = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))


class Swish(KAN):
    """Another map of hidden values."""

    def into_domain(self, hidden):
        return torch.sin(hidden)


class Bent(torch.nn.Linear):
    def forward(self, x):
        return torch.tanh(super().forward(x))


def of(kind, **options):
    return lambda: kind([2, 3, 2, 1], generator=torch.Generator().manual_seed(1), **options)


def changed(change, **options):
    def make():
        kan = of(KAN, **options)()
        change(kan)
        return kan

    return make


def replaced(kan):
    plain = kan.forward
    kan.forward = lambda x: plain(x).exp()


def bent(kan):
    kan.linear = Bent(2, 3, dtype=torch.float64)


ALTERED = {
    "subclass": of(Positive),
    "parameter": of(Scaled),
    "unused": of(Unused),
    "map": of(Swish),
    "hook": changed(lambda kan: kan.register_forward_hook(lambda *a: a[-1].exp())),
    "pre-hook": changed(lambda kan: kan.register_forward_pre_hook(lambda _, a: (0.5 * a[0],))),
    "inner hook": changed(
        lambda kan: kan.linear.register_forward_hook(lambda *a: 0.5 * a[-1]), linear=True
    ),
    "replaced": changed(replaced),
    "linear": changed(bent, linear=True),
    "parametrized": changed(
        lambda kan: parametrize.register_parametrization(kan.coefficients, "0", torch.nn.Tanh())
    ),
    "weight norm": changed(lambda kan: parametrizations.weight_norm(kan.coefficients, "1")),
    "weight norm of linear": changed(
        lambda kan: parametrizations.weight_norm(kan.linear), linear=True
    ),
}


def rows(network, function):
    """The Jacobian of function(network) by rows, of torch alone."""
    names = {n: p.detach() for n, p in network.named_parameters()}

    class Bound(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self):
            return function(self.network).flatten()

    bound = Bound()
    by_name = jacrev(lambda p: functional_call(bound, {f"network.{n}": v for n, v in p.items()}))
    count = len(function(network))
    return torch.cat([part.reshape(count, -1) for part in by_name(names).values()], 1)


@pytest.mark.parametrize("name", ALTERED)
def test_jacobians_are_those_of_the_call(name):
    kan = ALTERED[name]()
    problems = {
        "data": LeastSquares(kan, (X, Y)),
        "residual": LeastSquares.from_torch(kan, lambda m: (m(X) - Y) / len(X) ** 0.5),
    }
    expected = rows(kan, lambda m: (m(X) - Y) / len(X) ** 0.5)
    for way, problem in problems.items():
        u = problem.start()
        r, J = problem.linearize(u)
        torch.testing.assert_close(J.dense(), expected, rtol=1e-8, atol=1e-10, msg=way)
        torch.testing.assert_close(r, ((kan(X) - Y) / len(X) ** 0.5).detach().flatten())


@pytest.mark.parametrize("name", ALTERED)
def test_collocation_differentiates_the_call(name):
    kan = ALTERED[name]()
    problem = Collocation(kan, [Term(lambda u: u.d(0) + u.d(1, 1) - u.value, X)])

    def by_torch(network):
        one = lambda x: network(x.unsqueeze(0))[0, 0]  # noqa: E731
        slope, bend = vmap(jacrev(one))(X), vmap(jacrev(jacrev(one)))(X)
        return (slope[:, 0] + bend[:, 1, 1] - network(X)[:, 0]) / len(X) ** 0.5

    torch.testing.assert_close(problem.residuals(problem.start()), by_torch(kan).detach())
    J = problem.jacobian(problem.start())
    torch.testing.assert_close(J, rows(kan, by_torch), rtol=1e-7, atol=1e-9)


class Shifted(Ansatz):
    def forward(self, x):
        return super().forward(x) + 1.0


def test_collocation_with_a_subclass_of_ansatz():
    for network in (Shifted(KAN([2, 2, 1])), Ansatz(of(Positive)(), output=lambda x, y: x * y)):
        problem = Collocation(network, [Term(lambda u: u.value[:, :1] + u.d(0)[:, :1], X)])
        moved = X.clone().requires_grad_()
        value = network(moved)[:, :1]
        (slope,) = torch.autograd.grad(value.sum(), moved)
        expected = (value + slope[:, :1]).detach().flatten() / len(X) ** 0.5
        torch.testing.assert_close(problem.residuals(problem.start()), expected)


@pytest.mark.parametrize("name", ALTERED)
def test_formulas_refuse_what_they_do_not_know(name):
    kan = ALTERED[name]()
    words = "KAN.* requires a network as KAN computes it, but "
    if name != "map":  # the Jacobians ask for the map
        for call in (kan.linearize, kan.jacobian):
            with pytest.raises(TypeError, match=words):
                call(X)
        with pytest.raises(TypeError, match=words):
            kan.linearize_residual(lambda m: m(X))
    with pytest.raises(TypeError, match=words):
        kan.derivatives(None)
    assert kan.altered()


def test_an_own_linearize_is_used():
    class Doubled(KAN):
        def forward(self, x):
            return 2.0 * super().forward(x)

        def linearize(self, x):
            outputs, J = super().linearize(x)
            self.calls = 1
            return 2.0 * outputs, 2.0 * J.dense()

    kan = Doubled([2, 2, 1])
    assert not kan.altered("linearize") and kan.altered("derivatives")
    torch.testing.assert_close(kan.linearize(X)[1], rows(kan, lambda m: m(X)))


@pytest.mark.parametrize("kind", [Positive, Scaled])
def test_levels_and_training_keep_the_subclass(kind):
    kan = kind([2, 2, 1], intervals=2)
    target = Y.square() + 0.5
    problem = LeastSquares(kan, (X, target))
    hierarchy = knot_hierarchy(kan, problem, 3, LevenbergMarquardt())
    hierarchy.check(hierarchy[0].operator.start())
    fine = hierarchy.network(0, hierarchy[0].operator.start())
    assert type(fine) is kind
    torch.testing.assert_close(fine(X), kan(X))
    solution = levenberg_marquardt(lambda m: m(X) - target, kan, max_cycles=30)
    assert float((kan(X) - target).detach().norm()) < 0.1 * float(target.norm()), solution


def test_a_last_layer_is_solved_only_where_it_is_one():
    level = lambda kan: Level(LeastSquares(kan, (X, Y)), AdaptiveBasis(LevenbergMarquardt()))  # noqa: E731
    for make in (of(Positive), ALTERED["hook"], ALTERED["replaced"], ALTERED["weight norm"]):
        alone = level(make())
        with pytest.raises(ValueError, match="is not linear in its last parameter"):
            alone.smoother.start(alone, alone.operator.start())
    for make in (of(Scaled), of(Swish), ALTERED["pre-hook"]):  # linear in the last splines
        alone = level(make())
        u = alone.operator.start()
        v, _ = alone.smoother.smooth(alone, u, None, 3, alone.smoother.start(alone, u))
        assert alone.operator.value(v) < 0.5 * alone.operator.value(u)
        gradient = alone.operator(v)[-alone.operator.network.coefficients[-1].numel() :]
        assert float(gradient.norm()) < 1e-8


def test_the_relu_geometry_takes_the_splines_alone():
    class Cubes(KAN):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.cube = torch.nn.Parameter(torch.ones(2, 7, 2, dtype=torch.float64))

    for kan in (Cubes([2, 3, 1]), ALTERED["parametrized"]()):
        problem = LeastSquares(kan, (X, Y))
        level = Level(problem, GradientDescent("relu"), objective=problem.value)
        with pytest.raises(TypeError, match="GradientDescent.'relu'.*but "):
            level.smoother.smooth(level, problem.start(), None, 1, 1.0)


def test_conversions_and_pictures_refuse():
    for name in ("subclass", "map", "hook", "replaced", "parametrized"):
        kan = ALTERED[name]()
        for convert in (MultichannelMLP, FreeKnotKAN.from_kan):
            with pytest.raises(TypeError, match="converts the splines of a KAN alone, but"):
                convert(kan)
        if name != "map":
            with pytest.raises(TypeError, match="plot_edges cannot follow the data"):
                plot_edges(kan, X)
        assert plot_edges(kan).axes

    class Own(MultichannelMLP):
        def forward(self, x):
            return super().forward(x).exp()

    with pytest.raises(TypeError, match="MultichannelMLP.to_kan .* but Own has a forward"):
        Own(KAN([2, 1])).to_kan()
    plain = Unused([2, 3, 1])  # the same function
    torch.testing.assert_close(FreeKnotKAN.from_kan(plain)(X), plain(X))
    torch.testing.assert_close(MultichannelMLP(plain).to_kan()(X), plain(X))
