"""Stages with rows of the matrix and stages with the residual of the level give the same sweep."""

import numpy as np
import pytest
import scipy.sparse as sp

from mgnet import Jacobi, Level
from mgnet.subspace_corrections import Stage, corrected, has_rows, solve_dtype
from tests.smoother_laws import drawn, kinds_of_level


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_both_ways_are_one_sweep(dtype, start):
    A, u, f = drawn(9, dtype)
    u = u * dtype(start)
    parts = np.array([4, 1, 7]), np.array([0, 1, 8, 2])
    level = Level(A, Jacobi())
    for rhs in (f, None):
        expected = u
        for _ in range(2):
            for part in parts:
                r = (0 * f if rhs is None else rhs) - A @ expected
                expected = expected.copy()
                expected[part] += r[part] / dtype(4)
        for rows in (True, False):
            stages = [
                Stage(part, lambda r: r / r.dtype.type(4), A[part] if rows else None)
                for part in parts
            ]
            result = corrected(level, u, rhs, stages, 2)
            assert result.dtype == dtype and not np.shares_memory(result, u)
            np.testing.assert_allclose(
                result, expected, rtol=1e-5 if dtype == np.float32 else 1e-13
            )


def test_which_levels_have_rows():
    A = drawn(5)[0]
    found = {kind: has_rows(level) for kind, level in kinds_of_level(A, Jacobi()).items()}
    rows = dict.fromkeys(("csr", "csc", "coo", "dense"), True)
    assert found == {**rows, "function": False, "residual": False}


@pytest.mark.parametrize(
    ("matrix", "state", "expected"),
    [
        ("f4", "f4", "f4"),
        ("f4", "f8", "f8"),
        ("i4", "f4", "f8"),
        ("f8", "c8", "c16"),
        ("f8", "g", "f8"),
        ("c8", "f4", "c8"),
    ],
)
def test_the_precision_of_small_solves(matrix, state, expected):
    assert solve_dtype(sp.eye(2, dtype=matrix), np.zeros(2, state)) == np.dtype(expected)
