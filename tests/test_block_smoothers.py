"""Block relaxation is its matrix splitting, and PyAMG's; blocks of one are point relaxation."""

from functools import partial

import numpy as np
import pyamg
import pytest
import scipy.linalg as la
import scipy.sparse as sp
from pyamg.relaxation.relaxation import block_gauss_seidel, block_jacobi

from mgnet import (
    BlockGaussSeidel,
    BlockJacobi,
    GaussSeidel,
    Hierarchy,
    Jacobi,
    Level,
    Solver,
    gallery,
    kernels,
)
from mgnet.options import parse_smoother
from tests.smoother_laws import check_laws, drawn, kinds_of_level, swept

DIRECTIONS = ["forward", "backward", "symmetric"]


def splitting(smoother, A):
    """List the matrices M of the half sweeps u + M^-1 (f - A u)."""
    n, sizes = len(A), smoother.sizes
    sizes = sizes if isinstance(sizes, tuple) else (sizes,) * (n // sizes)
    mask = la.block_diag(*(np.ones((k, k)) for k in sizes))
    D = np.where(mask, A, 0)
    if isinstance(smoother, BlockJacobi):
        return [D / smoother.omega]
    lower, upper = np.where(mask, A, np.tril(A)), np.where(mask, A, np.triu(A))
    parts = {"forward": [lower], "backward": [upper], "symmetric": [lower, upper]}
    return parts[smoother.direction]


def by_hand(smoother):
    def sweep(A, u, f):
        for M in splitting(smoother, A):
            u = u + np.linalg.solve(M, f - A @ u)
        return u

    return sweep


@pytest.mark.parametrize("numba", [True, False], ids=["numba", "SciPy"])
@pytest.mark.parametrize(
    "smoother",
    [
        BlockJacobi(3),
        BlockJacobi((1, 4, 2, 5), 0.9),
        *(BlockGaussSeidel(3, direction) for direction in DIRECTIONS),
        *(BlockGaussSeidel((5, 1, 2, 4), direction) for direction in DIRECTIONS),
        BlockGaussSeidel(12),
    ],
    ids=str,
)
def test_a_sweep_is_its_splitting(monkeypatch, smoother, numba):
    monkeypatch.setattr(kernels, "available", numba and kernels.available)
    check_laws(smoother, by_hand(smoother), 12)


def test_blocks_without_a_pivot_on_the_diagonal():
    """A saddle point: zeros on the diagonal, but no singular block."""
    A = np.kron(np.eye(4), [[0.0, 1.0], [1.0, 0.0]]) + np.roll(np.eye(8), 2, axis=0) * 0.1
    u, f = np.zeros(8), np.arange(8.0)
    for smoother in (BlockJacobi(2), *(BlockGaussSeidel(2, way) for way in DIRECTIONS)):
        for kind, level in kinds_of_level(sp.csr_matrix(A), smoother).items():
            result = swept(smoother, level, u, f)
            np.testing.assert_allclose(result, by_hand(smoother)(A, u, f), atol=1e-13, err_msg=kind)


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_pyamg_gives_the_same(size, dtype):
    A, u, f = drawn(16, dtype)
    bsr = sp.bsr_matrix(A, blocksize=(size, size))
    bsr.sort_indices()
    ours = [BlockJacobi(omega=0.7), *map(partial(BlockGaussSeidel, None), DIRECTIONS)]
    theirs = [partial(block_jacobi, omega=0.7, blocksize=size)]
    theirs += [partial(block_gauss_seidel, sweep=way, blocksize=size) for way in DIRECTIONS]
    for smoother, relax in zip(ours, theirs, strict=True):
        expected = u.copy()
        relax(bsr, expected, f, iterations=2)
        result = swept(smoother, Level(bsr, smoother), u, f, 2)
        np.testing.assert_allclose(result, expected, rtol=1e-11, atol=1e-11)


def test_blocks_of_one_are_points():
    level, (u, f) = gallery.poisson((7, 7))[0], np.random.default_rng(0).standard_normal((2, 49))
    for block, point in (
        (BlockJacobi(1, 0.8), Jacobi(0.8)),
        *((BlockGaussSeidel(1, way), GaussSeidel(way)) for way in DIRECTIONS),
    ):
        np.testing.assert_allclose(swept(block, level, u, f), swept(point, level, u, f), atol=1e-13)


def test_elasticity_on_a_hierarchy_of_pyamg():
    """Blocks of 2 on the finest level, of 3 on coarser ones, as the BSR matrices have them."""
    A, B = pyamg.gallery.linear_elasticity((20, 20), format="bsr")
    levels = pyamg.smoothed_aggregation_solver(A, B=B, max_coarse=20)
    assert [level.A.blocksize for level in levels.levels[:2]] == [(2, 2), (3, 3)]
    f = np.random.default_rng(0).standard_normal(A.shape[0])
    cycles = []
    for pair in (
        (GaussSeidel(), GaussSeidel("backward")),
        (BlockGaussSeidel(), BlockGaussSeidel(direction="backward")),
    ):
        solution = Solver(Hierarchy.from_pyamg(levels, *pair), "V(1,1)", max_cycles=200).solve(f)
        cycles.append(solution.require().cycles)
    assert cycles[1] <= cycles[0]


def test_a_nonlinear_level():
    A, u, f = drawn(8)
    for smoother in (BlockJacobi(2), BlockGaussSeidel((3, 5), "symmetric")):
        level = Level(lambda u: A @ u + u**3, smoother, linearize=lambda u: A + sp.diags(3 * u**2))
        J, expected = (A + sp.diags(3 * u**2)).toarray(), u
        for M in splitting(smoother, J):
            expected = expected + np.linalg.solve(M, f - (A @ expected + expected**3))
        np.testing.assert_allclose(swept(smoother, level, u, f), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "smoother",
    [BlockJacobi(), BlockJacobi((1, 2), 0.5), BlockGaussSeidel(), BlockGaussSeidel(3, "backward")],
)
def test_text(smoother):
    assert parse_smoother(repr(smoother)) == smoother
    assert hash(smoother) == hash(parse_smoother(repr(smoother)))


def test_many_blocks_do_not_fill_a_table():
    assert str(BlockJacobi((2,) * 500)) == "BlockJacobi(500 blocks, 0.666667)"
    assert str(BlockGaussSeidel((2, 1))) == "BlockGaussSeidel((2, 1), 'forward')"
    assert str(BlockJacobi()) == "BlockJacobi(None, 0.666667)"


@pytest.mark.parametrize("kind", [BlockJacobi, BlockGaussSeidel])
@pytest.mark.parametrize("sizes", [0, -1, 2.0, "2", (), (1, 0), [2, 2], True, (2, "x")])
def test_sizes_that_are_none(kind, sizes):
    with pytest.raises(ValueError, match=f"{kind.__name__} got sizes .*; give the unknowns of a"):
        kind(sizes)


def test_other_parameters_are_checked():
    with pytest.raises(ValueError, match="omega -1.0; give a number above 0"):
        BlockJacobi(2, -1.0)
    with pytest.raises(ValueError, match="direction 'up'; it must be"):
        BlockGaussSeidel(2, "up")


@pytest.mark.parametrize("kind", [BlockJacobi, BlockGaussSeidel])
@pytest.mark.parametrize(
    ("sizes", "matrix", "why"),
    [
        (5, sp.eye(12).tocsr(), "12 unknowns are not a multiple of the block size 5; give a tuple"),
        ((6, 5), sp.eye(12).tocsr(), "the blocks have 11 unknowns in all, but the level has 12"),
        ((6, 7), sp.eye(12).tocsr(), "the blocks have 13 unknowns in all, but the level has 12"),
        (None, sp.eye(12).tocsr(), "no sizes, and its matrix is not a SciPy BSR matrix"),
        (None, np.eye(12), "no sizes, and its matrix is not a SciPy BSR matrix"),
        (
            None,
            sp.bsr_matrix(np.eye(12), blocksize=(2, 3)),
            r"blocks of shape \(2, 3\); give square ones",
        ),
        (
            4,
            sp.diags([1.0] * 5 + [0.0] + [1.0] * 6).tocsr(),
            "of unknowns 4, 5, 6, 7 is sing",
        ),
        (6, sp.csr_matrix(np.kron(np.eye(6), np.ones((2, 2)))), "of unknowns 0, 1, 2, 3, ... is"),
    ],
)
def test_blocks_that_do_not_fit(kind, sizes, matrix, why):
    smoother = kind(sizes)
    level = Level(matrix, smoother, name="level 2")
    with pytest.raises(ValueError, match=f"{kind.__name__}.* on level 2.*{why}"):
        smoother.start(level, np.zeros(12))
