"""The class that is named is the one that helps, and an even matrix asks for none."""

import numpy as np
import pyamg
import pytest
import scipy.sparse as sp
import torch

from mgnet import (
    ILU,
    BlockGaussSeidel,
    Hierarchy,
    Jacobi,
    Level,
    LineRelaxation,
    Solver,
    gallery,
    interpolation_matrix,
)
from mgnet.smoother_advice import any_smoother, stronger_smoother
from tests.test_schwarz import stokes


def level_of(A, smoother=None, shape=()):
    return Level(A, smoother or Jacobi(), shape=shape)


def told(A, smoother=None, shape=()):
    return stronger_smoother(level_of(A, smoother, shape), np.zeros(A.shape[0]))


def second(n):
    return sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n))


def grid(shape, weights):
    """Make the sum of second differences along each axis, with a weight for each."""
    total = sp.csr_matrix((int(np.prod(shape)),) * 2)
    for axis, weight in enumerate(weights):
        parts = [second(n) if k == axis else sp.eye(n) for k, n in enumerate(shape)]
        product = parts[0]
        for part in parts[1:]:
            product = sp.kron(product, part)
        total = total + weight * product
    return sp.csr_matrix(total)


def turning(n):
    """Strong along axis 0 in one half, along axis 1 in the other."""
    left = (np.arange(n) < n // 2)[:, None] * np.ones(n)
    a, b = np.where(left, 1.0, 1e-3).ravel(), np.where(left, 1e-3, 1.0).ravel()
    x, y = sp.kron(second(n), sp.eye(n)), sp.kron(sp.eye(n), second(n))
    a, b = sp.diags(a**0.5), sp.diags(b**0.5)
    return sp.csr_matrix(a @ x @ a + b @ y @ b)


@pytest.mark.parametrize("dtype", [np.float32, float, complex])
@pytest.mark.parametrize(
    ("shape", "weights", "axis"),
    [((7, 9), (100, 1), 0), ((7, 9), (1, 6), 1), ((4, 5, 6), (1, 50, 2), 1), ((5, 4), (1, 0), 0)],
)
def test_the_strong_axis_is_named(shape, weights, axis, dtype):
    line = told(grid(shape, weights).astype(dtype), shape=shape)
    assert line.endswith(f"use LineRelaxation(axes={axis}) there")
    assert "100 times as strongly" in line or weights != (100, 1)
    assert f"only along axis {axis} of the grid;" in line or 0 not in weights


def test_lines_along_the_wrong_axis_are_no_answer():
    A = grid((7, 9), (100, 1))
    assert "axes=0" in told(A, LineRelaxation(1), (7, 9))
    for right in (LineRelaxation(0), LineRelaxation(), LineRelaxation((1, 0))):
        assert "LineRelaxation(axes" not in told(A, right, (7, 9))


def test_an_axis_that_turns():
    line = told(turning(16), shape=(16, 16))
    assert line.endswith("use LineRelaxation('alternating') there")


@pytest.mark.parametrize("shape", [(15,), (7, 7), (5, 5, 5)])
def test_an_even_matrix_asks_for_none(shape):
    level = gallery.poisson(shape)[0]
    assert stronger_smoother(level, np.zeros(level.unknowns)) == ""
    nine = pyamg.gallery.stencil_grid([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], (8, 8))
    assert told(nine.tocsr(), shape=(8, 8)) == told(nine.tocsr()) == ""


def test_without_a_shape_rows_are_looked_at():
    line = told(grid((9, 9), (100, 1)))
    assert "100 times the smaller ones" in line and "use ILU() there, or LineRelaxation" in line
    stencil = pyamg.gallery.diffusion_stencil_2d(epsilon=1e-3, theta=np.pi / 4, type="FE")
    rotated = sp.csr_matrix(pyamg.gallery.stencil_grid(stencil, (12, 12)))
    assert "use ILU() there" in told(rotated, shape=(12, 12))
    assert told(rotated, ILU()) == ""


def bilinear(n, eps, angle):
    stencil = pyamg.gallery.diffusion_stencil_2d(epsilon=eps, theta=np.deg2rad(angle), type="FE")
    return sp.csr_matrix(pyamg.gallery.stencil_grid(stencil, (n, n)))


@pytest.mark.parametrize(("angle", "axis"), [(0, 0), (90, 1)])
@pytest.mark.parametrize("dtype", [np.float32, float, complex])
def test_bilinear_elements_have_large_entries_along_the_weak_axis_too(angle, axis, dtype):
    A = bilinear(15, 1e-2, angle).astype(dtype)
    if dtype is complex:
        A = 1j * A
    line = told(A, shape=(15, 15))
    assert line == (
        f"its matrix couples unknowns 100 times as strongly along axis {axis} of the grid as along "
        f"the others; use LineRelaxation(axes={axis}) there"
    )


def test_periodic_grids_have_neighbours_at_both_ends():
    def ring(n):
        return second(n) - sp.eye(n, k=n - 1) - sp.eye(n, k=1 - n)

    A = sp.csr_matrix(sp.kron(100 * ring(9), sp.eye(8)) + sp.kron(sp.eye(9), ring(8)))
    assert "couples unknowns 100 times as strongly along axis 0" in told(A, shape=(9, 8))


def test_equations_of_fourth_order_go_by_their_entries():
    one = second(9) @ second(9)
    plate = sp.kron(one, sp.eye(9)) + 2 * sp.kron(second(9), second(9)) + sp.kron(sp.eye(9), one)
    assert "LineRelaxation(" not in told(sp.csr_matrix(plate), shape=(9, 9))
    stiff = sp.kron(100 * one, sp.eye(9)) + sp.kron(sp.eye(9), one)
    assert told(sp.csr_matrix(stiff), shape=(9, 9)).endswith("use LineRelaxation(axes=0) there")


@pytest.mark.parametrize("angle", [30, 45, 60])
@pytest.mark.parametrize("eps", [1e-1, 1e-2, 1e-4])
def test_ilu_is_named_where_it_converges(eps, angle):
    A = bilinear(63, eps, angle)
    level, f = level_of(A, ILU()), np.random.default_rng(1).standard_normal(63 * 63)
    memory, u = ILU().start(level, 0 * f), 0 * f
    norms = [np.linalg.norm(f)]
    for _ in range(20):
        u, memory = ILU().smooth(level, u, f, 1, memory)
        norms.append(np.linalg.norm(f - A @ u))
    line = told(A, shape=(63, 63))
    if norms[-1] > norms[10]:
        assert line.endswith("(ILU() would not converge)")
        assert told(A, LineRelaxation(), (63, 63)) == ""
    else:
        assert line == "" or "use ILU() there, or LineRelaxation if" in line
    assert (norms[-1] > norms[10]) == ("ILU()" not in any_smoother(level, f))


def test_blocks():
    coupled = sp.bsr_matrix(sp.kron(second(20), [[2.0, 1.5], [1.5, 2.0]]), blocksize=(2, 2))
    assert told(coupled).endswith("in its blocks of 2 are coupled; use BlockGaussSeidel() there")
    assert "Block" not in told(coupled, BlockGaussSeidel())
    assert "Block" not in told(sp.bsr_matrix(sp.kron(second(20), np.eye(2)), blocksize=(2, 2)))


def test_saddle_points_and_flows():
    for compressibility in (1e-3, 0.0):
        A, _ = stokes(6, compressibility)
        assert "MultiplicativeSchwarz(subdomains) there, with a set for each" in told(A)
    upwind = sp.diags([-1.0, 1.2, -0.1], [-1, 0, 1], shape=(50, 50)).tocsr()
    assert "far from symmetric, as in a flow problem; use ILU() there" in told(upwind)
    hermitian = sp.csr_matrix(second(50) + 1j * (sp.eye(50, k=1) - sp.eye(50, k=-1)))
    assert told(hermitian) == ""


def test_levels_of_other_kinds():
    A = grid((7, 9), (100, 1))
    tensor = Level(torch.tensor(A.toarray()), Jacobi(), shape=(7, 9))
    cubic = Level(lambda u: A @ u + u**3, Jacobi(), linearize=lambda u: A, shape=(7, 9))
    for level in (tensor, cubic):
        assert "axes=0" in stronger_smoother(level, np.zeros(63))
    assert stronger_smoother(Level(lambda u: u, Jacobi()), np.zeros(63)) == ""


def test_who_follows_converges():
    """As told by `explain` of a solve that stalls."""
    n, sizes = 63, [63, 31, 15, 7, 3]
    P = [interpolation_matrix(m, degree=1) for m in sizes[1:]]
    P = [sp.csr_matrix(sp.kron(p, p)) for p in P]
    matrices = [grid((m, m), (1, 1e-3)) for m in sizes]
    shapes = [(m, m) for m in sizes]
    f = np.random.default_rng(0).standard_normal(n * n)
    stalled = Solver(Hierarchy.from_matrices(matrices, P, shapes=shapes), max_cycles=30).solve(f)
    assert "use LineRelaxation(axes=0) there" in stalled.explain()
    followed = Hierarchy.from_matrices(matrices, P, smoother=LineRelaxation(axes=0), shapes=shapes)
    assert Solver(followed).solve(f).require().cycles < 10
