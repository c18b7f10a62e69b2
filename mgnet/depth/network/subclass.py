"""Refusal of derived classes whose own methods or tensors a function would ignore."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

__all__ = ["check_calls", "check_own_tensors"]


def check_calls(owner: str, module: torch.nn.Module, known: type, names: Iterable[str]) -> None:
    """Raise an error if a module overrides methods of a known class that would be bypassed.

    Parameters
    ----------
    owner : str
        Name of the function that would not call them, or relies on their original behavior.
    module : torch.nn.Module
        The module to check.
    known : type
        The class from which the class of the module is derived.
    names : iterable of str
        Names of the methods that would be bypassed.

    Raises
    ------
    TypeError
        If the class of the module overrides one of the methods.

    Examples
    --------
    >>> class Positive(torch.nn.Linear):
    ...     def forward(self, x):
    ...         return super().forward(x).exp()
    >>> check_calls("convert", Positive(1, 1), torch.nn.Linear, ["forward"])
    Traceback (most recent call last):
    TypeError: convert got a Positive, which has its own forward in place of that of Linear, and \
would leave it out; use a Linear inside a module of your own instead of deriving from it
    """
    kind = type(module)
    own = [
        name
        for name in names
        if getattr(kind, name) is not getattr(known, name) or name in vars(module)
    ]
    if own:
        of = "those" if own[1:] else "that"
        raise TypeError(
            f"{owner} got a {kind.__name__}, which has its own {', '.join(own)} in place of {of} "
            f"of {known.__name__}, and would leave {'them' if own[1:] else 'it'} out; use a "
            f"{known.__name__} inside a module of your own instead of deriving from it"
        )


def check_own_tensors(owner: str, module: Any, rows: int, known: Iterable[str]) -> None:
    """Raise an error if a module has tensors of its own that may have one row per layer.

    Parameters
    ----------
    owner : str
        Name of the function that would have to change them.
    module : torch.nn.Module
        The module to check.
    rows : int
        Number of layers.
    known : iterable of str
        Names of tensors that the function does change.

    Raises
    ------
    TypeError
        If there is such a tensor.

    Examples
    --------
    >>> module = torch.nn.Linear(3, 4)
    >>> check_own_tensors("refine", module, 4, ["weight"])
    Traceback (most recent call last):
    TypeError: refine got a Linear with bias of shape (4,), of its own and perhaps one for each of \
the 4 layers; it can change only those of the block: keep it there, or in a module around
    """
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None and name not in known and tensor.shape[:1] == (rows,):
            raise TypeError(
                f"{owner} got a {type(module).__name__} with {name} of shape "
                f"{tuple(tensor.shape)}, of its own and perhaps one for each of the {rows} layers; "
                "it can change only those of the block: keep it there, or in a module around"
            )
