"""Least squares knows its residuals r and their Jacobian J."""

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from mgnet.knots import KAN, roughness
from mgnet.training import LeastSquares, levenberg_marquardt
from mgnet.training.least_squares.linearization import linearize

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
    "least squares": lambda: LeastSquares(tanh_network(), (X, Y)),
    "KAN": lambda: LeastSquares(KAN([2, 3, 2]), (X, Y)),
    "KAN, penalty": lambda: LeastSquares(KAN([2, 3, 2]), (X, Y), penalised),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_residuals_and_jacobian(name):
    problem = PROBLEMS[name]()
    u = problem.start()
    r, J = problem.residuals(u), problem.jacobian(u)
    assert 0.5 * float(r @ r) == pytest.approx(problem.value(u))
    torch.testing.assert_close(J.T @ r, problem(u), rtol=1e-10, atol=1e-12)
    d = torch.randn(len(u), generator=GENERATOR, dtype=torch.float64)
    difference = (problem.residuals(u + 1e-6 * d) - problem.residuals(u - 1e-6 * d)) / 2e-6
    torch.testing.assert_close(J @ d, difference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", PROBLEMS)
def test_value_and_gradient_agree_with_the_value(name):
    problem = PROBLEMS[name]()
    u = problem.start() + 0.1
    value, gradient = problem.value_and_gradient(u)
    assert value == pytest.approx(problem.value(u), rel=1e-12)
    d = torch.randn(len(u), generator=GENERATOR, dtype=torch.float64)
    slope = (problem.value(u + 1e-6 * d) - problem.value(u - 1e-6 * d)) / 2e-6
    assert float(gradient @ d) == pytest.approx(slope, rel=1e-6)


def test_the_mean_square_leaves_the_penalty_out():
    with_penalty, without = PROBLEMS["KAN, penalty"](), PROBLEMS["KAN"]()
    u = without.start()
    assert with_penalty.mean_square(u) == pytest.approx(2.0 * without.value(u))
    assert with_penalty.value(u) > without.value(u)
    for problem in (with_penalty, without):
        parts = 0.5 * problem.mean_square(u) + problem.penalty_at(u)
        assert parts == pytest.approx(problem.value(u), rel=1e-12)


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


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (
            lambda kan: kan.coefficients[0].square().sum(),
            r"returned shape \(\); it must return a matrix",
        ),
        (
            lambda kan: kan.coefficients[0].flatten(),
            r"returned shape \(42,\); it must return a matrix",
        ),
        (lambda kan: 1e-3, "returned float; it must return a matrix"),
        (lambda kan: torch.eye(5).double(), r"shape \(5, 5\) for 84 parameters"),
        (torch.eye(84), "a penalty of type Tensor; give a function of the network"),
    ],
)
def test_a_penalty_is_a_function_that_gives_a_matrix(penalty, message):
    with pytest.raises((TypeError, ValueError), match=message):
        problem = LeastSquares(KAN([2, 3, 2]), (X, Y), penalty)
        problem.residuals(problem.start())


def test_levenberg_marquardt_takes_a_problem_with_data_and_penalty():
    """A single layer of splines is linear in its coefficients: the oracle is a direct solution."""
    network = KAN([2, 2])
    problem = LeastSquares(network, (X, Y), penalised)
    u = problem.start()
    solved = torch.linalg.lstsq(problem.jacobian(u), problem.residuals(u), driver="gelsd").solution
    solution = levenberg_marquardt(problem)
    assert solution.values[-1] == pytest.approx(problem.value(u - solved), rel=1e-6)
    assert problem.penalty_at(solution.value) > 0.0
    torch.testing.assert_close(parameters_to_vector(network.parameters()), solution.value)


def test_a_chunk_size_is_that_of_the_problem(monkeypatch):
    seen = []

    def watched(parameters, residual, u, chunk_size, *others):
        seen.append(chunk_size)
        return linearize(parameters, residual, u, chunk_size, *others)

    monkeypatch.setattr("mgnet.training.least_squares.problem.linearize", watched)
    levenberg_marquardt(LeastSquares(tanh_network(), (X, Y), chunk_size=7), max_cycles=1)
    assert set(seen) == {7}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: levenberg_marquardt(p, p.network), "a LeastSquares and module; give the"),
        (lambda p: levenberg_marquardt(p, chunk_size=3), "a LeastSquares and chunk_size; give"),
        (lambda p: levenberg_marquardt(p, loss="huber"), "a LeastSquares and loss; give"),
        (lambda p: levenberg_marquardt(p, f_scale=2.0), "a LeastSquares and f_scale; give"),
        (lambda p: levenberg_marquardt(lambda module: module(X) - Y), "without a module; give the"),
    ],
)
def test_a_problem_comes_alone_and_a_function_does_not(call, message):
    problem = LeastSquares(tanh_network(), (X, Y))
    start = problem.start()
    with pytest.raises(TypeError, match=f"levenberg_marquardt got .*{message}"):
        call(problem)
    assert torch.equal(problem.start(), start)
