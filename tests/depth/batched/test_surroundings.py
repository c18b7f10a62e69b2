"""Law: whatever a block reads, a LayerParallel gives what the ODENet gives by autograd, now.

The kinds of things that a block may read besides its input, parameters and buffers stand in two
tables, of tensors and of plain values. Each is changed between calls in every way it can be. The
oracle is the serial ODENet, whose layers are the modules themselves.
"""

import functools
import random
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from mgnet.depth import CyclesToTolerance, FixedCycles, LayerParallel, ODENet
from mgnet.depth.batched.surroundings import Watch, check_gradients, fingerprint

WORLD = types.SimpleNamespace()
TABLE = {}
SETTINGS = types.ModuleType("settings")
TENSOR = NUMBER = None


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, u):
        return self.read(torch.tanh(self.linear(u)))


def block_of(function):
    """A class whose `read` is the function; a method, as users write them."""
    return type("Reading", (Block,), {"read": function})()


# A kind: how the block reads it, and how a new value is put there.


class Attribute(Block):
    def __init__(self):
        super().__init__()
        self.value = None

    def read(self, v):
        return v * self.value


class Underscored(Block):
    def __init__(self):
        super().__init__()
        self._value = None

    def read(self, v):
        return v * self._value


class OfTheClass(Block):
    value = None

    def read(self, v):
        return v * self.value


class InAList(Block):
    def __init__(self):
        super().__init__()
        self.values = [None, None]

    def read(self, v):
        return v * self.values[1]


class InADictionary(Block):
    def __init__(self):
        super().__init__()
        self.values = {"a": {"b": None}}

    def read(self, v):
        return v * self.values["a"]["b"]


class ByProperty(Block):
    @property
    def value(self):
        return WORLD.value

    @staticmethod
    def more():
        return WORLD.value

    def read(self, v):
        return v * self.value + self.more()


def helper(v):
    return v * WORLD.value


def test_kinds_of_functions_and_classes_are_told_apart():
    a, b = block_of(lambda self, v: v), block_of(lambda self, v: -v)
    assert fingerprint(a) != fingerprint(b)


def put_global(net, value):
    globals()["NUMBER"] = value


def put_cell(net, value):
    net.block.read.__func__.__closure__[0].cell_contents = value


def in_a_closure():
    value = None

    def read(self, v):
        return v * value

    return block_of(read)


