"""Law: whatever a step function does, the answer is that of a clean one, or one sentence refuses.

A fault changes how a right step is written: what it edits, what it gives, which shapes it expects.
"""

import re

import numpy as np
import pytest
import torch

import mgnet
from mgnet.depth.mgrit.checked_step import CheckedStep
from mgnet.depth.mgrit.one_step import OneStep

# The object, what it got, what it must be or how to change it; no words of NumPy.
SENTENCE = re.compile(
    r"OneStep got a step (?:that|whose) .*(; it must |; give |; t and dt )", re.DOTALL
)
NUMPY = re.compile(r"broadcast together|UFuncTypeError|could not be|ambiguous|size-1")


def column(dt, u):
    return dt.reshape(-1, *[1] * (u.ndim - 1))


def right(t, dt, u):
    """Implicit Euler for u' = -(1 + t) u."""
    return u / (1.0 + column(dt * (1.0 + t), u))


class Reuses:
    """Gives one of a few arrays for each shape, in turn."""

    def __init__(self, count):
        self.count, self.calls, self.kept = count, 0, {}

    def __call__(self, t, dt, u):
        arrays = self.kept.setdefault(u.shape, [np.empty_like(u) for _ in range(self.count)])
        self.calls += 1
        out = arrays[self.calls % self.count]
        out[:] = right(t, dt, u)
        return out


def edits_and_gives_it(t, dt, u):
    u[:] = right(t, dt, u)
    return u


def edits_and_gives_another(t, dt, u):
    new = right(t, dt, u)
    u *= 3.0
    return new


def edits_times(t, dt, u):
    new = right(t, dt, u)
    t += 1.0
    dt *= 0.5
    return new


def edits_late(t, dt, u):
    new = right(t, dt, u)
    u[t > 0.2] = 7.0
    return new


def view_of_its_argument(t, dt, u):
    u[:] = right(t, dt, u)[..., ::-1]
    return u[..., ::-1]


def strided(t, dt, u):
    twice = np.empty((2 * len(u), *u.shape[1:]), u.dtype)
    twice[::2] = right(t, dt, u)
    return twice[::2]


def in_fortran_order(t, dt, u):
    return np.asfortranarray(right(t, dt, u))


def in_a_subclass(t, dt, u):
    return right(t, dt, u).view(np.memmap)


FINE = {
    "edits and gives it": lambda: edits_and_gives_it,
    "edits and gives another": lambda: edits_and_gives_another,
    "edits t and dt": lambda: edits_times,
    "edits from some time on": lambda: edits_late,
    "view of its argument": lambda: view_of_its_argument,
    "strided": lambda: strided,
    "Fortran order": lambda: in_fortran_order,
    "one buffer": lambda: Reuses(1),
    "two buffers in turn": lambda: Reuses(2),
    "a subclass": lambda: in_a_subclass,
}

WRONG = {
    "nothing": lambda t, dt, u: None,
    "a number": lambda t, dt, u: float(right(t, dt, u).sum()),
    "one number of NumPy": lambda t, dt, u: right(t, dt, u).sum(),
    "a list": lambda t, dt, u: right(t, dt, u).tolist(),
    "a tensor": lambda t, dt, u: torch.from_numpy(right(t, dt, u)),
    "a tensor with grad": lambda t, dt, u: torch.tensor(right(t, dt, u), requires_grad=True),
    "integers": lambda t, dt, u: right(t, dt, u).astype(int),
    "truths": lambda t, dt, u: right(t, dt, u) > 0,
    "complex": lambda t, dt, u: right(t, dt, u) * (1.0 + 0.0j),
    "objects": lambda t, dt, u: right(t, dt, u).astype(object),
    "a masked array": lambda t, dt, u: np.ma.masked_array(right(t, dt, u)),
    "flat": lambda t, dt, u: right(t, dt, u).ravel()[: len(t)].reshape(-1, *[1] * u.ndim),
    "an axis more": lambda t, dt, u: right(t, dt, u)[..., None],
    "an axis in front": lambda t, dt, u: right(t, dt, u)[None],
    "the first alone": lambda t, dt, u: right(t, dt, u)[0],
    "the first row alone": lambda t, dt, u: right(t, dt, u)[:1],
    "the mean of the rows": lambda t, dt, u: right(t, dt, u).mean(axis=0, keepdims=True),
    "every row alike": lambda t, dt, u: right(t, dt, u)[:1] + 0.0 * u,
    "coupled by their mean": lambda t, dt, u: u - column(dt, u) * (u + u.mean()),
    "rows turned": lambda t, dt, u: u - column(dt, u) * np.roll(u, 1, axis=0),
}
# Where there are states with axes; a scalar state has nothing to broadcast along.
WRONG_OF_VECTORS = {
    "dt without [:, None]": lambda t, dt, u: u / (1.0 + dt),
    "t without [:, None]": lambda t, dt, u: u - column(dt, u) * np.sin(t) * u,
    "norm of all rows": lambda t, dt, u: u / (1.0 + column(dt, u) * np.linalg.norm(u)),
    "A @ u": lambda t, dt, u: u - column(dt, u) * (np.eye(u.shape[1]) @ u),
    "a matrix": lambda t, dt, u: np.matrix(right(t, dt, u)),
    "one state at a time": lambda t, dt, u: float(u.ravel()[0]) / (1.0 + dt),
}
SHAPES = [(), (1,), (2,), (3,), (4,), (5,), (2, 3), (4, 1), (1, 4)]


