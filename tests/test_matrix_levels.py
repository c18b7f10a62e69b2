"""Levels of matrices carry names, shapes and both smoothers."""

import numpy as np
import pytest

from mgnet import Direct, Jacobi
from mgnet.matrix_levels import matrix_levels

A, P = np.diag([2.0, 2.0, 2.0]), np.ones((3, 1))


def test_parts():
    smoothers = Jacobi(0.5), Jacobi(0.25), Direct()
    fine, coarse = matrix_levels([A, P.T @ A @ P], [P], [2.0 * P.T], smoothers, [(3,), (1,)])
    assert (fine.smoother, fine.post_smoother, coarse.smoother) == smoothers
    assert (fine.name, coarse.name, fine.shape) == ("level 0", "level 1", (3,))
    assert fine.transfer.restrict(np.ones(3)) == [6.0] and coarse.transfer is None


@pytest.mark.parametrize(
    ("matrices", "up", "down", "shapes"),
    [([], [], None, None), ([A], [P], None, None), ([A, A], [P], [], None), ([A], [], None, [])],
)
def test_numbers_that_do_not_fit(matrices, up, down, shapes):
    with pytest.raises(ValueError, match="from_matrices got"):
        matrix_levels(matrices, up, down, (Jacobi(), None, Direct()), shapes)
