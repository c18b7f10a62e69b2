"""A neural ODE by `LayerParallel(net, levels=1)`, beside torchdiffeq.

    OMP_NUM_THREADS=1 python benchmarks/ode_march.py [--torchdiffeq PATH] [--seeds 5] [--save]

du/dt = A tanh(B u + b) + a, from 0 to 1 in equal steps of the classical Runge-Kutta method or of
Euler's: the state at the end, the sum of its squares, and the gradients by the start and by all
weights, one thread. PATH is a folder with torchdiffeq 0.2.5 (pip install --target PATH
torchdiffeq); autograd goes through the steps of its `odeint`, whose "rk4" is the 3/8 rule: as many
evaluations, another result by some 1e-10. The ODENet is the same net, layer by layer, by autograd.

Methods take turns, three for each seed, and a turn counts the processor seconds of its fastest
call. A row tells the median over seeds and, of another method, the ratio of its time to ours. The
error is that of all gradients together, relative, beside the ODENet's in float64.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import saved
import torch
from torch import Tensor, nn

Work = Callable[[], list[Tensor]]


class Case(NamedTuple):
    """A scheme, steps, and the size of the states."""

    scheme: str
    steps: int
    width: int
    batch: int
    dtype: torch.dtype
    target: float = 0.0  # times faster than torchdiffeq

    def __str__(self) -> str:
        precision = str(self.dtype).removeprefix("torch.")
        size = f"width {self.width}, batch {self.batch}"
        return f"{self.scheme}, {self.steps} steps, {size}, {precision}"


CASES = (
    Case("rk4", 100, 32, 64, torch.float32, 8.0),
    Case("rk4", 100, 64, 128, torch.float32, 3.0),
    Case("euler", 256, 32, 64, torch.float32, 8.0),
    Case("rk4", 100, 32, 64, torch.float64),
)
ERRORS = {torch.float32: 1e-6, torch.float64: 1e-10}


class Right(nn.Module):
    """The right-hand side as torchdiffeq calls it."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return self.block(u)


def works(case: Case, seed: int, peer: bool) -> dict[str, Work]:
    """For each method a call: the gradients by the start and by all weights."""
    from mgnet.depth import LayerParallel, ODENet

    torch.manual_seed(seed)
    block = nn.Sequential(
        nn.Linear(case.width, case.width), nn.Tanh(), nn.Linear(case.width, case.width)
    )
    net = ODENet(block, case.steps, 1.0, scheme=case.scheme, weights="shared").to(case.dtype)
    exact, parallel = copy.deepcopy(net).double(), LayerParallel(net, levels=1)
    start = torch.randn(case.batch, case.width, dtype=case.dtype)

    def work(function: Callable[[Tensor], Tensor], weights: list[Tensor]) -> Work:
        def run() -> list[Tensor]:
            u = start.to(weights[0].dtype, copy=True).requires_grad_()
            return [*torch.autograd.grad(function(u).square().sum(), [u, *weights])]

        return run

    found = {"mgnet": work(parallel, [*net.parameters()])}
    found["ODENet"] = work(net, [*net.parameters()])
    found["exact"] = work(exact, [*exact.parameters()])
    if peer:
        from torchdiffeq import odeint  # type: ignore

        plain = block.to(case.dtype)
        with torch.no_grad():
            for mine, shared in zip(plain.parameters(), net.parameters(), strict=True):
                mine.copy_(shared[0])
        right, t = Right(plain), torch.linspace(0.0, 1.0, case.steps + 1, dtype=case.dtype)
        found["torchdiffeq"] = work(
            lambda u: odeint(right, u, t, method=case.scheme)[-1], [*plain.parameters()]
        )
    return found


def seconds(work: Work) -> float:
    """Of the fastest of some calls, on the processor."""
    times = []
    for _ in range(3):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def flat(gradients: list[Tensor]) -> Tensor:
    return torch.cat([g.double().reshape(-1) for g in gradients])


def measure(case: Case, seeds: int, peer: bool) -> list[saved.Row]:
    times: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    for seed in range(seeds):
        each = works(case, seed, peer)
        exact = flat(each.pop("exact")())
        turns: dict[str, list[float]] = {name: [] for name in each}
        for name, work in each.items():  # what is found once is found now
            error = float((flat(work()) - exact).norm() / exact.norm())
            errors.setdefault(name, []).append(error)
        for _ in range(3):
            for name, work in each.items():
                turns[name].append(seconds(work))
        for name, found in turns.items():
            times.setdefault(name, []).append(min(found))
    rows = []
    for name, found in times.items():
        row: saved.Row = {"case": str(case), "method": name}
        row |= {"ms_median": 1e3 * statistics.median(found), "error": max(errors[name])}
        ratios = [a / b for a, b in zip(found, times["mgnet"], strict=True)]
        row |= {"ratio_median": statistics.median(ratios)}
        row |= {"ratio_least": min(ratios), "ratio_largest": max(ratios)}
        rows.append(row)
    return rows


def line(row: saved.Row) -> str:
    ratios = f"{row['ratio_least']:.2f} to {row['ratio_largest']:.2f}"
    text = f"{row['case']:<52}{row['method']:<13}{row['ms_median']:>9.2f}"
    return f"{text}{row['ratio_median']:>8.2f}{ratios:>17}{row['error']:>10.1e}"


def targets(case: Case, rows: list[saved.Row]) -> list[saved.Row]:
    found, name = {row["method"]: row for row in rows}, str(case)
    error, most = found["mgnet"]["error"], ERRORS[case.dtype]
    made = [
        saved.target(
            f"{name}: error of the gradients", f"at most {most:g}", f"{error:.1e}", error <= most
        )
    ]
    if case.target and "torchdiffeq" in found:
        ratio = found["torchdiffeq"]["ratio_median"]
        goal = f"at least {case.target:g}"
        told = f"{name}: time of torchdiffeq over ours"
        made.insert(0, saved.target(told, goal, f"{ratio:.1f}", ratio >= case.target))
    return made


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    if options.torchdiffeq:
        sys.path.append(options.torchdiffeq)
    setting = f"medians of {options.seeds} seeds, one thread, processor seconds"
    heads = f"{'':<65}{'ms':>9}{'ratio':>8}{'least to largest':>17}{'error':>10}"
    lines, rows, goals = [setting, saved.heading(), "", heads], [], []
    print("\n".join(lines), flush=True)
    for case in CASES[: options.cases]:
        found = measure(case, options.seeds, bool(options.torchdiffeq))
        rows += found
        goals += targets(case, found)
        lines += [line(row) for row in found]
        print("\n".join(lines[-len(found) :]), flush=True)
    if options.save:
        saved.save(options.save, "ode_march", setting, rows, goals, "\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--torchdiffeq", metavar="PATH")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first of them")
    saved.add_option(parser)
    main(parser.parse_args())
