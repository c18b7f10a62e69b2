"""The part of a Gauss-Newton matrix that belongs to one input of a layer is banded: it is solved.

At a sample degree + 1 neighbouring splines of an input do not vanish, and the outputs share them.
So the coefficients of an input couple in a band of (degree + 1) outputs, and so they do in the rows
of a penalty such as `roughness`. Its Cholesky factor takes time and memory in proportion to the
knots. What couples different inputs is left to conjugate gradients: measured, 2 to 20 iterations
per system for [1, 8, 1] with 10000 intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import torch

from mgnet.knots.jacobian import KANJacobian
from mgnet.knots.spline_operator import BandedInverse, SplineOperator, bands_of
from mgnet.training.least_squares.jacobian import (
    DenseJacobian,
    Jacobian,
    ProlongedJacobian,
    SparseJacobian,
    StackedJacobian,
)
from mgnet.training.least_squares.newton_krylov import Product
from mgnet.vector import as_scipy

__all__ = ["InputBands", "PreparedBands"]


class Block(NamedTuple):
    """The columns of J of one input, sparse, and how many outputs share its splines.

    Rows without entries are left out: a penalty has rows for each input, so that with all of them
    memory would grow with the square of the inputs.
    """

    columns: Any  # a csr_matrix
    outputs: int


@dataclass(frozen=True)
class InputBands:
    """A preconditioner for `(J^T J + shift I) d = b` of a KAN: each input of a layer, exactly.

    For networks with thousands of knots, and for penalties, which the cycles of `KnotMultigrid`
    leave out.

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> from mgnet.knots.jacobian import linearize
    >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1)
    >>> _, J = linearize(KAN([1, 1], 40), x)
    >>> product, solve = InputBands().prepare(J).shifted(1e-3)
    >>> b = torch.ones(43, dtype=torch.float64)
    >>> bool((product(solve(b)) - b).norm() < 1e-9)  # one input: exact
    True
    """

    def prepare(self, J: Jacobian) -> PreparedBands:
        """The bands of all inputs."""
        blocks, own = _blocks(J), _blocks(_residuals(J))
        if blocks is None or own is None:
            raise TypeError(
                "InputBands got a Jacobian that is not that of a KAN's outputs; it needs a KAN of "
                "splines alone (no linear layer), all of them trained, on the CPU, with data"
            )
        squares = sum(float(b.columns.data @ b.columns.data) for b in own)
        bands = tuple(bands_of(b.columns.T @ b.columns) for b in blocks)
        return PreparedBands(J, bands, squares / J.shape[1])


@dataclass(frozen=True, eq=False)
class PreparedBands:
    """What `InputBands` knows of one Jacobian.

    Attributes
    ----------
    J : Jacobian
    bands : tuple of array
        The lower bands of `J_p^T J_p` of every input p, rows of a penalty included.
    scale : float
        The mean of the diagonal of `J^T J` without the penalty, whose size on fine knots says
        nothing of how far a step may go.
    """

    J: Jacobian
    bands: tuple[np.ndarray, ...]
    scale: float

    def shifted(self, shift: float) -> tuple[Product, Product]:
        """Products with `J^T J + shift I`, and with the inverse of its diagonal blocks."""
        inverses = [_inverse(one, shift) for one in self.bands]
        ends = np.cumsum([one.shape[1] for one in self.bands])[:-1]

        def precondition(r: torch.Tensor) -> torch.Tensor:
            parts = zip(inverses, np.split(r.numpy(), ends), strict=True)
            return torch.from_numpy(np.concatenate([one @ part for one, part in parts]))

        J = self.J
        return lambda d: J.rmatvec(J.matvec(d)) + shift * d, precondition


def _inverse(bands: np.ndarray, shift: float) -> BandedInverse:
    """Of the block with this shift, or with the least larger one that Cholesky takes."""
    largest = float(bands[0].max(initial=0.0))
    least = float(np.finfo(float).eps) * largest + float(np.finfo(float).tiny)
    while True:
        shifted = bands.copy()
        shifted[0] += shift
        try:
            return BandedInverse.from_bands(shifted)
        except scipy.linalg.LinAlgError:
            shift = max(10.0 * shift, least)


def _residuals(J: Jacobian) -> Jacobian:
    """J without the rows of a penalty."""
    if isinstance(J, StackedJacobian):
        return StackedJacobian(J.parts[:1])
    if isinstance(J, ProlongedJacobian):
        return replace(J, fine=_residuals(J.fine))
    return J


def _blocks(J: Jacobian) -> list[Block] | None:
    if isinstance(J, DenseJacobian) and J.structure is not None:
        return _blocks(J.structure)
    if isinstance(J, KANJacobian):
        if J.order is not None:
            return None
        layout = [
            (layer.splines, layer.width)
            for layer in J.layers
            for _ in range(layer.size // layer.splines)
        ]
        return _split(J.sparse(), layout)
    if isinstance(J, StackedJacobian):
        return _stacked(J)
    if isinstance(J, ProlongedJacobian):
        fine = _blocks(J.fine)
        return None if fine is None else _prolonged(fine, J.transfer)
    return None


def _split(rows: Any, layout: Sequence[tuple[int, int]]) -> list[Block]:
    ends = np.cumsum([0, *(splines * outputs for splines, outputs in layout)]).tolist()
    columns = sp.csc_matrix(rows)
    return [
        Block(_without_empty_rows(columns[:, begin:end]), outputs)
        for (begin, end), (_, outputs) in zip(pairwise(ends), layout, strict=True)
    ]


def _without_empty_rows(columns: Any) -> Any:
    used, index = np.unique(columns.indices, return_inverse=True)
    shape = len(used), columns.shape[1]
    return sp.csc_matrix((columns.data, index, columns.indptr), shape=shape).tocsr()


def _stacked(J: StackedJacobian) -> list[Block] | None:
    (weight, first), *others = J.parts
    blocks = _blocks(first)
    if blocks is None:
        return None
    blocks = [Block(weight * block.columns, block.outputs) for block in blocks]
    layout = [(b.columns.shape[1] // b.outputs, b.outputs) for b in blocks]
    for w, part in others:
        if not isinstance(part, SparseJacobian):
            return None
        more = _split(w * sp.csr_matrix(as_scipy(part.matrix)), layout)
        pairs = zip(blocks, more, strict=True)
        blocks = [Block(sp.vstack([a.columns, b.columns]).tocsr(), a.outputs) for a, b in pairs]
    return blocks


def _prolonged(fine: list[Block], transfer: Any) -> list[Block]:
    made: list[Block] = []
    remaining = iter(fine)
    for (inputs, _, outputs), part in transfer.parts:
        P = part.P.factors[0] if isinstance(part.P, SplineOperator) else as_scipy(part.P)
        P = sp.kron(sp.csr_matrix(P), sp.eye(outputs), format="csr")
        for _ in range(inputs):
            product: Any = next(remaining).columns @ P
            made.append(Block(product.tocsr(), outputs))
    return made
