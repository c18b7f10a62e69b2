"""Spline layers on a device: checks and times for benchmarks/gpu.py.

The reference is the recursion of Cox and de Boor in float64 on the CPU, by autograd. It has another
form than what is measured: all splines at every input, then one product.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from gpu_clock import Machine, Row, checked, error, floor, milliseconds, poison
from knots_speed import CoxDeBoor
from torch.nn import SiLU

from mgnet.knots import layer
from mgnet.knots.layer import spline_layer

DEGREE, DOMAIN = 3, (-1.0, 1.0)
# Trilinear sums of each pass; arrays of samples and of coefficients that it reads or writes.
SUMS = {"forward": 1, "forward + backward": 3, "second derivatives": 4}
ARRAYS = {"forward": (2, 1), "forward + backward": (4, 2), "second derivatives": (4, 2)}
PEER = "all splines"  # efficient-kan's formula
# In a dry run: Triton's kernels on the CPU.
INTERPRETED = layer.has_triton and os.environ.get("TRITON_INTERPRET") == "1"

Layer = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def kernels(wanted: bool) -> Iterator[None]:
    """Triton's kernels (compiled loops on a CPU), or the layer in plain torch."""
    before = layer.has_triton, layer.compiled, layer._kernels
    layer.has_triton, layer.compiled = (wanted and known for known in before[:2])
    if wanted and INTERPRETED:
        from mgnet.knots import triton_kernels

        layer._kernels = lambda x: triton_kernels
    try:
        yield
    finally:
        layer.has_triton, layer.compiled, layer._kernels = before


def of_pass(name: str, apply: Layer, x: torch.Tensor, weights: list, g: torch.Tensor) -> list:
    """What a pass gives: the value; gradients; gradients of the squared slope."""
    if name == "forward":
        with torch.no_grad():
            return [apply(x)]
    y = apply(x)
    if name == "forward + backward":
        return [y, *torch.autograd.grad(y, [x, *weights], g)]
    (slope,) = torch.autograd.grad(y, x, g, create_graph=True)
    return [slope, *torch.autograd.grad(slope.square().sum(), [x, *weights])]


def all_splines(width: int, intervals: int) -> CoxDeBoor:
    return CoxDeBoor(width, width, intervals, DEGREE)


def reference(name: str, x: torch.Tensor, U: torch.Tensor, g: torch.Tensor) -> list:
    """In float64 on the CPU."""
    x, U = (t.detach().cpu().double().requires_grad_() for t in (x, U))
    peer = all_splines(len(U), U.shape[1] - DEGREE)
    steps = torch.arange(-DEGREE, U.shape[1] + 1, dtype=torch.float64)
    t = 2.0 * steps / (U.shape[1] - DEGREE) - 1.0
    peer.knots = t

    def apply(x: torch.Tensor) -> torch.Tensor:
        return peer.basis(x).flatten(-2) @ U.flatten(0, 1)

    return of_pass(name, apply, x, [U], g.detach().cpu().double())


def check(machine: Machine, width: int, intervals: int) -> float:
    """All passes of the layer, with kernels and without, on random inputs over NaN."""
    generator = torch.Generator().manual_seed(intervals)
    samples = 33 if machine.tiny else 257
    x = 2.0 * torch.rand(samples, width, generator=generator) - 1.0
    U = torch.randn(width, intervals + DEGREE, width, generator=generator)
    g = torch.randn(samples, width, generator=generator)
    x, U, g = (t.to(machine.device) for t in (x, U, g))
    x, U = x.requires_grad_(), U.requires_grad_()
    errors = {}
    for name in SUMS:
        exact = reference(name, x, U, g)
        for wanted in (True, False):
            with kernels(wanted):
                poison(machine)
                found = of_pass(name, of(U), x, [U], g)
            for n, (one, true) in enumerate(zip(found, exact, strict=True)):
                errors[f"{name} {n} {'with' if wanted else 'without'} kernels"] = error(one, true)
    return checked(f"spline layer, {intervals} intervals", errors, 2e-5)


def of(U: torch.Tensor) -> Layer:
    intervals = U.shape[1] - DEGREE
    return lambda x: spline_layer(x, U, intervals, DEGREE, DOMAIN)


def passes(machine: Machine) -> Iterator[Row]:
    """A row for each grid, pass and form of the layer."""
    width, batch = (3, 40) if machine.tiny else (64, 65536)
    grids = (5, 8) if machine.tiny else (5, 32, 128, 512)
    triton = INTERPRETED or (machine.is_gpu and layer.has_triton)
    ours = "Triton" if triton else "compiled loops"
    for intervals in grids:
        yield {
            "part": "checks",
            "case": f"spline layer, grid {intervals}",
            "error": check(machine, width, intervals),
        }
    for intervals in grids:
        x = (2.0 * torch.rand(batch, width, device=machine.device) - 1.0).requires_grad_()
        g = torch.randn(batch, width, device=machine.device)
        U = torch.randn(width, intervals + DEGREE, width, device=machine.device).requires_grad_()
        linear = torch.nn.Linear(width, width, device=machine.device)
        peer = all_splines(width, intervals).to(machine.device)
        forms: dict[str, tuple[Layer, list, bool]] = {
            ours: (of(U), [U], True),
            "plain torch": (of(U), [U], False),
            "Linear + SiLU": (torch.nn.Sequential(linear, SiLU()), [*linear.parameters()], True),
            PEER: (peer, [*peer.parameters()], True),
        }
        for name, sums in SUMS.items():
            of_samples, of_splines = ARRAYS[name]
            least = floor(
                machine,
                4.0 * (of_samples * batch * width + of_splines * U.numel()),
                2.0 * sums * batch * width * width * (DEGREE + 1),
                torch.float32,
            )
            for form, (apply, weights, wanted) in forms.items():
                row: Row = {"part": "spline layer", "case": name, "grid": intervals}
                row["method"] = form
                if form == PEER and intervals * batch * width >= 2**31:
                    continue  # each of its arrays would take 8 GiB
                work = partial(of_pass, name, apply, x, weights, g)
                try:
                    with kernels(wanted):
                        row["ms"] = milliseconds(machine, work)
                except RuntimeError as failure:  # memory, for a form that needs more
                    row["failure"] = str(failure).splitlines()[0]
                yield row | (least if form == ours else {})
