"""BPX is the explicit sum over levels; for residuals with derivatives iterations stay the same."""

from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mgnet.knots import KAN, KnotBPX, knot_transfer, roughness
from mgnet.knots.local_jacobian import linearize_residual
from mgnet.knots.refinement import refinement_matrix
from mgnet.training import LeastSquares, NewtonKrylov, levenberg_marquardt
from mgnet.training.least_squares.jacobian import DenseJacobian, ProlongedJacobian
from mgnet.training.least_squares.newton_krylov import Diagonal, conjugate_gradients

GENERATOR = torch.Generator().manual_seed(0)
X = 2.0 * torch.rand(400, 2, generator=GENERATOR, dtype=torch.float64) - 1.0
Y = torch.sin(4.0 * X[:, :1]) * X[:, 1:]


def whole(matrices):
    return sp.block_diag(matrices).toarray()


def explicit(J, kan, coarsest, shift):
    """The sum over levels of P D^-1 P^T with dense matrices, D by diagonal blocks of outputs."""
    A = J.gram().numpy() + shift * np.eye(J.shape[1])
    B, end, last = np.zeros_like(A), 0, []
    for u, n in zip(kan.coefficients, kan.intervals, strict=True):
        inputs, _, Q = u.shape
        for _ in range(inputs):
            P, begin = np.eye((n + kan.degree) * Q), end
            end = begin + len(P)
            own, m = slice(begin, end), n
            while m % 2 == 0 and m >= 2 * coarsest:
                D = np.kron(np.eye(P.shape[1] // Q), np.ones((Q, Q))) * (P.T @ A[own, own] @ P)
                B[own, own] += P @ np.linalg.solve(D, P.T)
                m //= 2
                P = P @ np.kron(refinement_matrix(m, kan.degree).toarray(), np.eye(Q))
            last.append(P)
    P = whole(last)
    return B + P @ np.linalg.solve(P.T @ A @ P, P.T)


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_sum_over_levels(seed):
    draw = np.random.default_rng(seed)
    widths = [2, int(draw.integers(1, 4)), 1][: draw.integers(2, 4)]
    n, degree = int(draw.choice([8, 12, 16, 20])), int(draw.integers(2, 5))
    coarsest, weight = int(draw.integers(2, 5)), float(draw.choice([0.0, 1e-3]))
    kan = KAN(widths, n, degree)
    target = Y.expand(-1, widths[-1])
    penalty = partial(roughness, weight=weight) if weight else None
    problem = LeastSquares(kan, (X, target), penalty)
    _, J = problem.linearize(problem.start())
    shift = 10.0 ** draw.uniform(-4, -1)
    product, inverse = KnotBPX(coarsest).prepare(J).shifted(shift)
    r = torch.from_numpy(draw.standard_normal(J.shape[1]))
    expected = explicit(J, kan, coarsest, shift) @ r.numpy()
    np.testing.assert_allclose(inverse(r), expected, rtol=1e-7, atol=1e-9 * abs(expected).max())
    A = J.gram() + shift * torch.eye(J.shape[1], dtype=torch.float64)
    torch.testing.assert_close(product(r), A @ r)


def test_long_inputs_that_cannot_be_halved_are_solved_by_their_bands():
    kan = KAN([2, 1], 45)
    problem = LeastSquares(kan, (X, Y), partial(roughness, weight=1e-4))
    _, J = problem.linearize(problem.start())
    _, inverse = KnotBPX().prepare(J).shifted(1e-3)
    A = J.gram() + 1e-3 * torch.eye(96, dtype=torch.float64)
    r = torch.randn(96, generator=GENERATOR, dtype=torch.float64)
    expected = torch.linalg.solve(torch.block_diag(A[:48, :48], A[48:, 48:]), r)
    torch.testing.assert_close(inverse(r), expected)


def test_a_coarse_problem_around_a_fine_state():
    coarse, fine = KAN([2, 2, 1], 8), KAN([2, 2, 1], 16)
    problem = LeastSquares(fine, (X, Y), partial(roughness, weight=1e-3))
    _, J = problem.linearize(problem.start())
    J = ProlongedJacobian(J, knot_transfer(coarse), sum(u.numel() for u in coarse.parameters()))
    _, inverse = KnotBPX(coarsest=4).prepare(J).shifted(1e-2)
    r = torch.randn(J.shape[1], generator=GENERATOR, dtype=torch.float64)
    expected = torch.from_numpy(explicit(J, coarse, 4, 1e-2)) @ r
    torch.testing.assert_close(inverse(r), expected, rtol=1e-7, atol=1e-9)


def bending(n):
    x = torch.linspace(-1.0, 1.0, 4 * n, dtype=torch.float64).unsqueeze(1)

    def residual(kan):
        own = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(kan(own).sum(), own, create_graph=True)
        (second,) = torch.autograd.grad(slope.sum(), own, create_graph=True)
        return (second + torch.sin(20.0 * x)) / len(x) ** 0.5, 10.0 * kan(x[[0, -1]])

    return linearize_residual(KAN([1, 1], n, degree=5), residual)


def test_second_derivatives_take_the_same_iterations_on_any_number_of_knots():
    counts: dict[str, list[int]] = {"BPX": [], "Jacobi": []}
    for n in (32, 128, 512):
        r, J = bending(n)
        for name, method in (("BPX", KnotBPX()), ("Jacobi", Diagonal())):
            product, inverse = method.prepare(J).shifted(1e-13)
            found = conjugate_gradients(product, -J.rmatvec(r), inverse, 1e-8, 400)
            counts[name].append(found.iterations)
        if n == 32:
            ours = conjugate_gradients(*_system(r, J), rtol=1e-12).value
            theirs = np.linalg.lstsq(J.dense().numpy(), -r.numpy(), rcond=None)[0]
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    assert max(counts["BPX"]) <= 1.5 * min(counts["BPX"]) <= 60
    assert counts["Jacobi"][2] == 400


def _system(r, J):
    product, inverse = KnotBPX().prepare(J).shifted(0.0)
    return product, -J.rmatvec(r), inverse


def test_it_trains():
    kan = KAN([2, 2, 1], 16)
    solution = levenberg_marquardt(
        LeastSquares(kan, (X, Y)), max_cycles=8, linear_solver=NewtonKrylov(KnotBPX(), direct=0)
    )
    assert solution.values[-1] < 0.1 * solution.values[0]


def test_what_it_refuses():
    with pytest.raises(ValueError, match="KnotBPX got coarsest 0"):
        KnotBPX(0)
    with pytest.raises(TypeError, match="KnotBPX got a Jacobian without knot intervals"):
        KnotBPX().prepare(DenseJacobian(torch.eye(2)))
