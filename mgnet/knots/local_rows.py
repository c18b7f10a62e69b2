"""A Jacobian whose rows contain degree + 1 splines of every edge and no others: `LocalJacobian`.

At a sample, the nonzero splines of an input of a layer are adjacent, and its outputs share them:
these are degree + 1 adjacent columns per output, given by the knot interval of the sample. A row is
therefore stored as its entries and one interval per input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from mgnet.knots.refinement import refinement_matrix
from mgnet.training.least_squares.jacobian import Jacobian, squared

__all__ = ["InputColumns", "LocalJacobian", "compiled", "single"]

compiled: bool = find_spec("numba") is not None
#: The precision of coarse-level entries; without numba double, since SciPy would copy others.
single: Any = np.float32 if compiled else np.float64

ENTRIES = 2**21  # of the dense rows that are built at once
LOCAL = 2**18  # of the rows that are copied at once
SPARSE = 8  # cost per entry of a product of gathered rows, relative to dense matrices


@dataclass(frozen=True)
class InputColumns:
    """The columns of J that belong to one input of a layer.

    Attributes
    ----------
    place : int
        Number of the first column.
    offset : int
        Position of the entries in a row of `LocalJacobian.values`.
    intervals : int
        Number of intervals of each edge.
    outputs, degree : int
        Number of outputs of the layer, and degree of the splines.

    Examples
    --------
    >>> part = InputColumns(place=0, offset=0, intervals=8, outputs=5, degree=3)
    >>> part.splines, part.count, part.width
    (11, 55, 20)
    """

    place: int
    offset: int
    intervals: int
    outputs: int
    degree: int

    @property
    def splines(self) -> int:
        """Number of splines of each edge."""
        return self.intervals + self.degree

    @property
    def count(self) -> int:
        """Number of columns."""
        return self.splines * self.outputs

    @property
    def width(self) -> int:
        """Number of entries of a row."""
        return (self.degree + 1) * self.outputs

    @property
    def entries(self) -> slice:
        """The positions of the entries in a row of `LocalJacobian.values`."""
        return slice(self.offset, self.offset + self.width)


@dataclass(frozen=True, eq=False)
class LocalJacobian(Jacobian):
    """J stored by its nonzero entries. Products are computed in float64.

    Attributes
    ----------
    values : array of shape (rows, entries)
        Entries in float64 or float32, ordered by input, then by spline, then by output.
    first : int32 array of shape (rows, inputs)
        The knot interval in which the sample of the row lies, for each input.
    inputs : tuple of InputColumns
        The columns of each input, in the order of the parameters.
    """

    values: np.ndarray
    first: np.ndarray
    inputs: tuple[InputColumns, ...]

    @property
    def rows(self) -> int:
        """Number of residuals."""
        return len(self.values)

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, sum(part.count for part in self.inputs)

    @property
    def row_entries(self) -> int:
        """Number of nonzero entries of a row."""
        return self.values.shape[1]

    @cached_property
    def _runs(self) -> np.ndarray:
        return np.array([(part.place, part.outputs, part.width) for part in self.inputs])

    @cached_property
    def _matrix(self) -> Any:
        """The Jacobian as a SciPy sparse matrix, with an index for each entry."""
        columns = np.empty(self.values.shape, np.int32)
        for p, part in enumerate(self.inputs):
            begin = part.place + part.outputs * self.first[:, p : p + 1]
            columns[:, part.entries] = begin + np.arange(part.width, dtype=np.int32)
        ends = np.arange(0, self.values.size + 1, self.row_entries)
        return sp.csr_array((self.values.ravel(), columns.ravel(), ends), shape=self.shape)

    def matvec(self, d: torch.Tensor) -> torch.Tensor:
        u = np.ascontiguousarray(d.numpy())
        if compiled:
            return torch.from_numpy(_kernels().matvec(self.values, self.first, self._runs, u))
        return torch.from_numpy(self._matrix @ u)

    def rmatvec(self, y: torch.Tensor) -> torch.Tensor:
        v = np.ascontiguousarray(y.numpy())
        if compiled:
            arguments = self.values, self.first, self._runs, v, self.shape[1]
            return torch.from_numpy(_kernels().rmatvec(*arguments))
        return torch.from_numpy(self._matrix.T @ v)

    def normal(self, d: torch.Tensor) -> torch.Tensor:
        """Compute `J^T J d`, in one pass if the loops are compiled."""
        if compiled:
            u = np.ascontiguousarray(d.numpy())
            return torch.from_numpy(_kernels().normal(self.values, self.first, self._runs, u))
        return self.rmatvec(self.matvec(d))

    def squares(self) -> torch.Tensor:
        ones = torch.ones(self.rows, dtype=torch.float64)
        return replace(self, values=np.square(self.values, dtype=float)).rmatvec(ones)

    def dense(self) -> torch.Tensor:
        return torch.from_numpy(self._dense_rows(slice(None)))

    def gram(self) -> torch.Tensor:
        total = np.zeros((self.shape[1],) * 2)
        step = max(1, ENTRIES // self.shape[1])
        sparse = SPARSE * self.row_entries < self.shape[1]
        for begin in range(0, self.rows, step):
            own = slice(begin, begin + step)
            block = self._dense_rows(own)
            if not sparse:
                total += squared(torch.from_numpy(block)).numpy()
                continue
            for p, part in enumerate(self.inputs):
                right, left = block[:, part.place :], self.values[own, part.entries]
                for interval, chosen in _by_interval(self.first[own, p]):
                    column = part.place + interval * part.outputs
                    product = left[chosen].T @ right[chosen]
                    total[column : column + part.width, part.place :] += product
        gram = torch.from_numpy(total)
        return gram if not sparse else gram.triu() + gram.triu(1).T

    def _dense_rows(self, rows: slice) -> np.ndarray:
        values, first = self.values[rows], self.first[rows]
        block = np.zeros((len(values), self.shape[1]))
        for p, part in enumerate(self.inputs):
            columns = part.place + part.outputs * first[:, p : p + 1] + np.arange(part.width)
            np.put_along_axis(block, columns, values[:, part.entries], 1)
        return block

    def scaled(self, weight: float) -> LocalJacobian:
        """Return `weight J`."""
        return replace(self, values=weight * self.values)

    def scaled_rows(self, factors: torch.Tensor) -> LocalJacobian:
        """Return `diag(factors) J`."""
        return replace(self, values=factors.numpy()[:, None] * self.values)

    @cached_property
    def mean_diagonal(self) -> float:
        """The mean of the diagonal of `J^T J`."""
        step = max(1, LOCAL // self.row_entries)
        parts = (self.values[n : n + step] for n in range(0, self.rows, step))
        return sum(float(np.square(part, dtype=float).sum()) for part in parts) / self.shape[1]

    def element_matrices(self, p: int) -> np.ndarray:
        """Compute `V^T V` for the entries V in each interval of input p: (intervals, width, width).

        The sum of these matrices, each added at its columns, is the diagonal block of `J^T J` for
        the input.
        """
        make = _kernels().element_matrices if compiled else _element_matrices
        part = self.inputs[p]
        return make(self.values[:, part.entries], self.first[:, p], part.intervals)

    def coarsened(
        self,
        factor: int = 2,
        rows: int | None = None,
        seed: int = 0,
        dtype: Any = None,
        chosen: Sequence[bool] | None = None,
    ) -> LocalJacobian:
        """Compute `J P` with the prolongation of `knot_transfer`, optionally for random rows.

        Parameters
        ----------
        factor : int
            Coarsening factor of the intervals.
        rows : int, optional
            Number of rows to draw and rescale, so that J^T J is an estimate; all rows by default.
        seed : int
            Seed of the random choice.
        dtype : type, optional
            Precision of the entries; that of J by default.
        chosen : sequence of bool, optional
            Whether the splines of each input are coarsened; all by default.

        Returns
        -------
        LocalJacobian
            The coarse Jacobian.
        """
        kept, weight = np.arange(self.rows), 1.0
        factors = np.where(np.ones(len(self.inputs), bool) if chosen is None else chosen, factor, 1)
        if rows is not None and rows < self.rows:
            weight = (self.rows / rows) ** 0.5
            kept = np.random.default_rng(seed).choice(self.rows, rows, replace=False)
            kept.sort()
        parts, place = [], 0
        for part, by in zip(self.inputs, factors.tolist(), strict=True):
            parts.append(replace(part, place=place, intervals=part.intervals // by))
            place += parts[-1].count
        values = np.empty((len(kept), self.row_entries), dtype or self.values.dtype)
        onto = weight * _onto_coarse(self.inputs[0].degree, factor)
        fill = _kernels().coarsened if compiled else _coarsened
        fill(self.values, self.first, kept, self._runs, factors, onto, values)
        first = self.first[kept] // factors.astype(np.int32)
        return LocalJacobian(values, first, tuple(parts))


def _kernels() -> Any:
    from mgnet.knots import local_kernels  # takes a second once

    return local_kernels


def _by_interval(first: np.ndarray) -> Any:
    """For each interval with rows: its number, and the rows."""
    order = np.argsort(first, kind="stable")
    found, begin = np.unique(first[order], return_index=True)
    ends = [*begin.tolist(), len(order)]
    for interval, (start, stop) in zip(found.tolist(), pairwise(ends), strict=True):
        yield interval, order[start:stop]


def _onto_coarse(degree: int, factor: int) -> np.ndarray:
    """For each part of a coarse interval, the coarse splines in terms of fine ones, transposed.

    The shape is (1 + factor, coarse splines, fine splines), with the unit matrix first.
    """
    P = refinement_matrix(1, degree, factor).toarray()  # the same on any interval
    size = degree + 1
    return np.stack([np.eye(size), *(P[part : part + size, :size].T for part in range(factor))])


def _element_matrices(values: np.ndarray, first: np.ndarray, intervals: int) -> np.ndarray:
    """NumPy's version of the function in `mgnet.knots.local_kernels`."""
    width = values.shape[1]
    total = np.zeros((intervals, width, width))
    for interval, chosen in _by_interval(first):
        V = values[chosen]
        total[interval] = V.T @ V
    return total


def _coarsened(
    values: np.ndarray,
    first: np.ndarray,
    kept: np.ndarray,
    runs: np.ndarray,
    factors: np.ndarray,
    onto: np.ndarray,
    coarse: np.ndarray,
) -> None:
    """NumPy's version of the function in `mgnet.knots.local_kernels`."""
    splines = onto.shape[1]
    step = max(1, LOCAL // values.shape[1])
    for begin in range(0, len(kept), step):
        rows = kept[begin : begin + step]
        at = 0
        for p, (_, outputs, width) in enumerate(runs.tolist()):
            by = factors[p]
            weights = onto[(1 + first[rows, p] % by) if by > 1 else np.zeros(len(rows), int)]
            fine = values[rows, at : at + width].reshape(-1, splines, outputs)
            own = coarse[begin : begin + step, at : at + width]
            own[:] = np.einsum("nij,njq->niq", weights, fine).reshape(own.shape)
            at += width
