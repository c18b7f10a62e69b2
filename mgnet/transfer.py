"""Transfers carry corrections, residuals and solutions between a level and the next coarser one.

`Transfer` is one of the two abstract classes of mgnet (the other is `Smoother`). A grid only needs
the matrices here: for networks the grid is one axis of an array (the layers of an ODE net, the
knots of a KAN), so one small matrix per axis is the whole transfer.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from mgnet import kernels, vector

__all__ = [
    "AxisTransfer",
    "Injection",
    "MatrixTransfer",
    "PackedTransfer",
    "Transfer",
]

State = Any


class Transfer(ABC):
    """Between a level l (fine) and the level l + 1 (coarse).

    A subclass writes `prolong` and `restrict`, and `inject` when its level solves a nonlinear
    equation. States are NumPy arrays, torch tensors or PETSc Vecs; no method edits its argument.

    Attributes
    ----------
    inject : method or None
        fine -> coarse, for solutions (the full approximation scheme). `None`, the default: nothing
        is carried down and the coarse level solves for the correction alone (linear multigrid).
    adjoint : bool
        Whether `restrict` is the transpose of `prolong`. `Hierarchy.check` tests it where it is
        claimed.

    Examples
    --------
    >>> class Pairs(Transfer):  # piecewise constant: a coarse value stands for two fine ones
    ...     def prolong(self, correction):
    ...         return np.repeat(correction, 2)
    ...     def restrict(self, residual):
    ...         return residual[::2] + residual[1::2]
    >>> Pairs().prolong(np.array([1.0, 5.0]))
    array([1., 1., 5., 5.])
    """

    inject: Callable[[State], State] | None = None
    adjoint: bool = True

    @abstractmethod
    def prolong(self, correction: State) -> State:
        """Coarse -> fine, for corrections."""

    @abstractmethod
    def restrict(self, residual: State) -> State:
        """Fine -> coarse, for residuals: the transpose of `prolong`, unless `adjoint` is False."""

    def interpolate(self, state: State) -> State:
        """Coarse -> fine, for solutions in nested iteration; `prolong` by default."""
        return self.prolong(state)

    def correct(self, state: State, correction: State) -> State:
        """`state + prolong(correction)`; a class that can add in one pass overrides it."""
        return state + self.prolong(correction)


def _transposed(matrix: Any) -> Any:
    # A product with scipy's lazy transpose scatters; CSR gathers and is about twice as fast.
    if sp.issparse(matrix):
        return matrix.T.tocsr()
    try:
        return matrix.T
    except AttributeError:
        raise TypeError(
            f"transfer got a prolongation of type {type(matrix).__name__}, which has no transpose "
            "`.T`; give the restriction `R` too"
        ) from None


@dataclass(frozen=True, eq=False)
class MatrixTransfer(Transfer):
    """Transfer by matrices on flat states.

    Parameters
    ----------
    P : matrix of shape (fine, coarse)
        Prolongation: SciPy sparse, LinearOperator, NumPy, torch or PETSc Mat.
    R : matrix of shape (coarse, fine), optional
        Restriction; the transpose of `P` by default (required when `P` has no `.T`).
    injection : matrix of shape (coarse, fine), optional
        For solutions; without it the coarse level solves for the correction.
    interpolation : matrix of shape (fine, coarse), optional
        For solutions in nested iteration; `P` by default.

    Examples
    --------
    >>> from mgnet import interpolation_matrix
    >>> transfer = MatrixTransfer(interpolation_matrix(1))
    >>> transfer.prolong(np.array([2.0])), transfer.restrict(np.array([1.0, 1.0, 1.0]))
    (array([1., 2., 1.]), array([2.]))
    """

    P: Any
    R: Any = None
    injection: Any = None
    interpolation: Any = None

    @cached_property
    def _restriction(self) -> Any:
        return _transposed(self.P) if self.R is None else self.R

    def prolong(self, correction: State) -> State:
        return vector.apply(self.P, correction)

    def restrict(self, residual: State) -> State:
        return vector.apply(self._restriction, residual)

    def correct(self, state: State, correction: State) -> State:
        if sp.issparse(self.P) and self.P.format == "csr":
            return kernels.multiply_add(self.P, correction, state.copy())
        return state + self.prolong(correction)

    def interpolate(self, state: State) -> State:
        return vector.apply(self.P if self.interpolation is None else self.interpolation, state)

    def _inject(self, state: State) -> State:
        return vector.apply(self.injection, state)

    @property
    def inject(self) -> Callable[[State], State] | None:  # type: ignore[override]
        return None if self.injection is None else self._inject

    @property
    def adjoint(self) -> bool:  # type: ignore[override]
        return self.R is None

    def __str__(self) -> str:
        return (
            "MatrixTransfer" if callable(self.P) else "MatrixTransfer {} x {}".format(*self.P.shape)
        )


@dataclass(frozen=True, eq=False)
class AxisTransfer(Transfer):
    """Transfer by one matrix on one axis of an array, or by one matrix on each of several axes.

    Parameters
    ----------
    P : matrix of shape (fine, coarse), or tuple of such matrices
        SciPy sparse or NumPy for NumPy states; torch (dense or sparse) for torch states.
    axis : int or tuple of int, not negative
        The axis of the state on which each matrix acts: 0 for the layers of an ODE net, 1 for the
        knots in the coefficients (inputs, splines, outputs) of a KAN.
    R, injection, interpolation : matrix or tuple of matrices, optional
        As in `MatrixTransfer`, one per axis.

    Examples
    --------
    >>> from mgnet import interpolation_matrix
    >>> P = interpolation_matrix(3, boundary="open")
    >>> bilinear = AxisTransfer((P, P), axis=(0, 1))
    >>> bilinear.prolong(np.ones((3, 3))).shape
    (5, 5)
    """

    P: Any
    axis: int | tuple[int, ...] = 0
    R: Any = None
    injection: Any = None
    interpolation: Any = None

    def _along_axes(self, matrices: Any, u: State) -> State:
        if isinstance(self.axis, int):
            return _along_axis(matrices, self.axis, u)
        for matrix, axis in zip(matrices, self.axis, strict=True):
            u = _along_axis(matrix, axis, u)
        return u

    @cached_property
    def _restriction(self) -> Any:
        if self.R is not None:
            return self.R
        return (
            _transposed(self.P)
            if isinstance(self.axis, int)
            else tuple(_transposed(P) for P in self.P)
        )

    def prolong(self, correction: State) -> State:
        return self._along_axes(self.P, correction)

    def restrict(self, residual: State) -> State:
        return self._along_axes(self._restriction, residual)

    def interpolate(self, state: State) -> State:
        return self._along_axes(self.P if self.interpolation is None else self.interpolation, state)

    def _inject(self, state: State) -> State:
        return self._along_axes(self.injection, state)

    @property
    def inject(self) -> Callable[[State], State] | None:  # type: ignore[override]
        return None if self.injection is None else self._inject

    @property
    def adjoint(self) -> bool:  # type: ignore[override]
        return self.R is None

    def fine_shape(self, coarse_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of `prolong(u)` for a `u` of the shape `coarse_shape`."""
        shape = list(coarse_shape)
        pairs = (
            [(self.P, self.axis)]
            if isinstance(self.axis, int)
            else zip(self.P, self.axis, strict=True)
        )
        for P, axis in pairs:
            shape[axis] = P.shape[0]
        return tuple(shape)

    def __str__(self) -> str:
        return f"AxisTransfer on axis {self.axis}"


