"""ODE nets of 64 and 256 layers: steps on all levels of layers, beside steps on the finest alone.

    OMP_NUM_THREADS=1 python benchmarks/depth_gradient.py [--cases 0 1 2 3 4 5] [--rows 0 1 2]
        [--seeds 1 2 3 4 5] [--seconds S] [--rates RATE ...] [--save]

Peaks (5 classes) and scikit-learn's digits with the networks and batches of depth_training.py, and
the byte-level GPT of transformer_layers.py, of width 32, on 16 bytes at a time, batches of 8.
float32, independent layers at the start, as PyTorch draws them.

Adam on all layers; `MultilevelGradient` with Adam on 64 (or 256), 32, ..., 4 layers at once; and a
cascade by Adam from 4 layers on, doubled by `ODENet.refine` with the state of the optimizer: half
of the seconds belong to all layers, the rest is shared equally. Seconds are processor seconds of
one thread, without those of evaluation; rates fall like a cosine over them, in a cascade on each
number of layers again.

Every row has the best of five rates or more by the held-out cross entropy on seed 0, where nothing
else is reported: the table uses the other seeds. A seed draws data, weights and batches.

With --save every run is appended to results/depth_gradient.jsonl; runs that are there are not
repeated, and the table uses all of them.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import depth_training
import numpy as np
import saved
import torch
import transformer_layers as gpt
from torch import nn
from torch.nn.functional import cross_entropy

from mgnet.depth import ODENet, refine_optimizer
from mgnet.training import MultilevelGradient

SETTING = (
    "loss: held-out cross entropy, medians over seeds; the rate of each row is the best of those "
    "tried on seed 0, which is not among them; small rate loss: on seed 0, at rate 1e-3"
)
FIRST = 4  # layers of the coarsest net of a cascade
WIDTH, LENGTH = 32, 16  # of the GPT
RATES = (0.1, 0.03, 0.01, 0.003, 0.001)
SMALL = 0.001  # a rate that is shown, too
ROWS = ("Adam", "multilevel Adam", "Adam, cascade")
Batch = Callable[[ODENet], torch.Tensor]


class Case(NamedTuple):
    """What is learned, by how many layers, in how many seconds."""

    data: str
    layers: int
    seconds: float


CASES = (
    Case("peaks", 64, 2.0),
    Case("peaks", 256, 4.0),
    Case("digits", 64, 2.0),
    Case("digits", 256, 4.0),
    Case("bytes", 64, 5.0),
    Case("bytes", 256, 10.0),
)


class Problem(NamedTuple):
    """A net, its output and targets on the next batch and on held-out samples."""

    net: ODENet
    batch: Batch
    held_out: Batch


def of_vectors(data: str, layers: int, seed: int) -> Problem:
    own = next(case for case in depth_training.CASES if case.data == data)
    samples: Any = depth_training.samples(data, seed, None)
    generator = torch.Generator().manual_seed(seed)

    def batch(net: ODENet) -> torch.Tensor:
        few = torch.randint(len(samples.x), (depth_training.BATCH,), generator=generator)
        return cross_entropy(net(samples.x[few]), samples.y[few])

    def held_out(net: ODENet) -> torch.Tensor:
        return cross_entropy(net(samples.x_held), samples.y_held)

    net = depth_training.network(own._replace(layers=layers), samples, seed)
    return Problem(net, batch, held_out)


texts = cache(gpt.texts)


def of_bytes(layers: int, seed: int) -> Problem:
    text, rest = texts()
    rng = np.random.default_rng(seed)
    kept = gpt.windows(rest, 256, np.random.default_rng(1))[:, : LENGTH + 1]
    torch.manual_seed(seed)
    after = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256))
    net = ODENet(lambda n: gpt.Block(WIDTH), layers, before=gpt.Embedding(WIDTH), after=after)
    return Problem(
        net,
        lambda net: gpt.loss_of(net, gpt.windows(text, gpt.BATCH, rng)[:, : LENGTH + 1]),
        lambda net: gpt.loss_of(net, kept),
    )


def made(row: str, net: ODENet, rate: float) -> torch.optim.Optimizer:
    if row == "multilevel Adam":
        return MultilevelGradient(torch.optim.Adam, net, {"lr": rate})
    return torch.optim.Adam(net.parameters(), lr=rate)


def run(case: Case, row: str, rate: float, seed: int, seconds: float) -> dict[str, Any]:
    doublings = round(math.log2(case.layers / FIRST)) if row == "Adam, cascade" else 0
    layers = case.layers >> doublings
    problem = (
        of_bytes(layers, seed) if case.data == "bytes" else of_vectors(case.data, layers, seed)
    )
    net = problem.net
    optimizer = made(row, net, rate)
    shares = [0.5 / doublings] * doublings + [0.5] if doublings else [1.0]
    steps = []
    for number, share in enumerate(shares):
        if number:
            fine = net.refine()
            optimizer = refine_optimizer(optimizer, net, fine)
            net = fine
        began, count = time.process_time(), 0
        while (done := (time.process_time() - began) / (share * seconds)) < 1.0:
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5 * (1.0 + math.cos(math.pi * done))
            optimizer.zero_grad()
            problem.batch(net).backward()
            optimizer.step()
            count += 1
        steps.append(count)
    with torch.no_grad():
        loss = float(problem.held_out(net))
    return {"loss": loss, "steps": sum(steps), "fine_steps": steps[-1]}


def best(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run with the lowest held-out loss; one that is not finite is none."""
    return min(runs, key=lambda each: each["loss"] if math.isfinite(each["loss"]) else math.inf)


