"""Multigrid over the knots of one spline edge converges at a rate that knots do not change.

Quadratic losses on n uniform intervals: fitting values (L2), slopes (H1) and second derivatives, as
the residual of a differential equation does ("strong"), the last two with a penalty on the ends.
Jacobi with omega = 1 / lambda_max, one sweep before and after. The factors of our cycles are held
against tabulated ones and, independently, against the dense two-grid operator. In ReLU coordinates,
w = A^T u, the same cycles do nothing.
"""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from scipy.interpolate import BSpline

from mgnet import Direct, Hierarchy, Jacobi, Level, MatrixTransfer, parse, run
from mgnet.knots import change_of_basis
from mgnet.knots.refinement import refinement_matrix, uniform_knots

DERIVATIVE = {"L2": 0, "H1": 1, "strong": 2}


def gram(loss, intervals, degree):
    """Integrals over [0, 1] of products of derivatives of splines, exact by Gauss quadrature."""
    knots = uniform_knots(intervals, degree, (0.0, 1.0))
    basis = BSpline(knots, np.eye(intervals + degree), degree)
    nodes, weights = np.polynomial.legendre.leggauss(degree + 1)
    x = (np.arange(intervals)[:, None] + 0.5 * (nodes + 1.0)).ravel() / intervals
    values = basis.derivative(DERIVATIVE[loss])(x) if DERIVATIVE[loss] else basis(x)
    L = values.T @ (np.tile(0.5 * weights / intervals, intervals)[:, None] * values)
    ends = basis(np.array([0.0, 1.0]))
    return L if loss == "L2" else L + 10.0 * ends.T @ ends


def levels_of(loss, intervals, degree, count, relu=False):
    """Matrices and prolongations, finest first, in spline or in ReLU coordinates."""
    grids = [intervals // 2**l for l in range(count)]
    matrices = [gram(loss, n, degree) for n in grids]
    P = [sp.csr_matrix(refinement_matrix(n, degree)).toarray() for n in grids[1:]]
    if relu:  # u = A^-T w
        change = [
            np.linalg.inv(change_of_basis(uniform_knots(n, degree, (0.0, 1.0)), degree).toarray())
            for n in grids
        ]
        matrices = [B @ L @ B.T for B, L in zip(change, matrices, strict=True)]
        P = [
            np.linalg.solve(fine.T, p @ coarse.T)
            for fine, coarse, p in zip(change[:-1], change[1:], P, strict=True)
        ]
    return matrices, P


def damping(A):
    return 1.0 / scipy.linalg.eigh(A, np.diag(np.diag(A)), eigvals_only=True)[-1]


def measured(matrices, prolongations, text, cycles=40):
    """The factor by which a cycle shrinks the error in the end, by power iteration."""
    parts = zip(matrices[:-1], prolongations, strict=True)
    levels = [Level(A, Jacobi(damping(A)), MatrixTransfer(P)) for A, P in parts]
    hierarchy = Hierarchy([*levels, Level(matrices[-1], Direct())], nested=True)
    schedule, memory, norms = parse(text, len(matrices)), None, []
    u = np.random.default_rng(0).standard_normal(len(matrices[0]))
    hierarchy.check(u)
    for _ in range(cycles):
        u, memory = run(schedule, hierarchy, u, None, memory)
        norms.append(np.linalg.norm(u))
        u /= norms[-1]
    return np.exp(np.mean(np.log(norms[cycles // 2 :])))


def two_grid_radius(matrices, prolongations):
    """The spectral radius of the two-grid error operator: NumPy only, nothing of ours."""
    A, P = matrices[0], prolongations[0]
    smooth = np.eye(len(A)) - damping(A) * A / np.diag(A)[:, None]
    correct = np.eye(len(A)) - P @ np.linalg.solve(P.T @ A @ P, P.T @ A)
    return np.abs(np.linalg.eigvals(smooth @ correct @ smooth)).max()


@pytest.mark.parametrize("intervals", [16, 32, 64, 128])
@pytest.mark.parametrize(
    ("loss", "order", "low", "high"),
    [
        ("L2", 2, 0.42, 0.46),
        ("L2", 3, 0.80, 0.82),
        ("L2", 4, 0.94, 0.96),
        ("H1", 2, 0.23, 0.27),
        ("H1", 3, 0.01, 0.07),
        ("H1", 4, 0.57, 0.65),
        ("strong", 3, 0.52, 0.57),
        ("strong", 4, 0.205, 0.25),
    ],
)
def test_two_grid_factors(loss, order, low, high, intervals):
    parts = levels_of(loss, intervals, order - 1, 2)
    radius, factor = two_grid_radius(*parts), measured(*parts, "V(1,1)")
    assert low <= radius <= high
    assert factor == pytest.approx(radius, rel=0.05)


@pytest.mark.parametrize("intervals", [16, 32, 64, 128])
@pytest.mark.parametrize(
    ("loss", "order", "low", "high"), [("H1", 2, 0.22, 0.28), ("strong", 4, 0.2, 0.26)]
)
def test_cycles_down_to_four_intervals(loss, order, low, high, intervals):
    parts = levels_of(loss, intervals, order - 1, int(np.log2(intervals)) - 1)
    assert low <= measured(*parts, "V(1,1)") <= high


@pytest.mark.parametrize(("loss", "order"), [("L2", 2), ("H1", 2), ("strong", 3)])
@pytest.mark.parametrize("intervals", [16, 32])
def test_in_relu_coordinates_cycles_do_nothing(loss, order, intervals):
    parts = levels_of(loss, intervals, order - 1, 2, relu=True)
    radius, factor = two_grid_radius(*parts), measured(*parts, "V(1,1)", 200)
    assert radius > 0.99 and factor > 0.99
