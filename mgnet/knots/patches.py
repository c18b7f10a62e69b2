"""Patches: a smoother that makes multigrid convergence independent of the number of knots.

A patch contains the coefficients of all outputs for degree + 1 consecutive splines of one input of
a layer. The outputs of an input share its splines, so coefficients at the same knot are strongly
coupled, and a smoother that ignores this (points, single edges) is not effective. Patches are
introduced and measured in this library; for Schwarz methods, see Toselli and Widlund, Domain
Decomposition Methods (2005), chapter 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from mgnet.knots.local_rows import InputColumns, LocalJacobian
from mgnet.level import Level
from mgnet.smoother import Smoother

__all__ = ["GaussNewtonMatrix", "Patches"]

ENTRIES = 2**18  # of the matrices that are inverted at once

Blocks = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class GaussNewtonMatrix:
    """The matrix `M = J^T J + shift N`, applied by J or, if it was formed, as a dense matrix.

    Attributes
    ----------
    J : LocalJacobian
        The Jacobian.
    shift : float
        Factor of N, not negative.
    identities : sequence of csr_array
        For each input, N for the splines of one edge: the unit matrix on the finest level, `P^T N
        P` on coarser ones, with `degree` diagonals on both sides. Inputs with the same number of
        intervals may have different N; those with the same N share one object.
    gram : tensor of shape (columns, columns) or None
        The matrix `J^T J`, if it was formed.
    """

    J: LocalJacobian
    shift: float
    identities: Sequence[sp.csr_array]
    gram: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the matrix."""
        return self.J.shape[1], self.J.shape[1]

    @cached_property
    def groups(self) -> list[tuple[tuple[InputColumns, ...], sp.csr_array]]:
        """Adjacent inputs with equal numbers of splines and outputs and the same N, and that N."""
        pairs = zip(self.J.inputs, self.identities, strict=True)
        alike = groupby(pairs, lambda pair: (pair[0].intervals, pair[0].outputs, id(pair[1])))
        groups = [list(group) for _, group in alike]
        return [(tuple(part for part, _ in group), group[0][1]) for group in groups]

    def __matmul__(self, d: torch.Tensor) -> torch.Tensor:
        product = self.J.normal(d) if self.gram is None else self.gram @ d
        for parts, N in self.groups:
            first, count = parts[0], len(parts) * parts[0].count
            own = slice(first.place, first.place + count)
            columns = d[own].view(len(parts), first.splines, first.outputs).swapaxes(0, 1)
            moved = N @ columns.flatten(1).numpy()
            moved = torch.from_numpy(moved).view(columns.shape).swapaxes(0, 1)
            product[own] += self.shift * moved.flatten()
        return product

    def dense(self) -> torch.Tensor:
        """M as a dense matrix."""
        matrix = (self.J.gram() if self.gram is None else self.gram).clone()
        for part, N in zip(self.J.inputs, self.identities, strict=True):
            own = slice(part.place, part.place + part.count)
            damped = sp.kron(N, sp.eye_array(part.outputs)).toarray()
            matrix[own, own] += self.shift * torch.from_numpy(damped)
        return matrix

    def blocks(self, kind: str) -> Blocks:
        """Diagonal blocks of M: unknowns (blocks, size), and matrices (blocks, size, size).

        Parameters
        ----------
        kind : "patch", "edge" or "point"
            Unknowns of a block: one input with degree + 1 consecutive splines and all outputs; all
            splines of one edge; one coefficient.

        Returns
        -------
        (tensor, tensor)
            The unknowns and the matrices.
        """
        assemble = {"patch": _patches, "edge": _edges, "point": _points}[kind]
        made, numbers = [], iter(range(len(self.J.inputs)))
        for parts, unscaled in self.groups:
            first, N = parts[0], self.shift * unscaled
            index = _unknowns(first, kind)
            unknowns = [part.place + index for part in parts]
            matrices = np.zeros((len(parts), *index.shape, index.shape[1]))
            for own, number in zip(matrices, numbers, strict=False):
                assemble(first, self.J.element_matrices(number), N, own)
            entries = torch.from_numpy(matrices).flatten(0, 1)
            made.append((torch.from_numpy(np.concatenate(unknowns)), entries))
        return made


def _unknowns(part: InputColumns, kind: str) -> np.ndarray:
    """The unknowns of the blocks of one input, relative to its first column: (blocks, size)."""
    if kind == "patch":  # for each interval, the splines that are nonzero in it
        return part.outputs * np.arange(part.intervals)[:, None] + np.arange(part.width)
    edges = np.arange(part.outputs)[:, None] + part.outputs * np.arange(part.splines)
    return edges if kind == "edge" else edges.reshape(-1, 1)