def drawn(seed, shape):
    """A problem of unequal steps, and levels whose sweeps take as many rows as it has unknowns."""
    generator = np.random.default_rng(seed)
    initial = 1.0 + generator.random(shape)
    count = int(generator.integers(8, 25))
    return initial, 0.01 + 0.09 * generator.random(count), int(generator.integers(2, 6))


def solve(step, initial, steps, factor):
    problem = OneStep(step, initial, steps)
    solver = mgnet.Solver(problem.hierarchy(coarsening=factor), rtol=1e-12)
    return problem.serial(), solver.solve(u=problem.guess()).require().value


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FINE)
@pytest.mark.parametrize("seed", range(3))
def test_what_a_step_does_to_arrays_changes_nothing(name, shape, seed):
    initial, steps, factor = drawn(seed, shape)
    kept = initial.copy(), steps.copy()
    with np.errstate(all="raise"):
        serial, parallel = solve(FINE[name](), initial, steps, factor)
        clean = solve(right, initial, steps, factor)[0]
    assert np.array_equal(serial, clean)
    assert abs(parallel - clean).max() < 1e-11
    assert np.array_equal(initial, kept[0]) and np.array_equal(steps, kept[1])


@pytest.mark.parametrize("name", [*WRONG, *WRONG_OF_VECTORS])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_a_wrong_step_is_refused_in_one_sentence(name, seed):
    step = {**WRONG, **WRONG_OF_VECTORS}[name]
    for shape in SHAPES:
        if name in WRONG_OF_VECTORS and len(shape) != 1:
            continue
        initial, steps, factor = drawn(seed, shape)
        kept = initial.copy(), steps.copy()
        for call in (
            lambda p: p.serial(),
            lambda p: p.hierarchy(coarsening=factor),  # noqa: B023
        ):
            with pytest.raises((TypeError, ValueError)) as caught:
                call(OneStep(step, initial, steps))
            assert SENTENCE.match(str(caught.value)) and not NUMPY.search(str(caught.value))
        assert np.array_equal(initial, kept[0]) and np.array_equal(steps, kept[1])


@pytest.mark.parametrize("unknowns", range(1, 6))
def test_the_forgotten_axis_is_named(unknowns):
    """As many unknowns as steps of a sweep: the wrong shape would broadcast unseen."""
    problem = OneStep(lambda t, dt, u: u / (1 + dt), np.ones(unknowns), np.full(16, 0.1))
    with pytest.raises((TypeError, ValueError), match=r"write dt\[:, None\]"):
        problem.hierarchy()
    grid = OneStep(lambda t, dt, u: u / (1 + dt), np.ones((unknowns, 3)), np.full(16, 0.1))
    with pytest.raises((TypeError, ValueError), match=r"write dt\[:, None, None\]"):
        grid.serial()


@pytest.mark.parametrize("initial", [1.0, 1, [1.0], [1, 2], np.float64(2.0), np.arange(3)])
def test_numbers_and_lists_are_states_too(initial):
    steps, start = np.full(20, 0.1), np.asarray(initial, float)
    serial, parallel = solve(right, initial, steps, 4)
    clean = solve(right, start, steps, 4)
    assert serial.dtype == float
    assert np.array_equal(serial, clean[0]) and np.array_equal(parallel, clean[1])


@pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")
def test_numbers_made_of_times_are_named():
    """Both work for one step and fail for several."""
    for step, remedy in (
        (lambda t, dt, u: u - float(dt) * u, r"write dt\[:, None\] .* in place of float\(dt\)"),
        (lambda t, dt, u: u - 0.1 * u if t > 0.5 else u, r"write np\.where for an `if`"),
    ):
        with pytest.raises(ValueError, match=remedy):
            OneStep(step, np.ones(2), np.full(16, 0.1)).hierarchy()


def test_a_scalar_state_needs_no_axis():
    with pytest.raises(TypeError, match=r"leave \[:, None\] out"):
        OneStep(lambda t, dt, u: u / (1 + dt[:, None]), 1.0, np.full(16, 0.1)).serial()


