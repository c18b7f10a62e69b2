"""Objectives: the operator is the gradient of the value; least squares knows r and J."""

import pytest
import torch

from mgnet import MatrixTransfer
from mgnet.knots import KAN, roughness
from mgnet.training import LeastSquares, Objective
from mgnet.training.loss.objective import Recentred

GENERATOR = torch.Generator().manual_seed(0)
X = 2.0 * torch.rand(30, 2, generator=GENERATOR, dtype=torch.float64) - 1.0
Y = torch.stack([X[:, 0] * X[:, 1], X.sum(1)], 1)


def tanh_network(outputs=2):
    torch.manual_seed(0)
    layers = torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, outputs)
    return torch.nn.Sequential(*layers).double()


def penalised(network):
    return roughness(network, 1e-3)


PROBLEMS = {
    "objective": lambda: Objective(tanh_network(), torch.nn.functional.l1_loss, (X, Y)),
    "least squares": lambda: LeastSquares(tanh_network(), (X, Y)),
    "KAN": lambda: LeastSquares(KAN([2, 3, 2]), (X, Y)),
    "KAN, penalty": lambda: LeastSquares(KAN([2, 3, 2]), (X, Y), penalised),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_calling_it_gives_the_gradient(name):
    problem = PROBLEMS[name]()
    u = problem.start()
    d = torch.randn(len(u), generator=GENERATOR, dtype=torch.float64)
    slope = (problem.value(u + 1e-6 * d) - problem.value(u - 1e-6 * d)) / 2e-6
    assert float(problem(u) @ d) == pytest.approx(slope, rel=1e-6)


def test_the_template_is_not_changed():
    network = tanh_network()
    before = [p.clone() for p in network.parameters()]
    problem = LeastSquares(network, (X, Y))
    problem(problem.start() + 1.0)
    problem.jacobian(problem.start() + 1.0)
    assert all(map(torch.equal, before, network.parameters()))


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "objective"])
def test_residuals_and_jacobian(name):
    problem = PROBLEMS[name]()
    u = problem.start()
    r, J = problem.residuals(u), problem.jacobian(u)
    assert 0.5 * float(r @ r) == pytest.approx(problem.value(u))
    torch.testing.assert_close(J.T @ r, problem(u), rtol=1e-10, atol=1e-12)
    d = torch.randn(len(u), generator=GENERATOR, dtype=torch.float64)
    difference = (problem.residuals(u + 1e-6 * d) - problem.residuals(u - 1e-6 * d)) / 2e-6
    torch.testing.assert_close(J @ d, difference, rtol=1e-6, atol=1e-7)


def test_the_mean_square_leaves_the_penalty_out():
    with_penalty, without = PROBLEMS["KAN, penalty"](), PROBLEMS["KAN"]()
    u = without.start()
    assert with_penalty.mean_square(u) == pytest.approx(2.0 * without.value(u))
    assert with_penalty.value(u) > without.value(u)
    for problem in (with_penalty, without):
        parts = 0.5 * problem.mean_square(u) + problem.penalty_at(u)
        assert parts == pytest.approx(problem.value(u), rel=1e-12)


def test_twice_recentred_is_once_recentred_by_the_product():
    fine = PROBLEMS["KAN, penalty"]()
    u = fine.start() + 0.1
    P = torch.randn(len(u), 9, generator=GENERATOR, dtype=torch.float64)
    Q = torch.randn(9, 4, generator=GENERATOR, dtype=torch.float64)
    v, w = (torch.randn(n, generator=GENERATOR, dtype=torch.float64) / 20 for n in (9, 4))
    middle = Recentred(fine, u, MatrixTransfer(P))
    coarse = Recentred(middle, v, MatrixTransfer(Q))
    direct = Recentred(fine, u + P @ v, MatrixTransfer(P @ Q))
    assert float(coarse(torch.zeros(4).double()).abs().max()) < 1e-13
    torch.testing.assert_close(coarse(w), direct(w))
    torch.testing.assert_close(coarse.jacobian(w), direct.jacobian(w))
    torch.testing.assert_close(coarse(w), Q.T @ (middle(v + Q @ w) - middle(v)))
    assert coarse.value(w) - coarse.value(0 * w) == pytest.approx(
        direct.value(w) - direct.value(0 * w)
    )
    assert coarse.value_and_gradient(w)[0] == pytest.approx(coarse.value(w))


def test_the_operator_is_the_jacobian():
    fine = PROBLEMS["KAN, penalty"]()
    u = fine.start()
    P = torch.randn(len(u), 9, generator=GENERATOR, dtype=torch.float64)
    for problem, at in ((fine, u), (Recentred(fine, u, MatrixTransfer(P)), torch.ones(9).double())):
        r, J = problem.linearize(at)
        matrix = problem.jacobian(at)
        torch.testing.assert_close(r, problem.residuals(at))
        torch.testing.assert_close(J.gram(), matrix.T @ matrix)
        torch.testing.assert_close(J.rmatvec(r), matrix.T @ r)
        torch.testing.assert_close(J.matvec(at), matrix @ at)


def test_any_module_becomes_an_objective():
    network = tanh_network()
    data = LeastSquares(network, (X, Y))
    scale = len(X) ** -0.5
    same = LeastSquares.from_torch(network, lambda m: scale * (m(X) - Y))
    loss = Objective.from_torch(network, lambda m: 0.5 * (m(X) - Y).square().sum() / len(X))
    u = data.start() + 0.1
    for other in (same, loss, loss.on(tanh_network())):
        assert other.value(u) == pytest.approx(data.value(u))
        torch.testing.assert_close(other(u), data(u))
    torch.testing.assert_close(same.jacobian(u), data.jacobian(u))
    with torch.no_grad():  # a loss that differentiates by its inputs
        x = X.clone().requires_grad_()
        slope = Objective.from_torch(
            network, lambda m: torch.autograd.grad(m(x).sum(), x, create_graph=True)[0].sum()
        )
        assert slope.value(u) != 0.0


def test_data_must_fit():
    with pytest.raises(
        ValueError, match=r"targets of shape \(30,\) for outputs of shape \(30, 1\)"
    ):
        LeastSquares(tanh_network(1), (X, Y[:, 0])).value(
            LeastSquares(tanh_network(1), (X, Y)).start()
        )
    with pytest.raises(ValueError, match="either data or a residual function"):
        LeastSquares(tanh_network(), None)
    with pytest.raises(ValueError, match="30 inputs and 29 targets"):
        LeastSquares(tanh_network(), (X, Y[1:]))


@pytest.mark.parametrize("kind", ["loss", "residuals"])
def test_batches_and_parts_of_the_data(kind):
    network = torch.nn.Linear(1, 1).double()
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).unsqueeze(1)
    data = x, x**2
    if kind == "loss":
        objective = Objective(network, torch.nn.functional.mse_loss, data)
    else:
        objective = LeastSquares(network, data)
    u = objective.start()
    batch = x[3:5], x[3:5] ** 2
    expected = (network(batch[0]) - batch[1]).square().mean().item()
    half = 0.5 if kind == "residuals" else 1.0
    assert objective.at(batch).value(u) == pytest.approx(half * expected)
    assert objective.thinned(0.25).data[0].flatten().tolist() == x[::4].flatten().tolist()
    assert objective.thinned(1.0) is objective


def test_batches_need_data():
    objective = Objective.from_torch(torch.nn.Linear(1, 1), lambda m: m.weight.sum())
    with pytest.raises(ValueError, match="needs data"):
        objective.at((torch.zeros(1, 1),) * 2)
