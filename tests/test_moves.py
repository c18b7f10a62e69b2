"""Steps on a level call the parts of mgnet as they are, and refuse what others give wrong."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.sparse.linalg as spla

from mgnet import (
    Chebyshev,
    GaussSeidel,
    Hierarchy,
    Jacobi,
    Level,
    MatrixTransfer,
    Smoother,
    Solver,
    gallery,
)
from mgnet.cycles import cycle
from mgnet.interpreter import run
from mgnet.moves import carried, correct, descend, interpolated, start, swept
from mgnet.schedule import Step

POISSON = gallery.poisson(7, levels=2)
P = POISSON[0].transfer.P


def with_transfer(transfer, **more):
    return Hierarchy([replace(POISSON[0], transfer=transfer, **more), POISSON[1]])


def edits(function):
    def edit(u):
        result = function(u)
        u *= 2.0
        return result

    return edit


@pytest.mark.parametrize("wrap", [lambda f, shape: f, spla.LinearOperator], ids=["plain", "SciPy"])
def test_functions_in_the_place_of_matrices_are_watched(wrap):
    """SciPy's LinearOperator hands its argument on as it is."""
    right = {"P": (lambda w: P @ w, (7, 3)), "R": (lambda r: P.T @ r, (3, 7))}

    def made(changed=None):
        parts = {n: (edits(f) if n == changed else f, shape) for n, (f, shape) in right.items()}
        if wrap is spla.LinearOperator:
            return {n: wrap(shape, f, dtype=float) for n, (f, shape) in parts.items()}
        return {n: f for n, (f, _) in parts.items()}

    expected = Solver(POISSON).solve(np.ones(7)).value
    solution = Solver(with_transfer(MatrixTransfer(**made()))).solve(np.ones(7))
    np.testing.assert_allclose(solution.value, expected, rtol=1e-7)
    for name in right:
        with pytest.raises(ValueError, match="a transfer, MatrixTransfer, with a method .* edits"):
            Solver(with_transfer(MatrixTransfer(**made(name)))).solve(np.ones(7))


def test_an_operator_of_another_library_is_watched():
    class Own:
        def __init__(self, edit):
            self.edit = edit

        def __matmul__(self, u):
            image = POISSON[0].matrix @ u
            if self.edit:
                u *= 2.0
            return image

        shape = (7, 7)

    level = Level(Own(False), Jacobi(), name="level 0")
    np.testing.assert_array_equal(level.apply(np.ones(7)), POISSON[0].matrix @ np.ones(7))
    with pytest.raises(ValueError, match="level 0 has an operator that edits its argument"):
        Level(Own(True), Jacobi(), name="level 0").apply(np.ones(7))


@dataclass(frozen=True)
class Gives(Smoother):
    result: object

    def smooth(self, level, u, f, sweeps, memory):
        return self.result(u)

    def smooth_ahead(self, level, u, f, sweeps, memory):
        return self.result(u)


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (lambda u: u, r"returned ndarray \(2,\) .*; it must return \(state, memory\)"),
        (lambda u: None, "returned NoneType; it must return"),
        (lambda u: (u, None, u), "returned tuple; it must return"),
        (lambda u: (u[:1], None), r"returned ndarray \(1,\) .*; it must return a state like u"),
        (lambda u: (u.tolist(), None), "returned list; it must return a state like u"),
    ],
)
def test_what_a_smoother_gives(result, sentence):
    """A state of two unknowns would be taken apart as if it were a state and a memory."""
    level = Level(np.eye(2), Gives(result), name="level 0")
    with pytest.raises(TypeError, match=f"level 0 has a smoother, Gives, .*{sentence}"):
        swept(level, Step("pre", 0, 1), np.ones(2), np.ones(2), {}, ahead=False)


def test_a_smoother_gives_the_residual_ahead():
    level = Level(np.eye(2), Gives(lambda u: (u, None, 2.0 * u)), name="level 0")
    u = np.ones(2)
    assert swept(level, Step("pre", 0, 1), u, u, {}, ahead=True)[1].tolist() == [2.0, 2.0]
    level = Level(np.eye(2), Gives(lambda u: (u, None)), name="level 0")
    with pytest.raises(TypeError, match="residual or None"):
        swept(level, Step("pre", 0, 1), u, u, {}, ahead=True)


