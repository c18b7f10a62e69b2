"""The data of the compiled loops for a pass: memory, and parameters from the layers' tensors."""

from __future__ import annotations

from collections.abc import Sequence
from threading import RLock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgnet.depth.batched.graphs import extract, results
from mgnet.depth.batched.layers import is_joint
from mgnet.depth.compiled.layer_code import LayerCode

__all__ = ["Memory", "Prepared", "forget"]

MOST = 2**26  # largest size in bytes of memory kept for later passes
_waiting: list[Tensor] = []
aten = torch.ops.aten


def forget() -> None:
    """Free the memory kept for later passes.

    Examples
    --------
    >>> memory = Memory(8, torch.float32)
    >>> del memory
    >>> forget()
    >>> len(_waiting)
    0
    """
    _waiting.clear()


class Memory:
    """An array for one pass; memory that is no longer used is kept for a pass of the same size.

    Allocating new memory takes longer than the computations of small layers.

    Parameters
    ----------
    size : int
        Number of entries.
    dtype : torch.dtype
        Precision.

    Attributes
    ----------
    lock : RLock
        Lock that a thread holds while it writes adjoints, in case several threads share a graph.

    Examples
    --------
    >>> memory = Memory(8, torch.float32)
    >>> place = memory.numbers.data_ptr()
    >>> del memory
    >>> Memory(8, torch.float32).numbers.data_ptr() == place
    True
    """

    def __init__(self, size: int, dtype: torch.dtype):
        self.numbers, self.lock = _taken(size, dtype), RLock()

    def __del__(self) -> None:
        _waiting.append(self.numbers)
        while sum(x.nbytes for x in list(_waiting)) > MOST:
            try:
                _waiting.pop(0)
            except IndexError:  # another thread was faster
                return


def _taken(size: int, dtype: torch.dtype) -> Tensor:
    for k in range(len(_waiting) - 1, -1, -1):
        try:
            found = _waiting.pop(k)
        except IndexError:  # another thread was faster
            continue
        if len(found) == size and found.dtype == dtype:
            return found
        _waiting.insert(k, found)
    with torch.inference_mode(False):
        return torch.empty(size, dtype=dtype, device="cpu")


class Prepared:
    """The parameters of the loops, computed from the tensors of the layers.

    Parameters
    ----------
    code : LayerCode
        The operations.

    Attributes
    ----------
    slots : list of int
        Numbers of the parameters that follow the step; a matrix also occupies the next number.
    """

    def __init__(self, code: LayerCode):
        graph = code.prepared.graph
        inputs = graph.find_nodes(op="placeholder")
        self.shapes = code.shapes
        self.nodes = results(graph)
        self.slots, at = [], 1
        while at < len(code.shapes):
            self.slots.append(at)
            at += len(code.shapes[at])
        index = {node: k for k, node in enumerate(inputs)}
        self.needs: list[set[int]] = []
        self.direct: list[tuple[int, bool] | None] = []
        for node in self.nodes:
            turned = node.target is aten.t.default
            source = node.args[0] if turned else node
            self.direct.append((index[source], turned) if source in index else None)
            left, seen = [node], set()
            while left:
                each = left.pop()
                if each not in seen:
                    seen.add(each)
                    left += each.all_input_nodes
            self.needs.append({index[each] for each in seen if each in index})
        self.mapped = [
            None if direct else torch.vmap(extract(code.prepared, inputs, node))
            for node, direct in zip(self.nodes, self.direct, strict=True)
        ]

    def values(self, tensors: Sequence[Tensor], whole: bool) -> list[Tensor]:
        """Values of shape (layers, ...) or, if shared by all layers and not `whole`, (1, ...)."""
        rows, count = [x[:1] if is_joint(x) and not whole else x for x in tensors], len(tensors[-1])
        found = []
        for needs, direct, mapped in zip(self.needs, self.direct, self.mapped, strict=True):
            same = all(len(rows[k]) == 1 for k in needs)
            if direct is not None:
                k, turned = direct
                found.append(rows[k].mT if turned else rows[k])
            elif mapped is not None:
                given = [x[:1] if same else x.expand(count, *x.shape[1:]) for x in rows]
                found.append(mapped(*given))
        return found

    def keeps_apart(self, parameters: int) -> bool:
        """Whether all parameters that depend on the first tensors depend on no other tensors."""
        own = set(range(parameters))
        made, given = self.needs[: len(self.slots)], self.needs[len(self.slots) :]
        return all(needs <= own or not needs & own for needs in made) and not any(
            needs & own for needs in given
        )

    def shaped(self, tensors: Sequence[Tensor], whole: bool) -> tuple[list[Tensor], list[Tensor]]:
        """The parameters in the format of the loops, and the given values."""
        values = self.values(tensors, whole)
        parameters, given = values[: len(self.slots)], values[len(self.slots) :]
        for k, slot in enumerate(self.slots):
            shape = self.shapes[slot]
            if len(shape) == 1:  # one number may represent all rows of a vector
                rows = parameters[k].reshape(len(parameters[k]), -1)
                parameters[k] = rows.expand(len(rows), *shape)
        return parameters, given

    def packed(self, steps: Tensor, values: Sequence[Tensor]) -> tuple[Memory, np.ndarray]:
        """Steps and parameters in one array, with the start and stride of each."""
        parts: list[Tensor] = [steps[:1] if is_joint(steps) else steps]
        for value in values:
            parts += [value, value.mT] if value.dim() == 3 else [value]
        at, end = np.zeros((len(parts), 2), np.int64), 0
        for k, part in enumerate(parts):
            at[k] = end, part[0].numel() if len(part) > 1 else 0
            end += part.numel()
        memory = Memory(end, steps.dtype)
        for (first, _), part in zip(at, parts, strict=True):
            memory.numbers[first : first + part.numel()].view(part.shape).copy_(part)
        return memory, at

    def wanted(self, tensors: Sequence[bool]) -> frozenset[int]:
        """Positions of the loop parameters that are computed from the chosen tensors."""
        chosen = {k for k, each in enumerate(tensors) if each}
        pairs = zip(self.slots, self.needs, strict=False)  # followed by given values
        found = {slot for slot, needs in pairs if needs & chosen}
        return frozenset(found | {0} if tensors[-1] else found)

    def leaves(
        self, tensors: Sequence[Tensor], wanted: Sequence[bool]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The tensors (the wanted ones as leaves of a graph), and the parameters made from them."""
        leaves = [x.detach().requires_grad_(each) for x, each in zip(tensors, wanted, strict=True)]
        with torch.enable_grad():
            return leaves, *self.shaped(leaves, whole=True)

    def pull(
        self,
        leaves: Sequence[Tensor],
        values: Sequence[Tensor],
        given: Sequence[Tensor],
        of_parameters: dict[int, Tensor],
        of_given: Sequence[Tensor],
    ) -> list[Tensor | None]:
        """The gradients with respect to the leaves; None for those without a gradient."""
        wanted = [x for x in leaves if x.requires_grad]
        pairs = [
            (value, of_parameters[slot])
            for value, slot in zip(values, self.slots, strict=True)
            if value.requires_grad and slot in of_parameters
        ]
        pairs += [pair for pair in zip(given, of_given, strict=True) if pair[0].requires_grad]
        found: Any = iter([None] * len(wanted))
        if pairs:
            outputs, gradients = zip(*pairs, strict=True)
            found = iter(torch.autograd.grad(outputs, wanted, gradients, allow_unused=True))
        return [next(found) if x.requires_grad else None for x in leaves]
