"""What is solved on one level: `Level`.

One equation `A_l(u_l) = f_l` stands on every level l; level 0 is the finest. The methods of mgnet
differ in the parts that fill a level, not in the algorithm (`mgnet.run`):

| method | operator | transfer | smoother |
| --- | --- | --- | --- |
| linear multigrid | matrix | interpolation, transpose, no injection | Jacobi, Gauss-Seidel |
| nonlinear multigrid (FAS) | any | the same with injection | nonlinear relaxation, a Newton step |
| MGRIT | layer equation | injection at C-layers | CF relaxation on relaxed F-layers |
| MG/OPT training | gradient of the loss | prolongation, its transpose, projection | optimizer |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mgnet import kernels, vector
from mgnet.smoother import Smoother
from mgnet.transfer import Transfer

__all__ = ["Level"]

State = Any


@dataclass(frozen=True, eq=False)
class Level:
    """The equation `A(u) = f` on one level, and the parts that solve it.

    Parameters
    ----------
    operator : callable or anything with `@`
        A: a function of the state, or a matrix (SciPy, NumPy, torch, PETSc Mat), which is then
        `level.matrix`. One that has a list `tally` counts its evaluations there by itself.
    smoother : Smoother
        On the coarsest level: the coarse solver.
    transfer : Transfer, optional
        To the next coarser level; `None` on the coarsest.
    post_smoother : Smoother, optional
        After the coarse correction; `smoother` by default, which then shares its memory.
    residual : callable, optional
        `(u, f) -> residual`; `f - A(u)` by default.
    linearize : callable, optional
        `u -> linear operator`: a matrix or SciPy LinearOperator, the Jacobian of A at u (of the
        residual vector, for least squares).
    objective : callable, optional
        `u -> float`, when A is its gradient.
    line_search : callable, optional
        `(level, u, d, f, r) -> step length` of a coarse correction d; 0 refuses it. See
        `mgnet.linesearch`.
    recenter : callable, optional
        `fine state -> Level`: the coarse level of this descent. Its operator vanishes at 0, where
        the descent begins; `transfer.inject` then only serves the `start` of nested iteration.
    size : int
        Number of unknowns; read from the matrix when 0.
    name : str
        For messages.
    cost : float
        Of one evaluation of A, in any unit that all levels share; `size` when 0.
    residual_cost : float
        Of one call of `residual`, as a multiple of `cost`.

    Examples
    --------
    >>> from mgnet import Jacobi
    >>> level = Level(np.array([[2.0, 0.0], [0.0, 4.0]]), Jacobi())
    >>> level.residual_at(np.array([1.0, 1.0]), np.array([3.0, 3.0]))
    array([ 1., -1.])
    """

    operator: Any
    smoother: Smoother
    transfer: Transfer | None = None
    post_smoother: Smoother | None = None
    residual: Callable[[State, State | None], State] | None = None
    linearize: Callable[[State], Any] | None = None
    objective: Callable[[State], float] | None = None
    line_search: Callable[..., float] | None = None
    recenter: Callable[[State], Level] | None = None
    size: int = 0
    name: str = ""
    cost: float = 0.0
    residual_cost: float = 1.0
    # Evaluations of A since the level was made. A list, so that a frozen level can count.
    tally: list[float] = field(default_factory=lambda: [0.0], init=False, repr=False)

    def __post_init__(self) -> None:
        own = getattr(self.operator, "tally", None)
        if isinstance(own, list):
            object.__setattr__(self, "tally", own)

    def apply(self, u: State) -> State:
        """A(u), counted as one evaluation."""
        self._count(1.0)
        return vector.apply(self.operator, u)

    def residual_at(self, u: State, f: State | None) -> State:
        """The residual `f - A(u)` as a new state; `f = None` stands for zero."""
        if self.residual is not None:
            self._count(self.residual_work)
            return self.residual(u, f)
        if kernels.takes(self.operator, u, f):
            self.tally[0] += 1.0
            return kernels.residual(self.operator, u, f)
        image = self.apply(u)
        if callable(self.operator) and not vector.alike(image, u):
            raise TypeError(
                f"{self} has an operator that takes the state, {vector.describe(u)}, to "
                f"{vector.describe(image)}; it must keep kind and shape"
            )
        if f is None:
            return -1.0 * image
        if type(image) is np.ndarray and image.dtype == f.dtype and not callable(self.operator):
            return np.subtract(f, image, out=image)  # a product is a new array: ours to overwrite
        return f - image

    def value(
        self, u: State, f: State | None, dot: Callable[[State, State], float] = vector.dot
    ) -> float:
        """`J(u) - <f, u>`, which the equation `A(u) = f` minimises; counted as one evaluation."""
        if self.objective is None:
            raise TypeError(f"{self} has no objective; give Level(objective=...) to use it")
        self.tally[0] += 1.0
        return float(self.objective(u)) - (0.0 if f is None else dot(f, u))

    def _count(self, evaluations: float) -> None:
        """Count, unless the operator does: only it can tell which results it remembered."""
        if not self._operator_counts:
            self.tally[0] += evaluations

    @cached_property
    def _operator_counts(self) -> bool:
        return self.tally is getattr(self.operator, "tally", None)

    def charge(self, evaluations: float) -> None:
        """Count evaluations of A that did not go through `apply` or `residual_at`.

        Those of compiled sweeps, and `residual_work` for the residual that such a sweep gave.
        """
        self.tally[0] += evaluations

    def jacobian(self, u: State) -> Any:
        """The linear operator of this level at u: `linearize(u)`, else the matrix."""
        if self.linearize is not None:
            return self.linearize(u)
        if self.matrix is None:
            raise TypeError(
                f"{self} has neither a matrix nor `linearize`, but its smoother "
                f"{self.smoother} needs one; "
                "give Level(linearize=...) or another smoother"
            )
        return self.matrix

    # A level is frozen, and every step asks for these: worked out once, on demand. `replace` makes
    # a new level, which has not been asked yet.

    @cached_property
    def matrix(self) -> Any:
        """The operator when it supports `@` or is a PETSc Mat, else None."""
        multiplies = getattr(type(self.operator), "__matmul__", None) is not None
        return self.operator if multiplies or vector.is_mat(self.operator) else None

    @cached_property
    def unknowns(self) -> int:
        """Number of unknowns: `size`, else the rows of the matrix, else 0 (not known)."""
        if self.size or self.matrix is None:
            return self.size
        return vector.shape_of(self.matrix)[0]

    @cached_property
    def residual_work(self) -> float:
        """Of one residual, in evaluations of A: 1, or `residual_cost` where it has its own."""
        return 1.0 if self.residual is None else self.residual_cost

    @cached_property
    def evaluation_cost(self) -> float:
        """Of one evaluation of A: `cost`, else the number of unknowns, else 1."""
        return float(self.cost or self.unknowns or 1)

    def __str__(self) -> str:
        return self.name or "the level"