def _patches(
    part: InputColumns, of_intervals: np.ndarray, N: sp.csr_array, blocks: np.ndarray
) -> None:
    """Add the blocks of one input to an array of zeros."""
    n, size, Q = part.intervals, part.degree + 1, part.outputs
    elements = of_intervals.reshape(n, size, Q, size, Q)
    matrices = blocks.reshape(elements.shape)
    for shift in range(-part.degree, size):  # the element `shift` intervals to the right
        own, theirs = _overlap(shift, n), _overlap(-shift, n)
        mine, other = _overlap(shift, size, inside=True), _overlap(-shift, size, inside=True)
        matrices[own, mine, :, mine] += elements[theirs, other, :, other]
    diagonal = np.arange(Q)
    for i, j in np.ndindex(size, size):
        matrices[:, i, diagonal, j, diagonal] += N.diagonal(j - i)[min(i, j) :][:n, None]


def _overlap(shift: int, length: int, inside: bool = False) -> slice:
    """The indices below `length` that stay in range when shifted; if `inside`, their images."""
    if inside:
        shift = -shift
    return slice(max(0, -shift), max(0, length - max(0, shift)))


def _edges(
    part: InputColumns, of_intervals: np.ndarray, N: sp.csr_array, blocks: np.ndarray
) -> None:
    n, size, Q = part.intervals, part.degree + 1, part.outputs
    elements = of_intervals.reshape(n, size, Q, size, Q).diagonal(axis1=2, axis2=4)
    blocks += N.toarray()
    for interval in range(n):
        own = slice(interval, interval + size)
        blocks[:, own, own] += elements[interval].transpose(2, 0, 1)


def _points(
    part: InputColumns, of_intervals: np.ndarray, N: sp.csr_array, blocks: np.ndarray
) -> None:
    n, size, Q = part.intervals, part.degree + 1, part.outputs
    elements = of_intervals.diagonal(axis1=1, axis2=2).reshape(n, size, Q)
    diagonal = blocks.reshape(Q, part.splines)
    diagonal += N.diagonal()
    for spline in range(size):
        diagonal[:, spline : spline + n] += elements[:, spline].T


@dataclass(frozen=True)
class Patches(Smoother):
    """Chebyshev iteration, preconditioned by the additive Schwarz method with patches.

    It requires levels whose operator is a `GaussNewtonMatrix`. It is symmetric, so a cycle with
    equal numbers of sweeps before and after the coarse correction can precondition conjugate
    gradients.

    Parameters
    ----------
    degree : int
        Degree of the polynomial, which is the number of evaluations per sweep.
    lower, upper : float
        The damped part of the spectrum, as multiples of the estimated largest eigenvalue.
    steps : int
        Number of Lanczos steps of that estimate.
    blocks : "patch", "edge" or "point"
        Kind of blocks; "edge" (all splines of an edge) and "point" (Jacobi) are for comparison.

    Raises
    ------
    ValueError
        If an argument is invalid.
    TypeError
        In a sweep, if the operator of the level is not a `GaussNewtonMatrix`.

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> from mgnet.knots.local_jacobian import linearize_residual
    >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1)
    >>> _, J = linearize_residual(KAN([1, 2, 1], 8), lambda kan: kan(x))
    >>> M = GaussNewtonMatrix(J, 1e-3, [sp.eye_array(11, format="csr")] * 3)
    >>> level, b = Level(M, Patches()), torch.ones(44, dtype=torch.float64)
    >>> memory = level.smoother.start(level, b)
    >>> u, memory = level.smoother.smooth(level, 0.0 * b, b, 5, memory)
    >>> bool(u @ (M @ u) < 2.0 * (b @ u))  # 1/2 <u, M u> - <b, u> fell below 0
    True
    """

    degree: int = 2
    lower: float = 0.1
    upper: float = 1.1
    steps: int = 10
    blocks: str = "patch"

    def __post_init__(self) -> None:
        if self.degree < 1 or self.steps < 1 or not 0.0 < self.lower < self.upper:
            raise ValueError(f"{self} needs degree and steps of at least 1 and 0 < lower < upper")
        if self.blocks not in ("patch", "edge", "point"):
            raise ValueError(
                f"Patches got blocks {self.blocks!r}; they must be 'patch', 'edge' or 'point'"
            )

    def start(self, level: Level, u: torch.Tensor) -> tuple[Blocks, float]:
        M = level.operator
        if not isinstance(M, GaussNewtonMatrix):
            raise TypeError(
                f"{level} has an operator of type {type(M).__name__}; Patches needs a "
                "GaussNewtonMatrix"
            )
        inverses = [(index, _inverses(matrices)) for index, matrices in M.blocks(self.blocks)]
        generator = torch.Generator().manual_seed(0)
        # A start vector in the range of M, which may be singular.
        b = M @ torch.randn(len(u), generator=generator, dtype=torch.float64)
        level.charge(self.steps + 1.0)
        return inverses, largest_eigenvalue(
            M.__matmul__, lambda r: block_solve(inverses, r), b, self.steps
        )

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Any
    ) -> tuple[torch.Tensor, Any]:
        inverses, largest = memory
        centre = 0.5 * (self.upper + self.lower) * largest
        radius = 0.5 * (self.upper - self.lower) * largest
        sigma = centre / radius
        for _ in range(sweeps):
            rho = 1.0 / sigma
            r = self._residual(level, u, f)
            d = block_solve(inverses, r) / centre
            u = u + d
            for _ in range(self.degree - 1):
                r = level.residual_at(u, f)
                rho, previous = 1.0 / (2.0 * sigma - rho), rho
                d = rho * previous * d + (2.0 * rho / radius) * block_solve(inverses, r)
                u = u + d
        return u, memory

    def _residual(self, level: Level, u: torch.Tensor, f: torch.Tensor | None) -> torch.Tensor:
        """The residual; in the first sweep of a cycle, which starts from zero, it is f."""
        return f if f is not None and not bool(u.any()) else level.residual_at(u, f)

    def work(self, level: Level, sweeps: int) -> float:
        return float(sweeps * self.degree)

    def __str__(self) -> str:
        return f"Patches(degree={self.degree}, blocks={self.blocks!r})"


