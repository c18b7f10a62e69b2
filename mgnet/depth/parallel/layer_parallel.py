"""`LayerParallel`: a torch module that propagates an ODE net by multigrid over its layers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mgnet.depth.batched.autocast import cast_of
from mgnet.depth.batched.lending import aliases, lending
from mgnet.depth.mgrit.c_layers import level_factors, level_sizes
from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR, Communicator, SerialCommunicator
from mgnet.depth.mgrit.layer_hierarchy import relaxation_words
from mgnet.depth.network.layer_calls import refuse_proxy
from mgnet.depth.network.ode_net import GRID, ODENet
from mgnet.depth.network.subclass import check_calls
from mgnet.depth.parallel.control import SERIAL, Control, FixedCycles, PassReport, too_inexact
from mgnet.depth.parallel.evaluation import (
    evaluating,
    least_seconds,
    means,
    preferred,
    unchanged,
)
from mgnet.depth.parallel.explained import Explained
from mgnet.depth.parallel.local_layers import keep_layers
from mgnet.depth.parallel.lyapunov import told_of
from mgnet.depth.parallel.method import MODES, SERIAL_METHOD, MGRITMethod, check_ways
from mgnet.depth.parallel.propagation import Propagation
from mgnet.depth.parallel.propagation_setup import PropagationSetup, detached
from mgnet.depth.parallel.saved_settings import settings_from_state, settings_to_state
from mgnet.depth.parallel.serial import march
from mgnet.depth.parallel.shared_weights import layers_of, spreading, with_side_inputs
from mgnet.depth.parallel.solve import ModuleCall, WarmStarts, solve
from mgnet.depth.parallel.transforms import check_plain, not_compiled, transform_of
from mgnet.training.extra_state import allow_without_extra_state

__all__ = ["LayerParallel"]

MEASURED = 1024  # largest number of shapes for which "auto" keeps its choice


class LayerParallel(Explained):
    """An ODE net that is solved for all layers at once by multigrid (MGRIT) in both directions.

    The parameters of this module are those of `net`. To autograd, this module is a single function,
    whose backward pass solves the adjoint layer equation by cycles. With enough cycles, output and
    gradients agree with the serial network up to rounding. Calls are independent of each other
    unless `warm_start` is set.

    Parameters
    ----------
    net : ODENet
        The network; its parameters become those of this module.
    levels : int
        Number of multigrid levels; 1 means serial propagation.
    coarsening : int or sequence of int
        Number of layers that a layer of the next level represents; the last may represent fewer.
    forward, backward : str
        The cycles for the states and for the adjoint: `[cascade +] V`, `F` or `W`. A cascade solves
        the coarsest level and interpolates the solution to an initial guess; without it, all states
        start equal. Alternatively, sweeps of Newton's method (DEER) for the states between
        intervals of `coarsening` layers: `[cascade +] newton`, `newton(diagonal)`,
        `newton(identity)`, `newton(dense, 0.1)`; see `NewtonSweep`.
    control : FixedCycles, CyclesToTolerance or AdaptiveCycles
        Number of cycles after the cascade.
    relaxation : sequence of str
        `F`, `FCF`, `FCFCF`, ..., per level from the finest; further levels use the last one.
    mode : {"mgrit", "serial", "auto"}
        Cycles, exact serial propagation, or a choice by timing the first call with each shape and
        number of threads: cycles if they save at least 5 % of the time and all states are finite.
    warm_start : bool
        Whether a call starts from the states of the previous call if the shapes agree.
    coarse : {"mean", "first", "fused", "identity"}
        A coarse layer has the mean weights of its fine layers, those of the first (injection), all
        their slopes at its state (evaluated in one batch), or no effect, so that coarse levels only
        add contributions of finer layers. Means are accurate to first order for slopes linear in
        weights; for products of weights that vary in depth (attention), use "fused".
    memory : {"states", "checkpoints"}
        Serial propagation stores all states, or at most 1 MiB or about `3 sqrt(layers)` of them,
        from which the backward pass recomputes the others, with the same results up to rounding.

    Attributes
    ----------
    last_forward, last_backward : PassReport
        Reports on the last forward and backward pass.

    Raises
    ------
    TypeError, ValueError
        If a setting is invalid, also for this `mode`, or the net has too few layers for the levels.

    Notes
    -----
    Gradients can themselves be differentiated if `mode` is "serial" or `control` is
    `CyclesToTolerance` (up to that tolerance); after a fixed number of cycles, this raises a
    RuntimeError. Source: Guenther, Ruthotto, Schroder, Cyr, Gauger, "Layer-parallel training of
    deep residual neural networks" (2020); the opening is the skipped first down-cycle of XBraid.

    Examples
    --------
    >>> generator = torch.manual_seed(0)
    >>> net = ODENet(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()), layers=64)
    >>> parallel = LayerParallel(net, levels=2, coarsening=8, control=FixedCycles(2))
    >>> x = torch.randn(10, 4)
    >>> parallel(x).sum().backward()
    >>> bool((parallel(x) - net(x)).abs().max() < 1e-4), parallel.last_forward.cycles
    (True, 2)
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self,
        net: ODENet,
        levels: int = 2,
        coarsening: int | Sequence[int] = 4,
        forward: str = "cascade + V",
        backward: str = "cascade + V",
        control: Control | None = None,
        *,
        relaxation: Sequence[str] = ("F", "FCF"),
        mode: str = "mgrit",
        warm_start: bool = False,
        coarse: str = "mean",
        memory: str = "states",
    ):
        super().__init__()
        if not isinstance(net, ODENet):
            raise TypeError(
                f"LayerParallel got a {type(net).__name__}; give an ODENet (for residual blocks in "
                "an nn.Sequential: ODENet.from_sequential)"
            )
        check_calls("LayerParallel", net, ODENet, ("__call__", "forward", "propagate", *GRID))
        factors = level_factors(levels, coarsening)
        level_sizes(net.depth, factors)  # raises an error early
        check_ways(mode, memory, control, bool(factors))
        self.net = net
        self.communicator: Communicator = SERIAL_COMMUNICATOR
        self._set(
            {
                "factors": factors,
                "forward": forward,
                "backward": backward,
                "relaxation": relaxation_words(relaxation, len(factors)),
                "mode": mode,
                "warm_start": warm_start,
                "coarse": coarse,
                "memory": memory,
            },
            FixedCycles() if control is None else control,
        )
        self.last_forward = self.last_backward = SERIAL

    def _set(self, settings: dict[str, Any], control: Control | None) -> None:
        names = "factors", "forward", "backward", "relaxation", "coarse"
        method = MGRITMethod.from_texts(*[settings[name] for name in names])
        kept, depth, interval = self.net.kept, self.net.depth, method.strides[-1]
        if kept and (kept.start % interval or (kept.stop % interval and kept.stop < depth)):
            raise ValueError(
                f"LayerParallel holds the layers {kept.start} to {kept.stop - 1} here, which are "
                f"not whole coarsest intervals of {interval}; distribute a module with the wanted "
                "levels and coarsening"
            )
        self.settings, self.method = settings, method
        self.control = control  # None: AdaptiveCycles found serial propagation cheaper
        self.calls = 0  # number of training calls
        self._warned = False
        self._faster: dict[tuple, str] = {}  # choices of mode "auto"
        self._starts = WarmStarts()
        self._setups: dict[MGRITMethod, tuple[Any, PropagationSetup]] = {}  # its own, and serial

    def take_part(self, which: range, communicator: Communicator) -> None:
        """Keep only the layers `which`, because other processes hold the rest.

        Afterwards all processes must call this module together with the same batch, and each gets
        the output of the whole network. Use `mgnet.petsc.distribute_layers`, which calls this.

        Parameters
        ----------
        which : range
            Layers of this process, which form whole layers of the coarsest level.
        communicator : Communicator
            The processes that hold the layers.
        """
        keep_layers(self.net, which)
        self.communicator = communicator
        self._set(self.settings, self.control)

    def get_extra_state(self) -> Tensor:
        """Save the settings, which belong to the model because weights are trained with them."""
        return settings_to_state(self.settings, self.control, self.calls)

    def set_extra_state(self, state: Any) -> None:
        """Restore the settings of the saved model, whatever the current settings are."""
        settings, control, calls = settings_from_state(state)
        self._set(settings, control)
        self.calls = calls

    def _load_from_state_dict(
        self, state: Any, prefix: str, told: Any, strict: bool, missing: list[str], *rest: Any
    ) -> None:
        self.net.check_state(state, f"{prefix}net.")  # before anything is changed
        super()._load_from_state_dict(state, prefix, told, strict, missing, *rest)
        allow_without_extra_state(prefix, missing)

    def forward(self, x: Tensor, **side: Any) -> Tensor:
        """Compute the output for a batch x, with the side inputs of `ODENet.forward`."""
        with lending():
            refuse_proxy(self.net.block, x)
        u = self.net.encode(x, **side)
        return self.net.decode(not_compiled(partial(self._solved, side), u), **side)

    def _solved(self, side: Mapping[str, Any], u: Tensor) -> Tensor:
        with lending():
            self.net.resample_dropout()
        transform = transform_of(self.net, u, side)
        if transform is None:
            return self._propagate(u, self._mode(u, side), side)
        serial = not self.settings["factors"] or self.settings["mode"] == "serial"
        check_plain(transform, self.control, serial, self.communicator)
        self.last_forward = self.last_backward = SERIAL
        return self.net.propagate(u, **side)

    def _mode(self, u: Tensor, side: Mapping[str, Any]) -> str:
        mode = self.settings["mode"]
        if not self.settings["factors"] or self.control is None or u.is_meta:  # only shapes
            return "serial"
        return self._measured(u, side) if mode == "auto" else mode

    def _propagate(self, u: Tensor, mode: str, side: Mapping[str, Any]) -> Tensor:
        if cast_of(u.device.type) is not None:  # states keep the precision of the weights
            wide = torch.promote_types(u.dtype, self.net.times.dtype)
            if u.dtype != wide:
                return self._propagate(u.to(wide), mode, side).to(u.dtype)
        if mode == "serial":
            self.last_forward = self.last_backward = SERIAL
            alone = isinstance(self.communicator, SerialCommunicator)
            plain = partial(self.net.propagate, u, **side) if alone else None
            spread = spreading(self.net, self.communicator, self.method.strides[-1], side)
            given, few = self._prepare(u, SERIAL_METHOD, side), self.settings["memory"] != "states"
            return march(*given, otherwise=plain, spread=spread, checkpoints=few)
        setup, _, steps, parameters = self._prepare(u, self.method, side)
        recorded = setup.is_recorded(u, steps, parameters)
        update = setup.changes_buffers(u)
        control, counted = self.control or FixedCycles(), recorded and self.training
        if counted:
            self.calls += 1
        number = self.calls if counted else 0
        budgets = {name: control.limit(name, number) for name in ("forward", "backward")}
        report = partial(self._follow, partial(told_of, setup, u)) if recorded else self._note
        starts = self._starts if self.settings["warm_start"] else None
        record = recorded or update
        call = ModuleCall(self.net, Propagation(setup), budgets, record, update, report, starts)
        return solve(call, u, steps, parameters)

    def _prepare(
        self, u: Tensor, method: MGRITMethod, side: Mapping[str, Any]
    ) -> tuple[PropagationSetup, Tensor, Tensor, Sequence[Tensor]]:
        """The setup for these tensors and block, and u, steps and parameters that get gradients."""
        net, layers, learnable_steps = self.net, None, []
        kernel = net.kernel
        if side:
            with lending():
                kernel, layers = with_side_inputs(net, side, self.communicator, method.strides[-1])
            parameters, buffers = layers.parameters, layers.buffers
        elif net.learnable_steps is None and net.weights == "per layer":  # nothing is computed
            parameters, buffers = net.slots().tensors()
        elif method is SERIAL_METHOD and net.weights == "shared":  # joint tensors may suffice
            layers, (parameters, _) = net.own_layers(), net.slots().tensors()
            buffers = layers.buffers
        else:
            with lending():
                layers = layers_of(net, self.communicator, self.method.strides[-1])
            parameters, buffers = layers.parameters, layers.buffers
        if net.learnable_steps is not None:
            learnable_steps = [net.learnable_steps]
        tensors = [
            (x.data_ptr(), x.shape, x.stride(), x.dtype)
            for x in (*parameters, *buffers, *learnable_steps)
        ]
        about = kernel, kernel.fingerprint(), net.final_time, net.kept, self.communicator
        modes = cast_of(u.device.type), torch.is_inference_mode_enabled()
        key = about, tensors, u.dtype, u.device, modes
        size, last = u.numel() * u.element_size(), self._setups.get(method)
        if last is None or last[0] != key or not last[1].serves(size):
            setup = PropagationSetup.of(
                kernel,
                detached(net.own_layers() if layers is None else layers),
                method,
                self.communicator,
                state_bytes=size,
                fixed_steps=net.learnable_steps is None,
            )
            self._setups[method] = key, setup
        else:
            setup = last[1]
            setup.refresh()
        steps = setup.fine.steps if layers is None else layers.steps
        steps, *parameters = aliases((steps, *parameters))
        return setup, u, steps, parameters

    def _note(self, direction: str, made: PassReport) -> None:
        self.__dict__[f"last_{direction}"] = made  # a module's own way looks for tensors

    def _follow(self, forecast: Callable[[], str], direction: str, made: PassReport) -> None:
        self._note(direction, made)
        control = self.control
        if control is None or not isinstance(made, PassReport):  # a graph is captured
            return
        told = self.training and self.communicator.rank == 0  # one warning from one process
        if made.estimate > control.tolerance and told and not self._warned:
            self._warned = True
            warnings.warn(too_inexact(direction, made, control, forecast()), stacklevel=2)
        following = control.follow(direction, made)
        if following is not control:
            self.control = following

    def _measured(self, u: Tensor, side: Mapping[str, Any]) -> str:
        """The faster mode for states like u, including the backward pass in training."""
        key = (tuple(u.shape), u.dtype, u.device, self.training, torch.is_grad_enabled())
        key += (torch.get_num_threads(), u.requires_grad)
        if key not in self._faster:
            if len(self._faster) >= MEASURED:
                self._faster.clear()
            state = self.calls, self.control, self._warned, self.last_forward, self.last_backward
            kept = dict(self._starts.kept)
            runs = {mode: partial(self._propagate, mode=mode) for mode in MODES[:2]}
            with warnings.catch_warnings(), unchanged(self.net):  # trials do not count as calls
                warnings.simplefilter("ignore")
                alone = isinstance(self.communicator, SerialCommunicator)
                seconds = least_seconds(runs, u, side, [*self.net.parameters()], alone)
            self.calls, self.control, self._warned, self.last_forward, self.last_backward = state
            self._starts = WarmStarts(kept)
            self._faster[key] = self.communicator.broadcast(preferred(seconds))
        return self._faster[key]

    def evaluate(
        self,
        metric: Callable[[Tensor, Any], Any],
        batches: Iterable[Sequence[Any]],
        propagation: str | None = None,
    ) -> dict[str, float]:
        """Compute the mean of a metric over batches with serial propagation and with the cycles.

        Weights trained with few cycles are adapted to these cycles; in serial propagation they may
        be less accurate (by 13 percentage points in our measurements). The result is the mean for
        each propagation, weighted by batch sizes.

        Parameters
        ----------
        metric : callable
            A function `metric(output, target)` that returns a mean over the batch.
        batches : iterable of (x, target), or (x, target, dictionary of side inputs)
            The batches.
        propagation : {"serial", "mgrit"}, optional
            If given, only the mean for this propagation is computed.

        Raises
        ------
        ValueError
            If `propagation` has a different value.

        Examples
        --------
        >>> generator = torch.manual_seed(0)
        >>> net = ODENet(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()), layers=16)
        >>> x = torch.randn(10, 4)
        >>> found = LayerParallel(net).evaluate(torch.nn.functional.mse_loss, [(x, x)])
        >>> sorted(found), abs(found["serial"] - found["mgrit"]) < 1e-3
        (['mgrit', 'serial'], True)
        """
        check_calls("LayerParallel.evaluate", self, LayerParallel, ("__call__", "forward"))
        modes = ("serial", "mgrit") if propagation is None else (propagation,)
        for mode in modes:
            if mode not in MODES[:2]:
                raise ValueError(
                    f"LayerParallel.evaluate got propagation {mode!r}; use 'serial' or 'mgrit'"
                )
        with torch.no_grad(), evaluating(self):
            return means(self._each, metric, batches, modes)

    def _each(self, x: Tensor, side: Mapping[str, Any], modes: Sequence[str]) -> Iterator[Tensor]:
        """The output for each mode of propagation."""
        u = self.net.encode(x, **side)
        for mode in modes:
            usable = mode if self.settings["factors"] else "serial"
            yield self.net.decode(self._propagate(u, usable, side), **side)

    def __getstate__(self) -> dict[str, Any]:
        # Data kept between calls belongs to these particular tensors.
        return {**self.__dict__, "_setups": {}, "_starts": WarmStarts()}

    def extra_repr(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"{settings}, control={self.control}"
