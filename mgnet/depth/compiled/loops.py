"""The loops over layers, compiled by numba: an interpreter for the operations of a layer.

A state is stored feature by feature, each as a row of S samples, so that vectors run over samples
and a matrix is read entry by entry. S is a multiple of `lanes`, the number of entries per vector.
All arrays are flat. For each value and its adjoint, and for each parameter and its gradient, a
table contains the position for layer 0, and the stride to the next layer. The operations are
described in `layer_code.py`. A call processes some samples of a batch, few enough that their data
stay in the cache for all layers.
"""
# pyright: reportCallIssue=false
# (numba's intrinsics have one argument fewer at the call than in their definition)

from __future__ import annotations

import math

from numba import njit

from mgnet.depth.compiled.functions import exp, gate, gate_slope, rectify, root, sigmoid, step, tanh
from mgnet.depth.compiled.operations import (
    ADD,
    AFFINE,
    ELU,
    FILL,
    GELU,
    GELU_TANH,
    LEAKY,
    LINEAR,
    MULTIPLY,
    NORM,
    RELU,
    SCALE,
    SHIFT,
    SIGMOID,
    SILU,
    SIN,
    SOFTPLUS,
    TANH,
    UNARY,
)
from mgnet.depth.compiled.products import ADDED, ALONE, BIASED, add_outer, product
from mgnet.simd import (
    equal,
    fused,
    load,
    minus,
    over,
    plus,
    prefetch,
    store,
    times,
    total,
    zeros,
)

__all__ = ["backward", "forward"]

ONE = (0,)
ROOT_HALF, ROOT_TWO_OVER_PI, CUBIC = math.sqrt(0.5), math.sqrt(2.0 / math.pi), 0.044715
BELL = 1.0 / math.sqrt(2.0 * math.pi)


@njit(cache=True, nogil=True)
def _fill(mem, y, rows, S, lanes, values, at, given):
    """Set each row of y to a number: from `values`, or 0."""
    for r in range(rows):
        number = values[at + r] if given else values.dtype.type(0.0)
        for t in range(0, S, lanes):
            store(mem, y + r * S + t, equal(mem, number, ONE))


@njit(cache=True, nogil=True)
def _curve(kind, extra, x):
    """Functions that are evaluated entry by entry."""
    if kind == GELU:
        return 0.5 * x * (1.0 + math.erf(x * ROOT_HALF))
    if kind == GELU_TANH:
        return 0.5 * x * (1.0 + math.tanh(ROOT_TWO_OVER_PI * (x + CUBIC * x * x * x)))
    if kind == SOFTPLUS:  # with PyTorch's threshold
        return x if x > 20.0 else max(x, 0.0) + math.log1p(math.exp(-abs(x)))
    if kind == ELU:
        return x if x > 0.0 else extra * math.expm1(x)
    if kind == LEAKY:
        return x if x > 0.0 else extra * x
    return math.sin(x) if kind == SIN else math.cos(x)


@njit(cache=True, nogil=True)
def _curve_slope(kind, extra, x):
    if kind == GELU:
        return 0.5 * (1.0 + math.erf(x * ROOT_HALF)) + x * BELL * math.exp(-0.5 * x * x)
    if kind == GELU_TANH:
        inner = math.tanh(ROOT_TWO_OVER_PI * (x + CUBIC * x * x * x))
        slope = ROOT_TWO_OVER_PI * (1.0 + 3.0 * CUBIC * x * x)
        return 0.5 * (1.0 + inner) + 0.5 * x * (1.0 - inner * inner) * slope
    if kind == SOFTPLUS:
        return 1.0 if x > 20.0 else 1.0 / (1.0 + math.exp(-x))
    if kind == ELU:
        return 1.0 if x > 0.0 else extra * math.exp(x)
    if kind == LEAKY:
        return 1.0 if x > 0.0 else extra
    return math.cos(x) if kind == SIN else -math.sin(x)


