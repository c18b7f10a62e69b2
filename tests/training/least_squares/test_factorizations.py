"""Triangles and minimum-norm solutions keep the digits that normal equations lose."""

import torch

from mgnet.training.least_squares.factorizations import minimum_norm, range_basis, triangle

GENERATOR = torch.Generator().manual_seed(0)


def test_triangles_reduce_in_a_row_as_in_a_tree():
    rows = torch.rand(80, 5, generator=GENERATOR, dtype=torch.float64)
    a, b, c, d = rows.split(20)
    whole = rows.T @ rows
    for T in (
        triangle(rows),
        triangle(triangle(triangle(triangle(a), b), c), d),
        triangle(triangle(a, b), triangle(c, d)),
        triangle(triangle(a[:2]), rows[2:]),  # a block with fewer rows than columns
    ):
        assert T.shape == (5, 5)
        torch.testing.assert_close(T.T @ T, whole, rtol=1e-13, atol=1e-13)


def test_batches_lose_no_digits_where_normal_equations_would():
    U = torch.linalg.qr(torch.randn(200, 6, generator=GENERATOR, dtype=torch.float64))[0]
    V = torch.linalg.qr(torch.randn(6, 6, generator=GENERATOR, dtype=torch.float64))[0]
    A = U * torch.logspace(0, -9, 6, dtype=torch.float64) @ V
    W = torch.ones(6, 1, dtype=torch.float64)
    T = torch.empty(0, 7, dtype=torch.float64)
    for block in torch.cat([A, A @ W], 1).split(25):
        T = triangle(T, block)
    torch.testing.assert_close(minimum_norm(T[:, :6], T[:, 6:]), W, rtol=0, atol=1e-5)


def test_rcond_cuts_singular_values_off():
    A = torch.diag(torch.tensor([1.0, 1e-3, 1e-6], dtype=torch.float64))
    b = torch.ones(3, 1, dtype=torch.float64)
    expected = torch.tensor([1.0, 1e3, 0.0], dtype=torch.float64)
    torch.testing.assert_close(minimum_norm(A, b, rcond=1e-4)[:, 0], expected)
    f = torch.tensor(
        [[0.0], [1.0], [1.0]], dtype=torch.float64
    )  # minimises .5 |A W - b|^2 - <f, W>
    expected = torch.tensor([1.0, 1e3 + 1e6, 0.0], dtype=torch.float64)
    torch.testing.assert_close(minimum_norm(A, b, rcond=1e-4, f=f)[:, 0], expected)
    assert range_basis(A, rcond=1e-4).shape == (3, 2)
    assert float(minimum_norm(0.0 * A, b).norm()) == 0.0
