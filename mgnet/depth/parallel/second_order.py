"""Derivatives of the backward pass: a propagation of the states together with their tangents.

For a cotangent g of u_N, the backward pass computes the gradients with respect to u_0, the steps
and the parameters. These gradients are linear in g. The derivative with respect to g of their inner
product with cotangents (a, b) is w_N, the tangent of u_N along (a, b). All other derivatives are
gradients of `<g, w_N>`. A single propagation of the state (u, w), with its own backward pass,
therefore yields all derivatives, and since it is an ordinary propagation, it can be differentiated
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers
from mgnet.depth.batched.tangent import TangentBlock
from mgnet.depth.mgrit.communicator import squares
from mgnet.depth.parallel.coarse_layers import sums
from mgnet.depth.parallel.propagation_setup import PropagationSetup, detached

__all__ = ["Buffers", "FirstOrder", "Gradients", "gradients"]

# A layer's direction is divided by its step; this is the least absolute value of the divisor.
LEAST_STEP = 1e-6

Gradients = tuple[Tensor, Tensor | None, Sequence[Tensor]]


class Buffers:
    """The buffers with which layers were evaluated, kept for a second evaluation.

    Parameters
    ----------
    kernel : StackedBlock
        The block, which must not change in the meantime.
    layers : Layers
        The layers, before their buffers are updated.
    changed : sequence of (slice, tuple of Tensor)
        New buffers of these layers if an update follows; buffers that the update changes are
        copied.

    Examples
    --------
    >>> layers = Layers((), (torch.ones(3),), torch.arange(3.0), torch.ones(3))
    >>> buffers = Buffers(StackedBlock(torch.nn.Tanh()), layers)
    >>> _ = layers.buffers[0].mul_(2.0)
    >>> buffers.unchanged()
    Traceback (most recent call last):
    RuntimeError: LayerParallel was asked for a derivative of its gradient, but the buffers of its \
block were edited after the forward pass; ask before that, or use the ODENet itself
    """

    def __init__(
        self,
        kernel: StackedBlock,
        layers: Layers,
        changed: Sequence[tuple[slice, Sequence[Tensor]]] = (),
    ):
        self._kernel, self._about = kernel, kernel.fingerprint(layers)
        edited = {
            k
            for which, buffers in changed
            for k, (old, new) in enumerate(zip(layers[which].buffers, buffers, strict=True))
            if new is not old
        }
        self._tensors = tuple(
            [x.clone() if k in edited else x for k, x in enumerate(layers.buffers)]
        )
        self._versions = self._now()

    def _now(self) -> list[int]:
        return [0 if x.is_inference() else x._version for x in self._tensors]

    def check_edits(self) -> None:
        """Check that only the call itself has updated the buffers.

        Raises
        ------
        RuntimeError
            If buffers were edited.
        """
        if self._now() != self._versions:
            raise RuntimeError(
                "LayerParallel began a backward pass, but buffers of its block or side inputs were "
                "edited in place after the forward pass, which needs them as they were; edit them "
                "after the backward pass, or give copies"
            )

    def unchanged(self, what: str = "was asked for a derivative of its gradient") -> Any:
        """The buffers, if neither they nor the block have changed; messages begin with `what`.

        Raises
        ------
        RuntimeError
            If the buffers or the block have changed.
        """
        if self._kernel.fingerprint() != self._about:
            raise RuntimeError(
                f"LayerParallel {what}, but its block was changed after the forward pass, as by "
                "train() or eval(); ask before that, or use the ODENet itself"
            )
        if self._now() != self._versions:
            raise RuntimeError(
                f"LayerParallel {what}, but the buffers of its block were edited after the forward "
                "pass; ask before that, or use the ODENet itself"
            )
        return self._tensors


@dataclass(frozen=True, eq=False)
class FirstOrder:
    """A backward pass, and the data for its derivatives.

    Parameters
    ----------
    setup : PropagationSetup
        The layers of every level.
    buffers : Buffers
        The buffers of the forward pass.
    with_steps : bool
        Whether there are gradients with respect to the steps.
    cast : callable
        A function that creates a context with the autocast of the forward pass.
    adjoint : callable
        The function from a cotangent of u_N to gradients with respect to u_0, steps and parameters.
    propagate : callable
        The function `(setup, u, steps, parameters) -> u_N`: the same propagation over the layers of
        another setup, with a graph. It raises an error if the cycles have not reached their
        tolerance.
    spread : callable, optional
        If all layers share parameters: the function from the shared parameters to those of the
        layers.
    """

    setup: PropagationSetup
    buffers: Buffers
    with_steps: bool
    cast: Callable[[], AbstractContextManager[Any]]
    adjoint: Callable[[Tensor], Gradients]
    propagate: Callable[[PropagationSetup, Tensor, Tensor, Sequence[Tensor]], Tensor]
    spread: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None


def gradients(
    first: FirstOrder, gradient: Tensor, u: Tensor, steps: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Compute `first.adjoint(gradient)` as a flat tuple, with a graph if it is requested.

    Parameters
    ----------
    first : FirstOrder
        The backward pass.
    gradient : Tensor
        The gradient with respect to u_N.
    u, steps, parameters
        The inputs of the propagation.

    Returns
    -------
    tuple of Tensor or None
        The gradients with respect to u, steps and each parameter.

    Raises
    ------
    RuntimeError
        If a whole batch of gradients arrives at once, as with `vmap`, or if buffers were edited.

    Examples
    --------
    >>> from mgnet.depth import LayerParallel, ODENet
    >>> class Square(torch.nn.Module):
    ...     def forward(self, u):
    ...         return u * u
    >>> parallel = LayerParallel(ODENet(Square(), layers=1), levels=1)
    >>> torch.autograd.functional.hessian(lambda u: parallel(u).sum(), torch.ones(1, 1)).item()
    2.0
    """
    _refuse_batches(gradient)
    first.buffers.check_edits()
    if torch.is_grad_enabled():
        return _Adjoint.apply(first, gradient, u, steps, *parameters)
    start, of_steps, of_parameters = first.adjoint(gradient)
    return start, of_steps, *of_parameters


