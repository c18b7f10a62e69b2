"""Spline layers on a GPU, in kernels compiled by Triton (extra `gpu`).

The sums are those of `mgnet.knots.kernels`. The basis is recomputed wherever it is needed, and only
the degree + 1 splines that are nonzero at an input are accessed, so neither memory nor work grows
with the number of intervals. Numbers with 16 bits are read and written as such, but computations
are in float32. No sum depends on the order in which programs run: a program adds its own numbers
in a fixed order, and block sizes are fixed, not tuned. The sum over samples uses samples sorted by
interval, one run after another; long runs are divided into equal parts, which are added in order.
`mgnet.knots.layer` imports this file on first use. TRITON_INTERPRET=1 runs the kernels without a
GPU.
"""

from __future__ import annotations

import warnings
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import torch
import triton
import triton.language as tl

from mgnet.knots.spline import derivative_pieces

__all__ = ["Pieces", "adjoint", "layer", "pieces", "runs_on"]

ROWS, COLUMNS = 32, 64  # largest numbers of samples and outputs of one program
TOGETHER = 8  # samples of a run whose products are added side by side
OLDEST = (8, 0)  # least compute capability of Nvidia's GPUs that Triton supports
RUN = 1024  # samples of an interval per program if they are distributed evenly


class Pieces(NamedTuple):
    """The splines of one interval as polynomials in the local coordinate s, on the device.

    Attributes
    ----------
    table : tensor
        The ends of the domain and the intervals per unit length; (degree + 1, degree + 1)
        coefficients of the splines or their derivatives, highest power first; slopes beyond the
        left and the right end.
    degree, order : int
        Degree, and order of the derivative; the order `degree` also represents all higher ones,
        whose continuation is 0.
    """

    table: torch.Tensor
    degree: int
    order: int


