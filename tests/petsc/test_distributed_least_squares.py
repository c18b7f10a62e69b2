"""Law: a spread problem is the problem. Oracle: `LeastSquares` of one process, and autograd."""

from functools import partial

import numpy as np
import pytest
import torch

from mgnet import Hierarchy, Level, cascade, run
from mgnet.knots import KAN, knot_hierarchy, roughness
from mgnet.notation import parse
from mgnet.training import (
    LBFGS,
    AdaptiveBasis,
    LastLayer,
    LeastSquares,
    LevenbergMarquardt,
    TorchOptimizer,
)
from mgnet.training.least_squares.last_layer import LinearPart
from mgnet.training.least_squares.normal_equations import NormalEquations

X = torch.rand(400, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
Y = torch.sin(3 * X[:, :1]) * X[:, 1:]


def tanh() -> torch.nn.Module:
    torch.manual_seed(0)
    parts = torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)
    return torch.nn.Sequential(*parts).double()


def coupling(network):
    """A penalty that hidden and last layer share."""
    generator = torch.Generator().manual_seed(1)
    size = sum(p.numel() for p in network.parameters())
    return 0.1 * torch.randn(5, size, dtype=torch.float64, generator=generator)


PROBLEMS = {
    "KAN": lambda: LeastSquares(KAN([2, 3, 1], 8), (X, Y)),
    "penalty": lambda: LeastSquares(KAN([2, 3, 1], 4), (X, Y), partial(roughness, weight=1e-4)),
    "tanh": lambda: LeastSquares(tanh(), (X, Y)),
    "coupled": lambda: LeastSquares(tanh(), (X, Y), coupling),
    "two outputs": lambda: LeastSquares(KAN([2, 2], 5), (X, torch.cat([Y, Y + X[:, :1]], 1))),
    "few": lambda: LeastSquares(KAN([2, 1], 1), (X[:11], Y[:11])),
}


@pytest.fixture(autouse=True)
def few_blocks(petsc, monkeypatch):
    """Fewer than by default: they are computed one after another, for most of the time here."""
    monkeypatch.setattr("mgnet.petsc.sample_blocks.BLOCKS", 16)


@pytest.fixture(params=PROBLEMS)
def pair(petsc, request):
    """A problem, the same spread, and a state."""
    from mgnet.petsc.distributed_least_squares import distribute_samples

    alone = PROBLEMS[request.param]()
    return alone, distribute_samples(alone), alone.start() * 1.1


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_values_gradients_and_residuals(pair):
    alone, spread, u = pair
    assert spread.value(u) == pytest.approx(alone.value(u), rel=1e-12)
    assert spread.mean_square(u) == pytest.approx(alone.mean_square(u), rel=1e-12)
    value, gradient = spread.value_and_gradient(u)
    assert value == pytest.approx(alone.value(u), rel=1e-12)
    close(gradient, alone.gradient(u))
    close(spread(u), alone(u))
    close(spread.residuals(u), alone.residuals(u))
    assert spread.half_square(alone.residuals(u)) == pytest.approx(alone.value(u), rel=1e-12)


def test_the_jacobian(pair):
    alone, spread, u = pair
    (r, J), (expected, dense) = spread.linearize(u), (alone.residuals(u), alone.jacobian(u))
    close(r, expected)
    assert J.shape == dense.shape
    close(J.dense(), dense)
    close(J.gram(), dense.T @ dense)
    close(J.root().T @ J.root(), dense.T @ dense)
    assert len(J.root()) <= dense.shape[1]
    close(J.matvec(u), dense @ u)
    close(J.rmatvec(r), dense.T @ expected)


def test_steps_are_those_of_one_process(pair):
    alone, spread, u = pair
    found = [
        run(cascade([5]), Hierarchy([Level(p, LevenbergMarquardt())]), u, None)[0]
        for p in (alone, spread)
    ]
    assert alone.value(found[1]) == pytest.approx(alone.value(found[0]), rel=1e-6)
    assert alone.value(found[1]) < 0.5 * alone.value(u)


def smoothed(problem, u, smoother, sweeps=3, f=None):
    level = Level(problem, smoother, objective=problem.value)
    return smoother.smooth(level, u, f, sweeps, smoother.start(level, u))[0]


ADAM = TorchOptimizer(torch.optim.Adam, {"lr": 1e-2})


@pytest.mark.parametrize("ridge", [0.0, 1e-4])
def test_the_last_layer_leaves_no_gradient(pair, ridge):
    alone, spread, u = pair
    smoother, size = LastLayer(ridge, rcond=1e-10), LinearPart(alone.network).size
    f = 1e-3 * torch.cos(torch.arange(len(u), dtype=torch.float64)) if ridge else None
    v = smoothed(spread, u, smoother, f=f)
    slope = alone.gradient(v) + ridge * v - (0.0 if f is None else f)
    assert float(slope[-size:].norm()) < 1e-9
    assert torch.equal(v[:-size], u[:-size])
    assert alone.value(v) < alone.value(u)


@pytest.mark.parametrize(
    ("step", "ridge"),
    [(ADAM, 0.0), (ADAM, 1e-4), (LevenbergMarquardt(), 1e-4)],
    ids=["Adam", "Adam, ridge", "projection, ridge"],
)
def test_an_adaptive_basis_goes_as_in_one_process(pair, step, ridge):
    alone, spread, u = pair
    smoother = AdaptiveBasis(step, LastLayer(ridge, rcond=1e-8))
    found = [alone.value(smoothed(problem, u, smoother)) for problem in (alone, spread)]
    assert found[1] == pytest.approx(found[0], rel=1e-4, abs=1e-16)
    assert found[1] < alone.value(u)


