"""Many layers of one block in one call: slopes and vector-Jacobian products."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mgnet.depth.batched.autocast import cast_of, same_cast, without_cast
from mgnet.depth.batched.layers import Layers
from mgnet.depth.batched.lending import lending
from mgnet.depth.batched.scheme import STAGES, check_scheme, slope, takes_time
from mgnet.depth.batched.surroundings import OutsideTensorError, check_gradients, fingerprint
from mgnet.depth.batched.tape import AutogradTape, SeparateTapes, Tape, TracedTape
from mgnet.depth.batched.tracing import (
    NoRandomNumbers,
    OneLayer,
    Program,
    batch,
    trace_for_autograd,
    trace_layer,
)
from mgnet.training.loss.tied_tensors import further_names

__all__ = ["StackedBlock"]

PROGRAMS = 256  # for a block


class StackedBlock:
    """Many layers of one block in one batched call.

    Layer n with the parameters theta_n has the slope `F(t_n, u; theta_n)` (Euler), or the usual
    combination of 2 (Heun) or 4 (RK4) evaluations of F, at `t_n`, `t_n + s_n / 2`, `t_n + s_n`
    with the same parameters: they are piecewise constant in depth.

    A block is traced once for each shape it meets (see `tracing.py`), and again after its mode,
    its modules or a plain value that it reads has changed, which is looked at once for each new
    `Layers`. A block that uses tensors from outside is not traced (see `surroundings.py`).

    Parameters
    ----------
    template : nn.Module
        A block `F(u)` or `F(t, u)` that gives a tensor of the shape of u; t is a tensor of no axes.
        Its own parameters are not used.
    scheme : {"euler", "heun", "rk4"}
        The one-step method.
    traced : bool
        With False every layer is evaluated by itself in ordinary PyTorch: slow; for debugging.

    Attributes
    ----------
    names : tuple of str
        The parameters, in the order of `Layers.parameters`.
    stages : int
        Evaluations of F for one slope.
    evaluations, vjps : int
        Evaluations of F for one layer so far, and vector-Jacobian products of F.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from mgnet.depth import Layers, StackedBlock
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

    def __init__(self, template: nn.Module, scheme: str = "euler", traced: bool = True):
        check_scheme(scheme)
        self.template = template
        self.scheme = scheme
        self.traced = traced
        self.takes_time = takes_time(template)
        self.names = tuple(name for name, _ in template.named_parameters())
        self.buffer_names = tuple(name for name, _ in template.named_buffers())
        self._further = further_names(template)
        self.stages = STAGES[scheme]
        self.evaluations = 0
        self.vjps = 0
        self._found: OrderedDict[Any, Any] = OrderedDict()

    def slope(self, layers: Layers, states: Tensor) -> Tensor:
        """The slopes `(layers, batch, ...)` at `states`; ordinary autograd works through them."""
        self.evaluations += self.stages * len(layers)
        kind = "differentiable" if torch.is_grad_enabled() else "slope"
        return self.compiled(kind, layers, states)(states)

    def record(self, layers: Layers, states: Tensor) -> Tape:
        """The slopes with what vector-Jacobian products need of them; no autograd graph."""
        self.evaluations += self.stages * len(layers)
        if not torch.is_grad_enabled():  # entering no_grad costs as much as a small layer
            return self.compiled("record", layers, states)(states)
        with torch.no_grad():
            return self.compiled("record", layers, states)(states)

    def bound_slope(self, layers: Layers, states: Tensor) -> Callable[[Tensor], Tensor]:
        """`states -> slope` for these layers and states of this shape; without a graph."""
        run, count = self.compiled("slope", layers, states), self.stages * len(layers)

        def slope(states: Tensor) -> Tensor:
            self.evaluations += count
            return run(states)

        return slope

    def changes_buffers(self, layers: Layers, states: Tensor) -> bool:
        """Whether an evaluation changes buffers; not known of a block that is not traced."""
        if not layers.buffers or not len(layers):
            return False
        one = self._traced(layers[:1], states)[1]
        return one is None or bool(one.changed)

    def check_gradients(self, layers: Layers, states: Tensor) -> None:
        """Raise a ValueError if slopes depend on a tensor from outside that requires a gradient.

        For evaluations without a record, which looks itself.
        """
        if len(layers) and self._traced(layers, states)[1] is None:
            with torch.enable_grad():
                check_gradients(self._slope_of_one(layers[:1], states[:1]), [])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_found": OrderedDict()}

    def compiled(self, kind: str, layers: Layers, states: Tensor) -> Callable[..., Any]:
        """What evaluates these layers on tensors like `states`; found once."""
        cast = cast_of(states.device.type)
        key = self, kind, states.shape, states.dtype, self.template.training, cast
        run = layers._bound.get(key)
        return run or layers.keep_programs(key, self._find(kind, layers, states))

    def programs(self, kind: str, layers: Layers, states: Tensor) -> Sequence[Callable[..., Any]]:
        """`program` for each of these layers alone, on tensors like `states[:1]`; found once."""
        cast = cast_of(states.device.type)
        key = self, f"{kind}s", states.shape[1:], states.dtype, self.template.training, cast
        runs = layers._bound.get(key)
        if runs is None:
            one = states[:1]
            runs = [self.compiled(kind, layers[i : i + 1], one) for i in range(len(layers))]
            layers.keep_programs(key, runs)
        return runs

    def evaluate(
        self,
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        time: Tensor,
        step: Tensor,
        state: Tensor,
    ) -> tuple[Tensor, list[Tensor]]:
        """The slope of one layer, and its new buffers; edits the buffers."""
        tensors = dict(zip(self.names, parameters, strict=True))
        tensors |= dict(zip(self.buffer_names, buffers, strict=True))
        tensors |= {name: tensors[first] for name, first in self._further.items()}

        def block(t: Any, u: Tensor) -> Tensor:
            given = (t, u) if self.takes_time else (u,)
            # As `call_with` does, with names that are found once.
            return functional_call(self.template, tensors, given, tie_weights=False)

        with lending(), NoRandomNumbers():
            value = slope(self.scheme, block, time, state, step)
        return value.to(state.dtype), [tensors[name] for name in self.buffer_names]

    def _find(self, kind: str, layers: Layers, states: Tensor) -> Callable[..., Any]:
        tensors, device = layers.tensors(), states.device.type
        about, one = self._traced(layers, states)
        if one is None or (kind == "differentiable" and one.hidden):
            return partial(self._in_turn, kind, layers, True)
        slope, apart = self._cast_as_now(device), one.convolves or (about, "apart") in self._found
        if apart and len(layers) > 1:
            return partial(self._in_turn, kind, layers, False)

        def program(kind: str) -> Program:
            def made() -> Program:
                return self._batch(kind, one, program, layers, states, slope, apart)

            with torch.inference_mode(False), without_cast(device):
                return self._remembered((about, kind, len(layers), apart), made)

        try:
            some = program("forward" if kind == "record" else kind)
        except Exception as error:
            if apart:
                raise
            self._remembered((about, "apart"), lambda: True)
            reason = str(error).strip().split("\n")[0]
            warnings.warn(
                "torch.vmap cannot map the block over many layers, so they run one after another: "
                f"{reason}",
                stacklevel=2,
            )
            return self._find(kind, layers, states)
        if kind == "differentiable":
            return _uncast(lambda x: some.run(*some.prepare(*tensors), x), device)
        run = _uncast(partial(some.run, *some.prepare(*tensors)), device)
        return partial(self._record, run, one.changed, layers) if kind == "record" else run

    def _cast_as_now(self, device: str) -> Callable[..., Any]:
        """`evaluate` under the autocast of now, wherever it is traced."""
        again = same_cast(device)

        def slope(*inputs: Any) -> Any:
            with again():
                return self.evaluate(*inputs)

        return slope

    def _traced(self, layers: Layers, states: Tensor) -> tuple[Any, OneLayer | None]:
        """What a trace for such tensors depends on, and the trace, None if layers run in turn."""
        shapes = *[(x.shape[1:], x.dtype) for x in (*layers.tensors(), states)], states.device
        about = self._fingerprint(layers), shapes, cast_of(states.device.type)
        if not self.traced or not len(layers):
            return about, None
        with torch.inference_mode(False):
            return about, self._remembered(about, lambda: self._trace(layers, states))

    def _trace(self, layers: Layers, states: Tensor) -> OneLayer | None:
        inputs = [_traceable(x[0]) for x in (*layers.tensors(), states)]
        try:
            slope = self._cast_as_now(states.device.type)
            with without_cast(states.device.type):
                return trace_layer(slope, inputs, len(self.names), self.stages)
        except ValueError:
            raise
        except OutsideTensorError as error:
            reason = error.told(self.template)
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
        self._slope_of_one(layers[:1], states[:1])  # raises the block's own errors
        warnings.warn(
            f"the block cannot be traced, so its layers run one after another: {reason}",
            stacklevel=2,
        )
        return None

    def _batch(
        self,
        kind: str,
        one: OneLayer,
        program: Callable[[str], Program],
        layers: Layers,
        states: Tensor,
        slope: Callable[..., Any],
        apart: bool,
    ) -> Program:
        inputs = [_traceable(x) for x in (*layers.tensors(), states)]
        count = len(inputs) - 1
        if kind == "differentiable":
            graph = trace_for_autograd(slope, [x[0] for x in inputs], len(self.names))
            return batch(graph, inputs, count, apart, None)
        if kind.startswith("vjp"):
            saved = program("forward").results[1 + len(one.changed) :]
            inputs[-1:-1] = [
                torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
                for x in saved
            ]
        return batch(getattr(one, kind), inputs, count, apart)

    def _in_turn(self, kind: str, layers: Layers, plainly: bool, *inputs: Tensor) -> Any:
        """Evaluate layers one after another, traced or as PyTorch does."""
        results, states = [], inputs[-1]
        for i in range(len(layers)):
            one, given = layers[i : i + 1], [x[i : i + 1] for x in inputs]
            if not plainly:
                results.append(self.compiled(kind, one, given[-1])(*given))
            elif kind == "record":
                results.append(AutogradTape.record(self, one, *given))
            else:
                results.append(self._slope_of_one(one, *given))
        if kind == "record":
            return SeparateTapes(results, layers, states)
        if kind == "vjp_all":
            return [torch.cat(parts) for parts in zip(*results, strict=True)]
        return torch.cat([states[:0], *results])

    def _slope_of_one(self, layer: Layers, states: Tensor) -> Tensor:
        *tensors, time, step = [x[0] for x in layer.tensors()]
        count = len(self.names)
        buffers = [x.clone() for x in tensors[count:]]
        return self.evaluate(tensors[:count], buffers, time, step, states[0])[0][None]

    def _record(
        self, run: Callable[..., Any], changed: tuple[int, ...], layers: Layers, states: Tensor
    ) -> TracedTape:
        value, *saved = run(states)
        if not changed:
            return TracedTape(self, layers, value, layers.buffers, saved)
        buffers = list(layers.buffers)
        for k in changed:
            buffers[k] = saved.pop(0)
        return TracedTape(self, layers, value, tuple(buffers), saved)

    def _fingerprint(self, layers: Layers) -> Any:
        """All that may change what the block's code does."""
        key = self, self.template.training
        if key not in layers._fingerprint:
            layers._fingerprint[key] = self.fingerprint()
        return layers._fingerprint[key]

    def fingerprint(self) -> Any:
        """All that may change what the block's code does, now."""
        return self.traced, fingerprint(self.template)

    def _remembered(self, key: Any, make: Callable[[], Any]) -> Any:
        with lending():
            if key not in self._found:
                self._found[key] = make()
                if len(self._found) > PROGRAMS:
                    self._found.popitem(last=False)
            self._found.move_to_end(key)
            return self._found[key]


def _uncast(run: Callable[..., Any], device: str) -> Callable[..., Any]:
    """A traced program, which has the conversions of autocast in it."""
    if cast_of(device) is None:
        return run

    def uncast(*inputs: Tensor) -> Any:
        with without_cast(device):
            return run(*inputs)

    return uncast


def _traceable(tensor: Tensor) -> Tensor:
    """Outside of any graph; a copy of one that was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()
