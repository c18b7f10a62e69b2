"""A least-squares problem with its samples distributed over ranks: `distribute_samples`.

Every rank holds those rows of the residual vector and of the Jacobian that belong to its samples.
Sums over all samples, such as `|r|^2`, `J^T y` and `J^T J`, are computed from fixed blocks
(`SampleBlocks`). States, steps and decisions are then the same on all ranks, so the smoothers for
one process can be used unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mgnet.petsc.hooks import end_all_ranks_on_error
from mgnet.petsc.sample_blocks import SampleBlocks, aligned
from mgnet.petsc.tsqr import tsqr
from mgnet.petsc.watch import watch_of
from mgnet.training.least_squares.factorizations import singular_values, triangle
from mgnet.training.least_squares.jacobian import DenseJacobian, Jacobian
from mgnet.training.least_squares.problem import LeastSquares

__all__ = ["DistributedJacobian", "DistributedLeastSquares", "distribute_samples"]


def distribute_samples(problem: LeastSquares, comm: Any = None) -> DistributedLeastSquares:
    """Distribute the samples of a least-squares problem over MPI ranks.

    A script that builds the same problem and initial state on every rank can then be started with
    `mpiexec -n P` and run `LevenbergMarquardt`, `LastLayer`, `AdaptiveBasis` and the optimizers,
    including on the levels of a `knot_hierarchy`. Results are identical, bit for bit, on any number
    of ranks (with one thread each: set OMP_NUM_THREADS=1). An exception on any rank ends all ranks.

    Parameters
    ----------
    problem : LeastSquares
        The problem with all samples, of which each rank uses its own blocks. It must have more
        residuals than parameters.
    comm : PETSc.Comm, optional
        The communicator; `PETSC_COMM_WORLD` by default.

    Returns
    -------
    DistributedLeastSquares
        The distributed problem.

    Raises
    ------
    TypeError
        If `problem` is not a `LeastSquares` with data.
    ValueError
        If the problem has more parameters than residuals, a sample_weight, or a robust loss.

    Examples
    --------
    >>> from mgnet import Hierarchy, Level, cascade, run
    >>> from mgnet.training import LevenbergMarquardt
    >>> x = torch.linspace(-1, 1, 500, dtype=torch.float64).unsqueeze(1)
    >>> network = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> problem = distribute_samples(LeastSquares(network.double(), (x, torch.sin(3 * x))))
    >>> hierarchy = Hierarchy([Level(problem, LevenbergMarquardt())])
    >>> u, _ = run(cascade([8]), hierarchy, problem.start(), None)
    >>> problem.value(u) < 0.1 * problem.value(problem.start())
    True
    """
    if type(problem) is not LeastSquares or problem.data is None:
        raise TypeError(
            f"distribute_samples got a {type(problem).__name__}; it needs the class LeastSquares "
            "itself, with (inputs, targets)"
        )
    if not problem.plain:
        raise ValueError(
            "distribute_samples got a LeastSquares with a sample_weight or a robust loss; it "
            "spreads plain squares only"
        )
    spread = DistributedLeastSquares(
        problem.network, problem.data, problem.penalty, chunk_size=problem.chunk_size, comm=comm
    )
    if spread.blocks.comm.getSize() > 1:
        end_all_ranks_on_error(spread.blocks.comm)
    return spread


class DistributedLeastSquares(LeastSquares):
    """A problem made by `distribute_samples`; `residuals` and `linearize` give this rank's rows.

    The rows of a penalty come last. Every rank has them, but sums over the ranks count them once.

    Parameters
    ----------
    network : torch.nn.Module
        The model whose parameters are the unknowns.
    data : (inputs, targets)
        All samples of all ranks.
    penalty, chunk_size
        The same arguments as those of `LeastSquares`.
    comm : PETSc.Comm, optional
        The communicator; `PETSC_COMM_WORLD` by default.

    Raises
    ------
    ValueError
        If there are fewer residuals than parameters.

    Examples
    --------
    >>> network = torch.nn.Linear(1, 1, dtype=torch.float64)
    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> problem = DistributedLeastSquares(network, (x, 2.0 * x))
    >>> u = torch.tensor([1.0, 0.0], dtype=torch.float64)
    >>> problem.value(u), problem(u).tolist()
    (0.25, [-0.5, -0.5])
    """

    def __init__(
        self,
        network: torch.nn.Module,
        data: tuple[Tensor, Tensor],
        penalty: Callable[[Any], Tensor] | None = None,
        *,
        chunk_size: int | None = None,
        comm: Any = None,
    ):
        super().__init__(network, data, penalty, chunk_size=chunk_size)
        self.blocks = SampleBlocks(len(data[0]), comm)
        parameters = sum(p.numel() for p in self.flat.trainable.values())
        if data[1].numel() < parameters:
            raise ValueError(
                f"DistributedLeastSquares got {data[1].numel()} residuals for {parameters} "
                "parameters; with fewer residuals ranks gain nothing: use LeastSquares on each"
            )

    @cached_property
    def parts(self) -> list[_Block]:
        """The problem on each block of this rank."""
        x, y = self.data
        return [
            _Block(self.network, aligned(x[rows]), aligned(y[rows]), self)
            for rows in self.blocks.own
        ]

    def with_network(self, network: torch.nn.Module) -> DistributedLeastSquares:
        return self._like(network, self.data)

    def with_data(self, batch: Any) -> DistributedLeastSquares:
        return self._like(self.network, batch)

    def _like(self, network: torch.nn.Module, data: Any) -> DistributedLeastSquares:
        return DistributedLeastSquares(
            network, data, self.penalty, chunk_size=self.chunk_size, comm=self.blocks.comm
        )

    def residuals(self, u: Tensor) -> Tensor:
        return self._stacked([part.residuals(u) for part in self.parts], u)

    def _stacked(self, rows: list[Tensor], u: Tensor) -> Tensor:
        if self.penalties is not None:
            rows = [*rows, self.penalties.matvec(u.double())]
        return torch.cat([u.new_empty(0).double(), *rows])  # a rank may have no rows

    def half_square(self, r: Tensor) -> float:
        *pieces, rest = self._pieces(r)
        total = self.blocks.total(piece @ piece for piece in pieces)
        return 0.5 * float(total + rest @ rest)

    def largest(self, r: Tensor) -> float:
        own = super().largest(r)
        return max(watch_of(self.blocks.comm.tompi4py()).allgather(own))

    def _pieces(self, r: Tensor) -> list[Tensor]:
        """The rows of each block of this rank, then those of the penalty."""
        return _cut(r, [part.data[1].numel() for part in self.parts])

    def mean_square(self, u: Tensor) -> float:
        return 2.0 * (self.value(u) - self.penalty_at(u))

    def value_and_gradient(self, u: Tensor) -> tuple[float, Tensor]:
        found = (part.value_and_gradient(u) for part in self.parts)
        joint = (torch.cat([g.new_tensor([v], dtype=torch.float64), g]) for v, g in found)
        whole = self.blocks.total(joint)
        if self.penalties is not None:
            extra = self.penalties.matvec(u.detach().double())
            whole += torch.cat([0.5 * (extra @ extra)[None], self.penalties.rmatvec(extra)])
        return float(whole[0]), whole[1:].to(u)

    def linearize(self, u: Tensor) -> tuple[Tensor, DistributedJacobian]:
        pairs = [part.linearize(u) for part in self.parts]
        J = DistributedJacobian(
            self.blocks,
            tuple(J for _, J in pairs),
            self.penalties,
            self.data[1].numel() + (0 if self.rows is None else len(self.rows)),
            len(u),
        )
        return self._stacked([r for r, _ in pairs], u), J

    def triangle_of(self, rows: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The triangular factor of `rows(inputs, targets)`, with the samples of all ranks."""
        with torch.no_grad():
            return tsqr(self.blocks, (rows(*part.data) for part in self.parts))

    def projected(
        self, u: Tensor, size: int, ridge: float, rcond: float | None
    ) -> DistributedJacobian:
        """The Jacobian at u, projected off the range of its last `size` columns, which become zero.

        With a ridge, these columns have further rows, `ridge^(1/2)` times the identity, at the end.
        """
        J = self.linearize(u)[1]
        extra = torch.empty(0, len(u), dtype=torch.float64)
        if J.penalty is not None:
            extra = J.penalty.dense()
        if ridge:
            eye = torch.eye(len(u), dtype=torch.float64)
            extra = torch.cat([extra, ridge**0.5 * eye[-size:]])
        # The rows that count once come last, as in a DistributedJacobian.
        rows = [*(part.dense() for part in J.parts), extra]
        Q = self._range_basis([block[:, -size:] for block in rows], rcond)
        hidden = [torch.cat([A[:, :-size], A.new_zeros(len(A), size)], 1) for A in rows]
        pairs = zip(Q[:-1], hidden[:-1], strict=True)
        shares = self.blocks.total(q.T @ A for q, A in pairs) + Q[-1].T @ hidden[-1]
        *parts, rest = (DenseJacobian(A - q @ shares) for q, A in zip(Q, hidden, strict=True))
        count = self.data[1].numel() + len(extra)
        return DistributedJacobian(
            self.blocks, tuple(parts), rest if len(extra) else None, count, len(u)
        )

    def _range_basis(self, rows: list[Tensor], rcond: float | None) -> list[Tensor]:
        """This rank's rows of an orthonormal basis of the range; the last rows count once in sums.

        Two steps are needed: if there are small singular values, the columns from the first step
        are not orthonormal.
        """
        for _ in range(2):
            T = triangle(tsqr(self.blocks, rows[:-1]), rows[-1])
            _, s, V = singular_values(T, rcond)
            rows = [block @ V / s.T for block in rows]
        return rows


