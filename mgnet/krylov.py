"""Krylov methods preconditioned by a cycle: `CG`, `GMRES`, `FGMRES`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mgnet import norms, vector
from mgnet.combinations import add_scaled, inner
from mgnet.limits import is_whole, shown

__all__ = ["CG", "FGMRES", "GMRES", "BreakdownError"]

State = Any

# Bounds relative to the values for symmetric matrices; what exceeds them is not rounding.
ASYMMETRY, ASYMMETRY_SINGLE = 1e-6, 1e-2
SYMMETRY_TESTS = 3  # after each restart; later directions add nothing
# A mirrored cycle is symmetric up to rounding; the asymmetry of others is of the order of their
# factor.
CYCLE_ASYMMETRY = 1e-3


class BreakdownError(Exception):
    """The reason why a Krylov method cannot continue; `Solver` reports it as its message."""


@dataclass(frozen=True)
class CG:
    """Conjugate gradients, preconditioned by the cycle of a `Solver`.

    CG requires a symmetric (Hermitian) positive definite matrix and a cycle with the same
    properties, in which post-smoothing mirrors pre-smoothing, as with Jacobi, Chebyshev and
    symmetric Gauss-Seidel, or with "forward" before and "backward" after the coarse correction.
    Each iteration costs one cycle from zero on the residual, one product and five inner products;
    it stores four states besides those of the cycle.

    The search direction is the flexible one of Golub and Ye, SIAM J. Sci. Comput. 21 (1999) 1305,
    doi 10.1137/S1064827597323415. It equals the classical one for a symmetric cycle, and it is
    robust if the cycle is only nearly symmetric. If the matrix is not symmetric or not positive
    definite, the solve ends with `Reason.BREAKDOWN` and a message with the measured values.

    Examples
    --------
    >>> from mgnet import Solver, gallery
    >>> hierarchy, f = gallery.poisson((31, 31)), np.ones(961)
    >>> [Solver(hierarchy, acceleration=a).solve(f).cycles for a in (None, CG())]
    [23, 10]
    """


@dataclass(frozen=True)
class GMRES:
    """Restarted GMRES, preconditioned from the right by the cycle of a `Solver`.

    The matrix is arbitrary, but the cycle must be the same linear map, with the same sweeps, each
    time. Norms are those of the residual itself, since the preconditioner is on the right. An
    iteration costs one cycle on a vector and one product. The solution at the end or at a restart
    costs one more cycle, and so does every state that a monitor or merit function receives. The
    method stores `restart` + 1 states. Source: Saad and Schultz, SIAM J. Sci. Stat. Comput. 7
    (1986) 856, doi 10.1137/0907058.

    Parameters
    ----------
    restart : int
        Number of iterations after which the basis is dropped, at least 1.

    Raises
    ------
    ValueError
        If restart is not a positive integer.

    Examples
    --------
    >>> from mgnet import GaussSeidel, Solver, gallery
    >>> hierarchy, f = gallery.poisson((63, 7), smoother=GaussSeidel()), np.ones(441)
    >>> [Solver(hierarchy, max_cycles=300, acceleration=a).solve(f).cycles for a in (None, GMRES())]
    [247, 46]
    """

    restart: int = 30

    def __post_init__(self) -> None:
        _check_restart("GMRES", self.restart)


@dataclass(frozen=True)
class FGMRES:
    """Flexible GMRES: like `GMRES`, but the cycle may differ from iteration to iteration.

    Use it also for cycles that contain Krylov methods (`Krylov`, `KSPSmoother`). The results of the
    cycles are stored, so the state is available at any time without a further cycle. The method
    stores 2 `restart` + 1 states. Source: Saad, SIAM J. Sci. Comput. 14 (1993) 461, doi
    10.1137/0914028.

    Parameters
    ----------
    restart : int
        Number of iterations after which the basis is dropped, at least 1.

    Raises
    ------
    ValueError
        If restart is not a positive integer.

    Examples
    --------
    >>> from mgnet import Krylov, Solver, gallery
    >>> hierarchy = gallery.poisson((31, 31), smoother=Krylov("gmres", iterations=2))
    >>> Solver(hierarchy, acceleration=FGMRES()).solve(np.ones(961)).reason.name
    'RTOL'
    """

    restart: int = 30

    def __post_init__(self) -> None:
        _check_restart("FGMRES", self.restart)


def _check_restart(owner: str, restart: Any) -> None:
    if not is_whole(restart, 1):
        raise ValueError(
            f"{owner} got restart {shown(restart)}; give the number of iterations between "
            "restarts, at least 1"
        )


def _scaled(r: State, size: float) -> tuple[State, int]:
    """Return a state of moderate size and an exponent with `r = state * 2**exponent`.

    Very large or small states are scaled, because inner products and divisions by tiny norms could
    overflow or underflow.
    """
    exponent = norms.binary_exponent(size)
    if abs(exponent) <= 30:
        return r, 0
    return norms.times_power_of_two(r, -exponent), exponent


class Equation(NamedTuple):
    """Functions of an equation, and of the cycle that preconditions it, for a Krylov method.

    Attributes
    ----------
    apply, cycle : callable
        `u -> A u`, and `r -> correction`, one cycle from zero.
    dot, norm : callable
        Inner product and norm of the hierarchy.

    Examples
    --------
    >>> Equation(np.copy, np.copy, norms.dot, norms.norm).norm(np.array([3.0, 4.0]))
    5.0
    """

    apply: Callable[[State], State]
    cycle: Callable[[State], State]
    dot: Callable[[State, State], float]
    norm: Callable[[State], float]


class ConjugateGradients:
    """One solve by `CG`.

    Examples
    --------
    >>> A = np.diag([1.0, 2.0])
    >>> equation = Equation(lambda u: A @ u, lambda r: r, norms.dot, norms.norm)
    >>> cg = ConjugateGradients(equation)
    >>> cg.begin(np.zeros(2), np.ones(2))
    >>> cg.advance(), round(cg.residual_norm, 3)
    (None, 0.471)
    """

    def __init__(self, equation: Equation):
        self.apply, self.cycle, self.dot, self.norm = equation
        self.advice = ""

    def begin(self, u: State, r: State) -> None:
        """Start or restart from a state and its residual."""
        self.residual_norm = self.norm(r)
        self._u = u
        self._r, self._exponent = _scaled(r, self.residual_norm)
        self._last: tuple[State, State, State, float] | None = None  # r, p, A p, <z, r>
        self._tests = SYMMETRY_TESTS

    def state(self) -> State:
        """The current state."""
        return self._u

    def advance(self) -> None:
        """One iteration."""
        r = self._r
        z = self.cycle(r)
        product = self.dot(z, r)
        if product == 0.0 and not self.norm(r):
            return
        if not product > 0.0:
            raise BreakdownError(
                f"CG needs a positive definite cycle, but <M r, r> = {product:.1e} for a residual "
                "r; mirror the sweeps before and after the coarse correction, or use FGMRES()"
            )
        p = z
        if self._last is not None:
            before, direction, _, product_before = self._last
            mixed = self.dot(z, before)
            if self._tests:
                self._judge(abs(mixed) / math.sqrt(product * product_before))
            p = add_scaled((product - mixed) / product_before * direction, 1.0, z)
        q = self.apply(p)
        curvature = self.dot(p, q)
        if not curvature > 0.0:
            raise BreakdownError(
                f"CG needs a positive definite matrix, but <p, A p> = {curvature:.1e} with |p| |A "
                f"p| = {self.norm(p) * self.norm(q):.1e}; use GMRES() or FGMRES()"
            )
        if self._tests:
            self._test(p, q)
        length = product / curvature
        self._last = r, p, q, product
        self._r = add_scaled(-length * q, 1.0, r)
        step = length * p
        if self._exponent:
            step = norms.times_power_of_two(step, self._exponent)
        self._u = add_scaled(step, 1.0, self._u)
        self.residual_norm = math.ldexp(self.norm(self._r), self._exponent)

    def _judge(self, asymmetry: float) -> None:
        """Check that <M r, r'> is small, since it is zero for a symmetric cycle."""
        if asymmetry > CYCLE_ASYMMETRY:
            self.advice = (
                f"CG needs a symmetric cycle, and the asymmetry of this one is {asymmetry:.1e}: "
                "mirror the sweeps before and after the coarse correction (GaussSeidel('forward') "
                "and post_smoother=GaussSeidel('backward')), or use FGMRES()"
            )

    def _test(self, p: State, q: State) -> None:
        """Raise an error if the matrix is not symmetric, as far as these directions show."""
        self._tests -= 1
        size = self.norm(p) * self.norm(q)
        off = abs(inner(p, q, self.dot).imag) / size
        if self._last is not None:
            _, direction, image, _ = self._last
            mixed = self.dot(direction, q) - self.dot(image, p)
            off = max(off, abs(mixed) / (self.norm(direction) * self.norm(q)))
        if off > (ASYMMETRY if vector.precision_of(p) < 1e-10 else ASYMMETRY_SINGLE):
            raise BreakdownError(
                f"CG needs a symmetric matrix, but <p, A q> and <A p, q> differ by {off:.1e} of "
                "|p| |A q|; use GMRES() or FGMRES()"
            )


