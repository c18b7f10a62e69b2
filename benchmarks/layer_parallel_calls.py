"""A call of LayerParallel on a small net, beside an older state of mgnet.

    OMP_NUM_THREADS=1 python benchmarks/layer_parallel_calls.py [--base PATH] [--rounds 40] [--save]

What a call costs besides its tensor operations: nets u += h tanh(W_n u + b_n) that are narrow
enough for that to count, two levels and three, the cascade and one cycle each way; float32, one
thread. Training is forward and backward with the gradients of all weights, inference forward alone.

PATH is a worktree of an older commit; the published rows have cb918c4. Both states run in a process
of their own and take turns, each as many calls as fit in 0.1 s. A row tells the median over the
turns of the least time of a call, and the ratio, older over present, with its quartiles; and
whether output and gradients have the same bits. The eager loop is a loop over layers by autograd,
in the process of the present state.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import saved
import torch

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 0.1  # of a turn
TARGET = 1.25


class Case(NamedTuple):
    """A net of dense layers, and the levels of its cycles."""

    layers: int
    width: int
    batch: int
    levels: int
    factor: int

    def __str__(self) -> str:
        levels = f"{self.levels} levels, " if self.levels > 2 else ""
        return f"width {self.width}, {self.layers} layers, {levels}factor {self.factor}"


CASES = (
    Case(128, 32, 32, 2, 4),
    Case(128, 8, 32, 2, 8),
    Case(256, 16, 32, 3, 4),
)
WAYS = ("training", "inference")


def work_of(case: Case, way: str) -> Callable[[], list[torch.Tensor]]:
    """One call, by the mgnet that this process imports."""
    from mgnet.depth import LayerParallel, ODENet

    torch.manual_seed(0)
    layer = torch.nn.Linear(case.width, case.width)
    net = ODENet(torch.nn.Sequential(layer, torch.nn.Tanh()), case.layers)
    parallel = LayerParallel(net, case.levels, case.factor)
    x = torch.randn(case.batch, case.width, requires_grad=way == "training")
    toward = torch.randn(case.batch, case.width)

    def training() -> list[torch.Tensor]:
        y = parallel(x)
        return [y, *torch.autograd.grad(y, [x, *net.parameters()], toward)]

    def inference() -> list[torch.Tensor]:
        with torch.no_grad():
            return [parallel(x)]

    return training if way == "training" else inference


def eager_of(case: Case, way: str) -> Callable[[], object]:
    torch.manual_seed(0)
    weights, biases = torch.randn(case.layers, case.width, case.width), torch.randn(case.layers, 1)
    weights, biases = weights.mul_(0.1).requires_grad_(), biases.requires_grad_()
    x, toward = torch.randn(2, case.batch, case.width)

    def loop() -> torch.Tensor:
        u = x
        for W, b in zip(weights.unbind(), biases.unbind(), strict=True):
            u = u + torch.tanh(torch.nn.functional.linear(u, W, b.expand(case.width))) / case.layers
        return u

    def training() -> object:
        return torch.autograd.grad(loop(), [weights, biases], toward)

    def inference() -> object:
        with torch.no_grad():
            return loop()

    return training if way == "training" else inference


def least(work: Callable[[], object]) -> float:
    """Seconds of the fastest call of a turn."""
    times: list[float] = []
    while sum(times) < SECONDS or len(times) < 2:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def answer(number: int, way: str) -> None:
    """What a process does: print the bits of a call, then for each line it reads the seconds."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of estimated errors: one cycle is meant
    work = work_of(CASES[number], way)
    found = [tensor.detach().numpy().tobytes() for tensor in work()]
    print(hashlib.sha256(b"".join(found)).hexdigest(), flush=True)
    for _ in sys.stdin:
        print(least(work), flush=True)


class State:
    """A process with one state of mgnet."""

    def __init__(self, root: Path, number: int, way: str):
        words = [sys.executable, __file__, "--answer", str(number), way]
        path = f"{root}{os.pathsep}{ROOT / 'benchmarks'}"
        given = {"env": os.environ | {"PYTHONPATH": path}, "text": True}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process: Any = subprocess.Popen(words, **pipes, **given)  # type: ignore[call-overload]
        self.bits = self.process.stdout.readline()

    def turn(self) -> float:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(number: int, way: str, base: Path | None, rounds: int) -> saved.Row:
    case, eager = CASES[number], eager_of(CASES[number], way)
    states = [State(root, number, way) for root in (ROOT, base) if root]
    turns = []
    for n in range(rounds):
        order = states[:: 1 if n % 2 else -1]
        seconds = {id(state): state.turn() for state in order}
        turns.append([*(seconds[id(state)] for state in states), least(eager)])
    for state in states:
        state.close()
    ours, *before, loop = (statistics.median(column) for column in zip(*turns, strict=True))
    row: saved.Row = {"case": str(case), "way": way, "method": "mgnet"}
    row |= {"ms": 1e3 * ours, "ms_eager": 1e3 * loop}
    if before:
        ratios = [turn[1] / turn[0] for turn in turns]
        low, middle, high = statistics.quantiles(ratios, n=4)
        row |= {"ms_before": 1e3 * before[0], "gain_median": middle}
        row |= {"gain_least": low, "gain_largest": high}
        row["same_bits"] = states[0].bits == states[1].bits
    return row


def line(row: saved.Row) -> str:
    text = f"{row['case']:<41}{row['way']:<11}{row['ms']:>8.2f}{row['ms_eager']:>8.2f}"
    if "ms_before" not in row:
        return text
    text += f"{row['ms_before']:>8.2f}{row['gain_median']:>7.2f}"
    quartiles = f"{row['gain_least']:.2f} to {row['gain_largest']:.2f}"
    return f"{text}{quartiles:>15}{'same' if row['same_bits'] else 'other':>7}"


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    """Of the first case, in training; and of the bits of all."""
    first = rows[0]
    if "gain_median" not in first:
        return []
    gain, same = first["gain_median"], sum(row["same_bits"] for row in rows)
    name = f"{first['case']}: time of cb918c4 over that of a call, training"
    return [
        saved.target(name, f"at least {TARGET:g}", f"{gain:.2f}", gain >= TARGET),
        saved.target(
            "cases with the bits of cb918c4", "all", f"{same} of {len(rows)}", same == len(rows)
        ),
    ]


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    setting = f"{options.rounds} rounds, float32, batch 32"
    heads = f"{'':<52}{'ms':>8}{'eager':>8}{'before':>8}{'ratio':>7}{'quartiles':>15}{'bits':>7}"
    lines, rows = [setting, saved.heading(), "", heads], []
    print("\n".join(lines), flush=True)
    for number in range(len(CASES)):
        for way in WAYS:
            rows.append(measure(number, way, options.base, options.rounds))
            lines.append(line(rows[-1]))
            print(lines[-1], flush=True)
    if options.save:
        found = targets(rows)
        saved.save(options.save, "layer_parallel_calls", setting, rows, found, "\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path, metavar="PATH", help="a worktree of cb918c4")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--answer", nargs=2, help=argparse.SUPPRESS)
    saved.add_option(parser)
    given = parser.parse_args()
    if given.answer:
        answer(int(given.answer[0]), given.answer[1])
    else:
        main(given)
