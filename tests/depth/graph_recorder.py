"""A stand-in for CUDA graphs and streams on the CPU, and a count of what a host waits for.

`Graph` records every operation that is dispatched while it captures, with the very tensors, and
replays them: new results are written into the memory of the recorded ones. So Python takes no part
in a replay, as in that of a CUDA graph, and whatever Python decided is what it was at the capture.
"""

import threading
from contextlib import ExitStack, contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_flatten, tree_leaves

from mgnet.depth.batched import devices, streams
from mgnet.depth.parallel import graph_refusals, serial
from mgnet.depth.parallel.propagation import Propagation

aten = torch.ops.aten
# Operations whose results, or sizes of results, the host reads.
READS = {aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select}
READS |= {aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.allclose}
# Methods that read without an operation, and functions that copy from the host to the device.
METHODS, COPIES = ("cpu", "tolist", "numpy"), ("tensor", "as_tensor", "from_numpy")


class OnHost(torch.Tensor):
    """What was copied to the host, and what is computed of it there: nobody waits for it."""


class Reads(TorchDispatchMode):
    """Notes what would make the host wait for a device, forward and backward.

    CPU tensors are taken to be on a device, so that `cpu` copies, and `tensor` copies back.
    """

    def __init__(self):
        super().__init__()
        self.found = []
        self._inside = False
        self._patch = pytest.MonkeyPatch()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in READS and not isinstance(args[0], OnHost):
            self.found.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))

    def __enter__(self):
        for name in METHODS:
            self._patch.setattr(torch.Tensor, name, self._method(name, getattr(torch.Tensor, name)))
        for name in COPIES:
            self._patch.setattr(torch, name, self._copying(name, getattr(torch, name)))
        return super().__enter__()

    def __exit__(self, *told):
        self._patch.undo()
        super().__exit__(*told)

    def _method(self, name, original):
        def method(tensor, *args, **kwargs):
            if isinstance(tensor, OnHost) or self._inside:
                return original(tensor, *args, **kwargs)
            self.found.append(name)
            self._inside = True  # a mode of functions, as torch.device, comes back here
            found = original(tensor, *args, **kwargs)
            self._inside = False
            return found.as_subclass(OnHost) if name == "cpu" else found

        return method

    def _copying(self, name, original):
        def copying(*args, **kwargs):
            if not self._inside:
                self.found.append(name)
            return original(*args, **kwargs)

        return copying


class Graph(TorchDispatchMode):
    """As `torch.cuda.CUDAGraph`."""

    def __init__(self):
        super().__init__()
        self.operations = []
        self.replays = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.overloadpacket in READS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        found = func(*args, **kwargs)
        if func is not aten.detach.default and not func.is_view:
            self.operations.append((func, args, kwargs, found))
        return found

    def replay(self):
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, found in self.operations:
                again = func(*args, **kwargs)
                if func._schema.is_mutable:
                    continue
                for old, new in zip(tree_leaves(found), tree_flatten(again)[0], strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class Stream:
    """As `torch.cuda.Stream`; `log` has what happened on all of them, in order."""

    log = []
    current = None

    def __init__(self, device=None):
        self.name = f"side {sum(1 for what in Stream.log if what[0] == 'made')}"
        Stream.log.append(("made", self.name))

    def wait_stream(self, other):
        Stream.log.append(("wait", self.name, other.name))


class _Main(Stream):
    def __init__(self):
        self.name = "main"


@contextmanager
def _stream(stream):
    before, Stream.current = Stream.current, stream
    try:
        yield
    finally:
        Stream.current = before


@contextmanager
def _captured(graph, pool=None):
    Stream.log.append(("capture", _captured.default_capture_stream.name))
    with graph:
        yield


_captured.default_capture_stream = _Main()


@contextmanager
def _device(device):
    Stream.log.append(("device", str(device)))
    yield
    Stream.log.append(("device", "before"))


def use_graphs(monkeypatch):
    """Graphs and streams of CUDA are stand-ins, and CPU tensors are taken to be on a device.

    Returns
    -------
    list of Graph
        Those that were made: forward, backward, forward, ...
    """
    graphs = []

    def made():
        graphs.append(Graph())
        return graphs[-1]

    Stream.log, Stream.current = [], _Main()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", made)
    monkeypatch.setattr(torch.cuda, "graph", _captured)
    monkeypatch.setattr(torch.cuda, "device", _device)
    monkeypatch.setattr(torch.cuda.graphs, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(graph_refusals, "_has_graphs", lambda x: True)
    use_streams(monkeypatch)
    use_device(monkeypatch)
    return graphs


def use_streams(monkeypatch):
    """Streams of CUDA are stand-ins that tell what happens on them."""
    Stream.log, Stream.current = [], _Main()
    streams._streams.cache_clear()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", _stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream.current)
    monkeypatch.setattr(streams, "_has_streams", lambda like: True)
    monkeypatch.setattr(
        torch.Tensor,
        "record_stream",
        lambda self, stream: Stream.log.append(("record", stream.name)),
    )


def use_device_thread(monkeypatch):
    """PyTorch goes backward on a thread of its own, as through tensors of a GPU.

    A wait for each other is an error after some seconds.
    """
    monkeypatch.setattr(torch.autograd, "grad", _on_a_thread(torch.autograd.grad))


def _on_a_thread(function):
    def work(modes, found, args, kwargs):
        try:
            with ExitStack() as stack:
                for mode in modes:  # a graph that captures
                    stack.enter_context(mode)
                    stack.enter_context(devices.capturing())
                found.append(function(*args, **kwargs))
        except Exception as error:
            found.append(error)

    def run(*args, **kwargs):
        modes, found = _get_current_dispatch_mode_stack(), []
        thread = threading.Thread(target=work, args=(modes, found, args, kwargs), daemon=True)
        thread.start()
        thread.join(20.0)
        if not found:
            raise TimeoutError("the thread of the backward pass waits for the one that called it")
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    return run


def on_no_device(monkeypatch):
    """In a backward pass, too, tensors that are made without a device are on the meta device.

    Beside tensors on a GPU they would be on the host. PyTorch puts no `torch.device` of its caller
    around a backward pass.
    """
    for owner, name in (
        (Propagation, "backward"),
        (Propagation, "gradients"),
        (serial, "_adjoint"),
    ):
        monkeypatch.setattr(owner, name, _on_no_device(getattr(owner, name)))


def _on_no_device(function):
    def run(*args):
        with torch.device("meta"):
            return function(*args)

    return run


def use_device(monkeypatch):
    """CPU tensors are taken to be on a device for which the host waits; no loop is compiled."""
    from mgnet import kernels

    monkeypatch.setattr(devices, "waits", lambda x: True)
    monkeypatch.setattr(kernels, "available", False)
