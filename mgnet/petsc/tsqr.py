"""QR of tall matrices whose rows are distributed over ranks, and the exact last layer by QR.

Each block of samples is factored; then pairs of triangular factors are stacked and factored, up a
fixed tree. The result has the same bits on any number of ranks. Source: Demmel et al., arXiv
0808.2664.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mgnet.petsc.sample_blocks import SampleBlocks, aligned
from mgnet.training.least_squares.factorizations import (
    check_numbers,
    check_rows,
    minimum_norm,
    triangle,
    written_rcond,
)
from mgnet.training.least_squares.last_layer import LinearPart
from mgnet.training.loss.parameters import full_precision

__all__ = ["solve_last_layer_", "tsqr"]


def tsqr(blocks: SampleBlocks, rows: Iterable[Tensor]) -> Tensor:
    """The triangular factor T of all rows on all ranks, `T^T T = A^T A`; every rank gets it.

    Parameters
    ----------
    blocks : SampleBlocks
        The distribution of the samples.
    rows : iterable of tensor of shape (any, columns)
        The rows of A for each block of this rank; right-hand sides are further columns.

    Returns
    -------
    tensor of shape (min(rows of all ranks, columns), columns)
        The factor, upper triangular.

    Examples
    --------
    >>> from petsc4py import PETSc
    >>> blocks = SampleBlocks(100, PETSc.COMM_SELF)
    >>> A = torch.ones(100, 1)
    >>> tsqr(blocks, (A[rows] for rows in blocks.own)).abs()
    tensor([[10.]])
    """
    return blocks.joined((triangle(part) for part in rows), triangle)


def solve_last_layer_(
    network: torch.nn.Module,
    data: tuple[Tensor, Tensor],
    *,
    ridge: float = 0.0,
    rcond: float | None = None,
    comm: Any = None,
) -> torch.nn.Module:
    """Compute the last layer as `mgnet.training.solve_last_layer_` does, with distributed samples.

    Every rank passes the same network and data and gets the same layer, bit for bit, on any number
    of ranks (with one thread each).

    Parameters
    ----------
    network : torch.nn.Module
        A network that ends in a `torch.nn.Linear`, or in spline coefficients with the outputs last
        (a KAN).
    data : (inputs, targets)
        All samples, of which each rank reads its own blocks.
    ridge : float
        Weight of the squared coefficients in the least-squares problem; not negative.
    rcond : float, optional
        Singular values below `rcond` times the largest one count as zero; by default the machine
        epsilon times the number of features.
    comm : PETSc.Comm, optional
        The communicator; `PETSc.COMM_WORLD` by default.

    Returns
    -------
    torch.nn.Module
        The network itself, with the last layer replaced.

    Examples
    --------
    >>> x = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(1)
    >>> features = torch.nn.Sequential(torch.nn.Linear(1, 30), torch.nn.Tanh())
    >>> network = torch.nn.Sequential(*features, torch.nn.Linear(30, 1)).double()
    >>> network = solve_last_layer_(network, (x, torch.sin(3 * x)))
    >>> bool((network(x) - torch.sin(3 * x)).abs().max() < 1e-3)
    True
    """
    check_numbers("solve_last_layer_", ridge, rcond)
    x, y = data
    blocks = SampleBlocks(len(x), comm)
    computed = full_precision(network)
    part = LinearPart(computed)
    parameters = {name: p.detach() for name, p in computed.named_parameters()}
    part.check(parameters, x[blocks.first])
    targets = y.reshape(-1, part.outputs)

    def rows_of(samples: slice) -> Tensor:
        with torch.no_grad():
            basis = part.features(parameters, aligned(x[samples]))
        return torch.cat([basis, targets[samples]], 1)

    T = tsqr(blocks, (rows_of(samples) for samples in blocks.own)) / len(x) ** 0.5
    check_rows(T)
    rcond = written_rcond(network) if rcond is None else rcond
    W = minimum_norm(T[:, : -part.outputs], T[:, -part.outputs :], ridge, rcond)
    LinearPart(network).write(W)
    return network
