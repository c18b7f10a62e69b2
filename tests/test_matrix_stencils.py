"""Law: the stencils of a matrix are those that it was made of; both ways to find them agree."""

import numpy as np
import pytest
import scipy.sparse as sp

from mgnet import matrix_stencils
from mgnet.grid_stencils import stencil_matrix
from mgnet.matrix_stencils import stencils_of_matrix

SHAPES = [(1,), (2,), (7,), (3, 3), (2, 9), (9, 2), (5, 8), (3, 4, 5), (1, 6), (4, 1, 3)]


def same(one, other):
    assert one.keys() == other.keys()
    for offset in one:
        np.testing.assert_array_equal(one[offset], other[offset])


@pytest.mark.parametrize("dtype", [np.float32, float, complex])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_ways_find_what_the_matrix_is_made_of(monkeypatch, shape, dtype):
    """Every entry between neighbors is drawn, in slabs of a few rows, some of them without any."""
    monkeypatch.setattr(matrix_stencils, "ROWS", 4)
    draw = np.random.default_rng(sum(shape))
    points = [index.ravel() for index in np.indices(shape)]
    near = np.ones((points[0].size,) * 2, bool)
    for index in points:
        near &= abs(index[:, None] - index) <= 1
    dense = near * draw.standard_normal(near.shape) * (draw.random(near.shape) < 0.8)
    dense[: len(dense) // 3] = 0.0
    A = sp.csr_matrix(dense.astype(dtype))
    found = stencils_of_matrix(A, shape, (False,) * len(shape))
    same(found, matrix_stencils._by_indices(A, shape, (False,) * len(shape)))
    for row, column in zip(*np.nonzero(dense), strict=True):
        here = tuple(index[row] for index in points)
        offset = tuple(int(index[column] - index[row]) for index in points)
        assert found[offset][here] == A[row, column]
    if all(n > 1 for n in shape):  # where no two offsets lead to the same point
        again = stencil_matrix(found, shape, (False,) * len(shape))
        np.testing.assert_array_equal(again.toarray(), A.toarray())


def test_distances_serve_wherever_three_points_stand_along_all_axes_but_the_first():
    for shape in SHAPES:
        A = sp.identity(int(np.prod(shape)), format="csr")
        fast = matrix_stencils._by_distance(A, shape) is not None
        assert fast == all(n > 2 for n in shape[1:])


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ((4, 5), "row 4 and column 5, which are points 4 apart along axis 1"),
        ((9, 5), "row 9 and column 5, which are points 4 apart along axis 1"),
        ((0, 15), "row 0 and column 15, which are points 3 apart along axis 0"),
    ],
)
def test_lines_do_not_go_on_in_the_next(entry, words):
    A = sp.lil_matrix(sp.identity(20))
    A[entry] = -1.0
    with pytest.raises(ValueError, match=words):
        stencils_of_matrix(sp.csr_matrix(A), (4, 5), (False, False))


@pytest.mark.parametrize(
    ("A", "shape", "words"),
    [
        (sp.eye(4, format="csr"), (5,), "has 5 points"),
        (sp.csr_matrix(np.ones((3, 3))), (3,), "row 0 and column 2, which are points 2 apart"),
    ],
)
def test_what_is_refused(A, shape, words):
    with pytest.raises(ValueError, match=words):
        stencils_of_matrix(A, shape, (False,))


def test_a_matrix_in_two_parts_is_summed_and_not_edited():
    parts = np.array([1.0, 1.0, 2.0]), np.array([0, 0, 1]), np.array([0, 2, 3])
    A = sp.csr_matrix(parts, (2, 2))
    np.testing.assert_array_equal(stencils_of_matrix(A, (2,), (False,))[0,], [2.0, 2.0])
    assert A.nnz == 3


def test_explicit_zeros_may_lie_far_away():
    A = sp.csr_matrix(np.ones((3, 3)))
    A[0, 2] = A[2, 0] = 0.0
    assert sorted(stencils_of_matrix(A, (3,), (False,))) == [(-1,), (0,), (1,)]


def test_zeros_that_are_stored_are_no_stencil():
    A = sp.csr_matrix(sp.diags([1.0, 2.0, 3.0], [-1, 0, 1], shape=(4, 4)))
    A.data[A.data == 3.0] = 0.0
    assert sorted(stencils_of_matrix(A, (4,), (False,))) == [(-1,), (0,)]
