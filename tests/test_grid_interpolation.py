"""Laws: linear weights are known in simple cases; operator weights solve the equations."""

from functools import reduce
from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp

from mgnet import interpolation_matrix
from mgnet.grid_interpolation import (
    GridAxis,
    class_shape,
    classes,
    interpolation,
    linear_weights,
    operator_weights,
    part_of_class,
)
from mgnet.grid_stencils import diffusion_stencils, stencil_arrays, stencil_matrix
from tests.grid_draws import drawn_grid, drawn_stencil, periodic

D, N, CLOSED = ("dirichlet",) * 2, ("neumann",) * 2, ("periodic",) * 2


@pytest.mark.parametrize("points", [(7,), (7, 15), (3, 5, 7)])
def test_linear_weights_between_dirichlet_ends(points):
    axes = tuple(GridAxis(n, D) for n in points)
    expected = reduce(sp.kron, [interpolation_matrix((n - 1) // 2) for n in points])
    assert abs(interpolation(linear_weights(axes), axes) - expected).max() == 0.0


@pytest.mark.parametrize(
    ("axis", "rows"),
    [
        (GridAxis(4, D), [[0.5, 0], [1, 0], [0.5, 0.5], [0, 1]]),
        (GridAxis(3, N), [[1, 0], [0.5, 0.5], [0, 1]]),
        (GridAxis(4, N), [[1, 0], [0.5, 0.5], [0, 1], [0, 1]]),
        (GridAxis(3, ("dirichlet", "neumann")), [[0.5], [1], [1]]),
        (GridAxis(2, ("neumann", "dirichlet")), [[1], [0.5]]),
        (GridAxis(4, CLOSED), [[1, 0], [0.5, 0.5], [0, 1], [0.5, 0.5]]),
        (GridAxis(3, CLOSED), [[1, 0], [0.5, 0.5], [0, 1]]),
        (GridAxis(2, CLOSED), [[1], [1]]),
        (GridAxis(2, N, halved=False), [[1, 0], [0, 1]]),
    ],
)
def test_linear_weights_of_small_axes(axis, rows):
    P = interpolation(linear_weights((axis,)), (axis,))
    np.testing.assert_array_equal(P.toarray(), rows)
    assert P.has_canonical_format


@pytest.mark.parametrize("seed", range(40))
def test_in_one_dimension_the_fine_equations_hold(seed):
    # Then the Galerkin product is the Schur complement of the kept points.
    generator = np.random.default_rng(seed)
    n, ends = int(generator.integers(3, 12)), [D, N, CLOSED, (D[0], N[0]), (N[0], D[0])][seed % 5]
    c = 10.0 ** generator.uniform(-3, 3, n)
    stencils = diffusion_stencils(c, (n,), (ends,))
    stencils[0,] += generator.uniform(0, 1, n)
    A = stencil_matrix(stencils, (n,), periodic([ends])).toarray()
    axis = GridAxis(n, ends)
    P = interpolation(operator_weights(stencils, (axis,)), (axis,)).toarray()
    kept = np.arange(axis.first, n, 2)
    left = np.setdiff1d(np.arange(n), kept)
    np.testing.assert_array_equal(P[kept], np.eye(len(kept)))
    np.testing.assert_allclose((A @ P)[left], 0.0, atol=1e-9 * abs(A).max())


def summed_over(stencil, point, kind):
    """The stencil of a point by loops, summed over the axes along which its index is coarse."""
    found = {}
    for offset in product((-1, 0, 1), repeat=len(point)):
        left = tuple(o if between else 0 for o, between in zip(offset, kind, strict=True))
        value = stencil[tuple(o + 1 for o in offset)][point]
        found[left] = found.get(left, 0.0) + value
    return found


@pytest.mark.parametrize("seed", range(25))
def test_operator_weights_solve_the_summed_equations(seed):
    generator = np.random.default_rng(seed)
    shape, kinds = drawn_grid(generator)
    stencil = drawn_stencil(generator, shape)
    axes = tuple(
        GridAxis(n, ends, bool(generator.random() < 0.8) and n > 1)
        for n, ends in zip(shape, kinds, strict=True)
    )
    stencils = stencil_arrays(stencil, shape, kinds)
    whole = np.zeros((3,) * len(shape) + shape)
    for offset, values in stencils.items():
        whole[tuple(o + 1 for o in offset)] = values
    P = interpolation(operator_weights(stencils, axes), axes).toarray()
    P = P.reshape(*shape, -1)
    for point in np.ndindex(shape):
        kind = tuple(
            int(axis.halved and (k - axis.first) % 2 == 1 and not (axis.seam and k == axis.points))
            for k, axis in zip(point, axes, strict=True)
        )
        if not any(kind):
            assert np.count_nonzero(P[point]) == 1
            continue
        residual = 0.0
        for offset, value in summed_over(whole, point, kind).items():
            there = tuple((k + o) % n for k, o, n in zip(point, offset, shape, strict=True))
            residual = residual + value * P[there]
        np.testing.assert_allclose(residual, 0.0, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_constants_are_interpolated_exactly_where_rows_sum_to_zero(seed):
    generator = np.random.default_rng(seed)
    shape, _ = drawn_grid(generator)
    kinds = tuple(N if generator.random() < 0.5 else CLOSED for _ in shape)
    stencils = diffusion_stencils(10.0 ** generator.uniform(-3, 3, shape), shape, kinds)
    axes = tuple(GridAxis(n, ends, n > 1) for n, ends in zip(shape, kinds, strict=True))
    for weights in (linear_weights(axes), operator_weights(stencils, axes)):
        np.testing.assert_allclose(interpolation(weights, axes).sum(axis=1), 1.0, rtol=1e-9)


@pytest.mark.parametrize("diagonal", [1.5, 1e-9, 0.0, -1.5, 1.5j])
def test_weights_sum_to_one_where_the_diagonal_is_weak(diagonal):  # as in the Helmholtz equation
    stencils = stencil_arrays([-1.0, diagonal, -1.0], (9,), (D,))
    weights = operator_weights(stencils, (GridAxis(9, D),))
    np.testing.assert_allclose(weights[1,][-1,][1:-1], 0.5)
    np.testing.assert_allclose(weights[1,][1,][1:-1], 0.5)


@pytest.mark.parametrize("seed", range(20))
def test_classes_share_out_the_points(seed):
    generator = np.random.default_rng(seed)
    shape, kinds = drawn_grid(generator)
    axes = tuple(GridAxis(n, ends, n > 1) for n, ends in zip(shape, kinds, strict=True))
    numbers, seen = 1.0 + np.arange(np.prod(shape)).reshape(shape), []
    for kind in classes(axes):
        part = part_of_class(numbers, kind, axes)
        assert part.shape == class_shape(kind, axes)
        seen.extend(set(part.ravel()) - {0.0})
    assert sorted(seen) == sorted(numbers.ravel())
