"""The blocks of the inputs are those of the dense `J^T J`, in whatever form J comes."""

from functools import partial

import numpy as np
import pytest
import torch

from mgnet.knots import KAN, knot_transfer, roughness
from mgnet.knots.input_blocks import input_parts, normal_product
from mgnet.knots.jacobian import linearize
from mgnet.knots.local_jacobian import linearize_residual
from mgnet.training import LeastSquares
from mgnet.training.least_squares.jacobian import ProlongedJacobian

GENERATOR = torch.Generator().manual_seed(0)
X = 2.0 * torch.rand(80, 2, generator=GENERATOR, dtype=torch.float64) - 1.0


def jacobian(form, kan):
    if form == "outputs":
        return linearize(kan, X)[1]
    if form == "residual":
        return linearize_residual(kan, lambda own: own(X) ** 2)[1]
    problem = LeastSquares(kan, (X, X[:, :1]), partial(roughness, weight=1e-3))
    if form in ("prolonged", "by layer"):
        layers = [0] if form == "by layer" else None
        problem = problem.with_network(kan.refine(layers=layers))
        _, J = problem.linearize(problem.start())
        transfer = knot_transfer(kan, layers=layers)
        return ProlongedJacobian(J, transfer, sum(u.numel() for u in kan.parameters()))
    return problem.linearize(problem.start())[1]


@pytest.mark.parametrize("form", ["outputs", "residual", "penalty", "prolonged", "by layer"])
@pytest.mark.parametrize(("widths", "n", "degree"), [([2, 3, 1], 6, 2), ([2, 1], 9, 4)])
def test_they_are_those_of_the_dense_matrix(form, widths, n, degree):
    J = jacobian(form, KAN(widths, n, degree))
    parts, A, end = input_parts(J, "test", with_local=True), J.gram().numpy(), 0
    for block in parts.blocks:
        begin = end
        end = begin + (block.intervals + block.degree) * block.outputs
        np.testing.assert_allclose(block.matrix.toarray(), A[begin:end, begin:end], atol=1e-11)
    assert end == J.shape[1] and parts.blocks[0].intervals == n
    own = parts.local.dense().square().sum() / J.shape[1]
    assert parts.scale == pytest.approx(float(own))
    rows = torch.cat([parts.local.dense(), torch.from_numpy(parts.penalty.toarray())])
    np.testing.assert_allclose(rows.T @ rows, A, atol=1e-10)
    d = torch.randn(J.shape[1], generator=GENERATOR, dtype=torch.float64)
    torch.testing.assert_close(normal_product(J, d), J.rmatvec(J.matvec(d)))


def test_a_dense_penalty_does_not_fill_the_bands():
    kan = KAN([2, 1], 200)
    problem = LeastSquares(kan, (X, X[:, :1]), roughness)
    _, J = problem.linearize(problem.start())
    for block in input_parts(J, "test", with_local=False).blocks:
        rows, columns = block.matrix.nonzero()
        assert abs(rows - columns).max() == 3
