"""Law: the matrix of a stencil multiplies as the stencil does on the padded grid."""

from itertools import product

import numpy as np
import pyamg
import pytest
import scipy.sparse as sp

from mgnet import gallery, grid_stencils
from mgnet.grid_stencils import (
    boundary_kinds,
    diffusion_stencils,
    grid_shape,
    stencil_arrays,
    stencil_matrix,
)
from mgnet.matrix_stencils import stencils_of_matrix
from tests.grid_draws import drawn_grid, drawn_stencil, padded, periodic


def applied(stencil, u, kinds):
    around = padded(u, kinds)
    return sum(
        stencil[offset]
        * around[tuple(slice(k, k + n) for k, n in zip(offset, u.shape, strict=True))]
        for offset in product((0, 1, 2), repeat=u.ndim)
    )


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("rows", [2**14, 5])
def test_it_multiplies_as_the_stencil_on_the_padded_grid(seed, rows, monkeypatch):
    monkeypatch.setattr(grid_stencils, "ROWS", rows)
    generator = np.random.default_rng(seed)
    shape, kinds = drawn_grid(generator)
    dtype = generator.choice([np.float32, np.float64, np.complex128])
    stencil = drawn_stencil(generator, shape, dtype)
    kept = stencil.copy()
    stencils = stencil_arrays(stencil, shape, kinds)
    A = stencil_matrix(stencils, shape, periodic(kinds))
    assert np.array_equal(stencil, kept)
    assert A.dtype == dtype
    assert A.has_canonical_format
    assert sp.csr_matrix((A.data, A.indices, A.indptr), A.shape).has_canonical_format
    u = generator.standard_normal(shape)
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(
        (A @ u.ravel()).reshape(shape), applied(stencil, u, kinds), atol=tolerance
    )
    back = stencils_of_matrix(A, shape, periodic(kinds))
    assert abs(stencil_matrix(back, shape, periodic(kinds)) - A).max() == 0.0


@pytest.mark.parametrize("shape", [(7,), (4, 6), (3, 4, 5), (1, 5)])
def test_constant_stencils_are_those_of_pyamg(shape):
    stencil = np.random.default_rng(0).standard_normal((3,) * len(shape))
    kinds = boundary_kinds("dirichlet", len(shape))
    ours = stencil_matrix(stencil_arrays(stencil, shape, kinds), shape, periodic(kinds))
    theirs = pyamg.gallery.stencil_grid(stencil, shape, format="csr")
    assert abs(ours - theirs).max() == 0.0


@pytest.mark.parametrize("shape", [(7,), (4, 6), (3, 4, 5)])
def test_diffusion_with_coefficient_one_is_the_model_problem(shape):
    kinds = boundary_kinds("dirichlet", len(shape))
    ours = stencil_matrix(diffusion_stencils(1.0, shape, kinds), shape, periodic(kinds))
    theirs = gallery.poisson(shape, levels=1)[0].matrix
    np.testing.assert_allclose(ours.toarray(), theirs.toarray(), rtol=1e-13)


@pytest.mark.parametrize("seed", range(30))
def test_fluxes_are_those_of_harmonic_means(seed):
    generator = np.random.default_rng(seed)
    shape, kinds = drawn_grid(generator)
    each = [10.0 ** generator.uniform(-3, 3, shape) for _ in shape]
    A = stencil_matrix(diffusion_stencils(each, shape, kinds), shape, periodic(kinds))
    u = generator.standard_normal(shape)
    widths = [
        1 / (n if "periodic" in ends else n + sum(0.5 * (kind == "dirichlet") for kind in ends))
        for n, ends in zip(shape, kinds, strict=True)
    ]
    total = np.zeros(shape)
    for axis, ends in enumerate(kinds):
        only = [ends if k == axis else ("neumann", "neumann") for k in range(len(shape))]
        around = np.moveaxis(padded(u, only), axis, 0)
        inner = tuple(slice(1, -1) for _ in shape[1:])
        around = around[(slice(None), *inner)]
        beside = ["periodic" if "periodic" in ends else "neumann"] * 2  # the point's own beyond
        c = np.moveaxis(
            padded(
                each[axis], [beside if k == axis else ("neumann",) * 2 for k in range(len(shape))]
            ),
            axis,
            0,
        )[(slice(None), *inner)]
        flux = 2.0 / (1.0 / c[1:] + 1.0 / c[:-1]) * np.diff(around, axis=0) / widths[axis]
        total -= np.moveaxis(np.diff(flux, axis=0), 0, axis) / widths[axis]
    expected = np.prod(widths) * total
    np.testing.assert_allclose(
        (A @ u.ravel()).reshape(shape), expected, rtol=1e-9, atol=1e-9 * abs(expected).max()
    )


