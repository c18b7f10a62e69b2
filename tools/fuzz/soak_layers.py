"""Long runs of `LayerParallel` over many shapes: what grows, and what a call costs.

`python -m tools.fuzz soak_layers --calls N --shapes M`, from the root of the repository. Every
second call has a backward pass. After two rounds over all shapes memory must stay to 5 %, files and
threads exactly, and the sources that `linecache` and torch.fx keep exactly. Then each shape is
timed by itself and in turn with the others: all together may cost 1.5 times as much at most. The
exit code is 1 if not.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import linecache
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import graph_module

from mgnet.depth import FixedCycles, LayerParallel, ODENet

__all__ = ["BLOCKS", "Sample", "cost", "grown", "network", "sample", "shapes", "soak"]

MEMORY = 0.05  # that the resident memory may grow, a fraction
DEARER = 1.5  # that a call may cost, next to calls of one shape alone


class Residual(nn.Module):
    """Attention that takes its state apart by batch and length."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.outer = nn.Linear(width, width)

    def forward(self, u: Tensor) -> Tensor:
        """The slope of a state (batch, length, width)."""
        batch, length, width = u.shape
        parts = self.inner(self.norm(u)).view(batch, length, 3, 2, width // 2)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.outer(mixed.transpose(1, 2).reshape(batch, length, width))


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.Linear(16, 16), nn.Tanh()),
    "attention": lambda: Residual(8),
}


class Sample(NamedTuple):
    """What the process holds at one time: resident memory, open files, threads, kept sources."""

    megabytes: float
    files: int
    threads: int
    sources: int


def sample() -> Sample:
    """Measure, after a full collection."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)
    status = Path("/proc/self/status").read_text()
    kept = getattr(getattr(graph_module, "_loader", None), "eval_cache", {})
    return Sample(
        int(status.split("VmRSS:")[1].split()[0]) / 1024,
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        len(linecache.cache) + len(kept),
    )


def grown(first: Sample, last: Sample) -> list[str]:
    """What grew too much, in words; empty for a flat run."""
    found = []
    if last.megabytes > (1.0 + MEMORY) * first.megabytes:
        found.append(f"memory from {first.megabytes:.0f} to {last.megabytes:.0f} MB")
    for name in ("files", "threads", "sources"):
        before, after = getattr(first, name), getattr(last, name)
        if after > before:
            found.append(f"{name} from {before} to {after}")
    return found


def network(block: str, layers: int) -> LayerParallel:
    """A small module of two levels, one cycle each way."""
    torch.manual_seed(0)
    net = ODENet(BLOCKS[block](), layers=layers)
    return LayerParallel(net, levels=2, coarsening=4, control=FixedCycles(1))


def shapes(block: str, count: int) -> list[tuple[int, ...]]:
    """Shapes of a batch: of many sizes, and of some lengths where the block has such."""
    if block == "linear":
        return [(2 + n, 16) for n in range(count)]
    return [(2 + n % 20, 2 + n // 20, 8) for n in range(count)]


def _call(module: LayerParallel, x: Tensor, backward: bool) -> None:
    if backward:
        module.zero_grad(set_to_none=True)
        module(x).square().mean().backward()
    else:
        with torch.no_grad():
            module(x)


def soak(
    module: LayerParallel,
    inputs: Sequence[Tensor],
    calls: int,
    report: Callable[[int, Sample], None] | None = None,
) -> list[Sample]:
    """The samples of a run: after two rounds of each kind of call, and ten more."""
    warm = 4 * len(inputs) + 1
    places = {warm + round(k * (calls - warm) / 10) for k in range(11)}
    samples = []
    for number in range(calls + 1):
        if number in places:
            samples.append(sample())
            if report is not None:
                report(number, samples[-1])
        round_, place = divmod(number, len(inputs))
        _call(module, inputs[place], (place + round_) % 2 == 0)
    return samples


def cost(module: LayerParallel, inputs: Sequence[Tensor], rounds: int = 5) -> tuple[float, float]:
    """Processor seconds of a call: each shape alone in its steady state, and all in turn."""
    alone = 0.0
    for x in inputs:
        for number in range(rounds + 2):
            if number == 2:
                began = time.process_time()
            _call(module, x, True)
        alone += time.process_time() - began
    began = time.process_time()
    for _ in range(rounds):
        for x in inputs:
            _call(module, x, True)
    mixed = time.process_time() - began
    return alone / (rounds * len(inputs)), mixed / (rounds * len(inputs))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz soak_layers", description=__doc__)
    parser.add_argument("--block", choices=sorted(BLOCKS), default="linear")
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--shapes", type=int, default=200)
    parser.add_argument("--layers", type=int, default=16)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    module = network(given.block, given.layers)
    inputs = [torch.randn(shape) for shape in shapes(given.block, given.shapes)]
    began = time.perf_counter()

    def report(number: int, now: Sample) -> None:
        seconds = time.perf_counter() - began
        print(
            f"{number} calls, {seconds:.0f} s: {now.megabytes:.1f} MB, {now.files} files, "
            f"{now.threads} threads, {now.sources} sources",
            flush=True,
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = soak(module, inputs, given.calls, report)
        alone, mixed = cost(module, inputs)
    found = grown(samples[0], samples[-1])
    if mixed > DEARER * alone:
        found.append("calls of many shapes cost too much")
    print(
        f"{given.block}, {given.shapes} shapes: {1e3 * mixed:.2f} ms a call, {1e3 * alone:.2f} ms "
        f"where one shape is alone ({mixed / alone:.2f}); grown: {', '.join(found) or 'nothing'}"
    )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