def _along_axis(matrix: Any, axis: int, u: State) -> State:
    shape = tuple(u.shape)
    if axis >= len(shape) or shape[axis] != matrix.shape[1]:
        raise ValueError(
            f"AxisTransfer got a state of shape {shape}; "
            f"axis {axis} must have length {matrix.shape[1]} "
            "(states come before corrections: check the level that this state belongs to)"
        )
    before = int(np.prod(shape[:axis], dtype=int))
    # Sparse matrices multiply matrices only, so the axis goes to the front; `swapaxes` is in NumPy
    # and torch alike.
    columns = u.reshape(before, shape[axis], -1).swapaxes(0, 1)
    width = int(np.prod(columns.shape[1:], dtype=int))
    result = matrix @ columns.reshape(shape[axis], width)
    result = result.reshape(matrix.shape[0], *columns.shape[1:]).swapaxes(0, 1)
    return result.reshape(*shape[:axis], matrix.shape[0], *shape[axis + 1 :])


@dataclass(frozen=True, eq=False)
class PackedTransfer(Transfer):
    """Transfer of several arrays packed into one flat state, as the parameters of a network are.

    Parameters
    ----------
    parts : tuple of (shape, transfer)
        In the order of packing: the shape of the array on the coarse level, and its `AxisTransfer`,
        or `None` for an array that is the same on both levels.

    Examples
    --------
    >>> from mgnet import interpolation_matrix
    >>> P = interpolation_matrix(2, boundary="open")
    >>> transfer = PackedTransfer((((2,), AxisTransfer(P)), ((1,), None)))
    >>> transfer.prolong(np.array([0.0, 2.0, 7.0]))
    array([0., 1., 2., 7.])
    """

    parts: tuple[tuple[tuple[int, ...], AxisTransfer | None], ...]

    def _each(self, method: str, u: State) -> State:
        to_coarse = method in ("restrict", "inject")
        results, position = [], 0
        for coarse_shape, transfer in self.parts:
            shape = (
                coarse_shape
                if transfer is None or not to_coarse
                else transfer.fine_shape(coarse_shape)
            )
            size = int(np.prod(shape, dtype=int))
            part = u[position : position + size].reshape(shape)
            results.append(part if transfer is None else getattr(transfer, method)(part))
            position += size
        if position != len(u):
            raise ValueError(
                f"PackedTransfer.{method} got a state of {len(u)} entries; "
                f"its parts hold {position}: "
                "give the coarse shapes of all packed arrays, in order"
            )
        return vector.concatenate(results)

    def prolong(self, correction: State) -> State:
        return self._each("prolong", correction)

    def restrict(self, residual: State) -> State:
        return self._each("restrict", residual)

    def interpolate(self, state: State) -> State:
        return self._each("interpolate", state)

    def _inject(self, state: State) -> State:
        return self._each("inject", state)

    @property
    def inject(self) -> Callable[[State], State] | None:  # type: ignore[override]
        able = all(transfer is None or transfer.inject is not None for _, transfer in self.parts)
        return self._inject if able else None

    @property
    def adjoint(self) -> bool:  # type: ignore[override]
        return all(transfer is None or transfer.adjoint for _, transfer in self.parts)

    def __str__(self) -> str:
        return f"PackedTransfer of {len(self.parts)} arrays"


