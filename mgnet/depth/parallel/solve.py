"""The interface between a `LayerParallel` module and autograd: one call, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mgnet.depth.batched.autocast import cast_of, same_cast
from mgnet.depth.mgrit.communicator import SerialCommunicator
from mgnet.depth.parallel.control import CycleLimit, PassReport
from mgnet.depth.parallel.history import History, least_change
from mgnet.depth.parallel.local_layers import naming_divergence
from mgnet.depth.parallel.lyapunov import told_of
from mgnet.depth.parallel.propagation import Propagation
from mgnet.depth.parallel.propagation_setup import PropagationSetup
from mgnet.depth.parallel.second_order import Buffers, FirstOrder, Gradients, gradients
from mgnet.depth.parallel.turns import of_all_layers

if TYPE_CHECKING:
    from mgnet.depth.network.ode_net import ODENet

__all__ = ["ModuleCall", "WarmStarts", "solve"]


@dataclass(frozen=True)
class WarmStarts:
    """The last states of each direction, from which the next call may start.

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
        """The stored states if their points have the shape and type of `like`, else None."""
        states = self.kept.get(direction)
        fits = states is not None and states.shape[1:] == like.shape and states.dtype == like.dtype
        return states if fits else None


@dataclass(frozen=True, eq=False)
class ModuleCall:
    """The data of one call of a module, and the destination of its reports.

    Parameters
    ----------
    net : ODENet
        The network, for error messages.
    propagation : Propagation
        The forward pass and its adjoint.
    budgets : mapping of str to CycleLimit
        The limits of the directions "forward" and "backward".
    record : bool
        Whether a sweep is recorded, because a backward pass follows or buffers are updated.
    update : bool
        Whether the recorded sweep updates the buffers.
    report : callable
        A function that gets the direction and the report on a pass, or, during capture, a
        `History`.
    starts : WarmStarts, optional
        Storage from which a pass takes its initial guess, and in which it stores its states.
    """

    net: ODENet
    propagation: Propagation
    budgets: Mapping[str, CycleLimit]
    record: bool
    update: bool
    report: Callable[[str, Any], None]
    starts: WarmStarts | None = None

    def guess(self, direction: str, like: Tensor) -> Tensor | None:
        """The initial states of a pass if it has a warm start."""
        return None if self.starts is None else self.starts.guess(direction, like)

    def finish(self, direction: str, states: Tensor, made: PassReport | History) -> None:
        """Store the states of a pass, and hand over its report."""
        if self.starts is not None:
            self.starts.kept[direction] = states
        self.report(direction, made)


