"""The additive multilevel preconditioner over knots, with diagonal scaling on each level.

    B r = sum over levels l of P_l D_l^-1 P_l^T r,  D_l = diagonal of P_l^T (J^T J + shift I) P_l

Source: Bramble, Pasciak and Xu, Math. Comp. 55 (1990) 1-22; Oswald, Multilevel Finite Element
Approximation (1994). If the squared residuals measure derivatives (a roughness penalty, an
equation), the condition number of `B (J^T J + shift I)` does not grow with the number of knots. If
they measure only values (plain regression), all levels have equal weight, and there is no benefit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from mgnet.knots.coarse_inputs import CoarseInputs, can_halve
from mgnet.knots.input_bands import banded_inverse
from mgnet.knots.input_blocks import InputBlock, input_parts, normal_product
from mgnet.knots.patches import cholesky
from mgnet.knots.refinement import refinement_matrix
from mgnet.knots.spline_operator import bands_of
from mgnet.limits import is_count, shown
from mgnet.training.least_squares.jacobian import Jacobian
from mgnet.training.least_squares.newton_krylov import Product

__all__ = ["KnotBPX", "PreparedBPX"]

FLOOR = 1e-13  # relative to the largest diagonal entry, for coefficients that affect no residual


@dataclass(frozen=True)
class KnotBPX:
    """A preconditioner for `(J^T J + shift I) d = b` of a KAN: diagonals on all knot levels.

    It is intended for many knots if residuals contain derivatives or a roughness penalty. The
    coefficients of all outputs at a spline are solved for together. The intervals of each layer are
    halved as often as possible; the coarsest level couples all layers and is solved exactly. For
    inputs that still have many intervals there, such as an odd number, the banded blocks are solved
    instead.

    Parameters
    ----------
    coarsest : int
        Least number of intervals of the coarsest level.

    Raises
    ------
    ValueError
        If `coarsest` is not a positive integer.

    Examples
    --------
    >>> from functools import partial
    >>> from mgnet.knots import KAN, roughness
    >>> from mgnet.training import LeastSquares
    >>> from mgnet.training.least_squares.newton_krylov import Diagonal, conjugate_gradients
    >>> x = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    >>> problem = LeastSquares(KAN([2, 1], 128), (x, x[:, :1]), partial(roughness, weight=1e-4))
    >>> _, J = problem.linearize(problem.start())
    >>> b = J.rmatvec(torch.ones(J.shape[0], dtype=torch.float64))
    >>> for method in (Diagonal(), KnotBPX()):
    ...     product, solve = method.prepare(J).shifted(1e-9)
    ...     print(conjugate_gradients(product, b, solve, 1e-6).iterations < 50)
    False
    True
    """

    coarsest: int = 8

    def __post_init__(self) -> None:
        if not is_count(self.coarsest):
            raise ValueError(
                f"KnotBPX got coarsest {shown(self.coarsest)}; it must be an integer, at least 1 "
                "interval"
            )

    def prepare(self, J: Jacobian) -> PreparedBPX:
        """Compute the diagonals of all levels, and the coarsest matrix."""
        parts = input_parts(J, "KnotBPX", with_local=True)
        coarse = CoarseInputs.of(parts.local, parts.penalty, self.coarsest)
        groups, place = [], 0
        alike = groupby(
            zip(parts.blocks, coarse.joined, strict=True),
            lambda one: (one[0].matrix.shape, one[0].outputs),
        )
        for _, own in alike:
            blocks, joined = zip(*own, strict=True)
            groups.append(_Group.of(blocks, joined[0], place, self.coarsest))
            place += groups[-1].count
        return PreparedBPX(J, tuple(groups), coarse, parts.scale)


class _Level(NamedTuple):
    """Diagonal blocks of all inputs of a group, shape (splines, inputs, outputs, outputs).

    `unit` is the diagonal of `P_l^T P_l`; P and R = P^T are the transfers of the next coarser
    level.
    """

    diagonal: np.ndarray
    unit: np.ndarray
    P: Any
    R: Any


@dataclass(frozen=True, eq=False)
class _Group:
    """Adjacent inputs with the same numbers of splines and outputs; columns start at `place`.

    If the inputs are part of the coarsest matrix, `alone` is empty. Otherwise it contains their
    blocks, which are factorized as banded matrices, and `identity` is the matrix `P^T P` of one
    edge.
    """

    place: int
    count: int
    inputs: int
    outputs: int
    levels: tuple[_Level, ...]
    alone: tuple[InputBlock, ...]
    identity: Any

    @classmethod
    def of(cls, blocks: tuple[InputBlock, ...], joined: bool, place: int, coarsest: int) -> _Group:
        first, count = blocks[0], sum(block.matrix.shape[0] for block in blocks)
        Q, degree, levels = first.outputs, first.degree, []
        N: Any = sp.identity(first.intervals + degree, format="csr")
        while can_halve(blocks[0].intervals, coarsest):
            diagonal = np.stack([_diagonal(block.matrix, Q) for block in blocks], 1)
            P = sp.csr_matrix(refinement_matrix(blocks[0].intervals // 2, degree))
            levels.append(_Level(diagonal, N.diagonal(), P, P.T.tocsr()))
            wide, N = sp.kron(P, sp.identity(Q), format="csr"), P.T @ N @ P
            blocks = tuple(b._replace(matrix=wide.T @ b.matrix @ wide) for b in blocks)
        alone = () if joined else blocks
        return cls(place, count, len(blocks), Q, tuple(levels), alone, N)

    def inverse(self, shift: float) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function that applies the sum over the levels to a vector of all columns."""
        inverses = [_inverses(level, shift) for level in self.levels]
        N = shift * sp.kron(self.identity, sp.identity(self.outputs))
        bands = [banded_inverse(bands_of(block.matrix + N)) for block in self.alone]
        wide = self.inputs * self.outputs

        def solve(r: np.ndarray) -> np.ndarray:
            own = r[self.place : self.place + self.count].reshape(self.inputs, -1, self.outputs)
            residuals = [own.swapaxes(0, 1).reshape(-1, wide)]
            for level in self.levels:
                residuals.append(level.R @ residuals[-1])
            u = np.zeros_like(residuals[-1])
            if bands:
                columns = self._packed(residuals[-1]).reshape(self.inputs, -1)
                solved = [one @ column for one, column in zip(bands, columns, strict=True)]
                u = np.stack(solved).reshape(self.inputs, -1, self.outputs)
                u = u.swapaxes(0, 1).reshape(-1, wide)
            pairs = zip(self.levels, residuals, inverses, strict=False)  # one less if fewer levels
            for level, residual, D in reversed(list(pairs)):
                u = level.P @ u + (D @ residual.reshape(*D.shape[:3], 1)).reshape(-1, wide)
            return self._packed(u)

        return solve

    def _packed(self, u: np.ndarray) -> np.ndarray:
        """Reorder from shape (splines, inputs outputs) to the order of the columns."""
        return u.reshape(-1, self.inputs, self.outputs).swapaxes(0, 1).ravel()


