"""The loops of `mgnet.kernels` in plain Python, for numba to compile.

Rows of the matrix are processed in order. If `r` is not empty, it is filled with the residual of
the result, `behind` rows later, while those rows are still in the cache.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "any_entry",
    "backward",
    "backward_from_zero",
    "chebyshev",
    "forward",
    "forward_from_zero",
    "incomplete_lu",
    "jacobi",
    "residual",
    "total",
]

# With unsigned indices numba omits a test for negative ones that takes longer than the arithmetic.
unsigned = np.uint64


def total(u):
    """The sum of u."""
    return u.sum()


def residual(indptr, indices, data, u, f, out):
    """`out = f - A u`."""
    for i in range(len(out)):
        total = f[i]
        for k in range(unsigned(indptr[i]), unsigned(indptr[i + 1])):
            total -= data[k] * u[unsigned(indices[k])]
        out[i] = total


def jacobi(indptr, indices, data, scale, u, f, out, r, behind):
    """`out = u + scale (f - A u)`."""
    for step in range(len(out) + behind):
        if step < len(out):
            total = f[step]
            for k in range(unsigned(indptr[step]), unsigned(indptr[step + 1])):
                total -= data[k] * u[unsigned(indices[k])]
            out[step] = u[step] + scale[step] * total
        i = step - behind
        if 0 <= i < len(r):
            total = f[i]
            for k in range(unsigned(indptr[i]), unsigned(indptr[i + 1])):
                total -= data[k] * out[unsigned(indices[k])]
            r[i] = total


def chebyshev(indptr, indices, data, scale, u, f, d, old, new, base, weight, out, r, behind):
    """`d = old d + new scale (f - A u)`, then `out = base + weight d`."""
    for step in range(len(out) + behind):
        if step < len(out):
            total = f[step]
            for k in range(unsigned(indptr[step]), unsigned(indptr[step + 1])):
                total -= data[k] * u[unsigned(indices[k])]
            d[step] = old * d[step] + new * (scale[step] * total)
            out[step] = base[step] + weight * d[step]
        i = step - behind
        if 0 <= i < len(r):
            total = f[i]
            for k in range(unsigned(indptr[i]), unsigned(indptr[i + 1])):
                total -= data[k] * out[unsigned(indices[k])]
            r[i] = total


def any_entry(u):
    """Whether any entry of u is not zero, from sums of absolute values, which vectorize."""
    for start in range(0, len(u), 256):
        part = 0.0
        for i in range(start, min(start + 256, len(u))):
            part += abs(u[unsigned(i)])
        if part != 0.0:
            return True
    return False


def forward(indptr, indices, data, inverse, u, f, r, behind):
    """A Gauss-Seidel sweep from the first row to the last."""
    # Each row is summed from its end: the neighbor that was just updated comes last, so that its
    # latency overlaps with the rest of the sum.
    for step in range(len(u) + behind):
        if step < len(u):
            total = f[step]
            last = indptr[step + 1] - 1
            for j in range(indptr[step + 1] - indptr[step]):
                k = unsigned(last - j)
                total -= data[k] * u[unsigned(indices[k])]
            u[step] += total * inverse[step]
        i = step - behind
        if 0 <= i < len(r):
            total = f[i]
            for k in range(unsigned(indptr[i]), unsigned(indptr[i + 1])):
                total -= data[k] * u[unsigned(indices[k])]
            r[i] = total


def backward(indptr, indices, data, inverse, u, f, r, behind):
    """A Gauss-Seidel sweep from the last row to the first."""
    for step in range(len(u) - 1, -1 - behind, -1):
        if step >= 0:
            total = f[step]
            for k in range(unsigned(indptr[step]), unsigned(indptr[step + 1])):
                total -= data[k] * u[unsigned(indices[k])]
            u[step] += total * inverse[step]
        i = step + behind
        if i < len(r):
            total = f[i]
            for k in range(unsigned(indptr[i]), unsigned(indptr[i + 1])):
                total -= data[k] * u[unsigned(indices[k])]
            r[i] = total


def forward_from_zero(indptr, indices, data, inverse, u, f, r, behind):
    """`forward` from u = 0, which need not be set; the columns of a row must be sorted.

    The upper half of the matrix is multiplied by zeros. The residual of the result is then minus
    the product with that half: the equations of the lower half and the diagonal are satisfied.
    """
    for step in range(len(u) + behind):
        if step < len(u):
            total = f[step]
            for k in range(unsigned(indptr[step]), unsigned(indptr[step + 1])):
                column = indices[k]
                if column >= step:
                    break
                total -= data[k] * u[unsigned(column)]
            u[step] = total * inverse[step]
        i = step - behind
        if 0 <= i < len(r):
            r[i] = 0
            total = r[i]
            last = indptr[i + 1] - 1
            for j in range(indptr[i + 1] - indptr[i]):
                k = unsigned(last - j)
                column = indices[k]
                if column <= i:
                    break
                total -= data[k] * u[unsigned(column)]
            r[i] = total


def backward_from_zero(indptr, indices, data, inverse, u, f, r, behind):
    """`backward` from u = 0, without the lower half, like `forward_from_zero`."""
    for step in range(len(u) - 1, -1 - behind, -1):
        if step >= 0:
            total = f[step]
            last = indptr[step + 1] - 1
            for j in range(indptr[step + 1] - indptr[step]):
                k = unsigned(last - j)
                column = indices[k]
                if column <= step:
                    break
                total -= data[k] * u[unsigned(column)]
            u[step] = total * inverse[step]
        i = step + behind
        if i < len(r):
            r[i] = 0
            total = r[i]
            for k in range(unsigned(indptr[i]), unsigned(indptr[i + 1])):
                column = indices[k]
                if column >= i:
                    break
                total -= data[k] * u[unsigned(column)]
            r[i] = total


def incomplete_lu(indptr, indices, data, diagonal, size, place, eps):
    """Compute ILU(0) in place; return the first row with a zero pivot, or the number of rows.

    `diagonal` holds the positions of the diagonal entries, `size` their sizes, to which those of
    all terms of a pivot are added, and `place` is -1 for each column.
    """
    for i in range(len(diagonal)):
        for k in range(unsigned(indptr[i]), unsigned(indptr[i + 1])):
            place[unsigned(indices[k])] = k
        for k in range(unsigned(indptr[i]), unsigned(diagonal[i])):
            row = unsigned(indices[k])
            data[k] /= data[diagonal[row]]
            for m in range(unsigned(diagonal[row] + 1), unsigned(indptr[row + unsigned(1)])):
                found = place[unsigned(indices[m])]
                if found >= 0:
                    part = data[k] * data[m]
                    data[found] -= part
                    if found == diagonal[i]:
                        size[i] = max(size[i], abs(part))
        for k in range(unsigned(indptr[i]), unsigned(indptr[i + 1])):
            place[unsigned(indices[k])] = -1
        if not abs(data[diagonal[i]]) > eps * size[i]:
            return i
    return len(diagonal)