class Arnoldi:
    """One solve by `GMRES` or, with `flexible`, by `FGMRES`; otherwise like `ConjugateGradients`.

    `full` means that the basis has reached its limit, so the next iteration restarts.

    Examples
    --------
    >>> A = np.array([[1.0, 1.0], [-1.0, 1.0]])
    >>> equation = Equation(lambda u: A @ u, np.copy, norms.dot, norms.norm)
    >>> gmres = Arnoldi(equation, 5, flexible=False)
    >>> gmres.begin(np.zeros(2), np.ones(2))
    >>> for _ in range(2):
    ...     gmres.advance()
    >>> gmres.state().round(6) + 0.0
    array([0., 1.])
    """

    def __init__(self, equation: Equation, restart: int, flexible: bool):
        self.apply, self.cycle, self.dot, self.norm = equation
        self.restart = restart
        self.flexible = flexible
        self.advice = ""

    def begin(self, u: State, r: State) -> None:
        """Start or restart from a state and its residual."""
        self.residual_norm = self.norm(r)
        self._u = u
        r, self._exponent = _scaled(r, self.residual_norm)
        self._first = self.norm(r)
        self._basis = [r * (1.0 / self._first)] if self._first else []
        if self._first and abs(math.sqrt(self.dot(*self._basis * 2)) - 1.0) > 1e-3:
            raise ValueError(
                "Solver got acceleration=GMRES for a hierarchy whose norm is not that of its dot; "
                "give Hierarchy(norm=, dot=) that match each other"
            )
        self._corrections: list[State] = []
        self._columns: list[np.ndarray] = []  # columns of R, after Givens rotations
        self._rotations: list[tuple[float, complex]] = []
        self._rest: list[complex] = [1.0]  # the rotated right-hand side, divided by the first norm
        self.full = False

    def advance(self) -> None:
        """One iteration."""
        if not self._basis:
            return
        z = self.cycle(self._basis[-1])
        w = self.apply(z)
        if self.flexible:
            self._corrections.append(z)
        size = self.norm(w)
        column = np.zeros(len(self._basis) + 1, complex)
        for _ in range(2):  # twice if the first pass removed nearly all
            before = self.norm(w)
            for k, v in enumerate(self._basis):
                share = inner(v, w, self.dot)
                column[k] += share
                w = add_scaled(w, -share, v)
            left = self.norm(w)
            if left > 0.1 * before:
                break
        column[-1] = left
        self._rotate(column)
        eps = vector.precision_of(w)
        if left <= 10.0 * eps * size or not size:
            self.full = True
            self._end(size, eps)
        else:
            w, exponent = _scaled(w, left)  # otherwise 1 / left may overflow
            self._basis.append(w * (1.0 / math.ldexp(left, -exponent)))
        self.full = self.full or len(self._columns) >= self.restart
        self.residual_norm = math.ldexp(abs(self._rest[-1]) * self._first, self._exponent)

    def _end(self, size: float, eps: float) -> None:
        """The basis spans all reachable vectors: it contains the solution, or there is none."""
        triangle = abs(np.array([column[k] for k, column in enumerate(self._columns)]))
        if not size or triangle.min() <= 50.0 * eps * triangle.max():
            raise BreakdownError(
                f"GMRES cannot reduce the residual further: after {len(self._columns)} iterations "
                "all further directions are combinations of the earlier ones, so matrix or cycle "
                "is singular; if the matrix is, give the hierarchy its nullspace"
            )

    def _rotate(self, column: np.ndarray) -> None:
        """Eliminate the subdiagonal entry of a new column by Givens rotations."""
        for k, (cosine, sine) in enumerate(self._rotations):
            above, below = column[k], column[k + 1]
            column[k] = cosine * above + sine * below
            column[k + 1] = cosine * below - np.conj(sine) * above
        above, below = column[-2], column[-1]
        size = math.hypot(abs(above), abs(below))
        cosine = abs(above) / size if size else 1.0
        phase = above / abs(above) if above else 1.0
        sine = phase * np.conj(below) / size if size else 0.0
        self._rotations.append((cosine, sine))
        column[-2] = cosine * above + sine * below
        self._columns.append(column[:-1])
        last = self._rest[-1]
        self._rest[-1] = cosine * last
        self._rest.append(-np.conj(sine) * last)

    def state(self) -> State:
        """The current state; without `flexible` it costs one cycle."""
        count = len(self._columns)
        if not count:
            return self._u
        triangle = np.zeros((count, count), complex)
        for k, column in enumerate(self._columns):
            triangle[: k + 1, k] = column
        # Least squares, since the triangular factor is singular after a breakdown.
        cut = count * max(vector.precision_of(self._u), 2.0**-52)
        weights, *_ = np.linalg.lstsq(triangle, np.array(self._rest[:count]), rcond=cut)
        weights = self._first * weights
        parts = self._corrections if self.flexible else self._basis
        real = isinstance(inner(self._u, self._u, self.dot), float)
        total = vector.zeros_like(self._u)
        for weight, part in zip(weights, parts, strict=False):
            total = add_scaled(total, float(weight.real) if real else complex(weight), part)
        step = total if self.flexible else self.cycle(total)
        return self._u + norms.times_power_of_two(step, self._exponent)
