"""Arguments of a block besides its state, such as masks, rotary caches, or an encoder's states.

In `Layers`, side inputs that require a gradient are parameters, and all other tensors are buffers.
Each is the same for all layers of a call, or has one row per layer. Numbers and strings count as
part of the block.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.scheme import version_of
from mgnet.limits import shown

__all__ = ["SideBlock", "SideInputs", "check_side_inputs"]

PLAIN = bool, int, float, str, type(None), torch.dtype, torch.device
LEARNED, FIXED = "learned", "fixed"


@dataclass(frozen=True)
class SideInputs:
    """Side inputs of one call, divided into tensors and plain values.

    Attributes
    ----------
    key : object
        An object that is equal for calls with the same names, structure and plain values.
    spec : TreeSpec
        The structure of the side inputs.
    kinds : tuple
        Kind of each leaf: LEARNED, FIXED or, in a tuple, a plain value.
    learned, fixed : tuple of Tensor
        Tensors with and without gradients.
    learned_rows, fixed_rows : tuple of bool
        Whether each tensor has a row for each layer.

    Examples
    --------
    >>> side = SideInputs.of({"mask": torch.ones(2), "scale": 3.0})
    >>> side.fixed, side.rebuilt((), [torch.zeros(2)])
    ((tensor([1., 1.]),), {'mask': tensor([0., 0.]), 'scale': 3.0})
    """

    key: Any
    spec: TreeSpec
    kinds: tuple[Any, ...]
    learned: tuple[Tensor, ...]
    fixed: tuple[Tensor, ...]
    learned_rows: tuple[bool, ...] = ()
    fixed_rows: tuple[bool, ...] = ()

    @classmethod
    def of(cls, side: Mapping[str, Any], layered: Sequence[str] = ()) -> SideInputs:
        """Divide the checked keywords of a call; those in `layered` have a row for each layer."""
        names = sorted(side)
        leaves, spec = tree_flatten({name: side[name] for name in names})
        rows = [name in layered for name in names for _ in tree_leaves(side[name])]
        kinds: list[Any] = []
        found: dict[str, list[tuple[Tensor, bool]]] = {LEARNED: [], FIXED: []}
        for leaf, has_rows in zip(leaves, rows, strict=True):
            if not isinstance(leaf, Tensor):
                kinds.append((type(leaf), leaf))
                continue
            kinds.append(LEARNED if leaf.requires_grad else FIXED)
            found[kinds[-1]].append((leaf, has_rows))
        learned, fixed = (tuple(zip(*found[kind], strict=True)) or ((), ()) for kind in found)
        key = repr(spec), tuple(kinds)
        return cls(key, spec, tuple(kinds), learned[0], fixed[0], learned[1], fixed[1])

    def rebuilt(self, learned: Sequence[Tensor], fixed: Sequence[Tensor]) -> dict[str, Any]:
        """The keywords, with these tensors."""
        rest = {LEARNED: iter(learned), FIXED: iter(fixed)}
        leaves = [next(rest[kind]) if kind in rest else kind[1] for kind in self.kinds]
        return tree_unflatten(leaves, self.spec)


class SideBlock(StackedBlock):
    """A block with side inputs, which follow the block's own parameters and buffers in `Layers`.

    Parameters
    ----------
    block : StackedBlock
        The block.
    side : SideInputs
        The side inputs of a call; their tensors are not stored.

    Examples
    --------
    >>> from mgnet.depth import Layers
    >>> class Scaled(nn.Module):
    ...     def forward(self, u, scale=1.0):
    ...         return u * scale
    >>> scale = torch.full((1,), 3.0)
    >>> block = SideBlock(StackedBlock(Scaled()), SideInputs.of({"scale": scale}))
    >>> layers = Layers((), (scale.expand(2, 1),), *torch.ones(2, 2))
    >>> block.slope(layers, torch.ones(2, 1, 1)).ravel()
    tensor([3., 3.])
    """

    def __init__(self, block: StackedBlock, side: SideInputs):
        self.block = block
        self.rebuilt = SideInputs(side.key, side.spec, side.kinds, (), ()).rebuilt
        self.template = block.template
        self.scheme = block.scheme
        self.traced = block.traced
        self.takes_time = block.takes_time
        self.names = *block.names, *[f"side input {n}" for n in range(len(side.learned))]
        fixed = [f"fixed side input {n}" for n in range(len(side.fixed))]
        self.buffer_names = *block.buffer_names, *fixed
        self.stages = block.stages
        self.draws, self.fixed = block.draws, block.fixed
        self.has_state, self.own_buffers = block.has_state, block.own_buffers
        self._start()

    @property
    def evaluations(self) -> int:
        """The total count of the block, including its calls without side inputs."""
        return self.block.evaluations

    @evaluations.setter
    def evaluations(self, count: int) -> None:
        self.block.evaluations = count

    @property
    def vjps(self) -> int:
        """The total count of the block, including its calls without side inputs."""
        return self.block.vjps

    @vjps.setter
    def vjps(self, count: int) -> None:
        self.block.vjps = count

    def evaluate(
        self,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        time: Tensor,
        step: Tensor,
        state: Tensor,
    ) -> tuple[Tensor, list[Tensor]]:
        """The slope of one layer, and its new buffers; side inputs remain unchanged.

        Raises
        ------
        ValueError
            If the block edits a side input.
        """
        learned, kept = len(self.block.names), len(self.block.buffer_names)
        rest = parameters[learned:], buffers[kept:]
        own, given = (parameters[:learned], buffers[:kept]), [*rest[0], *rest[1]]
        versions = [version_of(x) for x in given]
        value, new = self.block.evaluate(*own, time, step, state, self.rebuilt(*rest))
        if [version_of(x) for x in given] != versions:
            raise ValueError(
                f"{type(self.template).__name__} edits a side input in place, which all layers "
                "get unchanged; use mask + 1 for mask += 1"
            )
        return value, [*new, *rest[1]]


def check_side_inputs(owner: str, block: nn.Module, side: Mapping[str, Any]) -> None:
    """Raise an error unless the block accepts these keywords, and they are tensors or plain values.

    Raises
    ------
    TypeError
        If the block has no such argument, or a value has an unsupported type.

    Examples
    --------
    >>> check_side_inputs("ODENet", nn.Linear(1, 1), {"mask": torch.ones(1)})
    Traceback (most recent call last):
    TypeError: ODENet got the side input mask, which Linear.forward does not take: its arguments \
