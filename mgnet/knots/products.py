"""The three sums of a spline layer in plain torch, for any device and precision.

    layer    y[n, q] = sum_pi h[n, p] U[p, i, q] b_i(x[n, p])
    pull     v[n, p] = sum_iq        U[p, i, q] b_i(x[n, p]) g[n, q]
    scatter  V[p, i, q] = sum_n h[n, p]         b_i(x[n, p]) g[n, q]

They are the derivatives of one trilinear form, so the derivatives of each are sums of the same kind
with derivatives of b_i (`mgnet.knots.layer`). Only the degree + 1 splines that are nonzero at x are
evaluated; `values[k]` contains the k-th of them for all n and p. No sum stores more than `BUDGET`
numbers besides its arguments and result, so memory does not grow with the number of intervals. The
faster form of each sum was determined on a 64 -> 64 layer with 1024 samples (see
benchmarks/knots_speed.py). On a GPU no sum waits for the device, and constants are sent to it once.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.nn.functional import embedding_bag

from mgnet.knots.precision import in_full_precision, under_autocast
from mgnet.knots.spline import derivative_pieces, evaluate, polynomials

__all__ = ["layer", "local_values", "pull", "scatter"]

BUDGET = 2**19
DENSE = 16  # intervals up to which products with all splines are faster than with the nonzero ones


def local_values(
    x: torch.Tensor,
    intervals: int,
    degree: int,
    domain: tuple[float, float],
    order: int,
    h: torch.Tensor | None = None,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The first nonzero splines at x, and the `order`-th derivatives of the nonzero ones times h.

    Examples
    --------
    >>> local_values(torch.tensor([0.25]), 2, 1, (0.0, 1.0), 0)
    (tensor([0]), [tensor([0.5000]), tensor([0.5000])])
    """
    # Like `spline.locate`, but in place, because memory traffic dominates.
    a, b = domain
    inside = x.clamp(a, b)
    s = (inside - a).mul_(intervals / (b - a))
    interval = s.floor().nan_to_num_().clamp_(0, intervals - 1)
    s -= interval
    first = interval.long()
    powers, (left, right) = _constants(intervals, degree, domain, order, x.dtype, x.device)
    values = evaluate(powers, s)
    # Asking whether any x is beyond the ends would make the host wait for a device.
    if order != 1 and (x.device.type != "cpu" or not torch.equal(x, inside)):
        beyond = x - inside
        for k, value in enumerate(values):
            slope = torch.where(beyond < 0.0, left[k], right[k])
            ended = value if order == 0 else torch.where(beyond.abs() > 0.0, 0.0, value)
            values[k] = torch.addcmul(ended, slope, beyond)
    if h is not None:
        values = [value * h for value in values]
    return first, values


@lru_cache(maxsize=1024)
def _constants(
    intervals: int,
    degree: int,
    domain: tuple[float, float],
    order: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The polynomials of the splines, and the slopes beyond both ends."""
    _, ends = derivative_pieces(intervals, degree, domain, order)
    powers = torch.tensor(polynomials(intervals, degree, domain, order), dtype=torch.float64)
    return powers.to(device, dtype), torch.as_tensor(ends).to(device, dtype)


def layer(first: torch.Tensor, values: list[torch.Tensor], U: torch.Tensor) -> torch.Tensor:
    """Map (samples, inputs) and (inputs, splines, outputs) to (samples, outputs)."""
    if under_autocast(first):
        return in_full_precision(layer, first, values, U)
    inputs, splines, outputs = U.shape
    rows = first + splines * torch.arange(inputs, device=first.device)
    table = U.reshape(-1, outputs)
    total = U.new_zeros(len(first), outputs)
    if len(first):
        for k, value in enumerate(values):
            total += embedding_bag(rows, table[k:], per_sample_weights=value, mode="sum")
    return total


def pull(
    first: torch.Tensor, values: list[torch.Tensor], U: torch.Tensor, g: torch.Tensor
) -> torch.Tensor:
    """The sum over splines and outputs: (samples, inputs)."""
    if under_autocast(first):
        return in_full_precision(pull, first, values, U, g)
    inputs, splines, outputs = U.shape
    rows = first + splines * torch.arange(inputs, device=first.device)
    table = U.reshape(-1, outputs)
    total = torch.zeros_like(values[0])
    if splines - len(values) < DENSE:
        step = max(1, BUDGET // len(table))
        for n in range(0, len(g), step):
            part = slice(n, n + step)
            products = g[part] @ table.T
            for k, value in enumerate(values):
                total[part].addcmul_(products[:, k:].gather(1, rows[part]), value[part])
    elif len(g):
        # The function that autograd calls for weights of `embedding_bag`; autograd is disabled
        # here.
        count = torch.arange(len(g), device=g.device)
        starts, bags = inputs * count, count.repeat_interleave(inputs)
        for k, value in enumerate(values):
            products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
                g, table[k:], rows.flatten(), starts, bags, 0
            )
            total.addcmul_(products.view_as(total), value)
    return total


def scatter(
    first: torch.Tensor, values: list[torch.Tensor], g: torch.Tensor, splines: int
) -> torch.Tensor:
    """The sum over samples: (inputs, splines, outputs)."""
    if under_autocast(first):
        return in_full_precision(scatter, first, values, g, splines)
    samples, inputs = first.shape
    outputs = g.shape[1]
    column = torch.arange(inputs, device=first.device)
    intervals = splines - len(values) + 1
    if intervals <= DENSE:
        total = g.new_zeros(inputs * splines, outputs)
        step = max(1, BUDGET // len(total))
        for n in range(0, samples, step):
            rows = first[n : n + step] + splines * column
            basis = g.new_zeros(len(rows), len(total))
            for k, value in enumerate(values):
                basis[:, k:].scatter_(1, rows, value[n : n + step])
            total.addmm_(basis.T, g[n : n + step])
        return total.view(inputs, splines, outputs)
    # Samples are sorted by interval, followed by one sum per interval: a bag of rows of g.
    total = g.new_zeros(inputs, splines, outputs)
    step = max(1, BUDGET // (intervals * outputs))
    for p in range(0, inputs, step):
        some = slice(p, min(p + step, inputs))
        count = some.stop - some.start
        keys = (first[:, some] + intervals * column[:count]).flatten()
        keys, ranks = keys.sort(stable=True)
        # Not by `bincount`, which would wait for a device to learn the length of its result.
        starts = torch.searchsorted(keys, torch.arange(count * intervals, device=keys.device))
        bags = ranks.div(count, rounding_mode="floor")
        for k, value in enumerate(values):
            weights = value[:, some].flatten()[ranks]
            sums = embedding_bag(bags, g, starts, per_sample_weights=weights, mode="sum")
            total[some, k : k + intervals] += sums.view(count, intervals, outputs)
    return total
