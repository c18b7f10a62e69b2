"""Call modules with other tensors, even if a module or tensor occurs twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["call_with", "further_names"]


def further_names(module: torch.nn.Module) -> dict[str, str]:
    """The further names that tied tensors have in other modules, each with the tensor's first name.

    Parameters
    ----------
    module : torch.nn.Module
        Module to examine.

    Examples
    --------
    >>> linear, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    >>> other.weight = linear.weight
    >>> further_names(torch.nn.Sequential(linear, linear, other))
    {'2.weight': '0.weight'}
    """
    first, further = dict[int, str](), dict[str, str]()
    for prefix, part in module.named_modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                path = f"{prefix}.{name}" if prefix else name
                known = first.setdefault(id(tensor), path)
                if known != path:
                    further[path] = known
    return further


def call_with(module: torch.nn.Module, tensors: dict[str, Tensor], given: tuple[Any, ...]) -> Any:
    """Run `torch.func.functional_call`, after which every module has its own tensors again.

    PyTorch's function treats a module with two names as two modules, and leaves the tensors of the
    call in such a module.

    Parameters
    ----------
    module : torch.nn.Module
        Module to call.
    tensors : dict
        Tensors, each under its first name.
    given : tuple
        Arguments of the call.

    Examples
    --------
    >>> linear = torch.nn.Linear(1, 1, bias=False)
    >>> twice, weight = torch.nn.Sequential(linear, linear), linear.weight
    >>> call_with(twice, {"0.weight": torch.full((1, 1), 3.0)}, (torch.ones(1),))
    tensor([9.])
    >>> linear.weight is weight
    True
    """
    further = further_names(module).items()
    others = {name: tensors[first] for name, first in further if first in tensors}
    return torch.func.functional_call(module, tensors | others, given, tie_weights=False)
