"""Law: any damping from one factorization, equal to NumPy's solution of the stacked system."""

import numpy as np
import pytest
import torch

from mgnet.training.least_squares.jacobian import DenseJacobian
from mgnet.training.least_squares.singular_values import SingularEquations

SHAPES = [(12, 5, 5), (5, 12, 5), (9, 9, 9), (20, 6, 3), (6, 20, 3), (7, 1, 1)]  # with the rank


def drawn(seed, rows, columns, rank, spread=0.0):
    """J of that rank with singular values over `spread` decades, r, and units."""
    random = np.random.default_rng(seed)
    U, V = (np.linalg.qr(random.normal(size=(n, rank)))[0] for n in (rows, columns))
    S = 10.0 ** -np.linspace(0.0, spread, rank)
    unit = 10.0 ** random.uniform(-3.0, 3.0, columns)
    J = (U * S) @ V.T / unit
    return J, random.normal(size=rows), unit


def system_of(J, r, unit=None):
    J, r = torch.from_numpy(J), torch.from_numpy(r)
    made = SingularEquations(DenseJacobian(J), r)
    return made if unit is None else made.measured(torch.from_numpy(unit))


def stacked(J, unit, shift, b):
    """`min |J D^-1 z - b|^2 + shift |z|^2`, then `D^-1 z`."""
    columns = J.shape[1]
    matrix = np.vstack([J * unit, np.sqrt(shift) * np.eye(columns)])
    return unit * np.linalg.lstsq(matrix, np.concatenate([b, np.zeros(columns)]), rcond=1e-13)[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mu", [0.0, 1e-6, 1e-2, 3.0])
def test_the_step_is_that_of_the_stacked_system(shape, mu):
    for seed in range(5):
        J, r, unit = drawn(seed, *shape)
        scaled = J * unit
        scale = np.trace(scaled.T @ scaled) / J.shape[1]
        system = system_of(J, r, unit)
        assert system.scale == pytest.approx(scale)
        solve = system.damped(mu)
        y = np.random.default_rng(seed + 100).normal(size=len(r))
        for b, found in ((-r, solve(None)), (y, solve(torch.from_numpy(y)))):
            expected = stacked(J, unit, mu * scale, b)
            np.testing.assert_allclose(found / unit, expected / unit, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(system.descent, -J.T @ r)
        np.testing.assert_allclose(system.columns, (J**2).sum(0))


def test_the_last_digit_where_normal_equations_have_none():
    """Singular values over ten decades: of J^T J the smallest would be below rounding."""
    J, _, unit = drawn(0, 30, 6, 6, spread=10.0)
    z = np.arange(1.0, 7.0)
    found = system_of(J, -(J * unit) @ z, unit).damped(0.0)(None)
    np.testing.assert_allclose(found / unit, z, rtol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [0.0, 3.0, 8.0])
def test_the_damping_gives_the_radius(shape, spread):
    for seed in range(4):
        J, r, unit = drawn(seed, *shape, spread=spread)
        system = system_of(J, r, unit)
        newton = float((system.damped(0.0)(None) / torch.from_numpy(unit)).norm())
        assert system.length(0.0)[0] == pytest.approx(newton)
        for share in (1e-6, 1e-2, 0.5, 0.89):
            for guess in (0.0, 1e-12, 1.0, 1e9):
                mu = system.damping_at(share * newton, guess)
                d = system.damped(mu)(None) / torch.from_numpy(unit)
                assert float(d.norm()) == pytest.approx(share * newton, rel=0.1)
        assert system.damping_at(0.95 * newton, 0.0) == 0.0  # a tenth is near enough
        assert system.damping_at(2.0 * newton, 1.0) == 0.0


def test_the_slope_of_the_length_by_differences():
    J, r, unit = drawn(3, 12, 5, 5, spread=2.0)
    system = system_of(J, r, unit)
    for mu in (1e-3, 0.1, 2.0):
        h = 1e-5 * mu
        slope = (system.length(mu + h)[0] - system.length(mu - h)[0]) / (2.0 * h)
        assert system.length(mu)[1] == pytest.approx(slope, rel=1e-6)


def test_no_residuals_and_no_jacobian_give_no_step():
    for J, r in ((np.zeros((4, 3)), np.ones(4)), (np.eye(4, 3), np.zeros(4))):
        system = system_of(J, r)
        assert system.damping_at(1.0, 0.0) == 0.0
        assert not system.damped(0.0)(None).any()


def test_the_weakest_direction():
    """Of a tall J the last right singular vector; of a wide or deficient one in its null space."""
    for shape in SHAPES:
        J, r, unit = drawn(1, *shape, spread=2.0)
        (found,) = system_of(J, r, unit).weakest(1)
        v = found.numpy() / unit
        assert np.linalg.norm(v) == pytest.approx(1.0)
        rows, columns, rank = shape
        least = 1e-2 if rank == columns > 1 else 1.0 if columns == 1 else 0.0
        assert np.linalg.norm(J @ found.numpy()) == pytest.approx(least, abs=1e-12)
