"""Problems that are periodic in time: the end of the last step is the start of the first.

The unknown of a level with n steps is the array of its points 0..n - 1, and

    u[i] - Phi_{i - 1}(u[i - 1]) = f[i],   u[-1] = u[n - 1].

Source: Gander, Jiang, Song, Zhang, "Analysis of two parareal algorithms for time-periodic
problems", SIAM J. Sci. Comput. 35 (2013): their algorithm with a periodic coarse problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse.linalg as spla

from mgnet.depth.mgrit.c_layers import level_factors, level_sizes
from mgnet.depth.mgrit.checked_step import StepFunction
from mgnet.depth.mgrit.layer_hierarchy import relaxation_words
from mgnet.depth.mgrit.one_step import OneStep
from mgnet.depth.mgrit.relaxation import Relaxation
from mgnet.depth.time_grids.local_errors import check_problem
from mgnet.hierarchy import Hierarchy
from mgnet.level import Level
from mgnet.smoother import Smoother
from mgnet.transfer import Injection

__all__ = ["PeriodicEquation", "PeriodicMarch", "periodic_hierarchy"]

# For the coarsest level: Newton steps, Krylov vectors of each, and the size of a small defect.
NEWTON_STEPS, KRYLOV, SMALL = 20, 60, 1e-13


class PeriodicEquation:
    """The periodic equation of one level; a call with the points u returns A(u).

    Parameters
    ----------
    step : callable
        The step `(t, dt, states) -> states`, as in `OneStep`.
    times, steps : arrays of shape (n,)
        Time at the start of every step, and step size.
    factor : int
        Coarsening factor to the next level; not used on the coarsest level.

    Attributes
    ----------
    tally : list of float
        Number of evaluations of all n steps so far, as one entry.

    Examples
    --------
    >>> def halve(t, dt, u):
    ...     return 0.5 * u
    >>> equation = PeriodicEquation(halve, np.arange(3.0), np.ones(3), 2)
    >>> equation(np.array([[8.0], [4.0], [2.0]])).ravel()
    array([7., 0., 0.])
    """

    def __init__(self, step: StepFunction, times: np.ndarray, steps: np.ndarray, factor: int):
        self.step, self.times, self.steps, self.factor = step, times, steps, factor
        self.tally = [0.0]
        # u, f, u after F-relaxation, and the values that arrive at its C-points.
        self._last: tuple[Any, Any, Any, Any] = (None, None, None, None)

    def _advance(self, which: Any, states: np.ndarray) -> np.ndarray:
        self.tally[0] += len(states) / len(self.steps)
        return self.step(self.times[which], self.steps[which], states)

    def __call__(self, u: np.ndarray) -> np.ndarray:
        return u - np.roll(self._advance(slice(None), u), 1, axis=0)

    def relax(self, u: np.ndarray, f: np.ndarray | None) -> np.ndarray:
        """F-relaxation: march from every C-point to the next one, for all intervals at once."""
        of, rhs, relaxed, _ = self._last
        if (u is of or u is relaxed) and f is rhs and u is not None:
            return relaxed
        new, n, c = u.copy(), len(u), self.factor
        for offset in range(1, c):
            to = np.arange(offset, n, c)
            new[to] = self._advance(to - 1, new[to - 1])
            if f is not None:
                new[to] += f[to]
        self._last = u, f, new, None
        return new

    def arrivals(self, u: np.ndarray, f: np.ndarray | None) -> np.ndarray:
        """The values that arrive at the C-points after F-relaxation."""
        new = self.relax(u, f)
        of, rhs, _, ends = self._last
        if ends is None:
            before = np.arange(0, len(u), self.factor) - 1
            before[0] = len(u) - 1
            ends = self._advance(before, new[before])
            if f is not None:
                ends = ends + f[:: self.factor]
            self._last = of, rhs, new, ends
        return ends

    def relax_c(self, u: np.ndarray, f: np.ndarray | None, weight: float) -> np.ndarray:
        """C-relaxation after F-relaxation of u; the new value has the given weight."""
        ends, new = self.arrivals(u, f), self.relax(u, f).copy()
        new[:: self.factor] += weight * (ends - new[:: self.factor])
        return new

    def residual(self, u: np.ndarray, f: np.ndarray | None) -> np.ndarray:
        """`f - A(u)` after F-relaxation of u, which is zero except at the C-points."""
        ends, found = self.arrivals(u, f), np.zeros_like(u)
        found[:: self.factor] = ends - u[:: self.factor]
        return found

    def solve(self, u: np.ndarray, f: np.ndarray | None) -> np.ndarray:
        """Solve `A(u) = f` by Newton's method for the first point, starting from u."""
        point = u[0]
        for _ in range(NEWTON_STEPS):
            states, end = self._march(point, f)
            defect = end - point
            size = float(abs(defect).max(initial=0.0))
            if not size > SMALL * float(abs(point).max(initial=0.0)):  # also true for NaN
                break
            point = point + self._newton_step(point, end, defect, f)
        else:
            states, _ = self._march(point, f)
        return states

    def _march(self, point: np.ndarray, f: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """All points from the first one, and the value that arrives at it."""
        states, value = [point], point
        for k in range(len(self.steps)):
            value = self._advance(slice(k, k + 1), value[None])[0]
            if f is not None:
                value = value + f[(k + 1) % len(self.steps)]
            states.append(value)
        return np.stack(states[:-1]), states[-1]

    def _newton_step(
        self, point: np.ndarray, end: np.ndarray, defect: np.ndarray, f: np.ndarray | None
    ) -> np.ndarray:
        scale = np.sqrt(np.finfo(point.dtype).eps) * (1.0 + np.linalg.norm(point))

        def product(w: np.ndarray) -> np.ndarray:
            length = np.linalg.norm(w)
            if not length > 0.0:
                return 0.0 * w
            d = (scale / length) * w.reshape(point.shape)
            moved = self._march(point + d, f)[1] - end
            return w - (length / scale) * moved.ravel()

        size = point.size
        matrix = spla.LinearOperator((size, size), product, dtype=point.dtype)  # type: ignore[call-arg]
        found, _ = spla.gmres(
            matrix, defect.ravel(), rtol=1e-10, restart=min(size, KRYLOV), maxiter=2
        )
        return found.reshape(point.shape)


@dataclass(frozen=True)
class PeriodicMarch(Smoother):
    """The exact solution on the coarsest level, by Newton's method for its first point.

    Every Newton step uses GMRES, for which each vector needs a march through the level.

    Examples
    --------
    >>> print(PeriodicMarch())
    PeriodicMarch()
    """

    fixed_work: ClassVar[bool] = False

    def smooth(
        self, level: Level, u: np.ndarray, f: np.ndarray | None, sweeps: int, memory: Any
    ) -> tuple[np.ndarray, Any]:
        return level.operator.solve(u, f), memory


def periodic_hierarchy(
    problem: OneStep,
    levels: int = 2,
    coarsening: int | Sequence[int] = 4,
    relaxation: Sequence[str] = ("F", "FCF"),
    weight: float = 1.0,
) -> Hierarchy:
    """Build MGRIT levels for the solution with period T, the sum of the steps: `u(0) = u(T)`.

    A state consists of the N points before the last one: start with `problem.guess()[:-1]`, all of
    whose values are only a guess here. The equation must depend on time with this period, or not at
    all. If the phase of the solution is arbitrary, as for a free oscillator, no solution is found.

    Parameters
    ----------
    problem : OneStep
        The problem, with N steps.
    levels, coarsening, relaxation, weight
        The arguments of `OneStep.hierarchy`. With one level, the problem is solved directly by
        Newton's method.

    Returns
    -------
    Hierarchy
        The levels, finest first.

    Examples
    --------
    >>> import mgnet
    >>> def euler(t, dt, u):  # u' = -u + cos t
    ...     return (u + (dt * np.cos(t + dt))[:, None]) / (1.0 + dt[:, None])
    >>> problem = OneStep(euler, np.array([0.0]), np.full(256, 2.0 * np.pi / 256))
    >>> solver = mgnet.Solver(periodic_hierarchy(problem, levels=3), rtol=1e-10)
    >>> u = solver.solve(u=problem.guess()[:-1]).require().value[:, 0]
    >>> exact = (np.cos(problem.times) + np.sin(problem.times))[:-1] / 2.0
    >>> bool(abs(u - exact).max() < 0.02)
    True
    """
    check_problem("periodic_hierarchy", problem)
    factors = level_factors(levels, coarsening)
    words = relaxation_words(relaxation, len(factors))
    sizes = level_sizes(len(problem.steps), factors)
    grids, made = problem.grids(factors), list[Level]()
    for number, (size, (times, steps)) in enumerate(zip(sizes, grids, strict=True)):
        coarsest = number == len(factors)
        factor = 2 if coarsest else factors[number]
        equation = PeriodicEquation(problem.checked_step, times, steps, factor)
        word = words[min(number, len(words) - 1)]
        made.append(
            Level(
                equation,
                PeriodicMarch() if coarsest else Relaxation(word, weight),
                None if coarsest else Injection(size, factor),
                post_smoother=None if coarsest or word == "F" else Relaxation("F"),
                residual=None if coarsest else equation.residual,
                size=size * np.asarray(problem.initial).size,
                name=f"level {number}",
                cost=float(size),
                residual_cost=1.0 if coarsest else -(-size // factor) / size,
            )
        )
    return Hierarchy(made)
