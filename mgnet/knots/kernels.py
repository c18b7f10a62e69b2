"""Spline layers in one pass over the samples, compiled by numba (extra `fast`).

The basis is recomputed wherever it is needed, so nothing is stored but inputs and coefficients, and
only the degree + 1 splines that do not vanish at an input are touched, so the cost does not depend
on the number of intervals. Every sum has its oracle in `mgnet.knots.products`, in plain torch.
`mgnet.knots.layer` imports this file on first use: numba takes a second to load.

The loops are compiled without "fast" arithmetic: a sample's bits must not depend on its place in a
vector, nor on how the work is shared among threads. Their arrays are flat; `order` is a tuple of
degree + 1 entries, whose length the compiler knows.
"""
# pyright: reportCallIssue=false
# (what numba calls an intrinsic takes one argument less here than where it is defined)

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit

from mgnet.simd import BYTES, collect, gather, load, pull, scatter, spread, store, zeros
from mgnet.threads import share

__all__ = ["Pieces", "adjoint", "layer"]

ONE, FOUR = (0,), (0, 0, 0, 0)  # how many vectors the inner loops keep in registers


class Pieces(NamedTuple):
    """The splines of one interval as polynomials in the local coordinate s.

    Attributes
    ----------
    powers : array of shape (degree + 1, degree + 1)
        Of each spline, or of its derivative, the highest power first.
    ends : array of shape (2, degree + 1)
        Slopes of the continuation beyond the left and the right end.
    vanish : bool
        Whether the continuation is 0: that of a second or higher derivative.
    """

    powers: np.ndarray
    ends: np.ndarray
    vanish: bool


@njit(cache=True, nogil=True)
def _locate(x, at, count, span, last, stride, first, inside):
    """For `count` inputs: where their coefficients begin, and s; whether any is beyond the ends."""
    a, b, scale = span
    beyond = False
    for j in range(count):
        xj = x[at + j]
        beyond |= not (a <= xj <= b)
        held = xj if xj > a else a  # a NaN becomes a, so that no index is ever out of range
        held = held if held < b else b
        position = (held - a) * scale
        interval = min(np.int32(position), last)
        first[j] = interval * stride
        inside[j] = position - x.dtype.type(interval)
    return beyond


@njit(cache=True, nogil=True)
def _values(x, at, count, span, order, pieces, inside, beyond, values):
    """The values (input, spline) of the splines at s, continued beyond the ends."""
    powers, ends, vanish = pieces
    splines = len(order)
    for j in range(count):
        s = inside[j]
        for k in range(splines):
            value = powers[k, 0]
            for m in range(1, splines):
                value = value * s + powers[k, m]
            values[j * splines + k] = value
    if beyond:
        a, b, _ = span
        for j in range(count):
            xj = x[at + j]
            if not (a <= xj <= b):
                side, distance = (0, xj - a) if xj < a else (1, xj - b)
                for k in range(splines):
                    value = values[j * splines + k]
                    if xj != xj:
                        value = xj
                    elif vanish:
                        value = x.dtype.type(0)
                    elif ends[side, k] != 0:
                        value += ends[side, k] * distance
                    values[j * splines + k] = value


@njit(cache=True, nogil=True)
def _weigh(h, at, count, order, values):
    for j in range(count):
        for k in range(len(order)):
            values[j * len(order) + k] *= h[at + j]


@njit(cache=True, nogil=True)
def _add(like, values, first, here, order, U, at, size, stride, y, to):
    """Add to `y[to:]` what the inputs `here` give; their coefficients are `size` numbers apart."""
    total = load(y, to, like)
    for j in here:
        total = gather(total, spread(values, j * len(order), order), U, at + first[j], stride)
        at += size
    store(y, to, total)


@njit(cache=True, nogil=True)
def _layer(x, U, h, span, shape, order, pieces, y, start, stop):
    """For samples `start` to `stop`: `rows` samples, `tile` inputs at a time stay in the cache."""
    inputs, splines, outputs, rows, tile = shape
    count = len(order)
    lanes = BYTES // x.itemsize
    wide, whole = outputs // (4 * lanes) * (4 * lanes), outputs // lanes * lanes
    size = splines * outputs
    last, stride = np.int32(splines - count), np.int32(outputs)
    first = np.empty(rows * inputs, np.int32)
    inside = np.empty(rows * inputs, x.dtype)
    values = np.empty(rows * inputs * count, x.dtype)
    y[start * outputs : stop * outputs] = 0
    for n0 in range(start, stop, rows):
        n1 = min(n0 + rows, stop)
        at, many = n0 * inputs, (n1 - n0) * inputs
        beyond = _locate(x, at, many, span, last, stride, first, inside)
        _values(x, at, many, span, order, pieces, inside, beyond, values)
        if len(h):
            _weigh(h, at, many, order, values)
        for p0 in range(0, inputs, tile):
            for n in range(n0, n1):
                here = range((n - n0) * inputs + p0, (n - n0) * inputs + min(p0 + tile, inputs))
                row, to = p0 * size, n * outputs
                for c in range(0, wide, 4 * lanes):
                    _add(FOUR, values, first, here, order, U, row + c, size, outputs, y, to + c)
                for c in range(wide, whole, lanes):
                    _add(ONE, values, first, here, order, U, row + c, size, outputs, y, to + c)
                for c in range(whole, outputs):
                    number, at = y[to + c], row + c
                    for j in here:
                        for k in range(count):
                            number += values[j * count + k] * U[at + first[j] + k * outputs]
                        at += size
                    y[to + c] = number


