"""Corrections with the Jacobian kept are those by hand, and steps with them reach further."""

import math

import numpy as np
import pytest
import torch

from mgnet import Level
from mgnet.training import LeastSquares, LevenbergMarquardt, Nielsen, levenberg_marquardt
from mgnet.training.least_squares.curvature import STRONGER, bent, corrected


class Values(torch.nn.Module):
    def __init__(self, start):
        super().__init__()
        self.b = torch.nn.Parameter(torch.as_tensor(start, dtype=torch.float64))

    def forward(self):
        return self.b


def drawn(seed, rows, columns):
    """Residuals `A b + quadratic`, their module, and their Jacobian as a function."""
    generator = np.random.default_rng(seed)
    A = generator.standard_normal((rows, columns)) * 10.0 ** -np.arange(columns)
    Q = 0.3 * generator.standard_normal((rows, columns, columns))
    Q = Q + Q.transpose(0, 2, 1)
    y, start = generator.standard_normal(rows), 0.1 * generator.standard_normal(columns)

    def residual(b):
        return A @ b + 0.5 * np.einsum("rij,i,j->r", Q, b, b) - y

    def of_module(module):
        b, (linear, quadratic, right) = module(), (torch.from_numpy(each) for each in (A, Q, y))
        return linear @ b + 0.5 * torch.einsum("rij,i,j->r", quadratic, b, b) - right

    def jacobian(b):
        return A + np.einsum("rij,j->ri", Q, b)

    return residual, jacobian, of_module, start


def linearized(of_module, start, smoother):
    problem = LeastSquares.from_torch(Values(start), of_module)
    level = Level(problem, smoother, objective=problem.value)
    return level, smoother.linearize(level, problem.start(), None)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("rows", "columns"), [(9, 4), (3, 5)])
def test_corrections_are_those_by_hand(seed, rows, columns):
    residual, jacobian, of_module, start = drawn(seed, rows, columns)
    smoother = LevenbergMarquardt(x_scale=1.0, rule=Nielsen())
    level, told = linearized(of_module, start, smoother)
    system = smoother._measured_as_they_are(told, smoother.start(level, told.u), Nielsen())[0]
    d = system.damped(1e-3)(None)
    begun = told.u + d
    new, r, count = corrected(
        told, told.J.matvec(d), begun, told.problem.residuals(begun), system, 1e-3, 5
    )

    J, b = jacobian(start), start + d.numpy()
    scale = np.trace(J.T @ J) / columns
    damped = J.T @ J + STRONGER * 1e-3 * scale * np.eye(columns)
    goal = residual(start) + J @ d.numpy()
    taken, gap = 0, np.sum((residual(b) - goal) ** 2)
    while taken < 5 and gap > 0.01 * goal @ goal:
        end = b + np.linalg.solve(damped, J.T @ (goal - residual(b)))
        left, taken = np.sum((residual(end) - goal) ** 2), taken + 1
        if left >= 0.8 * gap:
            break
        b, gap = end, left
    assert count == taken
    np.testing.assert_allclose(new.numpy(), b, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(r.numpy(), residual(b), rtol=1e-9, atol=1e-12)


def test_a_gap_that_is_no_number_is_left():
    _, _, of_module, start = drawn(0, 9, 4)
    smoother = LevenbergMarquardt(x_scale=1.0, rule=Nielsen())
    level, told = linearized(of_module, start, smoother)
    system = smoother._measured_as_they_are(told, smoother.start(level, told.u), Nielsen())[0]
    d = system.damped(1e-3)(None)
    for wrong in (math.nan, math.inf):
        r = torch.full_like(told.r, wrong)
        same, there, count = corrected(told, told.J.matvec(d), told.u, r, system, 1e-3, 5)
        assert same is told.u and there is r and count == 0


def test_an_acceleration_is_the_second_derivative_along_the_step():
    residual, jacobian, of_module, start = drawn(1, 9, 4)
    smoother = LevenbergMarquardt(x_scale=1.0, rule=Nielsen())
    level, told = linearized(of_module, start, smoother)
    system = smoother._measured_as_they_are(told, smoother.start(level, told.u), Nielsen())[0]
    solve = system.damped(10.0)
    d = solve(None)
    step, ratio = bent(told, d, told.J.matvec(d), solve, system, 1.0, 0.5)
    J = jacobian(start)
    second = 2.0 * (residual(start + d.numpy()) - residual(start) - J @ d.numpy())
    damped = J.T @ J + 10.0 * np.trace(J.T @ J) / 4.0 * np.eye(4)
    a = -np.linalg.solve(damped, J.T @ second)  # exact: the residuals are quadratic
    np.testing.assert_allclose((step - d).numpy(), 0.5 * a, rtol=1e-6, atol=1e-12)
    assert ratio == pytest.approx(2.0 * np.linalg.norm(a) / np.linalg.norm(d.numpy()), rel=1e-6)
    assert bent(told, d, told.J.matvec(d), solve, system, 1e-9, 0.5) == (None, 0.5)


def test_a_linear_problem_needs_none():
    A = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    smoother = LevenbergMarquardt(rule=Nielsen())
    problem = LeastSquares.from_torch(Values([1.0, 2.0, 3.0]), lambda m: A @ m() - 1.0)
    level = Level(problem, smoother, objective=problem.value)
    u = problem.start()
    smoother.smooth(level, u, None, 1, smoother.start(level, u))
    assert level.tally[0] == pytest.approx(1.0 + 2.0 / 3.0)  # J, the acceleration, one trial


def network(seed):
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(1, 12), torch.nn.Tanh(), torch.nn.Linear(12, 12), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(12, 1)).double()


def test_networks_end_lower_after_as_many_jacobians():
    x = torch.linspace(-1.0, 1.0, 200, dtype=torch.float64).unsqueeze(1)
    y = torch.sin(6.0 * x) + torch.exp(-20.0 * x**2)
    ratios = []
    for seed in range(5):
        ends = [
            levenberg_marquardt(
                lambda module: module(x) - y,
                network(seed),
                corrections=corrections,
                max_cycles=80,
                ftol=0.0,
                xtol=0.0,
                gtol=0.0,
            ).values[-1]
            for corrections in (0, 8)
        ]
        ratios.append(ends[1] / ends[0])
    assert sorted(ratios)[2] < 0.5, ratios


@pytest.mark.parametrize("corrections", [-1, 1.5, "8", True])
def test_what_is_no_number_of_corrections_is_refused(corrections):
    with pytest.raises(ValueError, match="corrections"):
        LevenbergMarquardt(corrections=corrections)
