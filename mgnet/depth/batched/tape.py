"""Tapes: the data for vector-Jacobian products of recorded layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from mgnet.depth.batched.autocast import without_cast
from mgnet.depth.batched.layers import Layers
from mgnet.depth.batched.streams import side_by_side
from mgnet.depth.batched.surroundings import check_gradients

__all__ = ["AutogradTape", "SeparateTapes", "Tape", "TracedTape", "joined"]

Gradients = tuple[Tensor, tuple[Tensor, ...], Tensor | None]


class Block(Protocol):
    """The interface of the block whose layers a tape has recorded; see `StackedBlock`."""

    stages: int
    vjps: int

    def compiled(
        self, kind: str, layers: Layers, states: Tensor, training: bool | None = None
    ) -> Callable[..., Any]:
        """The program of the given kind for these layers."""
        ...

    def programs(
        self, kind: str, layers: Layers, states: Tensor, training: bool | None = None
    ) -> Sequence[Callable[..., Any]]:
        """The program of the given kind for each of these layers separately."""
        ...

    def evaluate(
        self,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        time: Tensor,
        step: Tensor,
        state: Tensor,
    ) -> tuple[Tensor, list[Tensor]]:
        """The slope of one layer, and its new buffers."""
        ...


class Tape(ABC):
    """Recorded layers, made by `StackedBlock.record`.

    Attributes
    ----------
    value : Tensor
        The slopes, shape `(layers, batch, ...)`.
    new_buffers : tuple of Tensor
        The layers' buffers after this evaluation, each `(layers, ...)`, such as those of batch
        norm.
    linear : bool
        Whether `vjp` is known to be linear; a hook or a custom backward pass might clip gradients.

    Examples
    --------
    >>> import torch
    >>> from mgnet.depth import Layers, StackedBlock
    >>> block = StackedBlock(torch.nn.Linear(1, 1, bias=False))
    >>> layers = Layers((torch.tensor([2.0, 3.0]).reshape(2, 1, 1),), (), *torch.ones(2, 2))
    >>> tape = block.record(layers, torch.ones(2, 1, 1))
    >>> tape[1:].vjp(torch.ones(1, 1, 1))
    tensor([[[3.]]])
    """

    value: Tensor
    new_buffers: tuple[Tensor, ...]
    linear: bool

    @abstractmethod
    def vjp(self, lam: Tensor) -> Tensor:
        """Return `(d slope / d state)^T lam`; lam and the result have the shape of the states."""

    @abstractmethod
    def vjp_all(self, lam: Tensor) -> Gradients:
        """The products for states, parameters and steps; the last is None if it has no effect."""

    @abstractmethod
    def __getitem__(self, which: slice) -> Tape:
        """The tape of some of the layers, without evaluating them again."""

    @abstractmethod
    def vjp_each(self, lam: Tensor) -> Sequence[Callable[[Tensor], Tensor]]:
        """The `vjp` of each layer separately, for cotangents like `lam`; each may be called once.

        This is faster than slicing the tape, and counts one product per layer.
        """


class TracedTape(Tape):
    """A tape of traced layers: all tensors in `saved` have the layers on axis 0.

    `training` is the block's mode when the layers were recorded, which may have changed since.
    """

    def __init__(
        self,
        block: Block,
        layers: Layers,
        value: Tensor,
        new_buffers: tuple[Tensor, ...],
        saved: Sequence[Tensor],
        training: bool,
        linear: bool = True,
    ):
        self.block = block
        self.layers = layers
        self.value = value
        self.new_buffers = new_buffers
        self.saved = saved
        self.training = training
        self.linear = linear
        self._each: Sequence[Callable[[Tensor], Tensor]] = ()

    def vjp(self, lam: Tensor) -> Tensor:
        self.block.vjps += self.block.stages * lam.shape[0]
        return self.block.compiled("vjp", self.layers, lam, self.training)(*self.saved, lam)

    def vjp_all(self, lam: Tensor) -> Gradients:
        self.block.vjps += self.block.stages * lam.shape[0]
        run = self.block.compiled("vjp_all", self.layers, lam, self.training)
        states, *rest = run(*self.saved, lam)
        count = len(self.layers.parameters)
        return states, tuple(rest[:count]), rest[count] if len(rest) > count else None

    def tensors(self) -> list[Tensor]:
        """All tensors of one evaluation that the tape holds."""
        return [self.value, *self.new_buffers, *self.saved]

    def __getitem__(self, which: slice) -> Tape:
        value = self.value[which]
        if not len(value):
            return SeparateTapes([], self.layers[which], value)
        return TracedTape(
            self.block,
            self.layers[which],
            value,
            tuple([x[which] for x in self.new_buffers]),
            [_packed(x[which]) for x in self.saved],
            self.training,
            self.linear,
        )

    def vjp_each(self, lam: Tensor) -> Sequence[Callable[[Tensor], Tensor]]:
        if not self._each:
            runs = self.block.programs("vjp", self.layers, lam, self.training)
            saved = zip(*[x.split(1) for x in self.saved], strict=True)
            parts = zip(runs, saved, strict=False) if self.saved else ()
            self._each = [partial(run, *each) for run, each in parts] or runs
        self.block.vjps += self.block.stages * len(self._each)
        return self._each


def _packed(part: Tensor) -> Tensor:
    """Copy a tensor unless it is contiguous or shared by all layers.

    PyTorch 2.13 reads the statistics that norms store for their backward pass as if they were
    contiguous (findings/torch_norm_backward_strides.sh).
    """
    return part if len(part) < 2 or part.stride(0) == 0 else part.contiguous()


def joined(tapes: Sequence[TracedTape], layers: Layers) -> TracedTape:
    """Combine tapes, each of some of the layers in order, into one tape of all `layers`.

    Examples
    --------
    >>> from mgnet.depth import Layers, StackedBlock
    >>> block = StackedBlock(torch.nn.Linear(1, 1, bias=False))
    >>> layers = Layers((torch.tensor([2.0, 3.0]).reshape(2, 1, 1),), (), *torch.ones(2, 2))
    >>> tapes = [block.record(layers[i : i + 1], torch.ones(1, 1, 1)) for i in range(2)]
    >>> joined(tapes, layers).vjp(torch.ones(2, 1, 1)).ravel()
    tensor([2., 3.])
    """
    new_buffers = zip(*[tape.new_buffers for tape in tapes], strict=True)
    return TracedTape(
        tapes[0].block,
        layers,
        torch.cat([tape.value for tape in tapes]),
        tuple([torch.cat(x) for x in new_buffers]),
        [torch.cat(x) for x in zip(*[tape.saved for tape in tapes], strict=True)],
        tapes[0].training,
        tapes[0].linear,
    )


class AutogradTape(Tape):
    """A tape of one layer, evaluated in plain PyTorch.

    Parameters
    ----------
    block : Block
        The block.
    layers : Layers
        One layer.
    leaves : sequence of Tensor
        The leaves of a graph: the state, the parameters and, if the slope depends on it, the step.
    slope : Tensor
        The result of the graph.
    new_buffers : tuple of Tensor
        Buffers after the evaluation.

    Examples
    --------
    >>> from mgnet.depth import Layers, StackedBlock
    >>> block = StackedBlock(torch.nn.Linear(1, 1, bias=False), traced=False)
    >>> layers = Layers((torch.full((1, 1, 1), 3.0),), (), *torch.ones(2, 1))
    >>> AutogradTape.record(block, layers, torch.ones(1, 1, 1)).vjp(torch.ones(1, 1, 1))
    tensor([[[3.]]])
    """

    linear = False

    def __init__(
        self,
        block: Block,
        layers: Layers,
        leaves: Sequence[Tensor],
        slope: Tensor,
        new_buffers: tuple[Tensor, ...],
    ):
        self.block = block
        self.layers = layers
        self.leaves = leaves
        self.slope = slope
        self.value = slope.detach()[None]
        self.new_buffers = new_buffers

    @classmethod
    def record(cls, block: Block, layers: Layers, states: Tensor) -> AutogradTape:
        """Evaluate one layer, with a graph."""
        *tensors, time, step = [x[0].detach() for x in layers.tensors()]
        count = len(layers.parameters)
        leaves = [states[0].detach(), *tensors[:count], *[step] * (block.stages > 1)]
        for leaf in leaves:
            leaf.requires_grad_()
        buffers = [x.clone() for x in tensors[count:]]
        with torch.enable_grad():
            inputs = leaves[1 : count + 1], buffers, time, step, leaves[0]
            slope, new_buffers = block.evaluate(*inputs)
        check_gradients(slope, leaves)
        return cls(block, layers, leaves, slope, tuple([x.detach()[None] for x in new_buffers]))

    def vjp(self, lam: Tensor) -> Tensor:
        return self._pull(self.leaves[:1], lam)[0]

    def vjp_all(self, lam: Tensor) -> Gradients:
        states, *rest = self._pull(self.leaves, lam)
        step = rest.pop() if self.block.stages > 1 else None
        return states, tuple(rest), step

    def _pull(self, leaves: Sequence[Tensor], lam: Tensor) -> list[Tensor]:
        self.block.vjps += self.block.stages
        if not self.slope.requires_grad:
            return [torch.zeros_like(x)[None] for x in leaves]
        with without_cast(lam.device.type):
            found = torch.autograd.grad(
                self.slope, leaves, lam[0], retain_graph=True, materialize_grads=True
            )
        return [x[None] for x in found]

    def __getitem__(self, which: slice) -> Tape:
        return SeparateTapes([self], self.layers, self.value)[which]

    def vjp_each(self, lam: Tensor) -> Sequence[Callable[[Tensor], Tensor]]:
        return [self.vjp]


class SeparateTapes(Tape):
    """The tapes of layers that are evaluated one after another."""

    def __init__(self, tapes: Sequence[Tape], layers: Layers, states: Tensor):
        self.tapes = tapes
        self.layers = layers
        self.states = states
        self.value = torch.cat([states[:0], *[tape.value for tape in tapes]])
        self.new_buffers = _joined(layers.buffers, [tape.new_buffers for tape in tapes])
        self.linear = all(tape.linear for tape in tapes)

    def vjp(self, lam: Tensor) -> Tensor:
        return torch.cat([lam[:0], *self._each("vjp", lam)])

    def vjp_all(self, lam: Tensor) -> Gradients:
        found = self._each("vjp_all", lam)
        states = torch.cat([lam[:0], *[x for x, _, _ in found]])
        steps = [x for _, _, x in found if x is not None]
        return (
            states,
            _joined(self.layers.parameters, [x for _, x, _ in found]),
            torch.cat([self.layers.steps[:0], *steps]) if len(steps) == len(found) else None,
        )

    def __getitem__(self, which: slice) -> Tape:
        return SeparateTapes(self.tapes[which], self.layers[which], self.states[which])

    def vjp_each(self, lam: Tensor) -> Sequence[Callable[[Tensor], Tensor]]:
        return [vjp for tape in self.tapes for vjp in tape.vjp_each(lam)]

    def _each(self, method: str, lam: Tensor) -> list[Any]:
        """Call a method of each tape, side by side unless a tape runs the user's code."""
        parts = zip(self.tapes, lam.split(1), strict=False)
        calls = [partial(getattr(tape, method), part) for tape, part in parts]
        if all(isinstance(tape, TracedTape) for tape in self.tapes):
            return side_by_side(calls, lam)
        return [call() for call in calls]


def _joined(like: Sequence[Tensor], parts: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Tensors of single layers, concatenated on axis 0; this also works without layers."""
    return tuple([torch.cat([x[:0], *[part[k] for part in parts]]) for k, x in enumerate(like)])
