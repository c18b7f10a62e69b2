"""Smoothers that solve the equation of a level, for the coarsest level or any small level."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import scipy.linalg as la
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from mgnet import mats, norms, vector
from mgnet.limits import MOST_SWEEPS, is_number, is_one_of, is_whole, shown
from mgnet.smoother import Smoother

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = ["Direct", "Krylov"]

State = Any


@dataclass(frozen=True)
class Direct(Smoother):
    """Exact solve of a linear level, or a Newton step on a nonlinear one.

    One sweep counts as one evaluation of the operator.

    Parameters
    ----------
    method : "lu" or "pinv"
        LU factors (sparse for sparse matrices), or the dense pseudo-inverse for small singular
        matrices.

    Raises
    ------
    ValueError
        If the method is unknown.

    Examples
    --------
    >>> from mgnet import Hierarchy, Level, Solver
    >>> Solver(Hierarchy([Level(np.diag([1.0, 2.0]), Direct())])).solve(np.array([1.0, 1.0])).value
    array([1. , 0.5])
    """

    method: str = "lu"

    def __post_init__(self) -> None:
        if not is_one_of(self.method, ("lu", "pinv")):
            raise ValueError(f"Direct got method {shown(self.method)}; it must be 'lu' or 'pinv'")

    def start(self, level: Level, u: State) -> Any:
        return self._factorise(level, u) if level.linearize is None else None

    def _factorise(self, level: Level, u: State) -> Any:
        matrix: Any = vector.as_scipy(level.jacobian(u), f"{self} on {level}")
        if self.method == "pinv":
            inverse: Any = la.pinv(matrix.toarray() if sp.issparse(matrix) else matrix)
            return inverse.__matmul__
        try:
            # Use the precision of the states where that is higher and LAPACK supports it.
            real = np.promote_types(vector.dtype_of(u).type(0).real.dtype, np.float32)
            dtype = vector.at_most_double(matrix.dtype, real)
            if sp.issparse(matrix):
                columns = sp.csc_matrix(matrix, dtype=dtype)
                factors = spla.splu(columns)
                pivots = abs(factors.U.diagonal())[factors.perm_c]
                scale = abs(columns).max(axis=0).toarray().ravel()
                solve = partial(vector.solved_by_parts, factors.solve, dtype)
            else:
                dense = la.lu_factor(matrix.astype(dtype, copy=False), check_finite=False)
                pivots, scale = abs(dense[0].diagonal()), abs(matrix).max(axis=0)
                solve = partial(la.lu_solve, dense, check_finite=False)
        except RuntimeError:  # SuperLU found a column without a pivot
            pivots, scale, solve = np.zeros(1), np.ones(1), None
        precision = float(np.finfo(np.result_type(scale, np.float32)).eps)
        if (pivots <= len(pivots) * precision * scale).any():
            raise ValueError(
                f"{level} has a matrix of shape {matrix.shape} that is singular to working "
                "precision; use Direct('pinv') or another coarse solver"
            )
        return solve

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        for _ in range(sweeps):
            if memory is None:
                r = level.residual_at(u, f)
                u = u + vector.like(self._factorise(level, u)(vector.as_numpy(r).ravel()), u)
            else:
                b = vector.as_numpy(vector.zeros_like(u) if f is None else f)
                solved = memory(b.ravel())
                complete = solved.dtype.kind == "c" and vector.dtype_of(u).kind != "c"
                u = solved.reshape(b.shape) if complete else vector.like(solved, u)
                level.charge(1.0)
        return u, memory

    def __str__(self) -> str:
        return f"Direct({self.method!r})"


@dataclass(frozen=True)
class Krylov(Smoother):
    """SciPy's Krylov methods on `J d = f - A(u)`: an inexact Newton step per sweep.

    Parameters
    ----------
    method : "cg", "gmres", "bicgstab" or "minres"
        Name of SciPy's method.
    iterations : int
        Largest number of iterations per sweep.
    rtol : float
        Relative reduction of the linear residual at which a sweep ends, dimensionless.

    Raises
    ------
    ValueError
        If the method is unknown or another parameter is out of its range.

    Examples
    --------
    >>> from mgnet import Hierarchy, Level, Solver
    >>> level = Level(np.diag([1.0, 2.0, 4.0]), Krylov("cg", iterations=3))
    >>> Solver(Hierarchy([level]), "V(0,0)").solve(np.ones(3)).value.round(6)
    array([1.  , 0.5 , 0.25])
    """

    method: str = "cg"
    iterations: int = 10
    rtol: float = 0.0
    fixed_work: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not is_one_of(self.method, ("cg", "gmres", "bicgstab", "minres")):
            raise ValueError(
                f"Krylov got method {shown(self.method)}; "
                "it must be 'cg', 'gmres', 'bicgstab' or 'minres'"
            )
        if not is_whole(self.iterations, 1, MOST_SWEEPS) or not is_number(self.rtol, 0.0):
            raise ValueError(
                f"Krylov got iterations {shown(self.iterations)} and rtol {shown(self.rtol)}; it "
                f"needs at least 1 iteration, at most {MOST_SWEEPS}, and an rtol that is not "
                "negative"
            )

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        mats.refuse_spread(u, f"{self} on {level}")
        solve = getattr(spla, self.method)
        # SciPy counts each restart cycle of gmres as one iteration, not its inner iterations.
        options: dict[str, Any] = {"maxiter": 1 if self.method == "gmres" else self.iterations}
        if self.method == "gmres":
            options["restart"] = self.iterations
        for _ in range(sweeps):
            jacobian = level.jacobian(u)
            r = level.residual_at(u, f)

            def product(x: np.ndarray, jacobian: Any = jacobian, u: State = u) -> np.ndarray:
                level.charge(1.0)
                image = vector.as_numpy(vector.apply(jacobian, vector.like(x, u))).ravel()
                return image.astype(vector.at_most_double(image.dtype), copy=False)

            b = vector.as_numpy(r).ravel()
            b = b.astype(vector.at_most_double(b.dtype), copy=False)
            # SciPy's inner products and absolute breakdown tests need numbers near one in size.
            size = norms.binary_exponent(norms.norm(b))
            b = norms.times_power_of_two(b, -size)
            system = spla.LinearOperator((b.size, b.size), matvec=product, dtype=b.dtype)  # type: ignore
            # SciPy's cg divides 0 by 0 after it reaches the exact solution.
            rtol = max(self.rtol, float(np.finfo(b.dtype).eps))
            d, _ = solve(system, b, rtol=rtol, **options)
            u = u + vector.like(norms.times_power_of_two(d, size), u)
        return u, memory

    def work(self, level: Level, sweeps: int) -> float:
        return float(sweeps * (self.iterations + 1))
