"""Stand-in, until the engine is merged: many layers of one block in one batched call."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch.func import functional_call, vmap

from mgnet.depth.layer_stack import takes_time

__all__ = ["Layers", "StackedBlock"]


@dataclass(frozen=True, eq=False)
class Layers:
    """Stacked tensors of some layers: axis 0 is the layer."""

    parameters: tuple[torch.Tensor, ...]
    buffers: tuple[torch.Tensor, ...]
    times: torch.Tensor
    steps: torch.Tensor

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, which: slice) -> Layers:
        return Layers(
            tuple(p[which] for p in self.parameters),
            tuple(p[which] for p in self.buffers),
            self.times[which],
            self.steps[which],
        )

    def with_steps(self, steps: torch.Tensor) -> Layers:
        """The same layers with other steps."""
        return replace(self, steps=steps)


class StackedBlock:
    """Euler only."""

    def __init__(self, template: torch.nn.Module, scheme: str = "euler"):
        self.template = template
        self.scheme = scheme
        self.names = tuple(name for name, _ in template.named_parameters())
        self.buffer_names = tuple(name for name, _ in template.named_buffers())
        self.timed = takes_time(template)

    def slope(self, layers: Layers, states: torch.Tensor) -> torch.Tensor:
        """Of all layers at once."""

        def one(parameters, buffers, t, u):
            named = dict(zip(self.names, parameters, strict=True))
            named |= dict(zip(self.buffer_names, buffers, strict=True))
            return functional_call(self.template, named, (t, u) if self.timed else (u,))

        return vmap(one)(layers.parameters, layers.buffers, layers.times, states)
