"""Refinement in depth while training: 4 -> 8 -> 16 -> 32 layers against 32 from the start.

    OMP_NUM_THREADS=1 python benchmarks/depth_refinement.py [--work 300] [--seeds 5] [--save]

Peaks: points of [-3, 3]^2 (divided by 3) in 5 classes, 400 for training, 2000 for the test.
Networks: tanh layer 2 -> 8, residual tanh layers of width 8, T = 5, linear layer 8 -> 5; cross
entropy, Tikhonov 1e-4, full batch, Adam 1e-2, float64. A seed draws points and weights.

All rows have the same work, in gradients of 32 layers: gradient evaluations times layers, over 32.
Cascades spend a quarter of it on each depth, and Adam's moments go up with the weights. `fine, same
start`: 32 layers that begin as the untrained coarse network, interpolated. Cycles: half of the work
for a cascade by learnable steps, half for V-cycles with 5 Adam steps before and after and 10 on the
coarsest level; a line search shortens or refuses what would raise the loss.

Loss: cross entropy on the training points at the end; median, least, largest over the seeds. Jump:
the largest change of the objective at a refinement, over all seeds. Better: seeds in which the loss
ended below that of the best of the fine-only rows. Seconds: of the processor, median, one thread.
"""

import argparse
import math
import statistics
import time
from typing import Any, NamedTuple

import numpy as np
import saved
import torch

from mgnet import Solver, Step, cascade, gallery, run
from mgnet.depth.hierarchy import depth_hierarchy
from mgnet.depth.network.ode_net import ODENet
from mgnet.training import Objective, TorchOptimizer

LEVELS, COARSE, WIDTH, T = 4, 4, 8, 5.0
FINE = COARSE * 2 ** (LEVELS - 1)
ADAM = TorchOptimizer(torch.optim.Adam, {"lr": 1e-2})


class Way(NamedTuple):
    """How to train: learnable steps or not, kind of refinement, and what the work is spent on."""

    learnable_steps: bool
    how: str
    kind: str


WAYS = {
    "cascade by learnable steps": Way(True, "steps", "cascade"),
    "cascade, learnable steps split": Way(True, "constant", "cascade"),
    "cascade, constant": Way(False, "constant", "cascade"),
    "cascade, linear": Way(False, "linear", "cascade"),
    "fine, learnable steps": Way(True, "steps", "fine"),
    "fine, fixed steps": Way(False, "constant", "fine"),
    "fine, learnable steps, same start": Way(True, "steps", "start"),
    "fine, fixed steps, same start": Way(False, "constant", "start"),
    "learnable steps, then V subspace": Way(True, "steps", "subspace"),
    "learnable steps, then V injected": Way(True, "steps", "injected"),
}
KINDS = ("median", "least", "largest")
FINE_ONLY = [name for name, way in WAYS.items() if way.kind in ("fine", "start")]


class Row(NamedTuple):
    """Of one seed."""

    loss: float
    accuracy: float
    jump: float
    work: float
    seconds: float
    corrections: tuple[int, int, int]


Data = tuple[torch.Tensor, torch.Tensor]


def points(seed: int, samples: int) -> Data:
    x, labels = gallery.peaks(samples, 5, np.random.default_rng(seed))
    return torch.from_numpy(x), torch.from_numpy(labels)


def net_of(seed: int, layers: int, learnable_steps: bool) -> ODENet:
    torch.manual_seed(seed)
    block = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh())
    before = torch.nn.Sequential(torch.nn.Linear(2, WIDTH), torch.nn.Tanh())
    after = torch.nn.Linear(WIDTH, 5)
    return ODENet(
        block, layers, T, learnable_steps=learnable_steps, before=before, after=after
    ).double()


def counts(levels: int, work: float) -> list[int]:
    """Adam steps per level, coarsest first, for as much work on each."""
    share = work / levels
    return [round(share * 2 ** (levels - 1 - n)) for n in range(levels)]


def train(way: Way, seed: int, data: tuple[Data, Data], work: float) -> Row:
    (x, y), test = data
    loss = torch.nn.functional.cross_entropy

    def objective(net: Any) -> torch.Tensor:
        return loss(net(x), y) + net.regularization(1e-4)

    levels = 1 if way.kind in ("fine", "start") else LEVELS
    net = net_of(seed, FINE if way.kind == "fine" else COARSE, way.learnable_steps)
    for _ in range(LEVELS - 1 if way.kind == "start" else 0):
        net = net.refine(2, way.how)
    form = way.kind if way.kind in ("subspace", "injected") else "subspace"
    problem = Objective.from_torch(net, objective)
    hierarchy = depth_hierarchy(net, problem, levels, ADAM, how=way.how, form=form)
    top: Any = hierarchy[0].operator
    cycles = way.kind == form
    jumps, last, done, seconds, mark = [0.0], math.nan, 0.0, 0.0, time.process_time()

    def record(step: Step, told: Any) -> None:
        nonlocal last, done, seconds, mark
        seconds += time.process_time() - mark
        value = told.level.operator.value(told.state)
        if step.action == "interpolate":
            jumps.append(value - last)
        last, done, mark = value, done + told.work, time.process_time()

    plan = counts(levels, 0.5 * work if cycles else work)
    u, memory = run(cascade(plan), hierarchy, top.start(), None, record=record)
    corrections = (0, 0, 0)
    if cycles:
        u, done, seconds, corrections = go_on(hierarchy, u, memory, done, seconds, work)
    network = hierarchy.network(0, u)
    with torch.no_grad():
        final = loss(network(x), y).item()
        accuracy = (network(test[0]).argmax(1) == test[1]).double().mean().item()
    return Row(final, accuracy, max(jumps, key=abs), done, seconds, corrections)


