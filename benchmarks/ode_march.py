"""A neural ODE by `LayerParallel(net, levels=1)`, beside torchdiffeq, torchode and diffrax.

    OMP_NUM_THREADS=1 python benchmarks/ode_march.py [--torchdiffeq PATH] [--torchode PATH]
        [--diffrax PATH] [--seeds 5] [--save]

du/dt = A tanh(B u + b) + a, from 0 to 1 in equal steps of the classical Runge-Kutta method or of
Euler's: the state at the end, the sum of its squares, and the gradients by the start and by all
weights, one thread. PATH is a folder with torchdiffeq 0.2.5 (pip install --target PATH
torchdiffeq); autograd goes through the steps of its `odeint`, whose "rk4" is the 3/8 rule: as many
evaluations, another result by some 1e-10. The ODENet is the same net, layer by layer, by autograd.
`odeint` is mgnet's. "one cycle" is `LayerParallel` on two levels with factor 10, which is inexact,
and "auto" chooses between that and mgnet's first row, one level. torchode 1.0.1 (with torchtyping)
has Euler's method and none of four stages.
diffrax 0.7.2 and JAX, in a folder with all that they need (pip install --target PATH diffrax), run
in a process of their own, compiled; "JAX scan" is the loop that a user would write by hand.

Methods take turns, three for each seed, and a turn counts the processor seconds of its fastest
call. A row has the median over seeds and, for another method, the ratio of its time to that of
mgnet. The error is that of all gradients together, relative, beside the ODENet's in float64. MiB:
by how much the process grows at most during a call. In a process of several methods what others
have left free counts less, so that is a lower bound.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import saved
import torch
from calls import growth, seconds
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


class Problem(NamedTuple):
    """Calls of methods that give the gradients by the start and by all weights; these tensors."""

    works: dict[str, Work]
    start: Tensor
    weights: list[Tensor]


def problem(case: Case, seed: int, peers: set[str]) -> Problem:
    from mgnet.depth import FixedCycles, LayerParallel, ODENet, odeint

    torch.manual_seed(seed)
    block = nn.Sequential(
        nn.Linear(case.width, case.width), nn.Tanh(), nn.Linear(case.width, case.width)
    )
    net = ODENet(block, case.steps, 1.0, scheme=case.scheme, weights="shared").to(case.dtype)
    exact, parallel = copy.deepcopy(net).double(), LayerParallel(net, levels=1)
    start = torch.randn(case.batch, case.width, dtype=case.dtype)

    def work(function: Callable[[Tensor], Tensor], weights: Sequence[Tensor]) -> Work:
        def run() -> list[Tensor]:
            u = start.to(weights[0].dtype, copy=True).requires_grad_()
            return [*torch.autograd.grad(function(u).square().sum(), [u, *weights])]

        return run

    found = {"mgnet": work(parallel, [*net.parameters()])}
    once = FixedCycles(1, tolerance=math.inf)  # whatever its error, which is in the table
    for name, mode in (("one cycle", "mgrit"), ("auto", "auto")):
        cycles = LayerParallel(net, 2, 10, control=once, mode=mode)
        found[name] = work(cycles, [*net.parameters()])
    found["ODENet"] = work(net, [*net.parameters()])
    found["exact"] = work(exact, [*exact.parameters()])
    plain = block.to(case.dtype)
    with torch.no_grad():
        for mine, shared in zip(plain.parameters(), net.parameters(), strict=True):
            mine.copy_(shared[0])
    weights = [*plain.parameters()]
    right, t = Right(plain), torch.linspace(0.0, 1.0, case.steps + 1, dtype=case.dtype)
    scheme = {"rk4": "rk4_classic"}.get(case.scheme, case.scheme)
    found["odeint"] = work(lambda u: odeint(right, u, t, method=scheme)[-1], weights)
    if "torchdiffeq" in peers:
        import torchdiffeq  # type: ignore

        theirs = torchdiffeq.odeint
        found["torchdiffeq"] = work(lambda u: theirs(right, u, t, method=case.scheme)[-1], weights)
    if "torchode" in peers and case.scheme == "euler":
        found["torchode"] = work(_torchode(right, case), weights)
    return Problem(found, start, [x.detach() for x in weights])


def _torchode(right: nn.Module, case: Case) -> Callable[[Tensor], Tensor]:
    import torchode  # type: ignore

    term = torchode.ODETerm(lambda t, u: right(t, u))
    controller = torchode.FixedStepController()
    solver = torchode.AutoDiffAdjoint(torchode.Euler(term=term), controller)
    ends = torch.tensor([0.0, 1.0], dtype=case.dtype).expand(case.batch, 2)
    length = torch.full((case.batch,), 1.0 / case.steps, dtype=case.dtype)

    def run(u: Tensor) -> Tensor:
        return solver.solve(torchode.InitialValueProblem(u, t_eval=ends), dt0=length).ys[:, -1]

    return run


class Jax:
    """The process of `ode_march_jax.py`."""

    def __init__(self, path: str, folder: str):
        here = Path(__file__).resolve().parent
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        self.folder = Path(folder)
        self.process: Any = subprocess.Popen(
            [sys.executable, "-c", "import ode_march_jax; ode_march_jax.main()"],
            cwd=here,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "XLA_FLAGS": flags},
        )

    def told(self, case: Case, made: Problem) -> dict[str, tuple[float, float, list[Tensor]]]:
        """Seconds, MiB and gradients of each of its methods."""
        file = self.folder / f"{made.start.dtype}.npz"
        np.savez(file, *[x.numpy() for x in (made.start, *made.weights)])
        self.process.stdin.write(f"{case.scheme} {case.steps} {file}\n")
        self.process.stdin.flush()
        found = {}
        for _ in range(2):
            name, time, size, out = self.process.stdout.readline().rstrip("\n").split("\t")
            with np.load(out) as each:
                gradients = [torch.from_numpy(each[key]) for key in sorted(each.files)]
            found[name] = float(time), float(size), gradients
        return found


def flat(gradients: list[Tensor]) -> Tensor:
    return torch.cat([g.double().reshape(-1) for g in gradients])


def measure(case: Case, seeds: int, peers: set[str], jax: Jax | None) -> list[saved.Row]:
    from mgnet.depth.compiled.parameters import forget

    times: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    sizes: dict[str, list[float]] = {}
    for seed in range(seeds):
        made = problem(case, seed, peers)
        exact = flat(made.works.pop("exact")())
        turns: dict[str, list[float]] = {name: [] for name in made.works}

        def check(name: str, gradients: list[Tensor], size: float, exact: Tensor = exact) -> None:
            error = float((flat(gradients) - exact).norm() / exact.norm())
            errors.setdefault(name, []).append(error)
            sizes.setdefault(name, []).append(size)

        for name, work in made.works.items():  # what is found once is found now
            found = work()
            forget()  # mgnet keeps memory for the next call
            check(name, found, growth(work))
        for turn in range(3):
            for name, work in made.works.items():
                turns[name].append(seconds(work))
            for name, (spent, size, gradients) in (jax.told(case, made) if jax else {}).items():
                turns.setdefault(name, []).append(spent)
                if not turn:
                    check(name, gradients, size)
        for name, spans in turns.items():
            times.setdefault(name, []).append(min(spans))
    rows = []
    for name, found in times.items():
        row: saved.Row = {"case": str(case), "method": name}
        row |= {"ms_median": 1e3 * statistics.median(found), "error": max(errors[name])}
        ratios = [a / b for a, b in zip(found, times["mgnet"], strict=True)]
        row |= {"ratio_median": statistics.median(ratios)}
        row |= {"ratio_least": min(ratios), "ratio_largest": max(ratios)}
        row |= {"mib_median": statistics.median(sizes[name])}
        rows.append(row)
    return rows


def line(row: saved.Row) -> str:
    ratios = f"{row['ratio_least']:.2f} to {row['ratio_largest']:.2f}"
    text = f"{row['case']:<52}{row['method']:<13}{row['ms_median']:>9.2f}"
    text = f"{text}{row['ratio_median']:>8.2f}{ratios:>17}{row['error']:>10.1e}"
    return f"{text}{row['mib_median']:>8.1f}"


def targets(case: Case, rows: list[saved.Row]) -> list[saved.Row]:
    found, name = {row["method"]: row for row in rows}, str(case)
    error, most = found["mgnet"]["error"], ERRORS[case.dtype]
    made = [
        saved.target(
            f"{name}: error of the gradients", f"at most {most:g}", f"{error:.1e}", error <= most
        )
    ]
    best = min(found["mgnet"]["ms_median"], found["one cycle"]["ms_median"])
    ratio = found["auto"]["ms_median"] / best
    told = f"{name}: auto over the better of its choices"
    made.append(saved.target(told, "at most 1.1", f"{ratio:.2f}", ratio <= 1.1))
    if case.target and "torchdiffeq" in found:
        ratio = found["torchdiffeq"]["ratio_median"]
        goal = f"at least {case.target:g}"
        told = f"{name}: time of torchdiffeq over that of mgnet"
        made.insert(0, saved.target(told, goal, f"{ratio:.1f}", ratio >= case.target))
    return made


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    peers = {name for name in ("torchdiffeq", "torchode") if getattr(options, name)}
    sys.path += [getattr(options, name) for name in sorted(peers)]
    setting = f"medians of {options.seeds} seeds, one thread, processor seconds"
    heads = f"{'':<65}{'ms':>9}{'ratio':>8}{'least to largest':>17}{'error':>10}{'MiB':>8}"
    lines, rows, goals = [setting, saved.heading(), "", heads], [], []
    print("\n".join(lines), flush=True)
    with TemporaryDirectory() as folder:
        jax = Jax(options.diffrax, folder) if options.diffrax else None
        for case in CASES[: options.cases]:
            found = measure(case, options.seeds, peers, jax)
            rows += found
            goals += targets(case, found)
            lines += [line(row) for row in found]
            print("\n".join(lines[-len(found) :]), flush=True)
        if jax:
            jax.process.stdin.close()
    if options.save:
        saved.save(options.save, "ode_march", setting, rows, goals, "\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("--torchdiffeq", "--torchode", "--diffrax"):
        parser.add_argument(name, metavar="PATH")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first of them")
    saved.add_option(parser)
    main(parser.parse_args())