@pytest.mark.parametrize("base", [Jacobi, GaussSeidel, Chebyshev])
def test_a_derived_smoother_is_called_by_its_own_smooth(base):
    """The compiled `smooth_ahead` of the base class knows nothing of it."""

    class Idle(base):
        def smooth(self, level, u, f, sweeps, memory):
            return u, memory

    class IdleAhead(Idle):
        def smooth_ahead(self, level, u, f, sweeps, memory):
            return u, memory, None

    for smoother in (Idle(), IdleAhead()):
        level = Level(POISSON[0].matrix, smoother, name="level 0")
        u, r = swept(level, Step("pre", 0, 2), np.ones(7), np.ones(7), {}, ahead=True)
        assert r is None and u.tolist() == [1.0] * 7


def test_a_fault_of_smooth_names_smooth():
    """Not `smooth_ahead`, which the user never wrote."""

    class Nothing(Smoother):
        def smooth(self, level, u, f, sweeps, memory):
            return None

    level = Level(np.eye(2), Nothing(), name="level 0")
    with pytest.raises(
        TypeError, match=r"a method smooth that returned NoneType.*\(state, memory\)"
    ):
        swept(level, Step("pre", 0, 1), np.ones(2), np.ones(2), {}, ahead=True)


@pytest.mark.parametrize(
    ("part", "function", "sentence"),
    [
        (
            "line_search",
            lambda *given: None,
            "a line search that returned None; it must return one",
        ),
        ("line_search", lambda *given: np.ones(7), r"a line search that returned ndarray \(7,\)"),
        (
            "recenter",
            lambda u: u,
            "a function recenter that returned ndarray .*; it must return a Level",
        ),
        ("recenter", edits(lambda u: POISSON[1]), "a function recenter that edits its argument"),
        ("line_search", lambda level, u, d, f, r: d.fill(0.0), "a line search that edits"),
    ],
)
def test_functions_of_a_level(part, function, sentence):
    """None from a line search would have refused every correction without a word."""
    hierarchy = with_transfer(POISSON[0].transfer, **{part: function}, name="level 0")
    with pytest.raises((TypeError, ValueError), match=f"level 0 has {sentence}"):
        run(cycle(2), hierarchy, np.ones(7), np.ones(7))


@pytest.mark.parametrize(
    "jacobian", [None, np.ones(7), np.ones((7, 8)), "A", 1.0, [[1.0]]], ids=lambda j: str(type(j))
)
def test_jacobians(jacobian):
    level = Level(abs, Jacobi(), linearize=lambda u: jacobian, name="level 0")
    with pytest.raises(
        TypeError, match="level 0 has a function linearize that returned .*; it must"
    ):
        level.jacobian(np.ones(7))


def test_a_residual_may_be_an_argument_or_an_array_that_is_kept():
    """Relaxation overwrites residuals; what it gets is its own."""
    f, u = np.ones(7), np.zeros(7)
    level = replace(POISSON[0], residual=lambda u, f: f)
    smoother = Jacobi()
    smoother.smooth(level, u, f, 3, smoother.start(level, u))
    assert f.tolist() == [1.0] * 7 and u.tolist() == [0.0] * 7


def test_parts_of_mgnet_are_called_as_they_are():
    assert not POISSON[0].watched and not gallery.reaction(7)[0].watched
    r = np.ones(7)
    down = descend(POISSON[0], POISSON[1], r, r)
    np.testing.assert_array_equal(down[2], P.T @ r)
    np.testing.assert_array_equal(carried(POISSON[0], "restrict", r), P.T @ r)
    np.testing.assert_array_equal(
        interpolated(POISSON[0], down[2], None), POISSON[0].transfer.interpolation @ down[2]
    )
    up, length = correct(POISSON[0], r, (down[2], None), None, r)
    np.testing.assert_array_equal(up, r + P @ down[2])
    assert length == 1.0
    us, fs = [r, None], [r, None]
    start(list(POISSON), us, fs, given=False)
    np.testing.assert_array_equal(fs[1], P.T @ r)
