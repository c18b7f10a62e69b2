"""Rows and columns of Jacobians by few backward passes.

One pass tells all rows where a function treats each sample by itself; and two tell a column.
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
    """Whether each entry of the values depends on the same row of every argument alone.

    Then a factor of an entry is one of that row of the gradients; tried with one set of factors.

    Parameters
    ----------
    values : tensor of shape (samples,), or of the shape of the arguments for single entries
    arguments : sequence of tensors of shape (samples, ...)
        Of which the values were made.
    gradients : sequence of (tensor or None)
        Of the sum of the values with respect to the arguments, None for one that is not used.

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
        # Not where a gradient is no number: it is then none in either way.
        if not holds(~((expected - other).norm() > tolerance * one.norm())):
            return False
    return True


def columns_by(numbers: Sequence[torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """The derivatives of each value with respect to single numbers that all values share.

    Parameters
    ----------
    numbers : sequence of tensors with one entry
    values : tensor of shape (samples,)

    Returns
    -------
    tensor of shape (samples, numbers)

    Examples
    --------
    >>> c = torch.tensor(3.0, requires_grad=True)
    >>> columns_by([c], c * torch.arange(3.0)).tolist()
    [[0.0], [1.0], [2.0]]
    """
    factors = torch.ones_like(values, requires_grad=True)
    sums = torch.autograd.grad(values, numbers, factors, create_graph=True, allow_unused=True)
    # The derivative of `factors @ values` by a number is linear in the factors.
    columns = [
        torch.zeros_like(values)
        if total is None
        else torch.autograd.grad(total.sum(), factors, retain_graph=True)[0]
        for total in sums
    ]
    return torch.stack(columns, 1)
