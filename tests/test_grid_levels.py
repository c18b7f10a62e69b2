"""Law: cycles on the hierarchies of `Hierarchy.geometric` converge fast, whatever the grid."""

import numpy as np
import pytest
import scipy.sparse as sp

from mgnet import CG, GaussSeidel, Hierarchy, LineRelaxation, Solver, gallery
from mgnet.grid_levels import grid_levels
from tests.grid_draws import drawn_grid, drawn_stencil

LINES = {
    "smoother": LineRelaxation(),
    "post_smoother": LineRelaxation(direction="backward"),
}


def factor(hierarchy, cycle="V(1,1)"):
    """The mean factor of the residual per cycle in the last half of a solve."""
    A = hierarchy[0].matrix
    f = A @ np.random.default_rng(1).standard_normal(A.shape[0])
    history = Solver(hierarchy, cycle, rtol=1e-9, max_cycles=40).solve(f).history
    r = [record.residual_norm for record in history]
    half = (len(r) - 1) // 2
    return (r[-1] / r[half]) ** (1 / (len(r) - 1 - half))


@pytest.mark.parametrize("seed", range(12))
def test_every_boundary_and_size(seed):
    generator = np.random.default_rng(seed)
    _, kinds = drawn_grid(generator)
    points = int(generator.integers(*{1: (1000, 2000), 2: (40, 90), 3: (16, 30)}[len(kinds)]))
    shape = tuple(points + int(more) for more in generator.integers(0, 3, len(kinds)))
    for c in (1.0, 10.0 ** generator.uniform(-0.5, 0.5, shape)):
        hierarchy = Hierarchy.geometric(shape, coefficients=c, boundary=kinds)
        assert len(hierarchy) > 3 if len(kinds) == 1 else len(hierarchy) > 2
        assert factor(hierarchy) < 0.45


@pytest.mark.parametrize("boundary", ["dirichlet", "neumann", "periodic"])
@pytest.mark.parametrize("n", [48, 96])
def test_jumps_of_a_million(boundary, n):
    # Squares of 8 x 8 points, each with the one coefficient or the other.
    high = np.random.default_rng(3).integers(0, 2, (n // 8, n // 8))
    c = np.kron(10.0 ** (6.0 * high), np.ones((8, 8)))
    options = {"coefficients": c, "boundary": boundary}
    assert factor(Hierarchy.geometric((n, n), **options)) < 0.5
    if n == 96:
        assert factor(Hierarchy.geometric((n, n), interpolation="linear", **options)) > 0.8


@pytest.mark.parametrize("n", [64, 129])
def test_a_chessboard_of_jumps_by_lines(n):
    c = np.where(np.indices((n, n + 3)).__floordiv__(5).sum(axis=0) % 2, 1e6, 1.0)
    assert factor(Hierarchy.geometric((n, n + 3), coefficients=c, **LINES)) < 0.15


@pytest.mark.parametrize("epsilon", [1e-1, 1e-3, 1e-6])
def test_weak_axes_are_not_halved(epsilon):
    hierarchy = Hierarchy.geometric((64, 65), coefficients=(epsilon, 1.0))
    assert hierarchy[1].shape == (64, 32)
    assert factor(hierarchy) < 0.25
    full = Hierarchy.geometric((64, 65), coefficients=(epsilon, 1.0), coarsen=(0, 1), **LINES)
    assert full[1].shape == (32, 32)
    assert factor(full) < 0.1


def upwind(n, epsilon, angle):
    """`-epsilon Laplacian u + wind . grad u` by upwind differences, times h^2."""
    h, stencil = 1 / (n + 1), np.zeros((3, 3))
    for axis, wind in enumerate((np.cos(angle), np.sin(angle))):
        line = np.moveaxis(stencil, axis, 0)[:, 1]
        line += [
            -epsilon - h * max(wind, 0),
            2 * epsilon + h * abs(wind),
            -epsilon + h * min(wind, 0),
        ]
    return stencil


@pytest.mark.parametrize("epsilon", [1e-2, 1e-5])
@pytest.mark.parametrize("angle", [0.5, -0.8, 2.0])
def test_convection(epsilon, angle):
    smoother = GaussSeidel("symmetric")
    hierarchy = Hierarchy.geometric((63, 63), upwind(63, epsilon, angle), smoother=smoother)
    assert factor(hierarchy) < 0.5


def test_a_matrix_of_the_user():
    A = gallery.poisson((63, 40), levels=1)[0].matrix
    hierarchy = Hierarchy.geometric((63, 40), A)
    assert hierarchy[0].matrix is A
    assert factor(hierarchy) < 0.4
    whole = Hierarchy.geometric((9, 9), sp.eye(81, dtype=int) * 4)
    assert whole[0].matrix.dtype == float
    other = Hierarchy.geometric((63, 40), sp.coo_matrix(A))
    assert abs(other[1].matrix - hierarchy[1].matrix).max() < 1e-15


def test_the_singular_matrix_of_a_user_is_seen():
    A = Hierarchy.geometric((40, 40), coefficients=1.0, boundary="neumann", levels=1)[0].matrix
    assert grid_levels((40, 40), A, None, "dirichlet", None, None, "auto").singular
    assert factor(Hierarchy.geometric((40, 40), A)) < 0.3


def test_constants_must_be_null_vectors_of_the_transpose_too():
    wind = np.abs(np.sin(np.arange(20.0))) + 0.1
    stencil = np.array([-1.0 - wind, 2.0 + wind, np.full(20, -1.0)])
    levels = grid_levels(20, stencil, None, "periodic", None, None, "auto")
    np.testing.assert_allclose(levels.matrices[0].sum(axis=1), 0.0, atol=1e-12)
    assert not levels.singular


@pytest.mark.parametrize("seed", range(10))
def test_the_laws_of_hierarchies_hold(seed):
    generator = np.random.default_rng(seed)
    shape, kinds = drawn_grid(generator)
    stencil = drawn_stencil(generator, shape)
    hierarchy = Hierarchy.geometric(shape, stencil, boundary=kinds)
    assert hierarchy.nested
    hierarchy.check(np.zeros(np.prod(shape)))
    for level in hierarchy:
        assert level.unknowns == np.prod(level.shape)


@pytest.mark.parametrize("interpolation", ["linear", "operator"])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.complex128])
def test_the_precision_is_kept(interpolation, dtype):
    c = (1.0 + np.random.default_rng(0).random((40, 30))).astype(dtype)
    c = c * (1.0 + 0.5j) if np.dtype(dtype).kind == "c" else c
    hierarchy = Hierarchy.geometric(
        (40, 30), coefficients=c.astype(dtype), interpolation=interpolation
    )
    assert all(level.matrix.dtype == dtype for level in hierarchy)
    A = hierarchy[0].matrix
    f = A @ np.ones(A.shape[0], dtype)
    solution = Solver(hierarchy, rtol=1e-4).solve(f)
    assert solution.reason.name == "RTOL"
    np.testing.assert_allclose(solution.value, 1.0, atol=0.05)


