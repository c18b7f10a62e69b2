"""LayerParallel in one process beside serial PyTorch: eager, compiled, and written by hand.

    python benchmarks/depth_vs_serial.py [--threads 1 2] [--seeds 5] [--save]
        [--cases 0 1 2 3 4] [--start smooth default] [--no-compile] [--device cuda]
        [--torchbraid PATH]

u += h tanh(W_n u + b_n), or the same with 3 x 3 convolutions; T = 1, float32, forward and backward,
gradients of x and of all weights. mgnet: two levels, "cascade + 1" and "cascade + 0" in both
directions, one level, which is not multigrid, and "auto", which chooses between one cycle with the
first factor and one level. Weights: a few Fourier modes in depth ("smooth"), or those with which
PyTorch begins ("default"). Other loops are in depth_rivals.py: a loop over modules; torch.compile
of chunks of layers (the best of some sizes; a C++ compiler must be there); a loop by hand, without
autograd and allocations, in Python and in TorchScript. With --device cuda also the loop by hand as
one CUDA graph. PATH is the folder in which TorchBraid was built (`src` of its repository, with
XBraid and mpi4py): two levels, the first factor of the case, F-relaxation, first descent skipped, 1
and 2 iterations, which are the cascade alone and with one cycle.

A run of some cases or threads takes a part of the time, and one with --no-compile a small part.
With --save each case is saved once it is
done, beside what other runs have saved of others: the table may be made piece by piece, each piece
side by side. The last case has no torch.compile, whose compilation would take longer than all else.

All take turns; each turn is as many calls as fit in 0.1 s. A row tells the least and the median
time of all calls of all seeds, how many times the least time of mgnet's best factor with one cycle
it is, and the relative error of the output and of all gradients against a float64 loop (median of
the seeds). "work" is counted in the blocks: evaluations + products with Jacobians, those that end
in weights counted twice, over the same of the serial loop, 3 per layer.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import saved
import torch
from depth_judged import AUTO, ONE_LEVEL, keep, table, told_of
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
    hand_written_convolutions,
    problem,
    seconds_to_first,
    torchbraid,
)

from mgnet.depth import FixedCycles, LayerParallel, ODENet

ROUNDS = 3


class Case(NamedTuple):
    """A net, the factors to try, and the sizes of compiled chunks."""

    layers: int
    shape: tuple[int, ...]
    batch: int
    factors: tuple[int, ...]
    chunks: tuple[int, ...]

    def __str__(self) -> str:
        shape = (
            f"width {self.shape[0]}"
            if len(self.shape) == 1
            else f"{self.shape[0]} channels {self.shape[1]} x {self.shape[2]}"
        )
        return f"{shape}, {self.layers} layers, batch {self.batch}"


CASES = (
    Case(1024, (16,), 32, (32,), (16, 32)),
    Case(1024, (32,), 32, (16, 32, 64), (16, 32)),
    Case(128, (32,), 32, (4,), (16, 32)),
    Case(32, (8, 28, 28), 32, (4,), (8,)),
    Case(4096, (32,), 16, (64,), ()),  # a batch of one vector: serially one thread has all
)


class Row(NamedTuple):
    """What was measured of one competitor."""

    seconds: list[float]
    errors: list[tuple[float, float]]  # of output and gradients, a pair per seed
    work: float


Rows = dict[str, Row]


def network(told: Problem) -> ODENet:
    """The net of the other loops as an ODENet."""
    width, dense = told.biases.shape[1], told.weights.ndim == 3
    layer = torch.nn.Linear(width, width) if dense else torch.nn.Conv2d(width, width, 3, padding=1)
    net = ODENet(torch.nn.Sequential(layer, torch.nn.Tanh()), len(told.weights))
    with torch.no_grad():
        net.block[0].weight.copy_(told.weights)
        net.block[0].bias.copy_(told.biases)
    return net.to(told.x.device)


def ours(
    told: Problem, levels: int, factor: int, mode: str, cycles: int = 1
) -> tuple[Work, Callable[[], float]]:
    """One forward and backward pass, and the counted work of one."""
    net = network(told)
    control = FixedCycles(
        cycles, tolerance=math.inf
    )  # whatever the error, which is in the table: no warning
    parallel = LayerParallel(net, levels, factor, control=control, mode=mode)
    x = told.x.clone().requires_grad_()
    inputs = [x, net.block[0].weight, net.block[0].bias]

    def work() -> Result:
        y = parallel(x)
        return Result(y, *torch.autograd.grad(y, inputs, told.toward))

    def counted() -> float:
        work()  # "auto" measures first
        kernel, layers = net.kernel, net.depth
        before = kernel.evaluations + kernel.vjps
        work()
        if kernel.evaluations + kernel.vjps == before:
            return 1.0  # serial
        return (kernel.evaluations + kernel.vjps - before + layers) / (3 * layers)

    return work, counted


def best_chunk(case: Case, sizes: Sequence[int], device: torch.device) -> tuple[int, str]:
    """The size of compiled chunks that runs fastest, and what is said of it; 0 without compiler."""
    if not sizes:
        return 0, "torch.compile is left out"
    told = to(device, problem(case.layers, case.shape, case.batch, "default", 0))
    times, seconds = {}, {}
    for chunk in sizes:
        work = compiled(told, chunk)
        try:
            seconds[chunk] = seconds_to_first(work)
        except Exception as error:  # a compiler raises whatever it likes
            return 0, f"torch.compile is left out: {str(error).splitlines()[0]}"
        times[chunk] = min(turn(work, device))
    best = min(times, key=times.__getitem__)
    told_of = ", ".join(f"{chunk}: {value:.0f} s" for chunk, value in seconds.items())
    return best, f"torch.compile, seconds until the first pass by size of chunks: {told_of}"


def to(device: torch.device, told: Problem) -> Problem:
    weights, biases, x, toward = (t.to(device) for t in told[:4])
    return Problem(weights, biases, x, toward, told.step)


def serial(told: Problem, chunk: int) -> dict[str, Work]:
    works: dict[str, Work] = {"eager loop": eager(told)}
    if chunk:
        works[f"torch.compile, chunks of {chunk}"] = compiled(told, chunk)
    if told.weights.ndim == 3:
        works["loop by hand"] = HandWritten(told)
        works["loop by hand, TorchScript"] = HandWritten(told, scripted=True)
    else:
        works["loop by hand"] = hand_written_convolutions(told)
    if told.x.is_cuda:
        works["loop by hand, CUDA graph"] = graphed(works["loop by hand"])
    return works


def by_torchbraid(told: Problem, case: Case) -> dict[str, Work]:
    return {
        f"TorchBraid, {n} iteration{'s' * (n > 1)}": torchbraid(told, case.factors[0], n)
        for n in (2, 1)
    }


def multigrid(told: Problem, case: Case) -> tuple[dict[str, Work], dict[str, float]]:
    """The passes of mgnet, and the work counted in one."""
    works, counts = {}, {}
    chosen = [
        (f"mgnet, factor {c}, c + {k}", 2, c, "mgrit", k) for k in (1, 0) for c in case.factors
    ]
    chosen.append((AUTO, 2, case.factors[0], "auto", 1))
    chosen.append((ONE_LEVEL, 1, 2, "mgrit", 1))
    for name, levels, factor, mode, cycles in chosen:
        works[name], counted = ours(told, levels, factor, mode, cycles)
        counts[name] = counted()
    return works, counts


def turn(work: Work, device: torch.device) -> list[float]:
    """Seconds of single calls, as many as fit in 0.1 s."""
    times: list[float] = []
    while sum(times) < 0.1 or len(times) < 2:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return times


def measure(
    case: Case, start: str, seeds: int, chunk: int, device: torch.device, braid: str | None
) -> Rows:
    rows: Rows = {}
    for seed in range(seeds):
        told = to(device, problem(case.layers, case.shape, case.batch, start, seed))
        exact = by_autograd(told)
        works, counts = multigrid(told, case)
        works = serial(told, chunk) | (by_torchbraid(told, case) if braid else {}) | works
        for name, work in works.items():
            uncounted = math.nan if name.startswith("TorchBraid") else 1.0
            row = rows.setdefault(name, Row([], [], counts.get(name, uncounted)))
            row.errors.append(errors(work(), exact))
        for n in range(ROUNDS):
            for name in list(works)[:: 1 if n % 2 else -1]:
                rows[name].seconds.extend(turn(works[name], device))
    return rows


def medians(rows: Rows) -> list[saved.Row]:
    """A row per competitor; `times` is over mgnet's best factor with one cycle."""
    least = {name: min(row.seconds) for name, row in rows.items()}
    best = min(least[name] for name in rows if name.endswith("c + 1"))
    found = []
    for name, row in rows.items():
        off = [statistics.median(column) for column in zip(*row.errors, strict=True)]
        middle = statistics.median(row.seconds)
        found.append(
            {"method": name, "ms_least": 1e3 * least[name], "ms_median": 1e3 * middle}
            | {"times": least[name] / best}
            | ({"work": row.work} if math.isfinite(row.work) else {})
            | {"output_error": off[0], "gradient_error": off[1]}
        )
    return found


