"""Levels of a PyAMG solver, including its smoothers; PyAMG itself is not imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp

from mgnet import vector
from mgnet.coarse_solver import Direct
from mgnet.gauss_seidel import GaussSeidel
from mgnet.level import Level
from mgnet.smoother import Jacobi, Smoother
from mgnet.transfer import MatrixTransfer

__all__ = ["PyAMGSmoother", "pyamg_levels"]

State = Any


@dataclass(frozen=True)
class PyAMGSmoother(Smoother):
    """A relaxation method or a coarse solver of PyAMG, called directly.

    `Hierarchy.from_pyamg` uses it where mgnet has no smoother with the same formula.

    Parameters
    ----------
    function : callable
        `(A, x, b)`, which edits x; with `solves`, `(A, b) -> x`.
    name : str
        Name in messages and tables.
    solves : bool
        Whether the function is a coarse solver that returns x.

    Examples
    --------
    >>> import pyamg
    >>> from mgnet import Hierarchy
    >>> A = pyamg.gallery.poisson((20, 20), format="csr")
    >>> ml = pyamg.ruge_stuben_solver(A, presmoother="cf_jacobi", postsmoother="fc_jacobi")
    >>> str(Hierarchy.from_pyamg(ml)[0].smoother)
    'PyAMG cf_jacobi'
    """

    function: Callable[..., Any]
    name: str
    solves: bool = False

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        b = vector.zeros_like(u) if f is None else f
        for _ in range(sweeps):
            try:
                u = self._swept(level.matrix, u, b)
            except TypeError as error:  # its compiled functions list all overloads and entries
                raise TypeError(
                    f"{self} on {level} does not take a matrix of {level.matrix.dtype} with states "
                    f"of {u.dtype}: {str(error).splitlines()[0]}; use another smoother of PyAMG, "
                    "or give smoother="
                ) from None
            level.charge(1.0)
        return u, memory

    def _swept(self, matrix: Any, u: State, b: State) -> State:
        if self.solves:
            return np.asarray(self.function(matrix, b), u.dtype).reshape(u.shape)
        u = u.copy()
        self.function(matrix, u, b)
        return u

    def __str__(self) -> str:
        return f"PyAMG {self.name}"


def pyamg_levels(
    solver: Any,
    smoother: Smoother | None,
    post_smoother: Smoother | None,
    coarse_solver: Smoother | None,
) -> list[Level]:
    """The levels of a PyAMG solver, with its smoothers unless others are given.

    Raises
    ------
    TypeError
        If the object is not a PyAMG solver.

    Examples
    --------
    >>> import pyamg
    >>> A = pyamg.gallery.poisson((20, 20), format="csr")
    >>> levels = pyamg_levels(pyamg.ruge_stuben_solver(A), None, None, None)
    >>> str(levels[0].smoother), str(levels[-1].smoother)
    ("GaussSeidel('symmetric')", "Direct('pinv')")
    """
    parts = getattr(solver, "levels", None)
    if not parts:
        raise TypeError(
            f"Hierarchy.from_pyamg got a {type(solver).__name__}; give PyAMG's solver, such as "
            "pyamg.ruge_stuben_solver(A)"
        )
    levels = []
    for number, part in enumerate(parts[:-1]):
        whole = bool(part.A.diagonal().all())
        pre, post = smoother or _smoother(part.presmoother, whole), post_smoother
        if post is None and smoother is None:
            post = _smoother(part.postsmoother, whole)
        A = _matrix(part.A, pre, post)
        transfer = MatrixTransfer(_csr(part.P), _csr(part.R))
        own = None if post == pre else post  # one smoother shares its setup
        levels.append(Level(A, pre, transfer, own, name=f"level {number}", cost=float(A.nnz)))
    last = coarse_solver or _coarse(solver.coarse_solver)
    A = _matrix(parts[-1].A, last, None)
    return [*levels, Level(A, last, name=f"level {len(levels)}", cost=float(A.nnz))]


def _matrix(matrix: Any, *smoothers: Smoother | None) -> Any:
    """The matrix in PyAMG's own format if its functions are used: SOR on blocks ignores omega."""
    theirs = any(isinstance(smoother, PyAMGSmoother) for smoother in smoothers)
    return matrix if theirs else _csr(matrix)


def _csr(matrix: Any) -> Any:
    """The matrix itself, but as CSR if its blocks have one entry, for the compiled loops."""
    single = sp.issparse(matrix) and matrix.format == "bsr" and matrix.blocksize == (1, 1)
    return matrix.tocsr() if single else matrix


def _smoother(function: Any, whole: bool) -> Smoother:
    """Smoother of mgnet with the same formula, else PyAMG's, which skips zero diagonals."""
    own = function.func if isinstance(function, partial) else function
    name = getattr(own, "__name__", type(own).__name__)
    options = function.keywords if isinstance(function, partial) else {}
    if whole and options.get("iterations") == 1 and not getattr(function, "args", ()):
        if name == "gauss_seidel" and set(options) == {"iterations", "sweep"}:
            return GaussSeidel(options["sweep"])
        if name == "jacobi" and set(options) == {"iterations", "omega"}:
            return Jacobi(float(np.real(options["omega"])))
    return PyAMGSmoother(function, getattr(function, "__name__", name))


def _coarse(solver: Any) -> Smoother:
    name = solver.name() if hasattr(solver, "name") else str(solver)
    for method, kind in (("'pinv'", "pinv"), ("'splu'", "lu"), ("'lu'", "lu")):
        if method in name:
            return Direct(kind)
    return PyAMGSmoother(solver, name, solves=True)
