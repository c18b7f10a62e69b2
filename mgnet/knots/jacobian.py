"""The sparse Jacobian of a KAN: at a sample, only degree + 1 splines of an edge are nonzero.

In a layer, the derivative of output o at sample n with respect to coefficient a of value q is
`B[n, a] S[n, o, q]`, where B contains the splines at the sample, few of them nonzero, and S the
sensitivity of o to value q of the layer. Two layers therefore share the block of `J^T J`

    sum_n B[n, a] B'[n, b] W[n, q, q'],   W[n, q, q'] = sum_o S[n, o, q] S'[n, o, q']

This is a sparse matrix with a row per pair (a, b), times the dense matrix W; no row of J is formed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch

from mgnet.knots.spline import local_basis
from mgnet.knots.spline_network import SplineNetwork
from mgnet.training.least_squares.jacobian import DenseJacobian, Jacobian, squared

__all__ = ["KANJacobian", "LayerJacobian", "linearize"]

# Nanoseconds on one thread, measured; they decide how J^T J is computed. Per entry of the dense J
# and per product in its multiplication; per pair (a, b) of a sample, per product of a pair with an
# entry of W, and per product of two sparse matrices.
ENTRY, PRODUCT = 2.4, 0.0155
PAIR, TERM, SPARSE = 2.5, 0.25, 1.8
LARGEST = 2**28  # largest number of entries of a dense J, 2 GiB
BUFFER = 2**19  # pairs processed at once; they stay in the cache


@dataclass(frozen=True, eq=False)
class LayerJacobian:
    """The columns of J that belong to one layer.

    Attributes
    ----------
    columns, values : tensor of shape (samples, nonzeros)
        The basis functions that are nonzero at a sample, and their values.
    size : int
        Number of basis functions: inputs * splines, or inputs + 1 for a plain linear layer.
    sensitivity : tensor of shape (samples, outputs, width)
        Derivatives of the network's outputs with respect to the values of the layer.
    last : bool
        Whether the values of the layer are the network's outputs, so the sensitivity is the
        identity.
    splines : int
        Number of splines per input; 0 for a plain linear layer.
    """

    columns: torch.Tensor
    values: torch.Tensor
    size: int
    sensitivity: torch.Tensor
    last: bool
    splines: int = 0

    @property
    def width(self) -> int:
        """Number of values of the layer."""
        return self.sensitivity.shape[2]

    @property
    def count(self) -> int:
        """Number of parameters."""
        return self.size * self.width

    @cached_property
    def basis(self) -> sp.csr_array:
        """The matrix B, shape (samples, size)."""
        samples, nonzeros = self.columns.shape
        start = np.arange(0, samples * nonzeros + 1, nonzeros, dtype=np.int32)
        entries = self.values.numpy().ravel(), self.columns.to(torch.int32).numpy().ravel(), start
        return sp.csr_array(entries, shape=(samples, self.size))

    def matvec(self, d: torch.Tensor) -> torch.Tensor:
        """The product with d, shape (samples, outputs)."""
        moved = torch.from_numpy(self.basis @ d.view(self.size, self.width).numpy())
        return moved if self.last else (self.sensitivity @ moved.unsqueeze(2)).squeeze(2)

    def rmatvec(self, y: torch.Tensor) -> torch.Tensor:
        """The adjoint product, from shape (samples, outputs) to the parameters."""
        pulled = y if self.last else (y.unsqueeze(1) @ self.sensitivity).squeeze(1)
        return torch.from_numpy(self.basis.T @ pulled.numpy()).flatten()

    def squares(self) -> torch.Tensor:
        """The squared norms of the columns."""
        weights = self.sensitivity.square().sum(1).numpy()
        return torch.from_numpy(self.basis.power(2).T @ weights).flatten()

    def fill(self, block: torch.Tensor) -> None:
        """Write the dense columns into `block`, shape (samples, outputs, parameters)."""
        basis = self.values.new_zeros(len(self.values), self.size)
        basis.scatter_(1, self.columns, self.values)
        torch.mul(
            basis[:, None, :, None],
            self.sensitivity[:, :, None, :],
            out=block.unflatten(2, (self.size, self.width)),
        )

    def with_itself(self) -> np.ndarray:
        """The block of the last layer with itself: `B^T B` for every output."""
        B = self.basis
        if self.cost(self) < SPARSE * self.columns.shape[1] ** 2:
            product = squared(torch.from_numpy(B.toarray())).numpy()
        else:
            product = (B.T @ B).toarray()
        return np.kron(product, np.eye(self.width))

    def cost(self, other: LayerJacobian) -> float:
        """The cost of the block of `J^T J` between two layers, in nanoseconds per sample."""
        pairs = self.columns.shape[1] * other.columns.shape[1]
        if self.last:
            return min(PRODUCT * self.size**2, SPARSE * pairs)
        return pairs * (PAIR + TERM * self.width * other.width)

    def times(self, other: LayerJacobian) -> np.ndarray:
        """The block of `J^T J` between this layer and another."""
        samples, nonzeros = self.columns.shape
        theirs = other.columns.shape[1]
        pairs = nonzeros * theirs
        sizes = self.size * other.size
        W = torch.einsum("noq,nor->nqr", self.sensitivity, other.sensitivity).flatten(1).numpy()
        own = self.basis.indices.reshape(samples, nonzeros, 1) * np.int32(other.size)
        rows = own, other.basis.indices.reshape(samples, 1, theirs)
        values = self.values.numpy()[:, :, None], other.values.numpy()[:, None, :]
        # The buffers are reused; a chunk has enough samples to amortize its dense result.
        step = min(samples, max(1, max(BUFFER, 4 * sizes) // pairs))
        row = np.empty((step, nonzeros, theirs), np.int32)
        value = np.empty(row.shape)
        start = np.arange(0, step * pairs + 1, pairs, dtype=np.int32)
        total = np.zeros((sizes, W.shape[1]))
        for first in range(0, samples, step):
            part = slice(first, first + step)
            count = len(W[part])
            np.add(rows[0][part], rows[1][part], out=row[:count])
            np.multiply(values[0][part], values[1][part], out=value[:count])
            entries = value[:count].ravel(), row[:count].ravel(), start[: count + 1]
            total += sp.csc_array(entries, shape=(sizes, count)) @ W[part]
        shape = self.size, other.size, self.width, other.width
        return total.reshape(shape).transpose(0, 2, 1, 3).reshape(self.count, other.count)


@dataclass(frozen=True, eq=False)
class KANJacobian(Jacobian):
    """Derivatives of a KAN's outputs with respect to its parameters, in float64.

    There is a row per sample and output.

    Attributes
    ----------
    layers : tuple of LayerJacobian
        The columns of each layer.
    order : tensor of shape (parameters,) or None
        Positions of the layers' parameters, first to last, in `KAN.parameters()`; None if the order
        is the same.
    """

    layers: tuple[LayerJacobian, ...]
    order: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        samples, outputs, _ = self.layers[-1].sensitivity.shape
        return samples * outputs, sum(layer.count for layer in self.layers)

    def matvec(self, d: torch.Tensor) -> torch.Tensor:
        d = d if self.order is None else d[self.order]
        parts = torch.split(d, [layer.count for layer in self.layers])
        images = [layer.matvec(part) for layer, part in zip(self.layers, parts, strict=True)]
        return torch.stack(images).sum(0).flatten()

    def rmatvec(self, y: torch.Tensor) -> torch.Tensor:
        outputs = y.view(len(self.layers[0].values), -1)
        whole = torch.cat([layer.rmatvec(outputs) for layer in self.layers])
        return (
            whole
            if self.order is None
            else torch.empty_like(whole).index_copy_(0, self.order, whole)
        )

    def squares(self) -> torch.Tensor:
        whole = torch.cat([layer.squares() for layer in self.layers])
        return (
            whole
            if self.order is None
            else torch.empty_like(whole).index_copy_(0, self.order, whole)
        )

    def dense(self) -> torch.Tensor:
        samples, outputs, _ = self.layers[-1].sensitivity.shape
        whole = self.layers[0].values.new_empty(samples, outputs, self.shape[1])
        for layer, place in self._places():
            layer.fill(whole[:, :, place])
        J = whole.flatten(0, 1)
        return J if self.order is None else torch.empty_like(J).index_copy_(1, self.order, J)

    def scaled_rows(self, factors: torch.Tensor) -> KANJacobian:
        by_sample = factors.view(len(self.layers[0].values), -1)
        first = by_sample[:, :1]
        if bool((by_sample == first).all()):  # the splines at a sample occur in all its rows
            layers = (replace(one, values=one.values * first) for one in self.layers)
        else:
            bent = ((one, one.sensitivity * by_sample.unsqueeze(2)) for one in self.layers)
            layers = (replace(one, sensitivity=S, last=False) for one, S in bent)
        return KANJacobian(tuple(layers), self.order)

    def gram(self) -> torch.Tensor:
        whole = np.empty((self.shape[1],) * 2)
        for layer, place in self._places():
            whole[place, place] = layer.with_itself() if layer.last else layer.times(layer)
            for other, there in self._places():
                if there.start > place.start:
                    block = layer.times(other)
                    whole[place, there], whole[there, place] = block, block.T
        gram = torch.from_numpy(whole)
        if self.order is None:
            return gram
        return torch.empty_like(gram).index_put_((self.order[:, None], self.order), gram)

    def sparse(self) -> sp.csr_array:
        """J as a sparse matrix of its nonzero entries."""
        samples, outputs, _ = self.layers[-1].sensitivity.shape
        parts = []
        for layer, place in self._places():
            first = place.start + layer.width * layer.columns
            columns = (first.unsqueeze(2) + torch.arange(layer.width)).flatten(1)
            values = layer.values[:, None, :, None] * layer.sensitivity[:, :, None, :]
            parts.append((columns, values.flatten(2)))
        columns = torch.cat([columns for columns, _ in parts], 1)
        columns = columns if self.order is None else self.order[columns]
        row = columns.shape[1]
        entries = (
            torch.cat([values for _, values in parts], 2).numpy().ravel(),
            columns.repeat_interleave(outputs, 0).numpy().ravel(),
            np.arange(0, samples * outputs * row + 1, row),
        )
        J = sp.csr_array(entries, shape=self.shape)
        J.eliminate_zeros()
        return J

    @property
    def pays(self) -> bool:
        """Whether `gram` takes less time than the product of dense matrices, on the CPU."""
        (rows, columns), threads = self.shape, torch.get_num_threads()
        layers = list(enumerate(self.layers))
        own = sum(a.cost(b) for number, a in layers for b in self.layers[number:])
        dense = columns * (ENTRY + PRODUCT * columns / threads)
        return len(self.layers[0].values) * own < rows * dense

    def _places(self) -> Iterator[tuple[LayerJacobian, slice]]:
        start = 0
        for layer in self.layers:
            yield layer, slice(start, start + layer.count)
            start += layer.count


def linearize(
    kan: SplineNetwork, x: torch.Tensor
) -> tuple[torch.Tensor, KANJacobian | DenseJacobian]:
    """Outputs of a KAN, shape (samples, outputs), and their Jacobian, sparse if that is faster.

    Parameters
    ----------
    kan : SplineNetwork
        The network.
    x : tensor of shape (samples, inputs)
        The inputs.

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> outputs, J = linearize(KAN([2, 3, 1], intervals=40), torch.zeros(5, 2).double())
    >>> type(J).__name__, J.shape
    ('KANJacobian', (5, 387))
    """
    x, order = x.detach(), None
    forward, slopes = [], []  # for each layer: its basis; its Jacobian with respect to its inputs
    if kan.linear is not None:
        weight, bias = kan.linear.weight.detach(), kan.linear.bias.detach()
        outputs, inputs = weight.shape
        columns = torch.arange(inputs + 1, device=x.device).expand(len(x), -1)
        forward.append((columns, torch.cat([x, torch.ones_like(x[:, :1])], 1), inputs + 1, 0))
        slopes.append(None)  # nothing lies below
        x = x @ weight.T + bias
        places = torch.arange(outputs * (inputs + 1), device=x.device)
        # A layer counts basis functions first; `Linear` has weights (outputs, inputs), then bias.
        weights, biases = places[: weight.numel()].view(outputs, inputs), places[weight.numel() :]
        splines = sum(u.numel() for u in kan.coefficients)
        rest = torch.arange(splines, device=x.device) + len(places)
        order = torch.cat([weights.T.flatten(), biases, rest])
    for n, coefficients in zip(kan.intervals, kan.coefficients, strict=True):
        u, onto = coefficients.detach(), None
        if forward:
            x, onto = _into_domain(kan, x)
        inputs, splines, outputs = u.shape
        first, values, steps = local_basis(x, n, kan.degree, kan.domain)
        row = first + splines * torch.arange(inputs, device=x.device)
        columns = row.unsqueeze(-1) + torch.arange(kan.degree + 1, device=x.device)
        picked = u.reshape(inputs * splines, outputs)[columns]
        through = (steps.unsqueeze(-2) @ picked).squeeze(-2)
        slopes.append(through if onto is None else through * onto.unsqueeze(-1))
        forward.append((columns.flatten(1), values.flatten(1), inputs * splines, splines))
        x = (values.flatten(1).unsqueeze(1) @ picked.flatten(1, 2)).squeeze(1)
    sensitivity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device).expand(len(x), -1, -1)
    layers: list[LayerJacobian] = []
    pairs = zip(reversed(forward), reversed(slopes), strict=True)
    for (columns, values, size, splines), slope in pairs:
        last, outward = not layers, sensitivity.double()
        layers.insert(0, LayerJacobian(columns, values.double(), size, outward, last, splines))
        if slope is not None:
            sensitivity = sensitivity @ slope.mT
    J = KANJacobian(tuple(layers), order)
    entries = J.shape[0] * J.shape[1]
    sparse = x.device.type == "cpu" and (J.pays or entries > LARGEST)
    return x, J if sparse else DenseJacobian(J.dense(), J)


def _into_domain(kan: SplineNetwork, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The network's own map of hidden values, and its derivative."""
    with torch.enable_grad():
        hidden = hidden.detach().requires_grad_()
        mapped = kan.into_domain(hidden)
        (slope,) = torch.autograd.grad(mapped.sum(), hidden)
    return mapped.detach(), slope
