"""Transfers carry corrections, residuals and solutions between a level and the next coarser one.

`Transfer` is one of the two abstract classes of mgnet (the other is `Smoother`). Grids appear here
only as matrices. In a network, the grid is one axis of an array (the layers of an ODE net, the
knots of a KAN), so one small matrix per axis makes up the whole transfer.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mgnet import kernels, mats, vector
from mgnet.callbacks import refuse_result, unfit
from mgnet.galerkin import transposed
from mgnet.limits import is_whole, shown

__all__ = ["AxisTransfer", "Injection", "MatrixTransfer", "PackedTransfer", "Transfer"]

State = Any


class Transfer(ABC):
    """Transfer between a level l (fine) and the level l + 1 (coarse).

    A subclass defines `prolong` and `restrict`, and `inject` if its level solves a nonlinear
    equation. States are NumPy arrays, torch tensors or PETSc Vecs; no method edits its argument.

    Attributes
    ----------
    inject : method or None
        fine -> coarse, for solutions (the full approximation scheme). With the default, None, the
        coarse level solves for the correction (linear multigrid).
    adjoint : bool
        Whether `restrict` is the transpose of `prolong`; `Hierarchy.check` tests this claim.
    replace : method or None
        (fine, coarse) -> `fine + prolong(coarse - inject(fine))` without rounding errors, for
        transfers that copy coarse values to the fine state. The default, None, computes the sum.

    Examples
    --------
    >>> import numpy as np
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
    replace: Callable[[State, State], State] | None = None

    @abstractmethod
    def prolong(self, correction: State) -> State:
        """Coarse -> fine, for corrections."""

    @abstractmethod
    def restrict(self, residual: State) -> State:
        """Fine -> coarse, for residuals: the transpose of `prolong`, unless `adjoint` is False."""

    def interpolate(self, state: State) -> State:
        """Coarse -> fine, for solutions in nested iteration; `prolong` by default."""
        return self.prolong(state)

    def carry_gradient(self, gradient: State, power: int = 1) -> State:
        """Coarse -> fine, for gradients or their squares (power 2) in the memory of optimizers.

        `P D^-power`, where D contains the sums of the columns of P: the fine unknowns of a coarse
        unknown share its gradient.
        """
        columns = self.restrict(self.prolong(0.0 * gradient + 1.0))  # the rows of P sum to 1
        return self.prolong(gradient / columns**power)

    def correct(self, state: State, correction: State) -> State:
        """`state + prolong(correction)`; classes that can add in one pass override this method."""
        fine = self.prolong(correction)
        if unfit(fine, state):  # a single entry or a column would be broadcast
            refuse_result(type(self).__name__, "a prolong", fine, vector.describe(state))
        return state + fine


@dataclass(frozen=True, eq=False)
class MatrixTransfer(Transfer):
    """Transfer by matrices on flat states.

    Parameters
    ----------
    P : matrix of shape (fine, coarse)
        Prolongation: a matrix of SciPy, NumPy, torch or PETSc, or a SciPy LinearOperator.
    R : matrix of shape (coarse, fine), optional
        Restriction; the transpose of `P` by default (required when `P` is a function).
    injection : matrix of shape (coarse, fine), optional
        Restriction of solutions; without it the coarse level solves for the correction.
    interpolation : matrix of shape (fine, coarse), optional
        Interpolation of solutions in nested iteration; `P` by default.

    Examples
    --------
    >>> import numpy as np
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
        return transposed(self.P) if self.R is None else self.R

    def prolong(self, correction: State) -> State:
        return vector.apply(self.P, correction)

    def restrict(self, residual: State) -> State:
        return vector.apply(self._restriction, residual)

    def correct(self, state: State, correction: State) -> State:
        if vector.is_mat(self.P) and vector.is_vec(state):
            return mats.multiply_add(self.P, correction, state)
        if kernels.is_csr(self.P):
            return kernels.multiply_add(self.P, correction, state.copy())
        return vector.in_precision_of(state, super().correct(state, correction))

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
        return "MatrixTransfer"


@dataclass(frozen=True, eq=False)
class AxisTransfer(Transfer):
    """Transfer by one matrix on one axis of an array, or by one matrix on each of several axes.

    Parameters
    ----------
    P : matrix of shape (fine, coarse), or tuple of such matrices
        Matrices of SciPy or NumPy for NumPy states, and dense or COO tensors for torch states.
    axis : int or tuple of int, not negative
        The axis of the state on which each matrix acts: 0 for the layers of an ODE net, 1 for the
        knots in the coefficients (inputs, splines, outputs) of a KAN.
    R, injection, interpolation : matrix or tuple of matrices, optional
        The same matrices as for `MatrixTransfer`, one per axis.
    gradients : dense matrix of shape (fine, coarse), optional
        Matrix for `carry_gradient` on one axis instead of `P D^-1`; its transpose should undo P.

    Raises
    ------
    ValueError
        If the axes are negative or their number is not that of the matrices.

    Examples
    --------
    >>> import numpy as np
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
    gradients: Any = None

    def __post_init__(self) -> None:
        axes = self.axis if isinstance(self.axis, tuple | list) else (self.axis,)
        count = len(self.P) if isinstance(self.P, tuple) else 1
        if not all(map(is_whole, axes)) or not axes or count != len(axes):
            got = f"AxisTransfer got axis {shown(self.axis)} and {count} matrices"
            raise ValueError(f"{got}; give one matrix per axis, axes counted from 0")

    def _on_axes(self, matrices: Any) -> Iterable[tuple[Any, int]]:
        one = not isinstance(self.axis, tuple | list)
        return [(matrices, self.axis)] if one else zip(matrices, self.axis, strict=True)  # type: ignore

    def _along_axes(self, matrices: Any, u: State) -> State:
        for matrix, axis in self._on_axes(matrices):
            u = _along_axis(matrix, axis, u)
        return u

    @cached_property
    def _restriction(self) -> Any:
        if self.R is not None:
            return self.R
        one = isinstance(self.axis, int)
        return transposed(self.P) if one else tuple(transposed(P) for P in self.P)

    def prolong(self, correction: State) -> State:
        return self._along_axes(self.P, correction)

    def restrict(self, residual: State) -> State:
        return self._along_axes(self._restriction, residual)

    def interpolate(self, state: State) -> State:
        return self._along_axes(self.P if self.interpolation is None else self.interpolation, state)

    def carry_gradient(self, gradient: State, power: int = 1) -> State:
        if self.gradients is None:
            return super().carry_gradient(gradient, power)
        return self._along_axes(self.gradients**power, gradient)

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
        for P, axis in self._on_axes(self.P):
            shape[axis] = P.shape[0]
        return tuple(shape)

    def __str__(self) -> str:
        return f"AxisTransfer on axis {self.axis}"


