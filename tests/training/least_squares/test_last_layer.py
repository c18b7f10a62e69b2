"""The exact last layer is what NumPy's least squares finds, however the rows arrive."""

import numpy as np
import pytest
import torch

from mgnet import Level, MatrixTransfer
from mgnet.knots import KAN
from mgnet.training import (
    Collocation,
    LastLayer,
    LeastSquares,
    Objective,
    Term,
    solve_last_layer_,
)
from mgnet.training.least_squares.last_layer import LinearPart
from mgnet.training.least_squares.recentred import Recentred

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(80, 2, generator=GENERATOR, dtype=torch.float64)
Y = torch.stack([torch.sin(4 * X[:, 0]), X[:, 1] ** 2, X.prod(1)], 1)


class Squeezed(torch.nn.Module):
    """A module that is no Sequential."""

    def __init__(self):
        super().__init__()
        self.hidden = torch.nn.Linear(2, 7)
        self.out = torch.nn.Linear(7, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(x)).square())


def plain(bias=True):
    layers = [torch.nn.Linear(2, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3, bias=bias)]
    return torch.nn.Sequential(*layers)


NETWORKS = {
    "bias": plain,
    "no bias": lambda: plain(False),
    "module": Squeezed,
    "KAN": lambda: KAN([2, 4, 3], 3, linear=True),
    "one layer": lambda: torch.nn.Linear(2, 3),
}


def network(name):
    torch.manual_seed(0)
    return NETWORKS[name]().double()


def basis(net, x):
    """The features by autograd: derivatives of the first output by its own weights."""
    last = list(net.parameters())[-1]
    tensors = [last]
    if isinstance(net, KAN) is False and last.dim() == 1:
        tensors = [list(net.parameters())[-2], last]
    rows = []
    for sample in x:
        grads = torch.autograd.grad(net(sample.unsqueeze(0))[0, 0], tensors)
        parts = [g[..., 0].flatten() if isinstance(net, KAN) else g[0].flatten() for g in grads]
        rows.append(torch.cat(parts))
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("ridge", [0.0, 1e-2])
@pytest.mark.parametrize("rows", [80, 33, 3])
def test_the_solution_is_that_of_numpy_however_rows_are_streamed(name, ridge, rows):
    net = network(name)
    features = basis(net, X)
    A = np.concatenate([features / 80**0.5, ridge**0.5 * np.eye(features.shape[1])])
    b = np.concatenate([Y.numpy() / 80**0.5, np.zeros((features.shape[1], 3))])
    W = np.linalg.lstsq(A, b, rcond=1e-11)[0]  # of least norm where there are many
    batches = list(zip(X.split(rows), Y.split(rows), strict=True))
    assert solve_last_layer_(net, batches, ridge=ridge, rcond=1e-11) is net
    np.testing.assert_allclose(net(X).detach().numpy(), features @ W, atol=1e-9)
    last = list(net.parameters())[-1].detach()
    if isinstance(net, KAN):  # and the coefficients are those of least norm
        np.testing.assert_allclose(last.flatten(0, -2).numpy(), W, atol=1e-8)
    elif last.dim() == 1:
        np.testing.assert_allclose(last.numpy(), W[-1], atol=1e-8)


def penalty(net):
    size = sum(p.numel() for p in net.parameters())
    draw = torch.Generator().manual_seed(1)
    return 0.1 * torch.randn(5, size, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rows", [None, penalty])
@pytest.mark.parametrize("tilted", [False, True])
def test_the_smoother_leaves_no_gradient_in_the_last_layer(name, rows, tilted):
    problem = LeastSquares(network(name), (X, Y), rows)
    ridge = 1e-3
    level = Level(problem, LastLayer(ridge=ridge))
    u, size = problem.start(), LinearPart(problem.network).size
    f = 1e-3 * torch.cos(torch.arange(len(u), dtype=torch.float64)) if tilted else None
    v, _ = level.smoother.smooth(level, u, f, 1, level.smoother.start(level, u))
    slope = problem.gradient(v) - (0.0 if f is None else f)
    assert float((slope[-size:] + ridge * v[-size:]).norm()) < 1e-11
    assert torch.equal(v[:-size], u[:-size])
    assert problem.value(v) < problem.value(u)
    assert level.tally[0] == level.smoother.work(level, 1)


def test_a_solution_that_is_not_better_is_refused():
    problem = LeastSquares(network("bias"), (X, Y))
    exact = Level(problem, LastLayer(rcond=0.0))
    u, _ = exact.smoother.smooth(exact, problem.start(), None, 1, ())
    for smoother in (LastLayer(rcond=0.0), LastLayer(rcond=0.5)):
        v, _ = smoother.smooth(exact, u, None, 3, ())
        assert problem.value(v) <= problem.value(u)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LastLayer(ridge=-1.0), ValueError, "ridge must not be negative"),
        (lambda: solve_last_layer_(plain(), [], rcond=2.0), ValueError, "rcond must be in"),
        (lambda: solve_last_layer_(plain(), []), ValueError, "got no batches"),
        (lambda: LinearPart(torch.nn.Tanh()), ValueError, "Tanh has no parameters"),
        (
            lambda: solve_last_layer_(
                torch.nn.Sequential(plain(), torch.nn.Tanh()).double(), [(X, Y)]
            ),
            ValueError,
            "Sequential is not linear in its last parameter",
        ),
        (
            lambda: LastLayer().start(
                Level(Objective(plain(), torch.nn.L1Loss(), (X, Y)), None), X
            ),
            TypeError,
            "type Objective; LastLayer needs the class LeastSquares",
        ),
        (
            lambda: LastLayer().start(
                Level(Collocation(plain(), [Term(lambda u: u.value, X)]), LastLayer()), X
            ),
            TypeError,
            "type Collocation; LastLayer needs .* for the residuals of an equation use Levenberg",
        ),
        (
            lambda: LastLayer().start(
                Level(LeastSquares.from_torch(plain(), lambda m: m(X) - Y), LastLayer()), X
            ),
            TypeError,
            r"the class LeastSquares itself with \(inputs, targets\)",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_recentred_level_is_refused():
    problem = LeastSquares(network("bias"), (X, Y))
    u = problem.start()
    coarse = Recentred.of(problem, u, MatrixTransfer(torch.eye(len(u), 4, dtype=torch.float64)))
    with pytest.raises(TypeError, match="type Recentred; LastLayer needs the class LeastSquares"):
        LastLayer().start(Level(coarse, LastLayer()), torch.zeros(4, dtype=torch.float64))
