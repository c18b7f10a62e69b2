"""Serial propagation in a compiled loop is that of the net, or is not taken, with a reason."""

import copy
import gc

import pytest
import torch
from torch import nn

pytest.importorskip("numba")

from mgnet import kernels  # noqa: E402
from mgnet.depth import LayerParallel, ODENet  # noqa: E402
from mgnet.depth.compiled.parameters import Memory  # noqa: E402
from mgnet.depth.parallel import compiled_serial, serial  # noqa: E402
from mgnet.depth.parallel.compiled_serial import compiled_march  # noqa: E402
from mgnet.depth.parallel.method import SERIAL_METHOD  # noqa: E402
from mgnet.depth.parallel.propagation_setup import PropagationSetup, detached  # noqa: E402


def setup_of(net):
    return PropagationSetup.of(net.kernel, detached(net.layers()), SERIAL_METHOD)


def mlp(width=6, **options):
    torch.manual_seed(0)
    block = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 9), nn.GELU(), nn.Linear(9, width))
    return ODENet(block, 11, 2.0, **options).double()


@pytest.fixture
def taken(monkeypatch):
    """Counts compiled passes."""
    calls = []

    def counted(*given):
        calls.append(given)
        return run(*given)

    run = serial.march_compiled
    monkeypatch.setattr(serial, "march_compiled", counted)
    return calls


