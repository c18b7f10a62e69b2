"""Differential equations as least squares: solutions, Jacobians, hierarchies."""

import copy
import math

import numpy as np
import pytest
import torch

from mgnet import Hierarchy, Level, Solver, cascade, run
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import (
    Ansatz,
    Collocation,
    LeastSquares,
    LevenbergMarquardt,
    Term,
    TorchOptimizer,
    levenberg_marquardt,
)
from mgnet.training.least_squares.jacobian import DenseJacobian


def points(count, inputs=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.rand(count, inputs, dtype=torch.float64, generator=generator) - 1.0


def bound(network):
    """Zero at both ends."""
    return Ansatz(network, output=lambda x, y: (1.0 - x**2) * y)


def steady(u):
    """-u'' = pi^2 sin(pi x): u = sin(pi x)."""
    return u.d(0, 0) / math.pi**2 + torch.sin(math.pi * u.points)


def mixed_problem(network):
    x = points(12, 2)
    pair = points(5, 2, 1), points(5, 2, 2)
    return Collocation(
        network,
        [
            Term(lambda u: u.d(1) + u.value * u.d(0) - 0.1 * u.d(0, 0), x, weight=3.0),
            Term(lambda u, v: torch.cat([u.d(0) - v.d(1), u.value**2], 1), pair, weight=0.5),
            Term(lambda u: (u.value - 1.0).squeeze(1), x[:3], attention=torch.arange(3.0).double()),
        ],
    )


@pytest.mark.parametrize("linear", [False, True])
def test_explicit_jacobian_against_autograd(linear):
    problem = mixed_problem(
        Ansatz(KAN([2, 3, 1], 4, linear=linear), output=lambda x, y: x[:, :1] * y)
    )
    u = problem.start()
    r, J = problem.linearize(u)
    assert isinstance(J, DenseJacobian) and J.shape == (12 + 10 + 3, len(u))
    torch.testing.assert_close(r, problem.residuals(u))
    oracle, h = [], 1e-6
    for number in range(len(u)):
        e = torch.zeros_like(u)
        e[number] = h
        oracle.append((problem.residuals(u + e) - problem.residuals(u - e)) / (2.0 * h))
    torch.testing.assert_close(J.dense(), torch.stack(oracle, 1), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(J.rmatvec(r), problem.gradient(u))


def test_other_networks_give_the_same_equations():
    torch.manual_seed(0)
    layers = torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)
    problem = mixed_problem(torch.nn.Sequential(*layers).double())
    u = problem.start()
    r, J = problem.linearize(u)
    torch.testing.assert_close(J.rmatvec(r), problem.gradient(u))
    assert problem.value(u) == pytest.approx(0.5 * float(r @ r))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_that_are_none(weight):
    with pytest.raises(ValueError, match="Term got weight .*; it must be finite and not negative"):
        Term(lambda u: u.value, torch.zeros(3, 1), weight=weight)


def test_weights_are_those_of_means_of_squares():
    problem = mixed_problem(KAN([2, 3, 1], 4))
    u = problem.start()
    first, second, third = problem.unscaled(u)
    attention = torch.arange(3.0).double()
    expected = 3.0 * first.square().mean() + 0.5 * second.square().sum(1).mean()
    expected = expected + (attention.unsqueeze(1) * third).square().mean()
    assert problem.mean_square(u) == pytest.approx(float(expected))


@pytest.mark.parametrize("form", ["subspace", "injected"])
def test_nested_levels_solve_an_equation(form):
    network = bound(KAN([1, 3, 1], 3, 5))
    problem = Collocation(network, [Term(steady, points(200))])
    hierarchy = knot_hierarchy(network, problem, 3, LevenbergMarquardt(), form=form)
    start = hierarchy[0].operator.start()
    u, _ = run(cascade([15, 10, 10]), hierarchy, start, None)
    solved = hierarchy.network(0, u)
    x = torch.linspace(-1, 1, 77, dtype=torch.float64).unsqueeze(1)
    assert float((solved(x) - torch.sin(math.pi * x)).detach().abs().max()) < 1e-5
    value = hierarchy[0].operator.value
    cycled = Solver(hierarchy, "V(1,1)", max_cycles=1).solve(u=start)
    assert value(cycled.value) < value(start)


def test_unknown_coefficient_is_found_and_carried_unchanged():
    network = Ansatz(KAN([1, 2, 1], 3, 5), coefficients={"k": 1.0})
    x = points(100)
    terms = [
        Term(lambda u: (u.d(0, 0) + u.coefficients["k"] * u.value) / 10.0, x),
        Term(lambda u: u.value - torch.sin(3.0 * u.points), x[:30]),
    ]
    problem = Collocation(network, terms)
    hierarchy = knot_hierarchy(network, problem, 2, LevenbergMarquardt())
    coarse = problem.start()
    assert hierarchy[0].transfer.prolong(coarse)[-1] == 1.0  # type: ignore[union-attr]
    u, _ = run(cascade([30, 20]), hierarchy, hierarchy[0].operator.start(), None)
    assert float(u[-1]) == pytest.approx(9.0, abs=1e-4)


@pytest.mark.parametrize(
    "network", [torch.nn.Linear(1, 1).double(), KAN([1, 1], 1, 1)], ids=["torch", "splines"]
)
def test_standard_errors_are_those_of_linear_least_squares(network):
    """Both networks are the straight lines; then the covariance is that of the estimator."""
    x, z = points(30), points(9, seed=1)
    attention = torch.linspace(0.5, 2.0, 30, dtype=torch.float64)

    def measured(u):
        a, b = u.coefficients["a"], u.coefficients["b"]
        return torch.cat([u.value + a * u.points**2, a * torch.sin(5.0 * u.points) + b], 1)

    terms = [
        Term(measured, x, weight=3.0, attention=attention),
        Term(lambda u: u.value - u.coefficients["b"] * u.points**3, z, weight=0.5),
        Term(lambda u: u.value - 1.0, z[:4], weight=2.0),
    ]
    problem = Collocation(Ansatz(network, coefficients={"a": 0.3, "b": -2.0}), terms)
    found = problem.standard_errors(problem.start(), [0.1, None, 0.4])
    s, t = x.numpy(), z.numpy()
    line, none = np.hstack([s, s**0]), np.zeros((30, 2))
    design = np.vstack(  # slope, height, a, b
        [
            np.hstack([line, s**2, 0 * s]),
            np.hstack([none, np.sin(5.0 * s), s**0]),
            np.hstack([t, t**0, 0 * t, -(t**3)]),
            np.hstack([t, t**0, 0 * t, 0 * t])[:4],
        ]
    )
    weights = np.concatenate([*2 * [3.0 / 30 * attention.numpy() ** 2], 9 * [0.5 / 9], 4 * [0.5]])
    estimator = np.linalg.solve(design.T * weights @ design, design.T * weights)
    deviations = np.concatenate([60 * [0.1], 9 * [0.0], 4 * [0.4]])
    covariance = estimator * deviations**2 @ estimator.T
    assert list(found) == ["a", "b"]
    assert list(found.values()) == pytest.approx(np.sqrt(np.diag(covariance))[2:], rel=1e-9)


def test_what_the_residuals_do_not_determine_has_no_finite_error():
    network = Ansatz(KAN([1, 1]), coefficients={"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0})
    network.coefficients["d"].requires_grad_(False)
    sums = Term(lambda u: (u.coefficients["a"] + u.coefficients["b"]) * u.points**0, points(9))
    problem = Collocation(network, [sums])
    found = problem.standard_errors(problem.start(), [0.1])
    assert found == {"a": math.inf, "b": math.inf, "c": math.inf}


def test_levenberg_marquardt_takes_the_problem_with_its_own_jacobian(monkeypatch):
    problem = mixed_problem(KAN([2, 3, 1], 3))
    network, start = problem.network, problem.start()
    by_function = copy.deepcopy(network)
    solution = levenberg_marquardt(problem.residual, by_function, max_cycles=4)
    monkeypatch.setattr(LeastSquares, "linearize", None)
    same = levenberg_marquardt(problem, max_cycles=4)
    assert same.values == pytest.approx(solution.values, rel=1e-6)
    assert same.values[-1] < problem.value(start)
    torch.testing.assert_close(problem.start(), same.value)  # trained in place


def test_optimizers_take_the_same_problem():
    problem = Collocation(bound(KAN([1, 3, 1], 4)), [Term(steady, points(50))])
    level = Level(problem, TorchOptimizer(torch.optim.Adam, {"lr": 3e-2}), objective=problem.value)
    u = Solver(Hierarchy([level]), "V(0,0,200)", max_cycles=1).solve(u=problem.start()).value
    assert problem.value(u) < 0.1 * problem.value(problem.start())


def test_attention_follows_the_residual():
    problem = Collocation(KAN([1, 2, 1]), [Term(lambda u: u.value, points(20))])
    u = problem.start()
    (r,) = problem.unscaled(u)
    once = problem.attended(u, 0.25)
    size = r.squeeze(1).abs()
    expected = 0.75 + 0.25 * size / size.max()
    torch.testing.assert_close(once.terms[0].attention, expected)
    twice = once.attended(u, 0.25).terms[0].attention
    torch.testing.assert_close(twice, 0.75 * expected + 0.25 * size / size.max())


def test_jump_of_a_derivative_at_an_interface():
    """(eps u')' = 0, u(-1) = 0, u(1) = 3, eps = 2 and 1: slopes 1 and 2."""
    network = Ansatz(KAN([2, 2, 1], 3), features=lambda x: torch.cat([x, x.abs()], 1))
    sides = tuple(torch.tensor([[x]], dtype=torch.float64) for x in (-1e-14, 1e-14))
    ends = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    terms = [
        Term(lambda u: u.d(0, 0), points(60)),
        Term(lambda left, right: 2.0 * left.d(0) - right.d(0), sides),
        Term(lambda u: u.value - 1.5 * (u.points + 1.0), ends),
    ]
    problem = Collocation(network, terms)
    level, smoother = Level(problem, LevenbergMarquardt()), LevenbergMarquardt()
    u = problem.start()
    u, _ = smoother.smooth(level, u, None, 40, smoother.start(level, u))
    middle = problem.flat.evaluate(lambda network: network(torch.zeros(1, 1).double()), u)
    assert float(middle) == pytest.approx(1.0, abs=1e-3)


def test_thinned_levels():
    network = bound(KAN([1, 2, 1], 3))
    problem = Collocation(network, [Term(steady, points(100))])
    hierarchy = knot_hierarchy(network, problem, 2, LevenbergMarquardt(), samples=[1.0, 0.25])
    counts = [level.operator.terms[0].samples for level in hierarchy]
    assert counts == [100, 25]
    pair = Term(lambda u, v: u.value - v.value, (points(8), points(8)), attention=torch.ones(8))
    assert pair.subsampled(0.5).samples == 4 and len(pair.subsampled(0.5).attention) == 4  # type: ignore


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Collocation(KAN([1, 1]), []), "no terms"),
        (lambda: mixed_problem(KAN([2, 1])).standard_errors(None, [1.0]), "for 3 terms; give"),
        (
            lambda: mixed_problem(KAN([2, 1])).standard_errors(None, [1.0, None, 0.0]),
            "got a KAN without coefficients; give Ansatz",
        ),
        (lambda: mixed_problem(KAN([2, 1])).attended(torch.zeros(14).double(), 0.0), "rate"),
        (
            lambda: Collocation(
                KAN([1, 1]), [Term(lambda u: u.value - u.points[:, 0], points(4))]
            ).value(KAN([1, 1]).coefficients[0].detach().flatten()),
            r"shape \(4, 4\)",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_is_a_least_squares_problem():
    assert isinstance(mixed_problem(KAN([2, 1])), LeastSquares)


@pytest.mark.parametrize("given", [None, 1.0, [1.0, 2.0], np.ones(2)], ids=str)
def test_the_residual_of_a_term_is_a_tensor(given):
    problem = Collocation(torch.nn.Linear(1, 1), [Term(lambda u: given, torch.zeros(2, 1))])
    for call in (problem.value, problem.linearize):
        with pytest.raises(TypeError, match="the residual of a term gave .*; it must give"):
            call(problem.start())


class Wrapped(torch.nn.Module):
    """Nothing of it is carried."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(2, 1).double()

    def forward(self, x):
        return torch.sin(self.inner(x))


NETWORKS = [lambda: torch.nn.Linear(2, 1).double(), Wrapped, lambda: KAN([2, 1])]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("axes", [(2,), (-1,), (0.5,), (0, 2), ("x",), (True,)])
def test_an_axis_is_a_column_of_the_points(network, axes):
    x = torch.rand(5, 2, dtype=torch.float64)
    problem = Collocation(network(), [Term(lambda u: u.d(*axes), x)])
    for call in (problem.value, problem.linearize):
        with pytest.raises(ValueError, match="u.d got the axes .* column of the points, 0 to 1"):
            call(problem.start())


@pytest.mark.parametrize("network", NETWORKS[:2])
def test_coefficients_that_are_not_there_are_named(network):
    x = torch.rand(5, 2, dtype=torch.float64)
    term = Term(lambda u: u.coefficients["rate"] * u.value, x)
    for module, known in (
        (network(), "it has none"),
        (Ansatz(network(), coefficients={"a": 1.0, "b": 2.0}), "it has 'a', 'b'"),
    ):
        problem = Collocation(module, [term])
        for call in (problem.value, problem.linearize):
            with pytest.raises(ValueError, match=f"no 'rate', {known}; give Ansatz"):
                call(problem.start())


@pytest.mark.parametrize("network", NETWORKS[:2])
def test_points_and_parameters_are_of_one_precision(network):
    x = torch.rand(5, 2, dtype=torch.float32)
    problem = Collocation(network(), [Term(lambda u: u.d(0), x)])
    told = "points of torch.float32 for parameters of torch.float64; use"
    for call in (problem.value, problem.linearize):
        with pytest.raises(TypeError, match=told):
            call(problem.start())