class _Block(LeastSquares):
    """The part of a problem on one block of samples, with the weights of the whole problem."""

    def __init__(self, network: torch.nn.Module, x: Tensor, y: Tensor, whole: LeastSquares):
        super().__init__(network, (x, y), chunk_size=whole.chunk_size)
        self.of_whole = whole.weight

    @property
    def weight(self) -> float:
        return self.of_whole


@dataclass(frozen=True, eq=False)
class DistributedJacobian(Jacobian):
    """This rank's rows of a Jacobian; operations that sum over rows sum over all ranks.

    Attributes
    ----------
    blocks : SampleBlocks
        The distribution of the samples.
    parts : tuple of Jacobian
        The Jacobian of each block of this rank.
    penalty : Jacobian or None
        The last rows, which every rank has; sums over the ranks count them once.
    rows, columns : int
        Number of rows of all ranks together, and number of columns.
    """

    blocks: SampleBlocks
    parts: tuple[Jacobian, ...]
    penalty: Jacobian | None
    rows: int
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        """The shape: (number of rows of all ranks together, number of columns)."""
        return self.rows, self.columns

    def matvec(self, d: Tensor) -> Tensor:
        return torch.cat([d.new_empty(0), *(J.matvec(d) for J in self._here)])

    def rmatvec(self, y: Tensor) -> Tensor:
        *pieces, rest = _cut(y, [J.shape[0] for J in self.parts])
        pairs = zip(self.parts, pieces, strict=True)
        total = self.blocks.total(J.rmatvec(piece) for J, piece in pairs)
        return total if self.penalty is None else total + self.penalty.rmatvec(rest)

    def gram(self) -> Tensor:
        # In place: for matrices with thousands of columns, allocation costs more than addition.
        total = self.blocks.joined((J.gram() for J in self.parts), Tensor.add_)
        return total if self.penalty is None else total + self.penalty.gram()

    def root(self) -> Tensor:
        T = tsqr(self.blocks, (J.dense() for J in self.parts))
        return T if self.penalty is None else triangle(T, self.penalty.dense())

    def dense(self) -> Tensor:
        """The rows of this rank."""
        nothing = torch.empty(0, self.shape[1], dtype=torch.float64)
        return torch.cat([nothing, *(J.dense() for J in self._here)])

    @property
    def _here(self) -> tuple[Jacobian, ...]:
        return self.parts if self.penalty is None else (*self.parts, self.penalty)


def _cut(rows: Tensor, lengths: list[int]) -> list[Tensor]:
    """The rows of each block of this rank, and the remaining rows."""
    pieces = torch.split(rows, [*lengths, len(rows) - sum(lengths)])
    return [aligned(piece) for piece in pieces]
