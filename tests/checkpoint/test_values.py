"""Law: what goes into files comes out of them bit for bit, and nothing else is made of them."""

import json
import math
from collections import Counter, OrderedDict
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from mgnet.checkpoint.values import BYTES, Reader, Writer, pieces


class Pair(NamedTuple):
    """Stands for the memory of somebody's smoother."""

    first: object
    second: object


def through(value):
    """Write and read, through real JSON and real safetensors."""
    writer = Writer()
    told = json.loads(json.dumps(writer.encode(value, "value"), allow_nan=False))
    reader = Reader(load(save(writer.tensors)), {})
    again = reader.decode(told)
    reader.finish()
    return again


def as_bytes(tensor):
    return tensor.resolve_conj().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(a, b):
    """Whether two values agree in types, structure and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return (a.dtype, a.shape) == (b.dtype, b.shape) and as_bytes(a) == as_bytes(b)
    if isinstance(a, np.ndarray | np.generic):
        return (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return same(list(a), list(b)) and same(list(a.values()), list(b.values()))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, set):
        return same(sorted(a, key=repr), sorted(b, key=repr))
    return repr(a) == repr(b)


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool]
DTYPES += [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16]
DTYPES += [torch.uint32, torch.uint64, torch.complex64, torch.complex128, torch.complex32]
DTYPES += [torch.float8_e4m3fn, torch.float8_e5m2, *BYTES.values()]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (0, 3), (2, 2)])
def test_tensors_of_all_kinds(dtype, shape):
    torch.manual_seed(0)
    size = math.prod(shape) * dtype.itemsize
    content = torch.randint(2 if dtype is torch.bool else 256, (size,), dtype=torch.uint8)
    value = content.view(dtype).view(shape)
    assert same(through(value), value)


tensors = st.sampled_from(
    [
        torch.tensor(3.0),
        torch.tensor([1.0, -0.0, math.nan, math.inf], dtype=torch.float64),
        torch.arange(6).reshape(2, 3).T,
        torch.zeros(0, 3),
        torch.tensor([True, False]),
        torch.Generator().manual_seed(1).get_state(),
        torch.tensor([1 + 2j, -0.0j]).conj(),
    ]
)
arrays = st.sampled_from(
    [
        np.arange(3.0),
        np.float32(0.1),
        np.int64(7),
        np.eye(2, dtype=bool),
        np.array(1j),
        np.uint64(3),
    ]
)
keys = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
keys |= st.tuples(st.integers(), st.text())
leaves = keys | st.complex_numbers() | tensors | arrays | st.sets(keys, max_size=3)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.dictionaries(keys, inner).map(OrderedDict)
        | st.dictionaries(st.integers(), st.integers()).map(Counter)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(trees)
def test_values_come_back(value):
    assert same(through(value), value)


@pytest.mark.parametrize("value", [-0.0, math.nan, -math.inf, 10**40, -(2**64), "\ud800", {1: {}}])
def test_values_that_are_easily_lost(value):
    assert same(through(value), value)
    assert same(through({"a": [value]}), {"a": [value]})


OPTIMIZERS = [
    (torch.optim.SGD, {"momentum": 0.9}),
    (torch.optim.Adam, {"amsgrad": True}),
    (torch.optim.AdamW, {}),
    (torch.optim.LBFGS, {"max_iter": 3, "history_size": 2, "line_search_fn": "strong_wolfe"}),
    (torch.optim.Adafactor, {}),
    (torch.optim.Rprop, {}),
]


@pytest.mark.parametrize(
    ("kind", "options"), OPTIMIZERS, ids=lambda each: getattr(each, "__name__", "")
)
def test_optimizers_go_on_with_the_same_bits(kind, options):
    def made():
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 2)
        return module, kind(module.parameters(), lr=0.1, **options)

    def step(module, optimizer):
        def closure():
            optimizer.zero_grad()
            loss = module(torch.eye(3)).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)

    (module, optimizer), (other, again) = made(), made()
    step(module, optimizer)
    other.load_state_dict(through(dict(module.state_dict())))
    again.load_state_dict(through(optimizer.state_dict()))
    for _ in range(2):
        step(module, optimizer)
        step(other, again)
    assert same(dict(other.state_dict()), dict(module.state_dict()))
    assert same(again.state_dict(), optimizer.state_dict())


class Power:
    """A callable with a state."""

    def __init__(self, base):
        self.base = base

    def __call__(self, step):
        return self.base**step


def test_schedules_of_the_learning_rate_come_back():
    rates = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    for made in (
        rates.LambdaLR(optimizer, lambda step: 0.5**step),
        rates.LambdaLR(optimizer, Power(0.5)),
        rates.MultiStepLR(optimizer, [3, 5, 5]),
        rates.ReduceLROnPlateau(optimizer),
        rates.CosineAnnealingWarmRestarts(optimizer, 4),
        rates.OneCycleLR(optimizer, 0.1, 10),
        rates.CyclicLR(optimizer, 0.01, 0.1),
        rates.SequentialLR(
            optimizer, [rates.ConstantLR(optimizer), rates.ExponentialLR(optimizer, 0.9)], [2]
        ),
    ):
        assert same(through(made.state_dict()), made.state_dict()), type(made).__name__


def test_one_tensor_stays_one_object():
    f = torch.ones(3)
    first, (second, third) = through((f, [f, f.clone()]))
    assert first is second and first is not third


def test_tensors_go_back_to_their_device():
    for device in ("cuda:99", "meta", "cpu", "x", "cuda:-1", "cuda:9999999", 3, [], "nn"):
        reader = Reader({"b": torch.ones(2)}, {})
        with pytest.raises(ValueError, match="b was on .*, which is not available"):
            reader.decode({"tensor": "b", "device": device})


def test_names_that_meet_do_not_mix():
    value = {"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1), 1: torch.ones(2), "1": None}
    assert same(through(value), value)
    assert same(through({"\ud800": torch.ones(2)}), {"\ud800": torch.ones(2)})


class Local(torch.Tensor):
    """What a library may derive, as a part of a distributed tensor."""


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {torch.ones(1): 2},
        {object()},
        np.array(["a"]),
        np.longdouble(1),
        np.arange(3.0).astype(">f8"),
        torch.eye(2).to_sparse(),
        torch.ones(2, device="meta"),
        torch.ones(2).as_subclass(Local),
        NamedTuple("Nowhere", [("a", int)])(1),
        torch.Size([1]),
        len,
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_cannot_be_stored_is_named(value):
    with pytest.raises(TypeError, match="a checkpoint got memory.0.mu.1 of type .*; it stores"):
        Writer().encode({"mu": (1.0, value)}, "memory.0")


def test_depth_has_a_bound():
    value, loop = [], []
    for _ in range(90):
        value = [value] if isinstance(value, tuple) else (value,)
    assert same(through(value), value)
    loop.append({"again": loop})
    with pytest.raises(TypeError, match="a checkpoint got value.0.again.*nested too deeply"):
        Writer().encode(loop, "value")


@pytest.mark.parametrize(
    "name",
    ["os:stat_result", "builtins:tuple", "builtins:eval", "nowhere:Pair", "os:system", "", 3, None]
    + ["mgnet.petsc:Cycle", "mgnet:Progress"],  # which has seven fields
)
def test_only_named_tuples_are_made(name):
    with pytest.raises(ValueError, match="is not a named tuple of this program"):
        Reader({}, {}).decode({"named tuple": name, "values": []})


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"float": "1.5"},
        {"float": 2},
        {"tuple": 3},
        {"tuple": [], "list": []},
        {"dict": 3},
        {"dict": [[1]]},
        {"dict": [[1, 2], [1, 3]]},
        {"dict": [[[], 2]]},
        {"set": [1, 1]},
        {"set": [{"tuple": [[]]}]},
        {"complex": [1.0]},
        {"complex": [1, True]},
        {"bytes": "0"},
        {"bytes": 7},
        {"named tuple": "mgnet:Progress"},
        {"tensor": "missing"},
        {"tensor": ["a"]},
        {"tensor": "a", "more": 1},
        {"tensor": "a", "dtype": "complex128"},
        {"tensor": "a", "dtype": "float8_e8m0fnu"},
        {"tensor": "a", "dtype": "x"},
        {"array": "a", "device": "cpu"},
        {"array": "b"},
        {"scalar": "a"},
        {"array": "c", "dtype": "complex32"},
        [{"array": "a"}, {"array": "a"}],
        [{"tensor": "a"}, {"array": "a"}],
        {"unknown": 1},
    ],
    ids=str,
)
def test_what_no_writer_makes_is_refused(told):
    values = {"a": torch.ones(2), "b": torch.ones(2).bfloat16(), "c": torch.ones(1, 2).half()}
    with pytest.raises(ValueError) as error:
        Reader(values, {}).decode(told)
    assert "\n" not in str(error.value)


def test_an_odd_entry_is_not_a_hang_or_a_large_array():
    tensors = {"v.a": torch.ones(4)}
    for shape in ([10**11], [10**11, 1, 1], [1, 0, 10**11], [0], [2, 2, 1], [4, 1]):
        reader = Reader(dict(tensors), {"v": pieces("v", {"a": shape}, edges=True)})
        with pytest.raises(ValueError, match="missing, or used twice|of shape .4.;"):
            reader.decode({"tensor": "v"})
    shapes = {"coefficients.0": [10**6, 1, 10**6]}
    with pytest.raises(ValueError, match="'v' are missing"):
        Reader(tensors, {"v": pieces("v", shapes, edges=True)}).decode({"tensor": "v"})


@pytest.mark.parametrize("edges", [False, True])
def test_a_vector_is_cut_and_joined(edges):
    shapes = {"linear.weight": [2, 2], "coefficients.0": [2, 3, 2], "coefficients.1": [2, 1]}
    vector, writer, parts = torch.arange(18.0), Writer(), pieces("v", shapes, edges)
    told = [writer.pack(vector, "v", parts), writer.encode(vector, "again")]
    assert len(writer.tensors) == (2 + 4 if edges else 3)
    first, second = Reader(writer.tensors, {"v": parts}).decode(told)
    assert same(first, vector) and first is second