def go_on(hierarchy: Any, u: Any, memory: Any, done: float, seconds: float, work: float) -> Any:
    """V-cycles until the work is done."""
    began, corrections = time.process_time(), [0, 0, 0]
    while done < work:
        solver = Solver(hierarchy, "V(5,5,10)", rtol=0.0, max_cycles=1)
        solution = solver.solve(u=u, memory=memory)
        u, memory, done = solution.value, solution.memory, done + solution.work
        for told in solution.corrections.values():
            corrections = [a + b for a, b in zip(corrections, told[:3], strict=True)]
    return u, done, seconds + time.process_time() - began, tuple(corrections)


def medians(name: str, rows: list[Row], best: list[float]) -> saved.Row:
    """Over the seeds; `best` are the losses of the best fine-only row of each seed."""
    found: saved.Row = {"method": name}
    for key, values in (
        ("loss", [row.loss for row in rows]),
        ("accuracy", [row.accuracy for row in rows]),
    ):
        found |= {f"{key}_median": statistics.median(values)}
        found |= {f"{key}_least": min(values), f"{key}_largest": max(values)}
    if name not in FINE_ONLY:
        found["jump"] = max((row.jump for row in rows), key=abs)
        found["better"] = sum(row.loss < b for row, b in zip(rows, best, strict=True))
    found |= {"seeds": len(rows), "work": statistics.median(row.work for row in rows)}
    found["seconds"] = statistics.median(row.seconds for row in rows)
    sums = [round(statistics.median(p)) for p in zip(*(r.corrections for r in rows), strict=True)]
    if sum(sums):
        found |= dict(zip(("full", "cut", "refused"), sums, strict=True))
    return found


def line(row: saved.Row) -> str:
    def spread(key: str, form: str) -> str:
        return " ".join(f"{row[f'{key}_{kind}']:>{form}}" for kind in KINDS)

    fine = "jump" not in row
    jump = "-" if fine else f"{row['jump']:.1e}"
    better = "-" if fine else f"{row['better']}/{row['seeds']}"
    told = f"{row['full']} / {row['cut']} / {row['refused']}" if "full" in row else "-"
    return (
        f"{row['method']:<34} {spread('loss', '8.4f')}  {spread('accuracy', '6.3f')} {jump:>9} "
        f"{better:>6} {row['work']:>6.0f} {row['seconds']:>8.1f}  {told:>14}"
    )


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    ours = next(row for row in rows if row["method"] == "cascade by learnable steps")
    fine = min(row["loss_median"] for row in rows if row["method"] in FINE_ONLY)
    jump, loss = f"{abs(ours['jump']):.1e}", ours["loss_median"]
    name = (
        "median loss of the cascade by learnable steps, against the best 32 layers from the start"
    )
    return [
        saved.target(
            "jump at a refinement by learnable steps", "at most 1e-12", jump, float(jump) <= 1e-12
        ),
        saved.target(name, "lower", f"{loss:.4f} against {fine:.4f}", loss < fine),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=float, default=300.0, help="gradients of 32 layers")
    parser.add_argument("--seeds", type=int, default=5)
    saved.add_option(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    setting = (
        f"peaks, 5 classes, width 8, T = 5, {COARSE} to {FINE} layers, work {given.work:g}, "
        f"{given.seeds} seeds"
    )
    runs: dict[str, list[Row]] = {name: [] for name in WAYS}
    for seed in range(given.seeds):
        data = points(seed, 400), points(1000 + seed, 2000)
        for name, way in WAYS.items():
            runs[name].append(train(way, seed, data, given.work))
    best = [min(runs[name][seed].loss for name in FINE_ONLY) for seed in range(given.seeds)]
    rows = [medians(name, of_seeds, best) for name, of_seeds in runs.items()]
    lines = [
        setting,
        saved.heading(),
        "",
        f"{'':<34} {'cross entropy, training':^26}  {'accuracy, test':^20} {'largest':>9} {'':>6} "
        f"{'':>6} {'':>8}  {'corrections':>14}",
        f"{'':<34} {'median':>8} {'least':>8} {'largest':>8}  {'median':>6} {'least':>6} "
        f"{'most':>6} {'jump':>9} {'better':>6} {'work':>6} {'seconds':>8}  "
        f"{'full/cut/refused':>14}",
        *map(line, rows),
    ]
    print("\n".join(lines))
    if given.save:
        found = targets(rows)
        saved.save(given.save, "depth_refinement", setting, rows, found, "\n".join(lines))


if __name__ == "__main__":
    main()
