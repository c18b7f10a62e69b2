"""ODE nets against hand-written loops over the layers."""

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.interpolate import BSpline
from torch import nn
from torch.nn.utils import prune

from mgnet.depth import CyclesToTolerance, LayerParallel
from mgnet.depth.network.ode_net import ODENet
from mgnet.depth.network.spline_weights import DepthSpline
from mgnet.training.loss.parameters import FlatParameters

# `Timed` has parameters that nothing draws; its layers begin alike.
pytestmark = pytest.mark.filterwarnings("ignore:ODENet draws each layer separately")


def dense(width=4):
    return torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.Tanh())


class Timed(torch.nn.Module):
    """F(t, u) with tensors of several shapes."""

    def __init__(self):
        super().__init__()
        self.A = torch.nn.Parameter(0.5 * torch.randn(4, 4))
        self.b = torch.nn.Parameter(torch.randn(4))
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.register_buffer("shift", torch.randn(4))

    def forward(self, t, u):
        return self.scale * torch.tanh(u @ self.A + t * self.b) + self.shift


def net_of(seed=0, block=None, layers=6, T=2.0, **options):
    torch.manual_seed(seed)
    options = {"before": torch.nn.Linear(3, 4), "after": torch.nn.Linear(4, 2)} | options
    return ODENet(block or dense(), layers, T, **options).double()


def inputs(rows=5):
    return torch.randn(rows, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_hand(net, x, scheme):
    """The block of Linear and tanh, by formulas alone."""
    W, b = net.block[0].weight, net.block[0].bias
    u = net.before(x)
    for n in range(net.depth):
        s = (
            net.learnable_steps[n]
            if net.learnable_steps is not None
            else net.final_time / net.depth
        )

        def F(u, n=n):
            return torch.tanh(u @ W[n].T + b[n])

        k1 = F(u)
        if scheme == "euler":
            u = u + s * k1
        elif scheme == "heun":
            u = u + s / 2 * (k1 + F(u + s * k1))
        else:
            k2 = F(u + s / 2 * k1)
            k3 = F(u + s / 2 * k2)
            u = u + s / 6 * (k1 + 2 * k2 + 2 * k3 + F(u + s * k3))
    return net.after(u)


@pytest.mark.parametrize("scheme", ["euler", "heun", "rk4"])
@pytest.mark.parametrize("learnable_steps", [False, True])
def test_outputs_and_gradients_are_those_of_the_formulas(scheme, learnable_steps):
    net, x = net_of(scheme=scheme, learnable_steps=learnable_steps), inputs()
    if learnable_steps:
        with torch.no_grad():
            net.learnable_steps.copy_(torch.linspace(0.1, 0.9, 6))
    parameters = list(net.parameters())
    for function in (net, lambda x: by_hand(net, x, scheme)):
        loss = function(x).square().sum()
        gradient = torch.autograd.grad(loss, parameters)
        if function is net:
            expected, first = gradient, loss
    torch.testing.assert_close(loss, first, rtol=1e-14, atol=0.0)
    for a, b in zip(gradient, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_a_block_of_time_and_its_order_of_convergence():
    """Against SciPy's solver: weights constant in depth, so that only the scheme errs."""
    block = Timed().double()
    x = torch.randn(1, 4, dtype=torch.float64)

    def slope(t, u):
        with torch.no_grad():
            return block(t, torch.from_numpy(u)).numpy()

    exact = solve_ivp(slope, (0.0, 1.0), x[0].numpy(), rtol=1e-12, atol=1e-12).y[:, -1]
    for scheme, order in (("euler", 1), ("heun", 2), ("rk4", 4)):
        errors = []
        for layers in (16, 32):
            net = ODENet(lambda n: copy.deepcopy(block), layers, scheme=scheme)
            errors.append(np.abs(net(x)[0].detach().numpy() - exact).max())
        assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.3)


def test_readable_names_and_stacked_shapes():
    shapes = {name: tuple(p.shape) for name, p in net_of(learnable_steps=True).state_dict().items()}
    assert shapes["block.0.weight"] == (6, 4, 4)
    assert shapes["block.0.bias"] == (6, 4)
    assert shapes["learnable_steps"] == (6,)
    timed: Any = ODENet(Timed(), 3)
    buffers = {name: tuple(b.shape) for name, b in timed.named_buffers()}
    assert buffers == {"block.shift": (3, 4), "block.dropout_key": (3,)}
    assert "block.dropout_key" not in timed.state_dict()
    assert timed.block.scale.shape == (3,)


def test_every_layer_draws_its_own_weights_and_the_seed_repeats_them():
    first, second = net_of(seed=3), net_of(seed=3)
    torch.testing.assert_close(first.block[0].weight, second.block[0].weight, rtol=0, atol=0)
    assert len(set(first.block[0].weight[:, 0, 0].tolist())) == 6
    timed = ODENet(Timed(), 3).block  # no reset_parameters: copies
    assert torch.equal(timed.A[0], timed.A[2])


def test_a_function_gives_every_layer():
    asked = []

    def block(n):
        asked.append(n)
        layer = torch.nn.Linear(2, 2)
        torch.nn.init.constant_(layer.weight, n)
        return layer

    net = ODENet(block, 3, boundary_layers=(2, 1))
    assert asked == list(range(6))
    assert net.block.weight[:, 0, 0].tolist() == [2.0, 3.0, 4.0]
    ends: Any = net.opening[1], net.closing[0]
    assert [layer.block.weight[0, 0] for layer in ends] == [1.0, 5.0]


@pytest.mark.parametrize("block", [dense, Timed])
def test_buffer_layers_have_step_one(block):
    net, x = net_of(block=block(), boundary_layers=(2, 1)), inputs()
    u = net.before(x)

    def F(layer, t, u):
        return layer.block(t, u) if block is Timed else layer.block(u)

    for layer in net.opening:
        u = u + F(layer, 0.0, u)
    torch.testing.assert_close(net.encode(x), u)
    torch.testing.assert_close(net.trajectory(x)[0], u)
    torch.testing.assert_close(net.decode(u), net.after(u + F(net.closing[0], 2.0, u)))


def test_the_time_is_a_tensor_in_every_layer():
    """A block may take its cosine, also in boundary layers and on its own."""

    class Cosine(torch.nn.Module):
        def forward(self, t, u):
            return torch.cos(t) * u

    net = ODENet(Cosine(), 2, 3.0, boundary_layers=(1, 1)).double()
    expected = 2.0 * (1 + 1.5) * (1 + 1.5 * np.cos(1.5)) * (1 + np.cos(3.0))
    for form in (net, net.to_sequential()):
        assert float(form(torch.ones(1, 1, dtype=torch.float64))) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 5, 4)])