@pytest.mark.parametrize("ridge", [0.0, 1e-4])
def test_the_projected_jacobian_is_that_of_numpy(pair, ridge):
    alone, spread, u = pair
    size, J = LinearPart(alone.network).size, alone.jacobian(u).numpy()
    J = np.concatenate([J, ridge**0.5 * np.eye(len(u))[-size:]]) if ridge else J
    fitted = np.linalg.lstsq(J[:, -size:], J[:, :-size], rcond=1e-9)[0]
    expected = np.pad(J[:, :-size] - J[:, -size:] @ fitted, [(0, 0), (0, size)])
    found = spread.projected(u, size, ridge, 1e-9)
    assert found.shape == J.shape
    np.testing.assert_allclose(found.dense().numpy(), expected, atol=1e-7)
    np.testing.assert_allclose(found.gram().numpy(), expected.T @ expected, atol=1e-8)


def test_a_basis_of_nothing_projects_nothing(petsc):
    from mgnet.petsc.distributed_least_squares import distribute_samples

    dead = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1, False))
    torch.nn.init.constant_(dead[0].bias, -9.0)
    problem = distribute_samples(LeastSquares(dead.double(), (X, Y)))
    assert not problem.projected(problem.start(), 3, 0.0, None).dense().any()


def test_where_cholesky_fails_the_triangle_takes_over(petsc):
    from mgnet.petsc.distributed_least_squares import distribute_samples

    alone = LeastSquares(KAN([2, 3, 1], 8), (X, Y))
    u, steps = alone.start(), []
    for problem in (alone, distribute_samples(alone)):
        r, J = problem.linearize(u)
        system = NormalEquations(J, r)
        assert system._by_cholesky(1e-17 * system.scale) is None
        steps.append(J.matvec(system.damped(1e-14)(None)))
    torch.testing.assert_close(steps[1], steps[0], rtol=1e-4, atol=1e-6)


def test_a_hierarchy_of_knots(petsc):
    from mgnet.petsc.distributed_least_squares import distribute_samples

    kan = KAN([2, 3, 1], 4)
    alone, values = LeastSquares(kan, (X, Y)), []
    for problem in (alone, distribute_samples(alone)):
        hierarchy = knot_hierarchy(kan, problem, 2, LevenbergMarquardt(), samples=None)
        u, _ = run(parse("V(1,1,1)", 2), hierarchy, hierarchy[0].operator.start(), None)
        values.append(hierarchy[0].operator.value(u))
    assert values[1] == pytest.approx(values[0], rel=1e-6)


def test_single_precision_stays(petsc):
    from mgnet.petsc.distributed_least_squares import distribute_samples

    problem = distribute_samples(LeastSquares(tanh().float(), (X.float(), Y.float())))
    u = problem.start()
    gradient = problem.value_and_gradient(u)[1]
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, LeastSquares(tanh().float(), problem.data).gradient(u))
    assert problem.with_data((X[:99].float(), Y[:99].float())).blocks.samples == 99


def test_what_cannot_be_spread_is_refused(petsc):
    from mgnet.petsc.distributed_least_squares import distribute_samples

    with pytest.raises(TypeError, match="got a LeastSquares; it needs the class LeastSquares"):
        distribute_samples(LeastSquares.from_torch(tanh(), lambda net: net(X)))
    with pytest.raises(ValueError, match="with a sample_weight or a robust loss; it spreads plain"):
        distribute_samples(LeastSquares(tanh(), (X, Y), sample_weight=torch.ones(len(X))))
    with pytest.raises(ValueError, match="got 9 residuals for 21 parameters"):
        distribute_samples(LeastSquares(tanh(), (X[:9], Y[:9])))


@pytest.mark.parametrize("smoother", [LevenbergMarquardt(), LastLayer(), LBFGS()], ids=str)
def test_what_is_not_finite_is_told_alike(petsc, smoother):
    from mgnet.petsc.distributed_least_squares import distribute_samples

    x = torch.linspace(-1, 1, 100, dtype=torch.float64).unsqueeze(1)
    y = torch.where(torch.arange(100).unsqueeze(1) == 97, float("nan"), x**2)
    told = []
    for spread in (False, True):
        problem = LeastSquares(KAN([1, 2, 1]), (x, y))
        problem = distribute_samples(problem) if spread else problem
        with pytest.raises(FloatingPointError, match="1 of 100 targets is not finite") as error:
            run(
                cascade([2]),
                Hierarchy([Level(problem, smoother, objective=problem.value)]),
                problem.start(),
                None,
            )
        told.append(str(error.value))
    assert told[0] == told[1]


@pytest.mark.parametrize("exponent", [-700, 700])
def test_targets_whose_squares_are_no_numbers(petsc, exponent):
    from mgnet.petsc.distributed_least_squares import distribute_samples

    x = torch.linspace(-1, 1, 100, dtype=torch.float64).unsqueeze(1)
    for smoother in (LevenbergMarquardt(), LastLayer()):
        found = []
        for factor in (1.0, 2.0**exponent):
            kan = KAN([1, 1])
            with torch.no_grad():
                kan.coefficients[0].mul_(factor)
            problem = distribute_samples(LeastSquares(kan, (x, x.sin() * factor)))
            u, _ = run(cascade([5]), Hierarchy([Level(problem, smoother)]), problem.start(), None)
            found.append(u / factor)
        torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)