READ = {
    "attribute of an object": (
        lambda: block_of(lambda self, v: v * WORLD.value),
        lambda net, value: setattr(WORLD, "value", value),
    ),
    "attribute of an object in an object": (
        lambda: block_of(lambda self, v: v * WORLD.inner.value),
        lambda net, value: setattr(WORLD, "inner", types.SimpleNamespace(value=value)),
    ),
    "global": (lambda: block_of(lambda self, v: v * NUMBER), put_global),
    "global of another module": (
        lambda: block_of(lambda self, v: v * SETTINGS.value),
        lambda net, value: setattr(SETTINGS, "value", value),
    ),
    "entry of a global dictionary": (
        lambda: block_of(lambda self, v: v * TABLE["value"]),
        lambda net, value: TABLE.update(value=value),
    ),
    "closure": (in_a_closure, put_cell),
    "read by a function": (
        lambda: block_of(lambda self, v: helper(v)),
        lambda net, value: setattr(WORLD, "value", value),
    ),
    "read in a comprehension": (
        lambda: block_of(lambda self, v: sum([v * WORLD.value for _ in range(2)])),
        lambda net, value: setattr(WORLD, "value", value),
    ),
    "property and static method": (ByProperty, lambda net, value: setattr(WORLD, "value", value)),
    "attribute": (Attribute, lambda net, value: setattr(net.block, "value", value)),
    "underscored": (Underscored, lambda net, value: setattr(net.block, "_value", value)),
    "of the class": (OfTheClass, lambda net, value: setattr(OfTheClass, "value", value)),
    "in a list": (InAList, lambda net, value: net.block.values.__setitem__(1, value)),
    "in a dictionary": (InADictionary, lambda net, value: net.block.values["a"].update(b=value)),
}
# What may be there, and how it is made. Arrays and numbers taken out of tensors are tensors' kin.
VALUES = {
    "number": [lambda: random.random(), lambda: np.float32(random.random())],
    "tensor": [lambda: torch.rand(3), lambda: torch.rand(()), lambda: torch.rand(4, 1)],
}
# Ways of using what is no number and no tensor yet: (read, made, edited in place)
USES = {
    "item": (lambda v: v * WORLD.value[0].item(), torch.rand, "uniform_"),
    "float": (lambda v: v * float(WORLD.value[0]), torch.rand, "uniform_"),
    "tolist": (lambda v: v * WORLD.value.tolist()[1], torch.rand, "uniform_"),
    "numpy()": (lambda v: v * float(WORLD.value.numpy()[1]), torch.rand, "uniform_"),
    "condition": (lambda v: v if WORLD.value.sum() > 1.5 else -v, torch.rand, "uniform_"),
    "where": (lambda v: torch.where(WORLD.value > 0.5, v, -v), torch.rand, "uniform_"),
    "view": (lambda v: v @ WORLD.value.diag().T, torch.rand, "uniform_"),
    "matrix product": (lambda v: v @ torch.outer(WORLD.value, WORLD.value), torch.rand, "uniform_"),
    "stacked": (lambda v: v * torch.stack([WORLD.value] * 2).sum(0), torch.rand, "uniform_"),
    "from_numpy": (lambda v: v * torch.from_numpy(WORLD.value).float(), np.random.rand, "sort"),
    "as_tensor": (lambda v: v * torch.as_tensor(WORLD.value).float(), np.random.rand, "sort"),
    "torch.tensor of an array": (
        lambda v: v * torch.tensor(WORLD.value).float(),
        np.random.rand,
        "sort",
    ),
    "entry of an array": (lambda v: v * float(WORLD.value[0]), np.random.rand, "sort"),
    "torch.tensor of a list": (
        lambda v: v * torch.tensor(WORLD.value),
        lambda n: np.random.rand(n).tolist(),
        "reverse",
    ),
}


def pair(block, mode="mgrit"):
    torch.manual_seed(0)
    net = ODENet(block, 4, before=nn.Linear(2, 3))
    return net, LayerParallel(net, 2, 2, control=FixedCycles(2), mode=mode)


def gradients(model, net, x):
    net.zero_grad()
    value = model(x)
    value.square().sum().backward()
    return [value.detach(), *[p.grad.clone() for p in net.parameters()]]


