"""Detect whether a subclass or a hook changes a network whose formulas bypass `forward`.

Some networks have faster methods for derivatives than automatic differentiation. These methods do
not run `forward`, so they are valid only if nothing was added to `forward`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.parametrize import is_parametrized

from mgnet.training.loss.parameters import lift_inputs

__all__ = ["alteration", "has_hooks", "is_replaced", "knows"]


def alteration(
    module: torch.nn.Module, kind: type[torch.nn.Module], methods: Sequence[str] = ("forward",)
) -> str:
    """Describe what a call of a module does in addition to the methods of `kind`; "" if nothing.

    Parameters
    ----------
    module : torch.nn.Module
        Module to examine.
    kind : type
        The class, or a base class, of the module.
    methods : sequence of str
        Names of the methods to compare.

    Examples
    --------
    >>> class Positive(torch.nn.Linear):
    ...     def forward(self, x):
    ...         return super().forward(x).exp()
    >>> alteration(Positive(1, 1), torch.nn.Linear)
    'Positive has a forward of its own'
    >>> alteration(torch.nn.Linear(1, 1), torch.nn.Linear)
    ''
    """
    name = type(module).__name__
    for method in ("__call__", *methods):
        if is_replaced(module, method):
            return f"the {method} of this {name} was replaced"
        if getattr(type(module), method, None) is not getattr(kind, method):
            return f"{name} has a {method} of its own"
    for path, part in module.named_modules():
        whose = f"{name}.{path}" if path else name
        if has_hooks(part):
            return f"{whose} has hooks"
        if is_parametrized(part):
            return f"{whose} has parametrizations"
    return ""


def has_hooks(module: torch.nn.Module) -> bool:
    """Whether a call of a module runs hooks, except the one that converts half precision.

    Examples
    --------
    >>> layer = torch.nn.Linear(1, 1)
    >>> handle = layer.register_forward_hook(print)
    >>> has_hooks(layer)
    True
    """
    before = any(hook is not lift_inputs for hook in module._forward_pre_hooks.values())
    others = module._forward_hooks, module._backward_hooks, module._backward_pre_hooks
    return before or any(map(bool, others))


def is_replaced(module: torch.nn.Module, method: str) -> bool:
    """Whether a method of a module was replaced on the object itself.

    The class's own method, set on the object, does not count as a replacement, since accelerate
    restores methods that way.

    Examples
    --------
    >>> layer = torch.nn.Linear(1, 1)
    >>> layer.forward = layer.forward
    >>> is_replaced(layer, "forward")
    False
    """
    if method not in vars(module):
        return False
    there = vars(module)[method]
    own = getattr(there, "__func__", None) is getattr(type(module), method)
    return not (own and there.__self__ is module)


def knows(network: torch.nn.Module, method: str) -> bool:
    """Whether a network has this method for its derivatives, and nothing changes its calls.

    A network may report changes through `altered(method)`, which returns a reason or "", as `KAN`
    does.

    Examples
    --------
    >>> knows(torch.nn.Linear(1, 1), "linearize")
    False
    """
    altered = getattr(network, "altered", None)
    return hasattr(network, method) and (altered is None or not altered(method))
