"""Law: gradients of joint weights are autograd's, with the same bits however layers are held."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mgnet.depth import CyclesToTolerance, DepthSpline, LayerParallel, ODENet
from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR, SerialCommunicator
from mgnet.depth.parallel.local_layers import keep_layers
from mgnet.depth.parallel.shared_weights import layers_of

WEIGHTS = ["shared", DepthSpline(3, 0), DepthSpline(4, 1), DepthSpline(5, 3), DepthSpline(12, 2)]
INTERVAL = 4


def net_of(weights, layers=21, dtype=torch.float64):
    torch.manual_seed(0)
    return ODENet(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), layers, weights=weights).to(dtype)


class Chain(SerialCommunicator):
    """One of several processes that take part one after the other."""

    def __init__(self):
        self.sent = []

    def receive(self, start, reverse):
        return self.sent.pop(0) if self.sent else start

    def send(self, point, reverse):
        self.sending.append(point)


def told(layers):
    """What a loss says about the layers: numbers that differ from layer to layer."""
    return [
        torch.randn(21, *p.shape[1:], generator=torch.Generator().manual_seed(7)).to(p)
        for p in layers.parameters
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_sums_over_the_layers_have_the_same_bits_for_all_parts(weights, dtype):
    net, found = net_of(weights, dtype=dtype), []
    for bounds in ([0, 21], [0, 8, 21], [0, 4, 8, 16, 21], [0, 12, 20, 21, 21]):
        chain = Chain()
        for begin, end in zip(bounds, bounds[1:], strict=False):
            part, chain.sending = copy.deepcopy(net), []
            keep_layers(part, range(begin, end))
            layers = layers_of(part, chain if end > begin else SERIAL_COMMUNICATOR, INTERVAL)
            given = [g[begin:end] for g in told(net.layers())]
            gradients = torch.autograd.grad(layers.parameters, list(part.parameters()), given)
            chain.sent = chain.sending
            if end > begin:
                last = gradients
        found.append(last)
    for gradients in found[1:]:
        for ours, alone in zip(gradients, found[0], strict=True):
            assert torch.equal(ours, alone)
    layers = net.layers()
    wanted = torch.autograd.grad(layers.parameters, list(net.parameters()), told(layers))
    for ours, theirs in zip(found[0], wanted, strict=True):
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=50 * eps)


@pytest.mark.parametrize("mode", ["mgrit", "serial"])
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_gradients_of_training_are_those_of_a_loop(weights, mode):
    net, x = net_of(weights), torch.randn(5, 3, dtype=torch.float64)
    parallel = LayerParallel(net, 2, 4, control=CyclesToTolerance(1e-30), mode=mode)
    parameters = list(net.parameters())
    ours = torch.autograd.grad(parallel(x).square().sum(), parameters)
    wanted = torch.autograd.grad(net(x).square().sum(), parameters)
    for gradient, exact in zip(ours, wanted, strict=True):
        torch.testing.assert_close(gradient, exact, rtol=1e-12, atol=1e-13)


def test_frozen_joint_weights_have_no_gradient():
    net = net_of("shared")
    net.block[0].weight.requires_grad_(False)
    layers_of(net, SERIAL_COMMUNICATOR, 4).parameters[1].sum().backward()
    assert net.block[0].weight.grad is None
    assert torch.equal(net.block[0].bias.grad, torch.full((1, 3), 21.0, dtype=torch.float64))


class WithSide(torch.nn.Module):
    """Masked attention, and attention to a memory: products of states, weights and side inputs."""

    def __init__(self):
        super().__init__()
        self.own, self.cross = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, u, mask=None, memory=None, scale=1.0):
        scores = self.own(u) @ u.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, :], -1e9)
        out = scale * torch.softmax(scores, -1) @ u
        if memory is not None:
            out = out + torch.softmax(self.cross(u) @ memory.transpose(-1, -2), -1) @ memory
        return torch.tanh(out)


def side_inputs(seed):
    torch.manual_seed(seed)
    mask = torch.rand(2, 5) > 0.4
    mask[:, 0] = True
    x, memory = torch.randn(2, 5, 4).double(), torch.randn(2, 3, 4).double()
    return x.requires_grad_(), {"mask": mask, "memory": memory.requires_grad_(), "scale": 0.5}


@pytest.mark.parametrize("coarse", ["mean", "first", "fused", "identity", "serial"])
@pytest.mark.parametrize("options", [{}, {"weights": "shared"}, {"learnable_steps": True}])
def test_side_inputs_reach_all_layers_and_get_their_gradients(coarse, options):
    torch.manual_seed(0)
    net = ODENet(WithSide(), 7, 2.0, boundary_layers=(1, 1), **options).double()
    settings = {"mode": "serial"} if coarse == "serial" else {"coarse": coarse}
    parallel = LayerParallel(net, 2, 3, control=CyclesToTolerance(1e-13, max_cycles=20), **settings)
    for seed in range(3):  # other tensors in each call; none of those before is used again
        x, side = side_inputs(seed)
        wanted = [x, side["memory"], *net.parameters()]
        u = x
        for layer in net.to_sequential():
            u = layer(u, **side)
        outputs = u, net(x, **side), parallel(x, **side)
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(outputs[2], outputs[0], rtol=1e-11, atol=1e-12)
        expected = torch.autograd.grad(u.square().sum(), wanted[:2])  # its weights are copies
        found = [torch.autograd.grad(y.square().sum(), wanted) for y in outputs[1:]]
        torch.testing.assert_close(found[0][:2], expected, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-10)
    assert (parallel(x, mask=side["mask"]) - parallel(x)).abs().max() > 1e-3


def test_second_derivatives_with_side_inputs():
    torch.manual_seed(0)
    net = ODENet(WithSide(), 4, 1.0).double()
    parallel = LayerParallel(net, 2, 2, control=CyclesToTolerance(1e-13, max_cycles=20))
    x, side = side_inputs(0)
    found = []
    for module in (net, parallel):
        (slope,) = torch.autograd.grad(module(x, **side).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), [x, side["memory"]]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-10)


class Checked(WithSide):
    """Has its side inputs in a closure, and dropout behind the first layer of a checkpoint."""

    def __init__(self, checkpoints):
        super().__init__()
        self.checkpoints, self.drop = checkpoints, nn.Dropout(0.3)

    def forward(self, u, **side):
        def inside(v):
            return super(Checked, self).forward(self.drop(v), **side)

        return checkpoint(inside, u, use_reentrant=False) if self.checkpoints else inside(u)


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("mode", ["net", "mgrit", "serial", "untraced"])
def test_checkpoints_inside_a_block_with_side_inputs(mode, cast):
    """Outputs, and gradients of all that requires one, are those of the block without them."""
    found = []
    for checkpoints in (False, True):
        torch.manual_seed(0)
        net = ODENet(Checked(checkpoints), 4).double()
        module = net
        if mode != "net":
            net.kernel.traced = mode != "untraced"
            control = CyclesToTolerance(1e-13, max_cycles=20)
            kind = "serial" if mode == "serial" else "mgrit"
            module = LayerParallel(net, 2, 2, control=control, mode=kind)
        x, side = side_inputs(0)
        for _ in range(2):  # checkpoints are found in the first
            with torch.autocast("cpu", torch.bfloat16, enabled=cast):
                out = module(x, **side)
            leaves = [x, *net.parameters()]
            leaves += [each for each in side.values() if getattr(each, "requires_grad", False)]
            gradients = torch.autograd.grad(out.square().sum(), leaves)
            found.append([out.detach(), *gradients])
        assert net.kernel.draws.recomputes == checkpoints
    assert len(found[0]) == 2 + len([*net.parameters()]) + 1
    for plain, checked in zip(found[:2], found[2:], strict=True):
        for a, b in zip(checked, plain, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_a_side_input_edited_before_a_checkpoint_is_called_again_is_refused():
    net = ODENet(Checked(True), 3).double()
    x, side = side_inputs(0)
    memory = side["memory"].detach()
    out = net(x, memory=memory)
    memory += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_evaluate_gives_the_side_inputs_of_each_batch():
    torch.manual_seed(0)
    net = ODENet(WithSide(), 4, boundary_layers=(1, 1)).double()
    parallel = LayerParallel(net, 2, 2, control=CyclesToTolerance(1e-13, max_cycles=20))
    batches = [(x, None, side) for x, side in (side_inputs(0), side_inputs(1))]
    found = parallel.evaluate(lambda out, _: out.square().mean(), batches)
    with torch.no_grad():
        expected = sum(float(net(x, **side).square().mean()) for x, _, side in batches) / 2
    assert found == pytest.approx({"serial": expected, "mgrit": expected}, rel=1e-9)


@pytest.mark.parametrize("mode", ["mgrit", "serial"])
def test_side_inputs_edited_before_the_backward_pass_are_refused(mode):
    net = ODENet(WithSide(), 4).double()
    x, side = side_inputs(0)
    memory = side["memory"].detach()
    out = LayerParallel(net, 2, 2, mode=mode)(x, memory=memory)
    memory += 1.0
    with pytest.raises(RuntimeError, match="side inputs were edited in place after the forward"):
        out.sum().backward()


@pytest.mark.parametrize("frozen", ["nothing", "own", ""])
def test_trials_of_auto_leave_the_graph_of_a_side_input_alone(frozen):
    torch.manual_seed(0)
    net = ODENet(WithSide(), 4, before=torch.nn.Linear(4, 4)).double()
    for name, parameter in net.block.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    control = CyclesToTolerance(1e-13, max_cycles=20)
    auto = LayerParallel(net, 2, 2, control=control, mode="auto")
    x, side = side_inputs(0)
    found = []
    for module in (net, auto):
        memory = net.before(side["memory"]).tanh()
        out = module(x, memory=memory).square().sum()
        found.append(torch.autograd.grad(out, [*net.before.parameters(), side["memory"]]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-10)
