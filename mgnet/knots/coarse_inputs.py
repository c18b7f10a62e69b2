"""A coarse level for preconditioners: a matrix that couples all inputs, with an exact solver.

The intervals of each input are halved as often as possible, so their number may differ by layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from mgnet.knots.local_rows import LocalJacobian
from mgnet.knots.patches import cholesky
from mgnet.knots.refinement import refinement_matrix
from mgnet.training.least_squares.newton_krylov import Product

__all__ = ["CoarseInputs", "can_halve", "halved"]

LARGEST = 4  # times `coarsest`: an input with more intervals is left out


def can_halve(intervals: int, coarsest: int) -> bool:
    """Whether half the number of intervals is an integer that is at least `coarsest`.

    Examples
    --------
    >>> can_halve(16, 8), can_halve(14, 8), can_halve(17, 8)
    (True, False, False)
    """
    return intervals % 2 == 0 and intervals >= 2 * coarsest


def halved(intervals: int, coarsest: int) -> int:
    """The number of intervals after halving as often as `coarsest` allows.

    Examples
    --------
    >>> halved(100, 8), halved(64, 8), halved(63, 8)
    (25, 8, 63)
    """
    while can_halve(intervals, coarsest):
        intervals //= 2
    return intervals


@dataclass(frozen=True, eq=False)
class CoarseInputs:
    """The dense matrix `P^T (J^T J) P` of the inputs that have a coarse level.

    Attributes
    ----------
    P : csr_matrix of shape (columns, coarse columns)
        The prolongation from the coarse level.
    gram, identity : tensor of shape (coarse columns, coarse columns)
        `P^T (J^T J) P`, including penalties, and `P^T P`.
    joined : tuple of bool
        Whether each input is part of the coarse level.
    """

    P: Any
    gram: torch.Tensor
    identity: torch.Tensor
    joined: tuple[bool, ...]

    @classmethod
    def of(cls, J: LocalJacobian, penalty: Any, coarsest: int) -> CoarseInputs:
        """Create the coarse level from residuals and the sparse rows of a penalty."""
        intervals = [halved(part.intervals, coarsest) for part in J.inputs]
        joined = tuple(n <= LARGEST * coarsest for n in intervals)
        parts = []
        wide: list[Any] = [sp.csr_matrix((0, 0))]
        for part, n, own in zip(J.inputs, intervals, joined, strict=True):
            if not own:
                wide.append(sp.csr_matrix((part.count, 0)))
                continue
            place = parts[-1].place + parts[-1].count if parts else 0
            offset = parts[-1].offset + parts[-1].width if parts else 0
            parts.append(replace(part, place=place, offset=offset, intervals=n))
            P: Any = sp.identity(part.splines)
            if n < part.intervals:
                P = refinement_matrix(n, part.degree, part.intervals // n)
            wide.append(sp.kron(P, sp.identity(part.outputs), format="csr"))
        P = sp.block_diag(wide, format="csr")
        gram = torch.zeros(P.shape[1], P.shape[1], dtype=torch.float64)
        if parts:
            rows = _coarse_rows(
                J, [n if own else 0 for n, own in zip(intervals, joined, strict=True)]
            )
            gram += LocalJacobian(*rows, tuple(parts)).gram()
        below = penalty @ P
        gram += torch.from_numpy((below.T @ below).toarray())
        return cls(P, gram, torch.from_numpy((P.T @ P).toarray()), joined)

    def inverse(self, shift: float) -> Product:
        """Return the product with `P A^-1 P^T`, where `A = gram + shift identity`."""
        if not self.P.shape[1]:
            return torch.zeros_like
        factor, unit = cholesky(self.gram + shift * self.identity)
        P, R = self.P, self.P.T.tocsr()

        def solve(r: torch.Tensor) -> torch.Tensor:
            b = unit * torch.from_numpy(R @ r.numpy())
            u = unit * torch.cholesky_solve(b.unsqueeze(1), factor).squeeze(1)
            return torch.from_numpy(P @ u.numpy())

        return solve


def _coarse_rows(J: LocalJacobian, intervals: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The entries and first intervals of `J P`; inputs with 0 intervals are left out."""
    values, firsts = [], []
    for p, (part, n) in enumerate(zip(J.inputs, intervals, strict=True)):
        if not n:
            continue
        column = LocalJacobian(
            np.ascontiguousarray(J.values[:, part.entries]),
            np.ascontiguousarray(J.first[:, p : p + 1]),
            (replace(part, place=0, offset=0),),
        )
        if n < part.intervals:
            column = column.coarsened(part.intervals // n)
        values.append(column.values)
        firsts.append(column.first)
    return np.concatenate(values, 1), np.concatenate(firsts, 1)