def main(options: argparse.Namespace) -> None:
    if options.torchbraid:
        sys.path.insert(0, options.torchbraid)
    device = torch.device(options.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    setting = f"{options.seeds} seeds, float32, {where}"
    print(f"{setting}\n{saved.heading()}", flush=True)
    for case in [CASES[n] for n in options.cases]:
        sizes = () if options.no_compile else case.chunks
        for threads in options.threads if device.type == "cpu" else [1]:
            torch.set_num_threads(threads)
            chunk, of_compiler = best_chunk(case, sizes, device)
            sizes = (chunk,) if chunk else sizes  # other threads would compile again: no choice
            print(f"\n{told_of(str(case), threads)}\n  {of_compiler}", flush=True)
            for start in options.start:
                rounds = measure(case, start, options.seeds, chunk, device, options.torchbraid)
                about = {"case": str(case), "threads": threads, "start": start}
                rows = [about | row for row in medians(rounds)]
                print(f"\n  {start} weights\n{table(rows)}", flush=True)
                if options.save:
                    keep(options.save, setting, rows, [str(case) for case in CASES])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(CASES))))
    parser.add_argument("--start", nargs="+", default=["smooth", "default"])
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--torchbraid", metavar="PATH", help="where TorchBraid was built")
    saved.add_option(parser)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # nothing that was compiled before
        main(parser.parse_args())
