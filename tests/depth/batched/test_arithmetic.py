"""Bits: layers in one call equal the same layers in smaller groups."""

import pytest
import torch
from torch import nn
from torch.func import stack_module_state

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers

GROUPS = slice(4, 5), slice(0, 7), slice(2, 9)
MORE = slice(0, 1), slice(1, 3), slice(2, 5), slice(1, 32, 5)


def smooth(width):
    return nn.Sequential(nn.Linear(width, width), nn.Tanh())


def many(width):
    pointwise = nn.SiLU(), nn.GELU(), nn.ELU(), nn.Mish(), nn.Softplus(), nn.Sigmoid()
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), *pointwise, nn.Softmax(-1))


def wide(width):
    """Functions of rows that are a multiple of a vector, which stay whole."""
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.SiLU(), nn.GELU(approximate="tanh"))


def normalised(width):
    return nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.LogSigmoid())


def convolution(width):
    return nn.Sequential(nn.Unflatten(1, (1, width)), nn.Conv1d(1, 1, 3, padding=1), nn.Flatten())


CASES = [
    (smooth, width, batch, dtype)
    for width, batch in ((3, 5), (8, 32), (16, 1), (16, 32), (32, 5), (64, 32), (100, 5))
    for dtype in (torch.float32, torch.float64)
]
CASES += [(many, 17, 5, torch.float32), (many, 3, 1, torch.float64)]
CASES += [(wide, 64, batch, torch.float32) for batch in (1, 5, 32)]
CASES += [(wide, 128, 3, torch.float64), (wide, 32, 3, torch.float32), (wide, 17, 5, torch.float32)]
CASES += [(normalised, 3, 5, torch.float64), (normalised, 16, 32, torch.float32)]
CASES += [(convolution, 8, 5, torch.float32)]


def results(block, layers, states, lam):
    tape = block.record(layers, states)
    pulled, parameters, steps = tape.vjp_all(lam)
    found = [tape.value, tape.vjp(lam), pulled, *parameters, *tape.new_buffers]
    return found if steps is None else [*found, steps]


@pytest.mark.parametrize(("make", "width", "batch", "dtype"), CASES)
def test_bits_do_not_depend_on_the_number_of_layers(make, width, batch, dtype):
    torch.manual_seed(0)
    modules = [make(width).to(dtype) for _ in range(32)]
    parameters, buffers = (tuple(x.values()) for x in stack_module_state(modules))
    times = torch.linspace(0.1, 0.9, 32, dtype=dtype)
    layers = Layers(tuple(x.detach() for x in parameters), buffers, times, times)
    states, lam = torch.randn(2, 32, batch, width, dtype=dtype)
    block = StackedBlock(modules[0], "heun" if width == 8 else "euler")
    whole = results(block, layers, states, lam)
    for which in GROUPS + MORE if make is smooth and width in (3, 16) else GROUPS:
        part = results(block, layers[which], states[which], lam[which])
        for x, y in zip(part, whole, strict=True):
            assert torch.equal(x, y[which])


@pytest.mark.parametrize("x", [-1e4, -100.0, -1.0, 0.0, 3.0, 1e4])
def test_functions_stay_right_far_out(x):
    for make in (nn.Sigmoid, nn.SiLU, nn.GELU, nn.Softplus, nn.Mish, nn.ELU, nn.LogSigmoid):
        block, state = make(), torch.full((1, 1, 1), x, requires_grad=True)
        tape = StackedBlock(block).record(Layers((), (), *torch.ones(2, 1)), state.detach())
        torch.testing.assert_close(tape.value, block(state).detach())
        slope = torch.autograd.grad(block(state), state, torch.ones_like(state))[0]
        torch.testing.assert_close(tape.vjp(torch.ones_like(state)), slope)


class Spread(nn.Module):
    """Variances by NumPy's convention, by Bessel's and by another, over several axes."""

    def forward(self, u):
        alone = u.var(correction=0) + u.var(-1, keepdim=True)
        return u * alone + torch.var(u, (0, 1), correction=2) + u.std(0, correction=0)


def test_variances_have_the_correction_that_was_asked_for():
    u = torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True)
    tape = StackedBlock(Spread()).record(Layers((), (), *torch.ones(2, 1)), u.detach())
    x = u.detach()[0].numpy()
    expected = x * (x.var() + x.var(1, ddof=1, keepdims=True)) + x.var(ddof=2) + x.std(0)
    torch.testing.assert_close(tape.value[0], torch.from_numpy(expected), rtol=1e-12, atol=1e-13)
    slope = torch.autograd.grad(Spread()(u[0]).sum(), u)[0]
    torch.testing.assert_close(tape.vjp(torch.ones_like(u)), slope, rtol=1e-12, atol=1e-13)


class Scaled(nn.Module):
    def __init__(self, correction):
        super().__init__()
        self.correction = correction

    def forward(self, u):
        return u.exp() / (1 + torch.var(u, 0, correction=self.correction))


@pytest.mark.filterwarnings("ignore:var\\(\\)")
@pytest.mark.parametrize("correction", [3, 3.5, 4, 4.5, 7])
def test_variances_of_fewer_numbers_than_the_correction_are_those_of_pytorch(correction):
    block, u = Scaled(correction), torch.randn(2, 4, 3, dtype=torch.float64)
    u[1] = 1.0  # 0 / 0 where the others are infinite
    layers = Layers((), (), *torch.ones(2, 2, dtype=torch.float64))
    leaf = u.clone().requires_grad_()
    expected = torch.stack([block(x) for x in leaf])
    (slope,) = torch.autograd.grad(expected.sum(), leaf)
    tape = StackedBlock(block).record(layers, u)
    torch.testing.assert_close(tape.value, expected, equal_nan=True)
    torch.testing.assert_close(tape.vjp(torch.ones_like(u)), slope, equal_nan=True)