def pieces(
    x: torch.Tensor, intervals: int, degree: int, domain: tuple[float, float], order: int
) -> Pieces:
    """The polynomials for x, sent to its device once; a CUDA graph could not record this."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    table = _table(intervals, degree, domain, order, dtype, x.device)
    return Pieces(table, degree, min(order, degree))


@lru_cache(maxsize=1024)
def _table(
    intervals: int,
    degree: int,
    domain: tuple[float, float],
    order: int,
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor:
    powers, ends = derivative_pieces(intervals, degree, domain, order)
    a, b = domain
    numbers = np.concatenate([[a, b, intervals / (b - a)], powers[:, ::-1].ravel(), ends.ravel()])
    return torch.from_numpy(numbers).to(device, dtype)


@cache
def runs_on(device: torch.device) -> bool:
    """Whether Triton supports the device; warns if it should but cannot start a kernel.

    Unlike torch, Triton needs a C compiler when it starts its first kernel.
    """
    if torch.cuda.get_device_capability(device) < OLDEST:
        return False
    x = torch.zeros(1, 1, device=device)
    try:
        layer(x, x.new_zeros(1, 2, 1), None, 1, (0.0, 1.0), pieces(x, 1, 1, (0.0, 1.0), 0))
    except Exception as error:
        warnings.warn(
            f"mgnet runs spline layers on {device} in plain torch, which is slower: Triton could "
            f"not start a kernel there ({type(error).__name__}: {error})",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


@triton.jit
def _located(x, table, intervals):
    """The interval of x, and s in it; NaN is moved to the left end, so no index is out of range."""
    a, b = tl.load(table), tl.load(table + 1)
    held = tl.where(x > a, x, a)
    held = tl.where(held < b, held, b)
    position = (held - a) * tl.load(table + 2)
    interval = tl.minimum(position.to(tl.int32), intervals - 1)
    return interval, position - interval.to(position.dtype)


@triton.jit
def _value(x, s, k, table, degree: tl.constexpr, order: tl.constexpr):
    """The k-th spline that is nonzero at x, continued beyond the ends."""
    a, b = tl.load(table), tl.load(table + 1)
    powers = table + 3 + k * (degree + 1)
    value = tl.load(powers + order) + 0.0 * s
    for m in tl.static_range(order + 1, degree + 1):
        value = value * s + tl.load(powers + m)
    if order == 0:
        ends = table + 3 + (degree + 1) * (degree + 1) + k
        slope = tl.where(x < a, tl.load(ends), tl.load(ends + degree + 1))
        distance = tl.where(x < a, x - a, x - b)
        beyond = ((x < a) | (x > b)) & (slope != 0.0)
        value = tl.where(beyond, value + slope * distance, value)
    if order > 1:
        value = tl.where((x < a) | (x > b), 0.0, value)
    return tl.where(x == x, value, x)


@triton.jit
def _layer(x, U, h, y, table, samples, inputs, outputs, intervals,
           degree: tl.constexpr, order: tl.constexpr, weighted: tl.constexpr,
           rows: tl.constexpr, columns: tl.constexpr):  # fmt: skip
    """The sum over all inputs, for some samples and some outputs."""
    number = table.dtype.element_ty
    n = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)
    q = tl.program_id(1) * columns + tl.arange(0, columns)
    here = (n < samples)[:, None] & (q < outputs)[None, :]
    total = tl.full((rows, columns), 0.0, number)
    for p in range(inputs):
        at = tl.load(x + n * inputs + p, n < samples, 0.0).to(number)
        first, s = _located(at, table, intervals)
        row = first.to(tl.int64) + p * (intervals + degree)
        for k in tl.static_range(degree + 1):
            value = _value(at, s, k, table, degree, order)
            if weighted:
                value *= tl.load(h + n * inputs + p, n < samples, 0.0).to(number)
            u = tl.load(U + ((row + k) * outputs)[:, None] + q[None, :], here, 0.0)
            total += value[:, None] * u.to(number)
    tl.store(y + (n * outputs)[:, None] + q[None, :], total.to(y.dtype.element_ty), here)


@triton.jit
def _pull(x, U, g, v, table, samples, inputs, outputs, intervals,
          degree: tl.constexpr, order: tl.constexpr,
          rows: tl.constexpr, columns: tl.constexpr):  # fmt: skip
    """The sum over splines and outputs, for some samples at one input."""
    number = table.dtype.element_ty
    p = tl.program_id(0) % inputs
    n = (tl.program_id(0) // inputs).to(tl.int64) * rows + tl.arange(0, rows)
    at = tl.load(x + n * inputs + p, n < samples, 0.0).to(number)
    first, s = _located(at, table, intervals)
    row = first.to(tl.int64) + p * (intervals + degree)
    total = tl.full((rows, columns), 0.0, number)
    for q0 in range(0, outputs, columns):
        q = q0 + tl.arange(0, columns)
        here = (n < samples)[:, None] & (q < outputs)[None, :]
        along = tl.full((rows, columns), 0.0, number)
        for k in tl.static_range(degree + 1):
            u = tl.load(U + ((row + k) * outputs)[:, None] + q[None, :], here, 0.0)
            along += _value(at, s, k, table, degree, order)[:, None] * u.to(number)
        total += along * tl.load(g + (n * outputs)[:, None] + q[None, :], here, 0.0).to(number)
    pulled = tl.sum(total, 1).to(v.dtype.element_ty)
    tl.store(v + n * inputs + p, pulled, n < samples)


@triton.jit
def _intervals(x, keys, table, samples, inputs, intervals, rows: tl.constexpr):
    """The intervals of some samples at one input, as rows (input, sample)."""
    p = tl.program_id(0) % inputs
    n = (tl.program_id(0) // inputs).to(tl.int64) * rows + tl.arange(0, rows)
    at = tl.load(x + n * inputs + p, n < samples, 0.0).to(table.dtype.element_ty)
    first, _ = _located(at, table, intervals)
    tl.store(keys + p.to(tl.int64) * samples + n, first, n < samples)


@triton.jit
def _run(x, g, h, ranks, starts, sums, table, samples, inputs, outputs, intervals, parts,
         degree: tl.constexpr, order: tl.constexpr, weighted: tl.constexpr,
         padded: tl.constexpr, together: tl.constexpr, columns: tl.constexpr):  # fmt: skip
    """The sums over a part of the samples of one interval, for the splines nonzero there.

    `padded` is the number of these splines, rounded up to a power of two.
    """
    number = table.dtype.element_ty
    run, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    p = run // intervals
    begin, end = tl.load(starts + run + p), tl.load(starts + run + p + 1)
    length = (end - begin + parts - 1) // parts
    begin += part * length
    end = tl.minimum(end, begin + length)
    k = tl.arange(0, padded)[:, None]
    known = tl.minimum(k, degree)
    q = tl.program_id(1) * columns + tl.arange(0, columns)
    total = tl.full((padded, together, columns), 0.0, number)
    for j in range(begin, end, together):
        place = j + tl.arange(0, together)
        n = tl.load(ranks + p.to(tl.int64) * samples + place, place < end, 0)
        at = tl.load(x + n * inputs + p, place < end, 0.0).to(number)[None, :]
        _, s = _located(at, table, intervals)
        value = _value(at, s, known, table, degree, order)
        if weighted:
            value *= tl.load(h + n * inputs + p, place < end, 0.0).to(number)[None, :]
        value = tl.where((place < end)[None, :], value, 0.0)
        here = (place < end)[:, None] & (q < outputs)[None, :]
        cotangent = tl.load(g + (n * outputs)[:, None] + q[None, :], here, 0.0).to(number)
        total += value[:, :, None] * cotangent[None, :, :]
    row = tl.program_id(0).to(tl.int64) * (degree + 1) + k
    tl.store(
        sums + row * outputs + q[None, :],
        tl.sum(total, 1),
        (k <= degree) & (q < outputs)[None, :],
    )


@triton.jit
def _gather(sums, V, table, outputs, intervals, parts,
            degree: tl.constexpr, columns: tl.constexpr):  # fmt: skip
    """The sum for one spline of one input, over the intervals on which it is nonzero."""
    splines = intervals + degree
    p, i = tl.program_id(0) // splines, tl.program_id(0) % splines
    q = tl.program_id(1) * columns + tl.arange(0, columns)
    total = tl.full((columns,), 0.0, table.dtype.element_ty)
    for k in tl.static_range(degree + 1):
        many = tl.where((i >= k) & (i - k < intervals), outputs, 0)
        for part in range(parts):
            row = ((p.to(tl.int64) * intervals + i - k) * parts + part) * (degree + 1) + k
            total += tl.load(sums + row * outputs + q, q < many, 0.0)
    at = tl.program_id(0).to(tl.int64) * outputs + q
    tl.store(V + at, total.to(V.dtype.element_ty), q < outputs)


def _columns(outputs: int) -> int:
    """Number of outputs of one program: a power of two."""
    return min(triton.next_power_of_2(outputs), COLUMNS)


def layer(
    x: torch.Tensor,
    U: torch.Tensor,
    h: torch.Tensor | None,
    intervals: int,
    domain: tuple[float, float],
    pieces: Pieces,
) -> torch.Tensor:
    """Compute `y[n, q] = sum_p h[n, p] sum_i U[p, i, q] b_i(x[n, p])`, with h = None for ones.

    Parameters
    ----------
    x, h : tensor of shape (samples, inputs)
        Inputs, and their weights.
    U : tensor of shape (inputs, splines, outputs)
        Coefficients.
    intervals : int
        Number of intervals of each spline.
    domain : (float, float)
        The interval of all splines.
    pieces : Pieces
        The functions b, splines or their derivatives.

    Returns
    -------
    tensor of shape (samples, outputs)
        The outputs.
    """
    samples, (inputs, _, outputs) = len(x), U.shape
    if not samples * inputs * outputs:
        return x.new_zeros(samples, outputs)
    x, U, weights = x.contiguous(), U.contiguous(), x if h is None else h.contiguous()
    y = x.new_empty(samples, outputs)
    table, degree, order = pieces
    columns = _columns(outputs)
    grid = triton.cdiv(samples, ROWS), triton.cdiv(outputs, columns)
    with torch.cuda.device_of(x):
        _layer[grid](x, U, weights, y, table, samples, inputs, outputs, intervals,
                     degree, order, h is not None, ROWS, columns,
                     enable_fp_fusion=True)  # fmt: skip
    return y


def adjoint(
    x: torch.Tensor,
    U: torch.Tensor,
    g: torch.Tensor,
    h: torch.Tensor | None,
    intervals: int,
    domain: tuple[float, float],
    for_x: Pieces | None,
    for_U: Pieces | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both products with g of shape (samples, outputs); empty if not requested.

    Returns
    -------
    (tensor of shape (samples, inputs), tensor of shape (inputs, splines, outputs))
        `sum_iq U[p, i, q] b_i(x[n, p]) g[n, q]` with the functions b in `for_x`, and
        `sum_n h[n, p] b_i(x[n, p]) g[n, q]` with the functions b in `for_U`.
    """
    v = x.new_empty(x.shape if for_x is not None else 0)
    V = x.new_empty(U.shape if for_U is not None else 0)
    if not x.numel() * U.shape[2]:
        return v.zero_(), V.zero_()
    x, U, g = x.contiguous(), U.contiguous(), g.contiguous()
    with torch.cuda.device_of(x):
        if for_x is not None:
            (samples, inputs), outputs = x.shape, U.shape[2]
            grid = (triton.cdiv(samples, ROWS) * inputs,)
            _pull[grid](x, U, g, v, for_x.table, samples, inputs, outputs, intervals,
                        for_x.degree, for_x.order, ROWS, _columns(outputs),
                        enable_fp_fusion=True)  # fmt: skip
        if for_U is not None:
            _scatter(x, g, None if h is None else h.contiguous(), intervals, for_U, V)
    return v, V