def test_states_of_any_shape(shape):
    net = ODENet(torch.nn.Linear(4, 4), 3)
    assert net(torch.randn(shape)).shape == shape
    conv = ODENet(torch.nn.Conv2d(2, 2, 3, padding=1), 3)
    assert conv(torch.randn(2, 2, 5, 5)).shape == (2, 2, 5, 5)


@pytest.mark.parametrize("learnable_steps", [False, True])
def test_shared_weights_add_up_their_gradients(learnable_steps):
    net, x = net_of(weights="shared", learnable_steps=learnable_steps), inputs()
    assert net.block[0].weight.shape == (1, 4, 4)
    loose = net_of(learnable_steps=learnable_steps)
    with torch.no_grad():
        for name, p in loose.named_parameters():
            p.copy_(net.get_parameter(name).expand(p.shape))
    torch.testing.assert_close(net(x), loose(x))
    net(x).sum().backward()
    loose(x).sum().backward()
    torch.testing.assert_close(
        net.block[0].weight.grad[0], loose.block[0].weight.grad.sum(0), rtol=1e-12, atol=1e-14
    )


def test_splines_in_depth():
    net, x = net_of(weights=DepthSpline(5, 2)), inputs()
    c = net.block[0].weight
    assert c.shape == (5, 4, 4)
    knots = np.arange(-2, 6) / 3.0  # three intervals of [0, 1], continued
    spline = BSpline(knots, c.detach().numpy(), 2)
    expected = torch.from_numpy(spline(np.arange(6) / 6.0))
    torch.testing.assert_close(net.layers().parameters[0], expected)
    net(x).sum().backward()
    assert torch.isfinite(c.grad).all() and c.grad.abs().sum(dim=(1, 2)).min() > 0


