"""Law: a backward pass has the autocast of its forward pass, wherever it is called."""

import copy
import random

import pytest
import torch
from torch import nn

from mgnet.depth import FixedCycles, LayerParallel, ODENet
from mgnet.depth.batched.autocast import cast_of, same_cast, uncast, without_cast
from mgnet.knots import KAN


def test_nothing_is_cast_without_autocast():
    assert cast_of("cpu") is None
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        assert cast_of("cpu") is None


@pytest.mark.parametrize("inside", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("later", [None, torch.bfloat16, torch.float16])
def test_it_comes_back_whatever_there_is_later(inside, later):
    with torch.autocast("cpu", inside or torch.bfloat16, enabled=inside is not None):
        again = same_cast("cpu")
        wanted = torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype
    with torch.autocast("cpu", later or torch.bfloat16, enabled=later is not None):
        with again():
            assert cast_of("cpu") == inside
            assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == wanted
        assert cast_of("cpu") == later


def test_off_for_a_moment_whatever_happens():
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(ValueError, match="x"), without_cast("cpu"):
            assert cast_of("cpu") is None
            raise ValueError("x")
        assert cast_of("cpu") == torch.bfloat16
    with without_cast("cpu"):
        assert cast_of("cpu") is None
    assert cast_of("cpu") is None


# Law: under autocast, with the backward pass outside as PyTorch advises, a LayerParallel module
# gives what the ODENet gives. Blocks by the operations that autocast treats differently.


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, u):
        v = self.norm(u)
        return self.attention(v, v, v, need_weights=False)[0]


class Softmax(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.Linear(4, 12)

    def forward(self, u):
        q, k, v = self.heads(u).chunk(3, -1)
        return torch.softmax(q @ k.mT / 2, -1) @ v


VECTORS, WORDS, IMAGES = (8, 12), (3, 5, 4), (3, 4, 6, 6)
BLOCKS = {
    "linear": (lambda: [nn.Linear(12, 12), nn.Tanh()], VECTORS),
    "relu": (lambda: [nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 12)], VECTORS),
    "gelu": (lambda: [nn.Linear(12, 5), nn.GELU(), nn.Linear(5, 12)], VECTORS),
    "silu": (lambda: [nn.Linear(12, 5), nn.SiLU(), nn.Linear(5, 12)], VECTORS),
    "dropout": (lambda: [nn.Linear(12, 12), nn.Dropout(0.3), nn.Tanh()], VECTORS),
    "layer norm first": (lambda: [nn.LayerNorm(12), nn.Linear(12, 12)], VECTORS),
    "layer norm last": (lambda: [nn.Linear(12, 12), nn.LayerNorm(12)], VECTORS),
    "layer norm without bias": (lambda: [nn.Linear(12, 12), nn.LayerNorm(12, bias=False)], VECTORS),
    "group norm last": (lambda: [nn.Linear(12, 12), nn.GroupNorm(2, 12)], VECTORS),
    "batch norm": (lambda: [nn.Linear(12, 12), nn.BatchNorm1d(12), nn.Tanh()], VECTORS),
    "log softmax": (lambda: [nn.Linear(12, 12), nn.LogSoftmax(-1)], VECTORS),
    "softmax": (lambda: [Softmax()], WORDS),
    "attention": (lambda: [Attention()], WORDS),
    "encoder layer": (
        lambda: [nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)],
        WORDS,
    ),
    "convolution": (lambda: [nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()], IMAGES),
    "convolution, norms": (
        lambda: [nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4), nn.BatchNorm2d(4)],
        IMAGES,
    ),
    "kan": (lambda: [KAN([12, 12], dtype=torch.float32)], VECTORS),
}


class Low(nn.Module):
    """Gives the state the type of autocast, as a linear layer before the net does."""

    def forward(self, x):
        return x.to(cast_of("cpu") or x.dtype)


def made(block, mode="mgrit", traced=True, before=None):
    torch.manual_seed(0)
    net = ODENet(nn.Sequential(*block()), 6, before=before)
    net.kernel.traced = traced
    return net, LayerParallel(net, 2, 2, control=FixedCycles(4), mode=mode)


def gradients(model, net, x, dtype, scaler=None):
    """Output, and gradients of the input and of all parameters, of a loss outside of autocast."""
    net.zero_grad()
    net.calls, u = 0, x.clone().requires_grad_()
    statistics = copy.deepcopy(dict(net.named_buffers()))
    with torch.autocast("cpu", dtype):
        out = model(u)
    loss = (out.float() * torch.linspace(-1, 1, out.shape[-1])).mean()
    (loss if scaler is None else scaler.scale(loss)).backward()
    for name, buffer in net.named_buffers():
        buffer.copy_(statistics[name])
    scale = 1.0 if scaler is None else scaler.get_scale()
    weights = torch.cat([p.grad.ravel() / scale for p in net.parameters()])
    return out.detach(), u.grad / scale, weights


@pytest.mark.filterwarnings(
    "ignore:ODENet draws each layer separately", "ignore:torch.vmap cannot map"
)
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("block", BLOCKS)
def test_gradients_are_those_of_the_serial_net(block):
    rng = random.Random(block)
    dtype = rng.choice([torch.bfloat16, torch.float16])
    make, shape = BLOCKS[block]
    before = rng.choice([None, Low()]) if block != "kan" else None
    net, parallel = made(make, rng.choice(["mgrit", "serial"]), rng.random() < 0.8, before)
    scaler = torch.amp.GradScaler("cpu", 1024.0) if rng.random() < 0.5 else None
    x = torch.randn(shape)
    found = gradients(parallel, net, x, dtype, scaler)
    for one, right in zip(found, gradients(net, net, x, dtype), strict=True):
        assert one.dtype == right.dtype
        assert (one - right).norm() <= 2e-2 * right.norm()


@pytest.mark.parametrize("mode", ["mgrit", "serial"])
def test_a_grad_scaler_trains_and_steps_over_overflow(mode):
    """As with the net itself: the scale comes down until gradients are finite, then losses fall."""
    traces = []
    for parallel in (True, False):
        net, model = made(BLOCKS["gelu"][0], mode)
        model = model if parallel else net
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", 2.0**40)
        x, losses, scales = torch.randn(8, 12), [], []
        for _ in range(40):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = (model(x).float() - 1.0).square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
            scales.append(scaler.get_scale())
        assert scales[0] == 2.0**39 and scales[-1] < 2.0**30 and losses[-1] < losses[0]
        traces.append(torch.tensor([losses, scales]))
    torch.testing.assert_close(traces[0][0], traces[1][0], rtol=5e-2, atol=1e-3)
    scales = traces[0][1].log2(), traces[1][1].log2()  # apart by one, where an overflow is close
    torch.testing.assert_close(*scales, rtol=0.0, atol=1.0)


def test_an_overflow_without_a_scaled_type_is_an_error_as_before():
    _, parallel = made(BLOCKS["linear"][0])
    with torch.autocast("cpu", torch.bfloat16):
        out = parallel(torch.randn(8, 12))
    with pytest.raises(FloatingPointError, match="backward pass meets a state"):
        (out * torch.inf).sum().backward()


def test_a_program_has_the_conversions_that_it_was_made_with():
    x = torch.ones(2, 2)
    assert uncast(torch.mm, "cpu") is torch.mm
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.mm(x, x).dtype == torch.bfloat16
        assert uncast(torch.mm, "cpu")(x, x).dtype == torch.float32
        assert cast_of("cpu") == torch.bfloat16
