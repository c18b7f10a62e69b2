"""Conjugate gradients do what SciPy's do, and inexact Newton steps lead where exact ones do."""

import math

import numpy as np
import pytest
import scipy.sparse.linalg as spla
import torch

from mgnet import Level
from mgnet.training import LeastSquares, LevenbergMarquardt, NewtonKrylov, levenberg_marquardt
from mgnet.training.least_squares.jacobian import DenseJacobian
from mgnet.training.least_squares.newton_krylov import (
    KrylovEquations,
    conjugate_gradients,
    forcing_term,
)
from mgnet.training.least_squares.normal_equations import NormalEquations

GENERATOR = torch.Generator().manual_seed(0)
J = torch.randn(60, 20, generator=GENERATOR, dtype=torch.float64) * torch.logspace(0, -2, 20)
J = DenseJacobian(J.double())
R = torch.randn(60, generator=GENERATOR, dtype=torch.float64)


class Diagonal:
    """The diagonal of the matrix as preconditioner."""

    def __init__(self, J):
        self.gram = J.gram()

    @staticmethod
    def prepare(J):
        return Diagonal(J)

    @property
    def scale(self):
        return float(self.gram.trace()) / len(self.gram)

    def shifted(self, shift):
        diagonal = self.gram.diagonal() + shift
        return lambda d: self.gram @ d + shift * d, lambda r: r / diagonal


@pytest.mark.parametrize("rtol", [1e-2, 1e-6, 1e-10])
def test_as_many_iterations_as_scipy(rtol):
    product, precondition = Diagonal(J).shifted(1e-3)
    b = J.rmatvec(R)
    found, told = conjugate_gradients(product, b, precondition, rtol, 500), []
    A, B = (
        spla.LinearOperator((20, 20), lambda d, p=p: p(torch.from_numpy(d)).numpy(), dtype=float)
        for p in (product, precondition)
    )
    theirs, info = spla.cg(A, b.numpy(), M=B, rtol=rtol, callback=told.append)
    assert info == 0
    assert found.converged
    assert abs(found.iterations - len(told)) <= 1
    assert found.residual_norm <= rtol
    np.testing.assert_allclose(found.value, theirs, rtol=0, atol=20 * rtol * abs(theirs).max())


@pytest.mark.parametrize(
    ("matrix", "inverse"),
    [
        (torch.diag(torch.tensor([1.0, -1.0])), torch.eye(2)),  # not positive
        (torch.eye(2), -torch.eye(2)),
        (torch.full((2, 2), math.nan), torch.eye(2)),
        (torch.eye(2), torch.full((2, 2), math.nan)),
    ],
)
def test_a_breakdown_keeps_the_last_good_value(matrix, inverse):
    b = torch.tensor([1.0, 2.0], dtype=torch.float64)
    found = conjugate_gradients(matrix.double().matmul, b, inverse.double().matmul, 1e-10)
    assert not found.converged
    assert bool(torch.isfinite(found.value).all())


def test_zero_needs_no_iteration():
    found = conjugate_gradients(lambda d: d, torch.zeros(3), lambda r: r)
    assert (found.iterations, found.converged, found.value.tolist()) == (0, True, [0.0] * 3)


def test_too_few_iterations_are_told():
    product, precondition = Diagonal(J).shifted(1e-6)
    found = conjugate_gradients(product, J.rmatvec(R), precondition, 1e-12, 3)
    assert (found.converged, found.iterations) == (False, 3)


@pytest.mark.parametrize("f", [None, torch.linspace(0.0, 0.1, 20, dtype=torch.float64)])
def test_tightly_solved_the_equations_are_the_normal_equations(f):
    ours = KrylovEquations(J, R, f, Diagonal(J), 1e-12, 1000)
    theirs = NormalEquations(J, R, f)
    assert ours.scale == pytest.approx(theirs.scale)
    for y in (None, R.flip(0)):
        solution = ours.damped(1e-3)(y)
        torch.testing.assert_close(solution, theirs.damped(1e-3)(y), rtol=1e-7, atol=1e-9)


