"""Law: the triangle of blocks is that of all rows; the last layer by it is NumPy's."""

from typing import Any

import numpy as np
import pytest
import torch

from mgnet.training import solve_last_layer_ as solve_alone_

X = torch.linspace(-1, 1, 501, dtype=torch.float64).unsqueeze(1)
Y = torch.cat([torch.sin(3 * X), X.exp()], 1)


def network(features: int) -> Any:
    torch.manual_seed(0)
    hidden = torch.nn.Linear(1, features), torch.nn.Tanh()
    return torch.nn.Sequential(*hidden, torch.nn.Linear(features, 2)).double()


@pytest.mark.parametrize("samples", [3, 50, 501])
def test_the_triangle_is_that_of_all_rows(petsc, samples):
    from mgnet.petsc.sample_blocks import SampleBlocks
    from mgnet.petsc.tsqr import tsqr

    A = torch.randn(samples, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    blocks = SampleBlocks(samples, petsc.COMM_SELF)
    T = tsqr(blocks, (A[rows] for rows in blocks.own))
    assert T.shape == (min(samples, 6), 6)
    assert T.equal(T.triu())
    torch.testing.assert_close(T.T @ T, A.T @ A, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("samples", [9, 501])
def test_the_last_layer_is_numpys_of_least_norm(petsc, samples):
    from mgnet.petsc.tsqr import solve_last_layer_

    net = network(12)
    solve_last_layer_(net, (X[:samples], Y[:samples]), rcond=1e-6)
    with torch.no_grad():
        basis = net[:2](X[:samples])
    A = np.column_stack([basis.numpy(), np.ones(samples)])
    expected, _, rank, _ = np.linalg.lstsq(A, Y[:samples].numpy(), rcond=1e-6)
    assert rank < 12
    found = torch.cat([net[2].weight.T, net[2].bias.unsqueeze(0)]).detach().numpy()
    np.testing.assert_allclose(A @ found, A @ expected, atol=1e-5)
    assert np.linalg.norm(found) < 1.001 * np.linalg.norm(expected)


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_it_is_the_layer_of_one_process(petsc, ridge):
    from mgnet.petsc.tsqr import solve_last_layer_

    spread, alone = network(4), network(4)
    solve_last_layer_(spread, (X, Y), ridge=ridge)
    solve_alone_(alone, [(X, Y)], ridge=ridge)
    torch.testing.assert_close(spread[2].weight, alone[2].weight, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(spread(X), alone(X), rtol=1e-10, atol=1e-10)


def test_bad_numbers_and_networks_are_refused(petsc):
    from mgnet.petsc.tsqr import solve_last_layer_

    with pytest.raises(ValueError, match="ridge must not be negative"):
        solve_last_layer_(network(4), (X, Y), ridge=-1.0)
    with pytest.raises(ValueError, match="not linear in its last parameter"):
        solve_last_layer_(torch.nn.Sequential(network(4), torch.nn.Tanh()), (X, Y))