@njit(cache=True, nogil=True)
def _map(kind, extra, mem, x, y, rows, S, lanes):
    """Compute y = f(x)."""
    for r in range(rows):
        at = r * S
        if kind >= GELU:
            for t in range(at, at + S):
                mem[y + t] = _curve(kind, extra, mem[x + t])
            continue
        for t in range(at, at + S, lanes):
            v = load(mem, x + t, ONE)
            if kind == TANH:
                v = tanh(v)
            elif kind == SIGMOID:
                v = sigmoid(v)
            elif kind == RELU:
                v = rectify(v)
            elif kind == SILU:
                v = gate(v)
            else:
                v = exp(v)
            store(mem, y + t, v)


@njit(cache=True, nogil=True)
def _map_back(kind, extra, mem, x, y, of_y, of_x, first, rows, S, lanes):
    """Add f'(x) of_y to of_x, or set of_x to it if `first`; for some functions, y determines f'."""
    for r in range(rows):
        at = r * S
        if kind >= GELU:
            for t in range(at, at + S):
                g = mem[of_y + t] * _curve_slope(kind, extra, mem[x + t])
                mem[of_x + t] = g if first else mem[of_x + t] + g
            continue
        for t in range(at, at + S, lanes):
            g = load(mem, of_y + t, ONE)
            if kind == SILU:
                g = times(g, gate_slope(load(mem, x + t, ONE)))
            else:
                v = load(mem, y + t, ONE)
                if kind == TANH:
                    g = minus(g, times(times(g, v), v))
                elif kind == SIGMOID:
                    g = times(g, minus(v, times(v, v)))
                elif kind == RELU:
                    g = times(g, step(v))
                else:
                    g = times(g, v)
            if not first:
                g = plus(load(mem, of_x + t, ONE), g)
            store(mem, of_x + t, g)


@njit(cache=True, nogil=True)
def _norm(eps, mem, x, y, spread_at, rows, S, lanes):
    """Compute y = (x - mean) / deviation over the features; 1 / deviation is stored in a row."""
    for t in range(0, S, lanes):
        one = equal(mem, mem.dtype.type(1.0), ONE)
        share = equal(mem, mem.dtype.type(1.0 / rows), ONE)
        mean = zeros(mem, ONE, ONE)
        for r in range(rows):
            mean = plus(mean, load(mem, x + r * S + t, ONE))
        mean = times(mean, share)
        square = zeros(mem, ONE, ONE)
        for r in range(rows):
            v = minus(load(mem, x + r * S + t, ONE), mean)
            square = fused(square, v, v)
        square = plus(times(square, share), equal(mem, mem.dtype.type(eps), ONE))
        # If squares overflow, values that are too large must not become zeros.
        inverse = plus(over(one, root(square)), minus(square, square))
        store(mem, spread_at + t, inverse)
        for r in range(rows):
            v = minus(load(mem, x + r * S + t, ONE), mean)
            store(mem, y + r * S + t, times(v, inverse))


@njit(cache=True, nogil=True)
def _norm_back(mem, y, spread_at, of_y, of_x, first, rows, S, lanes):
    for t in range(0, S, lanes):
        share = equal(mem, mem.dtype.type(1.0 / rows), ONE)
        mean, along = zeros(mem, ONE, ONE), zeros(mem, ONE, ONE)
        for r in range(rows):
            g = load(mem, of_y + r * S + t, ONE)
            mean = plus(mean, g)
            along = fused(along, g, load(mem, y + r * S + t, ONE))
        mean, along = times(mean, share), times(along, share)
        inverse = load(mem, spread_at + t, ONE)
        for r in range(rows):
            g = minus(load(mem, of_y + r * S + t, ONE), mean)
            g = minus(g, times(load(mem, y + r * S + t, ONE), along))
            to = of_x + r * S + t
            g = times(g, inverse)
            store(mem, to, g if first else plus(load(mem, to, ONE), g))


@njit(cache=True, nogil=True)
def _combine(op, c, d, par, w, mem, x, z, y, rows, S, lanes):
    """Compute y = a + c b, a b, a + c v, a v, c a + d or a; weights v have one entry per row."""
    scale, added = equal(mem, c, ONE), equal(mem, d, ONE)
    factor = scale
    for r in range(rows):
        if op == SHIFT or op == SCALE:
            factor = equal(mem, par[w + r], ONE)
        for t in range(r * S, r * S + S, lanes):
            v = load(mem, x + t, ONE)
            if op == ADD:
                v = fused(v, factor, load(mem, z + t, ONE))
            elif op == MULTIPLY:
                v = times(v, load(mem, z + t, ONE))
            elif op == SHIFT:
                v = fused(v, scale, factor)
            elif op == SCALE:
                v = times(v, factor)
            elif op == AFFINE:
                v = fused(added, factor, v)
            store(mem, y + t, v)


