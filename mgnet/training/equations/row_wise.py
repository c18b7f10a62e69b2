"""Rows and columns of Jacobians from few backward passes.

One pass gives all rows if a function treats each sample separately, and two passes give a column.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mgnet.training.least_squares.device_reads import holds

__all__ = ["columns_by", "is_row_wise"]


def is_row_wise(
    values: torch.Tensor,
    arguments: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor | None],
) -> bool:
    """Whether each entry of the values depends only on the same row of every argument.

    If it does, multiplying an entry by a factor multiplies the same row of each gradient by this
    factor; this is tested with one set of factors.

    Parameters
    ----------
    values : tensor of shape (samples,), or of the shape of the arguments for single entries
        Values of the function.
    arguments : sequence of tensors of shape (samples, ...)
        Arguments of the function.
    gradients : sequence of (tensor or None)
        Gradients of the sum of the values with respect to the arguments; None for unused arguments.

    Examples
    --------
    >>> x = torch.rand(5, requires_grad=True)
    >>> def row_wise(values):
    ...     return is_row_wise(values, [x], torch.autograd.grad(values.sum(), x, retain_graph=True))
    >>> row_wise(x**2), row_wise(x - x.mean())
    (True, False)
    """
    count = torch.arange(1.0, values.numel() + 1.0, dtype=values.dtype, device=values.device)
    factors = torch.cos(count).view(values.shape)
    weighted = torch.autograd.grad(values, arguments, factors, retain_graph=True, allow_unused=True)
    tolerance = torch.finfo(values.dtype).eps ** 0.5
    for argument, one, other in zip(arguments, gradients, weighted, strict=True):
        if one is None or other is None:
            continue
        expected = one * factors.view(*factors.shape, *[1] * (argument.dim() - factors.dim()))
        # Entries that are NaN in a gradient are not compared: they are NaN either way.
        if not holds(~((expected - other).norm() > tolerance * one.norm())):
            return False
    return True


def columns_by(numbers: Sequence[torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """The derivatives of each value with respect to scalars on which all values depend.

    Parameters
    ----------
    numbers : sequence of tensors with one entry
        Variables of differentiation.
    values : tensor of shape (samples,)
        Values to differentiate.

    Returns
    -------
    tensor of shape (samples, numbers)
        The derivatives.

    Examples
    --------
    >>> c = torch.tensor(3.0, requires_grad=True)
    >>> columns_by([c], c * torch.arange(3.0)).tolist()
    [[0.0], [1.0], [2.0]]
    """
    factors = torch.ones_like(values, requires_grad=True)
    sums = torch.autograd.grad(values, numbers, factors, create_graph=True, allow_unused=True)
    # The derivative of `factors @ values` with respect to a number is linear in the factors.
    columns = [
        torch.zeros_like(values)
        if total is None
        else torch.autograd.grad(total.sum(), factors, retain_graph=True)[0]
        for total in sums
    ]
    return torch.stack(columns, 1)
