"""A streamed Jacobian is the dense one in everything it does, and never as large."""

import subprocess
import sys
from functools import partial

import pytest
import torch

from mgnet.knots import KAN
from mgnet.training import Collocation, LeastSquares, Term, levenberg_marquardt
from mgnet.training.least_squares import row_blocks
from mgnet.training.least_squares.jacobian import DenseJacobian
from mgnet.training.least_squares.linearization import linearize
from mgnet.training.least_squares.row_blocks import RowBlocks
from mgnet.training.loss.parameters import FlatParameters


def cut(A, size):
    """A in blocks of rows, and how often they were made."""
    passes = []

    def blocks():
        passes.append(1)
        for begin in reversed(range(0, len(A), size)):  # in any order
            rows = slice(begin, min(begin + size, len(A)))
            yield rows, A[rows]

    return RowBlocks(*A.shape, blocks), passes


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 3), (150, 70), (3, 5), (0, 2)])
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_every_product_is_that_of_the_dense_matrix(rows, columns, size):
    torch.manual_seed(rows)
    A = torch.randn(rows, columns, dtype=torch.float64)
    d, y = torch.randn(columns).double(), torch.randn(rows).double()
    J, _ = cut(A, size)
    R = J.root()
    pairs = [
        (J.matvec(d), A @ d),
        (J.rmatvec(y), A.T @ y),
        (J.gram(), A.T @ A),
        (J.squares(), A.square().sum(0)),
        (J.dense(), A),
        (R.T @ R, A.T @ A),
        (J.scaled(3.0).matvec(d), 3.0 * A @ d),
        (J.scaled(3.0).gram(), 9.0 * A.T @ A),
        (J.scaled_rows(y).rmatvec(y), A.T @ y.square()),
        (J.scaled_rows(y).dense(), y.unsqueeze(1) * A),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert len(R) <= max(rows, columns)


def test_matrix_and_gradient_take_one_pass():
    A, r = torch.randn(9, 3).double(), torch.randn(9).double()
    J, passes = cut(A, 2)
    gram, gradient = J.gram_and_gradient(r)
    torch.testing.assert_close(gradient, A.T @ r)
    torch.testing.assert_close(gram, A.T @ A)
    torch.testing.assert_close(J.rmatvec(r.clone()), gradient)
    assert J.gram() is gram and len(passes) == 1
    torch.testing.assert_close(J.rmatvec(2.0 * r), 2.0 * gradient)  # other numbers: another pass
    assert len(passes) == 2


def perceptron(dtype=torch.float64):
    torch.manual_seed(0)
    layers = torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)
    return torch.nn.Sequential(*layers).to(dtype)


