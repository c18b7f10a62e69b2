"""Residual networks whose layers are the steps of an ordinary differential equation."""

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

# What makes the layers of a net, and what leads through them. Derived classes may have their own,
# but whoever puts other code in the place of these names asks `check_calls` first.
GRID = "layers", "own_layers", "steps", "times", "_states"
PASS = "__call__", "forward", "encode", "propagate", "decode", "_states"


class ODENet(torch.nn.Module):
    """`u' = F(t, u; theta(t))` in N layers: `u[n+1] = u[n] + s_n F(t_n, u[n]; theta_n)`, s_n = T/N.

    Every parameter of the block is kept for all layers at once, the layers on axis 0, so that
    `net.block` is the block with parameters of shape (layers, ...). Source: Guenther et al., SIAM
    J. Math. Data Sci. 2 (2020), section 2; learnable_steps: `docs/design.md`.

    Parameters
    ----------
    block : torch.nn.Module, or function `n -> module`
        F(u), or F(t, u) whose first argument is called t or time, of a state of any shape
        (batch, ...), which it keeps; it may give (F, None, ...). A module is a template: each layer
        draws parameters of its own by the submodules' `reset_parameters` (or `_reset_parameters`);
        a warning names those that have neither and begin as copies. A function is called for every
        layer, those of `boundary_layers` included, in the order of depth.
    layers : int
        N.
    final_time : float
        T, dimensionless.
    scheme : "euler", "midpoint", "heun", "heun3", "rk4" or "rk4_38"
        1, 2, 2, 3, 4 or 4 evaluations of F per layer; "rk4_38" is the 3/8 rule.
    learnable_steps : bool
        Whether the steps s_n are parameters, `net.learnable_steps`. Refinement is then exact.
    weights : "per layer", "shared" or DepthSpline
        "shared": one theta for all layers.
    before, after : torch.nn.Module, optional
        From the input to the state, and from the state to the output.
    boundary_layers : (int, int)
        Layers of step 1 from the same block, before and after the N others, with weights of their
        own; they are never solved in parallel. Source: Jiang et al., arXiv 2601.09026.
    start : "independent" or "identical"
        "identical": all layers begin as copies of the template, so that coarse layers are better
        approximations of them; at first the training loss is a little higher. Not of a function.
    shared_buffers : sequence of str
        Names of buffers of the block, such as a causal mask, that are the same in all layers and
        are kept once, with shape (1, ...). No layer may change them.
    layer_inputs : sequence of str
        Names of side inputs of `forward` of which every layer has its own, as a time step has its
        input: tensors of shape (layers, batch, ...), boundary layers included. The same in all
        stages of a step.

    Attributes
    ----------
    block : torch.nn.Module
        The stacked block. Its dropout masks are the same however often a layer is evaluated in one
        forward pass.
    seed, calls : int
        What the masks depend on, see `resample_dropout`; saved with the weights.

    Raises
    ------
    ValueError, TypeError
        In forward too, if the block does not keep the shape of the state.

    Examples
    --------
    >>> block = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh())
    >>> net = ODENet(block, 16, 5.0, before=torch.nn.Linear(2, 8), after=torch.nn.Linear(8, 5))
    >>> net(torch.rand(10, 2)).shape, net.block[0].weight.shape
    (torch.Size([10, 5]), torch.Size([16, 8, 8]))
    """

    block: Any  # of whatever type the template has
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
        self.kept = range(layers)  # those that this process holds
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
        """Where numbers of the layers are made: on a GPU at once, for the host waits for copies."""
        given = next((p.device for p in self.block.parameters() if p.is_floating_point()), None)
        return given if given is not None and given.type == "cuda" else "cpu"

    def _like(self, values: torch.Tensor) -> torch.Tensor:
        """In the precision and on the device of the weights."""
        for parameter in self.block.parameters():
            if parameter.is_floating_point():
                return values.to(parameter.detach())
        return values.to(torch.get_default_dtype())

    @property
    def steps(self) -> torch.Tensor:
        """s_n of all layers: the learnable_steps, or T / N."""
        if self.learnable_steps is not None:
            return self.learnable_steps
        size, step = (len(self.kept),), self.final_time / self.depth
        return self._like(torch.full(size, step, dtype=torch.float64, device=self._where()))

    @property
    def times(self) -> torch.Tensor:
        """The time at the left of each layer: n T / N, with learnable_steps too."""
        ends, where = (self.kept.start, self.kept.stop), self._where()
        numbers = torch.arange(*ends, dtype=torch.float64, device=where)
        return self._like(self.final_time * (numbers / self.depth))

    def layers(self) -> Layers:
        """All N layers, differentiable functions of the parameters of this module."""
        self.check_whole()
        return self.own_layers()

    def check_whole(self) -> None:
        """Raise a ValueError if other processes hold some of the layers."""
        kept = self.kept
        if len(kept) < self.depth:
            held = f"the layers {kept.start} to {kept.stop - 1}" if kept else "none of the layers"
            raise ValueError(
                f"ODENet holds {held} of 0 to {self.depth - 1} only; call the LayerParallel module "
                "that was distributed, or load its gathered state into a whole net"
            )

    def check_derived(self, owner: str) -> None:
        """Raise a TypeError if this is a derived class that refinement does not know to change."""
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
        """Those of the block with a row for each layer here; those kept once are views."""
        found = list(buffers)
        for k in self.kernel.fixed.numbers:
            found[k] = found[k].expand(len(self.kept), *found[k].shape[1:])
        return tuple(found)

    def slots(self) -> LayerSlots:
        """Where the tensors of the block stand; a ValueError if they are others than at first."""
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
        """The state u[0]: `before`, and the first boundary layers."""
        check_side_inputs("ODENet", self.block, side)
        count = len(self.opening) + self.depth + len(self.closing)
        check_layer_inputs("ODENet", self.layer_inputs, side, count)
        u = x if self.before is None else self.before(x)  # it may wait for threads of its own
        with lending():
            checked_state(self.block, u)
        return in_turn(self.opening, u, side, self.layer_inputs)

    def decode(self, u: torch.Tensor, **side: Any) -> torch.Tensor:
        """The output from the state u[N]: the last boundary layers, and `after`."""
        u = in_turn(self.closing, u, side, self.layer_inputs, len(self.opening) + self.depth)
        return u if self.after is None else self.after(u)

    @property
    def calls(self) -> int:
        """Passes with masks so far."""
        return self.kernel.draws.calls

    @calls.setter
    def calls(self, count: int) -> None:
        self.kernel.draws.calls = count

    def resample_dropout(self) -> None:
        """New dropout masks, in training: of `seed`, the passes with masks so far, the layer."""
        if self.training or drops(self.block):
            refuse_in_backward(self.block, self.kernel.draws)
            renew_keys(self.block, self.kernel.draws, self.seed, self.kept.start)

    def options(self) -> dict[str, Any]:
        """What else than weights makes the function: a state of other options is not loaded."""
        return {
            "layers": self.depth,
            "final_time": self.final_time,
            "scheme": self.scheme,
            "learnable_steps": self.learnable_steps is not None,
            "weights": self.weights if isinstance(self.weights, str) else repr(self.weights),
            "boundary_layers": [len(self.opening), len(self.closing)],
        }

    def get_extra_state(self) -> torch.Tensor:
        """The options, and which dropout masks come next, so that a resumed run has the same."""
        return encode({"options": self.options(), "seed": self.seed, "calls": self.calls})

    def __prepare_scriptable__(self) -> None:
        """What `torch.jit.script` asks for first."""
        refuse_script(self)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Go on with the masks that the saved net would have had."""
        if state.numel() == 2:  # an older version
            self.seed, self.calls = state.tolist()
        else:
            told = decode(state)
            self.seed, self.calls = told.get("seed", 0), told.get("calls", 0)

    def check_state(self, state: Mapping[str, Any], prefix: str = "") -> None:
        """Raise a RuntimeError if a `state_dict` is that of a network with other options.

        One that was saved without options is not checked.
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
        """The output, layer by layer.

        Parameters
        ----------
        x : tensor
        **side
            Side inputs: what every block gets by these names beside its state, such as masks,
            rotary caches or the states of an encoder, or the `layer_inputs`. Tensors, plain values,
            and tuples, lists and dictionaries of them.
        """
        with lending():
            refuse_proxy(self.block, x)
            self.resample_dropout()
        return self.decode(self.propagate(self.encode(x, **side), **side), **side)

    def propagate(self, u: torch.Tensor, **side: Any) -> torch.Tensor:
        """The state u[N] from u[0], layer by layer."""
        for state in self._states(u, side):
            u = state
        return u

    def trajectory(
        self,
        x: torch.Tensor,
        times: Sequence[float] | torch.Tensor | None = None,
        **side: Any,
    ) -> torch.Tensor:
        """The states at the asked times, linear between layers.

        Parameters
        ----------
        x : tensor
        times : sequence of float in [0, T], optional
            Where layer n begins at `n T / N`; all N + 1 layer times by default.
        **side
            As in `forward`.

        Returns
        -------
        tensor of shape (times, batch, ...)
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
        """The states after layer 0, 1, ..., one module call per stage."""
        with lending():  # see `aliases`
            layers = self.layers()
            count = len(layers)
            parameters = per_layer(layers.parameters, count)
            buffers = per_layer(layers.buffers, count)
            # Numbers are cheaper than tensors, where nothing differentiates by them and no host
            # waits for a device.
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
        """Of the weights and steps of all layers, the transfers from fewer and fewer layers.

        Layers, or the intervals of a `DepthSpline`, are halved, or cut into thirds, as long as they
        can be and are more than 4. Weights between coarse layers are interpolated linearly;
        learnable steps are cut in two. `mgnet.training.MultilevelGradient` calls this.

        Parameters
        ----------
        levels : int, optional
            The most levels, the network's own included; then 4 layers or fewer are halved, too.
        """
        self.check_whole()
        self.check_derived("coarser_transfers")
        return coarser_transfers(self, levels)

    def regularization(self, tikhonov: float = 0.0, smoothness: float = 0.0) -> torch.Tensor:
        """A penalty on the weights of the layers, differentiable.

        `h/2 sum_n (tikhonov |theta_n|^2 + smoothness |(theta_n - theta_{n-1}) / h|^2)`, h = T / N:
        integrals over [0, T], so that the first does not change when layers are copied. Source:
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
        """Layer n as an ordinary module, a copy."""
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
        """The same function as ordinary modules: `before`, `ResidualBlock`s, `after`; copies.

        Weights become separate ones; dropout follows PyTorch's own generator.
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
        """The same function from blocks of one architecture, a copy; tied ones become separate.

        Parameters
        ----------
        sequential : torch.nn.Sequential, ModuleList or TransformerEncoder
            Modules that are called one after another, with the state alone: those of an encoder
            without a mask, then its `norm`.
        blocks : (int, int), optional
            Its first residual block and the first module after them. By default all
            `ResidualBlock`s, which come back as they were, or, where there are none, all modules,
            of an encoder its `layers`. Modules that are no `ResidualBlock` may be any x -> y:
            F(u) = module(u) - u, with step 1. They may give a tuple (y, None, ...).
        learnable_steps : bool
            Whether steps become parameters; they stay so in any case.
        shared_buffers, layer_inputs : sequence of str
            As in the constructor, by their names in a module.

        Raises
        ------
        TypeError, ValueError
            If the blocks differ in more than weights and rates of dropout; names the first. If a
            class with a `forward` of its own, or a hook, does more than to call modules in turn.

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
        """Copy the weights and buffers of other layers, in place; all of them or, if refused, none.

        Parameters
        ----------
        layers : torch.nn.ModuleList, Sequential or sequence of modules
            One for each layer, `boundary_layers` included, of the names and shapes of the blocks
            from which this net was made. Precisions are converted, as by `load_state_dict`. Steps,
            `before`, `after`, `requires_grad` and the moments of an optimizer stay.

        Raises
        ------
        TypeError, ValueError
            If the layers are others, or the weights of this net are shared or splines.

        Examples
        --------
        >>> layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(8))
        >>> net = ODENet.from_sequential(layers)
        >>> net.load_layers(layers)
        """
        self.check_derived("load_layers")
        load_layers(self, self.layers(), layers)

    def to_layers(self, into: Any = None) -> Any:
        """Layer by layer the plain blocks, in the order of depth; copies.

        Parameters
        ----------
        into : torch.nn.ModuleList, Sequential or sequence of modules, optional
            Layers to write to in place, by the rules of `load_layers`, instead of new ones, whose
            plain attributes (`layer_idx`) are all those of the first layer.

        Returns
        -------
        torch.nn.ModuleList, or `into`
            u -> block(u) as `from_sequential` got them, but F(u) where a layer is u + F(u).

        Raises
        ------
        TypeError, ValueError
            If a step is not 1, the scheme is not Euler's, or `into` has other layers.

        Examples
        --------
        >>> layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(8))
        >>> ODENet.from_sequential(layers).to_layers(into=layers) is layers
        True
        """
        self.check_derived("to_layers")
        return to_layers(self, self.layers(), into)

    def refine(self, factor: int = 2, how: str | None = None) -> ODENet:
        """A new network with `factor` times as many layers on the same [0, T].

        Parameters
        ----------
        factor : int
            At least 2.
        how : "steps", "constant", "linear" or "knots", optional
            "steps": copies of each layer, the first with its step, the others with step 0; exact.
            "constant": copies, with steps divided. "linear": weights interpolated between the
            layers, constant after the last one. "knots": knots are inserted into weights that are
            splines, with as many layers as before; exact. "steps" by default where they are
            learnable, else "constant". Weights that are shared or splines stay as they are, but for
            "knots".

        Returns
        -------
        ODENet
            `before`, `after`, boundary layers: copies.
        """
        self.check_whole()
        self.check_derived("refine")
        return refine(self, factor, how)

    def coarsen(self, factor: int = 2, how: str | None = None) -> ODENet:
        """A new network with fewer layers; undoes `refine` of the same kind.

        A coarse layer has the sum of their steps and the weights of the first ("constant": the mean
        of all, "knots": the least squares fit).

        Parameters
        ----------
        factor : int
            Divides the layers ("knots": the intervals of the spline).
        how : str, optional
            As in `refine`.
        """
        self.check_whole()
        self.check_derived("coarsen")
        return coarsen(self, factor, how)

    def nesting_defect(self, x: torch.Tensor, factor: int = 2, how: str | None = None) -> float:
        """The largest change of an output by `refine`, over the largest output.

        Rounding or 0 where refinement is exact. In evaluation mode: no dropout, fixed statistics.

        Parameters
        ----------
        x : tensor
            Inputs.
        factor, how : as in `refine`
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