def table_rows(runs: list[dict[str, Any]]) -> list[saved.Row]:
    """Runs of each row: the seeds after the first, at the rate that was best on that."""
    rows = []
    for case in CASES:
        for name in ROWS:
            about = {"data": case.data, "layers": case.layers, "method": name}
            own = [each for each in runs if all(each[k] == v for k, v in about.items())]
            for asked in sorted({each["asked"] for each in own}):
                tuned = [r for r in own if r["asked"] == asked and r["seed"] == 0]
                rate = best(tuned)["rate"] if tuned else None
                kept = [r for r in own if r["seed"] and (r["asked"], r["rate"]) == (asked, rate)]
                if not kept:
                    continue
                losses = [each["loss"] for each in kept]
                row = {"data": case.data, "layers": case.layers, "seconds": asked, "method": name}
                row |= {"rate": rate, "tried": len(tuned), "seeds": len(kept)}
                row |= {"loss_median": statistics.median(losses)}
                row |= {"loss_least": min(losses), "loss_largest": max(losses)}
                slow = [each["loss"] for each in tuned if each["rate"] == SMALL]
                row |= {"small_rate_loss": slow[0]} if slow else {}
                for key in ("steps", "fine_steps"):
                    row[key] = round(statistics.median(each[key] for each in kept))
                rows.append(row)
    return rows


def table(rows: list[saved.Row]) -> str:
    lines = [
        f"{'data':<8}{'layers':>6}{'s':>4}  {'method':<18}{'rate':>8}{'tried':>6}{'seeds':>6}"
        f"{'cross entropy, median':>23} {'least':>8} {'largest':>8}{'steps':>7}"
        f"{'of all layers':>15}{'at rate 1e-3':>14}"
    ]
    lines += [
        f"{row['data']:<8}{row['layers']:>6}{row['seconds']:>4g}  {row['method']:<18}"
        f"{row['rate']:>8g}{row['tried']:>6}{row['seeds']:>6}{row['loss_median']:>23.3f} "
        f"{row['loss_least']:>8.3f} {row['loss_largest']:>8.3f}{row['steps']:>7}"
        f"{row['fine_steps']:>15}{row.get('small_rate_loss', math.nan):>14.3f}"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", type=int, default=list(range(len(CASES))))
    parser.add_argument("--rows", nargs="+", type=int, default=list(range(len(ROWS))))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--seconds", type=float, help="of a processor, per run")
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--save", action="store_true", help="keep the runs, and the table")
    told = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    path = saved.RESULTS / "depth_gradient.jsonl"
    runs = saved.kept_runs(path) if told.save else []

    def ensure(case: Case, row: str, rate: float, seed: int) -> dict[str, Any]:
        asked = told.seconds or case.seconds
        about = {"data": case.data, "layers": case.layers, "asked": asked}
        about |= {"method": row, "rate": rate, "seed": seed}
        known = saved.found_run(runs, about)
        if known:
            return known
        runs.append(about | run(case, row, rate, seed, asked))
        print(*runs[-1].values(), flush=True)
        if told.save:
            saved.keep_run(path, runs[-1])
        return runs[-1]

    for case in (CASES[number] for number in told.cases):
        for row in (ROWS[number] for number in told.rows):
            rate = best([ensure(case, row, rate, 0) for rate in told.rates])["rate"]
            for seed in told.seeds:
                ensure(case, row, rate, seed)
    rows = table_rows(runs)
    text = "\n".join([saved.place(), "", table(rows)])
    print(text)
    if told.save:
        result = {"setting": SETTING, "machine": saved.machine(), "versions": saved.versions()}
        saved.save_table("depth_gradient", result | {"rows": rows, "targets": []}, text)


if __name__ == "__main__":
    main()
