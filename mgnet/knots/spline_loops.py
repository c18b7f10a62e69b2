"""The loops of spline layers, compiled by numba (extra `fast`) and called by `mgnet.knots.kernels`.

They are compiled without "fast" arithmetic, because the bits of a sample must not depend on its
position in a vector or on the distribution of work over threads. The range from `start` to `stop`
contains samples for the layer and inputs for the adjoint, so no sum depends on the number of
threads. Arrays are flat; `order` is a tuple of degree + 1 entries, whose length the compiler knows.
"""
# pyright: reportCallIssue=false
# (numba's intrinsics have one argument less at the call than in their definition)

from __future__ import annotations

import numpy as np
from numba import njit

from mgnet.knots.team import borrowed, on_team
from mgnet.simd import BYTES, collect, gather, load, pull, scatter, spread, store, zeros

__all__ = ["adjoint", "adjoint_on_team", "layer", "layer_on_team"]

ONE, FOUR = (0,), (0, 0, 0, 0)  # number of vectors that the inner loops keep in registers
TOGETHER = 16  # inputs whose columns are read at once: those of a cache line, in float32
WAYS = 4  # buckets per interval if there are very few intervals, a power of two
DEALT, APART = 16, 128  # samples per interval from which buckets are used, and their number


@njit(cache=True, nogil=True)
def _locate(x, at, count, span, last, stride, first, inside):
    """Find the first coefficients and s for `count` inputs; return whether any input is outside."""
    a, b, scale = span
    beyond = False
    for j in range(count):
        xj = x[at + j]
        beyond |= not (a <= xj <= b)
        held = xj if xj > a else a  # NaN becomes a, so no index is out of range
        held = held if held < b else b
        position = (held - a) * scale
        interval = min(np.int32(position), last)
        first[j] = interval * stride
        inside[j] = position - x.dtype.type(interval)
    return beyond


@njit(cache=True, nogil=True)
def _values(x, at, count, span, order, pieces, inside, beyond, values):
    """Compute the values (input, spline) of the splines at s, continued beyond the ends."""
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
    """Add contributions of the inputs `here` to `y[to:]`; coefficients have the stride `size`."""
    total = load(y, to, like)
    for j in here:
        total = gather(total, spread(values, j * len(order), order), U, at + first[j], stride)
        at += size
    store(y, to, total)


@njit(cache=True, nogil=True)
def layer(x, U, h, span, shape, order, pieces, y, start, stop):
    """Process samples `start` to `stop`; `rows` samples and `tile` inputs fit into the cache."""
    x, U, h, y = borrowed(x), borrowed(U), borrowed(h), borrowed(y)
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
def layer_on_team(x, U, h, span, shape, order, pieces, y, size, threads, functions):
    """Run `layer` on all samples with several threads; return whether one of them failed."""
    arguments = x, U, h, span, shape, order, pieces, y
    return on_team(layer, arguments, size, threads, functions)


@njit(cache=True, nogil=True)
def _sort(first, count, ends, ranks):
    """Sort samples by interval: their numbers in `ranks`, the end of each interval in `ends`."""
    ends[:] = 0
    for j in range(count):
        ends[first[j]] += 1
    total = 0
    for i in range(len(ends)):
        total, ends[i] = total + ends[i], total
    for j in range(count):
        ranks[ends[first[j]]] = j
        ends[first[j]] += 1


@njit(cache=True, nogil=True)
def _deal(first, count, ways, room, ends, ranks):
    """Distribute samples over buckets in one pass: `ways` per interval, of size `room` each.

    With very few intervals, most samples are in the same interval as the previous sample and would
    have to wait for its counter; several buckets per interval avoid this.
    """
    for i in range(len(ends)):
        ends[i] = i * room
    for j in range(count):
        i = first[j] * ways + (j & (ways - 1))
        ranks[ends[i]] = j
        ends[i] += 1


@njit(cache=True, nogil=True)
def _turn(table, at, width, count, many, apart, rows):
    """Transpose columns of a table (samples, width) to rows, which start `apart` numbers apart."""
    for j in range(count):
        for k in range(many):
            rows[k * apart + j] = table[at + j * width + k]


@njit(cache=True, nogil=True)
def _turn_back(rows, count, many, apart, table, at, width):
    for j in range(count):
        for k in range(many):
            table[at + j * width + k] = rows[k * apart + j]


@njit(cache=True, nogil=True)
def _run(like, run, ranks, slopes, values, order, wanted, U, g, gU, row, at, stride, pulled, here):
    """Process the samples of one interval: their pulls, and their sum, which stays in registers."""
    for_pull, for_sum = wanted
    count = len(order)
    block = zeros(U, order, like)
    for place in range(*run):
        j = ranks[place]
        cotangent = load(g, at + j * stride, like)
        if for_pull:
            weights = spread(slopes, j * count, order)
            pulled[here + j] += pull(cotangent, weights, U, row, stride)
        if for_sum:
            block = collect(block, spread(values, j * count, order), cotangent)
    if for_sum:
        scatter(block, order, gU, row, stride)


