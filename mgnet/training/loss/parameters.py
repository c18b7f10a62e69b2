"""The trainable parameters of a module as one flat vector."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch

from mgnet.training.loss.tied_tensors import call_with
from mgnet.training.loss.user_functions import watched_parameters

__all__ = ["FlatParameters", "full_precision"]

_WATCHED_CALLS = 4
HALF = torch.bfloat16, torch.float16


def full_precision(module: torch.nn.Module) -> torch.nn.Module:
    """The module itself, or a copy in float32 if it holds bfloat16 or float16.

    Inputs of half precision are converted when they enter the copy or one of its submodules, so
    code that calls the module can call the copy instead. Differences between outputs in half
    precision have only one or two correct digits, too few to judge a step.

    Examples
    --------
    >>> lifted = full_precision(torch.nn.Linear(1, 1, dtype=torch.bfloat16))
    >>> lifted(torch.ones(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    tensors = [*module.parameters(), *module.buffers()]
    if not any(t.dtype in HALF for t in tensors):
        return module
    lifted = copy.deepcopy(module)._apply(lift)
    for part in lifted.modules():
        if isinstance(part, torch.nn.ParameterList | torch.nn.ParameterDict):
            continue  # a module that is never called
        part.register_forward_pre_hook(lift_inputs, with_kwargs=True)
    return lifted


def lift(value: Any) -> Any:
    """Convert a tensor of half precision to float32; return anything else unchanged."""
    return value.float() if isinstance(value, torch.Tensor) and value.dtype in HALF else value


def lift_inputs(
    _: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Forward pre-hook that converts the arguments of a call."""
    return tuple(map(lift, arguments)), {name: lift(value) for name, value in named.items()}


class FlatParameters:
    """Reads, replaces and writes the parameters of a module that require a gradient.

    Tied parameters count once. The vector may differ in precision from the module, which keeps its
    own. A module of half precision is evaluated as a copy in float32 (see `full_precision`), and
    values are rounded when they are written to it.

    Parameters
    ----------
    module : torch.nn.Module
        Module to train.

    Attributes
    ----------
    module : torch.nn.Module
        Module that is evaluated.
    trainable : dict of str to Parameter
        The parameters of the module that are in the vector.

    Raises
    ------
    ValueError
        If no parameter requires a gradient.
    TypeError
        If the object is not a module, or a parameter is complex.
    """

    def __init__(self, module: torch.nn.Module):
        if not isinstance(module, torch.nn.Module):
            raise TypeError(
                f"the module to train is a {type(module).__name__}; give a torch.nn.Module"
            )
        self._template = module
        self.module = full_precision(module)
        self._watched = 0  # evaluations that were checked for edits of parameters
        self.own = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.trainable = {n: p for n, p in self.module.named_parameters() if p.requires_grad}
        if not self.trainable:
            raise ValueError(
                f"{type(module).__name__} has no parameter that requires a gradient; "
                "there is nothing to train"
            )
        wrong = [name for name, p in self.trainable.items() if p.is_complex()]
        if wrong:
            raise TypeError(
                f"{type(module).__name__} has the complex parameter {wrong[0]}; parameters must be "
                "real: store real and imaginary parts (torch.view_as_real)"
            )

    @property
    def all_trainable(self) -> bool:
        """Whether the vector holds every parameter of the module."""
        return len(self.trainable) == len(list(self.module.parameters()))

    @property
    def places(self) -> torch.Tensor:
        """For each entry of all parameters, in order, whether the vector contains it."""
        parts = [torch.full((p.numel(),), p.requires_grad) for p in self.module.parameters()]
        return torch.cat(parts)

    def start(self) -> torch.Tensor:
        """A copy of the current parameters."""
        parameters = [lift(p) for p in self.own.values()]
        return torch.nn.utils.parameters_to_vector(parameters).detach().clone()

    def named(self, u: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parts of u by name (views if the precision is that of the module).

        Raises
        ------
        ValueError
            If u is not a flat tensor of the right length.
        """
        sizes = [math.prod(p.shape) for p in self.trainable.values()]
        if not isinstance(u, torch.Tensor) or u.shape != (sum(sizes),):
            got = f"shape {tuple(u.shape)}" if isinstance(u, torch.Tensor) else type(u).__name__
            raise ValueError(
                f"the parameters of {type(self.module).__name__} were given as {got}; give a flat "
                f"tensor of {sum(sizes)} numbers, such as objective.start()"
            )
        parts = torch.split(u, sizes)
        return {
            name: part.view(p.shape).to(p.dtype)
            for (name, p), part in zip(self.trainable.items(), parts, strict=True)
        }

    def evaluate(self, function: Callable[[Any], Any], u: torch.Tensor) -> Any:
        """Return `function(module)`, evaluated with the parameters u."""
        if self.module is not self._template:
            self._follow()
        bound = _Bound(self.module, function)
        named = {f"module.{name}": part for name, part in self.named(u).items()}
        if self._watched == _WATCHED_CALLS or torch._C._are_functorch_transforms_active():
            return call_with(bound, named, ())
        self._watched += 1
        name = type(self.module).__name__
        return watched_parameters(name, lambda: call_with(bound, named, ()), u)

    def _follow(self) -> None:
        """Bring the float32 copy of a module of half precision up to date with the module.

        The module may have been set to `eval()`, or its frozen parameters may have changed.
        """
        for own, copied in zip(self._template.modules(), self.module.modules(), strict=True):
            copied.training = own.training
        with torch.no_grad():
            for own, copied in zip(
                self._template.parameters(), self.module.parameters(), strict=True
            ):
                if not copied.requires_grad:
                    copied.copy_(own)

    def write(self, u: torch.Tensor) -> None:
        """Write u to the parameters of the module, in place.

        Raises
        ------
        OverflowError
            If a value is too large for the half precision of the module; nothing is written then.
        """
        named = self.named(u.detach())
        for name, part in named.items():
            kind = self.own[name].dtype
            largest = float(part.abs().max()) if kind in HALF and part.numel() else 0.0
            if torch.finfo(kind).max < largest < math.inf:
                raise OverflowError(
                    f"the parameter {name!r} became {largest:.4g}, too large for {kind}; train a "
                    "module of torch.bfloat16 or torch.float32"
                )
        with torch.no_grad():
            for name, part in named.items():
                self.own[name].copy_(part)
            if self.module is not self._template:  # statistics that a normalization has updated
                buffers = zip(self._template.buffers(), self.module.buffers(), strict=True)
                for own, copied in buffers:
                    own.copy_(copied)


class _Bound(torch.nn.Module):
    """Allows `call_with` to run any function of a module."""

    def __init__(self, module: torch.nn.Module, function: Callable[[Any], Any]):
        super().__init__()
        self.module = module
        self.function = function

    def forward(self) -> Any:
        return self.function(self.module)