@njit(cache=True, nogil=True)
def _combine_back(
    op, c, par, w, mem, x, z, of_y, of_x, of_z, first, sums, to, rows, S, lanes
):  # fmt: skip
    """Add the contributions of y's adjoint to those of a and b, and to the gradient of v.

    `first` states which adjoint is written for the first time: that of a (1), that of b (2), or
    both (3).
    """
    factor = equal(mem, c, ONE)
    summed = to >= 0 and (op == SCALE or op == SHIFT or op == FILL)
    for r in range(rows):
        if op == SCALE:
            factor = equal(mem, par[w + r], ONE)
        along = zeros(mem, ONE, ONE)
        for t in range(r * S, r * S + S, lanes):
            g = load(mem, of_y + t, ONE)
            if summed:
                along = fused(along, g, load(mem, x + t, ONE)) if op == SCALE else plus(along, g)
            if op == ADD or op == MULTIPLY:
                v = times(factor if op == ADD else load(mem, x + t, ONE), g)
                if first < 2:
                    v = plus(load(mem, of_z + t, ONE), v)
                store(mem, of_z + t, v)
            if op == AFFINE or op == SCALE:
                g = times(g, factor)
            elif op == MULTIPLY:
                g = times(g, load(mem, z + t, ONE))
            if op != FILL:
                if first & 1 == 0:
                    g = plus(load(mem, of_x + t, ONE), g)
                store(mem, of_x + t, g)
        if summed:
            sums[to + r] += c * total(along) if op == SHIFT else total(along)


@njit(cache=True, nogil=True)
def _step(mem, x, y, z, size, adds, more, rows, S, lanes):
    """Compute z = x + size y, or z = y; with `more`, add the result to the current z."""
    factor = equal(mem, size, ONE)
    for t in range(0, rows * S, lanes):
        v = load(mem, y + t, ONE)
        if adds:
            v = fused(load(mem, x + t, ONE), factor, v)
        if more:
            v = plus(v, load(mem, z + t, ONE))
        store(mem, z + t, v)


@njit(cache=True, nogil=True)
def forward(code, numbers, at, par, par_at, mem, rows_added, slope, adds, width, layers, S, lanes):
    """Process all layers, from the state at the position of layer 0.

    A state is value 0, with `width` features; the step is the only entry of parameter 0. The value
    with the number `slope`, times the step, is added to the state or replaces it. With
    `rows_added`, the numbers already stored at the position of the next state are added to it.
    """
    for n in range(layers):
        for k in range(len(code)):
            op, out, a, b, rows, columns, p, q, kind, _ = code[k]
            y, x, z = at[out, 0] + n * at[out, 1], at[a, 0] + n * at[a, 1], at[b, 0] + n * at[b, 1]
            w, v = par_at[p, 0] + n * par_at[p, 1], par_at[q, 0] + n * par_at[q, 1]
            c, d = numbers[k, 0], numbers[k, 1]
            if op == LINEAR:
                start = BIASED if q > 0 else ALONE
                product(start, par, w, v, mem, x, y, rows, columns, S, lanes)
            elif op == UNARY:
                _map(kind, c, mem, x, y, rows, S, lanes)
            elif op == NORM:
                _norm(c, mem, x, y, z, rows, S, lanes)
            elif op == FILL:
                _fill(mem, y, rows, S, lanes, par, w, True)
            else:
                _combine(op, c, d, par, w, mem, x, z, y, rows, S, lanes)
        x, y = at[0, 0] + n * at[0, 1], at[slope, 0] + n * at[slope, 1]
        size = par[par_at[0, 0] + n * par_at[0, 1]]
        _step(mem, x, y, x + at[0, 1], size, adds, rows_added, width, S, lanes)


