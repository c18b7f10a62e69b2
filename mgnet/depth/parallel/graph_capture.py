"""`capture_graph`: the passes of a `LayerParallel` module as CUDA graphs, each launched as a whole.

In a deep network of small layers, launching the kernels takes longer than running them. A graph
contains all kernel launches of a forward or a backward pass, by cycles or layer by layer, and
replays them without Python. The capture itself is PyTorch's `make_graphed_callables`; this file
does what that function leaves to its callers. Weights are inputs of the graphs, so later replays do
not overwrite stored gradients. Outputs are new tensors, and a backward pass whose states have been
overwritten is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mgnet.depth.batched.autocast import cast_of
from mgnet.depth.batched.devices import capturing
from mgnet.depth.batched.draws import KEY
from mgnet.depth.batched.lending import lending
from mgnet.depth.network.dropout import KeyedDropout
from mgnet.depth.parallel.control import SERIAL, PassReport
from mgnet.depth.parallel.evaluation import unchanged
from mgnet.depth.parallel.graph_refusals import (
    AGAIN,
    check_capture,
    check_like,
    hooked,
    is_serial,
    refuse_code,
)
from mgnet.depth.parallel.history import History
from mgnet.depth.parallel.layer_parallel import LayerParallel
from mgnet.depth.parallel.method import SERIAL_METHOD
from mgnet.depth.parallel.serial import march
from mgnet.depth.parallel.shared_weights import spreading
from mgnet.depth.parallel.transforms import not_compiled, transform_of

__all__ = ["GraphedLayers", "capture_graph"]

KEPT = "_setups", "calls", "control", "_warned", "last_forward", "last_backward"


def capture_graph(parallel: LayerParallel, x: Tensor, **side: Tensor) -> GraphedLayers:
    """Capture the forward and backward passes of a module as two CUDA graphs, for inputs like x.

    The result is called like the module and gives the same numbers, without Python between two
    kernels. Gradients reach x, the side inputs and the module's parameters, and each replay uses
    the current values of the parameters, which an optimizer changes in place. Each replay draws new
    dropout masks and updates running statistics. If a state is not finite, a replay gives NaN,
    where the module itself would raise FloatingPointError.

    Parameters
    ----------
    parallel : LayerParallel
        The module, on a GPU, with `mode="serial"`, or with cycles and `FixedCycles`, because other
        controls read norms after each cycle.
    x : Tensor
        An example of the input. Its values do not matter; the input of every call must have its
        shape, precision and device, and may require a gradient only if x does.
    **side : Tensor
        Side inputs, by name, as in `ODENet.forward`.

    Returns
    -------
    GraphedLayers

    Raises
    ------
    TypeError, ValueError
        If something cannot be captured in a CUDA graph. The message gives the reason.

    Notes
    -----
    This was tested with a recorder in place of CUDA graphs; it has not been run on a GPU yet.
    Source: `torch.cuda.make_graphed_callables`.

    Examples
    --------
    >>> from mgnet.depth import ODENet
    >>> parallel = LayerParallel(ODENet(nn.Linear(2, 2), 8))
    >>> capture_graph(parallel, torch.ones(3, 2))
    Traceback (most recent call last):
    ValueError: capture_graph got an input on cpu; CUDA graphs need tensors on a GPU: move \
