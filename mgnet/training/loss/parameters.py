"""The trainable parameters of a module as one flat vector."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.func import functional_call

__all__ = ["FlatParameters"]


class FlatParameters:
    """Reads, swaps and writes the parameters of a module that require a gradient.

    Tied parameters count once. In an evaluation the vector may have another precision than the
    module, whose own is kept.

    Parameters
    ----------
    module : torch.nn.Module

    Raises
    ------
    ValueError
        If no parameter requires a gradient.
    TypeError
        If one is complex.
    """

    def __init__(self, module: torch.nn.Module):
        if not isinstance(module, torch.nn.Module):
            raise TypeError(
                f"the module to train is a {type(module).__name__}; give a torch.nn.Module"
            )
        self.module = module
        self.trainable = {n: p for n, p in module.named_parameters() if p.requires_grad}
        if not self.trainable:
            raise ValueError(
                f"{type(module).__name__} has no parameter that requires a gradient; "
                "there is nothing to train"
            )
        wrong = [name for name, p in self.trainable.items() if p.is_complex()]
        if wrong:
            raise TypeError(
                f"{type(module).__name__} has the complex parameter {wrong[0]}; parameters must be "
                "real: keep its real and imaginary part (torch.view_as_real)"
            )

    @property
    def all_trainable(self) -> bool:
        """Whether the vector holds every parameter of the module."""
        return len(self.trainable) == len(list(self.module.parameters()))

    @property
    def places(self) -> torch.Tensor:
        """Of each entry of all parameters, in their order, whether the vector holds it."""
        parts = [torch.full((p.numel(),), p.requires_grad) for p in self.module.parameters()]
        return torch.cat(parts)

    def start(self) -> torch.Tensor:
        """The parameters as they are, a copy."""
        parameters = list(self.trainable.values())
        return torch.nn.utils.parameters_to_vector(parameters).detach().clone()

    def named(self, u: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parts of u by name (views where the precision is that of the module)."""
        sizes = [math.prod(p.shape) for p in self.trainable.values()]
        if not isinstance(u, torch.Tensor) or u.shape != (sum(sizes),):
            got = f"shape {tuple(u.shape)}" if isinstance(u, torch.Tensor) else type(u).__name__
            raise ValueError(
                f"the parameters of {type(self.module).__name__} were given as {got}; give a flat "
                f"tensor of {sum(sizes)} numbers, as objective.start() does"
            )
        parts = torch.split(u, sizes)
        return {
            name: part.view(p.shape).to(p.dtype)
            for (name, p), part in zip(self.trainable.items(), parts, strict=True)
        }

    def evaluate(self, function: Callable[[Any], Any], u: torch.Tensor) -> Any:
        """`function(module)`, the parameters of the module being u meanwhile."""
        bound = _Bound(self.module, function)
        named = {f"module.{name}": part for name, part in self.named(u).items()}
        return functional_call(bound, named, ())

    def write(self, u: torch.Tensor) -> None:
        """Make u the parameters of the module, in place."""
        with torch.no_grad():
            for name, part in self.named(u.detach()).items():
                self.trainable[name].copy_(part)


class _Bound(torch.nn.Module):
    """Lets `functional_call` reach any function of a module."""

    def __init__(self, module: torch.nn.Module, function: Callable[[Any], Any]):
        super().__init__()
        self.module = module
        self.function = function

    def forward(self) -> Any:
        return self.function(self.module)
