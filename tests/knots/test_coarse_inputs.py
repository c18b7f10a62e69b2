"""The coarse matrix is the Galerkin product; inputs that stay long are left out."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mgnet.knots import KAN
from mgnet.knots.coarse_inputs import CoarseInputs, halved
from mgnet.knots.local_jacobian import linearize_residual
from mgnet.knots.refinement import refinement_matrix

X = 2.0 * torch.rand(60, 2, generator=torch.Generator().manual_seed(0)).double() - 1.0


@pytest.mark.parametrize(("n", "coarse"), [(16, 4), (12, 6), (5, 5)])
def test_it_is_the_galerkin_product(n, coarse):
    _, J = linearize_residual(KAN([2, 3, 1], n, degree=2), lambda kan: kan(X))
    penalty = sp.random(7, J.shape[1], 0.3, random_state=0, format="csr")
    made = CoarseInputs.of(J, penalty, 4)
    one = np.eye(n + 2) if n == coarse else refinement_matrix(coarse, 2, n // coarse).toarray()
    P = sp.block_diag(2 * [np.kron(one, np.eye(3))] + 3 * [one]).toarray()
    rows = np.vstack([J.dense().numpy(), penalty.toarray()])
    A = P.T @ (rows.T @ rows + 0.1 * np.eye(len(P))) @ P
    np.testing.assert_allclose(made.gram + 0.1 * made.identity, A, atol=1e-12)
    r = np.random.default_rng(0).standard_normal(len(P))
    expected = P @ np.linalg.solve(A, P.T @ r)
    np.testing.assert_allclose(made.inverse(0.1)(torch.from_numpy(r)), expected, rtol=1e-8)


def test_inputs_that_stay_long_are_left_out():
    _, J = linearize_residual(KAN([2, 1], 33), lambda kan: kan(X))
    made = CoarseInputs.of(J, sp.csr_matrix((0, J.shape[1])), 8)
    assert made.joined == (False, False)
    r = torch.ones(72, dtype=torch.float64)
    assert not made.inverse(1.0)(r).any()


@pytest.mark.parametrize(("n", "left"), [(1, 1), (15, 15), (16, 8), (24, 12), (4096, 8)])
def test_how_often_intervals_are_halved(n, left):
    assert halved(n, 8) == left
