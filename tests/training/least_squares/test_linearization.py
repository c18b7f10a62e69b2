"""Residuals and Jacobians of any module are those of autograd, whichever way they come."""

import pytest
import torch

from mgnet.knots import KAN
from mgnet.training.least_squares import linearization
from mgnet.training.least_squares.linearization import blocks_of, linearize
from mgnet.training.loss.parameters import FlatParameters

X = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).unsqueeze(1)


def perceptron(width=5):
    torch.manual_seed(0)
    layers = torch.nn.Linear(1, width), torch.nn.Tanh(), torch.nn.Linear(width, 2)
    return torch.nn.Sequential(*layers).double()


def fit(module):
    return module(X) - torch.cat([X, X**2], 1)


def equation(module):
    """An equation with u'' and boundary values: derivatives by inputs, three kinds of points."""
    x = X.clone().requires_grad_()
    u = module(x)[:, 0]
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    periodic = module(X[:3]) - module(X[:3] + 2.0)
    return second[:, 0] + u, periodic, module(X[-1:])[:, 1]


class Unvmappable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2.0

    @staticmethod
    def backward(ctx, gradient):
        if torch._C._functorch.is_batchedtensor(gradient):
            raise RuntimeError("vmap")
        return gradient * 2.0


class Strange(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = perceptron()

    def forward(self, x):
        return Unvmappable.apply(self.inner(x))


class Normed(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.norm = torch.nn.BatchNorm1d(2, momentum=None).double()

    def forward(self, x):
        return self.norm(self.inner(x))


SAMPLES, SLOWLY = True, False
CASES = {  # name -> module, residual, whether the rows come sample by sample
    "fit": (perceptron, fit, SAMPLES),
    "fit of a KAN": (lambda: KAN([1, 2, 2], 3), fit, SAMPLES),
    "equation": (perceptron, equation, SAMPLES),
    "equation, few": (lambda: KAN([1, 3, 2], 9), equation, SAMPLES),
    "samples mixed": (perceptron, lambda m: m(X).cumsum(0), SLOWLY),
    "samples mixed, few": (lambda: perceptron(20), lambda m: m(X[:4]).cumsum(0), SLOWLY),
    "one tensor of two kinds": (
        perceptron,
        lambda m: torch.cat([m(X)[:, 0], m(X[:2])[:, 1]]),
        SLOWLY,
    ),
    "parameters read": (perceptron, lambda m: (m(X)[:, 0], m[0].weight.flatten()), SLOWLY),
    "a number": (perceptron, lambda m: m(X).square().mean(), SLOWLY),
    "no vmap": (Strange, fit, SLOWLY),
    "batch norm": (lambda: Normed(perceptron()), fit, SLOWLY),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_the_jacobian_is_that_of_autograd(name, chunk_size, monkeypatch):
    make, residual, samples = CASES[name]
    flat = FlatParameters(make())
    u = flat.start() + 0.1
    slow = []
    for way in ("_by_rows", "_by_columns"):
        true = getattr(linearization, way)
        monkeypatch.setattr(linearization, way, lambda *a, f=true: slow.append(1) or f(*a))
    r, J = linearize(flat, residual, u, chunk_size)
    found = J.dense()
    assert bool(slow) != samples

    def residuals(u):
        blocks = blocks_of(flat.evaluate(residual, u))
        return torch.cat([block.reshape(-1) for block in blocks])

    expected = torch.autograd.functional.jacobian(residuals, u)
    torch.testing.assert_close(r, residuals(u).detach())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_a_float32_module_gives_float64_matrices():
    flat = FlatParameters(perceptron().float())
    r, J = linearize(flat, lambda m: m(X.float()), flat.start().double())
    assert r.dtype == J.matrix.dtype == torch.float64


@pytest.mark.parametrize(
    ("residual", "kind", "words"),
    [
        (lambda m: 3.0, TypeError, "returned float; it must return a real tensor"),
        (lambda m: (m(X), None), TypeError, "returned NoneType"),
        (lambda m: m(X) * 1j, TypeError, "returned torch.complex128"),
        (lambda m: (), TypeError, "returned nothing"),
        (lambda m: m(X).detach(), ValueError, "does not depend on the parameters"),
    ],
)
def test_refusals(residual, kind, words):
    flat = FlatParameters(perceptron())
    with pytest.raises(kind, match=words):
        linearize(flat, residual, flat.start())
