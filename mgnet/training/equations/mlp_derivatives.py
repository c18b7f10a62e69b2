"""The outputs of a plain network and their derivatives with respect to its inputs, carried forward.

A linear layer maps derivatives as it maps values; a pointwise activation s(a) gives

    h_i  = s'(a) a_i
    h_ij = s''(a) a_i a_j + s'(a) a_ij

A backward sweep turns the derivatives S, S_i, S_ij of a residual with respect to h, h_i, h_ij into
those with respect to a:

    A_ij = s' S_ij
    A_i  = s' S_i + s'' sum_j (1 + [i = j]) a_j S_ij
    A    = s' S + s'' (sum_i a_i S_i + sum_ij a_ij S_ij) + s''' sum_ij a_i a_j S_ij

(i <= j), and a row of the Jacobian is, for a linear layer with input z, `A z^T + sum A_i z_i^T +
sum A_ij z_ij^T`: this formula needs neither a copy of the parameters for each sample nor a graph.

Both passes take a block of samples through all layers, so that the intermediate values stay in the
cache. Hidden values are recomputed for the Jacobian, which is faster than reading them from memory,
and they need no storage. In a block the samples are the last axis, which is vectorized.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mgnet.training.equations.activations import FORMULAS, POINTWISE, Activated
from mgnet.training.equations.row_wise import columns_by, is_row_wise
from mgnet.training.least_squares.memory_pages import keep_freed_memory
from mgnet.training.loss.own_forward import alteration, is_replaced

if TYPE_CHECKING:
    from mgnet.training.equations.derivatives import Derivatives

__all__ = ["MLPDerivatives", "NotCarriedError", "gradients_by_sample", "layers_of"]

Axes = tuple[int, ...]

# Entries of J in a block of samples: on the CPU it is chosen, by measurement, to fit in the cache.
BLOCK, BLOCK_ELSEWHERE = 2**20, 2**26


class NotCarriedError(Exception):
    """A derivative is not carried; automatic differentiation is used instead."""


def gradients_by_sample(
    residual: torch.Tensor, outputs: list[torch.Tensor]
) -> tuple[torch.Tensor | None, ...]:
    """The derivatives of residuals with respect to outputs of the same sample, or None.

    Parameters
    ----------
    residual : tensor of shape (samples,)
        One residual per sample.
    outputs : list of tensors of shape (samples, outputs)
        Tensors to differentiate with respect to.

    Raises
    ------
    NotCarriedError
        If entries depend on other samples.

    Examples
    --------
    >>> y = torch.tensor([[1.0], [2.0]], requires_grad=True)
    >>> gradients_by_sample(y[:, 0] ** 2, [y])[0].tolist()
    [[2.0], [4.0]]
    """
    gradients = torch.autograd.grad(residual.sum(), outputs, retain_graph=True, allow_unused=True)
    if not is_row_wise(residual, outputs, gradients):
        raise NotCarriedError("residuals of several samples at once")
    return gradients


def layers_of(network: torch.nn.Module) -> list[torch.nn.Module] | None:
    """The layers of a plain network in order; None for other networks.

    Plain networks are a `Linear` and a `Sequential`, nested or not, of `Linear` and of the
    activations in `FORMULAS` and `POINTWISE`, without additions by a subclass, hook or
    parametrization.

    Parameters
    ----------
    network : torch.nn.Module
        Network to take apart.

    Examples
    --------
    >>> inner = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh())
    >>> layers_of(torch.nn.Sequential(inner, torch.nn.Identity()))
    [Linear(in_features=2, out_features=3, bias=True), Tanh()]
    >>> layers_of(torch.nn.LSTM(2, 3)) is None
    True
    """
    kind = type(network)
    if kind not in (torch.nn.Linear, torch.nn.Sequential) or alteration(network, kind):
        return None
    layers = [layer for layer in _flat(network) if type(layer) is not torch.nn.Identity]
    known = torch.nn.Linear, torch.nn.Sequential, torch.nn.Identity, *FORMULAS, *POINTWISE
    for part in network.modules():
        replaced = is_replaced(part, "forward") or is_replaced(part, "__call__")
        if type(part) in known and replaced:
            return None
    plain = all(type(layer) is torch.nn.Linear or _is_activation(layer) for layer in layers)
    linear = any(type(layer) is torch.nn.Linear for layer in layers)
    return layers if plain and linear else None


def _flat(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    if isinstance(module, torch.nn.Sequential) and type(module) is torch.nn.Sequential:
        for part in module:
            yield from _flat(part)
    else:
        yield module


def _is_activation(module: torch.nn.Module) -> bool:
    """Whether a module is known to act on each entry separately."""
    return type(module) in (*FORMULAS, *POINTWISE)


@dataclass(frozen=True, eq=False)
class _Pass:
    """A block of samples in a layer: its input, of shape (width, kinds, samples)."""

    layer: torch.nn.Module
    state: torch.Tensor
    activated: Activated | None


class _Kinds:
    """The derivatives that are propagated together: the value, and first and second derivatives."""

    def __init__(self, asked: Iterable[Axes]):
        needed = {()} | {some for axes in asked for some in (axes[:1], axes[1:], axes)}
        self.axes = sorted(needed, key=lambda axes: (len(axes), axes))
        place = {axes: number for number, axes in enumerate(self.axes)}
        # For each second derivative, its position and those of its first derivatives.
        self.pairs = [
            (place[axes], place[axes[:1]], place[axes[1:]]) for axes in self.axes if len(axes) == 2
        ]


class MLPDerivatives:
    """Outputs of a plain network and their derivatives, computed on demand.

    Automatic differentiation does not see their dependence on the parameters; `add_jacobian` adds
    it.

    Parameters
    ----------
    network : torch.nn.Module
        Network that `layers_of` supports.
    inputs : Derivatives
        Inputs of the network and their derivatives with respect to the points.
    asked : set, optional
        Derivatives that were requested earlier at these points; they are computed together. New
        requests are added to the set.

    Raises
    ------
    NotCarriedError
        If the network is of an unsupported kind, or the inputs have a different precision.

    Examples
    --------
    >>> from mgnet.training.equations.derivatives import Points
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> u = MLPDerivatives(network, Points(torch.rand(5, 2)))
    >>> residual, J = u.d(0, 0) + u.d(1), torch.zeros(5, 13)
    >>> u.add_jacobian(residual.squeeze(1), J)
    >>> J[:, -1].tolist()  # no derivative depends on the last bias
    [0.0, 0.0, 0.0, 0.0, 0.0]
    """

    coefficients: Mapping[str, torch.Tensor] | None = None  # those of an `Ansatz` around it

    def __init__(
        self, network: torch.nn.Module, inputs: Derivatives, asked: set[Axes] | None = None
    ):
        layers, value = layers_of(network), inputs.value
        if layers is None:
            raise NotCarriedError(f"{type(network).__name__} is not a plain network")
        first = next(network.parameters())
        if value.dtype != first.dtype or torch.is_autocast_enabled(value.device.type):
            raise NotCarriedError(f"inputs are of {value.dtype}, parameters of {first.dtype}")
        keep_freed_memory()
        self.points = inputs.points
        self.inputs = inputs
        self.layers = layers
        self.asked: set[Axes] = set() if asked is None else asked
        self._places = dict[int, int]()  # the first column of J for each parameter, by its id
        start = 0
        for parameter in network.parameters():
            self._places[id(parameter)] = start
            start += parameter.numel()
        block = BLOCK if value.device.type == "cpu" else BLOCK_ELSEWHERE
        self._rows = max(1, min(block // start, len(value)))
        self._outputs = dict[Axes, torch.Tensor]()

    @property
    def value(self) -> torch.Tensor:
        """Values of shape (samples, outputs)."""
        return self.d()

    def d(self, *axes: int) -> torch.Tensor:
        """The derivative with respect to one or two inputs, of shape (samples, outputs).

        Raises
        ------
        NotCarriedError
            If more than two axes are given.
        """
        axes = tuple(sorted(axes))
        if len(axes) > 2:
            raise NotCarriedError(f"a derivative of order {len(axes)}")
        if axes not in self._outputs:
            self.asked.add(axes)
            self._propagate()
        return self._outputs[axes]

    @torch.no_grad()
    def _propagate(self) -> None:
        """Compute all outputs that were requested but are still missing."""
        kinds = _Kinds(self.asked - self._outputs.keys())
        whole = self._stacked(kinds)
        blocks = [
            self._forward(whole[..., rows], kinds, check=not rows.start)[0]
            for rows in self._blocks()
        ]
        outputs = torch.cat(blocks, 2)
        for number, axes in enumerate(kinds.axes):
            if axes not in self._outputs:
                self._outputs[axes] = outputs[:, number].T.contiguous().requires_grad_()

    def _blocks(self) -> Iterator[slice]:
        for first in range(0, len(self.points), self._rows):
            yield slice(first, first + self._rows)

    def _stacked(self, kinds: _Kinds) -> torch.Tensor:
        """The inputs of the network, of shape (width, kinds, samples)."""
        return torch.stack([self.inputs.d(*axes).T for axes in kinds.axes], 1)

    def _forward(
        self, state: torch.Tensor, kinds: _Kinds, check: bool = False
    ) -> tuple[torch.Tensor, list[_Pass]]:
        passes = []
        for layer in self.layers:
            if isinstance(layer, torch.nn.Linear):
                passes.append(_Pass(layer, state, None))
                state = _times(layer.weight, state)
                if layer.bias is not None:
                    state[:, 0] += layer.bias.unsqueeze(1)
                continue
            s = Activated(layer, state[:, 0], check)
            passes.append(_Pass(layer, state, s))
            state = _activated(s, state, kinds)
        return state, passes

    def add_jacobian(self, residual: torch.Tensor, J: torch.Tensor) -> None:
        """Add to J the derivatives of residuals with respect to all parameters, in their order.

        Parameters
        ----------
        residual : tensor of shape (samples,)
            Residuals; entry i depends only on the values and derivatives of sample i.
        J : tensor of shape (samples, parameters)
            Matrix to add to; fastest with contiguous columns.

        Raises
        ------
        NotCarriedError
            If entries depend on other samples.
        """
        outputs = list(self._outputs.values())
        gradients = gradients_by_sample(residual, outputs)
        found = {
            axes: gradient
            for axes, gradient in zip(self._outputs, gradients, strict=True)
            if gradient is not None
        }
        if not found:
            return
        kinds = _Kinds(found)
        zero = torch.zeros_like(outputs[0])
        with torch.no_grad():
            adjoint = torch.stack([found.get(axes, zero).T for axes in kinds.axes], 1)
            inputs = self._stacked(kinds)
            for rows in self._blocks():
                _, passes = self._forward(inputs[..., rows], kinds)
                self._backward(adjoint[..., rows], passes, kinds, J[rows].T)

    def _backward(
        self, adjoint: torch.Tensor, passes: list[_Pass], kinds: _Kinds, J: torch.Tensor
    ) -> None:
        """Go from the last layer to the first; `adjoint` is that of a layer's output."""
        for number in reversed(range(len(passes))):
            layer, state, s = passes[number].layer, passes[number].state, passes[number].activated
            if s is not None:
                for parameter, column in _columns(s, state, adjoint, kinds):
                    J[self._places[id(parameter)]] += column
                adjoint = _pulled(s, state, adjoint, kinds)
            elif isinstance(layer, torch.nn.Linear):
                self._fill(J, layer, adjoint, state)
                if number:
                    adjoint = _times(layer.weight.T, adjoint)

    def _fill(
        self, J: torch.Tensor, layer: torch.nn.Linear, adjoint: torch.Tensor, state: torch.Tensor
    ) -> None:
        """Fill J of shape (parameters, samples)."""
        outputs, inputs = layer.weight.shape
        start = self._places[id(layer.weight)]
        weights = J[start : start + outputs * inputs].unflatten(0, (outputs, inputs))
        # Rows that are not adjacent, such as those of one of several components, are written once.
        apart = weights.stride(2) != 1
        sums = torch.zeros_like(weights) if apart else weights
        for kind in range(state.shape[1]):
            sums.addcmul_(adjoint[:, kind].unsqueeze(1), state[:, kind].unsqueeze(0))
        if apart:
            weights += sums
        if layer.bias is not None:
            start = self._places[id(layer.bias)]
            J[start : start + outputs] += adjoint[:, 0]


