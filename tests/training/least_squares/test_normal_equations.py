"""The damped system is solved in every form: primal or dual, by Cholesky or by QR."""

import numpy as np
import pytest
import torch

from mgnet.training import levenberg_marquardt
from mgnet.training.least_squares.jacobian import DenseJacobian
from mgnet.training.least_squares.normal_equations import NormalEquations


def matrix(rows, columns, condition):
    generator = np.random.default_rng(0)
    rank = min(rows, columns)
    U, _ = np.linalg.qr(generator.standard_normal((rows, rank)))
    V, _ = np.linalg.qr(generator.standard_normal((columns, rank)))
    return torch.from_numpy(U * np.geomspace(1.0, 1.0 / condition, rank) @ V.T)


def used_qr(monkeypatch):
    calls = []
    true = torch.linalg.qr
    monkeypatch.setattr(torch.linalg, "qr", lambda *a, **k: calls.append(1) or true(*a, **k))
    return calls


@pytest.mark.parametrize("shape", [(50, 6), (6, 50)])
@pytest.mark.parametrize("condition", [1e2, 1e9])
def test_it_solves_like_lstsq_of_the_stacked_system(monkeypatch, shape, condition):
    J = matrix(*shape, condition)
    r = torch.from_numpy(np.random.default_rng(1).standard_normal(shape[0]))
    system = NormalEquations(DenseJacobian(J), r)
    assert system.dual == (shape[0] < shape[1])
    mu, calls = 1e-18, used_qr(monkeypatch)
    solve = system.damped(mu)
    assert bool(calls) == (condition > 1e6)
    scale = float((J * J).sum()) / shape[1]
    assert system.scale == pytest.approx(scale)
    stacked = np.vstack([J.numpy(), (mu * scale) ** 0.5 * np.eye(shape[1])])
    for y, b in ((None, -r), (torch.cos(r), torch.cos(r))):
        expected = np.linalg.lstsq(stacked, np.append(b.numpy(), np.zeros(shape[1])), rcond=None)[0]
        d = solve(y).numpy()
        # as small a residual of the least-squares problem; the solution itself is ill-conditioned
        normal = J.T.numpy() @ (J.numpy() @ (d - expected))
        assert np.linalg.norm(normal) < 1e-9 * max(1.0, 1e-6 * np.linalg.norm(expected))
        if condition < 1e6:
            np.testing.assert_allclose(d, expected, rtol=1e-8, atol=1e-10)


def test_the_right_hand_side_may_leave_the_range():
    J, r, f = matrix(4, 9, 10.0), torch.ones(4).double(), torch.arange(9.0).double()
    system = NormalEquations(DenseJacobian(J), r, f)
    assert not system.dual
    d = system.damped(0.5)(None)
    left = J.T @ (J @ d) + 0.5 * system.scale * d
    torch.testing.assert_close(left, f - J.T @ r)
    torch.testing.assert_close(system.descent, f - J.T @ r)


@pytest.mark.parametrize("degree", [20, 30])
def test_the_residuals_are_as_small_as_by_a_stable_method(degree):
    """Monomials: `J^T J` has a condition number of 1e30; with its digits alone 4e-9 are left."""
    x = torch.linspace(-1.0, 1.0, 200, dtype=torch.float64)
    J = torch.stack([x**k for k in range(degree)], 1)
    y = torch.exp(3.0 * x) * torch.sin(5.0 * x)
    best = J @ torch.linalg.lstsq(J, y.unsqueeze(1), driver="gelsd").solution.squeeze(1) - y
    module = torch.nn.Linear(degree, 1, bias=False, dtype=torch.float64)
    levenberg_marquardt(lambda m: m(J).squeeze(1) - y, module, ftol=0.0, xtol=0.0, max_cycles=60)
    assert float((module(J).squeeze(1) - y).detach().norm()) <= 1.01 * float(best.norm()) + 5e-11