def _scatter(
    x: torch.Tensor,
    g: torch.Tensor,
    h: torch.Tensor | None,
    intervals: int,
    pieces: Pieces,
    V: torch.Tensor,
) -> None:
    """Fill V: sort the samples of each input by interval, sum each run, and collect the sums."""
    (samples, inputs), outputs = x.shape, g.shape[1]
    table, degree, order = pieces
    keys = torch.empty(inputs, samples, dtype=torch.int32, device=x.device)
    grid = (triton.cdiv(samples, ROWS) * inputs,)
    _intervals[grid](x, keys, table, samples, inputs, intervals, ROWS, enable_fp_fusion=True)
    keys, ranks = keys.sort(dim=1, stable=True)
    edges = torch.arange(intervals + 1, dtype=torch.int32, device=x.device)
    starts = torch.searchsorted(keys, edges.expand(inputs, -1).contiguous())
    parts = triton.cdiv(samples, RUN * intervals)
    sums = table.new_empty(inputs * intervals * parts, degree + 1, outputs)
    columns = _columns(outputs)
    across = triton.cdiv(outputs, columns)
    _run[len(sums), across](x, g, x if h is None else h, ranks, starts, sums, table,
                            samples, inputs, outputs, intervals, parts,
                            degree, order, h is not None,
                            triton.next_power_of_2(degree + 1), TOGETHER, columns,
                            enable_fp_fusion=True)  # fmt: skip
    grid = inputs * (intervals + degree), across
    _gather[grid](sums, V, table, outputs, intervals, parts, degree, columns, enable_fp_fusion=True)
