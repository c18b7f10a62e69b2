"""An accepted step lowers the merit function by Armijo's rule; what does not descend is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgnet import Backtracking, Hierarchy, Jacobi, Level, cycle, gallery, run

A = np.diag([1.0, 4.0])


def energy(u):
    return 0.5 * float(u @ A @ u)


QUADRATIC = Level(A, Jacobi(), objective=energy, name="quadratic")
RESIDUAL = Level(A, Jacobi(), name="residual")
vectors = st.tuples(st.floats(-10, 10), st.floats(-10, 10)).map(np.array)


def search(level, u, d, f, **options):
    return Backtracking(**options)(level, u, d, f, (0.0 if f is None else f) - A @ u)


def armijo(value, slope, options):
    """Find the step by the rule itself: the first of 1, s, s^2, ... that decreases enough."""
    for k in range(options["trials"]):
        step = options["shrink"] ** k
        if value(step) <= value(0.0) + options["decrease"] * step * slope:
            return step
    return 0.0


@given(
    vectors,
    vectors,
    st.none() | vectors,
    st.sampled_from([1e-4, 0.3]),
    st.sampled_from([0.5, 0.1]),
    st.integers(1, 6),
)
def test_armijo_on_the_objective(u, d, f, decrease, shrink, trials):
    options = {"decrease": decrease, "shrink": shrink, "trials": trials}
    g = 0.0 * u if f is None else f
    slope = float((A @ u - g) @ d)

    def value(step):
        v = u + step * d
        return energy(v) - float(g @ v)

    step = search(QUADRATIC, u, d, f, **options)
    if slope >= 0.0:
        assert step == 0.0
    else:
        # Equal to the rule, or as good as the rule where rounding decides.
        expected = armijo(value, slope, options)
        room = 1e-9 * (1.0 + abs(value(0.0)))
        assert step == pytest.approx(expected) or abs(value(step) - value(expected)) < room
        assert value(step) <= value(0.0) + room


@given(vectors, vectors, st.none() | vectors, st.sampled_from([1e-4, 0.2, 0.45]))
def test_without_an_objective_the_residual_falls(u, d, f, decrease):
    g = 0.0 * u if f is None else f

    def value(step):
        r = g - A @ (u + step * d)
        return 0.5 * float(r @ r)

    # Along the Newton direction the slope of half the squared residual norm is minus its square.
    options = {"decrease": decrease, "shrink": 0.5, "trials": 10}
    step, expected = search(RESIDUAL, u, d, f, **options), armijo(value, -2 * value(0.0), options)
    room = 1e-9 * (1.0 + value(0.0))
    assert step == expected or abs(value(step) - value(expected)) < room
    assert value(step) <= value(0.0) * (1.0 - 2.0 * decrease * step) + room


def test_without_an_objective_the_decrease_is_a_fraction_of_newtons():
    level, u, r = Level(np.eye(1), Jacobi()), np.ones(1), -np.ones(1)
    for decrease, step in ((0.3, 1.0), (0.45, 0.0)):  # r falls by 0.6: 0.36 <= 1 - 2 c is needed
        search = Backtracking(decrease=decrease, trials=1)
        assert search(level, u, -0.4 * u, None, r) == step


@pytest.mark.parametrize(
    ("direction", "step"),
    [(1.0, 1.0), (1.9, 1.0), (4.0, 0.25), (-1.0, 0.0), (0.0, 0.0), (1e9, 0.0), (np.nan, 0.0)],
)
def test_steps_by_hand(direction, step):
    # J = u^2 / 2 at u = 1, direction -t: the full step decreases for t < 2.
    level = Level(np.eye(1), Jacobi(), objective=lambda u: 0.5 * float(u @ u))
    u = np.ones(1)
    assert Backtracking()(level, u, -direction * u, None, -u) == step


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("bad", [np.inf, np.nan, -np.inf])
def test_a_value_that_is_not_finite_is_no_decrease(bad):
    level = Level(
        lambda u: u, Jacobi(), objective=lambda u: bad if u[0] < 0 else 0.5 * float(u @ u)
    )
    u = np.ones(1)
    assert Backtracking()(level, u, np.array([-1.5]), None, -u) == 0.5


def test_the_inner_product_can_be_replaced():
    calls = []

    def dot(u, v):
        calls.append((u, v))
        return 2.0 * float(u @ v)

    u = np.array([1.0, 1.0])
    assert search(QUADRATIC, u, -0.1 * A @ u, np.ones(2) * 0.1, dot=dot) == 1.0
    assert search(RESIDUAL, u, -u, None, dot=dot) == 1.0
    assert len(calls) >= 5


@pytest.mark.parametrize(
    "options",
    [{"decrease": 0.0}, {"decrease": 1.0}, {"shrink": 0.0}, {"shrink": 1.0}, {"trials": 0}],
)
def test_options_are_checked(options):
    with pytest.raises(ValueError, match="needs decrease and shrink between 0 and 1 and at least"):
        Backtracking(**options)


def test_a_cycle_with_it_never_raises_the_objective():
    # A coarse equation with the wrong sign gives an ascent direction: the correction is refused.
    fine, coarse = gallery.reaction(7, levels=2)
    level = Level(
        fine.operator,
        Jacobi(),
        fine.transfer,
        linearize=fine.linearize,
        objective=fine.objective,
        line_search=Backtracking(),
        size=7,
    )
    wrong = Level(
        lambda u: -coarse.apply(u),
        coarse.smoother,
        linearize=lambda u: -coarse.linearize(u),
        size=3,
    )
    f, steps = np.ones(7) / 8, []
    for below, accepted in ((coarse, True), (wrong, False)):
        steps.clear()
        u, _ = run(
            cycle(2, pre=1, post=0),
            Hierarchy([level, below]),
            None,
            f,
            record=lambda _, data: steps.append(data),
        )
        before, after = steps[0].state, steps[-1].state
        assert (steps[-1].step_length > 0.0) is accepted
        assert (level.value(after, f) < level.value(before, f)) is accepted
        if not accepted:
            np.testing.assert_array_equal(before, after)
