"""B-splines on arbitrary knots, one knot vector per input, by the Cox-de Boor recursion.

A knot vector with n intervals contains n + 2 degree + 1 nondecreasing knots; the domain of its n +
degree splines is `[knots[degree], knots[-degree - 1]]`. Intervals may be empty, but the domain may
not. Source: de Boor, "A Practical Guide to Splines" (2001), chapters IX and X.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from mgnet.knots.precision import in_full_precision, under_autocast

__all__ = ["local_basis_on", "spline_layer_on"]


def local_basis_on(
    x: torch.Tensor, knots: torch.Tensor, degree: int, derivatives: int = 0
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """The splines that are nonzero at x, and their derivatives, differentiable in x and the knots.

    Outside the domain, each spline is continued linearly with its value and slope at the boundary.
    At a knot where a derivative jumps, its value from the right is used.

    Parameters
    ----------
    x : tensor of shape (..., inputs)
        The points.
    knots : tensor of shape (inputs, intervals + 2 degree + 1) or (intervals + 2 degree + 1,)
        The knots of each input, or of all inputs.
    degree : int
        Degree of the splines, at least 1.
    derivatives : int
        Highest order of derivatives.

    Returns
    -------
    (first, (values, slopes, curvatures, ...)[: derivatives + 1])
        `first` contains the number of the first of these splines, with the shape of x (int64). The
        other tensors have the shape of x + (degree + 1,).

    Examples
    --------
    >>> knots = torch.tensor([-1.0, 0.0, 0.5, 2.0, 3.0])  # two hats and a half at both ends
    >>> first, (values, slopes) = local_basis_on(torch.tensor([1.25]), knots, 1, derivatives=1)
    >>> first.tolist(), values.tolist()
    ([1], [[0.5, 0.5]])
    """
    inputs = x.shape[-1]
    knots = knots.expand(inputs, -1)
    a, b = knots[:, degree], knots[:, -degree - 1]
    inside = x.clamp(a, b)
    first = _interval(inside.detach(), knots.detach(), degree)
    row = first + knots.shape[1] * torch.arange(inputs, device=x.device)
    around = row.unsqueeze(-1) + torch.arange(1, 2 * degree + 1, device=x.device)
    window = knots.reshape(-1)[around]  # degree knots on both sides of x
    position = inside.unsqueeze(-1)
    by_degree, gaps = [torch.ones_like(position)], []
    for j in range(1, degree + 1):
        lower, upper = window[..., degree - j : degree], window[..., degree : degree + j]
        gaps.append(upper - lower)  # each contains the interval of x, so none is empty
        share = by_degree[-1] / gaps[-1]
        right, left = share * (upper - position), share * (position - lower)
        by_degree.append(pad(right, (0, 1)) + pad(left, (1, 0)))

    def derivative(order: int) -> torch.Tensor:
        values = by_degree[degree - order]
        for j in range(degree - order + 1, degree + 1):
            share = j * values / gaps[j - 1]
            values = pad(share, (1, 0)) - pad(share, (0, 1))
        return values

    slopes = derivative(1)
    results = [by_degree[-1] + slopes * (x - inside).unsqueeze(-1), slopes]
    beyond = ((x < a) | (x > b)).unsqueeze(-1)
    for order in range(2, derivatives + 1):
        inner = derivative(order) if order <= degree else torch.zeros_like(slopes)
        results.append(inner.masked_fill(beyond, 0.0))
    return first, tuple(results[: derivatives + 1])


def _interval(x: torch.Tensor, knots: torch.Tensor, degree: int) -> torch.Tensor:
    """The number of the interval that contains x, never an empty one; the last one for NaN."""
    # By counting, because free knots are few, and `torch.searchsorted` warns under `vmap`.
    inner = knots[:, degree + 1 : -degree - 1]
    below_end = (inner < knots[:, -degree - 1, None]).sum(-1)
    number = inner.shape[-1] - (inner > x.unsqueeze(-1)).sum(-1)
    return torch.minimum(number, below_end)


def spline_layer_on(
    x: torch.Tensor, coefficients: torch.Tensor, knots: torch.Tensor, degree: int
) -> torch.Tensor:
    """Evaluate a KAN layer: `sum_p sum_i coefficients[p, i, q] b_i(x_p)`, with knots per input.

    Parameters
    ----------
    x : tensor of shape (..., inputs)
        The inputs.
    coefficients : tensor of shape (inputs, intervals + degree, outputs)
        The coefficients of all splines.
    knots : tensor of shape (inputs, intervals + 2 degree + 1) or (intervals + 2 degree + 1,)
        The knots of each input, or of all inputs.

    Returns
    -------
    tensor of shape (..., outputs)
        The outputs.

    Examples
    --------
    >>> hat = torch.tensor([[[0.0], [1.0], [0.0]]])
    >>> knots = torch.tensor([-1.0, 0.0, 0.5, 2.0, 3.0])
    >>> spline_layer_on(torch.tensor([[1.25]]), hat, knots, 1).tolist()
    [[0.5]]
    """
    if under_autocast(x):
        return in_full_precision(spline_layer_on, x, coefficients, knots, degree)
    first, (values,) = local_basis_on(x, knots, degree)
    index = first.unsqueeze(-1) + torch.arange(degree + 1, device=x.device)
    basis = values.new_zeros(*x.shape, coefficients.shape[1]).scatter(-1, index, values)
    return basis.flatten(-2) @ coefficients.flatten(0, 1)
