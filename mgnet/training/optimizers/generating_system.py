"""All levels of one parameter in one array, u = sum_l P_l v_l, and their transfers."""

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

# From the next coarser level to a parameter, then from the level below that one.
Transfers = Sequence[AxisTransfer]
LEAST = 4  # intervals or layers; smaller numbers are not coarsened
DENSE = 2**20  # entries; on an accelerator a dense product of this size is faster than a sparse one


def coarser_sizes(size: int, levels: int | None = None) -> list[int]:
    """The numbers of intervals or layers on a level and on its coarser levels.

    From level to level the number is halved, or divided by three if it is odd, until it is at most
    4 or the requested number of levels is reached.

    Parameters
    ----------
    size : int
        Number of intervals or layers on the finest level.
    levels : int, optional
        Largest number of levels, including the finest.

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
    """The levels of a parameter, concatenated along an axis that comes first.

    The gradient with respect to v_l is the gradient with respect to u, restricted by the transpose
    of P_l. The matrices of all levels form one matrix, `W = [P_1, P_2, ...]` with products of the
    transfers. For splines this matrix has degree + 1 entries per row and level. One sparse product
    restricts and another prolongs; with fewer than thousands of intervals, a chain of products
    would not be faster. Source: M. Griebel, Multilevel algorithms considered as iterative methods
    on semidefinite systems, SIAM J. Sci. Comput. 15 (1994) 547-565.

    Parameters
    ----------
    shape : sequence of int
        Shape of the parameter.
    transfers : sequence of AxisTransfer
        At least one transfer; all must act on the same axis.

    Attributes
    ----------
    transfers : tuple of AxisTransfer
        Transfers from the finest to the coarsest level.
    axis : int
        Axis of the transfers.
    sizes : tuple of int
        Length of the axis on every level, that of the parameter first.
    packed_shape : tuple of int
        Shape of the array with all levels.

    Raises
    ------
    TypeError, ValueError
        If the transfers do not form a chain on one axis of the parameter.

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
        """The finest level in the parameter's shape; the finest and the coarser ones as columns."""
        fine, coarse = packed.view(len(packed), -1).split([self.sizes[0], sum(self.sizes[1:])])
        return self.as_parameter(fine), fine, coarse

    def as_parameter(self, columns: torch.Tensor) -> torch.Tensor:
        """Columns of the finest level in the shape of the parameter."""
        return columns.view(-1, *self.packed_shape[1:]).movedim(0, self.axis)

    def matrices(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """W and its transpose, with the precision and device of u."""
        dense = u.device.type != "cpu" and math.prod(self._W.shape) <= DENSE
        W, T = (_as_torch(each, dense).to(u) for each in (self._W, self._W.T.tocsr()))
        return W, T


class PackedLevels:
    """The arrays of a generating system for one parameter: gradients and steps of all levels.

    Parameters
    ----------
    system : GeneratingSystem
        Levels of the parameter.
    like : tensor
        Tensor that gives precision and device.

    Attributes
    ----------
    steps : torch.nn.Parameter of shape `system.packed_shape`
        Parameter that the optimizer changes.
    gradient : tensor of that shape
        Gradients of all levels.

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
        # Views are created once, since each takes as long as a small product.
        self._zero = self.steps.detach()
        self._down, self._up = system.views(self.gradient), system.views(self._zero)

    def fits(self, u: torch.Tensor) -> bool:
        """Whether a parameter has this precision and device."""
        return u.dtype == self.gradient.dtype and u.device == self.gradient.device

    def restrict(self, gradient: torch.Tensor) -> torch.Tensor:
        """Compute the gradients of all levels from the gradient of the parameter."""
        whole, fine, coarse = self._down
        whole.copy_(gradient)
        exact = lift(fine)
        if exact is fine:
            torch.mm(self._T, fine, out=coarse)
        else:
            coarse.copy_(self._T @ exact)
        return self.gradient

    def move(self, u: torch.Tensor) -> None:
        """Add the prolonged steps of all levels to a parameter, and set them to zero."""
        whole, fine, coarse = self._up
        exact = lift(fine)
        if exact is fine:
            fine.addmm_(self._W, coarse)
            u.add_(whole)
        else:  # rounded once instead of on every level
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
    """The axis on which all transfers act."""
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
    with warnings.catch_warnings():  # PyTorch says that such tensors are in beta and unchecked
        warnings.filterwarnings("ignore", message="Sparse")
        return torch.sparse_csr_tensor(*parts, size=matrix.shape, check_invariants=True)
