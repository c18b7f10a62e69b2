"""Against ordinary autograd, layer by layer; counts against operators that count their calls."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.func import stack_module_state

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers
from mgnet.depth.batched.tape import TracedTape, joined

EXACT = {"rtol": 1e-13, "atol": 1e-14}


class Clock(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, t, u):
        return torch.tanh(self.linear(u) * (1 + t))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, u):
        v = self.norm(u)
        return self.attention(v, v, v, need_weights=False)[0]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3)
        self.b.weight = self.a.weight

    def forward(self, u):
        return self.b(torch.relu(self.a(self.a(u))))


class There(nn.Module):
    """Has one module under two names."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Sequential(self.a, nn.Tanh())

    def forward(self, u):
        return self.b(self.a(u))


class Sine(nn.Module):
    def forward(self, u):
        return torch.sin(u)


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, u):
        return self.linear(u) if u.sum() > 0 else -self.linear(u)


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, g):
        return 3 * g


class OwnBackward(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, u):
        with torch.no_grad():
            size = self.linear(u).norm()
        return Sign.apply(self.linear(u)) * u.detach() / size


def small():
    return nn.Sequential(nn.Linear(3, 5), nn.SiLU(), nn.Linear(5, 3))


def convolution():
    return nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(inplace=True))


BLOCKS = {
    "linear": (lambda: nn.Sequential(nn.Linear(3, 3), nn.Tanh()), (3,)),
    "time": (Clock, (3,)),
    "silu": (small, (3,)),
    "tied": (Tied, (3,)),
    "one module twice": (There, (3,)),
    "sine": (Sine, (3,)),
    "attention": (Attention, (2, 4)),
    "convolution": (convolution, (2, 4, 4)),
    "own": (OwnBackward, (3,)),
}


def stacked(make, count, dtype=torch.float64):
    torch.manual_seed(0)
    modules = [make().to(dtype) for _ in range(count)]
    parameters, buffers = stack_module_state(modules) if list(make().parameters()) else ({}, {})
    layers = Layers(
        tuple(x.detach() for x in parameters.values()),
        tuple(x.detach() for x in buffers.values()),
        torch.arange(count, dtype=dtype) / 10,
        torch.linspace(0.1, 0.3, count, dtype=dtype),
    )
    return modules, layers


def one_slope(module, scheme, t, s, u):
    def f(t, u):
        return module(t, u) if isinstance(module, Clock) else module(u)

    a = f(t, u)
    if scheme == "euler":
        return a
    if scheme == "heun":
        return (a + f(t + s, u + s * a)) / 2
    b = f(t + s / 2, u + s / 2 * a)
    c = f(t + s / 2, u + s / 2 * b)
    return (a + 2 * b + 2 * c + f(t + s, u + s * c)) / 6


def in_turn(modules, layers, states, lam, scheme="euler"):
    """Slopes and vector-Jacobian products of ordinary modules, one after another."""
    found = []
    for i, module in enumerate(modules):
        u, s = states[i].clone().requires_grad_(), layers.steps[i].clone().requires_grad_()
        value = one_slope(module, scheme, layers.times[i], s, u)
        leaves = [u, *module.parameters(), s]
        pulled = torch.autograd.grad(value, leaves, lam[i], materialize_grads=True)
        found.append((value.detach(), *pulled))
    value, pulled, *parameters, steps = (torch.stack(x) for x in zip(*found, strict=True))
    return value, pulled, parameters, steps


def states_of(count, shape, batch=2, dtype=torch.float64):
    return torch.randn(2, count, batch, *shape, dtype=dtype).unbind()


CASES = [(name, "euler", True) for name in BLOCKS] + [
    ("time", "heun", True),
    ("time", "rk4", True),
    ("convolution", "heun", True),
    ("own", "heun", True),
    ("time", "rk4", False),
    ("linear", "euler", False),
]


@pytest.mark.parametrize(("name", "scheme", "traced"), CASES)
def test_slopes_and_pulls_equal_ordinary_autograd(name, scheme, traced):
    make, shape = BLOCKS[name]
    modules, layers = stacked(make, 3)
    states, lam = states_of(3, shape)
    value, pulled, parameters, steps = in_turn(modules, layers, states, lam, scheme)
    block = StackedBlock(modules[0], scheme, traced)
    tape = block.record(layers, states)
    torch.testing.assert_close(tape.value, value, **EXACT)
    torch.testing.assert_close(tape.vjp(lam), pulled, **EXACT)
    everything = tape.vjp_all(lam)
    torch.testing.assert_close(everything[0], pulled, **EXACT)
    torch.testing.assert_close(everything[1], tuple(parameters), **EXACT)
    if scheme == "euler":
        assert everything[2] is None
    else:
        torch.testing.assert_close(everything[2], steps, **EXACT)
    with torch.no_grad():
        assert torch.equal(block.slope(layers, states), tape.value)
    assert block.evaluations == 2 * 3 * block.stages
    assert block.vjps == 2 * 3 * block.stages