are (input: torch.Tensor) -> torch.Tensor; give the block an argument mask=None
    """
    if not side:
        return
    module, signature = _called(block)
    names = signature.parameters
    if not any(each.kind is each.VAR_KEYWORD for each in names.values()):
        kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
        known = {n for n, p in names.items() if p.kind in kinds and p.default is not p.empty}
        for name in side:
            if name not in known:
                raise TypeError(
                    f"{owner} got the side input {name}, which {type(module).__name__}.forward "
                    f"does not take: its arguments are {signature}; give the block an argument "
                    f"{name}=None"
                )
    for name, value in side.items():
        for leaf in tree_flatten(value)[0]:
            if not isinstance(leaf, (Tensor, *PLAIN)):
                told = "; use torch.from_numpy" if isinstance(leaf, np.ndarray) else ""
                raise TypeError(
                    f"{owner} got the side input {name} with {shown(leaf)}; give tensors and plain "
                    f"values, also in tuples, lists and dictionaries{told}"
                )


def _called(block: nn.Module) -> tuple[nn.Module, inspect.Signature]:
    """The module that uses the keywords; a module that only passes them on is skipped."""
    signature = inspect.signature(block.forward)
    inner = getattr(block, "block", None)
    hands_on = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    if hands_on and isinstance(inner, nn.Module):
        return _called(inner)
    return block, signature