the module and its inputs there, as by .to("cuda")
    """
    check_capture(parallel, x, side)
    return GraphedLayers(parallel, x, side)


class GraphedLayers:
    """The result of `capture_graph`: a function of x and side inputs that replays two CUDA graphs.

    Each call replays the forward graph, and each backward pass the backward one. Both use the same
    memory, so only the latest call can be differentiated; a backward pass of an earlier call raises
    a RuntimeError. Gradients cannot be differentiated again.

    Parameters
    ----------
    parallel, x, side
        As in `capture_graph`, which checks them.

    Attributes
    ----------
    last_forward, last_backward : PassReport
        Reports on the cycles of the last replays. Reading them makes the host wait for the device.

    Raises
    ------
    RuntimeError, ValueError
        In a call with tensors of a different shape, precision or device, or after a change that the
        graphs do not reflect: of a mode, a hook, a setting, or the choice of trained weights.

    Examples
    --------
    >>> if torch.cuda.is_available():
    ...     from mgnet.depth import ODENet
    ...     x = torch.ones(3, 2, device="cuda")
    ...     parallel = LayerParallel(ODENet(nn.Linear(2, 2), 8).cuda())
    ...     graphed = capture_graph(parallel, x)
    ...     assert torch.allclose(graphed(x), parallel(x))
    """

    def __init__(self, parallel: LayerParallel, x: Tensor, side: Mapping[str, Tensor]):
        self.parallel = parallel
        self._body = _Body(parallel)
        self._names = [name for name, _ in self._body.named_parameters()]
        self._sides = sorted(side)
        self._keys = [(part, name, getattr(part, name)) for part, name in _keys(parallel.net.block)]
        self._number = 0  # of the last replay
        self._lock = threading.Lock()
        given = [x, *[side[name] for name in self._sides], *self._body.parameters()]
        count = 1 + len(side)
        # Inputs are copied to memory of the graphs; weights are read where they are.
        self._static = [
            (x.detach().clone() if n < count else x.detach()).requires_grad_(x.requires_grad)
            for n, x in enumerate(given)
        ]
        self._state = self._now()
        # Not in `lending`: PyTorch runs backward passes of GPU tensors on a thread of its own,
        # which lends and traces while this thread waits for it.
        with _on(x.device), _apart(parallel), capturing():
            with lending():
                refuse_code(parallel, x, side)
            make: Any = torch.cuda.make_graphed_callables
            self._replay = make(self._run, tuple(self._static), allow_unused_input=True)
            # The graphs write to tensors of the setup, and the reports are in the graphs' memory.
            self._held = parallel._setups
            self._reports = {"forward": parallel.last_forward, "backward": parallel.last_backward}

    def __call__(self, x: Tensor, **side: Tensor) -> Tensor:
        """The output for x; side inputs must have the same names as those of the capture."""
        return not_compiled(partial(self._called, side), x)

    def _called(self, side: Mapping[str, Tensor], x: Tensor) -> Tensor:
        if sorted(side) != self._sides:
            raise ValueError(
                f"GraphedLayers got the side inputs {sorted(side)}, but was captured with "
                f"{self._sides}; give the same ones, or {AGAIN}"
            )
        given = [x, *[side[name] for name in self._sides], *self._body.parameters()]
        self._check_call(given, side)
        with self._lock:
            self._renew_masks()
            self._number += 1
            out = self._replay(*_Entry.apply(*given))
            return _Exit.apply(self, out, *given)

    @property
    def last_forward(self) -> PassReport:
        """The report on the cycles of the last forward replay."""
        return _read(self._reports["forward"])

    @property
    def last_backward(self) -> PassReport:
        """The report on the cycles of the last backward replay."""
        return _read(self._reports["backward"])

    def _run(self, *tensors: Tensor) -> Tensor:
        """The captured function: the module as a function of its inputs and weights."""
        count = 1 + len(self._sides)
        side = dict(zip(self._sides, tensors[1:count], strict=True))
        weights = dict(zip(self._names, tensors[count:], strict=True))
        with lending():
            return functional_call(self._body, weights, (tensors[0], side))

    def _renew_masks(self) -> None:
        """Draw dropout masks like a call of the module, and put them where the graph reads them."""
        with lending():
            self.parallel.net.resample_dropout()
        for part, name, static in self._keys:
            now = getattr(part, name)
            if now is not static:
                static.copy_(now)

    def _now(self) -> dict[str, Any]:
        """All state that must not change after the capture, by the names used in messages."""
        parallel, net = self.parallel, self.parallel.net
        keys = {id(static) for _, _, static in self._keys}
        own = {id(getattr(part, name)) for part, name, _ in self._keys} | keys
        return {
            "the mode of a part, by train() or eval()": [m.training for m in parallel.modules()],
            "the settings or the control of the module": (
                dict(parallel.settings),
                parallel.control,
            ),
            "a value that the block reads": (net.kernel.fingerprint(), net.final_time),
            "the place or the kind of a buffer": [
                (b.data_ptr(), b.shape, b.dtype) for b in parallel.buffers() if id(b) not in own
            ],
            "the names of weights": [name for name, _ in self._body.named_parameters()],
            "the hooks of a part": hooked(parallel),
        }

    def _check_call(self, given: Sequence[Tensor], side: Mapping[str, Tensor]) -> None:
        now = self._now()
        for what, before in self._state.items():
            if now[what] != before:
                raise RuntimeError(
                    f"GraphedLayers was captured before {what} changed, and would not follow; "
                    f"{AGAIN}"
                )
        transform = transform_of(self.parallel.net, given[0], side)
        if transform or cast_of(given[0].device.type) is not None:
            raise RuntimeError(
                f"GraphedLayers was called under {transform or 'autocast'}, and a graph has no "
                "other operations than it was captured with; call the module itself there"
            )
        names = ["x", *self._sides, *[name.partition(".")[2] for name in self._names]]
        for name, tensor, static in zip(names, given, self._static, strict=True):
            check_like(name, tensor, static)


class _Body(nn.Module):
    """A container that gives names to the parameters of a `LayerParallel` module."""

    def __init__(self, parallel: LayerParallel):
        super().__init__()
        self.parallel = parallel

    def forward(self, x: Tensor, side: Mapping[str, Tensor]) -> Tensor:
        """Compute what the module does, but draw no masks, and march over large states as well."""
        parallel, net = self.parallel, self.parallel.net
        u = net.encode(x, **side)
        if not is_serial(parallel):
            return net.decode(parallel._propagate(u, "mgrit", side), **side)
        given, few = parallel._prepare(u, SERIAL_METHOD, side), parallel.settings["memory"]
        spread = spreading(net, parallel.communicator, parallel.method.strides[-1], side)
        found = march(*given, spread=spread, checkpoints=few != "states")
        return net.decode(found, **side)


class _Entry(torch.autograd.Function):
    """Return the tensors; copy their gradients, because the next replay overwrites them."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple([x.view_as(x) for x in tensors])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple([None if g is None else g.clone() for g in gradients])


