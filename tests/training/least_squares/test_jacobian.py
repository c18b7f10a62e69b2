"""Every Jacobian operator multiplies like the dense matrix that it stands for."""

import pytest
import torch

from mgnet import MatrixTransfer
from mgnet.training.least_squares.jacobian import (
    DenseJacobian,
    ProlongedJacobian,
    SparseJacobian,
    StackedJacobian,
    squared,
)

GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


A, B, P = draw(7, 5), draw(4, 5) * (draw(4, 5) > 0.5), draw(5, 2)
STACKED = StackedJacobian(((0.5, DenseJacobian(A)), (3.0, SparseJacobian(B))))
CASES = {
    "dense": (DenseJacobian(A), A),
    "sparse": (SparseJacobian(B), B),
    "sparse, of a sparse tensor": (SparseJacobian(B.to_sparse()), B),
    "stacked": (STACKED, torch.cat([0.5 * A, 3.0 * B])),
    "prolonged": (
        ProlongedJacobian(STACKED, MatrixTransfer(P), 2),
        torch.cat([0.5 * A, 3.0 * B]) @ P,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_its_matrix(name):
    J, matrix = CASES[name]
    rows, columns = J.shape
    assert (rows, columns) == matrix.shape
    d, y = draw(columns), draw(rows)
    for _ in range(2):  # what is cached is not changed by its use
        torch.testing.assert_close(J.matvec(d), matrix @ d)
        torch.testing.assert_close(J.rmatvec(y), matrix.T @ y)
        torch.testing.assert_close(J.gram(), matrix.T @ matrix)
        torch.testing.assert_close(J.dense(), matrix)
        torch.testing.assert_close(J.squares(), matrix.square().sum(0))


@pytest.mark.parametrize("columns", [1, 64, 65, 200])
def test_the_square_by_panels(columns):
    A = draw(30, columns)
    torch.testing.assert_close(squared(A), A.T @ A)
