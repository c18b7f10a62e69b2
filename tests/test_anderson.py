"""Anderson acceleration is GMRES on linear equations, and is never left to make a solve fail."""

import numpy as np
import pytest
import scipy.linalg as la
import scipy.optimize as so
import scipy.sparse.linalg as spla
import torch

from mgnet import Anderson, Hierarchy, Jacobi, Level, Smoother, Solver, cycle, gallery, run
from mgnet.anderson import Iterates

POINTS = (15, 3)  # cells of 1 : 4: point relaxation hardly smooths


def path(hierarchy, f, cycles, acceleration, text="V(1,1)", u=None):
    """The states after each cycle, the start first."""
    seen = []
    Solver(
        hierarchy,
        text,
        rtol=0.0,
        max_cycles=cycles,
        acceleration=acceleration,
        monitor=lambda _, u: seen.append(u),
    ).solve(f, u)
    return seen


def test_on_a_linear_equation_it_is_gmres():
    """Walker and Ni, theorem 2.2: the cycle of the iterate of GMRES on u - g(u) = 0."""
    hierarchy = gallery.poisson(POINTS)
    f, zero = np.random.default_rng(0).standard_normal((2, 45)) * [[1.0], [0.0]]
    schedule = cycle(len(hierarchy))

    def g(u, f):
        return run(schedule, hierarchy, u, f)[0]

    system = spla.LinearOperator((45, 45), matvec=lambda v: v - g(v, zero))
    ours = path(hierarchy, f, 10, Anderson(memory=20))
    for k in range(9):
        theirs = zero
        if k:
            theirs, _ = spla.gmres(system, g(zero, f), rtol=1e-15, restart=k, maxiter=1)
        change = g(theirs, f) - theirs
        assert np.linalg.norm(ours[k + 1] - g(theirs, f)) <= 1e-8 * np.linalg.norm(f), k
        least = np.linalg.norm(g(ours[k], f) - ours[k])
        assert np.linalg.norm(change) <= 1.0001 * least


def reference(g, u, cycles, memory, damping, weight=1.0):
    """Anderson's mixing in its first form: weights that sum to 1, from SciPy's least squares."""
    states, images = [u], [g(u)]
    for _ in range(cycles):
        changes = np.array([b - a for a, b in zip(states, images, strict=True)]).T * weight
        columns = changes[:, :-1] - changes[:, -1:]
        alpha = la.lstsq(columns, -changes[:, -1])[0] if columns.size else np.zeros(0)
        alpha = np.append(alpha, 1.0 - alpha.sum())
        before, after = (np.array(part).T @ alpha for part in (states, images))
        u = (1.0 - damping) * before + damping * after
        states, images = [*states[-memory:], u], [*images[-memory:], g(u)]
        yield u


@pytest.mark.parametrize("damping", [1.0, 0.6])
@pytest.mark.parametrize("memory", [1, 3])
def test_on_a_nonlinear_equation_it_is_anderson_s_mixing(memory, damping):
    hierarchy, f = gallery.reaction(POINTS, strength=50.0), np.full(45, 0.05)
    schedule = cycle(len(hierarchy))
    smoothers = {}

    def g(u):
        u, told = run(schedule, hierarchy, u, f, smoothers)
        smoothers.update(told)
        return u

    theirs = reference(g, np.zeros(45), 8, memory, damping)
    ours = path(hierarchy, f, 8, Anderson(memory, damping))
    for a, b in zip(ours[1:], theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.0, atol=1e-8 * abs(b).max())


def test_inner_products_are_those_of_the_hierarchy():
    """Under MPI they are equal on all ranks, and with them every decision."""
    weight = np.linspace(0.1, 3.0, 45)
    plain = gallery.reaction(POINTS, strength=50.0)
    hierarchy = Hierarchy(plain.levels, dot=lambda u, v: float(u @ (weight**2 * v)))
    f, memory = np.full(45, 0.05), {}
    memory = run(cycle(len(plain)), plain, np.zeros(45), f)[1]
    ours = path(hierarchy, f, 5, Anderson(3))[-1]
    *_, theirs = reference(
        lambda u: run(cycle(len(plain)), plain, u, f, memory)[0],
        np.zeros(45),
        5,
        3,
        1.0,
        weight[:, None],
    )
    np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=1e-8 * abs(theirs).max())


def test_the_solution_is_that_of_scipy():
    hierarchy, f = gallery.reaction(POINTS, strength=200.0), np.full(45, 0.2)
    operator = hierarchy[0].operator
    exact = so.root(lambda u: operator(u) - f, np.zeros(45), tol=1e-14)
    ours = Solver(hierarchy, rtol=1e-12, max_cycles=200, acceleration=Anderson()).solve(f)
    np.testing.assert_allclose(ours.require().value, exact.x, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "strength", "source", "gain"),
    [((63, 7), 100.0, 0.1, 4.0), ((127, 31), 100.0, 0.1, 3.0)],
)
def test_where_the_smoother_is_weak_it_saves_most_cycles(shape, strength, source, gain):
    """Stretched cells and point relaxation; in the second case the plain start overshoots."""
    hierarchy = gallery.reaction(shape, strength)
    f = np.full(hierarchy[0].unknowns, source)
    plain, ours = (
        Solver(hierarchy, max_cycles=1000, acceleration=how).solve(f).require()
        for how in (None, Anderson())
    )
    assert ours.cycles * gain <= plain.cycles
    assert ours.work * gain <= plain.work


