"""Inverses of many small parts of one matrix at once: blocks, and subdomains that overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from mgnet import vector
from mgnet.limits import check_memory

__all__ = ["LocalInverses", "local_inverses"]

# From this size on a product by BLAS is faster than NumPy's loop over all matrices.
LARGE = 32


@dataclass(frozen=True, eq=False)
class LocalInverses:
    """Inverse matrices of index sets, those of one size together.

    Parameters
    ----------
    groups : list of (places, inverses)
        For each size k, `places` of shape (m, k) in the concatenated index sets, and `inverses` of
        shape (m, k, k).
    dtype : numpy.dtype

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
            Concatenated, as the result.
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
    """The inverses of `matrix[I, I]` for many index sets I.

    Parameters
    ----------
    matrix : matrix of shape (n, n), SciPy sparse or dense
    indices : array of int
        All index sets, one behind the other.
    offsets : array of int of shape (sets + 1,)
        Set k is `indices[offsets[k] : offsets[k + 1]]`; none is empty, none has an index twice.
    dtype : numpy.dtype
        Of the inverses.
    owner : str
        For messages.

    Raises
    ------
    ValueError
        If one is singular.

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
    groups = []
    for size in np.unique(sizes):
        chosen = np.flatnonzero(sizes == size)
        number = np.full(len(sizes), -1)
        number[chosen] = np.arange(len(chosen))
        parts = np.zeros((len(chosen), size, size), dtype)
        mine = number[owners] >= 0
        at = number[owners[mine]], rows[mine], columns[mine]
        np.add.at(parts, at, values[mine])  # SciPy may hold an entry in two parts
        inverses, singular = _inverted(parts)
        if singular.any():
            first = chosen[np.argmax(singular)]
            unknowns = indices[offsets[first] : offsets[first + 1]]
            shown = ", ".join(map(str, unknowns[:4])) + (", ..." if size > 4 else "")
            raise ValueError(
                f"{owner}: the matrix of unknowns {shown} is singular to working "
                "precision; take other sets, or another smoother"
            )
        groups.append((offsets[chosen][:, None] + np.arange(size), inverses))
    return LocalInverses(groups, dtype)


def _local_entries(
    matrix: Any, indices: np.ndarray, offsets: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and value of every entry within a set, by its places there; and which set."""
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    place = np.arange(len(indices)) - offsets[owner]
    rows: Any = sp.csr_matrix(matrix)[indices].tocoo()
    # Where a column stands in the set of its row: the pairs (set, unknown) are unique.
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
    # Scaled by powers of two to rows and columns of size one, so that units do not look singular.
    rows = _powers(abs(parts).max(axis=2))[:, :, None]
    scaled = parts * rows
    columns = _powers(abs(scaled).max(axis=1))[:, None, :]
    scaled = scaled * columns
    size, eps = parts.shape[1], float(np.finfo(parts.dtype).eps)
    try:
        inverses = np.linalg.inv(scaled)
    except np.linalg.LinAlgError:  # one of them has a pivot that is zero
        values = np.linalg.svd(scaled, compute_uv=False)
        return scaled, values[:, -1] <= size * eps * values[:, 0]
    condition = abs(inverses).sum(axis=2).max(axis=1) * abs(scaled).sum(axis=2).max(axis=1)
    # NaN, too, is not less.
    return columns.swapaxes(1, 2) * inverses * rows.swapaxes(1, 2), ~(condition * size * eps < 1.0)


def _powers(sizes: np.ndarray) -> np.ndarray:
    """The reciprocals of sizes, rounded to powers of two; 1 for zero."""
    exponents = np.frexp(sizes)[1]
    most = np.finfo(sizes.dtype).maxexp - 2
    return np.ldexp(np.ones_like(sizes), -np.clip(exponents, -most, most))