def test_the_predicted_decrease_holds_for_inexact_steps():
    ours = KrylovEquations(J, R, None, Diagonal(J), 0.1, 1000)
    d = ours.damped(1e-4)(None)
    predicted = 0.5 * float(d @ (1e-4 * ours.scale * d + ours.descent))
    after = R + J.matvec(d)
    assert predicted == pytest.approx(0.5 * float(R @ R - after @ after), rel=1e-9)


def test_forcing_terms_follow_the_gradient():
    assert forcing_term(1.0, 0.0, 0.0, 0.2) == 0.2
    assert forcing_term(1e-3, 1.0, 0.01, 0.1) == pytest.approx(0.9e-3**1.618034 / 0.9**0.618034)
    assert forcing_term(1e-3, 1.0, 0.9, 0.95) == pytest.approx(0.9 * 0.9**1.618034)  # safeguard
    assert forcing_term(5.0, 1.0, 0.1, 0.1) == 0.1


def network():
    torch.manual_seed(0)
    layers = torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
    return torch.nn.Sequential(*layers).double()


X = torch.linspace(-1.0, 1.0, 80, dtype=torch.float64).unsqueeze(1)


@pytest.mark.parametrize("acceleration", [0.0, 0.75])
def test_levenberg_marquardt_with_it_trains_as_well(acceleration):
    values = []
    for solver in (None, NewtonKrylov(Diagonal, direct=0)):
        solution = levenberg_marquardt(
            lambda m: m(X) - torch.sin(4 * X),
            network(),
            max_cycles=60,
            acceleration=acceleration,
            linear_solver=solver,
        )
        assert all(b <= a for a, b in zip(solution.values[:-1], solution.values[1:], strict=True))
        values.append(solution.values[-1])
    assert max(values) < 1e-4


def test_the_diagonal_is_the_default_for_any_module():
    prepared = NewtonKrylov().preconditioner.prepare(J)
    theirs = Diagonal(J)
    assert prepared.scale == pytest.approx(theirs.scale)
    d = R[:20]
    for ours, expected in zip(prepared.shifted(1e-3), theirs.shifted(1e-3), strict=True):
        torch.testing.assert_close(ours(d), expected(d))
    solution = levenberg_marquardt(
        lambda m: m(X) - torch.sin(4 * X),
        network(),
        max_cycles=60,
        linear_solver=NewtonKrylov(direct=0),
    )
    assert solution.values[-1] < 1e-4


def test_small_systems_are_solved_directly():
    assert isinstance(NewtonKrylov(Diagonal).system(J, R, None, 0.1), NormalEquations)
    assert isinstance(NewtonKrylov(Diagonal, direct=19).system(J, R, None, 0.1), KrylovEquations)


def test_a_solver_that_breaks_down_leaves_the_state():
    class Broken(Diagonal):
        prepare = staticmethod(lambda J: Broken(J))

        def shifted(self, shift):
            return (lambda d: -d), (lambda r: r)

    problem = LeastSquares.from_torch(network(), lambda m: m(X) - X)
    smoother = LevenbergMarquardt(linear_solver=NewtonKrylov(Broken, direct=0))
    level, u = Level(problem, smoother), problem.start()
    new, memory = smoother.smooth(level, u, None, 1, smoother.start(level, u))
    assert new is u
    assert memory.mu > 1e-2


@pytest.mark.parametrize("options", [{"direct": -1}, {"loosest": 1.0}, {"max_iterations": 0}])
def test_refusals(options):
    with pytest.raises(ValueError, match="needs a direct that is not negative"):
        NewtonKrylov(Diagonal, **options)


def test_other_parts_are_refused_at_once():
    with pytest.raises(TypeError, match="the preconditioner 4000, which has no method `prepare`"):
        NewtonKrylov(4000)
    with pytest.raises(TypeError, match="linear_solver of type str; give a NewtonKrylov"):
        LevenbergMarquardt(linear_solver="cg")
