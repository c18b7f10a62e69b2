"""Newton-CG finds the last layer that scikit-learn and SciPy find, and never goes uphill."""

import numpy as np
import pytest
import scipy.optimize
import torch
from torch.nn.functional import cross_entropy, mse_loss, one_hot, poisson_nll_loss

from mgnet import Level
from mgnet.training import LeastSquares, NewtonLastLayer, Objective, solve_last_layer_

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(300, 2, generator=GENERATOR, dtype=torch.float64)
NOISE = 0.5 * torch.randn(300, generator=GENERATOR, dtype=torch.float64)
CLASSES = (2.0 * X[:, 0] * X[:, 1] + NOISE).round().clamp(-1.0, 1.0).long() + 1
EXACT = NewtonLastLayer(steps=40, iterations=300, ridge=1e-3)


def network(bias=True):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(2, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3, bias=bias)]
    return torch.nn.Sequential(*layers).double()


def solve(problem, smoother, f=None, sweeps=1):
    level = Level(problem, smoother)
    u = problem.start()
    return smoother.smooth(level, u, f, sweeps, smoother.start(level, u))[0]


def test_it_finds_the_logistic_regression_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    net = network(bias=False)
    problem = Objective(net, cross_entropy, (X, CLASSES))
    u = solve(problem, EXACT)
    basis = net[:2](X).detach().numpy()
    strength = 1.0 / (EXACT.ridge * len(X))  # it sums over samples where we take means
    theirs = linear_model.LogisticRegression(C=strength, fit_intercept=False, tol=1e-10)
    theirs.fit(basis, CLASSES.numpy())
    ours = u[-18:].view(3, 6).numpy()
    np.testing.assert_allclose(ours, theirs.coef_, atol=1e-4)


@pytest.mark.parametrize("tilted", [False, True])
@pytest.mark.parametrize(
    "loss",
    [
        cross_entropy,
        torch.nn.CrossEntropyLoss(
            label_smoothing=0.1, weight=torch.tensor([1.0, 2.0, 3.0]).double()
        ),
        lambda outputs, y: poisson_nll_loss(outputs, one_hot(y, 3).double()),
    ],
    ids=["cross entropy", "smoothed and weighted", "Poisson"],
)
def test_it_finds_the_minimum_of_scipy(loss, tilted):
    problem = Objective(network(), loss, (X, CLASSES))
    start = problem.start()
    f = 1e-2 * torch.cos(torch.arange(len(start), dtype=torch.float64)) if tilted else None
    u = solve(problem, EXACT, f)

    def whole(last):
        u = torch.cat([start[:-21], torch.from_numpy(last)])
        value, gradient = problem.value_and_gradient(u)
        slope = gradient + EXACT.ridge * u - (0.0 if f is None else f)
        value += 0.5 * EXACT.ridge * float(u[-21:] @ u[-21:])
        return value - (0.0 if f is None else float(f[-21:] @ u[-21:])), slope[-21:].numpy()

    theirs = scipy.optimize.minimize(
        whole,
        start[-21:].numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9},
    )
    assert whole(u[-21:].numpy())[0] <= theirs.fun + 1e-12
    assert np.linalg.norm(whole(u[-21:].numpy())[1]) < 1e-6
    np.testing.assert_allclose(u[-21:].numpy(), theirs.x, atol=2e-3)
    assert torch.equal(u[:-21], start[:-21])


def test_least_squares_take_one_newton_step():
    y = torch.stack([X[:, 0] ** 2, X.prod(1), X[:, 1]], 1)
    problem = Objective(network(), mse_loss, (X, y))
    u = solve(problem, NewtonLastLayer(steps=3, iterations=500))
    best = solve_last_layer_(network(), [(X, y)])
    assert problem.value(u) == pytest.approx(problem.value(LeastSquares(best, (X, y)).start()))


def test_no_sweep_raises_the_objective_even_without_a_minimum():
    y = (X[:, 0] > 0.0).long()  # can be separated: the minimum is at infinity
    problem = Objective(network(), cross_entropy, (X, y))
    level = Level(problem, NewtonLastLayer(steps=1, iterations=3))
    u, values = problem.start(), [problem.value(problem.start())]
    for _ in range(40):
        u, _ = level.smoother.smooth(level, u, None, 1, ())
        values.append(problem.value(u))
    assert all(b <= a for a, b in zip(values[:-1], values[1:], strict=True))
    assert values[-1] < 0.2 * values[0] and bool(u.isfinite().all())
    assert level.tally[0] == pytest.approx(40 * level.smoother.work(level, 1))


def test_refusals():
    with pytest.raises(ValueError, match="needs at least one step"):
        NewtonLastLayer(steps=0)
    with pytest.raises(TypeError, match="type function; NewtonLastLayer needs the class Objective"):
        NewtonLastLayer().start(Level(lambda u: u, NewtonLastLayer()), X[0])