def _inverses(level: _Level, shift: float) -> np.ndarray:
    """The inverses of the diagonal blocks with this shift."""
    D = torch.from_numpy(level.diagonal).clone()
    raised = shift * level.unit + FLOOR * float(D.abs().max())
    D.diagonal(dim1=-2, dim2=-1).add_(torch.from_numpy(raised)[:, None, None])
    factors, unit = cholesky(D)
    inverses = torch.cholesky_inverse(factors) * unit.unsqueeze(-1) * unit.unsqueeze(-2)
    return inverses.numpy()


def _diagonal(matrix: Any, Q: int) -> np.ndarray:
    """The diagonal blocks of Q columns each, shape (splines, Q, Q)."""
    made = np.zeros((matrix.shape[0] // Q, Q, Q))
    for a, b in np.ndindex(Q, Q):  # entries are numbered by the smaller of row and column
        made[:, a, b] = matrix.diagonal(b - a)[min(a, b) :: Q][: len(made)]
    return made


@dataclass(frozen=True, eq=False)
class PreparedBPX:
    """The data of `KnotBPX` for one Jacobian.

    Attributes
    ----------
    J : Jacobian
        The Jacobian.
    groups : tuple
        The levels of adjacent inputs of the same kind.
    coarse : CoarseInputs
        The coarsest level.
    scale : float
        The mean of the diagonal of `J^T J` without a penalty.
    """

    J: Jacobian
    groups: tuple[_Group, ...]
    coarse: CoarseInputs
    scale: float

    def shifted(self, shift: float) -> tuple[Product, Product]:
        """Products with `J^T J + shift I`, and with the sum over all levels."""
        solves = [group.inverse(shift) for group in self.groups]
        last, J = self.coarse.inverse(shift), self.J

        def precondition(r: torch.Tensor) -> torch.Tensor:
            levels = np.concatenate([solve(r.numpy()) for solve in solves])
            return torch.from_numpy(levels) + last(r)

        return lambda d: normal_product(J, d) + shift * d, precondition
