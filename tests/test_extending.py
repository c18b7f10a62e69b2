"""Law: the parts that docs/extending.md shows do what it says, by dense algebra.

The page cuts its code from the marked sections of this file; each has at most 14 lines.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg as la
import scipy.sparse as sp

from mgnet import (
    Direct,
    Hierarchy,
    Jacobi,
    Level,
    MatrixTransfer,
    Schedule,
    Smoother,
    Solver,
    Step,
    Transfer,
    gallery,
    run,
)

HERE = Path(__file__)


# --8<-- [start:transfer]
class Periodic(Transfer):
    """Linear interpolation on a ring; every second point is coarse."""

    def prolong(self, correction):
        fine = np.repeat(correction, 2)
        fine[1::2] += 0.5 * (np.roll(correction, -1) - correction)
        return fine

    def restrict(self, residual):
        between = residual[1::2]
        return residual[::2] + 0.5 * (between + np.roll(between, 1))


# --8<-- [end:transfer]


# --8<-- [start:smoother]
@dataclass(frozen=True)
class L1Jacobi(Smoother):
    """Jacobi with the row sums of |A|; converges for every SPD matrix."""

    damping: float = 1.0

    def start(self, level, u):
        return self.damping / np.asarray(abs(level.matrix).sum(axis=1)).ravel()

    def smooth(self, level, u, f, sweeps, memory):
        for _ in range(sweeps):
            u = u + memory * level.residual_at(u, f)
        return u, memory


# --8<-- [end:smoother]


# --8<-- [start:cycle]
def growing_cycle(levels, growth=2):
    """Return a V-cycle with 1, 2, 4, ... sweeps: coarse levels are cheap."""
    last = levels - 1
    steps = [Step("solve", last)]
    for level in reversed(range(last)):
        before = [Step("pre", level, growth**level), Step("down", level)]
        after = [Step("up", level), Step("post", level, growth**level)]
        steps = before + steps + after
    return Schedule(steps)


# --8<-- [end:cycle]


# --8<-- [start:line_search]
def exact(level, u, d, f, r):
    """Return the step to the lowest energy along d (matrix SPD)."""
    slope = d @ r
    return slope / (d @ level.apply(d)) if slope > 0.0 else 0.0


# --8<-- [end:line_search]


def laplacian(n):
    """-u'' on n inner points with u = 0 at both ends, as a dense matrix."""
    return (n + 1) * (2.0 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1))


# Transfer


@pytest.mark.parametrize("coarse", [2, 3, 8])
def test_periodic_is_linear_interpolation(coarse):
    values = np.random.default_rng(coarse).standard_normal(coarse)
    x = np.arange(2 * coarse) / 2
    expected = np.interp(x, np.arange(coarse + 1), np.append(values, values[0]))
    np.testing.assert_allclose(Periodic().prolong(values), expected)


def test_periodic_restricts_by_the_transpose():
    P = np.stack([Periodic().prolong(e) for e in np.eye(4)], axis=1)
    R = np.stack([Periodic().restrict(e) for e in np.eye(8)], axis=1)
    np.testing.assert_allclose(R, P.T)


def test_periodic_solves_on_a_ring():
    def ring(n):
        return n * la.circulant([2.0, -1.0, *[0.0] * (n - 3), -1.0]) + np.eye(n) / n

    matrices = [ring(64 >> k) for k in range(4)]
    levels = [Level(A, Jacobi(), Periodic()) for A in matrices[:-1]]
    hierarchy = Hierarchy([*levels, Level(matrices[-1], Direct())])
    assert "level 0: restrict is the transpose of prolong" in hierarchy.check(np.zeros(64))
    f = np.random.default_rng(0).standard_normal(64)
    solution = Solver(hierarchy, rtol=1e-10).solve(f).require()
    np.testing.assert_allclose(solution.value, np.linalg.solve(matrices[0], f), rtol=1e-7)
    assert solution.factor < 0.2


# Smoother


@pytest.mark.parametrize("sweeps", [1, 3])
def test_l1_jacobi_is_its_iteration_matrix(sweeps):
    rng = np.random.default_rng(1)
    A = rng.standard_normal((6, 6))
    A = A @ A.T
    u, f = rng.standard_normal((2, 6))
    level, smoother = Level(sp.csr_matrix(A), L1Jacobi(0.8)), L1Jacobi(0.8)
    got, _ = smoother.smooth(level, u, f, sweeps, smoother.start(level, u))
    iteration = np.eye(6) - 0.8 * np.diag(1.0 / np.array([sum(map(abs, row)) for row in A])) @ A
    solution = np.linalg.solve(A, f)
    expected = solution + np.linalg.matrix_power(iteration, sweeps) @ (u - solution)
    np.testing.assert_allclose(got, expected)
    assert max(abs(np.linalg.eigvals(iteration))) < 1.0
    assert level.tally[0] == smoother.work(level, sweeps)


def test_l1_jacobi_solves_where_jacobi_diverges():
    A = sp.csr_matrix(0.9 * np.ones((20, 20)) + 0.1 * np.eye(20))  # the diagonal is far too small
    reasons = {}
    for smoother in (Jacobi(1.0), L1Jacobi()):
        hierarchy = Hierarchy([Level(A, smoother)])
        reasons[type(smoother)] = Solver(hierarchy, "V(0,0)", max_cycles=9999).solve(np.arange(20))
    assert not reasons[Jacobi].reason.converged
    assert reasons[L1Jacobi].reason.converged


# Cycle


def multigrid(A, u, f, level, coarsest):
    """Return the classical recursion with dense matrices and Jacobi 2/3."""
    if level == coarsest:
        return np.linalg.solve(A, f)

    def sweep(u):
        for _ in range(2**level):
            u = u + (2.0 / 3.0) * (f - A @ u) / np.diag(A)
        return u

    u = sweep(u)
    n = (len(f) - 1) // 2
    P = np.zeros((len(f), n))
    for j in range(n):
        P[2 * j : 2 * j + 3, j] = 0.5, 1.0, 0.5
    d = multigrid(laplacian(n), np.zeros(n), P.T @ (f - A @ u), level + 1, coarsest)
    return sweep(u + P @ d)


def test_growing_cycle_is_the_recursion():
    f = np.random.default_rng(2).standard_normal(31)
    schedule = growing_cycle(4)
    got, _ = run(schedule, gallery.poisson(31, levels=4), None, f)
    np.testing.assert_allclose(got, multigrid(laplacian(31), np.zeros(31), f, 0, 3), rtol=1e-12)
    assert [step.count for step in schedule if step.action == "post"] == [4, 2, 1]


# Line search


def test_exact_line_search_finds_the_minimum():
    rng = np.random.default_rng(3)
    A = laplacian(9)
    level = Level(A, Jacobi())

    def energy(u, f):
        return 0.5 * u @ A @ u - f @ u

    for _ in range(5):
        u, d, f = rng.standard_normal((3, 9))
        step = exact(level, u, d, f, f - A @ u)
        a, b, _ = np.polyfit([-1, 0, 1], [energy(u + t * d, f) for t in (-1, 0, 1)], 2)
        assert step == pytest.approx(max(-b / (2.0 * a), 0.0))


def test_exact_line_search_repairs_aggregation():
    """Piecewise constant corrections are too short; the best step is longer than 1."""
    matrices, P = [laplacian(64)], []
    for n in (32, 16, 8, 4):
        P.append(np.kron(np.eye(n), np.ones((2, 1))))
        matrices.append(P[-1].T @ matrices[-1] @ P[-1])
    f = np.ones(64) / 65
    cycles = {}
    for search in (None, exact):
        parts = zip(matrices[:-1], P, strict=True)
        levels = [Level(A, Jacobi(), MatrixTransfer(Q), line_search=search) for A, Q in parts]
        hierarchy = Hierarchy([*levels, Level(matrices[-1], Direct())])
        solution = Solver(hierarchy, max_cycles=500).solve(f).require()
        cycles[search] = solution.cycles
        np.testing.assert_allclose(solution.value, np.linalg.solve(matrices[0], f), rtol=1e-5)
    assert cycles[exact] < 0.7 * cycles[None]


# The page


def test_sections_are_short_and_shown():
    page = (HERE.parent.parent / "docs" / "extending.md").read_text()
    sections = re.findall(
        r"# --8<-- \[start:(\w+)\]\n(.*?)\n *# --8<-- \[end:\1\]", HERE.read_text(), re.S
    )
    assert [name for name, _ in sections] == ["transfer", "smoother", "cycle", "line_search"]
    for name, code in sections:
        assert len(code.strip().splitlines()) < 15, name
        assert f'--8<-- "tests/test_extending.py:{name}"' in page
