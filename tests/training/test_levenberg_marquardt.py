"""Levenberg-Marquardt finds what SciPy finds, and no sweep raises the objective."""

import numpy as np
import pytest
import scipy.optimize
import torch

from mgnet import Hierarchy, Level, run
from mgnet.knots import KAN, knot_transfer
from mgnet.schedule import Schedule, Step
from mgnet.training import LeastSquares, LevenbergMarquardt
from mgnet.training.levenberg_marquardt import _Normal

X = torch.linspace(-1.0, 1.0, 60, dtype=torch.float64).unsqueeze(1)


def level(smoother, target=None, network=None):
    network = network or KAN([1, 2, 1], 3)
    problem = LeastSquares(network, (X, torch.sin(5 * X) if target is None else target))
    return Level(problem, smoother, objective=problem.value)


def sweeps(one, u, f, count):
    memory = one.smoother.start(one, u)
    values = []
    for _ in range(count):
        u, memory = one.smoother.smooth(one, u, f, 1, memory)
        values.append(one.operator.value(u) - (0.0 if f is None else float(f @ u)))
    return u, values


@pytest.mark.parametrize("acceleration", [0.0, 0.75])
def test_a_linear_problem_is_solved_like_lstsq(acceleration):
    network = KAN([1, 1], 5)
    one = level(LevenbergMarquardt(acceleration=acceleration), network=network)
    u, values = sweeps(one, one.operator.start(), None, 25)
    J = one.operator.jacobian(u)
    best = torch.linalg.lstsq(J, torch.sin(5 * X) / len(X) ** 0.5).solution[:, 0]
    torch.testing.assert_close(u, best, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("acceleration", [0.0, 0.75])
def test_no_sweep_raises_the_objective(acceleration):
    one = level(LevenbergMarquardt(acceleration=acceleration, mu=1e-8))
    start = one.operator.start()
    f = 1e-3 * torch.cos(torch.arange(len(start), dtype=torch.float64))
    for rhs in (None, f):
        _, values = sweeps(one, start, rhs, 30)
        assert all(b <= a + 1e-15 for a, b in zip(values[:-1], values[1:], strict=True))
        assert values[-1] < 0.05 * abs(values[0])


def test_it_ends_no_higher_than_scipy():
    one = level(LevenbergMarquardt())
    start = one.operator.start()
    _, values = sweeps(one, start, None, 200)

    def residuals(u):
        return one.operator.residuals(torch.from_numpy(u)).numpy()

    def jacobian(u):
        return one.operator.jacobian(torch.from_numpy(u)).numpy()

    theirs = scipy.optimize.least_squares(residuals, start.numpy(), jacobian, method="trf")
    assert values[-1] <= 1.05 * theirs.cost


def test_the_right_hand_side_tilts_the_objective():
    one = level(LevenbergMarquardt(), network=KAN([1, 1], 3))
    start = one.operator.start()
    f = 1e-2 * torch.ones(len(start), dtype=torch.float64)
    u, _ = sweeps(one, start, f, 30)
    torch.testing.assert_close(one.operator(u), f, rtol=1e-6, atol=1e-9)  # gradient = f


@pytest.mark.parametrize("condition", [1e2, 1e9])
def test_the_damped_system_is_solved_by_cholesky_or_qr(condition):
    generator = np.random.default_rng(0)
    U, _ = np.linalg.qr(generator.standard_normal((50, 6)))
    V, _ = np.linalg.qr(generator.standard_normal((6, 6)))
    J = torch.from_numpy(U * np.geomspace(1.0, 1.0 / condition, 6) @ V)
    b = J.T @ torch.from_numpy(generator.standard_normal(50))
    solve = _Normal(J, torch.zeros(50).double(), None).damped(torch.tensor(1e-20).double())
    assert solve.__name__ == ("solve" if condition < 1e6 else "solve_by_qr")
    x = solve(b)
    assert float((J.T @ (J @ x) - b).norm()) < 1e-12 + 1e-15 * float(x.norm())


def test_a_sweep_that_finds_no_step_leaves_the_state():
    one = level(LevenbergMarquardt(trials=3))
    u, _ = sweeps(one, one.operator.start(), None, 400)
    again, memory = one.smoother.smooth(one, u, None, 1, one.smoother.start(one, u))
    assert one.operator.value(again) <= one.operator.value(u)


def test_damping_survives_refinement():
    memory = LevenbergMarquardt().start(level(LevenbergMarquardt()), X)._replace(mu=0.125)
    carried = LevenbergMarquardt().carry(memory, knot_transfer(KAN([1, 1])))
    assert carried.mu == 0.125


def test_refusals():
    with pytest.raises(ValueError, match="needs a positive mu"):
        LevenbergMarquardt(mu=0.0)
    hierarchy = Hierarchy([Level(lambda u: u, LevenbergMarquardt(), name="level 0")])
    with pytest.raises(
        TypeError, match="level 0 has an operator of type function; .* LeastSquares"
    ):
        run(Schedule([Step("solve", 0)]), hierarchy, X[:, 0], None)
