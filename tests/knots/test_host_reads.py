"""Law: on a GPU no pass of a spline layer waits for the device, with Triton and without.

No GPU is needed. Fake tensors of one have shapes and a device but no numbers: whatever asks for a
number raises an error, and a copy between host and device is an operation that is seen.
"""

from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mgnet.knots import layer, products

DOMAIN = (-1.0, 2.0)
aten = torch.ops.aten
OPERATORS = {
    torch.searchsorted: aten.searchsorted.Tensor,
    torch.Tensor.copy_: aten.copy_.default,
    torch.Tensor.contiguous: aten.contiguous.default,
    torch.Tensor.__float__: aten._local_scalar_dense.default,
}
NUMBERS = DataDependentOutputException, DynamicOutputShapeException


class Transfers(TorchDispatchMode):
    """Notes operations with tensors of the host and of the device: copies from one to the other."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        told = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        if len({x.device.type for x in told}) > 1:
            self.found.append(str(func))
        return result


class ByOperators(TorchFunctionMode):
    """What torch without CUDA does on the way to an operator looks for a driver: not here."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.__getitem__:
            return _indexed(*args)
        if func is torch.Tensor.__setitem__:
            return aten.copy_.default(_indexed(*args[:2]), args[2])
        operator = OPERATORS.get(func, func)
        return operator(*args, **(kwargs or {}))


def _indexed(x, index):
    if isinstance(index, torch.Tensor):
        mask = index.dtype == torch.bool
        return aten.index.Tensor(x, [aten.nonzero.default(index) if mask else index])
    axis = 0
    for one in index if isinstance(index, tuple) else (index,):
        if isinstance(one, slice):
            x = aten.slice.Tensor(x, axis, one.start, one.stop, one.step or 1)
            axis += 1
        elif isinstance(one, int):
            x = x.select(axis, one)
        else:
            raise NotImplementedError(f"an index of type {type(one).__name__}")
    return x


class NoLaunch:
    """In place of a kernel: takes the grid and the arguments."""

    def __init__(self):
        self.launches = 0

    def __getitem__(self, grid):
        assert all(isinstance(many, int) and many > 0 for many in grid)
        return self._launch

    def _launch(self, *arguments, **options):
        self.launches += 1


@pytest.fixture(params=["plain torch", "Triton"])
def kernels(request, monkeypatch):
    """The operators in plain torch, or what is around the launches of Triton's kernels."""
    chosen = None
    if request.param == "Triton":
        if not find_spec("triton"):
            pytest.skip("needs Triton")
        from mgnet.knots import triton_kernels as chosen

        for name in ("_layer", "_pull", "_intervals", "_run", "_gather"):
            monkeypatch.setattr(chosen, name, NoLaunch())
        monkeypatch.setattr(torch.cuda, "device_of", lambda x: nullcontext())
    monkeypatch.setattr(layer, "_kernels", lambda x: chosen)
    monkeypatch.setattr(layer, "_layer", layer._computed_layer)
    monkeypatch.setattr(layer, "_adjoint", layer._computed_adjoint)
    caches = [products._constants] + ([chosen._table] if chosen else [])
    for cache in caches:
        cache.cache_clear()
    yield chosen
    for cache in caches:
        cache.cache_clear()  # of fake tensors


def problem(intervals, outputs=5, samples=40, dtype=torch.float64):
    """Input, coefficients, weights of inputs, cotangents of the layer and of its adjoint."""
    make = partial(torch.empty, dtype=dtype, device="cuda")
    U = make(3, intervals + 3, outputs)
    x, h, g, cv = make(samples, 3), make(samples, 3), make(samples, outputs), make(samples, 3)
    return x, U, h, g, cv, torch.empty_like(U)


def every_pass(intervals, weighted, dtype=torch.float64):
    """A layer, its backward pass and the backward pass of that, with splines of order 0 to 2."""
    x, U, h, g, cv, cV = problem(intervals, dtype=dtype)
    h = h if weighted else None
    passes = []
    for order in range(3):
        numbers = intervals, 3, *DOMAIN, order
        saved = SimpleNamespace(
            saved_tensors=(x, U, h), numbers=numbers, needs_input_grad=(True, True, weighted)
        )
        again = SimpleNamespace(
            saved_tensors=(x, U, g, h),
            numbers=(*numbers[:-1], order + 1, order),
            needs_input_grad=(True, True, True, weighted),
        )
        passes += [
            partial(layer._layer, x, U, h, *numbers),
            partial(layer._layer_backward, saved, g),
            partial(layer._adjoint_backward, again, cv, cV),
        ]
    return passes


def counted(passes):
    """Transfers within the passes, once each was made: constants go to the device once."""
    for make in passes:
        make()
    with Transfers() as transfers:
        results = [make() for make in passes]
    return transfers.found, results


@pytest.mark.parametrize("intervals", [4, 40])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_no_pass_waits_for_the_device(kernels, intervals, weighted, dtype):
    with FakeTensorMode(), ByOperators():
        found, results = counted(every_pass(intervals, weighted, dtype))
    tensors = [x for x in tree_leaves(results) if isinstance(x, torch.Tensor)]
    assert found == [] and len(tensors) >= 3 * (1 + 2 + 3)
    assert all(x.device.type == "cuda" and x.dtype == dtype for x in tensors)
    if kernels:
        names = ("_layer", "_pull", "_intervals", "_run", "_gather")
        assert all(getattr(kernels, name).launches for name in names)


def a_number(x):
    return x if float(x.max()) > 1.0 else -x


def the_length_of_a_result(x):
    return torch.bincount(x.long())


def a_mask(x):
    return x[x > 0.0]


def a_comparison(x):
    return torch.equal(x, x.clamp(0.0, 1.0))


@pytest.mark.parametrize("planted", [a_number, the_length_of_a_result, a_mask, a_comparison])
def test_what_waits_is_seen(planted):
    with FakeTensorMode(), ByOperators(), pytest.raises(NUMBERS):
        counted([partial(planted, torch.empty(9, device="cuda"))])


def to_the_device(x):
    return x + torch.tensor([1.0]).to(x.device)


def to_the_host(x):
    return x.cpu()


@pytest.mark.parametrize("planted", [to_the_device, to_the_host])
def test_copies_are_seen(planted):
    with FakeTensorMode(), ByOperators():
        found, _ = counted([partial(planted, torch.empty(9, device="cuda"))])
    assert found == ["aten._to_copy.default"]


def test_constants_go_to_the_device_once(kernels):
    """A planted violation in the layer itself: constants that are forgotten are copied again."""
    cache = kernels._table if kernels else products._constants
    with FakeTensorMode(), ByOperators():
        passes = every_pass(4, True)
        counted(passes)
        cache.cache_clear()
        with Transfers() as transfers:
            passes[0]()
    assert transfers.found == ["aten._to_copy.default"] * (1 if kernels else 2)
