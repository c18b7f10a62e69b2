"""Products with the rows of a `LocalJacobian`, compiled by numba (extra `fast`).

A row is a few runs of neighbouring columns, one for each input of a layer. `normal` reads J once
for `J^T J d`: memory is what bounds it. The oracle is SciPy's sparse matrix of the same entries.
`mgnet.knots.local_rows` imports this file on first use: numba takes a second to load.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["coarsened", "element_matrices", "matvec", "normal", "rmatvec"]

ROWS = 256  # at once: they stay in the cache between the product with J and that with J^T
SUMS = {"reassoc", "contract", "nsz"}  # sums may be reordered, so that they become vectors


@njit(cache=True, nogil=True, fastmath=SUMS)
def _forward(values, first, runs, d, begin, stop, image):
    """Add the products of rows `begin` to `stop` with d to the image."""
    at = 0
    for p in range(len(runs)):
        place, step, width = runs[p]
        for n in range(begin, stop):
            column = place + first[n, p] * step
            row, own = values[n, at : at + width], d[column : column + width]
            total = 0.0
            for k in range(width):
                total += row[k] * own[k]
            image[n - begin] += total
        at += width


@njit(cache=True, nogil=True, fastmath=SUMS)
def _backward(values, first, runs, y, begin, stop, total):
    """Add rows `begin` to `stop`, times the weights y, to the total."""
    at = 0
    for p in range(len(runs)):
        place, step, width = runs[p]
        for n in range(begin, stop):
            column = place + first[n, p] * step
            row, own = values[n, at : at + width], total[column : column + width]
            weight = y[n - begin]
            for k in range(width):
                own[k] += row[k] * weight
        at += width


@njit(cache=True, nogil=True)
def matvec(values, first, runs, d):
    """`J d`, shape (rows,).

    Parameters
    ----------
    values : array of shape (rows, entries)
        In float32 or float64; sums are in float64.
    first : int32 array of shape (rows, inputs)
        The knot interval of each input.
    runs : int64 array of shape (inputs, 3)
        Of each input: its first column, columns from one interval to the next, entries of a row.
    d : float64 array of shape (columns,)
    """
    image = np.zeros(len(values))
    _forward(values, first, runs, d, 0, len(values), image)
    return image


@njit(cache=True, nogil=True)
def rmatvec(values, first, runs, y, columns):
    """`J^T y`, shape (columns,); the other arguments as in `matvec`."""
    total = np.zeros(columns)
    _backward(values, first, runs, y, 0, len(values), total)
    return total


@njit(cache=True, nogil=True)
def normal(values, first, runs, d):
    """`J^T J d`, shape of d; arguments as in `matvec`."""
    total, image = np.zeros(len(d)), np.empty(ROWS)
    for begin in range(0, len(values), ROWS):
        stop = min(begin + ROWS, len(values))
        image[:] = 0.0
        _forward(values, first, runs, d, begin, stop, image)
        _backward(values, first, runs, image, begin, stop, total)
    return total


@njit(cache=True, nogil=True)
def _by_interval(first, intervals):
    """The rows in the order of their intervals, those of an interval in their own."""
    ends = np.zeros(intervals + 1, np.int64)
    for n in range(len(first)):
        ends[first[n] + 1] += 1
    ends = np.cumsum(ends)
    order = np.empty(len(first), np.int64)
    for n in range(len(first)):
        order[ends[first[n]]] = n
        ends[first[n]] += 1
    return order


@njit(cache=True, nogil=True, fastmath=SUMS)
def element_matrices(values, first, intervals):
    """`V^T V` of the rows V in each interval of one input: (intervals, width, width).

    Parameters
    ----------
    values : array of shape (rows, width)
    first : int32 array of shape (rows,)
    intervals : int
    """
    width, rows = values.shape[1], len(first)
    total = np.zeros((intervals, width, width))
    order = _by_interval(first, intervals)
    columns = np.empty((width, ROWS))  # of some rows of one interval
    begin = 0
    while begin < rows:
        interval, count = first[order[begin]], 0
        while begin < rows and count < ROWS and first[order[begin]] == interval:
            for i in range(width):
                columns[i, count] = values[order[begin], i]
            begin, count = begin + 1, count + 1
        for i in range(width):
            left = columns[i, :count]
            for k in range(i + 1):
                right = columns[k, :count]
                product = 0.0
                for n in range(count):
                    product += left[n] * right[n]
                total[interval, i, k] += product
    for interval in range(intervals):
        for i in range(width):
            for k in range(i):
                total[interval, k, i] = total[interval, i, k]
    return total


@njit(cache=True, nogil=True, fastmath=SUMS)
def coarsened(values, first, kept, runs, factors, onto, coarse):
    """Fill the array `coarse` (kept, entries) with rows in coarse splines.

    Parameters
    ----------
    values, first, runs : array
        As in `matvec`.
    kept : int64 array
        The rows that are taken.
    factors : int64 array of shape (inputs,)
        Fine intervals in a coarse one: 1 where an input stays, or one other number for all.
    onto : array of shape (1 + factor, coarse splines, fine splines)
        Of an interval that stays, and of each part of a coarse interval.
    """
    splines = onto.shape[1]
    total = np.empty(values.shape[1])
    for number in range(len(kept)):
        n = kept[number]
        total[:] = 0.0
        at = 0
        for p in range(len(runs)):
            outputs, width = runs[p, 1], runs[p, 2]
            part = 0 if factors[p] == 1 else 1 + first[n, p] % factors[p]
            for i in range(splines):
                own = total[at + i * outputs : at + (i + 1) * outputs]
                for j in range(splines):
                    fine = values[n, at + j * outputs : at + (j + 1) * outputs]
                    weight = onto[part, i, j]
                    for q in range(outputs):
                        own[q] += weight * fine[q]
            at += width
        coarse[number, :] = total