def test_trajectories():
    net, x = net_of(), inputs()
    states = net.trajectory(x)
    assert states.shape == (7, 5, 4)
    torch.testing.assert_close(net.decode(states[-1]), net(x), rtol=0, atol=0)
    asked = torch.tensor([0.0, 1.0 / 3.0, 0.5, 2.0])
    got = net.trajectory(x, asked)
    assert torch.equal(got[0], states[0]) and torch.equal(got[3], states[6])
    torch.testing.assert_close(got[1], states[1], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(got[2], 0.5 * (states[1] + states[2]))
    assert torch.equal(net.trajectory(x, [n * 2.0 / 6 for n in range(7)]), states)
    assert net.trajectory(x, []).shape == (0, 5, 4)
    with pytest.raises(ValueError, match=r"the time -1; all must lie in \[0, 2\]"):
        net.trajectory(x, [-1.0, 0.0])


def test_the_penalty_and_its_gradient():
    net = net_of()
    W, b = net.block[0].weight, net.block[0].bias
    h = 2.0 / 6
    expected = 0.0
    for theta in (W, b):
        expected = expected + 0.5 * 0.1 * h * sum(theta[n].pow(2).sum() for n in range(6))
        for n in range(1, 6):
            expected = expected + 0.5 * 0.01 * h * ((theta[n] - theta[n - 1]) / h).pow(2).sum()
    got = net.regularization(0.1, 0.01)
    torch.testing.assert_close(got, expected)
    for a, e in zip(*(torch.autograd.grad(v, (W, b)) for v in (got, expected)), strict=True):
        torch.testing.assert_close(a, e)


def test_copies_pickles_precisions_and_state_dicts():
    net, x = net_of(learnable_steps=True), inputs()
    out = net(x)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x), out)
        assert other.kernel is not net.kernel
        with torch.no_grad():
            other.block[0].weight.zero_()
        assert torch.equal(net(x), out)
        other.load_state_dict(net.state_dict())
        assert torch.equal(other(x), out)
    assert net.float()(x.float()).dtype == torch.float32
    assert net.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    assert net.layers().steps.dtype == net.layers().times.dtype == torch.bfloat16


def test_other_parameters_by_functional_call():
    """What `Objective` does: the parameters are a part of one flat vector meanwhile."""
    net, x = net_of(learnable_steps=True), inputs()
    flat = FlatParameters(net)
    u = flat.start().requires_grad_()
    (g,) = torch.autograd.grad(flat.evaluate(lambda net: net(x).sum(), u), u)
    net(x).sum().backward()
    expected = torch.cat([p.grad.reshape(-1) for p in net.parameters()])
    torch.testing.assert_close(g, expected, rtol=1e-12, atol=1e-14)


def test_the_vectorised_kernel_agrees():
    net, x = net_of(block=Timed()), inputs()
    states = net.trajectory(x)
    layers = net.layers()
    slopes = net.kernel.slope(layers, states[:-1])
    steps = layers.steps.view(-1, 1, 1)
    torch.testing.assert_close(states[1:], states[:-1] + steps * slopes, rtol=1e-13, atol=1e-14)


def test_an_exception_in_a_block_leaves_the_net_as_it_was():
    class Fails(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2))

        def forward(self, u):
            if u.max() > 1.0:
                raise RuntimeError("too large")
            return self.weight * u

    net = ODENet(Fails(), 3)
    with pytest.raises(RuntimeError, match="too large"):
        net(torch.ones(1, 2))
    assert net.block.weight.shape == (3, 2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layers": 0}, "0 layers; it needs at least 1"),
        ({"T": 0.0}, "final_time 0.0; it must be positive"),
        ({"scheme": "rk5"}, "did you mean rk4"),
        ({"weights": "tied"}, "weights 'tied'; give 'per layer', 'shared' or a DepthSpline"),
        ({"boundary_layers": (1, -1)}, r"boundary_layers \(1, -1\)"),
        ({"block": lambda n: torch.nn.Linear(4, 4, bias=n != 2)}, "layer 2 differs from layer 0"),
        ({"block": lambda n: n}, r"block\(0\) gave a int"),
    ],
)
def test_wrong_arguments(options, sentence):
    with pytest.raises(ValueError if "gave" not in sentence else TypeError, match=sentence):
        net_of(**options)


