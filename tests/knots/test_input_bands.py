"""The bands of inputs are the diagonal blocks of J^T J, penalty and coarse levels included."""

from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch

from mgnet import Level
from mgnet.knots import KAN, InputBands, knot_transfer, roughness
from mgnet.knots.local_jacobian import linearize_residual
from mgnet.knots.refinement import refinement_matrix
from mgnet.training import LeastSquares, LevenbergMarquardt, NewtonKrylov
from mgnet.training.least_squares.jacobian import ProlongedJacobian
from mgnet.training.least_squares.normal_equations import NormalEquations

X = torch.linspace(-1.0, 1.0, 60, dtype=torch.float64).unsqueeze(1)


def problem(kan):
    return LeastSquares(kan, (X, torch.sin(6.0 * X)), partial(roughness, weight=1e-3))


@pytest.mark.parametrize("coarse", [False, True])
def test_each_input_of_a_layer_is_inverted_exactly(coarse):
    kan = KAN([1, 2, 1], 12, degree=2)
    _, J = problem(kan).linearize(torch.nn.utils.parameters_to_vector(kan.parameters()))
    sizes = [28, 14, 14]
    if coarse:
        kan, sizes = KAN([1, 2, 1], 6, degree=2), [16, 8, 8]
        J = ProlongedJacobian(J, knot_transfer(kan), 32)
    A = J.gram() + 1e-2 * torch.eye(sum(sizes), dtype=torch.float64)
    prepared = InputBands().prepare(J)
    product, solve = prepared.shifted(1e-2)
    d = torch.randn(sum(sizes), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(product(d), A @ d)
    ends = torch.tensor([0, *sizes]).cumsum(0)
    blocks = [A[a:b, a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]
    inverse = torch.block_diag(*(torch.linalg.inv(block) for block in blocks))
    torch.testing.assert_close(solve(d), inverse @ d, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("linear_solver", [None, NewtonKrylov(InputBands(), direct=0)])
def test_a_large_network_is_trained_as_a_small_one(linear_solver):
    trained = LeastSquares(KAN([1, 2, 1], 12), (X, torch.sin(6.0 * X)))
    level, u = Level(trained, LevenbergMarquardt(linear_solver=linear_solver)), trained.start()
    u, _ = level.smoother.smooth(level, u, None, 30, level.smoother.start(level, u))
    assert trained.mean_square(u) < 1e-3


def test_a_jacobian_without_inputs_is_refused():
    module = torch.nn.Linear(1, 1).double()
    _, J = LeastSquares(module, (X, X)).linearize(torch.ones(2, dtype=torch.float64))
    with pytest.raises(TypeError, match="InputBands got a Jacobian without knot intervals"):
        InputBands().prepare(J)


def test_the_direct_solver_counts_its_matrix(monkeypatch):
    monkeypatch.setattr("mgnet.limits.machine_memory", lambda: 10_000)
    kan = KAN([1, 2, 1], 12)
    some = problem(kan)
    r, J = some.linearize(some.start())
    with pytest.raises(ValueError, match=r"makes matrices of 3600 numbers.*NewtonKrylov"):
        _ = NormalEquations(J, r).matrix


def test_memory_grows_with_the_inputs_not_their_square():
    kept = []
    for inputs in (20, 40):
        x = torch.rand(5, inputs, generator=torch.Generator().manual_seed(0)).double()
        wide = LeastSquares(KAN([inputs, 2, 1], 4), (x, x[:, :1]), roughness)
        bands = InputBands().prepare(wide.linearize(wide.start())[1]).bands
        kept.append(sum(one.size for one in bands[:-2]))
    assert kept[1] == 2 * kept[0]


def test_a_coarse_level_is_added():
    kan = KAN([1, 2, 1], 12, degree=2)
    some = problem(kan)
    _, J = some.linearize(some.start())
    A = (J.gram() + 1e-2 * torch.eye(J.shape[1], dtype=torch.float64)).numpy()
    one = refinement_matrix(3, 2, 4).toarray()
    P = scipy.linalg.block_diag(np.kron(one, np.eye(2)), one, one)
    r = torch.randn(J.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    coupled = InputBands(coarsest=3).prepare(J).shifted(1e-2)[1](r)
    alone = InputBands().prepare(J).shifted(1e-2)[1](r)
    expected = P @ np.linalg.solve(P.T @ A @ P, P.T @ r.numpy())
    torch.testing.assert_close(coupled - alone, torch.from_numpy(expected), rtol=1e-7, atol=1e-8)
    with pytest.raises(ValueError, match="InputBands got coarsest 0"):
        InputBands(0)


def test_residuals_with_derivatives_have_bands():
    def slope(kan):
        x = X.clone().requires_grad_()
        return torch.autograd.grad(kan(x).sum(), x, create_graph=True)[0]

    _, J = linearize_residual(KAN([1, 1], 20), slope)
    product, solve = InputBands(coarsest=4).prepare(J).shifted(1e-2)  # one input: no coarse level
    b = torch.ones(23, dtype=torch.float64)
    torch.testing.assert_close(product(solve(b)), b)