@pytest.mark.parametrize("name", ["linear", "own", "convolution"])
def test_slopes_are_functions_for_autograd(name):
    make, shape = BLOCKS[name]
    modules, layers = stacked(make, 2)
    states, lam = states_of(2, shape)
    _, pulled, parameters, _ = in_turn(modules, layers, states, lam)
    leaves = [x.requires_grad_() for x in (states, *layers.parameters)]
    value = StackedBlock(modules[0]).slope(layers, states)
    found = torch.autograd.grad(value, leaves, lam, create_graph=True, materialize_grads=True)
    torch.testing.assert_close(found, (pulled, *parameters), **EXACT)
    second = torch.autograd.grad(
        sum(x.square().sum() for x in found), states, materialize_grads=True
    )
    expected = []
    for i, module in enumerate(modules):
        u = states[i].detach().requires_grad_()
        first = torch.autograd.grad(
            module(u), [u, *module.parameters()], lam[i], create_graph=True, materialize_grads=True
        )
        square = sum(x.square().sum() for x in first)
        expected += torch.autograd.grad(square, u, materialize_grads=True)
    torch.testing.assert_close(second[0], torch.stack(expected), **EXACT)


@pytest.mark.parametrize("name", ["linear", "convolution", "branch"])
@pytest.mark.filterwarnings("ignore:the block cannot be traced")
def test_any_number_of_layers_and_batch(name):
    make, shape = BLOCKS.get(name, (Branch, (3,)))
    modules, layers = stacked(make, 2)
    block = StackedBlock(modules[0])
    for part, batch in ((layers[:0], 2), (layers[1:], 2), (layers, 0)):
        states, lam = states_of(len(part), shape, batch)
        tape = block.record(part, states)
        assert tape.value.shape == tape.vjp(lam).shape == states.shape
        assert [x.shape for x in tape.vjp_all(lam)[1]] == [x.shape for x in part.parameters]
        assert block.slope(part, states).shape == states.shape


@pytest.mark.parametrize("name", ["linear", "convolution", "branch"])
@pytest.mark.filterwarnings("ignore:the block cannot be traced")
def test_a_slice_of_a_tape_evaluates_nothing(name):
    make, shape = BLOCKS.get(name, (Branch, (3,)))
    modules, layers = stacked(make, 5)
    states, lam = states_of(5, shape)
    block = StackedBlock(modules[0])
    tape = block.record(layers, states)
    whole = tape.vjp_all(lam)
    evaluations = block.evaluations
    for which in (slice(1, 5, 2), slice(2, 3)):
        part = tape[which].vjp_all(lam[which])
        assert torch.equal(part[0], whole[0][which])
        assert all(torch.equal(x, y[which]) for x, y in zip(part[1], whole[1], strict=True))
        assert torch.equal(tape[which].vjp(lam[which]), whole[0][which])
    assert block.evaluations == evaluations