def test_a_combination_that_makes_things_worse_is_taken_back():
    """From an overshooting start the combination leads the cycle to 1e24, plain cycles do not."""
    hierarchy, f = gallery.reaction((127, 31), 100.0), np.full(127 * 31, 0.1)
    solution = Solver(hierarchy, max_cycles=100, acceleration=Anderson()).solve(f)
    assert solution.reason.converged and solution.restarts >= 1
    plain = Solver(hierarchy, rtol=0.0, max_cycles=2).solve(f).residual_norms
    assert solution.residual_norms[3] == plain[2]  # the state of the plain second cycle


@pytest.mark.parametrize("growth", [1.0, 2.0, 5.0])
def test_a_growth_up_to_the_bound_is_let_pass(growth):
    iterates = Iterates(Anderson(growth=growth), np.dot, np.linalg.norm)
    assert iterates.next(np.zeros(2), np.ones(2)).tolist() == [1.0, 1.0]
    assert not iterates.refuses([1.0, 1e9])  # nothing was combined that could be taken back
    iterates.next(np.ones(2), np.array([1.5, 1.2]))
    assert not iterates.refuses([3.0, 2.99 * growth])
    assert iterates.refuses([3.0, 3.01 * growth])
    assert iterates.refuses([3.0, float("nan")])


class Brittle(Smoother):
    """A small step that breaks where only combinations lead."""

    def smooth(self, level, u, f, sweeps, memory):
        return np.where(u > 50.0, np.nan, u + 0.01 * level.residual_at(u, f)), memory


def test_a_cycle_that_is_not_finite_is_taken_back():
    level = Level(lambda u: -1.0 / (1.0 + abs(u) ** 3), Brittle())  # flat: secants jump far
    solver = Solver(Hierarchy([level]), "pre 1", 0.0, max_cycles=9, acceleration=Anderson())
    solution = solver.solve(np.zeros(1))
    assert solution.reason.name == "MAX_CYCLES" and solution.restarts >= 1
    assert 0.05 < solution.value[0] < 50.0


def test_tensors_are_combined_as_arrays_are():
    level = Level(lambda u: u + 0.1 * u**3, Jacobi(0.2), linearize=lambda u: np.eye(6))
    f = np.linspace(0.0, 2.0, 6)
    arrays = path(Hierarchy([level]), f, 6, Anderson(2), "pre 1")
    tensors = path(Hierarchy([level]), torch.tensor(f), 6, Anderson(2), "pre 1")
    assert all(isinstance(u, torch.Tensor) for u in tensors)
    for a, b in zip(arrays, tensors, strict=True):
        np.testing.assert_allclose(b.numpy(), a, rtol=1e-10)
    single = path(Hierarchy([level]), torch.tensor(f).float(), 6, Anderson(2), "pre 1")
    assert single[-1].dtype == torch.float32
    np.testing.assert_allclose(single[-1].numpy(), arrays[-1], atol=1e-4)


def test_dependent_directions_are_dropped():
    """One direction of error only: every difference after the first repeats it."""
    level = Level(np.eye(4), Jacobi(0.1))
    solver = Solver(Hierarchy([level]), "pre 1", rtol=0.0, max_cycles=8, acceleration=Anderson(5))
    solution = solver.solve(np.ones(4))
    np.testing.assert_allclose(solution.value, 1.0, rtol=1e-12)
    assert solution.residual_norms[2] <= 1e-14


def test_the_opening_of_a_nested_schedule_is_no_cycle_to_combine():
    hierarchy, f = gallery.reaction(POINTS), np.full(45, 0.05)
    ours = path(hierarchy, f, 2, Anderson(), "nested V(1,1)")
    plain = path(hierarchy, f, 2, None, "nested V(1,1)")
    np.testing.assert_array_equal(ours[2], plain[2])  # one difference is needed to combine


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Anderson(0), "memory of 1, 2"),
        (lambda: Anderson(damping=0.0), "damping above 0"),
        (lambda: Anderson(growth=0.5), "growth of at least 1"),
        (lambda: Anderson(rcond=1.0), "rcond between 0 and 1"),
        (lambda: Solver(gallery.poisson(7), acceleration=Anderson(), batches=[1]), "batches"),
    ],
)
def test_wrong_values(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_wrong_type():
    with pytest.raises(TypeError, match=r"got acceleration of type str; it takes CG\(\), GMRES"):
        Solver(gallery.poisson(7), acceleration="anderson")