def _refuse_batches(*gradients: Tensor | None) -> None:
    batched = torch._C._functorch.is_legacy_batchedtensor  # type: ignore[attr-defined]
    if torch._C._are_functorch_transforms_active() or any(
        x is not None and batched(x) for x in gradients
    ):
        raise RuntimeError(
            "LayerParallel got many gradients at once, from is_grads_batched, vectorize=True or "
            "vmap over a backward pass; ask for one after another, call the module inside "
            "torch.func, or use the ODENet itself"
        )


class _Adjoint(torch.autograd.Function):
    """Map (cotangent of u_N, u_0, steps, parameters) to the gradients of the last three."""

    @staticmethod
    def forward(
        ctx: Any, first: FirstOrder, gradient: Tensor, u: Tensor, steps: Tensor, *parameters: Tensor
    ) -> tuple[Tensor | None, ...]:
        ctx.first = first
        ctx.save_for_backward(gradient, u, steps, *parameters)
        start, of_steps, of_parameters = first.adjoint(gradient)
        return start, of_steps, *of_parameters

    @staticmethod
    def backward(ctx: Any, a: Tensor, *b: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        _refuse_batches(a, *b)
        first: FirstOrder = ctx.first
        gradient, *inputs = ctx.saved_tensors
        in_graph = torch.is_grad_enabled()
        needed = ctx.needs_input_grad[2:]
        with torch.enable_grad(), first.cast():
            # Separate leaves: how one input was computed from others does not matter here.
            if in_graph:
                inputs = [x.view_as(x) for x in inputs]
            else:
                pairs = zip(inputs, needed, strict=True)
                inputs = [x.detach().requires_grad_(need) for x, need in pairs]
            tangent = _tangent(first, inputs, a, b)
            wanted = [x for x, need in zip(inputs, needed, strict=True) if need]
            found = (
                torch.autograd.grad(
                    tangent, wanted, gradient, create_graph=in_graph, materialize_grads=True
                )
                if wanted
                else ()
            )
        rest = iter(found)
        of_inputs = [next(rest) if need else None for need in needed]
        return None, tangent if in_graph else tangent.detach(), *of_inputs


def _tangent(first: FirstOrder, inputs: Sequence[Tensor], a: Tensor, b: Sequence[Any]) -> Tensor:
    """w_N, the tangent of u_N if u_0, steps and parameters change in the direction (a, b)."""
    setup, buffers = first.setup, first.buffers.unchanged()
    (u, steps, *parameters), (of_steps, *directions) = inputs, b
    if first.spread is not None:
        parameters, directions = map(list, map(first.spread, (parameters, directions)))
    times, equal = setup.fine.times, setup.fine.steps
    if of_steps is not None and first.with_steps:
        # Changes of steps enter as factors of steps that stay the same.
        equal = steps.detach().abs().clamp_min(LEAST_STEP)
        parameters, directions = [*parameters, steps / equal], [*directions, of_steps / equal]
    kernel = setup.kernel.variant(
        ("tangent", first.with_steps), lambda: TangentBlock(setup.kernel, first.with_steps)
    )
    scale = _scale(setup, equal, u, a, directions)
    a, directions = scale * a, [scale * x for x in directions]
    layers = Layers((*parameters, *directions), buffers, times, equal)
    both = torch.stack([u, a])
    augmented = PropagationSetup.of(
        kernel,
        detached(layers),
        setup.method,
        setup.communicator,
        state_bytes=both.numel() * both.element_size(),
    )
    return first.propagate(augmented, both, equal, layers.parameters)[1] / scale


def _scale(
    setup: PropagationSetup, steps: Tensor, u: Tensor, a: Tensor, directions: Sequence[Tensor]
) -> float:
    """A power of two that makes a direction about as large as the state.

    One tolerance then suits the errors of both; this is possible because the tangent is linear in
    its direction.
    """
    squared = steps.detach().double().square()
    rows = sum([squared * squares(x[..., None]) for x in directions], torch.zeros_like(squared))
    factors = setup.method.factors
    if factors:
        rows = sums(rows, factors[0])
    along_layers = setup.communicator.gather(rows[None]).sum().sqrt().item()
    state = u.detach().double().norm().item()
    direction = a.detach().double().norm().item() + along_layers
    if not (0.0 < direction < float("inf") and 0.0 < state < float("inf")):
        return 1.0
    return 2.0 ** round(torch.tensor(state / direction).log2().item())
