"""Inverses of many small parts of one matrix at once: blocks, and overlapping subdomains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from mgnet import vector
from mgnet.limits import check_memory

__all__ = ["LocalInverses", "balancing", "local_inverses"]

# From this size on a product by BLAS is faster than NumPy's loop over all matrices.
LARGE = 32
# Entries whose binary exponents differ by no more need no scaling.
MILD = 8
# Iterations over rows and columns of a fit that converges in a few.
PASSES = 20
# Binary exponents below that of the largest entry.
NOISE = 60


@dataclass(frozen=True, eq=False)
class LocalInverses:
    """Inverse matrices of index sets, grouped by size.

    Parameters
    ----------
    groups : list of (places, inverses)
        For each size k, `places` of shape (m, k) in the concatenated index sets, and `inverses` of
        shape (m, k, k).
    dtype : numpy.dtype
        Type of the inverses.

    Examples
    --------
    >>> found = local_inverses(np.diag([2.0, 4.0]), np.array([0, 1, 0]), np.array([0, 2, 3]),
    ...                        np.dtype(float), "a smoother")
    >>> found.apply(np.array([1.0, 1.0, 1.0]))
    array([0.5 , 0.25, 0.5 ])
    """

    groups: list[tuple[np.ndarray, np.ndarray]]
    dtype: np.dtype

    def apply(self, r: np.ndarray) -> np.ndarray:
        """Solve on every index set.

        Parameters
        ----------
        r : array of shape (entries of all index sets,)
            Residuals of all index sets, concatenated, as is the result.
        """
        return vector.solved_by_parts(self._apply, self.dtype, r)

    def _apply(self, r: np.ndarray) -> np.ndarray:
        out = np.empty(len(r), self.dtype)
        for places, inverses in self.groups:
            if places.shape[1] < LARGE:
                out[places] = np.einsum("mij,mj->mi", inverses, r[places])
            else:
                out[places] = (inverses @ r[places][:, :, None])[:, :, 0]
        return out


def local_inverses(
    matrix: Any, indices: np.ndarray, offsets: np.ndarray, dtype: np.dtype, owner: str
) -> LocalInverses:
    """Invert `matrix[I, I]` for many index sets I.

    Parameters
    ----------
    matrix : matrix of shape (n, n), SciPy sparse or dense
        Matrix of the level.
    indices : array of int
        All index sets, concatenated.
    offsets : array of int of shape (sets + 1,)
        Set k is `indices[offsets[k] : offsets[k + 1]]`. No set is empty or contains an index twice.
    dtype : numpy.dtype
        Type of the inverses.
    owner : str
        Name of the smoother in messages.

    Raises
    ------
    ValueError
        If a part of the matrix is singular.

    Examples
    --------
    >>> A = sp.csr_matrix([[2.0, 1.0], [1.0, 1.0]])
    >>> one = np.arange(2), np.array([0, 2])
    >>> local_inverses(A, *one, np.dtype(float), "a smoother").groups[0][1]
    array([[[ 1., -1.], [-1.,  2.]]])
    """
    n, sizes = matrix.shape[1], np.diff(offsets)
    squares = int((sizes.astype(np.int64) ** 2).sum())
    check_memory(
        3 * squares * dtype.itemsize,
        f"{owner} got index sets of {int(sizes.max())} unknowns at most, whose inverses have "
        f"{squares} entries",
        "take smaller sets",
    )
    rows, columns, values, owners = _local_entries(matrix, indices, offsets, n)
    begins = offsets[owners]
    scales = balancing(begins + rows, begins + columns, values, len(indices))
    if scales is not None:
        values = values * scales[0][begins + rows] * scales[1][begins + columns]
    groups = []
    for size in np.unique(sizes):
        chosen = np.flatnonzero(sizes == size)
        number = np.full(len(sizes), -1)
        number[chosen] = np.arange(len(chosen))
        parts = np.zeros((len(chosen), size, size), dtype)
        mine = number[owners] >= 0
        at = number[owners[mine]], rows[mine], columns[mine]
        np.add.at(parts, at, values[mine])  # SciPy may store an entry in two parts
        inverses, singular = _inverted(parts)
        if singular.any():
            first = chosen[np.argmax(singular)]
            unknowns = indices[offsets[first] : offsets[first + 1]]
            shown = ", ".join(map(str, unknowns[:4])) + (", ..." if size > 4 else "")
            raise ValueError(
                f"{owner}: the matrix of unknowns {shown} is singular to working "
                "precision; use other sets, or another smoother"
            )
        places = offsets[chosen][:, None] + np.arange(size)
        if scales is not None:
            inverses = scales[1][places][:, :, None] * inverses * scales[0][places][:, None, :]
        groups.append((places, inverses.astype(dtype, copy=False)))
    return LocalInverses(groups, dtype)


def _local_entries(
    matrix: Any, indices: np.ndarray, offsets: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and value of every entry within a set, by position in the set; and its set."""
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    place = np.arange(len(indices)) - offsets[owner]
    rows: Any = sp.csr_matrix(matrix)[indices].tocoo()
    # Position of each column in the set of its row: the pairs (set, unknown) are unique.
    keys = owner.astype(np.int64) * n + indices
    order = np.argsort(keys, kind="stable")
    wanted = owner[rows.row].astype(np.int64) * n + rows.col
    found = np.searchsorted(keys, wanted, sorter=order)
    found = order[np.minimum(found, len(keys) - 1)]
    within = keys[found] == wanted
    row = rows.row[within]
    return place[row], place[found[within]], rows.data[within], owner[row]


