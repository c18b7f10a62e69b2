"""The traces of a block: one for many shapes if possible, else one for each recent shape.

The first shapes have separate traces. Afterwards a trace has symbolic sizes on the axes that were
observed to differ, and serves all shapes for which its conditions hold. Before a program of such a
trace is used, it is specialized to a shape that has a separate trace, and must agree with that
trace's program operation by operation, so no result depends on which of the two is used. A block
that queries a size as a plain number (`len(x)`, `range(x.shape[1])`) has a trace for each such
size.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from mgnet.depth.batched.graphs import ShapeError
from mgnet.depth.batched.programs import Program, batch
from mgnet.depth.batched.stand_ins import StandIns, quiet, spare_mode
from mgnet.depth.batched.tracing import OneLayer, Slope, trace_for_autograd, trace_layer

__all__ = ["Family", "Request", "Trace", "Traces"]

ALONE = 2  # number of shapes with separate traces before there is a trace for many
OPEN = 8  # traces with symbolic sizes in a family, if the block branches
FAMILIES = 32  # largest number for a block
OPERATIONS = 100_000  # largest number in all programs of a block for single shapes
WITNESSES = 2  # number of shapes with which programs are compared, if available
LEAST = 50  # cost of a trace besides the operations of its programs
DROPPED = 256  # number of useless traces after which further shapes are not traced

Make = Callable[[bool, bool], OneLayer | None]


@dataclass(frozen=True, eq=False)
class Request:
    """Layers and states for which a program is needed.

    Parameters
    ----------
    slope : callable
        The function `slope` of `trace_layer`.
    tensors : sequence of Tensor
        Tensors of the layers, stacked: parameters, buffers, times and steps.
    states : Tensor
        The states, stacked in the same way.
    parameters : int
        Number of tensors that are parameters.
    stages : int
        Number of stages of the Runge-Kutta method.
    """

    slope: Slope
    tensors: Sequence[Tensor]
    states: Tensor
    parameters: int
    stages: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one state."""
        return tuple(self.states.shape[1:])

    def of_shape(self, shape: Sequence[int]) -> Request:
        """A copy of the request, for states of a different shape."""
        return replace(self, states=self.states.new_empty((len(self.states), *shape)))

    def inputs(self, keeps: bool = True) -> list[Tensor]:
        """Inputs for the trace of many layers; `keeps` is passed to `spare_mode`.

        States are contiguous here, regardless of their memory layout in the current call, because
        the gradient of a sum has strides of 0, for which PyTorch's rules for layer norm insert a
        copy.
        """
        found = [_traceable(x) for x in (*self.tensors, self.states.contiguous())]
        if keeps:
            return found
        mode = spare_mode(keeps=False)
        return [mode.from_tensor(x, static_shapes=True) for x in found]


