"""Differences between two modules that should have the same architecture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["difference", "named_tensors", "plain_tensors"]

PLAIN = bool, int, float, complex, str, type(None), torch.dtype
# The layer number, with which Hugging Face layers find their part of a cache.
NOT_COMPARED = {*vars(torch.nn.Module()), "layer_idx"}


def named_tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield parameters and buffers with their names.

    Examples
    --------
    >>> [name for name, _ in named_tensors(torch.nn.Linear(1, 1))]
    ['weight', 'bias']
    """
    yield from module.named_parameters()
    yield from module.named_buffers()


def difference(first: torch.nn.Module, other: torch.nn.Module) -> str:
    """Describe a difference between two architectures; the text is empty if there is none.

    Examples
    --------
    >>> difference(torch.nn.Linear(1, 1), torch.nn.Tanh())
    'Tanh() instead of Linear(in_features=1, out_features=1, bias=True)'
    >>> difference(torch.nn.MultiheadAttention(4, 2), torch.nn.MultiheadAttention(4, 1))
    'num_heads is 1 instead of 2'
    """
    if str(first) != str(other):
        return f"{_flat(other)} instead of {_flat(first)}"
    ours, theirs = dict(named_tensors(first)), dict(named_tensors(other))
    if list(ours) != list(theirs):
        return f"it has {', '.join(theirs) or 'nothing'} instead of {', '.join(ours) or 'nothing'}"
    for name, tensor in ours.items():
        got = theirs[name]
        if (got.shape, got.dtype, got.device) != (tensor.shape, tensor.dtype, tensor.device):
            return (
                f"{name} is {got.dtype} of shape {tuple(got.shape)} on {got.device} instead of "
                f"{tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}"
            )
    theirs = dict(plain_tensors(other))
    for name, tensor in plain_tensors(first):  # a stack keeps only those of the first layer
        got = theirs.get(name)
        if got is None or (not tensor.is_meta and not torch.equal(got, tensor)):
            return f"{name}, a tensor that is not a buffer, has other values; use register_buffer"
    values = dict(_plain_values(other))
    for name, value in _plain_values(first):  # the same applies to values that are not printed
        if values.get(name, value) != value:
            return f"{name} is {values[name]!r} instead of {value!r}"
    return ""


def _plain_values(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, PLAIN) and name not in NOT_COMPARED and value == value:
                yield f"{prefix}.{name}" if prefix else name, value


def plain_tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield tensors that are attributes but neither parameters nor buffers, with their names.

    Examples
    --------
    >>> module = torch.nn.Sequential(torch.nn.Tanh())
    >>> module[0].mask = torch.ones(2)
    >>> list(plain_tensors(module))
    [('0.mask', tensor([1., 1.]))]
    """
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            # Hooks before `forward`, such as `torch.nn.utils.spectral_norm`, recreate such tensors.
            if isinstance(value, torch.Tensor) and not part._forward_pre_hooks:
                yield f"{prefix}.{name}" if prefix else name, value


def _flat(module: torch.nn.Module) -> str:
    return " ".join(str(module).split())