def test_a_block_must_keep_the_shape():
    with pytest.raises(ValueError, match=r"of shape \(5, 3\) for a state of shape \(5, 4\)"):
        net_of(block=torch.nn.Linear(4, 3))(inputs())
    with pytest.raises(TypeError, match=r"None_.forward takes \(\); a block must"):
        net_of(block=type("None_", (torch.nn.Module,), {"forward": lambda self: 0})())
    with pytest.raises(TypeError, match="must call its first argument t or time"):
        net_of(block=torch.nn.Bilinear(4, 4, 4))


def test_printing():
    text = str(net_of(learnable_steps=True, scheme="heun", weights=DepthSpline(4)))
    assert "layers=6, final_time=2, scheme='heun', learnable_steps=True" in text
    assert "DepthSpline(control_points=4, degree=3)" in text


@pytest.mark.parametrize("scheme", ["euler", "heun"])
def test_batch_norm_keeps_statistics_per_layer(scheme):
    """Against the ordinary modules of the layers, through training steps and in evaluation."""
    block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh())
    net, x = net_of(block=block, scheme=scheme), inputs()
    sequential: Any = net.to_sequential()
    for _ in range(3):
        torch.testing.assert_close(net(x), sequential(x), rtol=1e-13, atol=1e-14)
    net(x).sum().backward()
    sequential(x)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        expected = torch.stack([getattr(sequential[n + 1].block[1], name) for n in range(6)])
        torch.testing.assert_close(getattr(net.block[1], name), expected)
    assert net.block[1].num_batches_tracked.unique().tolist() == [4 if scheme == "euler" else 8]
    torch.testing.assert_close(net.eval()(x), sequential.eval()(x), rtol=1e-13, atol=1e-14)


# A state goes into a network of the same options only. Each kind: an option, two values of it, and
# whether torch's own check of names and shapes would have let it through.

OPTIONS = {
    "final_time": (1.0, 2.5),
    "scheme": ("euler", "rk4"),
    "layers": (4, 6),
    "weights": (DepthSpline(4, 1), DepthSpline(4, 2)),
    "learnable_steps": (False, True),
    "boundary_layers": ((1, 0), (0, 1)),
}


def drawn_options(rng):
    chosen = {name: values[rng.integers(2)] for name, values in OPTIONS.items()}
    if rng.random() < 0.5:
        chosen["weights"] = ["per layer", "shared"][rng.integers(2)]
    return chosen


def made_of(options):
    options = dict(options)
    dense = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh())
    return ODENet(dense, options.pop("layers"), **options)


