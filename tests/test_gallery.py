"""Model problems are second-order discretisations of their equations, on every level."""

import numpy as np
import pyamg
import pytest
import scipy.optimize as so
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from mgnet import Direct, GaussSeidel, Jacobi, Solver, gallery, interpolation_matrix

SHAPES = [5, (5,), (3, 5), (7, 7), (3, 5, 7)]


@pytest.mark.parametrize(
    ("coarse", "fine"), [(31, 63), ((15, 15), (31, 31)), ((7, 7, 7), (15, 15, 15))]
)
def test_the_discretisation_is_of_second_order(coarse, fine):
    errors = []
    for shape in (coarse, fine):
        u, f = gallery.sine(shape)
        discrete = spla.spsolve(gallery.poisson(shape, levels=1)[0].matrix.tocsc(), f)
        errors.append(abs(discrete - u).max())
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.02)
    assert errors[1] < 5e-3


@pytest.mark.parametrize("n", [3, 8, 15])
def test_two_dimensions_are_the_five_point_formula(n):
    ours = gallery.poisson((n, n), levels=1)[0].matrix
    theirs = pyamg.gallery.poisson((n, n), format="csr")
    np.testing.assert_allclose(ours.toarray(), theirs.toarray(), atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_differences_are_exact_on_quadratics(shape):
    # x (1 - x) y (1 - y) ...: second differences are exact in each direction.
    shape = (shape,) if isinstance(shape, int) else shape
    x = np.meshgrid(*(np.arange(1, n + 1) / (n + 1) for n in shape), indexing="ij")
    bubbles = [t * (1 - t) for t in x]
    volume = np.prod([1 / (n + 1) for n in shape])
    source = sum(
        2 * np.prod([1.0 + 0 * x[0], *bubbles[:k], *bubbles[k + 1 :]], axis=0)
        for k in range(len(shape))
    )
    A = gallery.poisson(shape, levels=1)[0].matrix
    u = np.prod(bubbles, axis=0)
    np.testing.assert_allclose(A @ u.ravel(), volume * source.ravel(), rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_matrix_is_symmetric_positive_definite(shape):
    A = gallery.poisson(shape, levels=1)[0].matrix
    assert A.format == "csr"
    assert abs(A - A.T).max() == 0.0
    assert np.linalg.eigvalsh(A.toarray()).min() > 0.0


@pytest.mark.parametrize(
    ("shape", "grids"),
    [
        (15, [(15,), (7,), (3,), (1,)]),
        ((15, 7), [(15, 7), (7, 3), (3, 1)]),
        ((7, 5), [(7, 5), (3, 2)]),
        ((7, 7, 7), [(7, 7, 7), (3, 3, 3), (1, 1, 1)]),
        (2, [(2,)]),
    ],
)
@pytest.mark.parametrize("make", [gallery.poisson, gallery.reaction])
def test_levels_are_the_same_equation_on_halved_grids(make, shape, grids):
    hierarchy = make(shape)
    assert [level.unknowns for level in hierarchy] == [int(np.prod(grid)) for grid in grids]
    for level, grid in zip(hierarchy, grids, strict=True):
        expected = gallery.poisson(grid, levels=1)[0].matrix
        matrix = level.matrix if make is gallery.poisson else level.operator.matrix
        np.testing.assert_array_equal(matrix.toarray(), expected.toarray())
    for fine, coarse in zip(hierarchy[:-1], grids[1:], strict=True):
        P = sp.identity(1)
        for n in coarse:
            P = sp.kron(P, interpolation_matrix(n))
        np.testing.assert_allclose(fine.transfer.P.toarray(), P.toarray())
        assert (fine.transfer.inject is None) == (make is gallery.poisson)


def test_cubic_interpolation_is_made_by_nested_iteration_alone():
    hierarchy = gallery.poisson((31, 31))
    f = np.ones(961)
    for cycle, made in (("V(1,1)", False), ("nested V(1,1)", True)):
        Solver(hierarchy, cycle).solve(f).require()
        parts = [vars(level.transfer.interpolation) for level in hierarchy[:-1]]
        assert ["matrix" in part for part in parts] == [made] * len(parts)


def test_solutions_go_up_by_cubic_interpolation():
    cubic = interpolation_matrix(15, degree=3)
    plane = gallery.poisson((31, 31), levels=2)[0].transfer.interpolation
    coarse = np.random.default_rng(0).standard_normal(225)
    assert plane.shape == (961, 225)
    np.testing.assert_allclose(plane @ coarse, sp.kron(cubic, cubic) @ coarse, atol=1e-14)
    errors = []
    for n in (31, 63):
        fine, coarse = (gallery.sine(k)[0] for k in (n, (n - 1) // 2))
        lifted = gallery.poisson(n, levels=2)[0].transfer.interpolate(coarse)
        errors.append(abs(lifted - fine).max())
    assert errors[0] / errors[1] == pytest.approx(16.0, rel=0.1)


def test_parts_are_placed():
    parts = Jacobi(0.5), GaussSeidel(), Direct("pinv")
    hierarchy = gallery.poisson((7, 7), 2, *parts)
    assert (hierarchy[0].smoother, hierarchy[0].post_smoother) == parts[:2]
    assert hierarchy[1].smoother == parts[2] and len(hierarchy) == 2
    nonlinear = gallery.reaction(7, 1.0, 2, parts[0], parts[2])
    assert [level.smoother for level in nonlinear] == [parts[0], parts[2]]


@pytest.mark.parametrize("shape", [15, (7, 7)])
def test_the_reaction_term(shape):
    level = gallery.reaction(shape, strength=3.0, levels=1)[0]
    size = level.unknowns
    volume = np.prod([1 / (n + 1) for n in np.atleast_1d(shape)])
    u = np.random.default_rng(0).standard_normal(size)
    A = gallery.poisson(shape, levels=1)[0].matrix
    np.testing.assert_allclose(level.operator(u), A @ u + 3.0 * volume * u**3, rtol=1e-12)
    gradient = so.approx_fprime(u, level.objective)
    np.testing.assert_allclose(gradient, level.operator(u), rtol=1e-4, atol=1e-4)
    step = 1e-6
    columns = [
        (level.operator(u + step * e) - level.operator(u - step * e)) / (2 * step)
        for e in np.eye(size)
    ]
    np.testing.assert_allclose(level.linearize(u).toarray().T, columns, rtol=1e-6, atol=1e-6)


def test_the_injection_picks_coarse_points():
    fine, _ = gallery.reaction((7, 5), levels=2)
    values = np.arange(35.0).reshape(7, 5)
    np.testing.assert_array_equal(fine.transfer.inject(values.ravel()), values[1::2, 1::2].ravel())


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: gallery.poisson(0), r"gallery got shape \(0,\)"),
        (lambda: gallery.poisson((3, 3, 3, 3)), "give 1 to 3 positive integers"),
        (lambda: gallery.poisson(()), r"gallery got shape \(\)"),
        (lambda: gallery.poisson((3, 2.5)), r"gallery got shape \(3, 2.5\)"),
        (lambda: gallery.poisson(7, levels=4), r"gallery got 4 levels for shape \(7,\); .* is 3"),
        (lambda: gallery.poisson(6), r"gallery got shape \(6,\), which has no coarser grid"),
        (lambda: gallery.poisson(7, levels=0), "gallery got 0 levels"),
        (lambda: gallery.reaction(7, -1.0), "reaction got strength -1.0; it must not be negative"),
    ],
)
def test_refusals(make, why):
    with pytest.raises(ValueError, match=why):
        make()


def peaks_function(x, y):
    """MATLAB's `peaks`, as its documentation prints it."""
    return (
        3 * (1 - x) ** 2 * np.exp(-(x**2) - (y + 1) ** 2)
        - 10 * (x / 5 - x**3 - y**5) * np.exp(-(x**2) - y**2)
        - 1 / 3 * np.exp(-((x + 1) ** 2) - y**2)
    )


@pytest.mark.parametrize(("samples", "classes"), [(1000, 5), (23, 3), (40, 20)])
def test_peaks_are_level_sets(samples, classes):
    x, labels = gallery.peaks(samples, classes, np.random.default_rng(3))
    assert x.shape == (samples, 2) and labels.dtype == np.int64
    counts = np.bincount(labels, minlength=classes)
    assert len(counts) == classes and counts.max() - counts.min() <= 1
    ends = [  # of the function on the square, polished from the best point of a grid
        sign * so.minimize(lambda p, s=sign: s * peaks_function(*p), start, tol=1e-12).fun
        for sign, start in ((1, (0.23, -1.63)), (-1, (-0.01, 1.58)))
    ]
    edges = np.linspace(*ends, classes + 1)
    values = peaks_function(*(3.0 * x.T))
    assert (edges[labels] - 1e-6 <= values).all() and (values <= edges[labels + 1] + 1e-6).all()
    again = gallery.peaks(samples, classes, np.random.default_rng(3))
    assert np.array_equal(again[0], x) and np.array_equal(again[1], labels)
    assert (labels[: samples // 2] != np.sort(labels)[: samples // 2]).any()


@pytest.mark.parametrize(("samples", "classes"), [(3, 5), (100, 1), (100, 21)])
def test_peaks_of_wrong_numbers(samples, classes):
    with pytest.raises(ValueError, match=f"{samples} samples of {classes} classes"):
        gallery.peaks(samples, classes)
