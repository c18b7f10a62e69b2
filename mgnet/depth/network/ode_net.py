"""Residual networks whose layers are time steps of an ordinary differential equation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from mgnet.depth.batched import devices
from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layer_inputs import check_layer_inputs, input_names
from mgnet.depth.batched.layers import Layers
from mgnet.depth.batched.lending import lending
from mgnet.depth.batched.scheme import advance, at_times
from mgnet.depth.batched.side_inputs import check_side_inputs
from mgnet.depth.network.dropout import drops, refuse_in_backward, renew_keys, use_keys
from mgnet.depth.network.foreign_layers import load_layers, to_layers
from mgnet.depth.network.layer_calls import LayerCalls, in_turn, refuse_proxy
from mgnet.depth.network.layer_stack import (
    LayerSlots,
    checked_state,
    draw_layers,
    layer_of,
    per_layer,
    share,
    stack,
    warn_of_copies,
)
from mgnet.depth.network.net_options import check_net_options
from mgnet.depth.network.refinement import coarsen, coarser_transfers, refine
from mgnet.depth.network.residual_block import ResidualBlock
from mgnet.depth.network.sequential import Increment, from_sequential, to_sequential
from mgnet.depth.network.shared_buffers import convert_state, share_buffers
from mgnet.depth.network.spline_weights import DepthSpline
from mgnet.depth.network.subclass import check_calls, check_own_tensors
from mgnet.training.extra_state import (
    allow_without_extra_state,
    check_options,
    decode,
    encode,
    refuse_script,
)
from mgnet.transfer import AxisTransfer

__all__ = ["GRID", "PASS", "ODENet"]

# Methods that define the layers of a net and the propagation through them. Derived classes may
# override them, but code that bypasses one of them must call `check_calls` first.
GRID = "layers", "own_layers", "steps", "times", "_states"
PASS = "__call__", "forward", "encode", "propagate", "decode", "_states"


class ODENet(torch.nn.Module):
    """`u' = F(t, u; theta(t))` in N layers: `u[n+1] = u[n] + s_n F(t_n, u[n]; theta_n)`, s_n = T/N.

    The parameters of all layers are stored together, with the layers on axis 0, so `net.block` is
    the block with parameters of shape (layers, ...). Source: Guenther et al., SIAM J. Math. Data
    Sci. 2 (2020), section 2; for learnable_steps see `docs/design.md`.

    Parameters
    ----------
    block : torch.nn.Module, or function `n -> module`
        The function F(u), or F(t, u) if its first argument is named t or time. It must preserve the
        shape (batch, ...) of the state, and may also return a tuple (F, None, ...). A module is a
        template: each layer draws its own parameters with the submodules' `reset_parameters` (or
        `_reset_parameters`); a warning lists submodules with neither, whose layers start as copies.
        A function is called for every layer, including `boundary_layers`, in the order of depth.
    layers : int
        Number of layers, N.
    final_time : float
        Final time T, dimensionless.
    scheme : "euler", "midpoint", "heun", "heun3", "rk4" or "rk4_38"
        Runge-Kutta scheme with 1, 2, 2, 3, 4 or 4 evaluations of F per layer; "rk4_38" is the 3/8
        rule.
    learnable_steps : bool
        Whether the steps s_n are parameters, `net.learnable_steps`. If so, refinement is exact.
    weights : "per layer", "shared" or DepthSpline
        "per layer": separate weights in each layer; "shared": one theta for all layers; a
        `DepthSpline`: weights are splines in depth.
    before, after : torch.nn.Module, optional
        Modules that map the input to the state, and the state to the output.
    boundary_layers : (int, int)
        Numbers of layers with step 1 and the same block architecture before and after the N
        layers, each with its own weights; they are never solved in parallel. Source: Jiang et al.,
        arXiv 2601.09026.
    start : "independent" or "identical"
        "identical": all layers start as copies of the template. Coarse layers then approximate them
        better, but the training loss is slightly higher at first. Not available for a function.
    shared_buffers : sequence of str
        Names of buffers of the block, such as a causal mask, that are the same in all layers and
        are stored once, with shape (1, ...). No layer may change them.
    layer_inputs : sequence of str
        Names of those side inputs of `forward` that have a row for each layer, like the input of a
        time step: tensors of shape (layers, batch, ...), including boundary layers. All stages of a
        step get the same row.

    Attributes
    ----------
    block : torch.nn.Module
        The stacked block. Within one forward pass, all evaluations of a layer use the same dropout
        masks.
    seed, calls : int
        Seed of the dropout masks, and number of passes with masks so far, which determine the masks
        (see `resample_dropout`); saved with the weights.

    Raises
    ------
    ValueError, TypeError
        If an argument is invalid; `forward` also raises an error if the block changes the shape of
        the state.

    Examples
    --------
    >>> block = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh())
    >>> net = ODENet(block, 16, 5.0, before=torch.nn.Linear(2, 8), after=torch.nn.Linear(8, 5))
    >>> net(torch.rand(10, 2)).shape, net.block[0].weight.shape
    (torch.Size([10, 5]), torch.Size([16, 8, 8]))
    """

    block: Any  # the type of the template
    __call__: Callable[..., torch.Tensor]

    def __init__(
        self,
        block: torch.nn.Module | Callable[[int], torch.nn.Module],
        layers: int,
        final_time: float = 1.0,
        *,
        scheme: str = "euler",
        learnable_steps: bool = False,
        weights: str | DepthSpline = "per layer",
        before: torch.nn.Module | None = None,
        after: torch.nn.Module | None = None,
        boundary_layers: tuple[int, int] = (0, 0),
        start: str = "independent",
        shared_buffers: Sequence[str] = (),
        layer_inputs: Sequence[str] = (),
    ):
        super().__init__()
        self.layer_inputs = input_names(layer_inputs)
        check_net_options(layers, final_time, scheme, weights, boundary_layers, start)
        first, last = map(int, boundary_layers)
        self.depth = layers = int(layers)
        modules = draw_layers(block, first + layers + last, start)
        middle = modules[first : first + layers]
        if isinstance(block, torch.nn.Module) and start == "independent" and weights != "shared":
            warn_of_copies(block, modules)
        self.kept = range(layers)  # the layers that this process holds
        self.final_time = float(final_time)
        self.scheme = scheme
        self.weights = weights
        self.before = before
        check_side_inputs("ODENet", modules[0], dict.fromkeys(self.layer_inputs))
        self.opening = _buffers(modules[:first], 0.0, scheme)
        self.block = use_keys(stack(middle), layers)
        self.closing = _buffers(modules[first + layers :], self.final_time, scheme)
        self.after = after
        within = "block." if isinstance(self.block, Increment) else ""
        self.shared_buffers = share_buffers(self.block, shared_buffers, within)
        if weights != "per layer":
            share(self.block, weights, layers)
        self.learnable_steps = None
        if learnable_steps:
            self.learnable_steps = torch.nn.Parameter(self.steps)
        self.kernel = StackedBlock(self.block, scheme, shared_buffers=self.shared_buffers)
        self.timed = self.kernel.takes_time
        self.seed = 0

    def _where(self) -> torch.device | str:
        """Where to make per-layer numbers: on the net's GPU, which avoids waiting for copies."""
        given = next((p.device for p in self.block.parameters() if p.is_floating_point()), None)
        return given if given is not None and given.type == "cuda" else "cpu"

    def _like(self, values: torch.Tensor) -> torch.Tensor:
        """Convert values to the precision and device of the weights."""
        for parameter in self.block.parameters():
            if parameter.is_floating_point():
                return values.to(parameter.detach())
        return values.to(torch.get_default_dtype())

    @property
    def steps(self) -> torch.Tensor:
        """The steps s_n of all layers: `learnable_steps`, or T / N."""
        if self.learnable_steps is not None:
            return self.learnable_steps
        size, step = (len(self.kept),), self.final_time / self.depth
        return self._like(torch.full(size, step, dtype=torch.float64, device=self._where()))

    @property
    def times(self) -> torch.Tensor:
        """The start time of each layer, n T / N, even with learnable steps."""
        ends, where = (self.kept.start, self.kept.stop), self._where()
        numbers = torch.arange(*ends, dtype=torch.float64, device=where)
        return self._like(self.final_time * (numbers / self.depth))

    def layers(self) -> Layers:
        """All N layers, as differentiable functions of the parameters of this module."""
        self.check_whole()
        return self.own_layers()

    def check_whole(self) -> None:
        """Raise an error if other processes hold some of the layers.

        Raises
        ------
        ValueError
            If this process holds only a part of the layers.
        """
        kept = self.kept
        if len(kept) < self.depth:
            held = f"the layers {kept.start} to {kept.stop - 1}" if kept else "none of the layers"
            raise ValueError(
                f"ODENet holds {held} of 0 to {self.depth - 1} only; call the LayerParallel module "
                "that was distributed, or load its gathered state into a whole net"
            )

    def check_derived(self, owner: str) -> None:
        """Raise a TypeError if this is a derived class that refinement cannot handle."""
        check_calls(owner, self, ODENet, GRID)
        check_own_tensors(owner, self, self.depth, ["learnable_steps"])

    def own_layers(self) -> Layers:
        """The layers that this process holds: all of them, unless they were distributed."""
        parameters, buffers = self.slots().tensors()
        if self.weights == "shared":
            parameters = [p.expand(len(self.kept), *p.shape[1:]) for p in parameters]
        elif isinstance(self.weights, DepthSpline):
            parameters = [self.weights.at_layers(c, self.depth, self.kept) for c in parameters]
        return Layers(tuple(parameters), self.own_buffers(buffers), self.times, self.steps)

    def own_buffers(self, buffers: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Buffers of the block with one row per layer of this process; shared ones are views."""
        found = list(buffers)
        for k in self.kernel.fixed.numbers:
            found[k] = found[k].expand(len(self.kept), *found[k].shape[1:])
        return tuple(found)

    def slots(self) -> LayerSlots:
        """The places of the block's tensors.

        Raises
        ------
        ValueError
            If the block's tensors are not those that it had when the net was made.
        """
        slots, kernel = LayerSlots(self.block), self.kernel
        now, made = (*slots.parameters, *slots.buffers), (*kernel.names, *kernel.buffer_names)
        if now != made:
            other = ", ".join(sorted({*now} ^ {*made})) or "their order"
            raise ValueError(
                f"ODENet got a block whose tensors changed after it was made ({other}), as by "
                "torch.nn.utils.parametrize or prune, which would treat all layers as one; change "
                "the block before ODENet is given it, or the layers of net.to_sequential()"
            )
        return slots

    def encode(self, x: torch.Tensor, **side: Any) -> torch.Tensor:
        """Compute the state u[0] by applying `before` and the first boundary layers."""
        check_side_inputs("ODENet", self.block, side)
        count = len(self.opening) + self.depth + len(self.closing)
        check_layer_inputs("ODENet", self.layer_inputs, side, count)
        u = x if self.before is None else self.before(x)  # `before` may wait for its own threads
        with lending():
            checked_state(self.block, u)
        return in_turn(self.opening, u, side, self.layer_inputs)

    def decode(self, u: torch.Tensor, **side: Any) -> torch.Tensor:
        """Compute the output from u[N] by applying the last boundary layers and `after`."""
        u = in_turn(self.closing, u, side, self.layer_inputs, len(self.opening) + self.depth)
        return u if self.after is None else self.after(u)

    @property
    def calls(self) -> int:
        """Number of passes with dropout masks so far."""
        return self.kernel.draws.calls

    @calls.setter
    def calls(self, count: int) -> None:
        self.kernel.draws.calls = count

    def resample_dropout(self) -> None:
        """Draw new dropout masks in training, from `seed`, `calls` and the number of the layer."""
        if self.training or drops(self.block):
            refuse_in_backward(self.block, self.kernel.draws)
            renew_keys(self.block, self.kernel.draws, self.seed, self.kept.start)

    def options(self) -> dict[str, Any]:
        """Everything besides weights that defines the function; a loaded state must agree."""
        return {
            "layers": self.depth,
            "final_time": self.final_time,
            "scheme": self.scheme,
            "learnable_steps": self.learnable_steps is not None,
            "weights": self.weights if isinstance(self.weights, str) else repr(self.weights),
            "boundary_layers": [len(self.opening), len(self.closing)],
        }

    def get_extra_state(self) -> torch.Tensor:
        """Save the options and the state of the masks, so that a resumed run continues them."""
        return encode({"options": self.options(), "seed": self.seed, "calls": self.calls})

    def __prepare_scriptable__(self) -> None:
        """Refuse `torch.jit.script`, which calls this first."""
        refuse_script(self)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Continue the sequence of dropout masks of the saved net."""
        if state.numel() == 2:  # saved by an older version
            self.seed, self.calls = state.tolist()
        else:
            told = decode(state)
            self.seed, self.calls = told.get("seed", 0), told.get("calls", 0)

    def check_state(self, state: Mapping[str, Any], prefix: str = "") -> None:
        """Raise a RuntimeError if a `state_dict` is from a network with other options.

        A state without saved options is not checked.
        """
        saved = state.get(f"{prefix}_extra_state")
        if isinstance(saved, torch.Tensor) and saved.numel() != 2:
            check_options("ODENet", decode(saved).get("options", {}), self.options())

    def _load_from_state_dict(
        self, state: Any, prefix: str, told: Any, strict: bool, missing: list[str], *rest: Any
    ) -> None:
        self.check_state(state, prefix)
        convert_state(state, f"{prefix}block.", self.block, self.shared_buffers, len(self.kept))
        super()._load_from_state_dict(state, prefix, told, strict, missing, *rest)
        allow_without_extra_state(prefix, missing)

    def forward(self, x: torch.Tensor, **side: Any) -> torch.Tensor:
        """Compute the output, layer by layer.

        Parameters
        ----------
        x : tensor
            The input of the network.
        **side
            Side inputs: keyword arguments that every block gets besides its state, such as masks,
            rotary caches or the states of an encoder, or the `layer_inputs`. They may be tensors,
            plain values, and tuples, lists and dictionaries of these.

        Returns
        -------
        tensor
            The output of the network.
        """
        with lending():
            refuse_proxy(self.block, x)
            self.resample_dropout()
        return self.decode(self.propagate(self.encode(x, **side), **side), **side)

    def propagate(self, u: torch.Tensor, **side: Any) -> torch.Tensor:
        """Compute the state u[N] from u[0], layer by layer."""
        for state in self._states(u, side):
            u = state
        return u

    def trajectory(
        self,
        x: torch.Tensor,
        times: Sequence[float] | torch.Tensor | None = None,
        **side: Any,
    ) -> torch.Tensor:
        """Compute the states at given times, with linear interpolation between layers.

        Parameters
        ----------
        x : tensor
            The input of the network.
        times : sequence of float in [0, T], optional
            Times, where layer n starts at `n T / N`; by default all N + 1 layer times.
        **side
            Side inputs, as for `forward`.

        Returns
        -------
        tensor of shape (times, batch, ...)
            The states at these times.
        """
        with lending():
            self.resample_dropout()
        u = self.encode(x, **side)
        states = torch.stack([u, *self._states(u, side)])
        if times is None:
            return states
        asked = torch.as_tensor(times, dtype=torch.float64, device=states.device)
        return at_times(states, asked, self.final_time)

    def _states(self, u: torch.Tensor, side: Mapping[str, Any]) -> Iterator[torch.Tensor]:
        """Yield the states after layer 0, 1, ..., with one call of the module per stage."""
        with lending():  # see `aliases`
            layers = self.layers()
            count = len(layers)
            parameters = per_layer(layers.parameters, count)
            buffers = per_layer(layers.buffers, count)
            # Numbers are cheaper than tensors if no derivative with respect to them is needed and
            # no host waits for a device.
            numbers = (
                self.learnable_steps is None
                and not devices.waits(layers.steps)
                and not torch.compiler.is_compiling()
            )
            steps = layers.steps.tolist() if numbers else layers.steps.unbind()
        times = layers.times.unbind() if self.timed else [0.0] * count
        calls = LayerCalls(self.kernel, side, self.layer_inputs, len(self.opening))
        fixed = self.kernel.fixed
        slots = self.slots()
        left: list[Sequence[torch.Tensor]] = []
        for n in range(count):
            with slots.lent():
                slots.put(parameters[n], buffers[n])
                F = calls.of_layer(n, parameters[n], buffers[n])
                before = fixed.before(buffers[n], n == 0 and self.training)
                u = advance(self.scheme, F, times[n], u, steps[n])
                if buffers[n]:
                    left.append(slots.tensors()[1])
                    fixed.check(buffers[n], left[-1], before)
            yield u
        slots.renew_buffers(buffers, left)
        fixed.settle()

    def coarser_transfers(
        self, levels: int | None = None
    ) -> list[tuple[torch.nn.Parameter, list[AxisTransfer]]]:
        """Transfers between successively coarser levels, for the weights and steps of all layers.

        The number of layers, or of intervals of a `DepthSpline`, is divided by two or three as long
        as it is divisible and greater than 4. Weights between coarse layers are interpolated
        linearly; a learnable step is divided among finer layers.
        `mgnet.training.MultilevelGradient` calls this method.

        Parameters
        ----------
        levels : int, optional
            Largest number of levels, including that of the network itself; if it is given, even 4
            or fewer layers are halved.

        Returns
        -------
        list of (torch.nn.Parameter, list of AxisTransfer)
            For each parameter, the transfers between its levels, finest first.
        """
        self.check_whole()
        self.check_derived("coarser_transfers")
        return coarser_transfers(self, levels)

    def regularization(self, tikhonov: float = 0.0, smoothness: float = 0.0) -> torch.Tensor:
        """Compute a penalty on the weights of the layers, differentiable with respect to them.

        `h/2 sum_n (tikhonov |theta_n|^2 + smoothness |(theta_n - theta_{n-1}) / h|^2)`, h = T / N:
        these are integrals over [0, T], so the first does not change when layers are copied.
        Source:
        Guenther et al., SIAM J. Math. Data Sci. 2 (2020), eq. (2.6), whose sums lack the h.

        Examples
        --------
        >>> net = ODENet(torch.nn.Linear(1, 1, bias=False), 2, final_time=1.0)
        >>> _ = net.block.weight.data.copy_(torch.tensor([[[1.0]], [[3.0]]]))
        >>> net.regularization(tikhonov=1.0).item(), net.regularization(smoothness=1.0).item()
        (2.5, 4.0)
        """
        h = self.final_time / self.depth
        total = self._like(torch.zeros(()))
        for theta in self.layers().parameters:
            if tikhonov:
                total = total + 0.5 * h * tikhonov * theta.square().sum()
            if smoothness:
                total = total + 0.5 / h * smoothness * theta.diff(dim=0).square().sum()
        return total

    def layer(self, n: int) -> ResidualBlock:
        """Return a copy of layer n as an ordinary module."""
        layers = self.layers()
        parameters = [p[n] for p in layers.parameters]
        block = layer_of(self.block, parameters, [b[n] for b in layers.buffers])
        step: Any = float(layers.steps[n].detach())
        if self.learnable_steps is not None:
            step = torch.nn.Parameter(
                self.learnable_steps.detach()[n].clone(), self.learnable_steps.requires_grad
            )
        return ResidualBlock(block, step, float(layers.times[n]), self.scheme)

    def to_sequential(self) -> torch.nn.Sequential:
        """Return the same function as ordinary modules: `before`, `ResidualBlock`s, `after`.

        All modules are copies. Shared weights become separate; dropout uses PyTorch's own
        generator.
        """
        check_calls("to_sequential", self, ODENet, PASS)
        return to_sequential(self)

    @classmethod
    def from_sequential(
        cls,
        sequential: torch.nn.Sequential | torch.nn.ModuleList | torch.nn.TransformerEncoder,
        blocks: tuple[int, int] | None = None,
        *,
        learnable_steps: bool = False,
        shared_buffers: Sequence[str] = (),
        layer_inputs: Sequence[str] = (),
    ) -> ODENet:
        """Build a net with the same function from copies of blocks; tied weights become separate.

        Parameters
        ----------
        sequential : torch.nn.Sequential, ModuleList or TransformerEncoder
            Modules that are called in sequence with only the state as argument; those of an encoder
            are called without a mask, followed by its `norm`.
        blocks : (int, int), optional
            Numbers of the first residual block and of the first module after the blocks. By default
            all `ResidualBlock`s, which keep their step; if there are none, all modules or the
            `layers` of an encoder. Any other module x -> y becomes F(u) = module(u) - u with a step
            of 1. It may return a tuple (y, None, ...).
        learnable_steps : bool
            Whether the steps become parameters; steps that are parameters already remain so.
        shared_buffers, layer_inputs : sequence of str
            The arguments of the constructor; the names are those used in a single block.

        Returns
        -------
        ODENet
            The net, with the modules before and after the blocks as `before` and `after`.

        Raises
        ------
        TypeError, ValueError
            If blocks differ in more than weights and dropout rates (the message names the first
            one), or if a class with its own `forward`, or a hook, does more than call modules in
            sequence.

        Examples
        --------
        >>> class Block(torch.nn.Linear):
        ...     def forward(self, x):
        ...         return x + super().forward(x).tanh()
        >>> blocks = [Block(4, 4) for _ in range(8)]
        >>> sequential = torch.nn.Sequential(*blocks, torch.nn.Linear(4, 1))
        >>> net = ODENet.from_sequential(sequential, blocks=(0, 8))
        >>> x = torch.rand(5, 4)
        >>> torch.allclose(net(x), sequential(x), atol=1e-6), net.depth
        (True, 8)
        """
        names = {"shared_buffers": shared_buffers, "layer_inputs": layer_inputs}
        return from_sequential(cls, sequential, blocks, learnable_steps, names)

    def load_layers(self, layers: Sequence[torch.nn.Module] | torch.nn.ModuleList) -> None:
        """Copy weights and buffers of other layers into this net; after an error, it is unchanged.

        Parameters
        ----------
        layers : torch.nn.ModuleList, Sequential or sequence of modules
            One module per layer, including `boundary_layers`, with the tensor names and shapes of
            the blocks from which this net was made. Precisions are converted, as by
            `load_state_dict`. Steps, `before`, `after`, `requires_grad` and an optimizer's moments
            do not change.

        Raises
        ------
        TypeError, ValueError
            If the layers do not match this net, or if its weights are shared or are splines.

        Examples
        --------
        >>> layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(8))
        >>> net = ODENet.from_sequential(layers)
        >>> net.load_layers(layers)
        """
        self.check_derived("load_layers")
        load_layers(self, self.layers(), layers)

    def to_layers(self, into: Any = None) -> Any:
        """Return copies of the plain blocks, one per layer, in the order of depth.

        Parameters
        ----------
        into : torch.nn.ModuleList, Sequential or sequence of modules, optional
            Layers to be overwritten in place, subject to the rules of `load_layers`. By default,
            new ones are created, whose plain attributes (`layer_idx`) are those of the first layer.

        Returns
        -------
        torch.nn.ModuleList, or `into`
            The blocks u -> block(u), in the form in which they were passed to `from_sequential`, or
            F(u) for layers of the form u + F(u).

        Raises
        ------
        TypeError, ValueError
            If a step is not 1, the scheme is not Euler's, or `into` has different layers.

        Examples
        --------
        >>> layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(8))
        >>> ODENet.from_sequential(layers).to_layers(into=layers) is layers
        True
        """
        self.check_derived("to_layers")
        return to_layers(self, self.layers(), into)

    def refine(self, factor: int = 2, how: str | None = None) -> ODENet:
        """Create a network with `factor` times as many layers on the same interval [0, T].

        Parameters
        ----------
        factor : int
            Refinement factor, at least 2.
        how : "steps", "constant", "linear" or "knots", optional
            "steps": each layer becomes a copy with its step and further copies with step 0; exact.
            "constant": copies with the step divided by `factor`. "linear": weights are interpolated
            between layers, and constant after the last one. "knots": knots are inserted into spline
            weights, and the number of layers does not change; exact. The default is "steps" if
            steps
            are learnable, else "constant". Shared and spline weights change only with "knots".

        Returns
        -------
        ODENet
            The refined net, with copies of `before`, `after` and the boundary layers.
        """
        self.check_whole()
        self.check_derived("refine")
        return refine(self, factor, how)

    def coarsen(self, factor: int = 2, how: str | None = None) -> ODENet:
        """Create a network with fewer layers; the inverse of `refine` of the same kind.

        A coarse layer has the sum of the steps and the weights of the first of its fine layers
        ("constant": their mean; "knots": the least-squares fit).

        Parameters
        ----------
        factor : int
            Factor by which the number of layers ("knots": of intervals of the spline) is divided.
        how : str, optional
            The kind of refinement to invert, as in `refine`.

        Returns
        -------
        ODENet
            The coarsened net, with copies of `before`, `after` and the boundary layers.
        """
        self.check_whole()
        self.check_derived("coarsen")
        return coarsen(self, factor, how)

    def nesting_defect(self, x: torch.Tensor, factor: int = 2, how: str | None = None) -> float:
        """Compute the largest change of an output due to `refine`, relative to the largest output.

        If refinement is exact, the result is 0 or of the size of rounding errors. The net is
        evaluated without dropout and with fixed statistics.

        Parameters
        ----------
        x : tensor
            Inputs of the network.
        factor, how : int, str
            The arguments of `refine`.

        Returns
        -------
        float
            The relative change.
        """
        networks = copy.deepcopy(self).eval(), self.refine(factor, how).eval()
        with torch.no_grad():
            outputs, refined = (network(x) for network in networks)
        largest = outputs.abs().max().clamp_min(torch.finfo(outputs.dtype).tiny)
        return float((refined - outputs).abs().max() / largest)

    def extra_repr(self) -> str:
        return (
            f"layers={self.depth}, final_time={self.final_time:g}, scheme={self.scheme!r}, "
            f"learnable_steps={self.learnable_steps is not None}, weights={self.weights!r}"
        )


def _buffers(modules: Sequence[torch.nn.Module], time: float, scheme: str) -> torch.nn.Sequential:
    return torch.nn.Sequential(*(ResidualBlock(each, 1.0, time, scheme) for each in modules))
