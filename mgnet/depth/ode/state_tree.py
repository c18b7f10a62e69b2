"""States that are tuples, lists or dictionaries of tensors, as one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from mgnet.limits import shown

__all__ = ["StateTree"]

PRECISIONS = torch.float32, torch.float64


@dataclass(frozen=True)
class StateTree:
    """The layout of the tensors of a state in one tensor.

    A single tensor with at least one axis remains unchanged. Tensors of shape (batch, ..., n) that
    differ only in n are concatenated on the last axis, so samples remain rows; other tensors form
    one vector.

    Attributes
    ----------
    spec : TreeSpec
        The structure of the state.
    shapes : tuple of tuple of int
        Shapes of the tensors.
    side_by_side : bool
        Whether the tensors are concatenated on the last axis.

    Examples
    --------
    >>> state = torch.ones(5, 2), torch.zeros(5, 1)
    >>> tree = StateTree.of(state)
    >>> packed = tree.pack(state)
    >>> packed.shape, [part.shape for part in tree.unpack(packed)]
    (torch.Size([5, 3]), [torch.Size([5, 2]), torch.Size([5, 1])])
    """

    spec: TreeSpec
    shapes: tuple[tuple[int, ...], ...]
    side_by_side: bool

    @classmethod
    def of(cls, y0: Any) -> StateTree:
        """Create the layout for states like this one.

        Raises
        ------
        TypeError, ValueError
            If they are not tensors with the same real precision and device.
        """
        leaves, spec = tree_flatten(y0)
        _check(leaves)
        shapes = tuple([tuple(x.shape) for x in leaves])
        rows = {shape[:-1] for shape in shapes}
        alone = len(shapes) == 1 and len(shapes[0]) > 0
        return cls(spec, shapes, alone or (len(rows) == 1 and len(shapes[0]) > 1))

    @property
    def is_tensor(self) -> bool:
        """Whether a state is one tensor with at least one axis."""
        return self.spec.is_leaf() and self.side_by_side

    def pack(self, state: Any) -> Tensor:
        """Combine the tensors of a state with this layout into one tensor."""
        leaves = tree_flatten(state)[0]
        if self.is_tensor:
            return leaves[0]
        if self.side_by_side:
            return torch.cat(leaves, -1)
        return torch.cat([x.reshape(-1) for x in leaves])

    def unpack(self, packed: Tensor) -> Any:
        """Restore the state, or states whose additional axes come first."""
        if self.is_tensor:
            return tree_unflatten([packed], self.spec)
        if self.side_by_side:
            parts = packed.split([shape[-1] for shape in self.shapes], -1)
            return tree_unflatten(list(parts), self.spec)
        parts = packed.split([prod(shape) for shape in self.shapes], -1)
        lead = packed.shape[:-1]
        rows = zip(parts, self.shapes, strict=True)
        return tree_unflatten([x.reshape((*lead, *shape)) for x, shape in rows], self.spec)

    def check_slope(self, value: Any) -> None:
        """Raise an error unless a right-hand side returned this layout.

        Raises
        ------
        TypeError, ValueError
            If the structure or a shape differs.
        """
        leaves, spec = tree_flatten(value)
        if spec != self.spec or not all(isinstance(x, Tensor) for x in leaves):
            given = "a tensor" if self.spec.is_leaf() else f"{len(self.shapes)} tensors"
            raise TypeError(
                f"odeint got a func whose value is {shown(value)}; for a state of {given} it must "
                "give dy/dt in the same structure, as tensors"
            )
        for x, shape in zip(leaves, self.shapes, strict=True):
            if tuple(x.shape) != shape:
                raise ValueError(
                    f"odeint got a func that gives a tensor of shape {tuple(x.shape)} for a state "
                    f"of shape {shape}; dy/dt must have the shape of y"
                )


def _check(leaves: Sequence[Any]) -> None:
    if not leaves or not all(isinstance(x, Tensor) for x in leaves):
        other = next((x for x in leaves if not isinstance(x, Tensor)), ())
        raise TypeError(
            f"odeint got y0 with {shown(other)}; give a tensor, or a tuple, list or dictionary of "
            "tensors"
        )
    first = leaves[0]
    for x in leaves:
        if x.dtype not in PRECISIONS:
            raise TypeError(
                f"odeint got y0 of {x.dtype}; give float32 or float64 (complex numbers as "
                "torch.view_as_real(y0), integers as y0.float())"
            )
        if x.dtype != first.dtype or x.device != first.device:
            raise TypeError(
                f"odeint got y0 of {first.dtype} on {first.device} and {x.dtype} on {x.device}; "
                "give all of its tensors one precision and one device"
            )
        if not x.numel():
            raise ValueError(
                f"odeint got y0 with a tensor of shape {tuple(x.shape)}, which has no numbers; "
                "leave it out"
            )