@pytest.mark.parametrize("ends", [("dirichlet", "dirichlet"), ("dirichlet", "neumann")])
def test_mixed_ends_are_of_second_order(ends):
    # -u'' = source with u(0) = 0 and u(1) = 0 or u'(1) = 0
    wave = np.pi if ends[1] == "dirichlet" else np.pi / 2
    errors = []
    for n in (20, 40):
        h = 1 / (n + ends.count("dirichlet") / 2)
        x = h * np.arange(1, n + 1)
        A = stencil_matrix(diffusion_stencils(1.0, (n,), (ends,)), (n,), (False,))
        u = np.linalg.solve(A.toarray(), h * wave**2 * np.sin(wave * x))
        errors.append(abs(u - np.sin(wave * x)).max())
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.15)


@pytest.mark.parametrize("largest", [1e300, 1e-300])
def test_means_do_not_overflow(largest):
    c = np.array([largest, 1.0, largest])
    centre = diffusion_stencils(c, (3,), boundary_kinds("neumann", 1))[0,]
    mean = 3.0 * 2.0 * min(largest, 1.0)
    np.testing.assert_allclose(centre, [mean, 2 * mean, mean])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: grid_shape("ab"), "positive integers"),
        (lambda: grid_shape((3, 0)), "positive integers"),
        (lambda: grid_shape((3, 2.0)), "positive integers"),
        (lambda: grid_shape((2, 2, 2, 2)), "1 to 3 axes"),
        (lambda: grid_shape((10**7, 10**7)), "memory"),
        (lambda: boundary_kinds("open", 2), "'dirichlet', 'neumann' or 'periodic'"),
        (lambda: boundary_kinds(["periodic"], 2), "a sequence of 2"),
        (lambda: boundary_kinds([("periodic", "neumann")], 1), "periodic at both"),
        (lambda: boundary_kinds(3, 1), "a sequence of 1"),
        (lambda: stencil_arrays(np.ones((5, 5)), (5, 5), None), "stencil of shape"),
        (lambda: stencil_arrays([1, [2, 3]], (5, 5), None), "rows differ"),
        (lambda: stencil_arrays(np.full(3, np.nan), (5,), None), "NaN"),
        (lambda: stencil_arrays(np.array(["a"] * 3), (5,), None), "must hold numbers"),
        (lambda: diffusion_stencils([1.0, 2.0], (5,), None), "one per axis"),
        (
            lambda: diffusion_stencils(np.ones(4), (5,), boundary_kinds("neumann", 1)),
            "coefficient of shape",
        ),
        (lambda: diffusion_stencils(-1.0, (5,), boundary_kinds("neumann", 1)), "positive ones"),
    ],
)
def test_what_is_refused(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()


def test_the_diagonal_is_stored_where_it_is_zero():
    stencils = stencil_arrays([-1.0, 0.0, 1.0], (4,), boundary_kinds("dirichlet", 1))
    A = stencil_matrix(stencils, (4,), (False,))
    assert A.nnz == 10
    np.testing.assert_array_equal(A.diagonal(), 0.0)


@pytest.mark.parametrize(("n", "offsets"), [(1, {0}), (2, {0, 1}), (3, {-1, 0, 1})])
def test_short_periodic_axes_have_each_neighbor_once(n, offsets):
    kinds = boundary_kinds("periodic", 1)
    A = stencil_matrix(stencil_arrays([-1.0, 3.0, -1.0], (n,), kinds), (n,), (True,))
    assert {offset for (offset,) in stencils_of_matrix(A, (n,), (True,))} == offsets
