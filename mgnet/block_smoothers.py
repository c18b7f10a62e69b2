"""`BlockJacobi` and `BlockGaussSeidel`: relaxation of all unknowns of a block at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from mgnet import kernels, vector
from mgnet.limits import is_number, is_whole, shown
from mgnet.local_inverses import LocalInverses, local_inverses
from mgnet.smoother import Smoother
from mgnet.subspace_corrections import (
    Stage,
    check_direction,
    corrected,
    factored_triangle,
    finite_matrix,
    has_rows,
    solve_dtype,
)

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = ["BlockGaussSeidel", "BlockJacobi"]

State = Any


@dataclass(frozen=True)
class BlockJacobi(Smoother):
    """Damped block Jacobi relaxation `u + omega D^-1 (f - A(u))`.

    D is the block diagonal of the matrix, or of the Jacobian at the first visit. The method is for
    systems in which the unknowns of a point are coupled.

    Parameters
    ----------
    sizes : int or tuple of int, optional
        Number of unknowns of each block: one number for all, or one for each block, in order. The
        default is the block size of the level's matrix, which must then be a SciPy BSR matrix with
        square blocks.
    omega : float
        Damping factor, dimensionless, above 0.

    Raises
    ------
    ValueError
        If sizes are not positive integers or omega is not above 0.

    Examples
    --------
    >>> from mgnet import Level
    >>> A = sp.csr_matrix([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 4.0]])
    >>> smoother = BlockJacobi((2, 1), omega=1.0)
    >>> level, u = Level(A, smoother), np.zeros(3)
    >>> smoother.smooth(level, u, np.array([3.0, 2.0, 4.0]), 1, smoother.start(level, u))[0]
    array([1., 1., 1.])
    """

    sizes: int | tuple[int, ...] | None = None
    omega: float = 2.0 / 3.0

    def __post_init__(self) -> None:
        _check_sizes("BlockJacobi", self.sizes)
        if not is_number(self.omega, 0.0, math.inf, open=True):
            raise ValueError(
                f"BlockJacobi got omega {shown(self.omega)}; give a number above 0, such as 0.8"
            )

    def start(self, level: Level, u: State) -> list[Stage]:
        inverses, omega = _inverse_blocks(self, self.sizes, level, u)[1], self.omega
        return [Stage(None, lambda r: inverses.apply(r) * omega)]

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        return corrected(level, u, f, memory, sweeps), memory

    def __str__(self) -> str:
        return f"BlockJacobi({_shown_sizes(self.sizes)}, {self.omega:.6g})"


@dataclass(frozen=True)
class BlockGaussSeidel(Smoother):
    """Block Gauss-Seidel relaxation: the blocks are solved exactly, one after the other.

    It is point relaxation of `D^-1 A`, where D is the block diagonal, and runs in the same loops:
    compiled with numba if that is installed (`pip install "mgnet-solvers[fast]"`), otherwise with
    SciPy's triangular factors. On a nonlinear level, each sweep is `u + (D + L)^-1 (f - A(u))` with
    the Jacobian of the first visit.

    Parameters
    ----------
    sizes : int or tuple of int, optional
        Number of unknowns of each block, as for `BlockJacobi`.
    direction : "forward", "backward" or "symmetric"
        Order in which the blocks are relaxed; a symmetric sweep is a forward sweep followed by a
        backward one.

    Raises
    ------
    ValueError
        If sizes are not positive integers or the direction is unknown.

    Examples
    --------
    >>> from mgnet import gallery
    >>> smoother = BlockGaussSeidel(sizes=3)
    >>> level, u = gallery.poisson(3)[0], np.zeros(3)
    >>> smoother.smooth(level, u, np.ones(3), 1, smoother.start(level, u))[0]
    array([0.375, 0.5  , 0.375])
    """

    sizes: int | tuple[int, ...] | None = None
    direction: str = "forward"

    def __post_init__(self) -> None:
        _check_sizes("BlockGaussSeidel", self.sizes)
        check_direction("BlockGaussSeidel", self.direction)

    @property
    def _backward(self) -> tuple[bool, ...]:
        return {"forward": (False,), "backward": (True,), "symmetric": (False, True)}[
            self.direction
        ]

    def start(self, level: Level, u: State) -> Any:
        block, inverses, matrix = _inverse_blocks(self, self.sizes, level, u)
        scaled = _scaled(matrix, inverses, block)
        plain = isinstance(u, np.ndarray) and has_rows(level)
        if plain and kernels.available and kernels.compiles(scaled.dtype, u.dtype):
            return scaled, inverses, np.ones(len(block), scaled.dtype)
        stages = []
        for backward in self._backward:
            triangle = (sp.triu if backward else sp.tril)(scaled, format="csc")
            solve = factored_triangle(triangle).solve
            stages.append(Stage(None, _after_blocks(solve, inverses)))
        return stages

    def smooth(
        self, level: Level, u: State, f: State | None, sweeps: int, memory: Any
    ) -> tuple[State, Any]:
        if isinstance(memory, list):
            return corrected(level, u, f, memory, sweeps), memory
        scaled, inverses, ones = memory
        b = np.zeros_like(u) if f is None else f
        zero = kernels.is_zero(u)
        v, b = kernels.flat(scaled, u, inverses.apply(b.reshape(-1)))
        matrix = scaled.astype(v.dtype, copy=False)
        for number in range(sweeps):
            for k, backward in enumerate(self._backward):
                from_zero = zero and number == k == 0
                kernels.gauss_seidel(matrix, ones, v, b, backward, from_zero=from_zero)
        level.charge(self.work(level, sweeps))
        return vector.completed(v, u), memory

    def work(self, level: Level, sweeps: int) -> float:
        return sweeps * len(self._backward) * level.residual_work

    def __str__(self) -> str:
        return f"BlockGaussSeidel({_shown_sizes(self.sizes)}, {self.direction!r})"


def _shown_sizes(sizes: int | tuple[int, ...] | None) -> str:
    if isinstance(sizes, tuple) and len(sizes) > 6:
        return f"{len(sizes)} blocks"
    return str(sizes)


def _check_sizes(owner: str, sizes: Any) -> None:
    several = isinstance(sizes, tuple) and len(sizes) > 0 and all(is_whole(k, 1) for k in sizes)
    if sizes is not None and not several and not is_whole(sizes, 1):
        raise ValueError(
            f"{owner} got sizes {shown(sizes)}; give the unknowns of a block, an integer from 1, "
            "or a tuple with one integer for each block"
        )


def _inverse_blocks(
    smoother: Smoother, sizes: int | tuple[int, ...] | None, level: Level, u: State
) -> tuple[np.ndarray, LocalInverses, Any]:
    """The block number of each unknown, the inverses of the blocks, and the matrix."""
    owner = f"{smoother} on {level}"
    matrix = finite_matrix(level, u, owner)
    n = matrix.shape[0]
    if sizes is None:
        sizes = _size_of_bsr(smoother, level, level.jacobian(u))
    if not isinstance(sizes, tuple):
        if n % sizes:
            raise ValueError(
                f"{owner}: {n} unknowns are not a multiple of the block size {sizes}; "
                "give a tuple of sizes, one for each block"
            )
        offsets = np.arange(0, n + 1, sizes)
    else:
        offsets = np.concatenate([[0], np.cumsum(sizes)])
    if offsets[-1] != n:
        raise ValueError(
            f"{owner}: the blocks have {offsets[-1]} unknowns in all, but the level "
            f"has {n}; each unknown must be in one block"
        )
    dtype = solve_dtype(matrix, u)
    inverses = local_inverses(matrix, np.arange(n), offsets, dtype, owner)
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)), inverses, matrix


def _size_of_bsr(smoother: Smoother, level: Level, matrix: Any) -> int:
    if not sp.issparse(matrix) or matrix.format != "bsr":
        raise ValueError(
            f"{smoother} on {level} was given no sizes, and its matrix is not a SciPy BSR matrix, "
            "which would give them; give the unknowns of a block, such as sizes=2"
        )
    rows, columns = matrix.blocksize
    if rows != columns:
        raise ValueError(
            f"{smoother} on {level} has a BSR matrix with blocks of shape {(rows, columns)}; give "
            "square ones, or sizes"
        )
    return rows


def _scaled(matrix: Any, inverses: LocalInverses, block: np.ndarray) -> sp.csr_matrix:
    """`D^-1 A`, with exact identity matrices as its diagonal blocks."""
    n = len(block)
    rows, columns, values = [], [], []
    for places, parts in inverses.groups:
        rows.append(np.repeat(places, places.shape[1], axis=1).reshape(-1))
        columns.append(np.tile(places, places.shape[1]).reshape(-1))
        values.append(parts.reshape(-1))
    inverse = sp.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(n, n)
    )
    product: Any = sp.coo_matrix(inverse @ sp.csr_matrix(matrix))
    between = block[product.row] != block[product.col]
    row, column = product.row[between], product.col[between]
    off = sp.csr_matrix((product.data[between], (row, column)), shape=(n, n), dtype=inverses.dtype)
    scaled = sp.csr_matrix(off + sp.diags(np.ones(n, inverses.dtype)))
    scaled.sort_indices()
    return scaled


def _after_blocks(solve: Any, inverses: LocalInverses) -> Any:
    def solved(r: np.ndarray) -> np.ndarray:
        return vector.solved_by_parts(solve, inverses.dtype, inverses.apply(r))

    return solved