@njit(cache=True, nogil=True)
def _slope_back(mem, lam, y, of_y, size, adds, width, S, lanes, sums, to):
    """The adjoint of the slope y, and the gradient with respect to the step."""
    along, factor = zeros(mem, ONE, ONE), equal(mem, size, ONE)
    for t in range(0, width * S, lanes):
        g = load(mem, lam + t, ONE)
        if to >= 0:
            along = fused(along, g, load(mem, y + t, ONE))
        if adds:
            g = times(g, factor)
        if of_y == lam:
            g = plus(load(mem, lam + t, ONE), g) if adds else g
        store(mem, of_y + t, g)
        if not adds and of_y != lam:
            store(mem, lam + t, zeros(mem, ONE, ONE))
    if to >= 0:
        sums[to] += total(along)


@njit(cache=True, nogil=True)
def backward(
    code, numbers, at, of, empty, source, after, by, turned, par, par_at, mem, sums, sums_at,
    slope, adds, width, layers, S, lanes,
):  # fmt: skip
    """Compute the adjoint from the last layer to the first, at the position of value 0's adjoint.

    `of` contains the positions of adjoints, as `at` contains those of values, and `empty` contains
    those of adjoints to be set to zero. `source`, unless negative, is the position of the gradients
    with respect to the states after each layer. If `after` is not negative, the numbers at this
    position (plus `by` per layer) are added to the adjoint before a layer, and the sum is written
    to the same position. Gradients with respect to parameters are added to `sums` at the
    nonnegative positions in `sums_at`; the numbers of a vector, or of a column of a matrix, fill
    whole vectors there. `turned` is space for the transposed rows of one adjoint.
    """
    one = mem.dtype.type(1.0)
    for n in range(layers - 1, -1, -1):
        if source >= 0:
            given = source + n * width * S
            _step(mem, of[0, 0], given, of[0, 0], one, True, False, width, S, lanes)
        for first, stride, rows in empty:
            _fill(mem, first + n * stride, rows, S, lanes, mem, 0, False)
        y, of_y = at[slope, 0] + n * at[slope, 1], of[slope, 0] + n * of[slope, 1]
        size, to = par[par_at[0, 0] + n * par_at[0, 1]], sums_at[0, 0] + n * sums_at[0, 1]
        _slope_back(mem, of[0, 0], y, of_y, size, adds, width, S, lanes, sums, to)
        for k in range(len(code) - 1, -1, -1):
            op, out, a, b, rows, columns, p, q, kind, first = code[k]
            y, x, z = at[out, 0] + n * at[out, 1], at[a, 0] + n * at[a, 1], at[b, 0] + n * at[b, 1]
            of_y, of_x = of[out, 0] + n * of[out, 1], of[a, 0] + n * of[a, 1]
            of_z, c = of[b, 0] + n * of[b, 1], numbers[k, 0]
            to = sums_at[p, 0] + n * sums_at[p, 1] if sums_at[p, 0] >= 0 else -1
            if op == LINEAR:  # the matrix is stored twice
                w = par_at[p + 1, 0] + n * par_at[p + 1, 1]
                if to >= 0:
                    for t in range(0, columns * S, lanes):  # old values, not in the cache
                        prefetch(mem, x + t)
                start = ALONE if first else ADDED
                product(start, par, w, 0, mem, of_y, of_x, columns, rows, S, lanes)
                bias = sums_at[q, 0] + n * sums_at[q, 1] if q > 0 and sums_at[q, 0] >= 0 else -1
                if to >= 0 or bias >= 0:
                    add_outer(mem, x, columns, of_y, rows, S, turned, sums, to, bias, lanes)
            elif op == UNARY:
                _map_back(kind, c, mem, x, y, of_y, of_x, first, rows, S, lanes)
            elif op == NORM:
                _norm_back(mem, y, z, of_y, of_x, first, rows, S, lanes)
            else:
                w = par_at[p, 0] + n * par_at[p, 1]
                _combine_back(
                    op, c, par, w, mem, x, z, of_y, of_x, of_z, first, sums, to, rows, S, lanes
                )  # fmt: skip
        if after >= 0:
            row = after + n * by
            _step(mem, of[0, 0], row, of[0, 0], one, True, False, width, S, lanes)
            _step(mem, row, of[0, 0], row, one, False, False, width, S, lanes)