class Trace:
    """The trace of a layer, for one shape or with symbolic sizes, and its programs for many layers.

    Parameters
    ----------
    one : OneLayer or None
        The graphs; None means that layers of this shape are evaluated as written.
    given : StandIns, optional
        The inputs of a trace with symbolic sizes.
    witnesses : sequence of (Trace, shape)
        Traces for single shapes that satisfy the conditions. Programs of this trace are compared
        with the programs of its witnesses.
    compares : bool
        Whether programs for one shape store the data that are needed for such comparisons.

    Attributes
    ----------
    name : object
        An object that identifies the trace and is replaced when conditions are added.
    apart : bool
        Whether layers run one after another.
    operations : int
        Number of operations in all programs.
    """

    def __init__(
        self,
        one: OneLayer | None,
        given: StandIns | None = None,
        witnesses: Sequence[tuple[Trace, tuple[int, ...]]] = (),
        compares: bool = False,
    ):
        self.one = one
        self.given = given
        self.witnesses = witnesses
        self.compares = compares
        self.name = object()
        self.apart = one is not None and one.convolves
        if any(trace.apart for trace, _ in witnesses):
            self.apart = True
        self.operations = 0
        self._programs: dict[tuple[str, int, bool], Program] = {}

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The symbolic sizes of a state."""
        return () if self.given is None else self.given.sizes(shape)

    def run_apart(self) -> None:
        """Run layers one after another from now on."""
        self.apart = True
        for trace, _ in self.witnesses:
            trace.apart = True

    def program(self, kind: str, request: Request) -> Program:
        """The program of the given kind for as many layers as there are states.

        Parameters
        ----------
        kind : str
            Kind of program: "slope", "forward", "vjp", "vjp_all" or "differentiable".
        request : Request
            Layers and states.

        Raises
        ------
        ShapeError
            If no valid program with symbolic sizes can be made.
        """
        key = kind, len(request.states), self.apart
        found = self._programs.get(key)
        if found is None:
            if self.given is None:
                found = self._made(kind, request, request.inputs(self.compares), ())
            else:
                found = self._compared(kind, request, self.given)
            if found.whole is not None:
                self.operations += len(found.whole.graph.nodes)
            found = self._programs[key] = found if self.compares else replace(found, whole=None)
        return found

    def _compared(self, kind: str, request: Request, given: StandIns) -> Program:
        asked = len(given.env.guards)
        try:
            with quiet():
                made = self._made(kind, request, given.many(len(request.states)), given.axes)
            given.check()
        except Exception as error:
            raise ShapeError(str(error)) from error
        if len(given.env.guards) > asked:
            self.name = object()
        for trace, shape in self.witnesses:
            if not given.hold(shape):
                raise ShapeError("a program has other conditions than the trace")
            alone = trace.program(kind, request.of_shape(shape))
            if alone.text() != made.text(given.sizes(shape)):
                raise ShapeError("a program with symbolic sizes differs from that of a shape")
        return made

    def _made(
        self, kind: str, request: Request, inputs: list[Tensor], axes: Sequence[int]
    ) -> Program:
        count = len(inputs) - 1
        if kind == "differentiable":
            first = [x[0] for x in inputs]
            graph = trace_for_autograd(request.slope, first, request.parameters, axes)
            return batch(graph, inputs, count, self.apart, None, axes)
        if kind.startswith("vjp") and self.one is not None:
            forward = self.program("forward", request)
            with nullcontext() if self.given is None else self.given.mode:
                saved = [make() for make in forward.results[1 + len(self.one.changed) :]]
            inputs[-1:-1] = saved
        return batch(getattr(self.one, kind), inputs, count, self.apart, axes=axes)


class Family:
    """All traces for states of the same type and number of axes."""

    def __init__(self) -> None:
        self.alone: OrderedDict[tuple[int, ...], Trace] = OrderedDict()  # last used is last
        self.open: list[Trace] = []
        self.dropped = 0
        self._closed = False
        self._first: tuple[int, ...] | None = None
        self._differ: set[int] = set()
        self._plain = Trace(None)
        self._warned = False

    def find(self, request: Request, make: Make) -> Trace:
        """The trace for a shape; created if there is none.

        Parameters
        ----------
        request : Request
            Layers and states.
        make : callable
            A function `(warns, keeps) -> OneLayer` for this shape, or None if it cannot be traced.
        """
        shape = request.shape
        found = self.alone.get(shape)
        if found is not None:
            self.alone.move_to_end(shape)
            return found
        for trace in self.open:
            if trace.given is not None and trace.given.hold(shape):
                return trace
        if self._first is None:
            self._first = shape
        pairs = enumerate(zip(shape, self._first, strict=True))
        differ = self._differ.union(axis for axis, (here, first) in pairs if here != first)
        axes = [axis for axis in sorted(differ) if shape[axis] > 1]
        many = axes and not self._closed and len(self.alone) >= ALONE and len(self.open) < OPEN
        found = self._opened(request, make, axes) if many else self._alone(request, make)
        self._differ = differ
        return found

    def close(self, trace: Trace) -> None:
        """Abandon a trace with symbolic sizes: from now on, each new shape has its own trace."""
        self._closed = True
        if trace in self.open:
            self.open.remove(trace)

    def drop(self) -> bool:
        """Drop the least recently used trace for a single shape, if there are others."""
        if len(self.alone) < 2:
            return False
        self.alone.popitem(last=False)
        self.dropped += 1
        return True

    def operations(self) -> int:
        """Number of operations in all programs for single shapes."""
        return sum([LEAST + trace.operations for trace in self.alone.values()])

    def _alone(self, request: Request, make: Make) -> Trace:
        if self.dropped >= DROPPED:
            self._warn(request)
            return self._plain
        one = make(not self.alone, not self._closed)
        trace = self.alone[request.shape] = Trace(one, compares=not self._closed)
        return trace

    def _warn(self, request: Request) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                "the block has a trace of its own for each shape of a state, and there are too "
                f"many: layers of shapes like {request.shape} run one after another; pad the "
                "states to fewer shapes",
                stacklevel=2,
            )

    def _opened(self, request: Request, make: Make, axes: Sequence[int]) -> Trace:
        try:
            trace = self._with_open_sizes(request, make, axes)
        except Exception:  # sizes that PyTorch's symbolic shapes do not support
            trace = self._alone(request, make)  # raises the block's own errors
            self._closed = True
            return trace
        self.open.insert(0, trace)  # later traces have more symbolic sizes
        return trace

    def _with_open_sizes(self, request: Request, make: Make, axes: Sequence[int]) -> Trace:
        *tensors, state = [x[0] for x in request.inputs()]
        with quiet():
            given = StandIns(tensors, state, axes)
            inputs = [*given.tensors, given.state]
            one = trace_layer(request.slope, inputs, request.parameters, request.stages, axes)
        given.check()
        if not given.is_open():
            raise ShapeError("all sizes were asked for")
        witnesses = [
            (trace, shape)
            for shape, trace in reversed(self.alone.items())
            if trace.compares and given.hold(shape)
        ][:WITNESSES]
        if not witnesses:
            witnesses = [(self._alone(request, make), request.shape)]
        for trace, _ in witnesses:
            if trace.one is None or trace.one.about() != one.about():
                raise ShapeError("a trace with symbolic sizes differs from that of a shape")
        return Trace(one, given, witnesses)


class Traces:
    """The most recently used families of a block.

    Examples
    --------
    >>> traces = Traces()
    >>> traces.family("a") is traces.family("a"), len(traces)  # there is no trace in it yet
    (True, 0)
    """

    def __init__(self) -> None:
        self._families: OrderedDict[Any, Family] = OrderedDict()

    def __len__(self) -> int:
        return sum([len(f.alone) + len(f.open) for f in self._families.values()])

    def family(self, about: Any) -> Family:
        """The family of traces for one kind of input."""
        found = self._families.get(about)
        if found is None:
            found = self._families[about] = Family()
            if len(self._families) > FAMILIES:
                self._families.popitem(last=False)
        self._families.move_to_end(about)
        return found

    def shrink(self) -> None:
        """Drop traces for single shapes until their operations number at most `OPERATIONS`."""
        families = [*self._families.values()]
        left = sum([family.operations() for family in families]) - OPERATIONS
        for family in families:
            while left > 0:
                before = family.operations()
                if not family.drop():
                    break
                left -= before - family.operations()


def _traceable(tensor: Tensor) -> Tensor:
    """The tensor without its graph; a copy if it was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()
