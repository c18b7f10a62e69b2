"""Many layers of one block in one call: slopes and vector-Jacobian products."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mgnet.depth.batched.autocast import cast_of, same_cast, uncast, without_cast
from mgnet.depth.batched.block_call import keyed_call
from mgnet.depth.batched.draws import KEY, Draws
from mgnet.depth.batched.fixed_buffers import FixedBuffers
from mgnet.depth.batched.graphs import ShapeError
from mgnet.depth.batched.layer_rate import has_rates
from mgnet.depth.batched.layers import Layers
from mgnet.depth.batched.lending import lending
from mgnet.depth.batched.programs import Program
from mgnet.depth.batched.scheme import STAGES, check_scheme, slope, takes_time
from mgnet.depth.batched.streams import side_by_side
from mgnet.depth.batched.surroundings import check_gradients, fingerprint, why_not_traced
from mgnet.depth.batched.tape import AutogradTape, SeparateTapes, Tape, TracedTape
from mgnet.depth.batched.traces import Family, Request, Trace, Traces
from mgnet.depth.batched.tracing import OneLayer, trace_layer
from mgnet.training.loss.tied_tensors import further_names

__all__ = ["StackedBlock"]

UNTRACED = Trace(None)
VARIANTS = 64  # largest number of variants: a numeric side input may change in each call
BIND, EACH = "bind", "each"  # kinds of entries besides the programs themselves


class StackedBlock:
    """Many layers of one block in one batched call.

    Layer n with the parameters theta_n has the slope `F(t_n, u; theta_n)` (Euler), or the
    combination of 2 to 4 evaluations of F that the scheme defines, at times from `t_n` to `t_n +
    s_n` with the same parameters, which are piecewise constant in depth.

    A block is traced once for the shapes that occur (see `traces.py`), and again if its mode, its
    modules or a plain value that it reads has changed. Each new `Layers` object is checked once for
    such changes. A block that uses tensors from outside is not traced (see `surroundings.py`).

    Parameters
    ----------
    template : nn.Module
        A block `F(u)` or `F(t, u)` that returns a tensor of the shape of u; t is a tensor without
        axes. Its own parameters are not used.
    scheme : {"euler", "midpoint", "heun", "heun3", "rk4", "rk4_38"}
        The Runge-Kutta method.
    traced : bool
        If False, every layer is evaluated separately in plain PyTorch; this is slow and meant for
        debugging.
    shared_buffers : sequence of str
        Names of buffers that no layer may change, because all layers share them.

    Attributes
    ----------
    names : tuple of str
        Names of the parameters, in the order of `Layers.parameters`.
    stages : int
        Number of evaluations of F that a slope takes.
    evaluations, vjps : int
        Numbers so far of evaluations of F and of its vector-Jacobian products, each for one layer.
    draws : Draws
        A record of the block's random numbers; the block has a buffer `KEY` if it may draw masks.
    has_state : bool
        Whether there are buffers besides `KEY`; an evaluation may change them.
    own_buffers : int
        Number of buffers that belong to the template; these are the first buffers.

    Examples
    --------
    >>> block = StackedBlock(nn.Linear(2, 2, bias=False))
    >>> layers = Layers((torch.stack([torch.eye(2), 2 * torch.eye(2)]),), (), *torch.ones(2, 2))
    >>> tape = block.record(layers, torch.ones(2, 1, 2))
    >>> tape.value.squeeze(), tape.vjp(torch.ones(2, 1, 2)).squeeze()
    (tensor([[1., 1.],
            [2., 2.]]), tensor([[1., 1.],
            [2., 2.]]))
    >>> block.evaluations, block.vjps
    (2, 2)
    """

    def __init__(
        self,
        template: nn.Module,
        scheme: str = "euler",
        traced: bool = True,
        shared_buffers: Sequence[str] = (),
    ):
        check_scheme(scheme)
        self.template = template
        self.scheme = scheme
        self.traced = traced
        self.takes_time = takes_time(template)
        self.names = tuple(name for name, _ in template.named_parameters())
        self.buffer_names = tuple(name for name, _ in template.named_buffers())
        self.fixed = FixedBuffers(template, self.buffer_names, shared_buffers)
        self._further = further_names(template)
        self.stages = STAGES[scheme]
        self.evaluations = 0
        self.vjps = 0
        self.draws = Draws(seen=has_rates(template))  # the first layer may draw nothing
        self.has_state = self.buffer_names not in ((), (KEY,))
        self.own_buffers = len(self.buffer_names)
        self._start()

    def _start(self) -> None:
        self._traces = Traces()
        self._variants: dict[Any, Any] = {}

    def slope(self, layers: Layers, states: Tensor) -> Tensor:
        """The slopes `(layers, batch, ...)` at `states`, to which ordinary autograd applies."""
        self.evaluations += self.stages * len(layers)
        kind = "differentiable" if torch.is_grad_enabled() else "slope"
        return self.compiled(kind, layers, states)(states)

    def record(self, layers: Layers, states: Tensor) -> Tape:
        """The slopes, with the data for vector-Jacobian products but without an autograd graph."""
        self.evaluations += self.stages * len(layers)
        if not torch.is_grad_enabled():  # entering no_grad costs as much as a small layer
            return self.compiled("record", layers, states)(states)
        with torch.no_grad():
            return self.compiled("record", layers, states)(states)

    def bound_slope(self, layers: Layers, states: Tensor) -> Callable[[Tensor], Tensor]:
        """Return `states -> slope` for these layers and states of this shape, without a graph."""
        run, count = self.compiled("slope", layers, states), self.stages * len(layers)

        def slope(states: Tensor) -> Tensor:
            self.evaluations += count
            return run(states)

        return slope

    def changes_buffers(self, layers: Layers, states: Tensor) -> bool:
        """Whether an evaluation changes buffers; always True for a block that is not traced."""
        if not self.has_state or not len(layers):
            return False
        one = self._traced(layers[:1], states)[0].one
        return one is None or bool(one.changed)

    def check_gradients(self, layers: Layers, states: Tensor) -> None:
        """Raise a ValueError if slopes depend on a tensor from outside that requires a gradient.

        Call this if the layers are evaluated without `record`, which performs the check itself.
        """
        if len(layers) and self._traced(layers, states)[0].one is None:
            with torch.enable_grad():
                check_gradients(self._slope_of_one(layers[:1], states[:1]), [])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_traces": Traces(), "_variants": {}}

    def compiled(
        self, kind: str, layers: Layers, states: Tensor, training: bool | None = None
    ) -> Callable[..., Any]:
        """The program for these layers, in the current mode or a given one; looked up only once."""
        training = self.template.training if training is None else training
        # Equivalent to `_key`, because a call costs as much as a small layer.
        cast = cast_of(states.device.type)
        key = self, states.shape, states.dtype, training, cast
        names = layers._names.get(key)
        if names is not None:
            bound, (many, alone) = layers._bound, names
            run = bound.get((kind, many)) or bound.get((kind, alone))
            if run is not None:
                return run
            bind = bound.get((BIND, kind, many))
            if bind is not None:
                return layers.keep_programs((kind, alone), bind(alone[1]))
        with lending():
            return self._find(kind, layers, states, training)

    def programs(
        self, kind: str, layers: Layers, states: Tensor, training: bool | None = None
    ) -> Sequence[Callable[..., Any]]:
        """The `compiled` program for each of these layers separately; it is looked up once."""
        training = self.template.training if training is None else training
        key = self._key(states, (1, *states.shape[1:]), training)
        names = layers._names.get(key)
        if names is not None:
            runs = layers._bound.get((EACH, kind, names[0])) or layers._bound.get(
                (EACH, kind, names[1])
            )
            if runs is not None:
                return runs
        one = states[:1]
        runs = [self.compiled(kind, layers[i : i + 1], one, training) for i in range(len(layers))]
        names = layers._names.get(key)
        if runs and names is not None:
            of_many = (kind, names[0]) in layers[:1]._bound
            layers.keep_programs((EACH, kind, names[0 if of_many else 1]), runs)
        return runs

    def _key(self, states: Tensor, shape: Sequence[int], training: bool) -> Any:
        """All data, besides those in the fingerprint, that determine which program is used."""
        return self, shape, states.dtype, training, cast_of(states.device.type)

    def named(self, parameters: Sequence[Tensor], buffers: Sequence[Tensor]) -> dict[str, Tensor]:
        """The tensors of a layer by all their names in the block."""
        tensors = dict(zip(self.names, parameters, strict=True))
        tensors |= dict(zip(self.buffer_names, buffers, strict=True))
        return tensors | {name: tensors[first] for name, first in self._further.items()}

    def evaluate(
        self,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        time: Tensor,
        step: Tensor,
        state: Tensor,
        side: Mapping[str, Any] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """The slope of one layer, and its new buffers; the given buffers are edited in place."""
        tensors, keywords = self.named(parameters, buffers), dict(side or {})
        before = self.fixed.before(buffers)

        def run(*given: Any) -> Tensor:
            return functional_call(self.template, tensors, given, keywords, tie_weights=False)

        def block(t: Any, u: Tensor) -> Tensor:
            given = (t, u) if self.takes_time else (u,)
            return keyed_call(self.template, run, given, tensors, self.draws, side=keywords)

        with lending():
            value = slope(self.scheme, block, time, state, step)
        new = [tensors[name] for name in self.buffer_names]
        self.fixed.check(buffers, new, before)
        return value.to(state.dtype), new

    def _find(
        self, kind: str, layers: Layers, states: Tensor, training: bool
    ) -> Callable[..., Any]:
        """The result of `compiled`; stored with the layers."""
        trace, family = self._traced(layers, states, training)
        shape, device = tuple(states.shape[1:]), states.device.type
        names = trace.name, (trace.name, shape)
        layers.keep_names(self._key(states, states.shape, training), names)
        plainly = trace.one is None or (kind == "differentiable" and trace.one.hidden)
        if plainly or (trace.apart and len(layers) > 1):
            run = partial(self._in_turn, kind, layers, plainly, training)
            return layers.keep_programs((kind, names[0]), run)
        request = self._request(layers, states)
        try:
            with torch.inference_mode(False), without_cast(device):
                some = trace.program("forward" if kind == "record" else kind, request)
        except ShapeError:
            family.close(trace)
            return self._find(kind, layers, states, training)
        except Exception as error:
            if trace.apart:
                raise
            trace.run_apart()
            reason = str(error).strip().split("\n")[0]
            warnings.warn(
                "torch.vmap cannot map the block over many layers, so they run one after another: "
                f"{reason}",
                stacklevel=2,
            )
            return self._find(kind, layers, states, training)
        self._traces.shrink()
        if names[0] is not trace.name:  # the program has additional conditions
            return self._find(kind, layers, states, training)
        bind = self._binding(kind, trace, some, layers, device, training)
        if some.numbers is None:
            return layers.keep_programs((kind, names[0]), bind(shape))
        layers.keep_programs((BIND, kind, names[0]), bind)
        return layers.keep_programs((kind, names[1]), bind(shape))

    def _binding(
        self, kind: str, trace: Trace, some: Program, layers: Layers, device: str, training: bool
    ) -> Callable[[tuple[int, ...]], Callable[..., Any]]:
        """Return a function that maps a shape to a program that takes only the states."""
        tensors = layers.tensors()
        prepared = () if kind == "differentiable" else some.prepare(*tensors)

        def bind(shape: tuple[int, ...]) -> Callable[..., Any]:
            numbers = () if some.numbers is None else some.numbers(*trace.sizes(shape))
            if kind == "differentiable":
                return uncast(lambda x: some.run(*numbers, *some.prepare(*tensors), x), device)
            run = uncast(partial(some.run, *numbers, *prepared), device)
            if kind != "record":
                return run
            return partial(self._record, run, trace.one, layers, training)  # type: ignore[arg-type]

        return bind

    def _cast_as_now(self, device: str) -> Callable[..., Any]:
        """A function that calls `evaluate` with the current autocast, wherever it is traced."""
        again = same_cast(device)

        def slope(*inputs: Any) -> Any:
            with again():
                return self.evaluate(*inputs)

        return slope

    def _request(self, layers: Layers, states: Tensor) -> Request:
        slope = self._cast_as_now(states.device.type)
        return Request(slope, layers.tensors(), states, len(self.names), self.stages)

    def _traced(
        self, layers: Layers, states: Tensor, training: bool | None = None
    ) -> tuple[Trace, Family]:
        """The trace for tensors like these, and the family of traces to which it belongs."""
        device, cast = states.device.type, cast_of(states.device.type)
        shapes = tuple([(x.shape[1:], x.dtype) for x in layers.tensors()])
        kind = states.dim(), states.dtype, states.device, cast
        if not self.traced or not len(layers):
            return UNTRACED, Family()
        request = self._request(layers, states)
        with lending(), torch.inference_mode(False), without_cast(device):
            family = self._traces.family((self.fingerprint(layers, training), shapes, kind))
            trace = family.find(request, partial(self._trace, request))
        self.fixed.check_numbers(() if trace.one is None else trace.one.changed)
        return trace, family

    def _trace(self, request: Request, warns: bool, keeps: bool) -> OneLayer | None:
        """The trace of one layer for this shape; None, with a warning, if tracing fails."""
        inputs, count = [x[0] for x in request.inputs(keeps)], len(self.names)
        try:
            return trace_layer(request.slope, inputs, count, self.stages)
        except ValueError:
            raise
        except Exception as error:
            reason = why_not_traced(error, self.template)
        inputs = [x[0] for x in request.inputs()]
        buffers = [x.clone() for x in inputs[count:-3]]
        request.slope(inputs[:count], buffers, *inputs[-3:])  # raises the block's own errors
        if warns:
            warnings.warn(
                f"the block cannot be traced, so its layers run one after another: {reason}",
                stacklevel=2,
            )
        return None

    def _in_turn(
        self, kind: str, layers: Layers, plainly: bool, training: bool, *inputs: Tensor
    ) -> Any:
        """Evaluate layers one after another, traced or in plain PyTorch."""
        states, rows = inputs[-1], [slice(i, i + 1) for i in range(len(layers))]
        ones, given = [layers[row] for row in rows], [[x[row] for x in inputs] for row in rows]
        results: list[Any]
        if plainly:  # user code does not run on side streams
            alone: Any = AutogradTape.record if kind == "record" else StackedBlock._slope_of_one
            results = [alone(self, one, *x) for one, x in zip(ones, given, strict=True)]
        else:
            runs = [self.compiled(kind, one, states[:1], training) for one in ones]
            results = side_by_side([partial(run, *x) for run, x in zip(runs, given)], states)  # noqa: B905
        if kind == "record":
            return SeparateTapes(results, layers, states)
        if kind == "vjp_all":
            return [*map(torch.cat, zip(*results, strict=True))]
        return torch.cat([states[:0], *results])

    def _slope_of_one(self, layer: Layers, states: Tensor) -> Tensor:
        *tensors, time, step = [x[0] for x in layer.tensors()]
        count = len(self.names)
        buffers = [x.clone() for x in tensors[count:]]
        return self.evaluate(tensors[:count], buffers, time, step, states[0])[0][None]

    def _record(
        self,
        run: Callable[..., Any],
        one: OneLayer,
        layers: Layers,
        training: bool,
        states: Tensor,
    ) -> TracedTape:
        value, *saved = run(states)
        linear = not one.hidden
        if not one.changed:
            return TracedTape(self, layers, value, layers.buffers, saved, training, linear)
        buffers = list(layers.buffers)
        for k in one.changed:
            buffers[k] = saved.pop(0)
        return TracedTape(self, layers, value, tuple(buffers), saved, training, linear)

    def fingerprint(self, layers: Layers | None = None, training: bool | None = None) -> Any:
        """All data that affect what the block's code does: now, or when the layers were new."""
        if layers is None:
            return self.traced, fingerprint(self.template)
        key = self, self.template.training if training is None else training
        if key not in layers._fingerprint:
            layers._fingerprint[key] = self.fingerprint()
        return layers._fingerprint[key]

    def variant(self, key: Any, make: Callable[[], Any]) -> Any:
        """A block derived from this one, such as one with side inputs; created once per key."""
        with lending():
            if key not in self._variants and len(self._variants) >= VARIANTS:
                self._variants.clear()
            return self._variants.get(key) or self._variants.setdefault(key, make())