def _along_axis(matrix: Any, axis: int, u: State) -> State:
    shape = tuple(u.shape)
    if axis >= len(shape) or shape[axis] != matrix.shape[1]:
        raise ValueError(
            f"AxisTransfer got a state of shape {shape}; axis {axis} must have length "
            f"{matrix.shape[1]} (check that the state belongs to this level)"
        )
    before = math.prod(shape[:axis])
    # Sparse matrices multiply matrices only, so the axis moves to the front; `swapaxes` exists in
    # NumPy and torch.
    columns = u.reshape(before, shape[axis], -1).swapaxes(0, 1)
    width = math.prod(columns.shape[1:])
    result = matrix @ columns.reshape(shape[axis], width)
    result = result.reshape(matrix.shape[0], *columns.shape[1:]).swapaxes(0, 1)
    return result.reshape(*shape[:axis], matrix.shape[0], *shape[axis + 1 :])


@dataclass(frozen=True, eq=False)
class PackedTransfer(Transfer):
    """Transfer of several arrays packed into one flat state, such as the parameters of a network.

    Parameters
    ----------
    parts : tuple of (shape, transfer)
        In the order of packing: the shape of the array on the coarse level and its `AxisTransfer`,
        or None for an array that is the same on both levels.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import interpolation_matrix
    >>> P = interpolation_matrix(2, boundary="open")
    >>> transfer = PackedTransfer((((2,), AxisTransfer(P)), ((1,), None)))
    >>> transfer.prolong(np.array([0.0, 2.0, 7.0]))
    array([0., 1., 2., 7.])
    """

    parts: tuple[tuple[tuple[int, ...], AxisTransfer | None], ...]

    def _each(self, method: str, u: State, *more: Any) -> State:
        shapes = [shape for shape, _ in self.parts]
        if method in ("restrict", "inject"):
            shapes = [part.fine_shape(shape) if part else shape for shape, part in self.parts]
        expected = sum(math.prod(shape) for shape in shapes)
        if len(u) != expected:
            raise ValueError(
                f"PackedTransfer.{method} got a state of {len(u)} entries; its parts hold "
                f"{expected}: give the coarse shapes of all packed arrays, in order"
            )
        results, position = [], 0
        for shape, (_, transfer) in zip(shapes, self.parts, strict=True):
            size = math.prod(shape)
            part = u[position : position + size].reshape(shape)
            results.append(part if transfer is None else getattr(transfer, method)(part, *more))
            position += size
        return vector.concatenate(results)

    def prolong(self, correction: State) -> State:
        return self._each("prolong", correction)

    def restrict(self, residual: State) -> State:
        return self._each("restrict", residual)

    def interpolate(self, state: State) -> State:
        return self._each("interpolate", state)

    def carry_gradient(self, gradient: State, power: int = 1) -> State:
        return self._each("carry_gradient", gradient, power)

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
    """The transfer of MGRIT to the C-layers, every `factor`-th entry of axis 0.

    `inject` and `restrict` select the C-points; `prolong` puts a correction there and zeros
    elsewhere, for F-relaxation. Source: Falgout et al., SIAM J. Sci. Comput. 36 (2014), section 2.

    Parameters
    ----------
    size, factor : int
        Length of axis 0 on the fine level, and coarsening factor, at least 2.

    Raises
    ------
    ValueError
        If size or factor is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> transfer = Injection(size=5, factor=2)
    >>> transfer.inject(np.arange(5.0)), transfer.prolong(np.array([1.0, 2.0, 3.0]))
    (array([0., 2., 4.]), array([1., 0., 2., 0., 3.]))
    """

    size: int
    factor: int = 2

    def __post_init__(self) -> None:
        if not is_whole(self.size, 1) or not is_whole(self.factor, 2):
            got = f"Injection got size {shown(self.size)} and factor {shown(self.factor)}"
            raise ValueError(f"{got}; give integers, the size at least 1, the factor at least 2")

    def _check(self, state: State, length: int) -> None:
        if len(state) != length:
            got = f"Injection(size={self.size}, factor={self.factor}) got a state of {len(state)}"
            raise ValueError(f"{got} entries on axis 0; it must have {length}")

    def inject(self, state: State) -> State:  # type: ignore[override]
        self._check(state, self.size)
        return state[:: self.factor]

    def restrict(self, residual: State) -> State:
        return self.inject(residual)

    def prolong(self, correction: State) -> State:
        self._check(correction, -(-self.size // self.factor))
        fine = vector.zeros_like(correction, (self.size, *correction.shape[1:]))
        fine[:: self.factor] = correction
        return fine