@njit(cache=True, nogil=True)
def _run_scalar(run, ranks, slopes, values, count, wanted, U, g, gU, row, at, stride, pulled, here):
    for place in range(*run):
        j = ranks[place]
        number = g[at + j * stride]
        for k in range(count):
            if wanted[0]:
                pulled[here + j] += number * slopes[j * count + k] * U[row + k * stride]
            if wanted[1]:
                gU[row + k * stride] += number * values[j * count + k]


@njit(cache=True, nogil=True)
def _runs(buckets, ranks, slopes, values, order, wanted, U, g, gU, row, at, outputs, pulled, here):
    """Process all samples of one input, one interval after another."""
    ends, ways, room = buckets
    lanes = BYTES // U.itemsize
    wide, whole = outputs // (4 * lanes) * (4 * lanes), outputs // lanes * lanes
    begin = bucket = 0
    for _ in range(len(ends) // ways):
        for _ in range(ways):
            begin = bucket * room if room else begin
            run = begin, ends[bucket]
            begin = ends[bucket]
            bucket += 1
            if run[0] == run[1]:
                continue
            for c in range(0, wide, 4 * lanes):
                _run(FOUR, run, ranks, slopes, values, order, wanted,
                     U, g, gU, row + c, at + c, outputs, pulled, here)  # fmt: skip
            for c in range(wide, whole, lanes):
                _run(ONE, run, ranks, slopes, values, order, wanted,
                     U, g, gU, row + c, at + c, outputs, pulled, here)  # fmt: skip
            for c in range(whole, outputs):
                _run_scalar(run, ranks, slopes, values, len(order), wanted,
                            U, g, gU, row + c, at + c, outputs, pulled, here)  # fmt: skip
        row += outputs


@njit(cache=True, nogil=True)
def adjoint(x, U, g, h, span, shape, order, wanted, for_x, for_U, gx, gU, start, stop):
    """Process inputs `start` to `stop`, `TOGETHER` at a time, with `rows` samples at a time."""
    x, h, U, g = borrowed(x), borrowed(h), borrowed(U), borrowed(g)
    gx, gU = borrowed(gx), borrowed(gU)
    samples, inputs, splines, outputs, rows = shape
    for_pull, for_sum = wanted
    count = len(order)
    last, step = np.int32(splines - count), np.int32(1)
    dealt = rows >= DEALT * (last + 1)
    ways = WAYS if rows >= APART * (last + 1) else 1
    room = (rows + ways - 1) // ways if dealt else 0
    ends = np.empty((last + 1) * ways, np.int32)
    buckets = ends, ways, room
    ranks = np.empty(max(len(ends) * room, rows), np.uint16)
    first, inside = np.empty(rows, np.int32), np.empty(rows, x.dtype)
    slopes, values = np.empty(rows * count, x.dtype), np.empty(rows * count, x.dtype)
    apart = rows + TOGETHER  # a stride of whole pages would cause cache conflicts
    own, pulled = np.empty(TOGETHER * apart, x.dtype), np.empty(TOGETHER * apart, x.dtype)
    weights = np.empty(TOGETHER * apart if len(h) else 0, x.dtype)
    if for_sum:
        gU[start * splines * outputs : stop * splines * outputs] = 0
    for n0 in range(0, samples, rows):
        size = min(rows, samples - n0)
        for p0 in range(start, stop, TOGETHER):
            many, at = min(TOGETHER, stop - p0), n0 * inputs + p0
            _turn(x, at, inputs, size, many, apart, own)
            if len(h):
                _turn(h, at, inputs, size, many, apart, weights)
            pulled[:] = 0
            for p in range(many):
                here, row = p * apart, (p0 + p) * splines * outputs
                beyond = _locate(own, here, size, span, last, step, first, inside)
                if for_pull:
                    _values(own, here, size, span, order, for_x, inside, beyond, slopes)
                if for_sum:
                    _values(own, here, size, span, order, for_U, inside, beyond, values)
                if len(h):
                    _weigh(weights, here, size, order, values)
                if dealt:
                    _deal(first, size, ways, room, ends, ranks)
                else:
                    _sort(first, size, ends, ranks)
                _runs(buckets, ranks, slopes, values, order, wanted,
                      U, g, gU, row, n0 * outputs, outputs, pulled, here)  # fmt: skip
            if for_pull:
                _turn_back(pulled, size, many, apart, gx, at, inputs)


@njit(cache=True, nogil=True)
def adjoint_on_team(
    x, U, g, h, span, shape, order, wanted, for_x, for_U, gx, gU, size, threads, functions
):
    """Run `adjoint` on all inputs with several threads; return whether one of them failed."""
    arguments = x, U, g, h, span, shape, order, wanted, for_x, for_U, gx, gU
    return on_team(adjoint, arguments, size, threads, functions)
