"""Very many layers, one after another: all states kept, or checkpoints.

    OMP_NUM_THREADS=1 python benchmarks/serial_memory.py [--layers 1000 10000 100000] [--save]

u_(n+1) = u_n + (10/N) tanh(W_n u_n + b_n), width 16, batch 32, single precision: the sum of squares
of the state at the end and its gradients, by `LayerParallel(net, levels=1, memory=...)`. Methods
take turns, one thread; a time is that of the processor in the fastest of three calls, the median
over seeds. MiB: by how much the process grows at most during a call, the weights, packed for the
loop, and their gradients included, which are there either way. States held: at one time, by the
rule that places the checkpoints; a layer that is recorded has the state and the tanh.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from itertools import pairwise

import saved
import torch
from calls import growth, seconds
from torch import Tensor, nn

WIDTH, BATCH = 16, 32
MEMORIES = ("states", "checkpoints")


Work = Callable[[], list[Tensor]]


def works(layers: int, weights: str) -> tuple[nn.Module, dict[str, Work]]:
    """The network, and a call with each kind of memory."""
    from mgnet.depth import LayerParallel, ODENet

    block = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
    net, start = ODENet(block, layers, 10.0, weights=weights), torch.randn(BATCH, WIDTH)

    def work(memory: str) -> Work:
        module = LayerParallel(net, levels=1, memory=memory)

        def run() -> list[Tensor]:
            u = start.clone().requires_grad_()
            inputs = [u, *net.parameters()]
            return [*torch.autograd.grad(module(u).square().sum(), inputs)]

        return run

    return net, {memory: work(memory) for memory in MEMORIES}


def held(layers: int, memory: str, kept: float = 2.0) -> float:
    from mgnet.depth.compiled.checkpoints import segment_ends

    if memory == "states":
        return kept * layers
    parts = pairwise(segment_ends(layers, kept, 4 * WIDTH * BATCH))
    return max(n + 1 + kept * (last - first) for n, (first, last) in enumerate(parts))


def measure(layers: int, weights: str, seeds: int) -> list[saved.Row]:
    from mgnet.depth.compiled.parameters import forget

    times: dict[str, list[float]] = {memory: [] for memory in MEMORIES}
    net, calls = works(layers, weights)
    sizes: dict[str, float] = {}
    for seed in range(seeds):
        torch.manual_seed(seed)
        for parameter in net.parameters():
            nn.init.uniform_(parameter, -(WIDTH**-0.5), WIDTH**-0.5)
        for a, b in zip(*[each() for each in calls.values()], strict=True):
            if not torch.equal(a, b):
                raise SystemExit(f"{layers} layers, {weights}: gradients differ")
        for memory, each in calls.items():
            times[memory].append(seconds(each))
            if not seed:
                forget()  # memory that is kept for the next call
                sizes[memory] = growth(each)
    rows = []
    for memory in MEMORIES:
        ratios = [a / b for a, b in zip(times[memory], times["states"], strict=True)]
        row: saved.Row = {"layers": layers, "weights": weights, "memory": memory}
        row |= {"ms_median": 1e3 * statistics.median(times[memory])}
        row |= {"ratio_median": statistics.median(ratios)}
        row |= {"ratio_least": min(ratios), "ratio_largest": max(ratios)}
        row |= {"held": held(layers, memory), "roots": held(layers, memory) / math.sqrt(layers)}
        row |= {"mib": sizes[memory]}
        rows.append(row)
    return rows


def line(row: saved.Row) -> str:
    ratios = f"{row['ratio_least']:.2f} to {row['ratio_largest']:.2f}"
    text = f"{row['layers']:>8} {row['weights']:<11}{row['memory']:<13}{row['ms_median']:>9.1f}"
    text += f"{row['ratio_median']:>8.2f}{ratios:>17}"
    return f"{text}{row['held']:>10.0f}{row['roots']:>9.2f}{row['mib']:>9.1f}"


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    made = []
    for row in rows:
        if row["memory"] == "checkpoints" and row["layers"] == 100_000:
            name, roots = f"100 000 layers, weights {row['weights']}", row["roots"]
            told = f"{name}: states held, in square roots of N"
            made.append(saved.target(told, "at most 3", f"{roots:.2f}", roots <= 3.0))
            ratio, told = row["ratio_median"], f"{name}: time over that with all states"
            made.append(saved.target(told, "at most 1.4", f"{ratio:.2f}", ratio <= 1.4))
    return made


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    setting = f"medians of {options.seeds} seeds, one thread, processor seconds"
    heads = f"{'':<33}{'ms':>9}{'ratio':>8}{'least to largest':>17}{'held':>10}{'/ sqrt N':>9}"
    lines, rows = [setting, saved.heading(), "", f"{heads}{'MiB':>9}"], []
    print("\n".join(lines), flush=True)
    for layers in options.layers:
        for weights in ("per layer", "shared"):
            found = measure(layers, weights, options.seeds)
            rows += found
            lines += [line(row) for row in found]
            print("\n".join(lines[-len(found) :]), flush=True)
    if options.save:
        text = "\n".join(lines)
        saved.save(options.save, "serial_memory", setting, rows, targets(rows), text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--seeds", type=int, default=5)
    saved.add_option(parser)
    main(parser.parse_args())
