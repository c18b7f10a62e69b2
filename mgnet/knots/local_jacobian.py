"""The Jacobian of residuals of a KAN, with degree + 1 splines of an edge in every row.

Residuals are evaluated once for each part of the samples, so that automatic differentiation stores
data only for a part of J: the other samples of the call have the network's values but no
derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mgnet.knots.jacobian import KANJacobian, LayerJacobian
from mgnet.knots.local_rows import InputColumns, LocalJacobian
from mgnet.knots.spline import derivative_pieces, local_basis, locate
from mgnet.knots.spline_network import SplineNetwork
from mgnet.training.least_squares.jacobian import (
    DenseJacobian,
    Jacobian,
    ProlongedJacobian,
    StackedJacobian,
)
from mgnet.training.least_squares.linearization import Residual, blocks_of
from mgnet.training.least_squares.sample_parts import Call, SampleParts
from mgnet.transfer import PackedTransfer

__all__ = ["linearize_residual", "local_form"]

COPIES = 2**17  # least number of coefficients copied at once: their data fit into the cache
PARTS = 64  # largest number of parts of a call's samples: each runs the user's whole function


def local_form(J: Jacobian) -> LocalJacobian | None:
    """Convert J to a `LocalJacobian` if it equals one up to its form or a factor; otherwise None.

    This applies to `LeastSquares` with a KAN and data, and to its coarse problems around a fine
    state, whose Jacobian is `J P` with the prolongation P of `knot_transfer`.
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
    shapes = []
    for layer in layers:
        inputs = layer.size // layer.splines
        degree = layer.columns.shape[1] // inputs - 1
        shapes.append((inputs, layer.splines - degree, layer.width, degree))
    layout = _layout(shapes)
    samples, outputs, _ = layers[0].sensitivity.shape
    values = np.empty((samples, outputs, sum(part.width for part in layout)))
    first, end = np.empty((samples, len(layout)), np.int32), 0
    rest = iter(range(len(layout)))
    for layer, (inputs, _, _, degree) in zip(layers, shapes, strict=True):
        begin = end
        end = begin + layer.columns.shape[1] * layer.width
        # A row per sample and output: the splines at the sample times the output's sensitivity.
        own = torch.from_numpy(values[:, :, begin:end]).unflatten(2, (-1, layer.width))
        torch.mul(layer.values[:, None, :, None], layer.sensitivity[:, :, None, :], out=own)
        begins = layer.columns[:, :: degree + 1] - layer.splines * torch.arange(inputs)
        for p, interval in zip(range(inputs), rest, strict=False):
            first[:, interval] = begins[:, p].numpy()
    whole = values.reshape(samples * outputs, -1)
    return LocalJacobian(whole, first.repeat(outputs, 0), layout)


def _layout(layers: list[tuple[int, int, int, int]]) -> tuple[InputColumns, ...]:
    """The columns, from the numbers of inputs, intervals, outputs and the degree of each layer."""
    made: list[InputColumns] = []
    place = offset = 0
    for inputs, intervals, outputs, degree in layers:
        for _ in range(inputs):
            made.append(InputColumns(place, offset, intervals, outputs, degree))
            place, offset = place + made[-1].count, offset + made[-1].width
    return tuple(made)


