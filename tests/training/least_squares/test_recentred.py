"""The coarse problem of a descent: by residuals, without them, and twice."""

import pytest
import torch

from mgnet import MatrixTransfer
from mgnet.knots import KAN, roughness
from mgnet.training import LeastSquares
from mgnet.training.least_squares.recentred import Around, Recentred

GENERATOR = torch.Generator().manual_seed(0)
X = 2.0 * torch.rand(30, 2, generator=GENERATOR, dtype=torch.float64) - 1.0
Y = torch.stack([X[:, 0] * X[:, 1], X.sum(1)], 1)


def penalised_kan():
    return LeastSquares(KAN([2, 3, 2]), (X, Y), lambda network: roughness(network, 1e-3))


def test_twice_recentred_is_once_recentred_by_the_product():
    fine = penalised_kan()
    u = fine.start() + 0.1
    P = torch.randn(len(u), 9, generator=GENERATOR, dtype=torch.float64)
    Q = torch.randn(9, 4, generator=GENERATOR, dtype=torch.float64)
    v, w = (torch.randn(n, generator=GENERATOR, dtype=torch.float64) / 20 for n in (9, 4))
    middle = Recentred.of(fine, u, MatrixTransfer(P))
    coarse = Recentred.of(middle, v, MatrixTransfer(Q))
    direct = Recentred.of(fine, u + P @ v, MatrixTransfer(P @ Q))
    assert float(coarse(torch.zeros(4).double()).abs().max()) < 1e-13
    torch.testing.assert_close(coarse(w), direct(w))
    torch.testing.assert_close(coarse.jacobian(w), direct.jacobian(w))
    torch.testing.assert_close(coarse(w), Q.T @ (middle(v + Q @ w) - middle(v)))
    assert coarse.value(w) - coarse.value(0 * w) == pytest.approx(
        direct.value(w) - direct.value(0 * w)
    )
    assert coarse.value_and_gradient(w)[0] == pytest.approx(coarse.value(w))


def test_the_operator_is_the_jacobian():
    fine = penalised_kan()
    u = fine.start()
    P = torch.randn(len(u), 9, generator=GENERATOR, dtype=torch.float64)
    for problem, at in (
        (fine, u),
        (Recentred.of(fine, u, MatrixTransfer(P)), torch.ones(9).double()),
    ):
        r, J = problem.linearize(at)
        matrix = problem.jacobian(at)
        torch.testing.assert_close(r, problem.residuals(at))
        torch.testing.assert_close(J.gram(), matrix.T @ matrix)
        torch.testing.assert_close(J.rmatvec(r), matrix.T @ r)
        torch.testing.assert_close(J.matvec(at), matrix @ at)


def test_it_is_recentred_without_residuals():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1))
    x = torch.linspace(-1, 1, 20, dtype=torch.float64).unsqueeze(1)
    fine = LeastSquares(network.double(), (x, x**2))
    u = fine.start()
    first, second = (
        MatrixTransfer(torch.randn(m, n, dtype=torch.float64)) for m, n in ((len(u), 4), (4, 2))
    )
    around, recentred = Around.of(fine, u, first), Recentred.of(fine, u, first)
    w = torch.randn(4, dtype=torch.float64)
    z = torch.randn(2, dtype=torch.float64)
    deeper = Around.of(around, w, second), Recentred.of(recentred, w, second)
    for a, b, point in ((around, recentred, w), (*deeper, z)):
        torch.testing.assert_close(a.gradient(point), b.gradient(point))
        difference = [each.value(point) - each.value(0.0 * point) for each in (a, b)]
        assert difference[0] == pytest.approx(difference[1], rel=1e-10)
        assert float(a.gradient(0.0 * point).norm()) < 1e-14
