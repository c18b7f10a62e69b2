"""Transfers between an ODE net and one with more layers: matrices that act on the layer axis.

Refinement by learnable steps is exact: a layer with step s becomes a layer with step s and the same
weights, followed by layers with step 0. Their weights are copies, so they learn as soon as their
steps do. Knot insertion is also exact, for weights that are splines in depth; the number of layers
then does not change.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from mgnet.depth.network.layer_stack import LayerSlots, Net, StackedNetwork
from mgnet.depth.network.net_options import check_refined
from mgnet.depth.network.spline_weights import DepthSpline
from mgnet.limits import is_count, shown
from mgnet.training.loss.parameters import lift
from mgnet.training.optimizers.generating_system import coarser_sizes
from mgnet.transfer import AxisTransfer

__all__ = [
    "KINDS",
    "check_finest",
    "coarsen",
    "coarser_transfers",
    "kind_of",
    "layer_matrices",
    "layer_transfers",
    "refine",
]

MOST_LEVELS = 200  # for these, only the finest is checked: no machine can store 2^199 layers
KINDS = ("steps", "constant", "linear", "knots")
Matrices = tuple[np.ndarray, np.ndarray]


def layer_matrices(layers: int, factor: int, how: str) -> tuple[Matrices, Matrices]:
    """Matrices for weights and for steps: the prolongation, and the injection, its left inverse.

    Parameters
    ----------
    layers : int
        Number of layers of the coarse network.
    factor : int
        Refinement factor, at least 2.
    how : "steps", "constant" or "linear"
        The kind of refinement, as in `ODENet.refine`. Source of "constant" and "linear": Guenther
        et al., arXiv 1912.08974.

    Returns
    -------
    (P, R), (P, R)
        One pair for the weights and one for the steps: P of shape (factor layers, layers), R of
        shape (layers, factor layers).

    Examples
    --------
    >>> (P, _), (P_steps, R_steps) = layer_matrices(2, 2, "steps")
    >>> P.T
    array([[1., 1., 0., 0.],
           [0., 0., 1., 1.]])
    >>> P_steps.T, R_steps
    (array([[1., 0., 0., 0.],
           [0., 0., 1., 0.]]), array([[1., 1., 0., 0.],
           [0., 0., 1., 1.]]))
    """
    one = np.eye(layers)
    copies = np.repeat(one, factor, axis=0)
    first = np.zeros((factor * layers, layers))
    first[::factor] = one
    if how == "steps":
        return (copies, first.T), (first, copies.T)
    weights = copies, copies.T / factor
    if how == "linear":
        share = np.tile(np.arange(factor) / factor, layers)[:, None]
        after = np.repeat(np.eye(layers, k=1), factor, axis=0)
        after[-factor:, -1] = 1.0  # constant after the last layer
        weights = (1.0 - share) * copies + share * after, first.T
    return weights, (copies / factor, copies.T)


def kind_of(net: StackedNetwork, factor: int, how: str | None) -> str:
    """Return the kind of refinement, after checking that it is possible.

    Raises
    ------
    ValueError
        If `how` or `factor` is invalid, or if the net does not allow this kind.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> kind_of(ODENet(torch.nn.Tanh(), 2, learnable_steps=True), 2, None)
    'steps'
    """
    if how is None:
        how = "constant" if net.learnable_steps is None else "steps"
    if how not in KINDS:
        raise ValueError(f"refinement got how={how!r}; it must be one of {', '.join(KINDS)}")
    if not is_count(factor, 2):
        raise ValueError(
            f"refinement got factor {shown(factor)}; it must be at least 2, an integer"
        )
    if how == "steps" and net.learnable_steps is None:
        raise ValueError(
            "refinement by learnable steps got an ODENet without them; make it with "
            "learnable_steps=True, or give how='constant'"
        )
    if how == "knots" and not isinstance(net.weights, DepthSpline):
        raise ValueError(
            f"refinement of knots got an ODENet with weights {net.weights!r}; make it with "
            "weights=DepthSpline(...)"
        )
    return how


def layer_transfers(net: StackedNetwork, factor: int, how: str) -> dict[str, AxisTransfer]:
    """Transfers from the coarse `net` to the fine one, by name of the parameters that change.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> net = ODENet(torch.nn.Linear(1, 1, bias=False), 2, learnable_steps=True)
    >>> sorted(layer_transfers(net, 2, "steps"))
    ['block.weight', 'learnable_steps']
    """

    def made(matrices: Matrices, p: torch.Tensor) -> AxisTransfer:
        P, R = (torch.as_tensor(matrix).to(lift(p.detach())) for matrix in matrices)
        # How gradients behave: the weights of the first layer get the whole gradient, and the steps
        # of the others get the same as that of the first, up to O(h). With these moments, Adam
        # ended 2 to 6 times lower (cascades 4 to 32 layers on peaks) than with P or P D^-1, or
        # without moments.
        return AxisTransfer(P, injection=R, gradients=R.T.contiguous() if how == "steps" else None)

    blocks = {f"block.{name}": p for name, p in net.block.named_parameters()}
    if how == "knots":
        P = net.weights.insertion(factor)  # type: ignore[union-attr]
        return {name: made((P, np.linalg.pinv(P)), p) for name, p in blocks.items()}
    weights, steps = layer_matrices(net.depth, factor, how)
    chosen = blocks if net.weights == "per layer" else {}
    transfers = {name: made(weights, p) for name, p in chosen.items()}
    if net.learnable_steps is not None:
        transfers["learnable_steps"] = made(steps, net.learnable_steps)
    return transfers


def coarser_transfers(
    net: StackedNetwork, levels: int | None = None
) -> list[tuple[torch.nn.Parameter, list[AxisTransfer]]]:
    """Implement `ODENet.coarser_transfers`.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> net = ODENet(torch.nn.Linear(1, 1, bias=False), 16)
    >>> [(p.shape[0], [t.P.shape for t in chain]) for p, chain in coarser_transfers(net)]
    [(16, [(16, 8), (8, 4)])]
    """

    def chain(size: int, made: Callable[[int, int], np.ndarray]) -> list[AxisTransfer]:
        sizes = coarser_sizes(size, levels)
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        return [AxisTransfer(made(coarse, fine // coarse), axis=0) for fine, coarse in pairs]

    found = []
    if isinstance(net.weights, DepthSpline):
        degree = net.weights.degree
        splines = chain(_intervals(net), lambda n, k: DepthSpline(n + degree, degree).insertion(k))
        found = [(p, splines) for p in net.block.parameters()]
    elif net.weights == "per layer":
        weights = chain(net.depth, lambda n, k: layer_matrices(n, k, "linear")[0][0])
        found = [(p, weights) for p in net.block.parameters()]
    if net.learnable_steps is not None:
        steps = chain(net.depth, lambda n, k: layer_matrices(n, k, "constant")[1][0])
        found.append((net.learnable_steps, steps))
    return found


def refine(net: Net, factor: int = 2, how: str | None = None) -> Net:
    """Implement `ODENet.refine`.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> net = refine(ODENet(torch.nn.Linear(2, 2), 3, learnable_steps=True))
    >>> net.depth, net.learnable_steps.tolist()[:2]
    (6, [0.333..., 0.0])
    """
    how = kind_of(net, factor, how)
    _check_size("refinement", net, factor, how)
    transfers = layer_transfers(net, factor, how)
    old = {name: net.get_parameter(name).detach() for name in transfers}
    changed = {n: transfers[n].prolong(lift(p)).to(p.dtype) for n, p in old.items()}
    if how == "knots":
        return _with(net, changed, {}, net.depth, net.weights.refine(factor))  # type: ignore[union-attr]
    buffers = {name: b.repeat_interleave(factor, 0) for name, b in _buffers_of_layers(net)}
    return _with(net, changed, buffers, factor * net.depth, net.weights)


def _check_size(owner: str, net: StackedNetwork, growth: int, how: str) -> None:
    rows = net.weights.control_points if how == "knots" else net.depth  # type: ignore[union-attr]
    check_refined(owner, growth, rows, sum(p.numel() for p in net.block.parameters()))


def check_finest(owner: str, net: StackedNetwork, factor: int, how: str, levels: int) -> None:
    """Raise an error unless the finest of `levels` levels above a net fits into memory.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> check_finest("depth_hierarchy", ODENet(torch.nn.Tanh(), 2), 2, "constant", 3)
    """
    if levels > 1:
        _check_size(owner, net, factor ** (min(int(levels), MOST_LEVELS) - 1), how)


def coarsen(net: Net, factor: int = 2, how: str | None = None) -> Net:
    """Implement `ODENet.coarsen`.

    Raises
    ------
    ValueError
        If `factor` does not divide the number of layers or intervals.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> net = ODENet(torch.nn.Linear(2, 2), 3, learnable_steps=True)
    >>> bool((coarsen(refine(net)).learnable_steps == net.learnable_steps).all())
    True
    """
    how = kind_of(net, factor, how)
    count = _intervals(net) if how == "knots" else net.depth
    if count % factor:
        what = "spline intervals" if how == "knots" else "layers"
        raise ValueError(
            f"ODENet.coarsen got factor {factor} for {count} {what}; it must divide them"
        )
    depth, weights = net.depth // factor, net.weights
    if how == "knots":
        degree = net.weights.degree  # type: ignore[union-attr]
        depth, weights = net.depth, DepthSpline(count // factor + degree, degree)
    # The transfers belong to the coarse network, of which they need only the shapes.
    shapes = _with(net, {}, {}, depth, weights)
    changed = {
        name: transfer._inject(lift(p := net.get_parameter(name).detach())).to(p.dtype)
        for name, transfer in layer_transfers(shapes, factor, how).items()
    }
    buffers = {} if how == "knots" else {n: b[::factor] for n, b in _buffers_of_layers(net)}
    return _with(net, changed, buffers, depth, weights)


def _buffers_of_layers(net: StackedNetwork) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the names and values of buffers with one row per layer."""
    return ((n, b) for n, b in net.block.named_buffers() if n not in net.shared_buffers)


def _intervals(net: StackedNetwork) -> int:
    return net.weights.control_points - net.weights.degree  # type: ignore[union-attr]


def _with(
    net: Net,
    parameters: Mapping[str, torch.Tensor],
    buffers: Mapping[str, torch.Tensor],
    depth: int,
    weights: Any,
) -> Net:
    """A copy with other tensors: parameters by name in the net, buffers by name in the block."""
    made = copy.deepcopy(net)
    made.depth, made.weights = depth, weights
    made.kept = range(depth)
    slots = LayerSlots(made.block)
    places = {f"block.{name}": where for name, where in slots.parameters.items()}
    for name, value in parameters.items():
        parameter = torch.nn.Parameter(value, net.get_parameter(name).requires_grad)
        for holder, key in places.get(name, [(made._parameters, name)]):
            holder[key] = parameter
    for name, value in buffers.items():
        for holder, key in slots.buffers[name]:
            holder[key] = value.clone()
    return made