X = torch.rand(61, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def equation(module, dtype=torch.float64):
    """Two outputs in the interior, and another number of points on the boundary."""
    x = X.to(dtype, copy=True).requires_grad_()
    u = module(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    return slope + u, module(x[:17].detach())[:, 0]


def frozen():
    module = perceptron()
    module[0].bias.requires_grad_(False)
    return module


MODULES = {
    "plain": perceptron,
    "frozen": frozen,
    "float32": lambda: perceptron(torch.float32),
    "KAN with a linear layer": lambda: KAN([2, 2, 2], 2, 2, linear=True),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("chunk_size", [5, 40])
def test_residuals_of_a_module(name, chunk_size):
    flat = FlatParameters(MODULES[name]())
    u = flat.start().double() + 0.05
    dtype = torch.float32 if name == "float32" else torch.float64
    residual = partial(equation, dtype=dtype)
    r, J = linearize(flat, residual, u, chunk_size)
    whole, dense = linearize(flat, residual, u)
    assert isinstance(J, RowBlocks) == (len(r) >= len(u)) and isinstance(dense, DenseJacobian)
    close = {"rtol": 1e-4, "atol": 1e-4} if name == "float32" else {"rtol": 1e-9, "atol": 1e-10}
    d, y = torch.randn(len(u)).double(), torch.randn(len(r)).double()
    pairs = [
        (r, whole),
        (J.dense(), dense.matrix),
        (J.gram(), dense.gram()),
        (J.matvec(d), dense.matvec(d)),
        (J.rmatvec(y), dense.rmatvec(y)),
    ]
    for ours, theirs in pairs:
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, theirs, **close)
    sizes = [len(block) for _, block in J.blocks()]
    assert max(sizes) <= chunk_size and sum(sizes) == len(r)


@pytest.mark.parametrize(
    "residual",
    [
        lambda m: m(X).cumsum(0),
        lambda m: m(X).flip(0).cumsum(0),
        lambda m: m(X) - m(X.flip(0)),
        lambda m: m(X) - m(X).mean(0),
    ],
)
def test_mixed_samples_are_noticed(residual):
    flat = FlatParameters(perceptron())
    u = flat.start()
    found = linearize(flat, residual, u, 10)[1].dense()
    torch.testing.assert_close(found, linearize(flat, residual, u)[1].dense())
    small = FlatParameters(perceptron()[:1])  # more rows than twice the columns: by columns
    u = small.start()
    found = linearize(small, residual, u, 10)[1].dense()
    torch.testing.assert_close(found, linearize(small, residual, u)[1].dense())


def test_one_sample_at_once():
    flat = FlatParameters(perceptron())
    J = linearize(flat, equation, flat.start(), 1)[1]
    assert max(len(block) for _, block in J.blocks()) == 2  # its residuals
    torch.testing.assert_close(J.dense(), linearize(flat, equation, flat.start())[1].dense())


def test_large_ones_are_streamed_by_default(monkeypatch):
    monkeypatch.setattr(row_blocks, "ENTRIES", 100)
    monkeypatch.setattr(row_blocks, "BLOCK", 200)
    flat = FlatParameters(perceptron())
    r, J = linearize(flat, equation, flat.start())
    assert isinstance(J, RowBlocks) and len(list(J.blocks())) > 1


@pytest.mark.parametrize("penalty", [None, lambda network: torch.eye(27).double()])
def test_data_and_penalties(penalty):
    y = torch.sin(X)
    whole = LeastSquares(perceptron(), (X, y), penalty)
    problem = LeastSquares(perceptron(), (X, y), penalty, chunk_size=7)
    u = whole.start()
    (r, J), (theirs, dense) = problem.linearize(u), whole.linearize(u)
    torch.testing.assert_close(r, theirs)
    torch.testing.assert_close(J.gram(), dense.gram())
    torch.testing.assert_close(J.rmatvec(r), dense.rmatvec(r))
    torch.testing.assert_close(J.squares(), dense.gram().diagonal())
    torch.testing.assert_close(J.root().T @ J.root(), dense.gram())
    again = problem.with_network(perceptron()).with_data((X[:30], y[:30]))
    assert again.chunk_size == 7


@pytest.mark.parametrize("network", [KAN([2, 3, 2], 3), perceptron()])
def test_differential_equations(network):
    weights = torch.linspace(0.5, 2.0, 61).double()
    terms = [
        Term(lambda u: u.d(0, 0) + u.value * u.points[:, :1], X, 3.0, weights),
        Term(lambda u, v: (u.value - v.value)[:, 0], (X[:20], X[20:40])),
    ]
    problem = Collocation(network, terms, chunk_size=9)
    u = problem.start() + 0.01
    (r, J), (whole, dense) = problem.linearize(u), Collocation(network, terms).linearize(u)
    assert isinstance(J, RowBlocks) and len(list(J.blocks())) > 10
    torch.testing.assert_close(r, whole)
    d = torch.randn(len(u)).double()
    for ours, theirs in [
        (J.dense(), dense.dense()),
        (J.gram(), dense.gram()),
        (J.matvec(d), dense.matvec(d)),
        (J.rmatvec(r), dense.rmatvec(r)),
    ]:
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert problem.subsampled(0.5).chunk_size == problem.attended(u).chunk_size == 9


@pytest.mark.parametrize(
    ("residual", "explicit"),
    [(lambda u: u.value - X, True), (lambda u: u.value - u.value.mean(0), False)],
    ids=["data", "mean"],
)
def test_terms_that_cannot_be_taken_apart(residual, explicit):
    """Points of data are there at once; what mixes them is differentiated by torch, in rows."""
    problem = Collocation(KAN([2, 3, 2], 3), [Term(residual, X)], chunk_size=9)
    u = problem.start()
    _, J = problem.linearize(u)
    assert isinstance(J, DenseJacobian) == explicit
    v = u.clone().requires_grad_()
    (r,) = problem.flat.evaluate(problem.residual, v)
    rows = [torch.autograd.grad(entry, v, retain_graph=True)[0] for entry in r.flatten()]
    torch.testing.assert_close(J.dense(), torch.stack(rows))


def test_training_takes_the_same_steps():
    values = []
    for chunk_size in (None, 10):
        module = perceptron()
        solution = levenberg_marquardt(
            lambda m: tuple(part - 1.0 for part in equation(m)),  # 0 solves the other at once
            module,
            max_cycles=8,
            chunk_size=chunk_size,
        )
        values.append(torch.tensor(solution.values))
    torch.testing.assert_close(*values, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("chunk_size", [0, -3, 2.5, True])
def test_no_number_of_rows(chunk_size):
    with pytest.raises(ValueError, match="got chunk_size .*; it must be a positive integer"):
        LeastSquares(perceptron(), (X, X), chunk_size=chunk_size)


PEAK = """
import resource, torch
from mgnet.training.least_squares.problem import LeastSquares

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def problem(samples, chunk_size):
    layers = [torch.nn.Linear(1, 30), torch.nn.Tanh(), torch.nn.Linear(30, 30), torch.nn.Tanh()]
    layers.append(torch.nn.Linear(30, 1))
    x = torch.linspace(-1, 1, samples).unsqueeze(1).double()
    network = torch.nn.Sequential(*layers).double()
    return LeastSquares.from_torch(network, lambda m: m(x) - x, chunk_size)

def run(samples, chunk_size):
    made = problem(samples, chunk_size)
    r, J = made.linearize(made.start())
    J.gram(), J.rmatvec(r)

run(1000, 500)
before = peak()
run(20_000, 500)
print(1024 * (peak() - before) / (8 * 20_000 * 1021))
"""


def test_memory_is_a_fraction_of_the_matrix():
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5  # of 163 MB


def test_samples_that_mix_in_the_middle_are_refused():
    """The first and the last samples say nothing about the others; the sum of all blocks does."""
    x = torch.linspace(-1.0, 1.0, 400, dtype=torch.float64).unsqueeze(1)
    module = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    module = module.double()

    def residual(m):
        y = m(x)
        return torch.cat([y[:200], y[200:201] + y.mean(), y[201:]]) - x

    with pytest.raises(ValueError, match="depends on several samples, .* at least 400"):
        levenberg_marquardt(residual, module, chunk_size=50, max_cycles=2)
    assert levenberg_marquardt(residual, module, chunk_size=400, max_cycles=30).values[-1] < 1e-3