def cholesky(matrices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors of `D M D` with a unit diagonal, and D, for one matrix or many.

    If rounding has made an eigenvalue negative, which happens without damping for coefficients that
    no sample affects, the diagonal is increased until no eigenvalue is.
    """
    diagonal = matrices.diagonal(dim1=-2, dim2=-1)
    unit = diagonal.clamp_min(1e-30 * float(diagonal.max())).rsqrt()
    scaled = matrices * unit.unsqueeze(-1) * unit.unsqueeze(-2)
    raised = 4.0 * matrices.shape[-1] * torch.finfo(matrices.dtype).eps
    while raised < 1.0:
        factors, faults = torch.linalg.cholesky_ex(scaled)
        if not bool(faults.any()):
            return factors, unit
        scaled.diagonal(dim1=-2, dim2=-1).add_(raised * (faults > 0).unsqueeze(-1))
        raised *= 100.0
    raise ValueError(
        f"cholesky got matrices of shape {tuple(matrices.shape)} that are far from positive "
        "definite, or not finite; check that the residuals are finite"
    )


def _inverses(matrices: torch.Tensor) -> torch.Tensor:
    """Replace matrices by their inverses, a few at a time."""
    for part in matrices.split(max(1, ENTRIES // matrices[0].numel())):
        factors, unit = cholesky(part)
        part.copy_(torch.cholesky_inverse(factors) * unit.unsqueeze(1) * unit.unsqueeze(2))
    return matrices


def block_solve(inverses: Blocks, r: torch.Tensor) -> torch.Tensor:
    """The sum of the solutions of all blocks: additive Schwarz."""
    total = torch.zeros_like(r)
    for index, inverse in inverses:
        solutions = torch.bmm(inverse, r[index].unsqueeze(2))
        total.index_add_(0, index.flatten(), solutions.flatten())
    return total


def largest_eigenvalue(
    product: Callable[[torch.Tensor], torch.Tensor],
    precondition: Callable[[torch.Tensor], torch.Tensor],
    r: torch.Tensor,
    steps: int,
) -> float:
    """The largest eigenvalue of the preconditioned matrix, by the Lanczos process of CG.

    Source: Saad, Iterative Methods for Sparse Linear Systems (2003), section 6.7.3.
    """
    diagonal, beside = [], []
    z = precondition(r)
    p, energy, share = z, float(r @ z), 0.0
    previous = 1.0
    for _ in range(steps):
        image = product(p)
        length = energy / float(p @ image)
        diagonal.append(1.0 / length + share / previous)
        r = r - length * image
        z = precondition(r)
        energy, before = float(r @ z), energy
        share, previous = energy / before, length
        if not share > 1e-24:
            break
        beside.append(share**0.5 / length)
        p = z + share * p
    tridiagonal = np.diag(diagonal)
    inner = np.array(beside[: len(diagonal) - 1])
    return float(np.linalg.eigvalsh(tridiagonal + np.diag(inner, 1) + np.diag(inner, -1)).max())
