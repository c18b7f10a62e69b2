"""Products of the compiled loops: a matrix times rows of samples, and rows times rows.

Eight rows of a result remain in registers until they are complete, which reaches the machine's peak
rate as long as the operands are in the cache.
"""
# pyright: reportCallIssue=false
# (numba's intrinsics have one argument fewer at the call than in their definition)

from __future__ import annotations

from numba import njit

from mgnet.simd import (
    collect,
    load,
    plus,
    put,
    scatter,
    spread,
    spread_rows,
    store,
    transpose,
    zeros,
)

__all__ = ["ADDED", "ALONE", "BIASED", "add_outer", "product"]

ALONE, BIASED, ADDED = range(3)  # y = M x, M x + v, y + M x
ONE, TWO, FOUR, EIGHT = (0,), (0, 0), (0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0, 0)


@njit(cache=True, nogil=True)
def _tile(order, start, par, w, v, stride, mem, x, y, columns, S):
    """Compute as many rows of a product as `order` has entries, for one vector of samples."""
    block = spread(par, v, order) if start == BIASED else zeros(mem, order, ONE)
    for j in range(columns):
        block = collect(block, spread(par, w + j * stride, order), load(mem, x + j * S, ONE))
    if start == ADDED:
        scatter(block, order, mem, y, S)
    else:
        put(block, order, mem, y, S)


@njit(cache=True, nogil=True)
def product(start, par, w, v, mem, x, y, rows, columns, S, lanes):
    """Compute y = M x, plus v or the current y; entry (i, j) of M is par[w + j rows + i]."""
    i = 0
    while i < rows:
        left, at = rows - i, y + i * S
        taken = 8 if left >= 8 else 4 if left >= 4 else 2 if left >= 2 else 1
        for t in range(0, S, lanes):
            if taken == 8:
                _tile(EIGHT, start, par, w + i, v + i, rows, mem, x + t, at + t, columns, S)
            elif taken == 4:
                _tile(FOUR, start, par, w + i, v + i, rows, mem, x + t, at + t, columns, S)
            elif taken == 2:
                _tile(TWO, start, par, w + i, v + i, rows, mem, x + t, at + t, columns, S)
            else:
                _tile(ONE, start, par, w + i, v + i, rows, mem, x + t, at + t, columns, S)
        i += taken


@njit(cache=True, nogil=True)
def _outer_tile(order, mem, x, S, turned, wide, out, to):
    block = zeros(mem, order, ONE)
    for s in range(S):
        block = collect(block, spread_rows(mem, x + s, S, order), load(mem, turned + s * wide, ONE))
    scatter(block, order, out, to, wide)


@njit(cache=True, nogil=True)
def add_outer(mem, x, columns, g, rows, S, turned, out, to, bias, lanes):
    """Add the sums over samples of x_j g_i to out[to + j wide + i], and of g_i to out[bias + i].

    `wide` is `rows`, rounded up to whole vectors; the additional entries are meaningless. Either
    position may be negative; its sums are then skipped.
    """
    wide = -(-rows // lanes) * lanes
    for s in range(0, S, lanes):
        for i in range(0, rows, lanes):
            transpose(mem, g + i * S + s, S, turned + s * wide + i, wide)
    for i in range(0, rows, lanes):
        if bias >= 0:
            along = zeros(mem, ONE, ONE)
            for s in range(S):
                along = plus(along, load(mem, turned + s * wide + i, ONE))
            store(out, bias + i, plus(load(out, bias + i, ONE), along))
        j = 0 if to >= 0 else columns
        while j < columns:
            at, left = to + j * wide + i, columns - j
            if left >= 8:
                _outer_tile(EIGHT, mem, x + j * S, S, turned + i, wide, out, at)
            elif left >= 4:
                _outer_tile(FOUR, mem, x + j * S, S, turned + i, wide, out, at)
            else:
                _outer_tile(ONE, mem, x + j * S, S, turned + i, wide, out, at)
            j += 8 if left >= 8 else 4 if left >= 4 else 1
