"""Products with the rows of a `LocalJacobian`, compiled by numba (extra `fast`).

A row consists of a few runs of adjacent columns, one for each input of a layer. `normal` reads J
once for `J^T J d`, because it is limited by memory bandwidth. The tests compare the products with
those of SciPy's sparse matrices. `mgnet.knots.local_rows` imports this file on first use: numba
takes a second to load.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["coarsened", "element_matrices", "matvec", "normal", "rmatvec"]

ROWS = 256  # processed at once: they stay in the cache between the products with J and J^T
SUMS = {"reassoc", "contract", "nsz"}  # sums may be reordered, which allows vectorization


@njit(cache=True, nogil=True, fastmath=SUMS)
def _forward(values, first, runs, d, begin, stop, image):
    """Add the products of rows `begin` to `stop` with d to `image`."""
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
    """Add rows `begin` to `stop`, multiplied by the weights y, to `total`."""
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
    """Compute `J d`, shape (rows,).

    Parameters
    ----------
    values : array of shape (rows, entries)
        Entries of the rows, in float32 or float64; sums are in float64.
    first : int32 array of shape (rows, inputs)
        The knot interval of each input.
    runs : int64 array of shape (inputs, 3)
        For each input: first column, columns from one interval to the next, entries of a row.
    d : float64 array of shape (columns,)
        The vector.
    """
    image = np.zeros(len(values))
    _forward(values, first, runs, d, 0, len(values), image)
    return image


@njit(cache=True, nogil=True)
def rmatvec(values, first, runs, y, columns):
    """Compute `J^T y`, shape (columns,); the other arguments are those of `matvec`."""
    total = np.zeros(columns)
    _backward(values, first, runs, y, 0, len(values), total)
    return total


@njit(cache=True, nogil=True)
def normal(values, first, runs, d):
    """Compute `J^T J d`, with the shape of d; the arguments are those of `matvec`."""
    total, image = np.zeros(len(d)), np.empty(ROWS)
    for begin in range(0, len(values), ROWS):
        stop = min(begin + ROWS, len(values))
        image[:] = 0.0
        _forward(values, first, runs, d, begin, stop, image)
        _backward(values, first, runs, image, begin, stop, total)
    return total


@njit(cache=True, nogil=True)
def _by_interval(first, intervals):
    """Compute the order that sorts the rows by interval; the sort is stable."""
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
    """Compute `V^T V` for the rows V in each interval of one input: (intervals, width, width).

    Parameters
    ----------
    values : array of shape (rows, width)
        Entries of the rows.
    first : int32 array of shape (rows,)
        The knot interval of each row.
    intervals : int
        Number of intervals.
    """
    width, rows = values.shape[1], len(first)
    total = np.zeros((intervals, width, width))
    order = _by_interval(first, intervals)
    columns = np.empty((width, ROWS))  # for some rows of one interval
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
    """Fill the array `coarse` (kept, entries) with rows in terms of coarse splines.

    Parameters
    ----------
    values, first, runs : array
        The arrays of `matvec`.
    kept : int64 array
        The rows to use.
    factors : int64 array of shape (inputs,)
        Number of fine intervals per coarse interval: 1 for uncoarsened inputs, and the same number
        for all others.
    onto : array of shape (1 + factor, coarse splines, fine splines)
        Matrices for an interval that is not coarsened, and for each part of a coarse interval.
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