def _times(matrix: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    """Multiply all kinds and samples in one product."""
    return (matrix @ state.flatten(1)).unflatten(1, state.shape[1:])


def _activated(s: Activated, a: torch.Tensor, kinds: _Kinds) -> torch.Tensor:
    """The values of an activation at a and their derivatives."""
    if len(kinds.axes) == 1:
        return s[0].unsqueeze(1)
    h = a * s[1].unsqueeze(1)
    h[:, 0] = s[0]
    for both, i, j in kinds.pairs:
        h[:, both].addcmul_(s[2] * a[:, i], a[:, j])
    return h


@torch.enable_grad()
def _columns(
    s: Activated, a: torch.Tensor, outer: torch.Tensor, kinds: _Kinds
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The parameters of an activation, if any, with the derivatives of the residuals for each."""
    if not s.has_parameters:
        return []
    parameters = list(s.activation.parameters())
    total = outer[:, 0] * s.attached(0)
    if len(kinds.axes) > 1:
        total = total + (outer[:, 1:] * a[:, 1:]).sum(1) * s.attached(1)
    for both, i, j in kinds.pairs:
        total = total + outer[:, both] * a[:, i] * a[:, j] * s.attached(2)
    return list(zip(parameters, columns_by(parameters, total.sum(0)).T, strict=True))


def _pulled(s: Activated, a: torch.Tensor, outer: torch.Tensor, kinds: _Kinds) -> torch.Tensor:
    """The adjoint of the input of an activation, computed from that of its output."""
    if len(kinds.axes) == 1:
        return outer.mul_(s[1].unsqueeze(1))
    value = (outer[:, 1:] * a[:, 1:]).sum(1).mul_(s[2])
    firsts = []
    for both, i, j in kinds.pairs:
        value.addcmul_(s[3] * outer[:, both], a[:, i] * a[:, j])
        firsts.append(s[2] * outer[:, both])
    inner = outer.mul_(s[1].unsqueeze(1))
    inner[:, 0] += value
    for (_, i, j), bent in zip(kinds.pairs, firsts, strict=True):
        inner[:, i].addcmul_(bent, a[:, j])
        inner[:, j].addcmul_(bent, a[:, i])
    return inner
