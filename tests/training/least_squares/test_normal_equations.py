"""The damped system is solved in every form: primal or dual, by Cholesky or by QR."""

import numpy as np
import pytest
import torch

from mgnet.training import LeastSquares, levenberg_marquardt
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


@pytest.mark.parametrize("seed", range(3))
def test_rows_in_float32_with_sums_in_float64_keep_the_digits_that_float32_loses(seed):
    """The squared condition, 1e9, is that of sums in float64, and beyond those in float32."""
    drawn = np.random.default_rng(seed)
    U = np.linalg.qr(drawn.standard_normal((300, 8)))[0]
    V = np.linalg.qr(drawn.standard_normal((8, 8)))[0]
    J = torch.from_numpy((U * np.geomspace(1.0, 3e-5, 8)) @ V.T).float()
    r = torch.from_numpy(drawn.standard_normal(300)).float()
    best = np.linalg.lstsq(J.double().numpy(), -r.double().numpy(), rcond=None)[0]

    def error(d):
        return np.linalg.norm(d.double().numpy() - best) / np.linalg.norm(best)

    system = NormalEquations(DenseJacobian(J.double()), r.double())
    device, left = system.damped_unseen(1e-22, rows=False)
    assert error(system.damped(1e-22)(None)) < 1e-5 and error(device(None)) < 1e-5
    assert system.enough(float(left))
    plain, fault = torch.linalg.cholesky_ex(J.T @ J)
    assert fault or error(torch.cholesky_solve(-(J.T @ r).unsqueeze(1), plain)[:, 0]) > 1e-2


def test_a_network_in_float32_has_its_sums_in_float64():
    torch.manual_seed(0)
    network, x = torch.nn.Linear(3, 1), torch.rand(20, 3)
    r, J = LeastSquares.from_torch(network, lambda n: n(x).tanh()).linearize(
        torch.nn.utils.parameters_to_vector(network.parameters()).detach()
    )
    rows = J.dense()
    assert r.dtype == rows.dtype == J.gram().dtype == torch.float64
    assert torch.equal(rows, rows.float().double())  # made in float32
    np.testing.assert_allclose(J.gram().numpy(), rows.numpy().T @ rows.numpy(), rtol=1e-14)


@pytest.mark.parametrize("rows, columns", [(30, 6), (6, 30)])
@pytest.mark.parametrize("by_rows", [False, True])
def test_without_a_look_the_solution_is_the_same(rows, columns, by_rows):
    drawn = np.random.default_rng(rows)
    J = DenseJacobian(torch.from_numpy(drawn.standard_normal((rows, columns))))
    r, y = (torch.from_numpy(drawn.standard_normal(rows)) for _ in range(2))
    unit = torch.from_numpy(drawn.uniform(0.5, 2.0, columns))
    system = NormalEquations(J, r, None, unit)
    solve, left = system.damped_unseen(0.1, by_rows)
    for given in (None, y):
        expected = system.damped(0.1)(given)
        torch.testing.assert_close(solve(given), expected, rtol=1e-11, atol=1e-13)
    assert system.enough(float(left))
