"""The solver goes on without a coarse level while that is cheap, and solves the system anyway."""

import math

import numpy as np
import pytest
import torch

from mgnet.knots import KAN, InputBands, KnotBPX, KnotMultigrid, KnotSolver
from mgnet.training import LeastSquares, NewtonKrylov, levenberg_marquardt
from mgnet.training.least_squares.newton_krylov import OwnSolver


def system(inputs, n, correlation, seed=0):
    x = torch.rand(600, inputs, generator=torch.Generator().manual_seed(seed)).double() * 2.0 - 1.0
    x = (1.0 - correlation) * x + correlation * x[:, :1]
    problem = LeastSquares(KAN([inputs, 1], n), (x, torch.sin(3.0 * x).sum(1, keepdim=True)))
    r, J = problem.linearize(problem.start())
    return J, -J.rmatvec(r)


@pytest.mark.parametrize("seed", range(4))
def test_it_solves_as_dense_least_squares(seed):
    draw = np.random.default_rng(seed)
    J, b = system(int(draw.integers(1, 4)), int(draw.integers(5, 40)), draw.uniform(0, 0.8), seed)
    chosen = KnotSolver(patience=int(draw.integers(1, 30))).prepare(J)
    shift = 1e-4 * chosen.scale
    found = chosen.solver(shift)(b, 1e-10, 1000)
    rows = torch.cat([J.dense(), shift**0.5 * torch.eye(J.shape[1], dtype=torch.float64)])
    y = torch.linalg.lstsq(rows.T, b.unsqueeze(1), driver="gelsd").solution  # b = rows^T y
    expected = torch.linalg.lstsq(rows, y, driver="gelsd").solution.squeeze(1)
    assert found.converged
    np.testing.assert_allclose(found.value, expected, rtol=1e-5, atol=1e-7 * expected.abs().max())
    A = rows.T @ rows
    assert float((b - A @ found.value).norm() / b.norm()) < 1e-9


def test_one_input_is_solved_directly():
    J, b = system(1, 100, 0.0)
    chosen = KnotSolver().prepare(J)
    assert chosen.solver(1e-3 * chosen.scale)(b, 1e-10, 10).iterations <= 2
    assert "KnotSolver: 1 input, 103 coefficients\nsystem 1: banded Cholesky" in str(chosen)


def test_a_coarse_level_is_made_where_inputs_couple_and_kept():
    J, b = system(3, 32, 0.95)
    chosen = KnotSolver(patience=10).prepare(J)
    solve = chosen.solver(1e-6)
    first, second = (solve(b, 1e-6, 500) for _ in range(2))
    alone = KnotSolver(patience=500).prepare(J).solver(1e-6)(b, 1e-6, 500)
    assert first.converged and second.converged and alone.converged
    assert second.iterations < first.iterations < alone.iterations
    lines = chosen.explain().splitlines()
    assert "10 iterations; then with a coarse level of 33" in lines[1]
    assert lines[2].startswith("system 2: with a coarse level of 33")


def test_easy_systems_get_no_coarse_level():
    J, b = system(3, 32, 0.0)
    chosen = KnotSolver().prepare(J)
    assert chosen.solver(1e-3 * chosen.scale)(b, 1e-8, 500).converged
    assert chosen.coarse is None


def test_limits_and_breakdowns_are_told():
    J, b = system(3, 32, 0.95)
    chosen = KnotSolver(patience=3).prepare(J)
    found = chosen.solver(1e-6)(b, 1e-12, 5)
    assert not found.converged and found.iterations == 5
    assert "ended at a residual of" in str(chosen)
    broken = KnotSolver(patience=3).prepare(J)
    assert not broken.solver(1e-6)(b * torch.nan, 1e-6, 9).converged
    zero = KnotSolver().prepare(J).solver(1e-6)(0.0 * b, 1e-6, 9)
    assert zero.converged and not zero.value.any()


def test_the_course_is_the_same_on_every_run():
    J, b = system(3, 32, 0.95)
    first, second = (KnotSolver(patience=10).prepare(J).solver(1e-6)(b, 1e-6, 500) for _ in "ab")
    assert first.iterations == second.iterations and torch.equal(first.value, second.value)


def test_levenberg_marquardt_takes_it():
    x = torch.linspace(-1.0, 1.0, 300, dtype=torch.float64).unsqueeze(1)
    kan = KAN([1, 3, 1], 16)
    solution = levenberg_marquardt(
        LeastSquares(kan, (x, torch.sin(8.0 * x))),
        max_cycles=15,
        linear_solver=NewtonKrylov(KnotSolver(patience=2), direct=0),
    )
    assert solution.values[-1] < 0.05 * solution.values[0]
    J, _ = system(2, 8, 0.0)
    assert isinstance(KnotSolver().prepare(J), OwnSolver)


@pytest.mark.parametrize("unit", [2.0**-700, 2.0**700])
def test_right_hand_sides_of_any_size(unit):
    """Powers of two change no digit."""
    J, b = system(3, 16, 0.9)
    first, second = (KnotSolver(patience=3).prepare(J).solver(1e-6) for _ in range(2))
    expected, found = first(b, 1e-8, 300), second(unit * b, 1e-8, 300)
    assert found.iterations == expected.iterations > 3
    torch.testing.assert_close(found.value / unit, expected.value, rtol=1e-6, atol=0.0)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="KnotSolver got coarsest 8 and patience 0"):
        KnotSolver(patience=0)
    tied = KAN([2, 2, 2], 8)
    tied.coefficients[1] = tied.coefficients[0]
    problem = LeastSquares(tied, (torch.zeros(9, 2).double(), torch.zeros(9, 2).double()))
    _, J = problem.linearize(problem.start())
    with pytest.raises(TypeError, match=r"^KnotSolver got a Jacobian .* none of them shared"):
        KnotSolver().prepare(J)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "8", math.nan, math.inf])
@pytest.mark.parametrize("kind", [KnotSolver, KnotBPX, InputBands, KnotMultigrid])
def test_numbers_of_intervals_are_integers(kind, bad):
    with pytest.raises(ValueError, match=rf"^{kind.__name__}.*integer"):
        kind(coarsest=bad)