def through_torch(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def through_safetensors(state):
    save = pytest.importorskip("safetensors.torch")
    return save.load(save.save(state))


def as_float16(state):
    return {name: value.half() for name, value in state.items()}


CARRIED = [dict, copy.deepcopy, through_torch, through_safetensors, as_float16]


@pytest.mark.parametrize("seed", range(12))
def test_a_state_of_other_options_is_refused_before_anything_is_loaded(seed):
    rng = np.random.default_rng(seed)
    options = drawn_options(rng)
    name = sorted(OPTIONS)[seed % len(OPTIONS)]
    values = OPTIONS[name]
    other = options | {name: values[0] if options[name] != values[0] else values[1]}
    saved, net = made_of(options), torch.nn.Sequential(torch.nn.Tanh(), made_of(other))
    carry = CARRIED[rng.integers(len(CARRIED))]
    state = {f"1.{key}": value for key, value in carry(saved.state_dict()).items()}
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(RuntimeError, match="they are different functions") as caught:
        net.load_state_dict(state, strict=bool(rng.integers(2)), assign=bool(rng.integers(2)))
    told = [saved.options()[name], net[1].options()[name]]
    assert all(f"{name}={value!r}" in str(caught.value) for value in told)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("carry", CARRIED)
@pytest.mark.parametrize("seed", range(3))
def test_a_state_of_the_same_options_comes_with_its_masks(seed, carry):
    options = drawn_options(np.random.default_rng(seed))
    saved, net = made_of(options), made_of(options)
    saved.seed, saved.calls = 3, 2**40 + 1
    assert not any(net.load_state_dict(carry(saved.state_dict())))
    assert (net.seed, net.calls) == (3, 2**40 + 1)
    x, exact = torch.rand(2, 3), carry is not as_float16
    torch.testing.assert_close(net(x), saved(x), rtol=0.0, atol=0.0 if exact else 1e-2)


@pytest.mark.parametrize("strict", [True, False])
def test_older_states_load_and_are_not_checked(strict):
    saved, net = made_of({"layers": 4}), made_of({"layers": 4, "final_time": 2.0})
    state = saved.state_dict()
    state["_extra_state"] = torch.tensor([5, 7])  # seed and calls alone
    assert not any(net.load_state_dict(state, strict=strict))
    assert (net.seed, net.calls, net.final_time) == (5, 7, 2.0)
    del state["_extra_state"]
    assert not any(net.load_state_dict(state, strict=strict))
    assert (net.seed, net.calls) == (5, 7)


def test_options_changed_later_are_those_that_are_saved():
    net, other = made_of({"layers": 4}), made_of({"layers": 4, "final_time": 2.0})
    net.final_time = 2.0
    assert not any(other.load_state_dict(net.state_dict()))
    with pytest.raises(RuntimeError, match="final_time=2.0, but this one has final_time=1.0"):
        made_of({"layers": 4}).load_state_dict(net.state_dict())


@pytest.mark.parametrize("how", ["steps", "constant"])
def test_a_refined_net_says_what_it_is(how):
    net = made_of({"layers": 4, "learnable_steps": True})
    fine = net.refine(2, how)
    assert not any(
        made_of({"layers": 8, "learnable_steps": True}).load_state_dict(fine.state_dict())
    )
    with pytest.raises(RuntimeError, match="layers=8, but this one has layers=4"):
        net.load_state_dict(fine.state_dict())


def test_distributed_checkpoints(tmp_path):
    """They load in place, into tensors of the same size; numbers of calls differ in length."""
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    saved, net = made_of({"layers": 4}), made_of({"layers": 4})
    saved.calls = 123456
    dcp.save(saved.state_dict(), checkpoint_id=tmp_path, no_dist=True)
    state = net.state_dict()
    dcp.load(state, checkpoint_id=tmp_path, no_dist=True)
    net.load_state_dict(state)
    assert net.calls == 123456 and torch.equal(net(torch.ones(1, 3)), saved(torch.ones(1, 3)))


@pytest.mark.parametrize("options", [{}, {"learnable_steps": True}, {"weights": "shared"}])
def test_on_the_meta_device_a_net_tells_the_shape_of_its_output(options):
    net = ODENet(dense(), layers=8, after=nn.Linear(4, 2), **options).to("meta")
    x = torch.empty(3, 4, device="meta")
    for module in (net, LayerParallel(net, 2, 4), LayerParallel(net, 2, 4, mode="serial")):
        assert module(x).shape == (3, 2) and module(x).is_meta


class Remembering(nn.Module):
    """Blocks that use a buffer and then change it, in each way that there is."""

    def __init__(self, use, change, always):
        super().__init__()
        self.always = always
        self.linear = nn.Linear(3, 3)
        self.register_buffer("mean", torch.linspace(0.5, 1.5, 3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.use, self.change = use, change

    def forward(self, u):
        mean = {"copy": self.mean.clone(), "view": self.mean[None], "as it is": self.mean}[self.use]
        out = torch.tanh(self.linear(u)) * mean
        if self.training or self.always:
            new = 0.5 * self.mean + u.detach().mean(0)
            if self.change == "in place":
                self.mean.copy_(new)
            else:
                self.mean = new
            self.calls = self.calls + 1
        return out


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", ["ODENet", "serial", "mgrit"])
@pytest.mark.parametrize(
    ("use", "change"),
    [("copy", "in place"), ("copy", "new"), ("view", "new"), ("as it is", "new")],
)
def test_gradients_and_buffers_of_blocks_that_change_what_they_used(use, change, mode, training):
    torch.manual_seed(0)
    net = ODENet(lambda n: Remembering(use, change, not training), layers=8).double()
    oracle = net.to_sequential().train(training)
    if mode == "ODENet":
        module = net
    else:
        control = CyclesToTolerance(1e-12)
        module = LayerParallel(net, 2, 4, control=control, mode=mode)
    module.train(training)
    for _ in range(2):
        x = torch.randn(4, 3, dtype=torch.float64)
        for model in (oracle, module):
            model.zero_grad()
            model(x).square().sum().backward()
        layers = [part for part in oracle.modules() if isinstance(part, Remembering)]
        for name in ("linear.weight", "linear.bias"):
            right = torch.stack([layer.get_parameter(name).grad for layer in layers])
            torch.testing.assert_close(net.block.get_parameter(name).grad, right)
        for name in ("mean", "calls"):
            right = torch.stack([layer.get_buffer(name) for layer in layers])
            torch.testing.assert_close(net.block.get_buffer(name), right)


# Hands that put other tensors into a layer: right in the blocks that a net is made of, refused in
# the stacked block. Weight normalization there read beyond the end of its norms.
HANDS = {
    "weight_norm": torch.nn.utils.parametrizations.weight_norm,
    "orthogonal": torch.nn.utils.parametrizations.orthogonal,
    "spectral_norm": torch.nn.utils.parametrizations.spectral_norm,
    "prune": lambda linear: prune.l1_unstructured(linear, "weight", 0.5),
    "prune, remove": lambda linear: prune.remove(
        prune.l1_unstructured(linear, "weight", 0.5), "weight"
    ),
    "a parameter more": lambda linear: linear.register_parameter(
        "more", torch.nn.Parameter(torch.ones(6, 4))
    ),
    "a buffer more": lambda linear: linear.register_buffer("more", torch.ones(6, 4)),
}


@pytest.mark.parametrize("hand", HANDS.values(), ids=HANDS)
def test_other_tensors_in_the_stacked_block_are_refused(hand):
    net = net_of()
    hand(net.block[0])
    for call in (net, LayerParallel(net, 2, 2)):
        with pytest.raises(
            ValueError, match="ODENet got a block whose tensors changed [\\s\\S]*net.to_sequential"
        ):
            call(inputs())


@pytest.mark.parametrize("name", ["weight_norm", "a parameter more", "a buffer more"])
def test_other_tensors_in_the_blocks_of_a_net(name):
    def block(n):
        made = dense()
        HANDS[name](made[0])
        return made

    net, x = net_of(block=block), inputs()
    right = net.to_sequential()(x)
    assert torch.allclose(net(x), right, rtol=0.0, atol=1e-14)
    parallel = LayerParallel(net, 2, 2, control=CyclesToTolerance(1e-14))
    assert torch.allclose(parallel(x), right, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("scheme", ["euler", "rk4"])
@pytest.mark.parametrize("options", [{}, {"learnable_steps": True}, {"weights": "shared"}])
def test_a_net_is_one_graph_for_torch_compile(options, scheme):
    net, x = net_of(scheme=scheme, **options), inputs()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), net(x), rtol=1e-14, atol=1e-15)


def test_layers_that_draw_in_training_alone_may_be_evaluated():
    net = ODENet(nn.Sequential(nn.Linear(4, 4), nn.RReLU()), layers=8).double().eval()
    x = torch.randn(3, 4, dtype=torch.float64)
    parallel = LayerParallel(net, 2, 4, control=CyclesToTolerance(1e-12)).eval()
    torch.testing.assert_close(parallel(x), net(x))
    with pytest.raises(ValueError, match="draws random numbers"):
        parallel.train()(x)
