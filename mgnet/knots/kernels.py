"""Spline layers in one pass over the samples, compiled by numba (extra `fast`).

The basis is recomputed wherever it is needed, so nothing is stored but inputs and coefficients, and
only the degree + 1 splines that do not vanish at an input are touched, so the cost does not depend
on the number of intervals. LLVM does not vectorise these loops by itself (it cannot know that the
arrays do not overlap), so they are written with explicit vectors, `Lanes`.

Every kernel has its oracle in `mgnet.knots.products`, the same sums in plain torch. The only file
of this folder that imports numba; imported on first use, since numba takes a second to load.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import numpy as np
import torch

try:
    from llvmlite import ir
    from numba import njit, types
    from numba.extending import intrinsic, models, register_model
except ImportError as error:  # layer.py looks for numba before it comes here
    raise ImportError("mgnet.knots.kernels needs numba: pip install numba") from error

__all__ = ["Pieces", "adjoint", "layer"]

BYTES = 64  # of one vector: AVX-512's; other machines take two or four of theirs
ONE, FOUR = (0,), (0, 0, 0, 0)  # how many vectors the inner loops keep in registers
INT32 = ir.IntType(32)


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


# Vectors. `Lanes(float32, 4)` are 4 vectors of 16 numbers each.


class Lanes(types.Type):
    """The type of `count` vectors of 64 bytes."""

    def __init__(self, scalar: Any, count: int):
        self.scalar = scalar
        self.count = count
        super().__init__(name=f"Lanes({scalar}, {count})")


def _vector(scalar: Any) -> Any:
    number = ir.FloatType() if scalar.bitwidth == 32 else ir.DoubleType()
    return ir.VectorType(number, 8 * BYTES // scalar.bitwidth)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes):
        super().__init__(manager, lanes, ir.ArrayType(_vector(lanes.scalar), lanes.count))


class _Table:
    """Addresses in a flat array, while code is generated."""

    def __init__(self, context: Any, builder: Any, table: Any, value: Any):
        self.builder = builder
        self.start = context.make_array(table)(context, builder, value).data
        self.vector = _vector(table.dtype)
        self.align = table.dtype.bitwidth // 8

    def address(self, offset: Any, vectors: int = 0) -> Any:
        offset = self.builder.add(offset, ir.Constant(offset.type, vectors * self.vector.count))
        return self.builder.bitcast(
            self.builder.gep(self.start, [offset]), self.vector.as_pointer()
        )

    def load(self, offset: Any, vectors: int = 0) -> Any:
        return self.builder.load(self.address(offset, vectors), align=self.align)

    def store(self, value: Any, offset: Any, vectors: int = 0) -> None:
        self.builder.store(value, self.address(offset, vectors), align=self.align)


def _add_product(builder: Any, total: Any, a: Any, b: Any) -> Any:
    """total + a b, fused where the machine can: always the same way, unlike "fast" arithmetic."""
    if total is None:
        return builder.fmul(a, b)
    name = f"llvm.fmuladd.v{a.type.count}f{8 * BYTES // a.type.count}"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, [a, b, total])


def _combination(builder: Any, rows: _Table, weights: list[Any], at: Any, m: int, stride: Any):
    """The m-th vector of `sum_k weights[k] * rows[at + k stride]`."""
    total = None
    for weight in weights:
        total = _add_product(builder, total, weight, rows.load(at, m))
        at = builder.add(at, stride)
    return total


def _unpack(builder: Any, lanes: Lanes, value: Any) -> list[Any]:
    return [builder.extract_value(value, k) for k in range(lanes.count)]


def _pack(builder: Any, vectors: list[Any]) -> Any:
    packed = ir.Constant(ir.ArrayType(vectors[0].type, len(vectors)), ir.Undefined)
    for k, vector in enumerate(vectors):
        packed = builder.insert_value(packed, vector, k)
    return packed


@intrinsic
def load(typing, table, at, like):
    """As many vectors from `table[at:]` as the tuple `like` has entries."""

    def generate(context, builder, signature, args):
        rows = _Table(context, builder, table, args[0])
        return _pack(builder, [rows.load(args[1], m) for m in range(like.count)])

    return Lanes(table.dtype, like.count)(table, at, like), generate


@intrinsic
def store(typing, table, at, value):
    """Write vectors to `table[at:]`."""

    def generate(context, builder, signature, args):
        rows = _Table(context, builder, table, args[0])
        for m, vector in enumerate(_unpack(builder, value, args[2])):
            rows.store(vector, args[1], m)
        return context.get_dummy_value()

    return types.void(table, at, value), generate


@intrinsic
def spread(typing, table, at, like):
    """A vector of equal numbers for each of `table[at], table[at + 1], ...`."""

    def generate(context, builder, signature, args):
        rows = _Table(context, builder, table, args[0])
        none = ir.Constant(rows.vector, ir.Undefined)
        first = ir.Constant(ir.VectorType(INT32, rows.vector.count), [0] * rows.vector.count)
        vectors = []
        for k in range(like.count):
            at = builder.add(args[1], ir.Constant(args[1].type, k))
            number = builder.load(builder.gep(rows.start, [at]))
            one = builder.insert_element(none, number, ir.Constant(INT32, 0))
            vectors.append(builder.shuffle_vector(one, none, first))
        return _pack(builder, vectors)

    return Lanes(table.dtype, like.count)(table, at, like), generate


@intrinsic
def gather(typing, total, weights, table, at, stride):
    """`total + sum_k weights[k] * table[at + k stride:]`."""

    def generate(context, builder, signature, args):
        rows = _Table(context, builder, table, args[2])
        scales = _unpack(builder, weights, args[1])
        sums = []
        for m, old in enumerate(_unpack(builder, total, args[0])):
            # The sum first, then the total: the chain from one input to the next is one addition.
            new = _combination(builder, rows, scales, args[3], m, args[4])
            sums.append(builder.fadd(old, new))
        return _pack(builder, sums)

    return total(total, weights, table, at, stride), generate


@intrinsic
def zeros(typing, table, order, like):
    """A block of vectors 0, one for each entry of `order` and each of `like`."""
    lanes = Lanes(table.dtype, order.count * like.count)

    def generate(context, builder, signature, args):
        return ir.Constant(ir.ArrayType(_vector(table.dtype), lanes.count), None)

    return lanes(table, order, like), generate


@intrinsic
def collect(typing, block, weights, value):
    """Add `weights[k] * value` to row k of the block, for all k."""

    def generate(context, builder, signature, args):
        sums = _unpack(builder, block, args[0])
        vectors = _unpack(builder, value, args[2])
        for k, weight in enumerate(_unpack(builder, weights, args[1])):
            for m, vector in enumerate(vectors):
                at = k * len(vectors) + m
                sums[at] = _add_product(builder, sums[at], weight, vector)
        return _pack(builder, sums)

    return block(block, weights, value), generate


@intrinsic
def scatter(typing, block, order, table, at, stride):
    """`table[at + k stride:] += row k of the block`, for all k."""
    wide = block.count // order.count

    def generate(context, builder, signature, args):
        rows = _Table(context, builder, table, args[2])
        at = args[3]
        for k, vector in enumerate(_unpack(builder, block, args[0])):
            rows.store(builder.fadd(rows.load(at, k % wide), vector), at, k % wide)
            if k % wide == wide - 1:
                at = builder.add(at, args[4])
        return context.get_dummy_value()

    return types.void(block, order, table, at, stride), generate


@intrinsic
def pull(typing, value, weights, table, at, stride):
    """The number `sum_k weights[k] <value, table[at + k stride:]>`."""

    def generate(context, builder, signature, args):
        rows = _Table(context, builder, table, args[2])
        scales = _unpack(builder, weights, args[1])
        total = None
        for m, vector in enumerate(_unpack(builder, value, args[0])):
            row = _combination(builder, rows, scales, args[3], m, args[4])
            total = _add_product(builder, total, vector, row)
        width = rows.vector.count
        while width > 1:
            width //= 2
            halves = [
                builder.shuffle_vector(
                    total,
                    total,
                    ir.Constant(ir.VectorType(INT32, width), list(range(k, k + width))),
                )
                for k in (0, width)
            ]
            total = builder.fadd(*halves)
        return builder.extract_element(total, ir.Constant(INT32, 0))

    return value.scalar(value, weights, table, at, stride), generate


# The loops, without "fast" arithmetic: a sample's bits must not depend on its place in a vector, nor
# on where the work is parted among threads. All arrays are flat; `order` is a tuple of degree + 1 entries, whose length the
# compiler knows. Blocks of samples keep the basis in the cache, tiles of inputs the coefficients.


@njit(cache=True, nogil=True)
def _locate(x, at, count, span, last, stride, to, first, inside):
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
        first[to + j] = interval * stride
        inside[to + j] = position - x.dtype.type(interval)
    return beyond


@njit(cache=True, nogil=True)
def _values(x, at, count, span, order, pieces, to, inside, beyond, values):
    """The values (input, spline) of the splines at s, continued beyond the ends."""
    powers, ends, vanish = pieces
    splines = len(order)
    for j in range(to, to + count):
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
                    value = values[(to + j) * splines + k]
                    if xj != xj:
                        value = xj
                    elif vanish:
                        value = x.dtype.type(0)
                    elif ends[side, k] != 0:
                        value += ends[side, k] * distance
                    values[(to + j) * splines + k] = value


@njit(cache=True, nogil=True)
def _weigh(h, at, count, order, to, values):
    for j in range(count):
        for k in range(len(order)):
            values[(to + j) * len(order) + k] *= h[at + j]


@njit(cache=True, nogil=True)
def _layer(x, U, h, span, shape, order, pieces, y, start, stop):
    inputs, splines, outputs, rows, tile = shape
    count = len(order)
    lanes = BYTES // x.itemsize
    wide = outputs // (4 * lanes) * (4 * lanes)
    whole = outputs // lanes * lanes
    last, stride = np.int32(splines - count), np.int32(outputs)
    first = np.empty(rows * inputs, np.int32)
    inside = np.empty(rows * inputs, x.dtype)
    values = np.empty(rows * inputs * count, x.dtype)
    y[start * outputs : stop * outputs] = 0
    for n0 in range(start, stop, rows):
        n1 = min(n0 + rows, stop)
        at, size = n0 * inputs, (n1 - n0) * inputs
        beyond = _locate(x, at, size, span, last, stride, 0, first, inside)
        _values(x, at, size, span, order, pieces, 0, inside, beyond, values)
        if len(h):
            _weigh(h, at, size, order, 0, values)
        for p0 in range(0, inputs, tile):
            for n in range(n0, n1):
                here = range((n - n0) * inputs + p0, (n - n0) * inputs + min(p0 + tile, inputs))
                row0 = p0 * splines * outputs
                for c in range(0, wide, 4 * lanes):
                    total = load(y, n * outputs + c, FOUR)
                    row = row0 + c
                    for j in here:
                        weights = spread(values, j * count, order)
                        total = gather(total, weights, U, row + first[j], outputs)
                        row += splines * outputs
                    store(y, n * outputs + c, total)
                for c in range(wide, whole, lanes):
                    one = load(y, n * outputs + c, ONE)
                    row = row0 + c
                    for j in here:
                        weights = spread(values, j * count, order)
                        one = gather(one, weights, U, row + first[j], outputs)
                        row += splines * outputs
                    store(y, n * outputs + c, one)
                for c in range(whole, outputs):
                    number = y[n * outputs + c]
                    row = row0 + c
                    for j in here:
                        for k in range(count):
                            number += values[j * count + k] * U[row + first[j] + k * outputs]
                        row += splines * outputs
                    y[n * outputs + c] = number


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
def _adjoint(x, U, g, h, span, shape, order, wanted, for_x, for_U, gx, gU, start, stop):
    """x, h and gx are (inputs, samples) here: one input is treated after the other.

    Samples in one interval come one after the other, so that their share of gU stays in registers.
    """
    samples, splines, outputs, rows = shape
    for_pull, for_sum = wanted
    count = len(order)
    lanes = BYTES // x.itemsize
    wide = outputs // (4 * lanes) * (4 * lanes)
    whole = outputs // lanes * lanes
    first, ranks = np.empty(rows, np.int32), np.empty(rows, np.int32)
    bins = np.empty(splines - count + 1, np.int32)
    inside, pulled = np.empty(rows, x.dtype), np.empty(rows, x.dtype)
    pulls, values = np.empty(rows * count, x.dtype), np.empty(rows * count, x.dtype)
    if for_sum:
        gU[start * splines * outputs : stop * splines * outputs] = 0
    for n0 in range(0, samples, rows):
        size = min(rows, samples - n0)
        for p in range(start, stop):
            at = p * samples + n0
            last = np.int32(splines - count)
            beyond = _locate(x, at, size, span, last, np.int32(1), 0, first, inside)
            if for_pull:
                _values(x, at, size, span, order, for_x, 0, inside, beyond, pulls)
            if for_sum:
                _values(x, at, size, span, order, for_U, 0, inside, beyond, values)
            if len(h):
                _weigh(h, at, size, order, 0, values)
            _sort(first, size, bins, ranks)
            pulled[:] = 0
            begin = 0
            for i in range(len(bins)):
                end = bins[i]
                if end == begin:
                    continue
                row = (p * splines + i) * outputs
                for c in range(0, wide, 4 * lanes):
                    block = zeros(U, order, FOUR)
                    for r in range(begin, end):
                        j = ranks[r]
                        four = load(g, (n0 + j) * outputs + c, FOUR)
                        if for_pull:
                            slopes = spread(pulls, j * count, order)
                            pulled[j] += pull(four, slopes, U, row + c, outputs)
                        if for_sum:
                            weights = spread(values, j * count, order)
                            block = collect(block, weights, four)
                    if for_sum:
                        scatter(block, order, gU, row + c, outputs)
                for c in range(wide, whole, lanes):
                    narrow = zeros(U, order, ONE)
                    for r in range(begin, end):
                        j = ranks[r]
                        one = load(g, (n0 + j) * outputs + c, ONE)
                        if for_pull:
                            slopes = spread(pulls, j * count, order)
                            pulled[j] += pull(one, slopes, U, row + c, outputs)
                        if for_sum:
                            weights = spread(values, j * count, order)
                            narrow = collect(narrow, weights, one)
                    if for_sum:
                        scatter(narrow, order, gU, row + c, outputs)
                for c in range(whole, outputs):
                    for r in range(begin, end):
                        j = ranks[r]
                        number = g[(n0 + j) * outputs + c]
                        for k in range(count):
                            at_k = row + c + k * outputs
                            if for_pull:
                                pulled[j] += number * pulls[j * count + k] * U[at_k]
                            if for_sum:
                                gU[at_k] += number * values[j * count + k]
                begin = end
            if for_pull:
                gx[at : at + size] = pulled[:size]


# What layer.py calls. `start` and `stop` above part the work among threads: samples for the layer,
# inputs for the adjoint, so that no sum depends on the number of threads.

_pools: dict[int, ThreadPoolExecutor] = {}
os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork


def _share(work: Callable[[int, int], None], size: int, cost: int) -> None:
    """Call `work(start, stop)` for parts of range(size) on as many threads as torch uses."""
    threads = min(torch.get_num_threads(), size)
    if threads <= 1 or cost < 200_000:  # operations; below, waking a thread takes longer
        work(0, size)
        return
    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(threads - 1, "mgnet-splines")
    ends = [size * part // threads for part in range(threads + 1)]
    others = [_pools[threads].submit(work, *ends[k : k + 2]) for k in range(1, threads)]
    work(*ends[:2])
    wait(others)
    for other in others:
        other.result()


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
    flat = [_flat(tensor, x) for tensor in (x, U, h)]
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
    flat = [_flat(tensor, x) for tensor in (x.T, U, g, None if h is None else h.T)]
    pieces = tuple(tuple(piece or for_x or for_U) for piece in (for_x, for_U))
    order = (0,) * pieces[0][0].shape[1]
    shape = samples, splines, outputs, max(min(samples, 1024), 1)
    outs = gx.numpy().reshape(-1), gU.numpy().reshape(-1)

    def work(start: int, stop: int) -> None:
        span = _span(x, intervals, domain)
        _adjoint(*flat, span, shape, order, wanted, *pieces, *outs, start, stop)

    _share(work, inputs, 2 * samples * inputs * outputs * len(order))
    return (gx.T.contiguous() if wanted[0] else x.new_empty(0)), gU