def _inverted(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverses of matrices of shape (m, k, k), and which of them are singular."""
    size, eps = parts.shape[1], float(np.finfo(parts.dtype).eps)
    try:
        inverses = np.linalg.inv(parts)
    except np.linalg.LinAlgError:  # one of them has a pivot that is zero
        values = np.linalg.svd(parts, compute_uv=False)
        return parts, values[:, -1] <= size * eps * values[:, 0]
    # The spectral radius of |A^-1| |A| is the smallest condition number over all scalings (Bauer,
    # Numer. Math. 5 (1963) 73), and the largest entry of (M x) / x is a bound of it for every x >
    # 0.
    product = abs(inverses) @ abs(parts)
    before = product @ (product @ product.sum(axis=2, keepdims=True))
    condition: Any = ((product @ before) / before).max(axis=(1, 2))
    return inverses, ~(condition * size * eps < 1.0)  # the comparison is also False for NaN


def balancing(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Powers of two that scale the entries of rows and columns to about one; None if not needed.

    With this scaling, different units do not make a matrix look singular. The logarithms of the
    factors are a least-squares fit to the logarithms of the entries. Source: Curtis and Reid, J.
    Inst. Maths Applics 10 (1972) 118.

    Parameters
    ----------
    rows, columns, values : array of shape (entries,)
        Entries of a square matrix; an entry may be stored in several parts.
    size : int
        Number of rows.

    Examples
    --------
    >>> rows, columns = balancing(*np.array([[0, 1], [0, 1]]), np.array([1.0, 2.0**40]), 2)
    >>> rows * np.array([1.0, 2.0**40]) * columns
    array([0.5, 0.5])
    """
    kept = values != 0
    rows, columns = rows[kept], columns[kept]
    sizes = np.frexp(abs(values[kept]))[1].astype(float)
    if len(sizes) == 0 or np.ptp(sizes) <= MILD:
        return None
    # An entry that is tiny compared with its row and its column may be rounding of other entries.
    largest = np.full((2, size), -np.inf)
    for most, at in zip(largest, (rows, columns), strict=True):
        np.maximum.at(most, at, sizes)
    kept = sizes >= np.minimum(largest[0][rows], largest[1][columns]) - NOISE
    rows, columns, sizes = rows[kept], columns[kept], sizes[kept]
    of_row = np.maximum(np.bincount(rows, minlength=size), 1)
    of_column = np.maximum(np.bincount(columns, minlength=size), 1)
    r, c = np.zeros(size), np.zeros(size)
    for _ in range(PASSES):
        r = np.bincount(rows, sizes - c[columns], size) / of_row
        c = np.bincount(columns, sizes - r[rows], size) / of_column
    limit = 1000.0  # of the exponents of double precision
    return tuple(np.exp2(-np.clip(np.round(x), -limit, limit)) for x in (r, c))  # type: ignore
