"""The tensors of some layers, stacked on axis 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

__all__ = ["Layers", "is_joint"]

BOUND = 64  # largest number of programs for states of different shapes
PLACES = 1024  # largest number of shapes whose programs are stored by name


@dataclass(frozen=True, eq=False)
class Layers:
    """Tensors of some layers, stacked, with the layers on axis 0.

    Parameters
    ----------
    parameters : tuple of Tensor
        Parameters, each `(layers, ...)`, in the order of `StackedBlock.names`.
    buffers : tuple of Tensor
        The block's own buffers, each `(layers, ...)`, without gradient.
    times : Tensor
        Start time of each layer, shape `(layers,)`.
    steps : Tensor
        Step size of each layer, shape `(layers,)`, in units of time.

    Examples
    --------
    >>> import torch
    >>> from mgnet.depth import Layers
    >>> t = torch.arange(4.0)
    >>> layers = Layers((torch.randn(4, 2, 2),), (), t, torch.ones(4))
    >>> len(layers), layers[1::2].times
    (4, tensor([1., 3.]))
    """

    parameters: tuple[Tensor, ...]
    buffers: tuple[Tensor, ...]
    times: Tensor
    steps: Tensor
    # Views and programs, stored because sweeps repeat the same slices and shapes.
    _slices: dict[Any, Layers] = field(default_factory=dict, init=False, repr=False)
    _bound: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)
    # Shared by all slices: the state of the block, and names of the traces for each shape.
    _fingerprint: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)
    _names: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return self.times.shape[0]

    def __getitem__(self, which: slice) -> Layers:
        key = which.start, which.stop, which.step, torch.is_grad_enabled()
        part = self._slices.get(key)
        if part is None:
            part = self._slices[key] = Layers(
                tuple([x[which] for x in self.parameters]),
                tuple([x[which] for x in self.buffers]),
                self.times[which],
                self.steps[which],
            )
            object.__setattr__(part, "_fingerprint", self._fingerprint)
            object.__setattr__(part, "_names", self._names)
        return part

    def keep_programs(self, key: Any, programs: Any) -> Any:
        """Store programs that were found for these layers, and return them."""
        if len(self._bound) >= BOUND:
            self._bound.clear()
        self._bound[key] = programs
        return programs

    def keep_names(self, key: Any, names: Any) -> None:
        """Store keys under which the programs of these layers and of their slices are found."""
        if len(self._names) >= PLACES:
            self._names.clear()
        self._names[key] = names

    def with_steps(self, steps: Tensor) -> Layers:
        """The same layers with different steps."""
        return replace(self, steps=steps)

    def update(self, new_buffers: Sequence[Tensor]) -> None:
        """Assign these values to the first buffers, in place; the rest are side inputs."""
        for buffer, new in zip(self.buffers, new_buffers, strict=False):
            if new is not buffer and not is_joint(buffer):
                buffer.copy_(new)

    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors: parameters, buffers, times and steps."""
        return *self.parameters, *self.buffers, self.times, self.steps


def is_joint(tensor: Tensor) -> bool:
    """Whether all layers use the same memory, as with shared weights and common side inputs.

    Examples
    --------
    >>> is_joint(torch.ones(3).expand(4, 3)), is_joint(torch.ones(4, 3))
    (True, False)
    """
    return tensor.shape[0] > 1 and tensor.stride(0) == 0