def test_arrays_need_not_be_contiguous():
    c = np.random.default_rng(0).random((60, 80)) + 0.1
    ours = Hierarchy.geometric((30, 40), coefficients=c[::2, ::2])
    same = Hierarchy.geometric([30, 40], coefficients=np.asfortranarray(c[::2, ::2]))
    assert abs(ours[1].matrix - same[1].matrix).max() == 0.0


def test_coarsest_levels():
    assert Hierarchy.geometric((100, 100), coefficients=1.0)[-1].unknowns <= 300
    assert len(Hierarchy.geometric((100, 100), coefficients=1.0, levels=7)) == 7
    assert len(Hierarchy.geometric(1, [0.0, 1.0, 0.0])) == 1
    assert len(Hierarchy.geometric((90, 9), coefficients=1.0, coarsen=1)) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "neither a stencil nor coefficients"),
        ({"coefficients": 1.0, "stencil": np.ones((3, 3))}, "both a stencil and coefficients"),
        ({"coefficients": 1.0, "coarsen": (2,)}, "an axis from 0 to 1"),
        ({"coefficients": 1.0, "coarsen": "all"}, "an axis from 0 to 1"),
        ({"coefficients": 1.0, "levels": 9}, "at most 5"),
        ({"coefficients": 1.0, "levels": 0}, "positive integer"),
        ({"coefficients": 1.0, "interpolation": "cubic"}, "'auto', 'linear' or 'operator'"),
        ({"stencil": sp.eye(3, format="csr") * np.nan}, "NaN"),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        Hierarchy.geometric((20, 20), **options)


@pytest.mark.parametrize("phase", [0.1, 0.3, 1.0])
def test_hermitian_stencils_stay_so_on_all_levels_as_cg_needs(phase):
    turn = np.exp(1j * phase)
    stencil = np.array([[0, -1, 0], [-turn.conj(), 4, -turn], [0, -1, 0]])
    hierarchy = Hierarchy.geometric((31, 30), stencil)
    for level in hierarchy:
        assert abs(level.matrix - level.matrix.conj().T).max() < 1e-12
    for fine, coarse in zip(hierarchy[:-1], hierarchy[1:], strict=True):
        P = fine.transfer.P
        assert abs(P.conj().T @ fine.matrix @ P - coarse.matrix).max() < 1e-12
    f = np.random.default_rng(0).standard_normal(930)
    assert Solver(hierarchy, acceleration=CG()).solve(f).reason.converged


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
@pytest.mark.parametrize("seed", range(5))
def test_entries_that_overflow_are_refused(seed):
    generator = np.random.default_rng(seed)
    dtype = (np.float32, np.float64)[seed % 2]
    largest = np.finfo(dtype).max
    c = (largest * generator.uniform(0.2, 1.0, (20, 30))).astype(dtype)
    stencil = np.full((3, 3), -largest / 8, dtype)
    stencil[1, 1] = largest
    for options in ({"coefficients": (c, c)}, {"coefficients": c[0, 0]}, {"stencil": stencil}):
        with pytest.raises(ValueError, match="scale the equations"):
            Hierarchy.geometric((20, 30), boundary="neumann", **options)
    with pytest.raises(ValueError, match="scale the equations"):
        Hierarchy.geometric(30, coefficients=dtype(largest))


@pytest.mark.parametrize("what", ["coefficients", "stencil"])
def test_masked_entries_are_refused(what):
    values = np.random.default_rng(0).random((20, 30) if what == "coefficients" else (3, 3)) + 1.0
    values = np.ma.masked_array(values, values > 1.5)
    with pytest.raises(ValueError, match="masked"):
        Hierarchy.geometric((20, 30), **{what: values})
    Hierarchy.geometric((20, 30), **{what: values.filled(1.0)})


def test_a_mat_is_refused(petsc):
    A = petsc.Mat().createAIJ((9, 9), comm=petsc.COMM_SELF)
    with pytest.raises(TypeError, match="got a PETSc Mat; give a SciPy matrix"):
        Hierarchy.geometric((3, 3), A)