@njit(cache=True, nogil=True)
def _sort(first, count, bins, ranks):
    """Order samples by interval: their numbers in `ranks`, where each interval ends in `bins`."""
    bins[:] = 0
    for j in range(count):
        bins[first[j]] += 1
    total = 0
    for i in range(len(bins)):
        total, bins[i] = total + bins[i], total
    for j in range(count):
        ranks[bins[first[j]]] = j
        bins[first[j]] += 1


@njit(cache=True, nogil=True)
def _run(like, ranks, slopes, values, order, wanted, U, g, gU, row, at, stride, pulled):
    """The samples of one interval: what they pull, and their sum, which stays in registers."""
    for_pull, for_sum = wanted
    count = len(order)
    block = zeros(U, order, like)
    for j in ranks:
        cotangent = load(g, at + j * stride, like)
        if for_pull:
            pulled[j] += pull(cotangent, spread(slopes, j * count, order), U, row, stride)
        if for_sum:
            block = collect(block, spread(values, j * count, order), cotangent)
    if for_sum:
        scatter(block, order, gU, row, stride)


@njit(cache=True, nogil=True)
def _run_scalar(ranks, slopes, values, count, wanted, U, g, gU, row, at, stride, pulled):
    for j in ranks:
        number = g[at + j * stride]
        for k in range(count):
            if wanted[0]:
                pulled[j] += number * slopes[j * count + k] * U[row + k * stride]
            if wanted[1]:
                gU[row + k * stride] += number * values[j * count + k]


@njit(cache=True, nogil=True)
def _adjoint(x, U, g, h, span, shape, order, wanted, for_x, for_U, gx, gU, start, stop):
    """For inputs `start` to `stop`; x, h and gx are (inputs, samples) here."""
    samples, splines, outputs, rows = shape
    for_pull, for_sum = wanted
    count = len(order)
    lanes = BYTES // x.itemsize
    wide, whole = outputs // (4 * lanes) * (4 * lanes), outputs // lanes * lanes
    last, step = np.int32(splines - count), np.int32(1)
    first, ranks = np.empty(rows, np.int32), np.empty(rows, np.int32)
    bins = np.empty(splines - count + 1, np.int32)
    inside, pulled = np.empty(rows, x.dtype), np.empty(rows, x.dtype)
    slopes, values = np.empty(rows * count, x.dtype), np.empty(rows * count, x.dtype)
    if for_sum:
        gU[start * splines * outputs : stop * splines * outputs] = 0
    for n0 in range(0, samples, rows):
        size = min(rows, samples - n0)
        for p in range(start, stop):
            at = p * samples + n0
            beyond = _locate(x, at, size, span, last, step, first, inside)
            if for_pull:
                _values(x, at, size, span, order, for_x, inside, beyond, slopes)
            if for_sum:
                _values(x, at, size, span, order, for_U, inside, beyond, values)
            if len(h):
                _weigh(h, at, size, order, values)
            _sort(first, size, bins, ranks)
            pulled[:] = 0
            begin = 0
            for i in range(len(bins)):
                these = ranks[begin : bins[i]]
                begin = bins[i]
                row, to = (p * splines + i) * outputs, n0 * outputs
                for c in range(0, wide if len(these) else 0, 4 * lanes):
                    _run(FOUR, these, slopes, values, order, wanted,
                         U, g, gU, row + c, to + c, outputs, pulled)  # fmt: skip
                for c in range(wide, whole if len(these) else 0, lanes):
                    _run(ONE, these, slopes, values, order, wanted,
                         U, g, gU, row + c, to + c, outputs, pulled)  # fmt: skip
                for c in range(whole, outputs):
                    _run_scalar(these, slopes, values, count, wanted,
                                U, g, gU, row + c, to + c, outputs, pulled)  # fmt: skip
            if for_pull:
                gx[at : at + size] = pulled[:size]


# `start` and `stop` above part the work among threads: samples for the layer, inputs for the
# adjoint, so that no sum depends on the number of threads.

