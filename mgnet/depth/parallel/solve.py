"""The border between a `LayerParallel` module and autograd: one call, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mgnet.depth.batched.autocast import cast_of, same_cast
from mgnet.depth.mgrit.communicator import SerialCommunicator
from mgnet.depth.parallel.control import CycleLimit, PassReport
from mgnet.depth.parallel.local_layers import naming_divergence
from mgnet.depth.parallel.propagation import Propagation

if TYPE_CHECKING:
    from mgnet.depth.network.ode_net import ODENet

__all__ = ["ModuleCall", "WarmStarts", "solve"]


@dataclass(frozen=True)
class WarmStarts:
    """The last states of each direction, with which the next call may begin.

    Examples
    --------
    >>> starts = WarmStarts()
    >>> starts.kept["forward"] = torch.ones(3, 2, 4)
    >>> starts.guess("forward", torch.ones(2, 4)).shape
    torch.Size([3, 2, 4])
    >>> starts.guess("forward", torch.ones(5, 4)), starts.guess("backward", torch.ones(2, 4))
    (None, None)
    """

    kept: dict[str, Tensor] = field(default_factory=dict)

    def guess(self, direction: str, like: Tensor) -> Tensor | None:
        """States whose points are like this one, if such were kept."""
        states = self.kept.get(direction)
        fits = states is not None and states.shape[1:] == like.shape and states.dtype == like.dtype
        return states if fits else None


@dataclass(frozen=True, eq=False)
class ModuleCall:
    """What one call needs of its module, and where it reports to.

    Parameters
    ----------
    net : ODENet
        For messages.
    propagation : Propagation
    budgets : mapping of str to CycleLimit
        Of the directions "forward" and "backward".
    record : bool
        Whether a backward pass follows, or buffers are updated.
    update : bool
        Whether the recorded sweep updates the buffers.
    report : callable
        `(direction, what the pass did) -> None`.
    starts : WarmStarts, optional
        Where a pass finds its first guess, and leaves its states.
    """

    net: ODENet
    propagation: Propagation
    budgets: Mapping[str, CycleLimit]
    record: bool
    update: bool
    report: Callable[[str, PassReport], None]
    starts: WarmStarts | None = None

    def guess(self, direction: str, like: Tensor) -> Tensor | None:
        """Where a pass begins, if it has a warm start."""
        return None if self.starts is None else self.starts.guess(direction, like)

    def finish(self, direction: str, states: Tensor, made: PassReport) -> None:
        """Leave the states of a pass, and report."""
        if self.starts is not None:
            self.starts.kept[direction] = states
        self.report(direction, made)


def solve(call: ModuleCall, u: Tensor, steps: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The state after all layers from the one before them.

    Parameters
    ----------
    call : ModuleCall
    u : Tensor of shape (batch, ...)
    steps : Tensor of shape (layers,)
    parameters : sequence of Tensor
        Stacked, of the own layers. Gradients go to them, to the steps and to u.

    Examples
    --------
    >>> from mgnet.depth import FixedCycles, ODENet
    >>> from mgnet.depth.parallel.propagation_setup import MGRITMethod, PropagationSetup, detached
    >>> net, u, control = ODENet(torch.nn.Linear(2, 2), 8), torch.ones(1, 2), FixedCycles(2)
    >>> layers, method = net.layers(), MGRITMethod.from_texts((4,), "V", "V", ("F",))
    >>> propagation = Propagation(PropagationSetup.of(net.kernel, detached(layers), method))
    >>> budgets = {name: control.limit(name) for name in ("forward", "backward")}
    >>> call = ModuleCall(net, propagation, budgets, True, False, lambda *told: None)
    >>> torch.allclose(solve(call, u, layers.steps, layers.parameters), net(u))
    True
    """
    return _Solve.apply(call, u, steps, *parameters)


class _Solve(torch.autograd.Function):
    """(u_0, steps, stacked parameters) -> u_N."""

    @staticmethod
    def forward(
        ctx: Any, call: ModuleCall, u: Tensor, steps: Tensor, *parameters: Tensor
    ) -> Tensor:
        ctx.call, ctx.cast = call, same_cast(u.device.type)
        # A GradScaler finds out by infinite gradients that it scales too much; it looks itself.
        alone = isinstance(call.propagation.communicator, SerialCommunicator)
        ctx.scaled = alone and cast_of(u.device.type) == torch.float16
        ctx.save_for_backward(u, steps, *parameters)  # tells if one is edited before backward
        propagation, guess = call.propagation, call.guess("forward", u)
        with naming_divergence(call.net, "forward"):
            points, made = propagation.forward(
                u.detach(), call.budgets["forward"], guess, call.record
            )
        if call.update:
            propagation.update_buffers()
        call.finish("forward", points, made)
        return propagation.communicator.broadcast_from_last(points[-1], False).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        _ = ctx.saved_tensors
        call: ModuleCall = ctx.call
        propagation, guess = call.propagation, call.guess("backward", gradient)
        try:
            with ctx.cast(), naming_divergence(call.net, "backward"):
                adjoint, made = propagation.backward(gradient, call.budgets["backward"], guess)
                found = propagation.gradients(adjoint, ctx.needs_input_grad[2])
        except FloatingPointError:
            if not ctx.scaled:
                raise
            return None, *[torch.full_like(x, torch.nan) for x in ctx.saved_tensors]
        start, of_parameters, of_steps = found
        call.finish("backward", adjoint, made)
        return None, start, of_steps, *of_parameters
