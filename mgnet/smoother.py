"""Smoothers reduce the error of one level; on the coarsest level they solve.

`Smoother` is one of the two abstract classes of mgnet (the other is `Transfer`). A smoother is
immutable: it holds parameters only, so one instance works for many levels. Data of a level
(factors, eigenvalue bounds) and data kept between visits (moments, pairs, damping) form its
*memory*, which `start` creates and `run` stores.

All smoothers here work on nonlinear levels too: they need the residual, and a matrix or
`linearize`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mgnet import blocked_sweeps, combinations, kernels, mats, vector
from mgnet.fourth_kind import MOST_OPTIMAL, optimal_weights
from mgnet.limits import is_number, is_one_of, is_whole, shown

if TYPE_CHECKING:
    from mgnet.level import Level
    from mgnet.transfer import Transfer

__all__ = ["Chebyshev", "Jacobi", "Smoother", "diagonal", "residual_at"]

State = Any


class Smoother(ABC):
    """Reduces the error of `A(u) = f` on one level.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Richardson(Smoother):
    ...     step: float
    ...     def smooth(self, level, u, f, sweeps, memory):
    ...         for _ in range(sweeps):
    ...             u = u + self.step * level.residual_at(u, f)
    ...         return u, memory
    >>> from mgnet import Hierarchy, Level, Solver
    >>> level = Level(np.diag([1.0, 2.0]), Richardson(0.5))
    >>> solver = Solver(Hierarchy([level]), "V(0,0,10)", rtol=0.01)
    >>> solver.solve(np.array([1.0, 2.0])).value.round(2)
    array([1., 1.])
    """

    #: Whether `work` is exact. Krylov methods and line searches stop adaptively.
    fixed_work: ClassVar[bool] = True
    #: Whether no sweep raises the objective; if a sweep may (Adam), `Solver` keeps the best state.
    monotone: ClassVar[bool] = True

    def start(self, level: Level, u: State) -> Any:
        """Create the memory of this smoother on `level` (setup, empty history); None by default."""
        return None

    @abstractmethod
    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        """Improve `u`.

        Parameters
        ----------
        level : Level
            Level with the operator and its parts.
        u : state
            Current state.
        f : state or None
            Right-hand side; None stands for zero.
        sweeps : int
            Number of sweeps, at least 1.
        memory : object
            Memory from `start`, from the last `smooth` on this level or from `carry`.

        Returns
        -------
        (state, memory)
            New objects; `u`, `f` and `memory` must not be edited.
        """

    def smooth_ahead(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any, State | None]:
        """Do as `smooth`, and return its result's residual if that costs almost nothing, else None.

        `run` calls it if the residual is needed next, and counts the residual when it uses it.
        """
        return *self.smooth(level, u, f, sweeps, memory), None

    def carry(self, memory: Any, transfer: Transfer) -> Any:
        """The memory on the finer level after refinement; by default None, an empty memory."""
        return None

    def work(self, level: Level, sweeps: int) -> float:
        """Number of evaluations of A in `smooth`: one residual per sweep by default."""
        return sweeps * level.residual_work


def _sparse(level: Level, *states: State | None) -> bool:
    """Whether the residual of this level is `f - A u` with a CSR matrix and flat states."""
    return level.residual is None and kernels.fits(level.operator, *states)


def _compiled(level: Level, *states: State | None) -> bool:
    """Whether the compiled loops can evaluate the residual of this level for these states."""
    return kernels.available and _sparse(level, *states)


def _reach(level: Level) -> int:
    """The `reach` of the matrix for loops over rows, even if they do not handle the first sweep."""
    return kernels.reach(level.operator) if _sparse(level) else 0


def residual_at(level: Level, u: State, f: State | None) -> State:
    """`level.residual_at(u, f)`, without a product if a coarse level begins at zero.

    Examples
    --------
    >>> from mgnet import gallery
    >>> residual_at(gallery.poisson(3)[0], np.zeros(3), np.ones(3))
    array([1., 1., 1.])
    """
    kept = level.kept_residual(u, f)
    if kept is not None:
        level.charge(1.0)
        return kept
    if f is not None and _sparse(level, u, f) and kernels.is_zero(u):
        level.charge(1.0)
        return f.copy()
    return level.residual_at(u, f)


def diagonal(level: Level, u: State, smoother: Smoother) -> State:
    """The diagonal of the matrix of a level, or of its Jacobian at u, for a smoother to divide by.

    Raises
    ------
    ValueError
        If the diagonal has a zero.

    Examples
    --------
    >>> from mgnet import gallery
    >>> diagonal(gallery.poisson(3)[0], np.zeros(3), Jacobi())
    array([8., 8., 8.])
    """
    try:
        return vector.diagonal_like(level.jacobian(u), u)
    except ValueError as error:
        raise ValueError(f"{smoother} on {level}: {error}") from None


@dataclass(frozen=True)
class Jacobi(Smoother):
    """Damped Jacobi relaxation `u + omega D^-1 (f - A(u))`.

    D is the diagonal of the matrix, or of the Jacobian at the first visit.

    Parameters
    ----------
    omega : float
        Damping factor, dimensionless; 2/3 smooths best in 1-D, 4/5 in 2-D (5-point Laplacian).

    Raises
    ------
    ValueError
        If omega is not above 0.

    Examples
    --------
    >>> from mgnet import gallery
    >>> level = gallery.poisson(3)[0]
    >>> smoother = Jacobi(omega=1.0)
    >>> memory = smoother.start(level, np.zeros(3))
    >>> u, memory = smoother.smooth(level, np.zeros(3), np.ones(3), 1, memory)
    >>> u
    array([0.125, 0.125, 0.125])
    """

    omega: float = 2.0 / 3.0

    def __post_init__(self) -> None:
        if not is_number(self.omega, 0.0, math.inf, open=True):
            raise ValueError(f"Jacobi got omega {shown(self.omega)}; give a number above 0")

    def start(self, level: Level, u: State) -> tuple[State, int]:
        scale = self.omega / diagonal(level, u, self)
        if not kernels.available and _sparse(level, u) and np.ptp(scale) == 0.0:
            scale = np.broadcast_to(scale[0], scale.shape)  # one number, so no memory is read
        return scale, _reach(level)

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        return self._swept(level, u, f, sweeps, memory, None), memory

    def smooth_ahead(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any, State | None]:
        alone = sweeps == 1 and _sparse(level, u, f) and kernels.is_zero(u)  # needs no pass
        if alone or not _sparse(level, u, f):
            return super().smooth_ahead(level, u, f, sweeps, memory)
        return self._swept(level, u, f, sweeps, memory, r := np.empty_like(u)), memory, r

    def _swept(
        self, level: Level, u: State, f: Any, sweeps: int, memory: Any, r: State | None
    ) -> State:
        """The state after the sweeps; for a CSR matrix r is filled with its residual."""
        scale, within = memory
        sparse = _sparse(level, u, f)
        sweep = kernels.jacobi if kernels.available else blocked_sweeps.jacobi
        for number in range(1, sweeps + 1):
            if not sparse:
                step = residual_at(level, u, f)  # a new state, which may be overwritten
                step *= scale
                step += u
                u = step
                continue
            if number == 1 and kernels.is_zero(u):
                u = scale * f
            else:
                last = r if number == sweeps else None
                u = sweep(level.operator, scale, u, f, last, within)
            level.charge(1.0)
        return u

    def __str__(self) -> str:
        return f"Jacobi(omega={self.omega:.6g})"


@dataclass(frozen=True)
class Chebyshev(Smoother):
    """Chebyshev polynomial of `D^-1 A`, for symmetric positive definite problems.

    One sweep costs `degree` evaluations. The largest eigenvalue of `D^-1 A` is estimated once, by
    an Arnoldi process from a seeded random state. The interval is the one that PETSc and PyAMG use.
    Sources: Saad, Iterative Methods for Sparse Linear Systems (2003), algorithm 12.1; for the
    fourth kind, Lottes, Numer. Linear Algebra Appl. 30 (2023) e2518, arXiv 2202.08830.

    Parameters
    ----------
    degree : int
        Degree of the polynomial, at least 1; at most 100 for "opt_fourth".
    lower, upper : float
        Ends of the damped interval as multiples of the eigenvalue estimate, dimensionless; the
        fourth kind has no lower end.
    steps, seed : int
        Number of steps of the eigenvalue estimate, and seed of its random state.
    kind : "first", "fourth" or "opt_fourth"
        Kind of the polynomial, with PETSc's names. Polynomials of the fourth kind damp large
        eigenvalues more than small ones, which coarse levels handle. "opt_fourth" has the best
        bound for V-cycles with the same sweeps before and after the correction.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Examples
    --------
    >>> from mgnet import Solver, gallery
    >>> solution = Solver(gallery.poisson((31, 31), smoother=Chebyshev(2))).solve(np.ones(961))
    >>> solution.reason.name
    'RTOL'
    """

    degree: int = 3
    lower: float = 0.1
    upper: float = 1.1
    steps: int = 10
    seed: int = 0
    kind: str = "first"

    def __post_init__(self) -> None:
        whole = all(is_whole(count, 1, 1000) for count in (self.degree, self.steps))
        real = all(is_number(x, 0.0, math.inf, open=True) for x in (self.lower, self.upper))
        if not (whole and real and self.lower < self.upper and is_whole(self.seed)):
            raise ValueError(
                f"Chebyshev got {shown(vars(self), 200)}; it needs degree and steps of at least 1 "
                "and at most 1000, integers, a seed not below 0, and 0 < lower < upper"
            )
        if not is_one_of(self.kind, ("first", "fourth", "opt_fourth")):
            raise ValueError(
                f"Chebyshev got kind {shown(self.kind)}; it must be 'first', 'fourth' or "
                "'opt_fourth'"
            )
        if self.kind != "first" and self.lower != type(self).lower:
            raise ValueError(
                f"Chebyshev got kind {self.kind!r} and lower {shown(self.lower)}, but the fourth "
                "kind has no lower end; leave it out"
            )
        if self.kind == "opt_fourth" and self.degree > MOST_OPTIMAL:
            raise ValueError(
                f"Chebyshev got degree {self.degree} for kind 'opt_fourth'; at most "
                f"{MOST_OPTIMAL} are known, so use 'fourth' or more sweeps"
            )

    def start(self, level: Level, u: State) -> tuple[State, float, int]:
        inverse, jacobian = 1.0 / diagonal(level, u, self), level.jacobian(u)
        basis = [vector.random_like(u, np.random.default_rng(self.seed))]
        basis[0] = basis[0] * (1.0 / vector.norm(basis[0]))
        hessenberg, size = np.zeros((self.steps + 1, self.steps)), self.steps
        for k in range(self.steps):
            w = vector.apply(jacobian, basis[k]) * inverse
            for j, q in enumerate(basis):
                # Not read from the array, since a Vec accepts Python floats only.
                part = vector.dot(q, w)
                hessenberg[j, k] = part
                w = combinations.add_scaled(w, -part, q)
            length = vector.norm(w)
            hessenberg[k + 1, k] = length
            small = 1e-12 * abs(hessenberg[: k + 1, k]).max()
            if length <= small:  # an invariant subspace, so the values are exact
                size = k + 1
                break
            basis.append(w * (1.0 / length))
            mats.free_dropped(w)
        if not np.isfinite(hessenberg).all():
            raise ValueError(f"{self} on {level}: the matrix has entries that are not finite")
        largest = float(abs(np.linalg.eigvals(hessenberg[:size, :size])).max())
        return inverse, largest, _reach(level)

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        return self._swept(level, u, f, sweeps, memory, None), memory

    def smooth_ahead(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any, State | None]:
        if not _compiled(level, u, f):
            return super().smooth_ahead(level, u, f, sweeps, memory)
        return self._swept(level, u, f, sweeps, memory, r := np.empty_like(u)), memory, r

    def _swept(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any, r: State | None
    ) -> State:
        """The state after the sweeps; for compiled sweeps r is filled with its residual."""
        inverse, largest, within = memory
        compiled, factors = _compiled(level, u, f), self._factors(largest)
        weights = optimal_weights(self.degree) if self.kind == "opt_fourth" else ()
        d: Any = None
        more: Any = None  # the change that weights make to the steps of a sweep
        for number in range(sweeps * self.degree):
            place = number % self.degree
            old, new = factors[place]
            weight = weights[place] if weights else 1.0
            ends = bool(weights) and place + 1 == self.degree
            if compiled:
                d = np.zeros_like(u) if old == 0.0 else d
                level.charge(1.0)
                last = None if number + 1 < sweeps * self.degree else r
                if number == 0 and last is None and kernels.is_zero(u):
                    d = u.dtype.type(new) * (inverse * f)
                    u = u.dtype.type(weight) * d if ends else d.copy()
                else:
                    end = (u if more is None else u + more, weight) if ends else (None, 1.0)
                    by = old, new
                    u = kernels.chebyshev(level.operator, inverse, u, f, d, by, last, within, *end)
            else:
                step = residual_at(level, u, f)
                step *= inverse
                u, d = combinations.advanced(u, d, step, (old, new))
                if ends:
                    u = u + (weight - 1.0) * d if more is None else u + (more + (weight - 1.0) * d)
            if weights:
                part = (weight - 1.0) * d
                more = None if ends else part if more is None else more + part
        return u

    def _factors(self, largest: float) -> list[tuple[float, float]]:
        """Factors of each step of a sweep: `d = old d + new D^-1 (f - A u)`, then u + d."""
        if self.kind != "first":
            steps, end = range(1, self.degree + 1), self.upper * largest
            by = [((2 * k - 3) / (2 * k + 1), (8 * k - 4) / ((2 * k + 1) * end)) for k in steps]
            return [(0.0, by[0][1]), *by[1:]]  # there is no step before the first
        centre = 0.5 * (self.upper + self.lower) * largest
        radius = 0.5 * (self.upper - self.lower) * largest
        sigma = centre / radius
        rho, factors = 1.0 / sigma, [(0.0, 1.0 / centre)]
        for _ in range(self.degree - 1):
            rho, previous = 1.0 / (2.0 * sigma - rho), rho
            factors.append((rho * previous, 2.0 * rho / radius))
        return factors

    def work(self, level: Level, sweeps: int) -> float:
        return sweeps * self.degree * level.residual_work

    def __str__(self) -> str:
        kind = "" if self.kind == "first" else f", kind={self.kind!r}"
        return f"Chebyshev(degree={self.degree}{kind})"