# Products, about a millisecond of one thread. Waking a thread takes a tenth of that, and longer
# while those of torch, which spin for a while after their work, hold its core.
WORTH = 50_000_000


def _share(work: Callable[[int, int], None], size: int, cost: int) -> None:
    """Call `work(start, stop)` for parts of range(size) on as many threads as torch uses."""
    share(work, size, torch.get_num_threads() if cost >= WORTH else 1)


class _Memory:
    """Numbers in memory, as NumPy asks for them. It does not keep them alive.

    `Tensor.numpy()` would forbid for good to resize the tensor's storage, as FSDP does between the
    passes of its parameters.
    """

    __slots__ = ("__array_interface__",)

    def __init__(self, tensor: torch.Tensor):
        self.__array_interface__ = {
            "data": (tensor.data_ptr(), False),
            "shape": (tensor.numel(),),
            "typestr": "=f4" if tensor.dtype == torch.float32 else "=f8",
            "version": 3,
        }


def _flat_parameter(tensor: torch.Tensor) -> np.ndarray:
    """The numbers of a contiguous tensor, which must live on."""
    if tensor.numel():
        return np.asarray(_Memory(tensor))
    return np.empty(0, np.float32 if tensor.dtype == torch.float32 else np.float64)


def _flat(tensor: torch.Tensor | None, like: torch.Tensor) -> np.ndarray:
    if tensor is None:
        tensor = like.new_empty(0)
    return tensor.detach().contiguous().numpy().reshape(-1)


def _span(x: torch.Tensor, intervals: int, domain: tuple[float, float]) -> tuple[Any, ...]:
    number = np.float32 if x.dtype == torch.float32 else np.float64
    a, b = domain
    return number(a), number(b), number(intervals / (b - a))


def layer(
    x: torch.Tensor,
    U: torch.Tensor,
    h: torch.Tensor | None,
    intervals: int,
    domain: tuple[float, float],
    pieces: Pieces,
) -> torch.Tensor:
    """`y[n, q] = sum_p h[n, p] sum_i U[p, i, q] b_i(x[n, p])`; h = None stands for ones.

    Parameters
    ----------
    x, h : tensor of shape (samples, inputs)
    U : tensor of shape (inputs, splines, outputs)
    intervals : int
    domain : (float, float)
    pieces : Pieces
        Of b, a spline or a derivative of one, in the precision of x.

    Returns
    -------
    tensor of shape (samples, outputs)
    """
    samples, (inputs, splines, outputs) = len(x), U.shape
    y = x.new_empty(samples, outputs)
    U = U.contiguous()
    flat = _flat(x, x), _flat_parameter(U), _flat(h, x)
    order = (0,) * pieces.powers.shape[1]
    rows = min(samples, 1 + 16384 // inputs)
    tile = min(inputs, max(4, 32768 // (splines * outputs * x.itemsize)))
    shape = inputs, splines, outputs, max(rows, 1), tile
    out = y.numpy().reshape(-1)

    def work(start: int, stop: int) -> None:
        span = _span(x, intervals, domain)
        _layer(*flat, span, shape, order, tuple(pieces), out, start, stop)

    _share(work, samples, samples * inputs * outputs * len(order))
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
    """Both products with g of shape (samples, outputs), in one pass; empty where not asked for.

    Returns
    -------
    (tensor of shape (samples, inputs), tensor of shape (inputs, splines, outputs))
        `sum_iq U[p, i, q] b_i(x[n, p]) g[n, q]`, with b of `for_x`, and
        `sum_n h[n, p] b_i(x[n, p]) g[n, q]`, with b of `for_U`.
    """
    samples, (inputs, splines, outputs) = len(x), U.shape
    wanted = for_x is not None, for_U is not None
    gx = x.new_empty((inputs, samples) if wanted[0] else (0, 0))
    gU = x.new_empty(U.shape if wanted[1] else 0)
    U = U.contiguous()
    of_h = _flat(None if h is None else h.T, x)
    flat = _flat(x.T, x), _flat_parameter(U), _flat(g, x), of_h
    any_pieces: Any = for_x or for_U  # one must do for the other: arguments have fixed types
    pieces = tuple(tuple(piece or any_pieces) for piece in (for_x, for_U))
    order = (0,) * any_pieces.powers.shape[1]
    shape = samples, splines, outputs, max(min(samples, 1024), 1)
    outs = gx.numpy().reshape(-1), gU.numpy().reshape(-1)

    def work(start: int, stop: int) -> None:
        span = _span(x, intervals, domain)
        _adjoint(*flat, span, shape, order, wanted, *pieces, *outs, start, stop)

    _share(work, inputs, 2 * samples * inputs * outputs * len(order))
    return (gx.T.contiguous() if wanted[0] else x.new_empty(0)), gU
