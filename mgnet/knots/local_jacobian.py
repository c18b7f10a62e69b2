"""The Jacobian of residuals of a KAN, with degree + 1 splines of an edge in every row.

The knot intervals are the elements of a finite element method. The rows whose sample lies in one
interval of an input differ from zero in the same columns, all outputs of degree + 1 splines, which
are neighbours in the flat parameter vector: sorted by interval they are dense blocks. So products,
the matrices of elements and those of coarser knots are products of small dense matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from mgnet.knots.jacobian import KANJacobian, LayerJacobian
from mgnet.knots.refinement import refinement_matrix
from mgnet.knots.spline import local_basis
from mgnet.knots.spline_network import SplineNetwork
from mgnet.training.least_squares.jacobian import (
    DenseJacobian,
    Jacobian,
    ProlongedJacobian,
    StackedJacobian,
    squared,
)
from mgnet.training.least_squares.linearization import Residual, blocks_of

__all__ = ["InputColumns", "LocalJacobian", "linearize_residual", "local_form"]

ENTRIES = 2**24  # of the dense rows that are made at once
SPARSE = 8  # a product of gathered rows costs so much more, per entry, than one of dense matrices


@dataclass(frozen=True, eq=False)
class InputColumns:
    """The columns of J that belong to one input of a layer.

    Attributes
    ----------
    order : int array of shape (rows,)
        The rows of J, sorted by the knot interval that their sample lies in.
    starts : int array of shape (intervals + 1,)
        Where the rows of each interval begin in this order.
    values : array of shape (rows, (degree + 1) outputs)
        In this order; of the splines that do not vanish in the interval.
    place, outputs, degree : int
        The first column; the outputs of the layer; of the splines.
    """

    order: np.ndarray
    starts: np.ndarray
    values: np.ndarray
    place: int
    outputs: int
    degree: int

    @property
    def intervals(self) -> int:
        """Of each edge."""
        return len(self.starts) - 1

    @property
    def splines(self) -> int:
        """Of each edge."""
        return self.intervals + self.degree

    @property
    def count(self) -> int:
        """Number of columns."""
        return self.splines * self.outputs

    def elements(self) -> Iterator[tuple[slice, slice]]:
        """Rows (in `order`) and columns (from `place`) of each interval that has samples."""
        width, ends = self.values.shape[1], self.starts.tolist()
        for interval, (begin, end) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
            if end > begin:
                first = interval * self.outputs
                yield slice(begin, end), slice(first, first + width)

    @cached_property
    def element_matrices(self) -> np.ndarray:
        """`V^T V` of each interval, shape (intervals, width, width): their sum is J_p^T J_p."""
        width = self.values.shape[1]
        matrices = np.zeros((self.intervals, width, width))
        for rows, columns in self.elements():
            V = self.values[rows]
            matrices[columns.start // self.outputs] = V.T @ V
        return matrices

    @cached_property
    def by_row(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each row of J: its place in `order`, and its interval."""
        inverse = np.argsort(self.order)
        return inverse, np.repeat(np.arange(self.intervals), np.diff(self.starts))[inverse]

    def coarsened(self, place: int, factor: int, kept: np.ndarray | None) -> InputColumns:
        """The same on knots of `factor` times the distance; of the rows where `kept`, rescaled."""
        splines = self.degree + 1
        P = refinement_matrix(1, self.degree, factor).toarray()  # as on any interval
        locally = [  # the coarse splines of an interval in the fine ones of its parts
            np.kron(P[part : part + splines, :splines], np.eye(self.outputs))
            for part in range(factor)
        ]
        order, starts, weight = self.order, self.starts, 1.0
        chosen: Any = slice(None)
        if kept is not None:
            chosen = kept[order]
            before = np.concatenate([[0], np.cumsum(chosen)])
            weight = (len(order) / before[-1]) ** 0.5
            order, starts = (np.cumsum(kept) - 1)[order[chosen]], before[starts]
        values = self.values[chosen]
        coarse = np.empty_like(values)
        for number, (begin, end) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
            coarse[begin:end] = values[begin:end] @ (weight * locally[number % factor])
        outputs, degree = self.outputs, self.degree
        return InputColumns(order, starts[::factor], coarse, place, outputs, degree)