@dataclass(frozen=True)
class Injection(Transfer):
    """Every `factor`-th entry of axis 0: the transfer of MGRIT, to the C-layers.

    `inject` and `restrict` pick the C-points; `prolong` puts a correction there and zeros between,
    for F-relaxation to fill. Source: Falgout et al., SIAM J. Sci. Comput. 36 (2014), section 2.

    Parameters
    ----------
    size : int
        Length of axis 0 on the fine level; the last interval may be short.
    factor : int
        Coarsening factor, at least 2.

    Examples
    --------
    >>> transfer = Injection(size=5, factor=2)
    >>> transfer.inject(np.arange(5.0)), transfer.prolong(np.array([1.0, 2.0, 3.0]))
    (array([0., 2., 4.]), array([1., 0., 2., 0., 3.]))
    """

    size: int
    factor: int = 2

    def __post_init__(self) -> None:
        if self.factor < 2 or self.size < 1:
            raise ValueError(
                f"Injection got size {self.size} and factor {self.factor}; "
                "the size must be at least 1, the factor at least 2"
            )

    def inject(self, state: State) -> State:  # type: ignore[override]
        return state[:: self.factor]

    def restrict(self, residual: State) -> State:
        return residual[:: self.factor]

    def prolong(self, correction: State) -> State:
        fine = vector.zeros_like(correction, (self.size, *correction.shape[1:]))
        fine[:: self.factor] = correction
        return fine
