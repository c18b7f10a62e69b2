"""Smoothers reduce the error of one level; on the coarsest level they solve.

`Smoother` is one of the two abstract classes of mgnet (the other is `Transfer`). A smoother is
frozen: it holds parameters only, so one instance serves many levels. What it learns about a level
(factors, eigenvalue bounds) and what it remembers between visits (moments, pairs, damping) is its
*memory*, made by `start` and kept by `run`.

All of these treat nonlinear levels too: they need the residual, and a matrix or `linearize`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from mgnet import kernels, vector
from mgnet.limits import is_number, is_one_of, is_whole, shown

if TYPE_CHECKING:
    from mgnet.level import Level
    from mgnet.transfer import Transfer

__all__ = ["Chebyshev", "GaussSeidel", "Jacobi", "Smoother"]

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

    #: Whether `work` is exact. Krylov methods and line searches decide on the way.
    fixed_work: ClassVar[bool] = True
    #: Whether no sweep raises the objective; where one may (Adam), `Solver` keeps the best state.
    monotone: ClassVar[bool] = True

    def start(self, level: Level, u: State) -> Any:
        """The memory of this smoother on `level`: set-up and empty history. Nothing by default."""
        return None

    @abstractmethod
    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        """Improve `u`.

        Parameters
        ----------
        level : Level
        u : state
        f : state or None
            Right-hand side; None stands for zero.
        sweeps : int
            At least 1.
        memory : object
            From `start`, from the last `smooth` on this level or from `carry`.

        Returns
        -------
        (state, memory)
            New ones: neither `u`, `f` nor `memory` may be edited.
        """

    def smooth_ahead(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any, State | None]:
        """`smooth`, and the residual of its state where that comes almost for free, else None.

        `run` calls it where it needs the residual next, and counts it then.
        """
        return *self.smooth(level, u, f, sweeps, memory), None

    def carry(self, memory: Any, transfer: Transfer) -> Any:
        """The memory on the finer level after refinement; None, the default, starts anew."""
        return None

    def work(self, level: Level, sweeps: int) -> float:
        """Evaluations of A that `smooth` will use: one residual per sweep by default."""
        return sweeps * level.residual_work


def _compiled(level: Level, *states: State | None) -> bool:
    """Whether the compiled loops can evaluate the residual of this level, for these states."""
    return level.residual is None and kernels.takes(level.operator, *states)


def _reach(level: Level) -> int:
    """What the compiled loops must know of the matrix; also where they do not take the start."""
    return kernels.reach(level.operator) if _compiled(level) else 0


def _diagonal(level: Level, u: State, smoother: Smoother) -> State:
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
        Damping, dimensionless; 2/3 smooths best in 1-D, 4/5 in 2-D (Poisson, 5-point).

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
            raise ValueError(f"Jacobi got omega {shown(self.omega)}; give a number above 0, as 0.8")

    def start(self, level: Level, u: State) -> tuple[State, Any, int]:
        scale = self.omega / _diagonal(level, u, self)
        matrix = level.matrix
        plain = kernels.is_csr(matrix) and not level.linearize and not level.residual
        if not plain or kernels.takes(matrix, u):
            return scale, None, _reach(level)
        # u + scale (f - A u) = scale f + (I - scale A) u: with the second matrix stored, a sweep is
        # one product into `scale f`.
        iteration = matrix.astype(scale.dtype)  # a copy, of floats even where A has integers
        iteration.data *= -np.repeat(scale, np.diff(matrix.indptr))
        iteration.setdiag(iteration.diagonal() + 1)
        return (scale[0] if np.ptp(scale) == 0.0 else scale), iteration, 0

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        scale, iteration, _ = memory
        for _ in range(sweeps):
            if iteration is not None:
                start = vector.zeros_like(scale * u) if f is None else scale * f
                u = kernels.multiply_add(iteration, u, start)
                level.charge(1.0)
            elif _compiled(level, u, f):
                u = kernels.jacobi(level.operator, scale, u, f)
                level.charge(1.0)
            else:
                r = level.residual_at(u, f)  # a new state: ours to overwrite
                r *= scale
                r += u
                u = r
        return u, memory

    def smooth_ahead(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any, State | None]:
        scale, iteration, within = memory
        if iteration is not None or not _compiled(level, u, f):
            return super().smooth_ahead(level, u, f, sweeps, memory)
        u, r = self.smooth(level, u, f, sweeps - 1, memory)[0], np.empty_like(u)
        level.charge(1.0)
        return kernels.jacobi(level.operator, scale, u, f, r, within), memory, r

    def __str__(self) -> str:
        return f"Jacobi(omega={self.omega:.6g})"


@dataclass(frozen=True)
class GaussSeidel(Smoother):
    """Gauss-Seidel relaxation over the rows of a sparse matrix.

    A compiled sweep when numba is there (`pip install "mgnet-solvers[fast]"`), else SciPy's
    triangular factors. On a nonlinear level each sweep is `u + (D + L)^-1 (f - A(u))` with the
    Jacobian of the first visit.

    Parameters
    ----------
    direction : "forward", "backward" or "symmetric"
        Order of the rows; a symmetric sweep is a forward and a backward one.

    Examples
    --------
    >>> from mgnet import gallery
    >>> level = gallery.poisson(3)[0]
    >>> smoother = GaussSeidel()
    >>> memory = smoother.start(level, np.zeros(3))
    >>> u, memory = smoother.smooth(level, np.zeros(3), np.ones(3), 1, memory)
    >>> u
    array([0.125  , 0.1875 , 0.21875])
    """

    direction: str = "forward"

    def __post_init__(self) -> None:
        if not is_one_of(self.direction, ("forward", "backward", "symmetric")):
            raise ValueError(
                f"GaussSeidel got direction {shown(self.direction)}; "
                "it must be 'forward', 'backward' or 'symmetric'"
            )

    @cached_property
    def _directions(self) -> tuple[str, ...]:
        return ("forward", "backward") if self.direction == "symmetric" else (self.direction,)

    def start(self, level: Level, u: State) -> Any:
        diagonal = _diagonal(level, u, self)
        matrix = sp.csr_matrix(vector.as_scipy(level.jacobian(u)))
        plain = isinstance(u, np.ndarray) and level.linearize is None and level.residual is None
        if plain and kernels.available and kernels.compiles(matrix.dtype, u.dtype):
            return matrix, 1.0 / diagonal.reshape(-1), kernels.reach(matrix)
        parts = {"forward": sp.tril, "backward": sp.triu}
        # SuperLU without pivoting factorises a triangle without fill: its solves are the sweeps.
        settings = {"diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
        factors, dtype = {}, vector.at_most_double(matrix.dtype, vector.dtype_of(u), float)
        for direction in self._directions:
            triangle = parts[direction](matrix.astype(dtype), format="csc")
            factors[direction] = spla.splu(triangle, "NATURAL", **settings)
        return factors

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        if isinstance(memory, dict):
            for _ in range(sweeps):
                for direction in self._directions:
                    r = vector.as_numpy(level.residual_at(u, f))
                    r = r.ravel().astype(vector.at_most_double(r.dtype, float))
                    u = u + vector.like(memory[direction].solve(r), u)
            return u, memory
        return self._swept(level, u, f, sweeps, memory, None), memory

    def smooth_ahead(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any, State | None]:
        if isinstance(memory, dict) or not kernels.alike(memory[0], u, u if f is None else f):
            return super().smooth_ahead(level, u, f, sweeps, memory)
        return self._swept(level, u, f, sweeps, memory, r := np.empty_like(u)), memory, r

    def _swept(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any, r: State | None
    ) -> State:
        """The state after compiled sweeps; r is filled with its residual."""
        matrix, inverse, within = memory
        shape, order = u.shape, self._directions
        u, b = kernels.flat(matrix, u, vector.zeros_like(u) if f is None else f)
        for k in range(len(order) * sweeps - 1):
            kernels.gauss_seidel(matrix, inverse, u, b, order[k % len(order)] == "backward")
        kernels.gauss_seidel(matrix, inverse, u, b, order[-1] == "backward", r, within)
        level.charge(len(order) * sweeps * level.residual_work)
        return u.reshape(shape)

    def work(self, level: Level, sweeps: int) -> float:
        return sweeps * len(self._directions) * level.residual_work

    def __str__(self) -> str:
        return f"GaussSeidel({self.direction!r})"


@dataclass(frozen=True)
class Chebyshev(Smoother):
    """Chebyshev polynomial of `D^-1 A`, for symmetric positive definite problems.

    One sweep costs `degree` evaluations. The largest eigenvalue of `D^-1 A` is estimated once, by
    an Arnoldi process of `steps` steps from a seeded random state. Source: Saad, Iterative Methods
    for Sparse Linear Systems (2003), algorithm 12.1; the interval is the usual one of smoothers
    (PETSc, PyAMG).

    Parameters
    ----------
    degree : int
        Of the polynomial, at least 1.
    lower, upper : float
        The interval that is damped, as multiples of the estimate, dimensionless.
    steps : int
        Of the eigenvalue estimate.
    seed : int
        Of its start.

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

    def __post_init__(self) -> None:
        whole = all(is_whole(count, 1, 1000) for count in (self.degree, self.steps))
        real = all(is_number(x, 0.0, math.inf, open=True) for x in (self.lower, self.upper))
        if not (whole and real and self.lower < self.upper and is_whole(self.seed)):
            raise ValueError(
                f"Chebyshev got {shown(vars(self), 200)}; it needs degree and steps of at least 1 "
                "and at most 1000, integers, a seed not below 0, and 0 < lower < upper"
            )

    def start(self, level: Level, u: State) -> tuple[State, float, int]:
        inverse, jacobian = 1.0 / _diagonal(level, u, self), level.jacobian(u)
        basis = [vector.random_like(u, np.random.default_rng(self.seed))]
        basis[0] = basis[0] * (1.0 / vector.norm(basis[0]))
        hessenberg, size = np.zeros((self.steps + 1, self.steps)), self.steps
        for k in range(self.steps):
            w = vector.apply(jacobian, basis[k]) * inverse
            for j, q in enumerate(basis):
                hessenberg[j, k] = vector.dot(q, w)
                w = w - hessenberg[j, k] * q
            hessenberg[k + 1, k] = vector.norm(w)
            small = 1e-12 * abs(hessenberg[: k + 1, k]).max()
            if hessenberg[k + 1, k] <= small:  # an invariant space: exact values
                size = k + 1
                break
            basis.append(w * (1.0 / hessenberg[k + 1, k]))
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
        """The state after the sweeps; r, for compiled ones, is filled with its residual."""
        inverse, largest, within = memory
        compiled, factors = _compiled(level, u, f), self._factors(largest)
        d: Any = None
        for number in range(sweeps * self.degree):
            old, new = factors[number % self.degree]
            if compiled:
                d = np.zeros_like(u) if old == 0.0 else d
                last = None if number + 1 < sweeps * self.degree else r
                u = kernels.chebyshev(level.operator, inverse, u, f, d, (old, new), last, within)
                level.charge(1.0)
                continue
            step = level.residual_at(u, f)
            step *= inverse
            step *= new
            if old:
                d *= old
                step += d
            u, d = u + step, step
        return u

    def _factors(self, largest: float) -> list[tuple[float, float]]:
        """Of each step of a sweep: `d = old d + new D^-1 (f - A u)`, then u + d."""
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
        return f"Chebyshev(degree={self.degree})"
