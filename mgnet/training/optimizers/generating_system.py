"""All levels of one parameter in one array: u = sum_l P_l v_l, and the way down and up."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from mgnet.training.loss.parameters import lift
from mgnet.transfer import AxisTransfer

__all__ = ["GeneratingSystem", "PackedLevels", "Transfers", "coarser_sizes", "sparse"]

Transfers = Sequence[AxisTransfer]  # to a parameter from a coarser level, to that from the next
LEAST = 4  # intervals or layers: what has no more is not made coarser
DENSE = 2**20  # entries; an accelerator multiplies that many faster than it looks up a few


def coarser_sizes(size: int, levels: int | None = None) -> list[int]:
    """A number of intervals or layers and those of its coarser levels.

    Halves, or thirds where there are no halves; down to 4 or fewer, or to as many levels as asked.

    Parameters
    ----------
    size : int
    levels : int, optional
        The most levels, `size` included.

    Examples
    --------
    >>> coarser_sizes(48), coarser_sizes(48, 3), coarser_sizes(4, 2), coarser_sizes(5)
    ([48, 24, 12, 6, 3], [48, 24, 12], [4, 2], [5])
    """
    sizes = [size]
    while (size > LEAST) if levels is None else (size > 1 and len(sizes) < levels):
        factor = next((factor for factor in (2, 3) if size % factor == 0), None)
        if factor is None:
            break
        size //= factor
        sizes.append(size)
    return sizes


class GeneratingSystem:
    """The levels of a parameter, packed one behind the other on an axis that comes first.

    The gradient of v_l is that of u, restricted by the transpose of P_l. The matrices of all levels
    are one, `W = [P_1, P_2, ...]` with the chains multiplied out: degree + 1 entries per row and
    level for splines, so one sparse product goes down and another one up, and a chain of products
    would save nothing below thousands of intervals. Source: M. Griebel, Multilevel algorithms
    considered as iterative methods on semidefinite systems, SIAM J. Sci. Comput. 15 (1994) 547-565.

    Parameters
    ----------
    shape : sequence of int
        Of the parameter.
    transfers : sequence of AxisTransfer
        At least one; all on the same axis.

    Attributes
    ----------
    transfers : tuple of AxisTransfer
    axis : int
    sizes : tuple of int
        Of the axis on every level, the parameter's first.
    packed_shape : tuple of int
        Of all levels.

    Raises
    ------
    TypeError, ValueError
        If the transfers are no chain on one axis of the parameter.

    Examples
    --------
    >>> P = AxisTransfer(np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]), axis=0)
    >>> GeneratingSystem((3,), [P]).sizes
    (3, 2)
    """

    def __init__(self, shape: Sequence[int], transfers: Transfers):
        self.shape = tuple(shape)
        self.transfers = tuple(transfers)
        self.axis = _axis(transfers)
        length = self.shape[self.axis] if self.axis < len(self.shape) else None
        self.sizes: tuple[int, ...] = (length or 0,)
        product: Any = sp.identity(length or 0, format="csr")
        levels = []
        for transfer in transfers:
            P: Any = _as_csr(transfer.P)
            if P.shape[0] != self.sizes[-1]:
                raise ValueError(
                    f"MultilevelGradient got a parameter of shape {self.shape} and a transfer of "
                    f"shape {P.shape} to the {self.sizes[-1]} entries of a level on axis "
                    f"{self.axis}; give the transfers from the finest to the coarsest"
                )
            self.sizes += (P.shape[1],)
            product = product @ P
            levels.append(product)
        self._W: Any = sp.hstack(levels, format="csr")
        others = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        self.packed_shape = (sum(self.sizes), *others)
        self._parts = [self.sizes[0], sum(self.sizes[1:])]

    def views(self, packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The finest level in the shape of the parameter; it and the others as columns."""
        fine, coarse = packed.view(len(packed), -1).split([self.sizes[0], sum(self.sizes[1:])])
        return self.as_parameter(fine), fine, coarse

    def as_parameter(self, columns: torch.Tensor) -> torch.Tensor:
        """Columns of the finest level in the shape of the parameter."""
        return columns.view(-1, *self.packed_shape[1:]).movedim(0, self.axis)

    def matrices(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """W and its transpose, in the precision and on the device of u."""
        dense = u.device.type != "cpu" and math.prod(self._W.shape) <= DENSE
        W, T = (_as_torch(each, dense).to(u) for each in (self._W, self._W.T.tocsr()))
        return W, T


class PackedLevels:
    """The arrays of a generating system for one parameter: gradients and steps of all levels.

    Parameters
    ----------
    system : GeneratingSystem
    like : tensor
        Gives precision and device.

    Attributes
    ----------
    steps : torch.nn.Parameter of shape `system.packed_shape`
        What an optimizer moves.
    gradient : tensor of that shape

    Examples
    --------
    >>> P = AxisTransfer(np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]), axis=0)
    >>> u = torch.zeros(3)
    >>> levels = PackedLevels(GeneratingSystem((3,), [P]), u)
    >>> levels.restrict(torch.tensor([1.0, 2.0, 3.0])).tolist()
    [1.0, 2.0, 3.0, 2.0, 4.0]
    >>> _ = levels.steps.data.copy_(torch.tensor([0.0, 0.0, 1.0, 2.0, 4.0]))
    >>> levels.move(u)
    >>> u.tolist(), levels.steps.tolist()
    ([2.0, 3.0, 5.0], [0.0, 0.0, 0.0, 0.0, 0.0])
    """

    def __init__(self, system: GeneratingSystem, like: torch.Tensor):
        self.system = system
        self.gradient = like.detach().new_zeros(system.packed_shape)
        self.steps = torch.nn.Parameter(torch.zeros_like(self.gradient))
        self._W, self._T = system.matrices(lift(self.gradient))
        # Views, made once: each takes as long as a small product.
        self._zero = self.steps.detach()
        self._down, self._up = system.views(self.gradient), system.views(self._zero)

    def fits(self, u: torch.Tensor) -> bool:
        """Whether a parameter has this precision and this device."""
        return u.dtype == self.gradient.dtype and u.device == self.gradient.device

    def restrict(self, gradient: torch.Tensor) -> torch.Tensor:
        """The gradients of all levels from that of the parameter."""
        whole, fine, coarse = self._down
        whole.copy_(gradient)
        exact = lift(fine)
        if exact is fine:
            torch.mm(self._T, fine, out=coarse)
        else:
            coarse.copy_(self._T @ exact)
        return self.gradient

    def move(self, u: torch.Tensor) -> None:
        """Add the prolonged steps of all levels to a parameter, and make them zero."""
        whole, fine, coarse = self._up
        exact = lift(fine)
        if exact is fine:
            fine.addmm_(self._W, coarse)
            u.add_(whole)
        else:  # rounded once, not on every level
            total = torch.addmm(exact, self._W, lift(coarse))
            u.copy_(lift(u) + self.system.as_parameter(total))
        self._zero.zero_()


def sparse(P: Any) -> torch.Tensor:
    """A matrix of any kind as a sparse tensor with coordinates, in float64.

    Examples
    --------
    >>> sparse(np.eye(2)).layout
    torch.sparse_coo
    """
    matrix: Any = _as_csr(P).tocoo()
    places = torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
    return torch.sparse_coo_tensor(
        places, torch.from_numpy(matrix.data), matrix.shape, check_invariants=True
    ).coalesce()


def _axis(transfers: Sequence[Any]) -> int:
    """The one on which all act."""
    for transfer in transfers:
        plain = isinstance(transfer, AxisTransfer) and isinstance(transfer.axis, int)
        if not plain or not transfer.adjoint:
            raise TypeError(
                f"MultilevelGradient got {transfer} between the levels of a parameter; give "
                "AxisTransfers on one axis whose restriction is the transpose of P"
            )
    axes = {transfer.axis for transfer in transfers}
    if len(axes) != 1:
        raise ValueError(
            f"MultilevelGradient got {len(transfers)} transfers of a parameter on the axes "
            f"{sorted(axes)}; give at least one, and all on the same axis"
        )
    return axes.pop()


def _as_csr(P: Any) -> sp.csr_matrix:
    if isinstance(P, torch.Tensor):
        P = P.detach().to_dense().cpu().double().numpy()
    elif not sp.issparse(P) and hasattr(P, "toarray"):
        P = P.toarray()
    return sp.csr_matrix(P, dtype=np.float64)


def _as_torch(matrix: sp.csr_matrix, dense: bool) -> torch.Tensor:
    if dense:
        return torch.from_numpy(matrix.toarray())
    matrix.sort_indices()
    parts = [torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data)]
    with warnings.catch_warnings():  # that such tensors are in beta state, and are not checked
        warnings.filterwarnings("ignore", message="Sparse")
        return torch.sparse_csr_tensor(*parts, size=matrix.shape, check_invariants=True)
