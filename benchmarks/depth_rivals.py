"""Loops for benchmarks/depth_vs_serial.py: one ODE net forward and backward, layer after layer.

Every loop is a function of a `Problem` that returns `work`; `work()` runs once and returns the
output and the gradients of <output, problem.toward> with respect to x, weights and biases.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d

Lists = list[Tensor]


class Problem(NamedTuple):
    """u[n+1] = u[n] + step * tanh(weights[n] u[n] + biases[n]), dense or 3 x 3 convolutions."""

    weights: Tensor  # (layers, width, width) or (layers, channels, channels, 3, 3)
    biases: Tensor  # (layers, width)
    x: Tensor  # (batch, width) or (batch, channels, pixels, pixels)
    toward: Tensor  # the loss is <output, toward>
    step: float


def slope(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    dense = weight.ndim == 2
    product = torch.addmm(bias, u, weight.mT) if dense else conv2d(u, weight, bias, padding=1)
    return product.tanh()


class Result(NamedTuple):
    """Output and gradients; the layers on axis 0."""

    output: Tensor
    x: Tensor
    weights: Tensor
    biases: Tensor


Work = Callable[[], Result]


def problem(layers: int, shape: tuple[int, ...], batch: int, start: str, seed: int) -> Problem:
    """Weights of a few Fourier modes in depth ("smooth"), or those of a new Linear ("default")."""
    generator = torch.Generator().manual_seed(seed)
    width, wide = shape[0], shape[0] * (9 if len(shape) > 1 else 1)
    size = (width, width, 3, 3) if len(shape) > 1 else (width, width)
    if start == "smooth":
        angle = 2.0 * math.pi * torch.arange(layers) / layers
        modes = [torch.ones(layers), angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin()]
        basis = 2.0 / math.sqrt(5 * wide) * torch.stack(modes, 1)
        weights = (basis @ torch.randn(5, math.prod(size), generator=generator)).view(-1, *size)
        biases = 0.1 * basis @ torch.randn(5, width, generator=generator)
    else:
        bound = 1.0 / math.sqrt(wide)
        weights = bound * (2.0 * torch.rand(layers, *size, generator=generator) - 1.0)
        biases = bound * (2.0 * torch.rand(layers, width, generator=generator) - 1.0)
    x, toward = torch.randn(2, batch, *shape, generator=generator)
    return Problem(weights.contiguous(), biases, x, toward, 1.0 / layers)


def by_autograd(told: Problem) -> Result:
    """The reference: float64, an ordinary loop."""
    x, weights, biases = (t.double().requires_grad_() for t in (told.x, told.weights, told.biases))
    u = x
    for weight, bias in zip(weights, biases, strict=True):
        u = u + told.step * slope(u, weight, bias)
    gradients = torch.autograd.grad(u, [x, weights, biases], told.toward.double())
    return Result(u.detach(), *gradients)


class Net(torch.nn.Module):
    """What one writes first: a list of modules and a loop."""

    def __init__(self, told: Problem):
        super().__init__()
        width, dense = told.biases.shape[1], told.weights.ndim == 3
        self.step = told.step
        self.layers = torch.nn.ModuleList(
            torch.nn.Linear(width, width) if dense else torch.nn.Conv2d(width, width, 3, padding=1)
            for _ in told.weights
        )
        with torch.no_grad():
            for layer, weight, bias in zip(self.layers, told.weights, told.biases, strict=True):
                for parameter, value in zip(layer.parameters(), (weight, bias), strict=True):
                    parameter.copy_(value)

    def forward(self, u: Tensor) -> Tensor:
        for layer in self.layers:
            u = u + self.step * torch.tanh(layer(u))
        return u


def eager(told: Problem) -> Work:
    net, x = Net(told).to(told.x.device), told.x.clone().requires_grad_()
    inputs = [x, *(p for layer in net.layers for p in (layer.weight, layer.bias))]

    def work() -> Result:
        y = net(x)
        first, *others = torch.autograd.grad(y, inputs, told.toward)
        return Result(y, first, others[::2], others[1::2])  # type: ignore[arg-type]

    return work


def torchbraid(told: Problem, factor: int, iterations: int) -> Work:
    """TorchBraid's LayerParallel with two levels, both ways as our cycles are.

    The first descent is skipped, F-relaxation on the finest level: one iteration is the cascade
    alone, two are the cascade and one cycle.
    """
    from mpi4py import MPI
    from torchbraid import LayerParallel  # type: ignore

    width, dense = told.biases.shape[1], told.weights.ndim == 3

    def block() -> torch.nn.Module:
        linear = torch.nn.Linear(width, width)
        layer = linear if dense else torch.nn.Conv2d(width, width, 3, padding=1)
        return torch.nn.Sequential(layer, torch.nn.Tanh())

    layers = len(told.weights)
    parallel = LayerParallel(MPI.COMM_WORLD, block, layers, layers * told.step, 2, 2, iterations)
    parallel.setPrintLevel(0)
    parallel.setSkipDowncycle(True)
    parallel.setCFactor(factor)
    parallel.setNumRelax(0, level=0)
    with torch.no_grad():
        pairs = zip(told.weights, told.biases, strict=True)
        for parameter, value in zip(
            parallel.parameters(), (value for pair in pairs for value in pair), strict=True
        ):
            parameter.copy_(value)
    x = told.x.clone().requires_grad_()

    def work() -> Result:
        y = parallel(x)
        first, *others = torch.autograd.grad(y, [x, *parallel.parameters()], told.toward)
        return Result(y.detach(), first, others[::2], others[1::2])  # type: ignore[arg-type]

    return work


@cache
def chunk_of_layers(step: float, chunk: int, cpp_wrapper: bool) -> Any:
    """One compiled function, compiled once: all chunks have the same shapes."""

    def run(u: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
        for n in range(chunk):
            u = u + step * slope(u, weights[n], biases[n])
        return u

    options: Any = {"cpp_wrapper": cpp_wrapper}  # a fifth faster at width 16, where calls are all
    return torch.compile(run, fullgraph=True, dynamic=False, options=options)


def compiled(told: Problem, chunk: int) -> Work:
    run = chunk_of_layers(told.step, chunk, not told.x.is_cuda)
    x = told.x.clone().requires_grad_()
    weights, biases = (
        [part.clone().requires_grad_() for part in whole.split(chunk)]
        for whole in (told.weights, told.biases)
    )

    def work() -> Result:
        u = x
        for some, offsets in zip(weights, biases, strict=True):
            u = run(u, some, offsets)
        first, *others = torch.autograd.grad(u, [x, *weights, *biases], told.toward)
        half = len(weights)
        return Result(u, first, others[:half], others[half:])  # type: ignore[arg-type]

    return work


def forward_loop(A: Lists, inputs: Lists, states: Lists, slopes: Lists, step: float) -> None:
    for n in range(len(A)):
        slope = slopes[n]
        torch.mm(A[n], inputs[n], out=slope)
        slope.tanh_()
        torch.add(states[n], slope, alpha=step, out=states[n + 1])


def backward_loop(lam: Tensor, transposed: Lists, derivatives: Lists, pulled: Lists) -> None:
    for m in range(len(transposed)):
        n = len(transposed) - 1 - m
        torch.mul(lam, derivatives[n], out=pulled[n])
        lam.addmm_(transposed[n], pulled[n])


class HandWritten:
    """The dense net by hand: no autograd, no allocation, five calls per layer.

    Samples are columns, and every state has a row of ones below, so that a bias is a column of its
    matrix and one product does both; all gradients of the weights are one batched product at the
    end. `scripted` hands the two loops to TorchScript, whose calls cost less than Python's.
    """

    def __init__(self, told: Problem, scripted: bool = False):
        layers, width, _ = told.weights.shape
        self.told, self.width, x = told, width, told.x
        self.A = x.new_empty(layers, width, width + 1)
        self.states = x.new_ones(layers + 1, width + 1, len(x))
        self.slopes, self.derivatives, self.pulled = x.new_empty(3, layers, width, len(x))
        self.gradient = torch.empty_like(self.A)
        self.lam = x.new_empty(width, len(x))
        # Indexing costs as much as arithmetic here: the views are taken once.
        self.views = [
            list(t)
            for t in (
                self.A,
                self.states,
                self.states[:, :width],
                self.slopes,
                self.A[:, :, :width].mT,
                self.derivatives,
                self.pulled,
            )
        ]
        self.loops = loops_by_torchscript() if scripted else (forward_loop, backward_loop)

    @torch.inference_mode()
    def __call__(self) -> Result:
        told, width = self.told, self.width
        A, inputs, states, slopes, transposed, derivatives, pulled = self.views
        self.A[:, :, :width] = told.weights
        self.A[:, :, width] = told.biases
        states[0].copy_(told.x.mT)
        self.loops[0](A, inputs, states, slopes, told.step)
        torch.mul(self.slopes, self.slopes, out=self.derivatives)
        self.derivatives.mul_(-told.step).add_(told.step)
        self.lam.copy_(told.toward.mT)
        self.loops[1](self.lam, transposed, derivatives, pulled)
        torch.bmm(self.pulled, self.states[:-1].mT, out=self.gradient)
        gradient = self.gradient
        return Result(states[-1].mT, self.lam.mT, gradient[..., :width], gradient[..., width])


@cache
def loops_by_torchscript() -> tuple[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and still the fastest loop
        return torch.jit.script(forward_loop), torch.jit.script(backward_loop)


def hand_written_convolutions(told: Problem) -> Work:
    """Without autograd; the product with the derivative of tanh is the only temporary."""
    layers = len(told.weights)
    weights, biases = told.weights.unbind(), told.biases.unbind()
    states = torch.empty(layers + 1, *told.x.shape, device=told.x.device)
    slopes = list(torch.empty_like(states[1:]))
    gradients, sums = torch.empty_like(told.weights), torch.empty_like(told.biases)
    pull = torch.ops.aten.convolution_backward.default
    shape = (None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (True, True, True))

    @torch.inference_mode()
    def work() -> Result:
        states[0].copy_(told.x)
        for n in range(layers):
            slopes[n] = conv2d(states[n], weights[n], biases[n], padding=1).tanh_()
            torch.add(states[n], slopes[n], alpha=told.step, out=states[n + 1])
        lam = told.toward.clone()
        for n in reversed(range(layers)):
            factor = torch.mul(slopes[n], slopes[n]).mul_(-told.step).add_(told.step)
            told_back = pull(factor.mul_(lam), states[n], weights[n], *shape)
            lam.add_(told_back[0])
            gradients[n], sums[n] = told_back[1], told_back[2]
        return Result(states[-1], lam, gradients, sums)

    return work


def graphed(work: Work) -> Work:
    """Recorded once as a CUDA graph, replayed afterwards: no launch costs at all."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> Result:
        graph.replay()
        return result

    return replay


def seconds_to_first(work: Work) -> float:
    """Seconds of the first call, which includes the compiler."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def errors(result: Result, exact: Result) -> tuple[float, float]:
    """Relative errors, 2-norm: of the output, of all gradients together."""
    parts = [t if torch.is_tensor(t) else join(t, exact[n]) for n, t in enumerate(result)]
    off = [
        float(torch.linalg.vector_norm(part.detach().cpu().double() - true.detach().cpu()))
        for part, true in zip(parts, exact, strict=True)
    ]
    size = [float(torch.linalg.vector_norm(true.detach())) for true in exact]
    return off[0] / size[0], math.hypot(*off[1:]) / math.hypot(*size[1:])


def join(parts: Any, like: Tensor) -> Tensor:
    """Gradients of single layers or of chunks of them, on axis 0."""
    return torch.cat([part.reshape(-1, *like.shape[1:]) for part in parts])