def _prolonged(J: ProlongedJacobian) -> LocalJacobian | None:
    """`J P` if P is knot insertion by some factor in some layers, which is tested by a product."""
    fine = local_form(J.fine)
    if fine is None or not isinstance(J.transfer, PackedTransfer):
        return None
    shapes = [shape for shape, _ in J.transfer.parts]
    splines = [shape[1] for shape in shapes if len(shape) == 3 for _ in range(shape[0])]
    if len(splines) != len(fine.inputs) or any(len(shape) != 3 for shape in shapes):
        return None
    pairs = [(p.intervals, n - p.degree) for p, n in zip(fine.inputs, splines, strict=True)]
    factors = {many // few if few > 0 and many % few == 0 else 0 for many, few in pairs}
    (factor, *others) = sorted(factors - {1}) or [0]
    if factor < 2 or others:
        return None
    coarse = fine.coarsened(factor, chosen=[few < many for many, few in pairs])
    probe = torch.cos(torch.arange(1.0, J.columns + 1.0, dtype=torch.float64))
    if coarse.shape[1] != J.columns:
        return None
    ours, theirs = coarse.matvec(probe), J.matvec(probe)
    same = bool((ours - theirs).norm() <= 1e-6 * theirs.norm())  # P may have single precision
    return coarse if same else None


class _Local(torch.nn.Module):
    """Stand-in for a KAN in which each sample has its own copies of the coefficients that it uses.

    For each layer, the copies of a call consist of the numbers of the first splines (samples,
    inputs) and the coefficients (samples, inputs, degree + 1, outputs).
    """

    def __init__(self, kan: SplineNetwork):
        super().__init__()
        self.kan: Any = kan
        self.parts = SampleParts(self._window(0))

    def restart(self, part: int) -> None:
        """Prepare an evaluation of the residual function for another part of the samples."""
        self.parts.restart(self._window(part))

    def _window(self, part: int) -> Callable[[int], tuple[int, int]]:
        row = sum((self.kan.degree + 1) * u.shape[0] * u.shape[2] for u in self.kan.coefficients)

        def window(samples: int) -> tuple[int, int]:
            size = max(1, COPIES // row, -(-samples // PARTS))
            return part * size, min((part + 1) * size, samples)

        return window

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.parts.run((x,), self.kan, self._with_copies)

    def _with_copies(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[Any, ...]]:
        kan, layers = self.kan, []
        for number, (n, coefficients) in enumerate(
            zip(kan.intervals, kan.coefficients, strict=True)
        ):
            x = kan.into_domain(x) if number else x
            u = coefficients.detach()
            first, values = _basis(x, n, kan.degree, kan.domain)
            splines = first.unsqueeze(-1) + torch.arange(kan.degree + 1, device=x.device)
            own = u[torch.arange(len(u), device=x.device).unsqueeze(-1), splines].requires_grad_()
            layers.append((first, own))
            x = torch.einsum("npj,npjq->nq", values, own)
        return x, tuple(layers)


def _basis(
    x: torch.Tensor, intervals: int, degree: int, domain: tuple[float, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Like `local_basis`, but by products of powers with a matrix, which need little memory."""
    first, s, beyond = locate(x, intervals, domain)
    if not torch.equal(beyond, torch.zeros_like(beyond)):
        first, values = local_basis(x, intervals, degree, domain, 0)
        return first, values
    powers = [torch.ones_like(s), s]
    while len(powers) <= degree:
        powers.append(powers[-1] * s)
    pieces, _ = derivative_pieces(intervals, degree, domain, 0)
    return first, torch.stack(powers, -1) @ torch.as_tensor(pieces.T).to(s)


def linearize_residual(
    kan: SplineNetwork, residual: Residual
) -> tuple[torch.Tensor, LocalJacobian]:
    """Compute residuals of a KAN and their Jacobian, in float64.

    Backward passes through copies of the coefficients, degree + 1 per edge and sample, are made for
    a part of the samples at once. If J is large, up to three times the memory of J is needed.

    Parameters
    ----------
    kan : SplineNetwork
        The network, without a leading linear layer.
    residual : callable
        The function `module -> tensor` or tuple of tensors. Each tensor is computed from one call
        of the module, entry i from sample i; it may contain derivatives with respect to the inputs.
        With many samples, the function is called several times, up to 64.

    Returns
    -------
    (tensor, LocalJacobian)
        The residuals and their Jacobian.

    Raises
    ------
    ValueError
        If the network has a linear layer, or if a tensor does not belong to one call and its
        samples.

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
            "linearize_residual got a KAN with a linear layer; it takes networks of splines only"
        )
    stand_in, rows, part = _Local(kan), None, 0
    while True:
        with torch.enable_grad():
            blocks = blocks_of(residual(stand_in))
        calls = stand_in.parts.calls
        rows = rows or _Rows(kan, blocks, calls)
        rows.take(blocks, calls)
        del blocks  # frees the stored data before the next evaluation
        if all(call.end >= call.samples for call in calls):
            return torch.from_numpy(rows.r), LocalJacobian(rows.values, rows.first, rows.layout)
        part += 1
        stand_in.restart(part)


class _Rows:
    """The residuals and the rows of J, filled part by part.

    Parameters
    ----------
    kan : SplineNetwork
        The network.
    blocks : list of tensor
        Residuals with the derivatives of the first part of the samples.
    calls : list of Call
        The calls of the module.
    """

    def __init__(self, kan: SplineNetwork, blocks: list[torch.Tensor], calls: list[Call]):
        shapes = [
            (len(u), n, u.shape[2], kan.degree)
            for u, n in zip(kan.coefficients, kan.intervals, strict=True)
        ]
        self.layout = _layout(shapes)
        self.calls = [_call_of(block, number, calls) for number, block in enumerate(blocks)]
        rows = sum(block.numel() for block in blocks)
        self.r = np.empty(rows)
        self.first = np.empty((rows, len(self.layout)), np.int32)
        self.values = np.zeros((rows, sum(part.width for part in self.layout)))

    def take(self, blocks: list[torch.Tensor], calls: list[Call]) -> None:
        """Fill in the rows of the samples that have derivatives."""
        start = 0
        for block, number in zip(blocks, self.calls, strict=True):
            call, block = calls[number], block.reshape(len(block), -1)
            components = block.shape[1]
            for c in range(components if call.end > call.begin else 0):
                own = block[call.begin : call.end, c]
                rows = slice(start + call.begin * components + c, start + call.end * components)
                self._fill(own, slice(rows.start, rows.stop, components), call)
            start += block.numel()

    def _fill(self, own: torch.Tensor, rows: slice, call: Call) -> None:
        self.r[rows] = own.detach().numpy()
        gradients = torch.autograd.grad(
            own.sum(), [copies for _, copies in call.copies], retain_graph=True, allow_unused=True
        )
        inputs = begin = 0
        for (first, copies), gradient in zip(call.copies, gradients, strict=True):
            end = begin + copies.shape[1:].numel()
            self.first[rows, inputs : inputs + first.shape[1]] = first.numpy()
            if gradient is not None:
                self.values[rows, begin:end] = gradient.flatten(1).numpy()
            inputs, begin = inputs + first.shape[1], end


def _call_of(block: torch.Tensor, number: int, calls: list[Call]) -> int:
    """The number of the call from which a tensor of residuals is computed."""
    copies = [call.copies[-1][1] for call in calls]
    found = torch.autograd.grad(block.sum(), copies, retain_graph=True, allow_unused=True)
    used = [k for k, gradient in enumerate(found) if gradient is not None]
    if len(used) != 1 or calls[used[0]].samples != len(block):
        raise ValueError(
            f"residual number {number} has {len(block)} rows from {len(used)} calls of the module; "
            "each tensor of residuals must come from one call, a row per sample"
        )
    return used[0]