@pytest.mark.parametrize("scheme", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("weights", ["per layer", "shared"])
def test_output_gradients_and_their_derivatives(scheme, weights, taken):
    net = mlp(scheme=scheme, weights=weights, learnable_steps=True)
    ours, x = LayerParallel(net, levels=1), torch.randn(5, 6, dtype=torch.float64)
    x.requires_grad_()
    inputs = [x, *net.parameters()]

    def found(module):
        y = module(x)
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        return [y, *first, *second]

    for a, b in zip(found(ours), found(net), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert len(taken) == 1


def test_training_follows_the_weights(taken):
    nets = [mlp() for _ in range(2)]
    modules = LayerParallel(nets[0], mode="serial"), nets[1]
    x, results = torch.randn(7, 6, dtype=torch.float64), []
    for module in modules:
        optimizer = torch.optim.Adam(module.parameters(), 0.01)
        for k in range(4):
            optimizer.zero_grad()
            module(x[: 7 - k]).square().sum().backward()
            optimizer.step()
        results.append([*module.parameters()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)
    assert len(taken) == 4
    other = copy.deepcopy(modules[0])
    torch.testing.assert_close(other(x), nets[0](x))


def test_the_first_call_may_be_in_inference_mode(taken):
    net = mlp()
    x = torch.randn(3, 6, dtype=torch.float64)
    with torch.inference_mode():
        first = LayerParallel(net, levels=1)(x + 0.0)
    torch.testing.assert_close(first.clone(), net(x))
    assert len(taken) == 1


def test_work_is_counted():
    net = mlp(scheme="heun")
    LayerParallel(net, levels=1)(torch.randn(3, 6, dtype=torch.float64)).sum().backward()
    assert (net.kernel.evaluations, net.kernel.vjps) == (22, 22)


def test_edits_before_the_backward_pass_are_seen():
    net = mlp()
    x = torch.randn(3, 6, dtype=torch.float64)
    out = LayerParallel(net, levels=1)(x)
    with torch.no_grad():
        net.block[1].weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


class Straight(torch.autograd.Function):
    """Passes gradients of another function."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, g):
        return g


class Own(nn.Linear):
    """A derivative of its own."""

    def forward(self, u):
        return Straight.apply(super().forward(u))


class Mask(nn.Linear):
    """A tensor made in the call."""

    def forward(self, u):
        return super().forward(u) * torch.tensor([1.0, 0.0, 1.0, 0.0])


REFUSED = {
    "convolution": (lambda: nn.Conv1d(4, 4, 1), (3, 4, 5), "Conv1d is not among the supported"),
    "statistics": (lambda: nn.BatchNorm1d(4), (3, 4), "BatchNorm1d is not among the supported"),
    "own derivative": (lambda: Own(4, 4), (3, 4), "custom derivatives"),
    "a constant": (lambda: Mask(4, 4), (3, 4), "creates tensors of its own"),
    "softmax": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1)), (3, 4), "Softmax is not"),
    "wide": (lambda: nn.Linear(300, 300), (2, 300), "so wide"),
    "halves": (lambda: nn.Linear(4, 4, dtype=torch.bfloat16), (3, 4), "states are torch.bfloat16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_taken_is_said_and_runs_as_before(name, taken):
    make, shape, reason = REFUSED[name]
    net = ODENet(make(), 4)
    dtype = next(net.parameters()).dtype
    u = torch.randn(*shape, dtype=dtype)
    assert reason in str(compiled_march(setup_of(net), u))
    ours = LayerParallel(net, levels=1)
    torch.manual_seed(0)
    torch.testing.assert_close(ours.eval()(u), net.eval()(u), rtol=1e-2, atol=1e-2)
    assert not taken


class Free(nn.Module):
    """A block of one function of u and a vector."""

    def __init__(self, function):
        super().__init__()
        self.a, self.function = nn.Parameter(torch.randn(4)), function

    def forward(self, u):
        return self.function(self.a, u)


def hooked(a, u):
    y = torch.tanh(u * a)
    if y.requires_grad:
        y.register_hook(lambda g: 2.0 * g)
    return y


def clipped(a, u):
    y = torch.tanh(u * a)
    if y.requires_grad:  # finite numbers of any size pass
        y.register_hook(torch.nan_to_num)
    return y


def weighed(a, u):
    return nn.functional.layer_norm(u, (4,), torch.tanh(u).view(-1)[:4])


UNSEEN = {
    "detach": lambda a, u: torch.tanh(a * u.detach()),
    "data": lambda a, u: u.data * a,
    "straight through": lambda a, u: u * a + (torch.relu(u * a) - u * a).detach(),
    "hooks of tensors": hooked,
    "requires_grad": lambda a, u: torch.tanh(u * a) if a.requires_grad else u * a,
    "grad_fn": lambda a, u: torch.tanh(u * a) if (u * a).grad_fn is not None else u * a,
    "a state as a bias": lambda a, u: torch.addmm(torch.tanh(u), u, torch.diag(a)),
    "a state as a weight": weighed,
    "beta": lambda a, u: torch.addmm(a, u, torch.diag(a), beta=0.5),
    "contiguous": lambda a, u: torch.cat([k.contiguous() for k in (u * a).chunk(2, -1)], -1),
    "softplus far out": lambda a, u: nn.functional.softplus(30.0 * u * a),
}


def test_a_hook_that_seldom_acts_is_a_derivative_of_its_own():
    net = ODENet(Free(clipped), 4)
    assert "custom derivatives" in str(compiled_march(setup_of(net), torch.randn(3, 4)))


@pytest.mark.filterwarnings("ignore:ODENet draws each layer separately")
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("name", UNSEEN)
def test_what_a_graph_does_not_show(name, batch):
    torch.manual_seed(0)
    net = ODENet(Free(UNSEEN[name]), 4).double()
    ours, found = LayerParallel(net, levels=1), []
    x = torch.randn(batch, 4, dtype=torch.float64, requires_grad=True)
    for module in (ours, net):
        y = module(x)
        grads = torch.autograd.grad(y.square().sum(), [x, net.block.a], materialize_grads=True)
        found.append([y, *grads])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_backward_hooks_that_come_later():
    net = ODENet(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), 4).double()
    ours, x = LayerParallel(net, levels=1), torch.randn(5, 3, dtype=torch.float64)
    ours(x).sum().backward()
    net.block[1].register_full_backward_hook(lambda module, given, out: (2.0 * given[0],))
    found = []
    for module in (ours, net):
        found.append(torch.autograd.grad(module(x).square().sum(), [*net.parameters()]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_memory_is_let_go_without_a_collection():
    net, x = mlp(), torch.randn(3, 6, dtype=torch.float64)
    ours = LayerParallel(net, levels=1)
    ours(x).sum().backward()
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            ours(x).sum().backward()
        assert not any(isinstance(each, Memory) for each in gc.get_objects())
    finally:
        gc.enable()


def test_kept_loops_are_bounded(monkeypatch):
    monkeypatch.setattr(compiled_serial, "SHAPES", 3)
    net = mlp()
    ours = LayerParallel(net, levels=1)
    for batch in range(1, 9):
        ours(torch.randn(batch, 6, dtype=torch.float64))
    ((_, setup),) = ours._setups.values()
    assert len(setup.compiled) <= 3


def test_masks_are_those_of_the_net(taken):
    net = ODENet(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Tanh()), 6)
    ours, u, found = LayerParallel(net, levels=1).train(), torch.randn(30, 4), []
    for module in (ours, net, ours):
        net.calls = 3
        y = module(u[: len(u) - len(found) // 2])
        found.append([y, *torch.autograd.grad(y.square().sum(), [*net.parameters()])])
    for a, b in zip(found[0], found[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert len(taken) == 2 and found[2][0].shape == (29, 4)


def test_numbers_made_of_the_batch_follow_it(taken):
    class Share(nn.Linear):
        def forward(self, u):
            return torch.tanh(super().forward(u)) / u.shape[0]

    net = ODENet(Share(4, 4), 5)
    ours = LayerParallel(net, levels=1)
    for batch in (3, 5, 7, 9, 3):
        u = torch.randn(batch, 4)
        torch.testing.assert_close(ours(u), net(u))
    assert len(taken) == 5


def test_other_conditions(monkeypatch):
    net, u = mlp(), torch.randn(3, 6)
    assert "several precisions" in str(compiled_march(setup_of(net), u))
    u = u.double()
    with torch.autocast("cpu", torch.bfloat16):
        assert "several precisions" in str(compiled_march(setup_of(net), u))
    assert "shape (0, 6)" in str(compiled_march(setup_of(net), u[:0]))
    net.kernel.traced = False
    assert "not traced" in str(compiled_march(setup_of(net), u))
    monkeypatch.setattr(kernels, "available", False)
    assert compiled_march(setup_of(mlp()), u) == "numba is not installed"
    assert compiled_serial.LARGEST >= 2**14


def test_large_states_of_other_blocks_go_pytorchs_way(monkeypatch):
    net = ODENet(nn.Conv1d(4, 4, 1), 3)
    u = torch.randn(300, 4, 20)

    def fails(*given):
        raise AssertionError

    monkeypatch.setattr(serial._March, "apply", fails)
    torch.testing.assert_close(LayerParallel(net, levels=1)(u), net(u))


def test_modes_of_training_and_side_inputs(taken):
    class Scaled(nn.Linear):
        def forward(self, u, scale=None):
            return torch.tanh(super().forward(u)) * scale

    net = ODENet(Scaled(4, 4), 5)
    ours, u = LayerParallel(net, levels=1), torch.randn(3, 4)
    scale = torch.rand(4, requires_grad=True)
    for module in (ours, net):
        module(u, scale=scale).sum().backward()
    first, second = torch.autograd.grad(
        ours(u, scale=scale).sum() - net(u, scale=scale).sum(), [scale, net.block.weight]
    )
    assert first.abs().max() < 1e-5 and second.abs().max() < 1e-5 and len(taken) == 2
    rows = torch.rand(3, 4, requires_grad=True)  # another number for each sample
    for module in (ours, net):
        module(u, scale=rows).sum().backward()
    (first,) = torch.autograd.grad(ours(u, scale=rows).sum() - net(u, scale=rows).sum(), [rows])
    assert first.abs().max() < 1e-5 and len(taken) == 4


@pytest.mark.parametrize("weights", ["per layer", "shared"])
@pytest.mark.parametrize("scheme", ["euler", "rk4"])
def test_inputs_of_layers(scheme, weights, taken):
    torch.manual_seed(0)

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.state, self.input = nn.Linear(4, 4), nn.Linear(3, 4)

        def forward(self, u, inputs=None):
            return torch.tanh(self.state(u) + self.input(inputs)) * torch.sigmoid(u)

    net = ODENet(Cell(), 9, scheme=scheme, weights=weights, layer_inputs=["inputs"]).double()
    ours = LayerParallel(net, levels=1)
    u = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(9, 5, 3, dtype=torch.float64, requires_grad=True)
    variables, found = [u, inputs, *net.parameters()], []
    for module in (ours, net):
        y = module(u, inputs=inputs)
        first = torch.autograd.grad(y.square().sum(), variables, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), variables)
        found.append([y, *first, *second])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert len(taken) == 1


class Scaled(nn.Linear):
    """Weights that all layers share meet the time of each."""

    def forward(self, t, u):
        return torch.tanh(nn.functional.linear(u, self.weight * (1.0 + t), self.bias))


@pytest.mark.parametrize("block", [Scaled, nn.Linear])
@pytest.mark.parametrize("wanted", ["all", "weight", "state"])
def test_shared_weights_are_given_as_one_where_nothing_else_meets_them(block, wanted, taken):
    torch.manual_seed(0)
    net = ODENet(block(6, 6), 7, 1.0, scheme="rk4", weights="shared").double()
    x = torch.randn(40, 6, dtype=torch.float64)
    inputs = [net.block.weight, net.block.bias]
    for tensor in [x, *inputs]:
        tensor.requires_grad_(wanted == "all")
    inputs = {"all": [x, *inputs], "weight": inputs[:1], "state": [x]}[wanted]
    for tensor in inputs:
        tensor.requires_grad_()
    found, exact = (
        torch.autograd.grad(module(x).square().sum(), inputs)
        for module in (LayerParallel(net, levels=1), net)
    )
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    ((*_, parameters, spread, _, _),) = taken
    assert (spread is not None) == (block is nn.Linear)
    assert {len(p) for p in parameters} == ({1} if spread else {7})


class Sized(nn.Linear):
    """Knows how large its batch is."""

    def forward(self, u):
        return super().forward(u) * len(u)


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("block", [nn.Linear, Sized])
def test_modules_of_torch_are_read_once_for_all_batches(block, hooked, monkeypatch):
    torch.manual_seed(0)
    made, run = [], compiled_serial._made
    monkeypatch.setattr(compiled_serial, "_made", lambda *x: made.append(x) or run(*x))
    net = ODENet(nn.Sequential(block(4, 4), nn.Tanh(), nn.LayerNorm(4)), 5).double()
    if hooked:
        net.block[0].register_forward_hook(lambda module, given, out: out / len(out))
    parallel = LayerParallel(net, levels=1)
    for shape in ((1, 4), (3, 4), (40, 4), (2, 7, 4), (1, 7, 4)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(parallel(x), net(x))
    assert len(made) == (2 if block is nn.Linear and not hooked else 5)