def test_counts_are_what_really_runs():
    rows = {"forward": 0, "backward": 0}

    @torch.library.custom_op("mgnet_test::cube", mutates_args=())
    def cube(x: torch.Tensor) -> torch.Tensor:
        rows["forward"] += x.numel() // 3
        return x**3

    @torch.library.custom_op("mgnet_test::cube_pull", mutates_args=())
    def cube_pull(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        rows["backward"] += x.numel() // 3
        return 3 * x**2 * g

    cube.register_fake(torch.empty_like)
    cube_pull.register_fake(lambda x, g: torch.empty_like(x))
    cube.register_vmap(lambda info, dims, x: (cube(x), dims[0]))
    cube_pull.register_vmap(
        lambda info, dims, x, g: (cube_pull(x.movedim(dims[0], 0), g.movedim(dims[1], 0)), 0)
    )
    cube.register_autograd(
        lambda ctx, g: cube_pull(ctx.saved_tensors[0], g),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
    )

    class Cube(nn.Module):
        def forward(self, u):
            return cube(u)

    block = StackedBlock(Cube(), "heun")
    layers = stacked(Cube, 6)[1]
    states, lam = states_of(6, (3,), batch=1)
    for _ in range(2):  # the second time nothing is traced
        rows.update(forward=0, backward=0)
        block.evaluations = block.vjps = 0
        tape = block.record(layers, states)
        tape[::2].vjp(lam[::2])
        tape.vjp_all(lam)
        with torch.no_grad():
            block.slope(layers[1::3], states[1::3])
        assert rows == {"forward": block.evaluations, "backward": block.vjps}
    assert rows == {"forward": 2 * 8, "backward": 2 * 9}


@pytest.mark.parametrize("convolve", [False, True])
@pytest.mark.parametrize("scheme", ["euler", "heun"])
def test_batch_norm_statistics_are_those_of_a_serial_loop(convolve, scheme):
    def make():
        if convolve:
            return nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
        return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Tanh())

    modules, layers = stacked(make, 3)
    states, lam = states_of(3, (2, 4, 4) if convolve else (3,), batch=4)
    block = StackedBlock(modules[0], scheme)
    before = [x.clone() for x in layers.buffers]
    with torch.no_grad():
        block.slope(layers, states)
    tape = block.record(layers, states)
    own = [x.clone() for x in modules[0].buffers()]
    assert all(torch.equal(x, y) for x, y in zip(before, layers.buffers, strict=True))
    value, pulled, parameters, _ = in_turn(modules, layers, states, lam, scheme)
    torch.testing.assert_close(tape.value, value, **EXACT)
    torch.testing.assert_close(tape.vjp(lam), pulled, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(tape.vjp_all(lam)[1], tuple(parameters), rtol=1e-11, atol=1e-12)
    for k, name in enumerate(block.buffer_names):
        expected = torch.stack([module.get_buffer(name) for module in modules])
        torch.testing.assert_close(tape.new_buffers[k], expected, **EXACT)
        assert torch.equal(own[k], before[k][0])
    modules = [module.eval() for module in modules]
    layers = Layers(layers.parameters, tape.new_buffers, layers.times, layers.steps)
    value, pulled, *_ = in_turn(modules, layers, states, lam, scheme)
    tape = block.record(layers, states)
    torch.testing.assert_close(tape.value, value, **EXACT)
    torch.testing.assert_close(tape.vjp(lam), pulled, **EXACT)
    for x, y in zip(tape.new_buffers, layers.buffers, strict=True):
        assert torch.equal(x, y)


def test_a_changed_block_is_traced_again():
    class Scaled(nn.Module):
        factor = 1.0

        def __init__(self):
            super().__init__()
            self.sign = 1.0

        def forward(self, u):
            return (2.0 if self.training else 1.0) * self.sign * u

    block = StackedBlock(Scaled())
    states = torch.ones(2, 1, 1)

    def slope():
        return block.slope(Layers((), (), torch.zeros(2), torch.zeros(2)), states)[0].item()

    assert slope() == 2.0
    block.template.eval()
    assert slope() == 1.0
    block.template.sign = -1.0
    assert slope() == -1.0
    block.template.register_forward_hook(lambda module, inputs, output: 3 * output)
    assert slope() == -3.0


def test_programs_do_not_pile_up(monkeypatch):
    monkeypatch.setattr("mgnet.depth.batched.layers.BOUND", 2)
    block = StackedBlock(Sine())
    layers = stacked(Sine, 1)[1]
    for batch in range(1, 6):
        states = torch.ones(1, batch, 1)
        torch.testing.assert_close(block.record(layers, states).value, states.sin())
    assert len(block._traces) <= 4
    assert len(layers._bound) <= 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_stay_what_they_are(dtype):
    modules, layers = stacked(BLOCKS["linear"][0], 2, dtype)
    states, lam = states_of(2, (3,), dtype=dtype)
    value, pulled, parameters, _ = in_turn(modules, layers, states, lam)
    block = StackedBlock(modules[0])
    tape = block.record(layers, states)
    assert tape.value.dtype == dtype
    torch.testing.assert_close(tape.value, value)
    torch.testing.assert_close(tape.vjp(lam), pulled)
    torch.testing.assert_close(tape.vjp_all(lam)[1], tuple(parameters))


def test_errors_of_a_block_reach_the_caller():
    class OwnError(Exception):
        pass

    class Breaks(nn.Module):
        def forward(self, u):
            raise OwnError("mine")

    with pytest.raises(OwnError, match=r"^mine$"):
        StackedBlock(Breaks()).record(stacked(Sine, 2)[1], torch.ones(2, 1, 1))


class Wide(nn.Module):
    def forward(self, u):
        return torch.cat([u, u], 1)


class Edits(nn.Module):
    def forward(self, u):
        return u.mul_(2)


class Random(nn.Module):
    def forward(self, u):
        return nn.functional.dropout(u)


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize(
    ("make", "sentence"), [(Wide, "keep the shape"), (Random, "draws random numbers")]
)
def test_what_a_block_may_not_do(make, sentence, traced):
    with pytest.raises(ValueError, match=sentence):
        StackedBlock(make(), traced=traced).record(stacked(make, 2)[1], torch.ones(2, 1, 1))


def test_a_block_may_not_edit_its_state():
    with pytest.raises(ValueError, match="edits its state in place"):
        StackedBlock(Edits()).record(stacked(Edits, 2)[1], torch.ones(2, 1, 1))


def test_what_a_stacked_block_takes():
    with pytest.raises(ValueError, match="scheme 'ab2'; it must be one of euler, midpoint, heun"):
        StackedBlock(Sine(), "ab2")
    with pytest.raises(TypeError, match=r"Attention.forward takes \(query.* \(u\) or \(t, u\)"):
        StackedBlock(nn.MultiheadAttention(1, 1))


def test_a_block_that_cannot_be_traced_says_so():
    modules, layers = stacked(Branch, 2)
    with pytest.warns(UserWarning, match="cannot be traced, so its layers run one after another"):
        StackedBlock(modules[0]).record(layers, torch.ones(2, 1, 3, dtype=torch.float64))


def test_a_block_is_traced_in_inference_mode(recwarn):
    modules, layers = stacked(BLOCKS["linear"][0], 2)
    states, _ = states_of(2, (3,))
    wanted = StackedBlock(modules[0]).record(layers, states).value
    block = StackedBlock(modules[0])
    with torch.inference_mode():
        inside = block.record(layers[:], 1.0 * states).value.clone()
    after = block.record(layers, states)
    assert torch.equal(inside, wanted) and torch.equal(after.value, wanted)
    assert isinstance(after, TracedTape) and not recwarn.list


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_work(duplicate):
    modules, layers = stacked(BLOCKS["linear"][0], 2)
    states, _ = states_of(2, (3,))
    block = StackedBlock(modules[0])
    value = block.record(layers, states).value
    assert torch.equal(duplicate(block).record(layers, states).value, value)


@torch.library.custom_op("mgnet_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


twice.register_fake(lambda x: torch.empty_like(x))
twice.register_autograd(lambda ctx, g: 2 * g)
twice.register_vmap(lambda info, dims, x: 1 / 0)


class NotMapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, u):
        return torch.tanh(twice(self.linear(u)))


def test_an_operation_that_cannot_be_mapped_is_done_layer_by_layer():
    modules, layers = stacked(NotMapped, 4)
    states, lam = states_of(4, (3,))
    block = StackedBlock(NotMapped())
    with pytest.warns(UserWarning, match="cannot map the block over many layers") as caught:
        tape = block.record(layers, states)
    value, pulled, parameters, _ = in_turn(modules, layers, states, lam)
    torch.testing.assert_close(tape.value, value, **EXACT)
    found, of_parameters, _ = tape.vjp_all(lam)
    torch.testing.assert_close(found, pulled, **EXACT)
    for ours, theirs in zip(of_parameters, parameters, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)
    assert len(caught) == 1
    torch.testing.assert_close(block.slope(layers, states), value, **EXACT)
    one = block.record(layers[1:2], states[1:2])
    torch.testing.assert_close(one.vjp(lam[1:2]), pulled[1:2], **EXACT)


def test_cotangents_of_many_convolving_layers_at_once():
    modules, layers = stacked(convolution, 3)
    states, lam = states_of(3, (2, 4, 4))
    block = StackedBlock(convolution())
    whole = joined([block.record(layers[i : i + 1], states[i : i + 1]) for i in range(3)], layers)
    _, pulled, parameters, _ = in_turn(modules, layers, states, lam)
    torch.testing.assert_close(whole.vjp(lam), pulled, **EXACT)
    found, of_parameters, steps = whole.vjp_all(lam)
    torch.testing.assert_close(found, pulled, **EXACT)
    for ours, theirs in zip(of_parameters, parameters, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)
    assert steps is None


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("make", [There, Tied, lambda: nn.Sequential(*[nn.BatchNorm1d(3)] * 2)])
def test_the_block_keeps_its_own_tensors(make, traced):
    block = StackedBlock(make().double(), traced=traced)
    own = [*block.template.parameters(), *block.template.buffers()]
    _, layers = stacked(make, 3)
    for _ in range(2):
        block.record(layers, torch.randn(3, 4, 3).double()).vjp_all(torch.ones(3, 4, 3).double())
    now = [*block.template.parameters(), *block.template.buffers()]
    assert all(a is b for a, b in zip(own, now, strict=True))