def check_alike(net, parallel):
    x = torch.rand(4, 2)
    for found, right in zip(gradients(parallel, net, x), gradients(net, net, x), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(parallel(x), net(x), rtol=1e-5, atol=1e-6)


@pytest.fixture(autouse=True)
def seeded(request):
    random.seed(request.node.name)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.mark.filterwarnings("ignore:the block cannot be traced")
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("place", READ)
def test_what_is_replaced_between_calls_is_seen(place, value):
    make, put = READ[place]
    net, parallel = pair(make(), random.choice(["mgrit", "serial"]))
    for _ in range(2):
        put(net, random.choice(VALUES[value])())
        check_alike(net, parallel)


@pytest.mark.filterwarnings("ignore:the block cannot be traced")
@pytest.mark.parametrize("use", USES)
def test_what_is_edited_in_place_is_seen(use):
    read, make, edit = USES[use]
    WORLD.value = make(3)
    net, parallel = pair(block_of(lambda self, v: read(v)))
    for change in ("in place", "in place", "replaced", "data"):
        if change == "replaced":
            WORLD.value = make(3)
        elif change == "data" and isinstance(WORLD.value, torch.Tensor):
            WORLD.value.data = torch.rand(3)
        else:
            getattr(WORLD.value, edit)()
        check_alike(net, parallel)


def test_a_tensor_edited_between_forward_and_backward_is_autograds_error():
    WORLD.value = torch.rand(3)
    net, parallel = pair(block_of(lambda self, v: v * WORLD.value))
    for model in (net, parallel):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = model(torch.rand(4, 2))
        WORLD.value.uniform_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.sum().backward()


NAMED = {
    "values[1]": lambda self, v: v * torch.as_tensor(self.values[1]),
    "value": lambda self, v: v * torch.as_tensor(self.value),
    "from outside": lambda self, v: v * torch.as_tensor(WORLD.value),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("array", [False, True])
def test_the_warning_names_the_tensor_and_the_remedy(name, array):
    net, parallel = pair(block_of(NAMED[name]))
    value = np.ones(3, np.float32) if array else torch.rand(3)
    holder, attribute, held = {
        "values[1]": (net.block, "values", [None, value]),
        "value": (net.block, "value", value),
        "from outside": (WORLD, "value", value),
    }[name]
    setattr(holder, attribute, held)
    kind = "array" if array else "tensor"
    words = f"(the {kind} {name}|an? {kind} {name})".replace("[", r"\[").replace("]", r"\]")
    with pytest.warns(
        UserWarning, match=f"{words}, .*float32 of shape \\(3,\\), .* register_buffe"
    ):
        parallel(torch.rand(4, 2))


CREATED = {
    "arange": lambda v: v * torch.arange(3.0),
    "ones, zeros, eye": lambda v: v @ torch.eye(3) + torch.ones(3) + torch.zeros(()),
    "tensor of numbers": lambda v: v * torch.tensor([1.0, 2.0, 3.0]) + torch.tensor(0.5),
    "as_tensor of numbers": lambda v: v * torch.as_tensor([1.0, 2.0, 3.0]),
    "like": lambda v: v + torch.ones_like(v) * torch.full_like(v, 0.5),
    "new": lambda v: v * v.new_ones(3) + v.new_tensor([1.0, 2.0, 3.0]),
    "scalar": lambda v: v * torch.scalar_tensor(0.5) * torch.linspace(0, 1, 3),
    "mask": lambda v: v.masked_fill(torch.arange(3) > 1, 0.0),
    "triangle": lambda v: v @ torch.ones(3, 3).tril(),
    "one_hot": lambda v: v * nn.functional.one_hot(torch.arange(3) % 2, 2).sum(1),
    "gradient": torch.func.grad(lambda v: v.sin().sum()),
    "tangent": lambda v: torch.func.jvp(torch.sin, (v,), (v,))[1],
    "vmap": torch.func.vmap(lambda row: row * torch.arange(3.0)),
    "vmap of grad": torch.func.vmap(torch.func.grad(lambda row: row.sin().sum())),
    "polynomial": lambda v: sum(c * v**n for n, c in enumerate([1.0, 0.5, 0.25])),
}


@pytest.mark.parametrize("kind", CREATED)
def test_what_the_block_makes_itself_is_traced_without_a_warning(kind):
    make = CREATED[kind]
    net, parallel = pair(block_of(lambda self, v: make(v)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)  # inside torch.func.jvp
        check_alike(net, parallel)


class ByReference(Block):
    """Holds another module where torch does not see it."""

    def __init__(self, other):
        super().__init__()
        self.others = [other]

    def read(self, v):
        return self.others[0](v)


OUTSIDE = {
    "leaf": lambda w: block_of(lambda self, v: v * w),
    "not a leaf": lambda w: (lambda a: block_of(lambda self, v: v * a))((2 * w).sin()),
    "in a helper": lambda w: block_of(lambda self, v: nn.functional.linear(v, torch.diag(w))),
}


@pytest.mark.filterwarnings("ignore:the block cannot be traced")
@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", OUTSIDE)
def test_a_gradient_that_would_be_lost_is_refused(kind, frozen, traced):
    """In every mode, and where nothing else needs a gradient; never where none is asked for."""
    w = torch.rand(3, requires_grad=True)
    net, _ = pair(OUTSIDE[kind](w))
    net.requires_grad_(not frozen)
    net.kernel.traced = traced
    x = torch.rand(4, 2)
    net(x).sum().backward()
    assert w.grad is not None
    for mode in ("mgrit", "serial"):
        control = random.choice([FixedCycles(2), CyclesToTolerance(1e-4)])
        parallel = LayerParallel(net, 2, 2, control=control, mode=mode)
        for _ in range(2):
            with pytest.raises(ValueError, match=r"of shape \(3,\) that requires a gradient"):
                parallel(x)
        with torch.no_grad():
            torch.testing.assert_close(parallel(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:the block cannot be traced")
def test_a_module_in_a_list_is_used_as_it_is_and_trained_by_the_ode_net_only():
    net, parallel = pair(ByReference(nn.Linear(3, 3)))
    held = net.block.others[0]
    with pytest.raises(ValueError, match="make it a parameter of the block"):
        parallel(torch.rand(4, 2))
    held.requires_grad_(False)
    for _ in range(2):
        check_alike(net, parallel)
        held.weight.uniform_()


def test_buffers_are_traced_and_edits_of_them_seen():
    class Masked(Block):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.ones(3))

        def read(self, v):
            return v * self.mask

    net, parallel = pair(Masked())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            check_alike(net, parallel)
            net.block.mask.uniform_()
        net.block.mask = torch.rand(4, 3)
        check_alike(net, parallel)


# The fingerprint itself


@pytest.mark.parametrize("make_value", VALUES["number"], ids=["number", "numpy number"])
@pytest.mark.parametrize("place", READ)
def test_the_fingerprint_changes_with_what_is_read_and_only_then(place, make_value):
    make, put = READ[place]
    net, _ = pair(make())
    put(net, make_value())
    before = fingerprint(net.block)
    assert fingerprint(net.block) == before and hash(before) == hash(fingerprint(net.block))
    put(net, make_value())
    assert fingerprint(net.block) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda block: setattr(block[1], "p", 0.25),
        lambda block: block.eval(),
        lambda block: block.insert(0, nn.Tanh()),
        lambda block: block[0].register_forward_hook(lambda *told: None),
        lambda block: setattr(block[2], "tables", [1, (2, {3: [4]})]),
        lambda block: setattr(block[2], "function", functools.partial(max, 3)),
    ],
)
def test_the_fingerprint_sees_modes_modules_hooks_and_attributes(change):
    block = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Identity())
    before = fingerprint(block)
    change(block)
    assert fingerprint(block) != before


def test_the_fingerprint_ends_where_the_block_holds_everything():
    block = nn.Linear(1, 1)
    block.everything = {"me": [block], "numbers": list(range(10**6)), "a": np.zeros(10**7)}
    block.everything["all"] = block.everything
    for n in range(10**4):
        setattr(block, f"part{n}", [n])
    assert hash(fingerprint(block)) == hash(fingerprint(block))


def test_a_function_that_refers_to_itself_or_to_nothing_yet():
    def made():
        def read(self, v):
            return later(v) if v is None else v

        block = block_of(read)
        first = fingerprint(block)

        def later(v):
            return read(None, v)

        return block, first

    block, first = made()
    assert fingerprint(block) != first


def test_the_default_dtype_is_read_too():
    block = nn.Tanh()
    before = fingerprint(block)
    torch.set_default_dtype(torch.float64)
    try:
        assert fingerprint(block) != before
    finally:
        torch.set_default_dtype(torch.float32)


def test_watch_sees_no_grad_and_own_backward_passes():
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g

    x = torch.ones(2, requires_grad=True)
    watch = Watch()
    watch.look(2 * x)
    assert not watch.hidden
    watch.look(2 * Own.apply(x))
    assert watch.hidden
    watch = Watch()
    with watch, torch.no_grad():
        pass
    assert watch.hidden


@pytest.mark.parametrize(
    "hook", [lambda y: y.register_hook(lambda g: g), lambda y: y.grad_fn.register_hook(print)]
)
def test_watch_sees_hooks_of_tensors(hook):
    with FakeTensorMode():
        y = 2 * torch.ones(2, requires_grad=True)
        watch = Watch()
        with watch:
            assert y.requires_grad and not watch.hidden
            hook(y)
    assert watch.hidden


def test_gradients_to_leaves_and_to_none():
    x, y = (torch.ones(2, requires_grad=True) for _ in range(2))
    check_gradients(torch.ones(2), [])
    check_gradients(x * y, [x, y])
    check_gradients(x * y.detach(), [x])
    with pytest.raises(ValueError, match="detach it"):
        check_gradients(x * y, [y])
