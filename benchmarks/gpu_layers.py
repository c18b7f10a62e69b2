"""Layers on a device: one cycle of MGRIT and the march, as CUDA graphs and without.

The nets and the other loops are those of benchmarks/depth_rivals.py: dense tanh layers, with
weights that are smooth in depth. The reference is a loop in float64 on the CPU.
"""

import math
from collections.abc import Callable, Iterator

import torch
from depth_rivals import (
    HandWritten,
    Problem,
    Result,
    Work,
    by_autograd,
    compiled,
    eager,
    errors,
    graphed,
    problem,
)
from depth_vs_serial import network
from gpu_clock import Machine, Row, checked, floor, milliseconds, poison

from mgnet.depth import FixedCycles, LayerParallel, capture_graph

CYCLE, MARCH = "one cycle", "march"
ROUNDED = 1e-4  # relative errors: of one cycle from one on the CPU, of serial propagation


def ours(told: Problem, factor: int | None, graph: bool) -> Work:
    """A forward and a backward pass by a cycle, or layer by layer where there is no factor."""
    net = network(told)
    if factor is None:
        parallel = LayerParallel(net, mode="serial")
    else:
        control = FixedCycles(1, tolerance=math.inf)
        parallel = LayerParallel(net, 2, factor, control=control, mode="mgrit")
    x = told.x.clone().requires_grad_()
    module: Callable = capture_graph(parallel, x) if graph else parallel
    inputs = [x, net.block[0].weight, net.block[0].bias]

    def work() -> Result:
        y = module(x)
        return Result(y, *torch.autograd.grad(y, inputs, told.toward))

    return work


def works(told: Problem, factor: int) -> dict[str, Callable[[], Work]]:
    """What is timed; a graph is captured when its turn comes."""
    found = {
        CYCLE: lambda: ours(told, factor, False),
        MARCH: lambda: ours(told, None, False),
        "PyTorch eager": lambda: eager(told),
        "loop by hand": lambda: HandWritten(told),
    }
    if told.x.is_cuda:
        found[f"{CYCLE}, CUDA graph"] = lambda: ours(told, factor, True)
        found[f"{MARCH}, CUDA graph"] = lambda: ours(told, None, True)
        found["loop by hand, CUDA graph"] = lambda: graphed(HandWritten(told))
    return found


def compilers(told: Problem, factor: int) -> dict[str, Callable[[], Work]]:
    """torch.compile of all layers would take many minutes, and of 32 half a minute."""
    return {"torch.compile, chunks of 32": lambda: compiled(told, 32)}


def passes(
    machine: Machine, which: Callable[[Problem, int], dict[str, Callable[[], Work]]] = works
) -> Iterator[Row]:
    """A row for each number of layers and each form; forward and backward."""
    width, batch = (4, 3) if machine.tiny else (64, 128)
    for layers, factor in ((8, 2),) if machine.tiny else ((1024, 32), (64, 8)):
        near = problem(layers, (width,), batch, "smooth", 0)
        exact = by_autograd(near)
        same = ours(near, factor, False)()  # a cycle has an error of its own
        told = near._replace(
            **{
                name: getattr(near, name).to(machine.device)
                for name in ("weights", "biases", "x", "toward")
            }
        )
        row: Row = {"part": "layers", "case": f"{layers} layers of width {width}", "layers": layers}
        least = floor(
            machine,
            4.0 * (3 * layers * width * (width + 1) + 4 * batch * width),
            3.0 * 2.0 * layers * batch * width * width,
            torch.float32,
        )
        for name, make in which(told, factor).items():
            try:
                work = make()
                poison(machine)
                result = work()
                off = errors(result, exact)
                near_by = errors(result, same) if name.startswith(CYCLE) else off
                checked(name, {"output": near_by[0], "gradients": near_by[1]}, ROUNDED)
                ms = milliseconds(machine, work)
            except Exception as failure:  # one form must not lose the others
                yield row | {"method": name, "failure": f"{type(failure).__name__}: {failure}"}
                continue
            yield row | {"method": name, "ms": ms, "error": max(off)} | least


def compiled_passes(machine: Machine) -> Iterator[Row]:
    """As `passes`; not in a dry run, since it takes a C++ compiler and a minute."""
    return iter(()) if machine.tiny else passes(machine, compilers)
