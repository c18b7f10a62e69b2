"""The layers of coarse levels: means of finer layers, or gathered from all processes."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from mgnet.depth.batched.layers import Layers, is_joint
from mgnet.depth.mgrit.communicator import Communicator

__all__ = [
    "coarse_layers",
    "layers_of_all",
    "renew",
    "renew_means",
    "shares_of",
    "sums",
]


def coarse_layers(layers: Layers, stride: int, stages: int, first: bool = False) -> Layers:
    """Build the layers of a coarse level: one per `stride` fine layers, whose steps are added.

    The coarse parameters are the means of the fine ones, weighted by the steps. To first order in
    the differences between the parameters, coarse layers have the same drift as the fine ones, even
    if the parameters vary irregularly with depth.

    Parameters
    ----------
    layers : Layers
        The fine layers.
    stride : int
        Number of fine layers per coarse layer.
    stages : int
        Number of stages of the one-step method.
    first : bool
        Whether to use the parameters of the first layer of each group, as views, instead of means.

    Examples
    --------
    >>> theta, t = torch.tensor([1.0, 3.0, 8.0]), torch.arange(3.0)
    >>> coarse_layers(Layers((theta,), (), t, torch.ones(3)), 2, 1).parameters
    (tensor([2., 8.]),)
    """
    if stride == 1:
        return layers
    left = layers[::stride]
    if first:
        return left.with_steps(sums(layers.steps, stride))
    shares = shares_of(layers.steps, stride)
    return Layers(
        tuple(_means(p, shares, stride) for p in layers.parameters),
        tuple(
            _means(b, shares, stride) if b.is_floating_point() or is_joint(b) else first.clone()
            for b, first in zip(layers.buffers, left.buffers, strict=True)
        ),
        # The later stages of a step have separate times, relative to its left end.
        _means(layers.times, shares, stride) if stages == 1 else left.times.clone(),
        sums(layers.steps, stride),
    )


def shares_of(steps: Tensor, stride: int) -> Tensor:
    """The weight of each layer in the mean over its group of `stride` layers.

    Examples
    --------
    >>> shares_of(torch.tensor([1.0, 3.0, 5.0]), 2)
    tensor([0.2500, 0.7500, 1.0000])
    """
    weights = steps.clamp(min=0.0)
    none = (sums(weights, stride) == 0.0).repeat_interleave(stride)[: len(steps)]
    weights = torch.where(none, torch.ones_like(steps), weights)
    return weights / sums(weights, stride).repeat_interleave(stride)[: len(steps)]


def renew_means(coarse: Layers, layers: Layers, stride: int, shares: Tensor) -> None:
    """Recompute the parameters and buffers of coarse layers in place; the steps must be unchanged.

    Parameters
    ----------
    coarse : Layers
        The layers made by `coarse_layers`.
    layers : Layers
        The fine layers.
    stride : int
        Number of fine layers per coarse layer.
    shares : Tensor
        The weights from `shares_of`.

    Examples
    --------
    >>> layers = Layers((torch.tensor([1.0, 3.0]),), (), torch.arange(2.0), torch.ones(2))
    >>> coarse = coarse_layers(layers, 2, 1)
    >>> _ = layers.parameters[0].mul_(10.0)
    >>> renew_means(coarse, layers, 2, shares_of(layers.steps, 2))
    >>> coarse.parameters
    (tensor([20.]),)
    """
    # One copy per tensor: a thread that reads the same means never gets a partial sum.
    for mean, values in zip(coarse.parameters, layers.parameters, strict=True):
        if not is_joint(mean):
            mean.copy_(_means(values, shares, stride))
    for mean, values in zip(coarse.buffers, layers.buffers, strict=True):
        if not is_joint(mean):
            floating = values.is_floating_point()
            mean.copy_(_means(values, shares, stride) if floating else values[::stride])


def layers_of_all(layers: Layers, communicator: Communicator) -> Layers:
    """The layers of all processes, gathered with one message per process.

    Examples
    --------
    >>> from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR
    >>> own = Layers((torch.ones(3, 2),), (), torch.arange(3.0), torch.ones(3))
    >>> layers_of_all(own, SERIAL_COMMUNICATOR).times
    tensor([0., 1., 2.])
    """
    tensors = layers.tensors()
    flat = [x.reshape(len(x), prod(x.shape[1:])) for x in tensors]
    rows = [_viewed(x, torch.uint8) for x in flat]
    whole = torch.cat(communicator.allgather(torch.cat(rows, 1)))
    columns = whole.split([row.shape[1] for row in rows], 1)
    *found, times, steps = (
        _viewed(column, x.dtype).reshape(len(whole), *x.shape[1:])
        for column, x in zip(columns, tensors, strict=True)
    )
    count = len(layers.parameters)
    return Layers(tuple(found[:count]), tuple(found[count:]), times, steps)


def _viewed(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy, viewed as `dtype`; `contiguous` may leave strides that such a view cannot use."""
    return rows.clone(memory_format=torch.contiguous_format).view(dtype)


def renew(layers: Layers, new: Layers) -> None:
    """Assign new values in place, because other objects hold references to the layers' tensors.

    Examples
    --------
    >>> layers, new = (Layers((), (), torch.full((2,), t), torch.ones(2)) for t in (0.0, 5.0))
    >>> renew(layers, new)
    >>> layers.times
    tensor([5., 5.])
    """
    for tensor, value in zip(layers.tensors(), new.tensors(), strict=True):
        if not is_joint(tensor):  # a joint tensor is a view of the former ones
            tensor.copy_(value)


def sums(values: Tensor, stride: int) -> Tensor:
    """Sums over groups of `stride` rows (maybe fewer in the last), whose bits depend on no others.

    Examples
    --------
    >>> sums(torch.arange(5.0), 2)
    tensor([1., 5., 4.])
    """
    length, rest = len(values), len(values) % stride
    count = length // stride
    if not rest:
        return torch.sum(values.view(count, stride, *values.shape[1:]), 1)
    out = values.new_empty((count + 1, *values.shape[1:]))
    torch.sum(values[: length - rest].unflatten(0, (-1, stride)), 1, out=out[:count])
    torch.sum(values[length - rest :], 0, keepdim=True, out=out[count:])
    return out


def _means(values: Tensor, shares: Tensor, stride: int) -> Tensor:
    if is_joint(values):  # a view, which is not written to as long as it is joint
        part = values[::stride]
        return part if len(part) > 1 else part.clone()
    shares = shares.to(values.dtype).reshape(-1, *(1,) * (values.dim() - 1))
    return sums(shares * values, stride)
