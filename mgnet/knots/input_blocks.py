"""The diagonal blocks of `J^T J` for single inputs of a layer, for preconditioners.

At a sample, degree + 1 neighboring splines of an input are nonzero, and the outputs share them. The
coefficients of an input are therefore coupled in a band of width (degree + 1) times the number of
outputs. The same holds for the rows of a penalty such as `roughness`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from mgnet.knots.jacobian import KANJacobian
from mgnet.knots.local_jacobian import local_form
from mgnet.knots.local_rows import InputColumns, LocalJacobian
from mgnet.knots.spline_operator import SplineOperator
from mgnet.training.least_squares.jacobian import (
    DenseJacobian,
    Jacobian,
    ProlongedJacobian,
    SparseJacobian,
    StackedJacobian,
)
from mgnet.vector import as_scipy

__all__ = ["InputBlock", "InputParts", "input_parts", "normal_product"]

ROUNDING = 1e-13  # relative to the diagonal: size of entries outside the band of a dense penalty


class InputBlock(NamedTuple):
    """The sparse block of one input, in the order of its columns: one spline after another."""

    matrix: Any  # a csr_matrix of shape (splines outputs, splines outputs)
    outputs: int
    degree: int

    @property
    def intervals(self) -> int:
        """Number of intervals of each edge."""
        return self.matrix.shape[0] // self.outputs - self.degree


class InputParts(NamedTuple):
    """The parts of a Jacobian that preconditioners over knots use.

    Attributes
    ----------
    blocks : list of InputBlock
        The blocks of all inputs in the order of their columns, including penalties.
    local : LocalJacobian or None
        The residuals without a penalty, if requested.
    penalty : csr_matrix of shape (rows, columns)
        The rows of a penalty; none if there is no penalty.
    scale : float
        The mean of the diagonal of `J^T J` without the penalty; on fine knots, the size of the
        penalty is unrelated to admissible step lengths.
    """

    blocks: list[InputBlock]
    local: Any
    penalty: Any
    scale: float


def input_parts(J: Jacobian, asked: str, with_local: bool) -> InputParts:
    """Extract the parts of J; `asked` is the name of the preconditioner in messages.

    Raises
    ------
    TypeError
        If J is not the Jacobian of a KAN that has only splines, or a penalty is not a matrix.
    """
    blocks, penalty = residual_blocks(J), penalty_rows(J)
    local = local_form(residual_rows(J)) if with_local else None
    if blocks is None or penalty is None or (with_local and local is None):
        raise TypeError(
            f"{asked} got a Jacobian without knot intervals; it needs that of a KAN of splines "
            "alone (no linear layer), all of them trained and none of them shared, on the CPU, "
            "with data or with residuals of one call of the module each (no Collocation), a row "
            "per sample, and penalties that are matrices; give NewtonKrylov() for others"
        )
    scale = sum(float(block.matrix.diagonal().sum()) for block in blocks) / J.shape[1]
    return InputParts(penalised(blocks, penalty), local, penalty, scale)


def residual_rows(J: Jacobian) -> Jacobian:
    """J without the rows of a penalty."""
    if isinstance(J, StackedJacobian):
        return StackedJacobian(J.parts[:1])
    if isinstance(J, ProlongedJacobian):
        return ProlongedJacobian(residual_rows(J.fine), J.transfer, J.columns, J.dtype)
    return J


def residual_blocks(J: Jacobian) -> list[InputBlock] | None:
    """The blocks of all inputs in column order, without penalty; None if J is not of a KAN."""
    if isinstance(J, StackedJacobian):
        weight, first = J.parts[0]
        found = residual_blocks(first)
        return found and [one._replace(matrix=weight**2 * one.matrix) for one in found]
    if isinstance(J, DenseJacobian) and J.structure is not None:
        return residual_blocks(J.structure)
    if isinstance(J, ProlongedJacobian):
        fine, transfers = residual_blocks(J.fine), prolongations(J)
        if fine is None or transfers is None:
            return None
        pairs = zip(fine, transfers, strict=True)
        return [one._replace(matrix=sp.csr_matrix(P.T @ one.matrix @ P)) for one, P in pairs]
    local = local_form(J) if isinstance(J, KANJacobian | LocalJacobian) else None
    return None if local is None else local_blocks(local)


def local_blocks(J: LocalJacobian) -> list[InputBlock]:
    """The blocks of a Jacobian whose rows contain degree + 1 splines of each edge."""
    made = []
    for p, part in enumerate(J.inputs):
        bands = _bands(J.element_matrices(p), part)
        lower = sp.dia_matrix((bands, -np.arange(len(bands))), shape=(part.count, part.count))
        matrix = lower + sp.tril(lower, -1).T
        made.append(InputBlock(sp.csr_matrix(matrix), part.outputs, part.degree))
    return made


def _bands(elements: np.ndarray, part: InputColumns) -> np.ndarray:
    """The lower bands of the sum of the matrices of all intervals, each added at its columns."""
    bands = np.zeros((part.width, part.count))
    end = part.intervals * part.outputs
    for j in range(part.width):
        for k in range(part.width - j):
            bands[k, j : j + end : part.outputs] += elements[:, j + k, j]
    return bands


def penalty_rows(J: Jacobian) -> Any:
    """The rows of a penalty as a csr_matrix; no rows without a penalty, None if unknown."""
    if isinstance(J, StackedJacobian):
        made = [sp.csr_matrix((0, J.shape[1]))]
        for weight, part in J.parts[1:]:
            if not isinstance(part, SparseJacobian):
                return None
            made.append(weight * sp.csr_matrix(as_scipy(part.matrix)))
        return sp.csr_matrix(sp.vstack(made))
    if isinstance(J, ProlongedJacobian):
        rows, transfers = penalty_rows(J.fine), prolongations(J)
        if rows is None or transfers is None:
            return None
        return sp.csr_matrix(rows @ sp.block_diag(transfers, format="csr"))
    return sp.csr_matrix((0, J.shape[1]))


def penalised(blocks: list[InputBlock], rows: Any) -> list[InputBlock]:
    """The blocks, plus those parts of a penalty that do not couple different inputs."""
    if not rows.shape[0]:
        return blocks
    gram, end, made = sp.coo_matrix(rows.T @ rows), 0, []
    size = gram.tocsr().diagonal() ** 0.5
    kept = np.abs(gram.data) > ROUNDING * size[gram.row] * size[gram.col]
    places = gram.row[kept], gram.col[kept]
    gram = sp.csr_matrix((gram.data[kept], places), shape=gram.shape)
    for block in blocks:
        begin = end
        end = begin + block.matrix.shape[0]
        made.append(block._replace(matrix=block.matrix + gram[begin:end, begin:end]))
    return made


def normal_product(J: Jacobian, d: torch.Tensor) -> torch.Tensor:
    """Compute `J^T J d`, in one pass over the rows if the loops are compiled."""
    if isinstance(J, StackedJacobian):
        return torch.stack([w**2 * normal_product(part, d) for w, part in J.parts]).sum(0)
    return J.normal(d) if isinstance(J, LocalJacobian) else J.rmatvec(J.matvec(d))


def prolongations(J: ProlongedJacobian) -> list[Any] | None:
    """The prolongation of each input, from its coarse columns to its fine ones."""
    if not hasattr(J.transfer, "parts"):
        return None
    made: list[Any] = []
    for (inputs, splines, outputs), part in J.transfer.parts:  # type: ignore[attr-defined]
        if part is None:  # of a layer that is not refined
            P: Any = sp.identity(splines)
        else:
            P = part.P.factors[0] if isinstance(part.P, SplineOperator) else as_scipy(part.P)
        made += inputs * [sp.kron(sp.csr_matrix(P), sp.eye(outputs), format="csr")]
    return made
