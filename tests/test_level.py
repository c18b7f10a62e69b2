"""A level evaluates, counts what it evaluates, and knows its size and cost."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse.linalg as spla

from mgnet import Jacobi, Level, gallery

A = gallery.poisson(7)[0].matrix


@pytest.mark.parametrize("operator", [A, A.toarray(), lambda u: A @ u, spla.aslinearoperator(A)])
def test_residual(operator):
    level = Level(operator, Jacobi())
    u, f = np.arange(7.0), np.ones(7)
    np.testing.assert_allclose(level.apply(u), A @ u)
    np.testing.assert_allclose(level.residual_at(u, f), f - A @ u)
    np.testing.assert_allclose(level.residual_at(u, None), -(A @ u))
    np.testing.assert_array_equal(f, np.ones(7))
    assert level.tally[0] == 3.0


def test_a_residual_of_its_own():
    level = Level(A, Jacobi(), residual=lambda u, f: f + u, residual_cost=0.25)
    np.testing.assert_array_equal(level.residual_at(np.ones(7), np.ones(7)), 2.0)
    assert level.tally[0] == 0.25


class Remembers:
    """Knows its last result, and counts what it evaluates."""

    def __init__(self):
        self.tally, self.last = [0.0], None

    def __call__(self, u):
        if u is not self.last:
            self.tally[0] += 1.0
            self.last = u
        return A @ u


@pytest.mark.parametrize("own", [None, lambda u, f: f - u])
def test_an_operator_may_count_for_its_level(own):
    operator = Remembers()
    level, u = Level(operator, Jacobi(), residual=own), np.ones(7)
    for _ in range(3):
        level.apply(u)
        level.residual_at(u, u)
    assert level.tally[0] == operator.tally[0] == 1.0
    level.charge(0.5)
    assert replace(level, name="another").tally[0] == operator.tally[0] == 1.5


def test_a_tally_of_another_kind_is_the_operators_own_affair():
    class Counted:
        tally = 7

        def __call__(self, u):
            return 2.0 * u

    level = Level(Counted(), Jacobi())
    np.testing.assert_array_equal(level.residual_at(np.ones(7), np.ones(7)), -1.0)
    assert level.tally == [1.0]


@pytest.mark.parametrize("operator", [lambda u: u, A])
def test_residuals_do_not_edit_what_the_operator_returns(operator):
    u, f = np.ones(7), np.full(7, 3.0)
    Level(operator, Jacobi()).residual_at(u, f)
    np.testing.assert_array_equal(u, 1.0)
    np.testing.assert_array_equal(f, 3.0)


def test_value():
    level = Level(A, Jacobi(), objective=lambda u: 0.5 * float(u @ (A @ u)))
    u, f = np.arange(7.0), np.ones(7)
    assert level.value(u, f) == pytest.approx(0.5 * u @ (A @ u) - f @ u)
    assert level.value(u, None) == pytest.approx(0.5 * u @ (A @ u))
    assert level.value(u, f, lambda f, u: 0.0) == level.value(u, None)
    assert level.tally[0] == 4.0
    with pytest.raises(TypeError, match="level 2 has no objective"):
        Level(A, Jacobi(), name="level 2").value(u, f)


def test_the_jacobian_is_the_derivative_or_the_matrix():
    u = np.ones(7)
    assert Level(A, Jacobi()).jacobian(u) is A
    level = Level(A, Jacobi(), linearize=lambda u: np.diag(2 * u))
    assert level.jacobian(u).diagonal().tolist() == [2.0] * 7
    with pytest.raises(TypeError, match=r"level 2 has neither .* its smoother Jacobi\(omega"):
        Level(lambda u: u, Jacobi(), name="level 2").jacobian(u)


def test_numbers_of_a_level():
    assert Level(A, Jacobi()).unknowns == 7
    assert Level(A, Jacobi(), size=14).unknowns == 14
    assert Level(lambda u: u, Jacobi()).unknowns == 0
    costs = [{"cost": 3.0, "size": 5}, {"size": 5}, {}]
    assert [Level(abs, Jacobi(), **c).evaluation_cost for c in costs] == [3.0, 5.0, 1.0]
    levels = [Level(A, Jacobi()) for _ in range(2)]
    levels[0].charge(2.5)
    assert [level.tally[0] for level in levels] == [2.5, 0.0]


class Asked:
    """A matrix that counts how often its shape is read."""

    def __init__(self, size):
        self.size = size
        self.times = 0

    def __matmul__(self, u):
        return u

    @property
    def shape(self):
        self.times += 1
        return self.size, self.size


def test_constants_are_worked_out_once_and_replace_does_not_carry_them_over():
    level = Level(Asked(3), Jacobi())
    for _ in range(5):
        assert level.matrix is level.operator
        assert (level.unknowns, level.evaluation_cost, level.residual_work) == (3, 3.0, 1.0)
    assert level.operator.times == 1
    other = replace(level, operator=Asked(5))
    assert (other.matrix, other.unknowns, other.evaluation_cost) == (other.operator, 5, 5.0)
    function = replace(level, operator=abs, residual=lambda u, f: u, residual_cost=0.5, cost=2.0)
    assert (function.matrix, function.unknowns) == (None, 0)
    assert (function.evaluation_cost, function.residual_work) == (2.0, 0.5)
    assert (level.unknowns, level.evaluation_cost, level.residual_work) == (3, 3.0, 1.0)


def test_what_python_multiplies_is_a_matrix():
    class Forwards:
        """Has every attribute, but no `@`, for which Python asks the class."""

        def __getattr__(self, name):
            return getattr(A, name)

    class Refuses:
        __matmul__ = None

    for operator in (Forwards(), Refuses()):
        with pytest.raises(TypeError):
            _ = operator @ object()
        assert Level(operator, Jacobi()).matrix is None
