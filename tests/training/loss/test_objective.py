"""Objectives: the operator is the gradient of the value."""

import pytest
import torch

from mgnet.knots import KAN, roughness
from mgnet.training import LeastSquares, Objective
from mgnet.training.loss.objective import check_objective

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


def test_any_module_becomes_an_objective():
    network = tanh_network()
    data = LeastSquares(network, (X, Y))
    scale = len(X) ** -0.5
    same = LeastSquares.from_torch(network, lambda m: scale * (m(X) - Y))
    loss = Objective.from_torch(network, lambda m: 0.5 * (m(X) - Y).square().sum() / len(X))
    u = data.start() + 0.1
    for other in (same, loss, loss.with_network(tanh_network())):
        assert other.value(u) == pytest.approx(data.value(u))
        torch.testing.assert_close(other(u), data(u))
    torch.testing.assert_close(same.jacobian(u), data.jacobian(u))
    with torch.no_grad():  # a loss that differentiates by its inputs
        x = X.clone().requires_grad_()
        slope = Objective.from_torch(
            network, lambda m: torch.autograd.grad(m(x).sum(), x, create_graph=True)[0].sum()
        )
        assert slope.value(u) != 0.0


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
    assert objective.with_data(batch).value(u) == pytest.approx(half * expected)
    assert objective.subsampled(0.25).data[0].flatten().tolist() == x[::4].flatten().tolist()
    assert objective.subsampled(1.0) is objective


def test_batches_need_data():
    objective = Objective.from_torch(torch.nn.Linear(1, 1), lambda m: m.weight.sum())
    with pytest.raises(ValueError, match="needs data"):
        objective.with_data((torch.zeros(1, 1),) * 2)


def test_objectives_pass():
    network = torch.nn.Linear(2, 2)
    check_objective("knot_hierarchy", Objective(network, torch.nn.functional.mse_loss, (X, Y)))
    check_objective("knot_hierarchy", LeastSquares(network, (X, Y)))


@pytest.mark.parametrize(
    ("other", "kind"),
    [("mse", "str"), (None, "NoneType"), (torch.nn.Linear(2, 2), "Linear"), (Objective, "type")],
)
def test_other_objectives_are_refused(other, kind):
    words = f"knot_hierarchy got an objective of type {kind}; give an Objective or a LeastSquares"
    with pytest.raises(TypeError, match=words):
        check_objective("knot_hierarchy", other)