@dataclass(frozen=True, eq=False)
class LocalJacobian(Jacobian):
    """J as the columns of all inputs of all layers, in float64.

    Attributes
    ----------
    rows : int
    inputs : tuple of InputColumns
        In the order of the parameters.
    """

    rows: int
    inputs: tuple[InputColumns, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, sum(part.count for part in self.inputs)

    @property
    def row_entries(self) -> int:
        """Entries of a row that do not vanish."""
        return sum(part.values.shape[1] for part in self.inputs)

    def matvec(self, d: torch.Tensor) -> torch.Tensor:
        total, image = np.zeros(self.rows), np.empty(self.rows)
        for part in self.inputs:
            own = d.numpy()[part.place : part.place + part.count]
            for rows, columns in part.elements():
                np.matmul(part.values[rows], own[columns], out=image[rows])
            total[part.order] += image
        return torch.from_numpy(total)

    def rmatvec(self, y: torch.Tensor) -> torch.Tensor:
        total = np.zeros(self.shape[1])
        for part in self.inputs:
            sorted_y = y.numpy()[part.order]
            own = total[part.place : part.place + part.count]
            for rows, columns in part.elements():
                own[columns] += sorted_y[rows] @ part.values[rows]
        return torch.from_numpy(total)

    def dense(self) -> torch.Tensor:
        return torch.from_numpy(self._dense_rows(0, self.rows))

    def gram(self) -> torch.Tensor:
        total = np.zeros((self.shape[1],) * 2)
        step = max(1, ENTRIES // self.shape[1])
        sparse = SPARSE * self.row_entries < self.shape[1]
        for first in range(0, self.rows, step):
            block = self._dense_rows(first, min(first + step, self.rows))
            if not sparse:
                total += squared(torch.from_numpy(block)).numpy()
                continue
            for part in self.inputs:
                right = block[:, part.place :]
                for rows, columns in part.elements():
                    numbers = part.order[rows]
                    begin, end = np.searchsorted(numbers, (first, first + step))
                    V = part.values[rows][begin:end]
                    own = slice(part.place + columns.start, part.place + columns.stop)
                    total[own, part.place :] += V.T @ right[numbers[begin:end] - first]
        gram = torch.from_numpy(total)
        return gram if not sparse else gram.triu() + gram.triu(1).T

    def _dense_rows(self, begin: int, end: int) -> np.ndarray:
        block = np.zeros((end - begin, self.shape[1]))
        for part in self.inputs:
            values, interval = part.by_row
            own = block[:, part.place : part.place + part.count]
            splines = own.reshape(end - begin, part.splines, part.outputs)  # a view
            columns = interval[begin:end, None] + np.arange(part.degree + 1)
            entries = part.values[values[begin:end]]
            splines[np.arange(end - begin)[:, None], columns] = entries.reshape(
                end - begin, part.degree + 1, part.outputs
            )
        return block

    def scaled(self, weight: float) -> LocalJacobian:
        """`weight J`."""
        return self.scaled_rows(torch.full((self.rows,), weight, dtype=torch.float64))

    def scaled_rows(self, factors: torch.Tensor) -> LocalJacobian:
        scaled = ((p, p.values * factors.numpy()[p.order, None]) for p in self.inputs)
        return LocalJacobian(self.rows, tuple(replace(p, values=V) for p, V in scaled))

    @cached_property
    def mean_diagonal(self) -> float:
        """Of `J^T J`."""
        squares = sum(float(np.vdot(part.values, part.values)) for part in self.inputs)
        return squares / self.shape[1]

    def coarsened(self, factor: int = 2, rows: int | None = None, seed: int = 0) -> LocalJacobian:
        """`J P` with the prolongation of `knot_transfer`; or `rows` of its rows, drawn, rescaled.

        Parameters
        ----------
        factor : int
        rows : int, optional
            Then J^T J is an estimate.
        seed : int
            Of the drawing.
        """
        kept = None
        if rows is not None and rows < self.rows:
            kept = np.zeros(self.rows, bool)
            drawn = np.random.default_rng(seed).choice(self.rows, rows, replace=False)
            kept[drawn] = True
        parts, place = [], 0
        for part in self.inputs:
            parts.append(part.coarsened(place, factor, kept))
            place += parts[-1].count
        return LocalJacobian(self.rows if kept is None else int(kept.sum()), tuple(parts))


def local_form(J: Jacobian) -> LocalJacobian | None:
    """J as a `LocalJacobian` where it is one, in another form or up to a factor; else None.

    Those of a `LeastSquares` with a KAN and data are, and those of its coarse problems around a
    fine state: `J P` with the prolongation of `knot_transfer`.
    """
    if isinstance(J, StackedJacobian) and len(J.parts) == 1:
        weight, inner = J.parts[0]
        found = local_form(inner)
        return found if found is None or weight == 1.0 else found.scaled(weight)
    if isinstance(J, DenseJacobian) and J.structure is not None:
        return local_form(J.structure)
    if isinstance(J, KANJacobian):
        return None if J.order is not None else _of_layers(J.layers)
    if isinstance(J, ProlongedJacobian):
        return _prolonged(J)
    return J if isinstance(J, LocalJacobian) else None


def _of_layers(layers: tuple[LayerJacobian, ...]) -> LocalJacobian:
    inputs, place = [], 0
    for layer in layers:
        samples, outputs, width = layer.sensitivity.shape
        splines, nonzeros = layer.splines, layer.columns.shape[1]
        of_inputs = layer.size // splines
        degree = nonzeros // of_inputs - 1
        first = layer.columns[:, :: degree + 1] - splines * torch.arange(of_inputs)
        # A row per sample and output: the splines at the sample times the output's sensitivity.
        values = layer.values.view(samples, 1, of_inputs, degree + 1, 1)
        values = values * layer.sensitivity[:, :, None, None, :]
        for p in range(of_inputs):
            rows = first[:, p].repeat_interleave(outputs), values[:, :, p].flatten(0, 1)
            inputs.append(_columns(*rows, place, splines - degree, degree))
            place += inputs[-1].count
    return LocalJacobian(inputs[0].order.size, tuple(inputs))


def _prolonged(J: ProlongedJacobian) -> LocalJacobian | None:
    """`J P` where P is knot insertion by some factor in all layers, which a product tells."""
    fine = local_form(J.fine)
    if fine is None:
        return None
    intervals = [part.intervals for part in fine.inputs]
    for factor in (n for n in range(2, min(intervals) + 1) if not any(k % n for k in intervals)):
        columns = sum((p.intervals // factor + p.degree) * p.outputs for p in fine.inputs)
        if columns != J.columns:
            continue
        coarse = fine.coarsened(factor)
        probe = torch.cos(torch.arange(1.0, columns + 1.0, dtype=torch.float64))
        ours, theirs = coarse.matvec(probe), J.matvec(probe)
        if bool((ours - theirs).norm() <= 1e-6 * theirs.norm()):  # P may be in single precision
            return coarse
    return None


class _Local(torch.nn.Module):
    """Stands in for a KAN: every sample of a call has its own copy of the coefficients it meets."""

    def __init__(self, kan: SplineNetwork):
        super().__init__()
        self.kan = kan
        # Of each call and layer: first splines (samples, inputs); copies (.., degree + 1, outputs).
        self.calls: list[list[tuple[torch.Tensor, torch.Tensor]]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kan, call = self.kan, []
        for number, (n, coefficients) in enumerate(
            zip(kan.intervals, kan.coefficients, strict=True)
        ):
            x = kan.into_domain(x) if number else x
            u = coefficients.detach()
            first, values = local_basis(x, n, kan.degree, kan.domain, 0)
            splines = first.unsqueeze(-1) + torch.arange(kan.degree + 1, device=x.device)
            own = u[torch.arange(len(u), device=x.device).unsqueeze(-1), splines].requires_grad_()
            call.append((first, own))
            x = torch.einsum("npj,npjq->nq", values, own)
        self.calls.append(call)
        return x


def linearize_residual(
    kan: SplineNetwork, residual: Residual
) -> tuple[torch.Tensor, LocalJacobian]:
    """Residuals of a KAN and their Jacobian, in float64.

    One backward pass through copies of the coefficients, degree + 1 per edge and sample.

    Parameters
    ----------
    kan : SplineNetwork
        Without leading linear layer.
    residual : callable
        `module -> tensor` or tuple of tensors. Each tensor is made from one call of the module,
        entry i of it from sample i; it may differentiate with respect to the inputs.

    Raises
    ------
    ValueError
        If the network has a linear layer, or a tensor is not of one call and its samples.

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1)
    >>> r, J = linearize_residual(KAN([1, 3, 1], 20), lambda kan: kan(x) - torch.sin(3 * x))
    >>> J.shape, J.row_entries
    ((50, 138), 24)
    """
    if kan.linear is not None:
        raise ValueError(
            "linearize_residual got a KAN with a linear layer; it takes networks of splines alone"
        )
    stand_in = _Local(kan)
    with torch.enable_grad():
        blocks = blocks_of(residual(stand_in))
    layers: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in kan.intervals]
    for number, block in enumerate(blocks):
        for layer, part in zip(layers, _rows_of(block, number, stand_in.calls), strict=True):
            layer.append(part)
    inputs, place = [], 0
    for n, layer in zip(kan.intervals, layers, strict=True):
        first, values = (torch.cat(parts) for parts in zip(*layer, strict=True))
        for p in range(first.shape[1]):
            inputs.append(_columns(first[:, p], values[:, p], place, n, kan.degree))
            place += inputs[-1].count
    r = torch.cat([block.detach().reshape(-1) for block in blocks]).double()
    return r, LocalJacobian(len(r), tuple(inputs))


def _rows_of(
    block: torch.Tensor, number: int, calls: list[list[tuple[torch.Tensor, torch.Tensor]]]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of each layer: the first splines and the entries of the rows of one tensor of residuals."""
    copies = [[own for _, own in call] for call in calls]
    components = block.reshape(len(block), -1).unbind(1)
    gradients = [
        torch.autograd.grad(
            c.sum(), [own for call in copies for own in call], retain_graph=True, allow_unused=True
        )
        for c in components
    ]
    layers = len(calls[0])
    used = [k for k in range(len(calls)) if gradients[0][k * layers] is not None]
    if len(used) != 1 or len(copies[used[0]][0]) != len(block):
        raise ValueError(
            f"residual number {number} has {len(block)} rows from {len(used)} calls of the module; "
            "each tensor of residuals must come from one call, a row per sample"
        )
    rows = []
    for layer, (first, own) in enumerate(calls[used[0]]):
        parts = [g[used[0] * layers + layer] for g in gradients]
        values = torch.stack([torch.zeros_like(own) if g is None else g for g in parts], 1)
        rows.append((first.repeat_interleave(len(parts), 0), values.flatten(0, 1)))
    return rows


def _columns(
    first: torch.Tensor, values: torch.Tensor, place: int, intervals: int, degree: int
) -> InputColumns:
    order = first.argsort(stable=True)
    counts = torch.bincount(first, minlength=intervals)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    entries = values.detach().double().flatten(1)[order].numpy()
    return InputColumns(order.numpy(), starts.numpy(), entries, place, values.shape[2], degree)