class _Exit(torch.autograd.Function):
    """Copy the output, which the next replay overwrites, and refuse outdated backward passes."""

    @staticmethod
    def forward(ctx: Any, graphed: GraphedLayers, out: Tensor, *tensors: Tensor) -> Tensor:
        ctx.graphed, ctx.number = graphed, graphed._number
        ctx.save_for_backward(*tensors)  # tells if one is edited before backward
        return out.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        tensors = ctx.saved_tensors
        if ctx.number != ctx.graphed._number:
            raise RuntimeError(
                "GraphedLayers was asked for a backward pass of a call before its last one, whose "
                "states are overwritten; go backward before the next call, or capture a graph for "
                "each"
            )
        return None, gradient, *[None] * len(tensors)


def _keys(block: nn.Module) -> list[tuple[nn.Module, str]]:
    """The module and attribute of each key of dropout masks, which training passes replace."""
    own = [(block, KEY)] if KEY in block._buffers else []
    return own + [(part, "key") for part in block.modules() if isinstance(part, KeyedDropout)]


@contextmanager
def _apart(parallel: LayerParallel) -> Iterator[None]:
    """A context in which the module has a setup that it does not share with eager calls."""
    kept, draws = {name: vars(parallel)[name] for name in KEPT}, parallel.net.kernel.draws
    calls = draws.calls
    vars(parallel).update(_setups={}, last_forward=SERIAL, last_backward=SERIAL)
    try:
        with unchanged(parallel):
            yield
    finally:
        vars(parallel).update(kept)
        draws.calls = calls


@contextmanager
def _on(device: torch.device) -> Iterator[None]:
    """A context in which graphs are captured on a stream of this device.

    PyTorch keeps one stream for all captures, on the device that was current in the first capture.
    On a stream of another device, the graph would be empty, and replays would compute nothing.
    """
    graph: Any = torch.cuda.graph
    with torch.cuda.device(device):
        kept = graph.default_capture_stream
        graph.default_capture_stream = torch.cuda.Stream()
        try:
            yield
        finally:
            graph.default_capture_stream = kept


def _read(report: Any) -> PassReport:
    return report.read() if isinstance(report, History) else report