def solve(call: ModuleCall, u: Tensor, steps: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Compute the state after all layers from the state before them.

    Parameters
    ----------
    call : ModuleCall
        The data of the call.
    u : Tensor of shape (batch, ...)
        The state before the layers.
    steps : Tensor of shape (layers,)
        The steps of this process's layers.
    parameters : sequence of Tensor
        Stacked parameters of these layers. The result is differentiable with respect to u, steps
        and parameters.

    Returns
    -------
    Tensor
        The state after the layers.

    Examples
    --------
    >>> from mgnet.depth import FixedCycles, ODENet
    >>> from mgnet.depth.parallel.method import MGRITMethod
    >>> from mgnet.depth.parallel.propagation_setup import PropagationSetup, detached
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
    """Map (u_0, steps, stacked parameters) to u_N, or u_1 .. u_N if every state is propagated."""

    @staticmethod
    def forward(
        ctx: Any, call: ModuleCall, u: Tensor, steps: Tensor, *parameters: Tensor
    ) -> Tensor:
        ctx.call, ctx.cast = call, same_cast(u.device.type)
        # A GradScaler detects too large a scale by infinite gradients; it checks them itself.
        alone = isinstance(call.propagation.communicator, SerialCommunicator)
        ctx.scaled = alone and cast_of(u.device.type) == torch.float16
        ctx.save_for_backward(u, steps, *parameters)  # detects edits before backward
        propagation, guess = call.propagation, call.guess("forward", u)
        forecast = partial(told_of, propagation.setup, u)
        with naming_divergence(call.net, "forward", forecast):
            points, made = propagation.forward(
                u.detach(),
                call.budgets["forward"],
                guess,
                call.record,
                ctx.needs_input_grad[2],
            )
        recorded = propagation.recorded() if call.update else []
        setup, changed = propagation.setup, [(which, x.new_buffers) for which, x in recorded]
        ctx.made, ctx.buffers = made, Buffers(setup.kernel, setup.fine, changed)
        if call.update:
            propagation.update_buffers()
        call.finish("forward", points, made)
        if propagation.states is not None:
            return of_all_layers(propagation.communicator, propagation.states)
        return propagation.communicator.broadcast_from_last(points[-1], False).clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        call, cast, passes = ctx.call, ctx.cast, [ctx.made]
        propagation, with_steps = call.propagation, ctx.needs_input_grad[2]

        def adjoint(gradient: Tensor) -> Gradients:
            like = gradient[-1] if propagation.every else gradient
            guess = call.guess("backward", like)
            try:
                forecast = partial(told_of, propagation.setup, u)
                naming = naming_divergence(call.net, "backward", forecast)
                with propagation.adjoints, cast(), naming:
                    adjoint, made = propagation.backward(gradient, call.budgets["backward"], guess)
                    start, of_parameters, of_steps = propagation.gradients(adjoint, with_steps)
            except FloatingPointError:
                if not ctx.scaled:
                    raise
                nan, of_steps, *of_parameters = [
                    torch.full_like(x, torch.nan) for x in ctx.saved_tensors
                ]
                return nan, of_steps, of_parameters
            call.finish("backward", adjoint, made)
            passes.append(made)
            return start, of_steps, of_parameters

        def propagate(
            setup: PropagationSetup, u: Tensor, steps: Tensor, parameters: Sequence[Tensor]
        ) -> Tensor:
            for direction, made in zip(("forward", "backward"), passes, strict=False):
                _check_solved(call, direction, made, u.dtype)
            found = solve(_again(call, setup, u.dtype), u, steps, parameters)
            return found.movedim(1, 0) if propagation.every else found

        u, steps, *parameters = ctx.saved_tensors
        first = FirstOrder(propagation.setup, ctx.buffers, with_steps, cast, adjoint, propagate)
        return None, *gradients(first, gradient, u, steps, parameters)


def _again(call: ModuleCall, setup: PropagationSetup, dtype: torch.dtype) -> ModuleCall:
    """The same call for another setup's layers; each of its passes must reach the tolerance."""
    report = partial(_check_solved, call, dtype=dtype)
    propagation = Propagation(setup, call.propagation.every)
    return ModuleCall(call.net, propagation, call.budgets, True, False, report)


def _check_solved(call: ModuleCall, direction: str, made: PassReport, dtype: torch.dtype) -> None:
    """Refuse a pass whose result may differ from the exact one."""
    stop = call.budgets[direction].stop
    if made.estimate <= max(stop, least_change(dtype)) and stop:
        return
    what = "LayerParallel was asked for a derivative of its gradient"
    if not stop:
        raise RuntimeError(
            f"{what}, but a fixed number of cycles leaves a gradient that is not the derivative of "
            "its output (also with AdaptiveCycles); use "
            "control=CyclesToTolerance(1e-8), for example, mode='serial', or the ODENet itself"
            "or mode='serial', or the ODENet itself"
        )
    raise RuntimeError(
        f"{what}, but the estimated relative error of a {direction} pass is {made.estimate:.1g} "
        f"after {made.cycles} cycles, above the tolerance {stop:g}; allow more cycles or a "
        "tolerance that this precision can meet, or use mode='serial'"
    )