def test_complex_steps_of_complex_states():
    def step(t, dt, u):
        return u / (1.0 + 1j * column(dt, u))

    serial, parallel = solve(step, np.ones(1, complex), np.full(16, 0.1), 4)
    assert abs(serial[-1] - (1.0 + 0.1j) ** -16).max() < 1e-13
    assert abs(parallel - serial).max() < 1e-11
    with pytest.raises(TypeError, match=r"complex128; give a complex initial .*astype\(complex\)"):
        OneStep(step, np.ones(1), np.full(16, 0.1)).serial()


def test_a_step_of_single_precision_is_its_own_affair():
    def step(t, dt, u):
        return right(t, dt, u).astype(np.float32)

    problem = OneStep(step, np.ones(2), np.full(16, 0.1))
    solution = mgnet.Solver(problem.hierarchy(), rtol=1e-5).solve(u=problem.guess())
    clean = OneStep(right, np.ones(2), np.full(16, 0.1)).serial()
    assert abs(solution.require().value - clean).max() < 1e-5


def test_errors_of_the_step_are_its_own():
    def fails(t, dt, u):
        raise ValueError("Newton's method did not converge")

    with pytest.raises(ValueError, match="Newton's method did not converge"):
        OneStep(fails, np.ones(2), np.full(4, 0.1)).serial()


def test_a_step_may_have_no_meaning_away_from_its_trajectory():
    def simplex(t, dt, u):
        if not np.allclose(u.sum(axis=1), 1.0):
            raise ValueError("fractions must sum to 1")
        return u + column(dt, u) * (u[:, ::-1] - u)

    serial, parallel = solve(simplex, np.array([0.2, 0.8]), np.full(16, 0.1), 4)
    assert abs(parallel - serial).max() < 1e-11


def test_not_finite_is_left_to_the_solve():
    problem = OneStep(lambda t, dt, u: u * np.nan, np.ones(2), np.full(16, 0.1))
    solution = mgnet.Solver(problem.hierarchy()).solve(u=problem.guess())
    assert solution.reason.name == "NOT_FINITE"


def test_copies_are_made_where_they_are_needed():
    steps, times = np.full(4, 0.1), np.arange(4.0)
    for step, edits, reuses in (
        (right, False, False),
        (edits_and_gives_it, False, False),
        (edits_times, True, False),
        (Reuses(2), False, True),
    ):
        checked = CheckedStep(step)
        checked.observe(np.ones(2), times, steps)
        assert (checked.edits_times, checked.reuses_results) == (edits, reuses)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)])
def test_one_step_length_for_all_is_right_where_all_are_equal(shape):
    """The last interval of 18 steps by 4 is short, so a coarse step is, too."""

    def step(t, dt, u):
        return u / (1.0 + dt[0])

    initial = np.ones(shape)
    serial, parallel = solve(step, initial, np.full(16, 0.1), 4)
    assert abs(parallel - serial).max() < 1e-11
    problem = OneStep(step, initial, np.full(18, 0.1))
    assert abs(problem.serial()[-1] - 1.1**-18).max() < 1e-14
    for faulty in (
        lambda: problem.hierarchy(coarsening=4),
        lambda: OneStep(step, initial, np.r_[np.full(8, 0.1), np.full(8, 0.2)]).serial(),
    ):
        with pytest.raises(ValueError, match="at once differ from those one by one"):
            faulty()


FORCED = {
    "t[0]": lambda t: t[0] + 0.0 * t,
    "the last t": lambda t: t[-1] + 0.0 * t,
    "the mean of t": lambda t: t.mean() + 0.0 * t,
}


@pytest.mark.parametrize("rate", [0.5, 3.0, 20.0])
@pytest.mark.parametrize("name", FORCED)
@pytest.mark.parametrize("shape", [(), (2,), (3,)])
def test_one_time_for_all_is_refused_where_steps_are_equal(name, rate, shape):
    def step(t, dt, u):
        return (u + column(dt * np.sin(rate * FORCED[name](t)), u)) / (1.0 + column(dt, u))

    with pytest.raises(ValueError, match="one by one.*of t\\[0\\]"):
        OneStep(step, np.ones(shape), np.full(64, 1.0 / 64)).hierarchy()


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_forcing_from_a_table_is_right(shape):
    table = np.sin(np.arange(18.0))

    def step(t, dt, u):
        f = table[np.round(10.0 * t).astype(int)]
        return (u + column(dt * f, u)) / (1.0 + column(dt, u))

    serial, parallel = solve(step, np.ones(shape), np.full(18, 0.1), 4)
    assert abs(parallel - serial).max() < 1e-11
