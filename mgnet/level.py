"""The equation of one level and its parts: `Level`.

Each level l has an equation `A_l(u_l) = f_l`; level 0 is the finest. The methods of mgnet differ in
the parts of a level, not in the algorithm (`mgnet.run`):

| method | operator | transfer | smoother |
| --- | --- | --- | --- |
| linear multigrid | matrix | interpolation, transpose, no injection | Jacobi, Gauss-Seidel |
| nonlinear multigrid (FAS) | any | the same with injection | nonlinear relaxation, a Newton step |
| MGRIT | layer equation | injection at C-layers | CF relaxation on relaxed F-layers |
| MG/OPT training | gradient of the loss | prolongation, its transpose, projection | optimizer |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from operator import matmul
from typing import Any, NoReturn

import numpy as np
import scipy.sparse as sp

from mgnet import callbacks, kernels, vector
from mgnet.limits import is_number, is_whole, shown
from mgnet.smoother import Smoother
from mgnet.transfer import MatrixTransfer, Transfer

__all__ = ["Level"]

State = Any


_PARTS = {
    "operator": "an operator",
    "residual": "a residual",
    "linearize": "a function linearize",
    "objective": "an objective",
    "line_search": "a line search",
    "recenter": "a function recenter",
    "smoother": "a smoother",
    "post_smoother": "a post-smoother",
    "transfer": "a transfer",
}


def _of_a_library(part: Any) -> bool:
    """Whether a part is a matrix of NumPy, SciPy, PyTorch or PETSc."""
    known = isinstance(part, np.ndarray) or sp.issparse(part)
    return known or vector.is_tensor(part) or vector.is_mat(part)


def _of_mgnet(part: Any) -> bool:
    """Whether a part belongs to mgnet and wraps no function of the user."""
    hides = isinstance(part, MatrixTransfer) and any(
        callable(matrix) and not vector.is_mat(matrix)
        for matrix in (part.P, part.R, part.injection, part.interpolation)
    )
    return callbacks.ours(part) and not hides


@dataclass(frozen=True, eq=False)
class Level:
    """The equation `A(u) = f` on one level, and the parts that solve it.

    Parameters
    ----------
    operator : callable or anything with `@`
        A: a function of the state, or a matrix (SciPy, NumPy, torch, PETSc Mat), which is then
        `level.matrix`. An operator with a list `tally` counts its own evaluations there.
    smoother : Smoother
        Smoother before the coarse correction; on the coarsest level, the coarse solver.
    transfer : Transfer, optional
        Transfer to the next coarser level; None on the coarsest level.
    post_smoother : Smoother, optional
        Smoother after the coarse correction; `smoother` by default, which then shares its memory.
    residual : callable, optional
        `(u, f) -> residual`; `f - A(u)` by default.
    linearize : callable, optional
        `u -> linear operator`: a matrix or SciPy LinearOperator, the Jacobian of A at u (of the
        residual vector, for least squares).
    objective : callable, optional
        `u -> float`, the function whose gradient is A.
    line_search : callable, optional
        `(level, u, d, f, r) -> step length` of a coarse correction d; 0 refuses it. See
        `mgnet.linesearch`.
    recenter : callable, optional
        `fine state -> Level`: the coarse level of this descent. Its operator vanishes at 0, where
        the descent begins; `transfer.inject` is then used only by the `start` of nested iteration.
    size : int
        Number of unknowns; 0 means that it is read from the matrix.
    name : str
        Name of the level in messages.
    cost : float
        Cost of one evaluation of A, in any unit that all levels share; 0 means `size`.
    residual_cost : float
        Cost of one call of `residual`, as a multiple of `cost`.
    shape : tuple of int
        Number of points along each axis, if the unknowns form a structured grid in C order; used
        by `LineRelaxation`.

    Raises
    ------
    ValueError
        If a number is negative, or shape and number of unknowns do not fit together.

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
    shape: tuple[int, ...] = ()
    # Evaluations of A since the level was created. It is a list, so that a frozen level can count.
    tally: list[float] = field(default_factory=lambda: [0.0], init=False, repr=False)

    def __post_init__(self) -> None:
        prices = (self.cost, self.residual_cost)
        if not is_whole(self.size) or not all(is_number(p, 0.0, 1e300) for p in prices):
            raise ValueError(
                f"{self} got size {shown(self.size)}, cost {shown(self.cost)}, residual_cost "
                f"{shown(self.residual_cost)}; the size must be an integer and none negative"
            )
        if self.shape != ():
            self._check_shape()
        own = getattr(self.operator, "tally", None)
        if isinstance(own, list):
            object.__setattr__(self, "tally", own)

    def _check_shape(self) -> None:
        if not isinstance(self.shape, tuple) or not all(is_whole(n, 1) for n in self.shape):
            raise ValueError(
                f"{self} got shape {shown(self.shape)}; give a tuple of positive integers, the "
                "points along each axis of its grid"
            )
        points = math.prod(self.shape)
        if self.unknowns and points != self.unknowns:
            raise ValueError(
                f"{self} got shape {shown(self.shape)}, which is {shown(points)} points, but it "
                f"has {self.unknowns} unknowns"
            )

    def apply(self, u: State) -> State:
        """A(u), counted as one evaluation."""
        image = self._image(u)  # a function may return the same array each time
        return callbacks.duplicate(image) if "operator" in self.watched else image

    def _image(self, u: State) -> State:
        self._count(1.0)
        own = self.watched.get("operator")
        if own is None:
            return vector.apply(self.operator, u)
        image = own(self, u)
        if callbacks.unfit(image, u):
            self._refuse_image(image, u)
        return image

    def _refuse_image(self, image: Any, u: State) -> NoReturn:
        raise TypeError(
            f"{self} has an operator that takes the state, {vector.describe(u)}, to "
            f"{vector.describe(image)}; it must keep kind and shape, and return "
            "floating-point numbers, complex ones for complex states only"
        )

    def residual_at(self, u: State, f: State | None) -> State:
        """The residual `f - A(u)` as a new state; `f = None` stands for zero."""
        if self.residual is not None:
            self._count(self.residual_work)
            own = self.watched.get("residual")
            if own is None:
                return self.residual(u, f)
            r = own(self, u, f)
            if callbacks.unfit(r, u):
                wanted = f"a state like u, {vector.describe(u)}"
                callbacks.refuse_result(self, own.what, r, wanted)
            return callbacks.duplicate(r)  # it may return u, f or the same array each time
        if vector.is_mat(self.operator) and vector.is_vec(u):
            return self._residual_of_vecs(u, f)
        if kernels.takes(self.operator, u, f):
            self.tally[0] += 1.0
            return kernels.residual(self.operator, u, f)
        image = self._image(u)
        if callable(self.operator) and not vector.alike(image, u):
            self._refuse_image(image, u)
        if f is None:
            return -1.0 * image
        if type(image) is np.ndarray and image.dtype == f.dtype and not callable(self.operator):
            # A product is a new array, which may be overwritten.
            return np.subtract(f, image, out=image)
        return f - image

    def _residual_of_vecs(self, u: State, f: State | None) -> State:
        image = self._image(u)  # a new Vec, which may be overwritten
        if f is None:
            image.scale(-1.0)
        else:
            image.aypx(-1.0, f)
        return image

    def keep_residual(self, u: State | None, f: State | None, r: State | None) -> None:
        """Store a residual for the sweep that begins at this state u; None clears it."""
        self._kept_residual[:] = [] if r is None else [(u, f, r)]

    def kept_residual(self, u: State, f: State | None) -> State | None:
        """Return the residual stored for u and f, once, for the caller to overwrite; or None."""
        of, by, r = self._kept_residual.pop() if self._kept_residual else (None, None, None)
        return r if of is u and by is f else None

    def value(
        self, u: State, f: State | None, dot: Callable[[State, State], float] = vector.dot
    ) -> float:
        """`J(u) - <f, u>`, which solutions of `A(u) = f` minimize; counted as one evaluation.

        Raises
        ------
        TypeError
            If the level has no objective.
        """
        if self.objective is None:
            raise TypeError(f"{self} has no objective; give Level(objective=...) to use it")
        self.tally[0] += 1.0
        own = self.watched.get("objective")
        if own is None:
            value = float(self.objective(u))
        else:
            value = callbacks.real_number(self, own.what, own(self, u))
        return value - (0.0 if f is None else dot(f, u))

    def _count(self, evaluations: float) -> None:
        """Count evaluations unless the operator, which may reuse results, counts its own."""
        if not self._operator_counts:
            self.tally[0] += evaluations

    @cached_property
    def _operator_counts(self) -> bool:
        return self.tally is getattr(self.operator, "tally", None)

    def charge(self, evaluations: float) -> None:
        """Count evaluations of A that did not go through `apply` or `residual_at`.

        These are the evaluations in compiled sweeps, and `residual_work` for a residual from such a
        sweep.
        """
        self.tally[0] += evaluations

    def jacobian(self, u: State) -> Any:
        """The linear operator of this level at u: `linearize(u)`, or else the matrix.

        Raises
        ------
        TypeError
            If the level has neither, or if `linearize` returns something else.
        """
        if self.linearize is not None:
            own = self.watched.get("linearize")
            return self.linearize(u) if own is None else self._checked_jacobian(own, u)
        if self.matrix is None:
            raise TypeError(
                f"{self} has neither a matrix nor `linearize`, but its smoother "
                f"{self.smoother} needs one; "
                "give Level(linearize=...) or another smoother"
            )
        return self.matrix

    def _checked_jacobian(self, own: callbacks.Watched, u: State) -> Any:
        jacobian = own(self, u)
        shape = getattr(jacobian, "shape", ()) if not vector.is_mat(jacobian) else (0, 0)
        fits = len(shape) == 2 and (vector.is_vec(u) or shape[1] == math.prod(u.shape))
        if not fits and not (callable(jacobian) and not shape):
            wanted = "a matrix or a LinearOperator with a column for each unknown"
            callbacks.refuse_result(self, own.what, jacobian, wanted)
        return jacobian

    def recentred(self, u: State) -> Level:
        """The coarse level of a descent from u, from `recenter`."""
        own = self.watched.get("recenter")
        if own is None:
            return self.recenter(u)  # type: ignore[misc]
        coarse = own(self, u)
        if not isinstance(coarse, Level):
            callbacks.refuse_result(self, own.what, coarse, "a Level")
        return coarse

    def step_length(self, u: State, d: State, f: State | None, r: State) -> float:
        """Step length of a coarse correction d, from `line_search`."""
        own = self.watched.get("line_search")
        if own is None:
            return self.line_search(self, u, d, f, r)  # type: ignore[misc]
        return callbacks.real_number(self, own.what, own(self, self, u, d, f, r))

    # A level is frozen, and every step needs these, so they are computed once on demand. `replace`
    # creates a new level, for which they are computed again.

    @cached_property
    def watched(self) -> dict[str, callbacks.Watched]:
        """The parts that the user wrote, by name; see `mgnet.callbacks`."""
        found = {}
        for name, what in _PARTS.items():
            part = getattr(self, name)
            if name == "operator" and not callable(part) and not _of_a_library(part):
                part = partial(matmul, part)
            if part is not None and not _of_a_library(part) and not _of_mgnet(part):
                found[name] = callbacks.Watched(part, what)
        return found

    @cached_property
    def _kept_residual(self) -> list[Any]:
        return []

    @cached_property
    def matrix(self) -> Any:
        """The operator if it supports `@` or is a PETSc Mat, else None."""
        multiplies = getattr(type(self.operator), "__matmul__", None) is not None
        return self.operator if multiplies or vector.is_mat(self.operator) else None

    @cached_property
    def unknowns(self) -> int:
        """Number of unknowns: `size`, else the matrix's number of rows, else 0 (unknown)."""
        if self.size or self.matrix is None:
            return self.size
        return vector.shape_of(self.matrix)[0]

    @cached_property
    def residual_work(self) -> float:
        """Work of one residual in evaluations of A: 1, or `residual_cost` for a user's residual."""
        return 1.0 if self.residual is None else self.residual_cost

    @cached_property
    def evaluation_cost(self) -> float:
        """Cost of one evaluation of A: `cost`, else the number of unknowns, else 1."""
        return float(self.cost or self.unknowns or 1)

    def __str__(self) -> str:
        return self.name or "the level"
