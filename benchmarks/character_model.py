"""A character model whose layers are solved by cycles, at the settings of a published training.

    OMP_NUM_THREADS=1 python benchmarks/character_model.py [--seeds 1 2] [--steps 90]
        [--rates 2e-3 6e-3] [--ways 6] [--parts training plan] [--save]

TorchBraid publishes logs of a language model on its branch transformer2: 64 steps, T = 1, factor 4,
F-relaxation on the finest level and FCF on coarser ones, 3 forward cycles and 1 backward, layers
that begin identical, Adam (0.9, 0.98) with a warm-up and a cosine. With 3 levels
(examples/language_modeling/src/ml.3461.out) the test loss is 6.49 after the first epoch and 6.65 to
6.77 after each of the nine others; serial training (examples/marshall_language_modeling/src/
no-weight-decay/ml.4262.out) has 6.14, 5.65, 5.38 and 5.22 after four. Injected coarse layers.

training   the same settings on a smaller model: width 32, 4 heads, 32 bytes of Python's standard
           library, batches of 8, at a rate at which the cycles hold and at one at which they do
           not. Held-out loss, nats per byte, evaluated serially after each third
           of the steps, and by the net's own propagation at the end; relative error of the gradient
           of a batch held out, beside serial propagation's, at the same times. Cycles: forward and
           backward at the end (- is serial). Warned: seeds in which LayerParallel said that it
           trains above its tolerance. Refused: the step at which a pass diverged, which is an error
plan       the predicted speedup over one rank for 8 to 256 ranks, from the seconds of a layer of
           width 128 with 8 x 64 tokens, measured here; messages of 20 us and 1 GB/s are assumed.
           64, 256 and 1024 layers; factor and levels are the best for each

Medians over the seeds, with the smallest and the largest.
"""

import argparse
import itertools
import math
import statistics
import time
import warnings
from typing import Any

import numpy as np
import saved
import torch
from torch import nn
from transformer_layers import BATCH, Block, Embedding, gradient, loss_of, texts, windows

from mgnet.depth import (
    AdaptiveCycles,
    CyclesToTolerance,
    FixedCycles,
    LayerParallel,
    Machine,
    ODENet,
    best_plan,
)

LAYERS, WIDTH, LEVELS, FACTOR = 64, 32, 3, 4
PUBLISHED = FixedCycles(3, 1)
WAYS: dict[str, tuple[str, Any]] = {
    "serial": ("mean", None),
    "3 and 1 cycles, first": ("first", PUBLISHED),
    "3 and 1 cycles, mean": ("mean", PUBLISHED),
    "3 and 1 cycles, fused": ("fused", PUBLISHED),
    "CyclesToTolerance(0.1), mean": ("mean", CyclesToTolerance(0.1)),
    "AdaptiveCycles(3, 1), first": ("first", AdaptiveCycles(3, 1, every=10)),
}


def made(seed: int) -> ODENet:
    torch.manual_seed(seed)
    after = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256))
    return ODENet(Block(WIDTH), LAYERS, start="identical", before=Embedding(WIDTH), after=after)


def gradient_error(module: nn.Module, net: ODENet, rows: torch.Tensor) -> float:
    exact = gradient(net, rows)
    return float((gradient(module, rows) - exact).norm() / exact.norm())


def trained(way: str, steps: int, rate: float, seed: int) -> dict[str, Any]:
    """A row's figures for one seed."""
    coarse, control = WAYS[way]
    net = made(seed)
    module: Any = net
    if control is not None:
        module = LayerParallel(net, LEVELS, FACTOR, control=control, coarse=coarse)
    text, rng = texts()[0], np.random.default_rng(seed)
    held_out = windows(texts()[1], 128, np.random.default_rng(1))
    optimizer = torch.optim.Adam(net.parameters(), lr=rate, betas=(0.9, 0.98), eps=1e-9)
    found: dict[str, Any] = {}
    seconds = 0.0
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in range(1, steps + 1):
            began = time.process_time()
            cosine = 0.5 * (1.0 + math.cos(math.pi * step / steps))
            optimizer.param_groups[0]["lr"] = rate * cosine * min(1.0, step / (0.04 * steps))
            optimizer.zero_grad()
            try:
                loss_of(module, windows(text, BATCH, rng)).backward()
            except FloatingPointError:  # names the layers of a pass that diverged
                return found | {"cycles": cycles(module), "warned": True, "refused": step}
            optimizer.step()
            seconds += time.process_time() - began
            if step * 3 % steps == 0:
                third = f"after {step}"
                with torch.no_grad():
                    found[f"loss {third}"] = float(loss_of(net, held_out))
                if control is not None:
                    module.eval()  # its control follows training only
                    found[f"gradient error {third}"] = gradient_error(module, net, held_out[:BATCH])
                    module.train()
    if control is not None:
        with torch.no_grad():
            found["own loss at the end"] = float(loss_of(module.eval(), held_out))
    return found | {"cycles": cycles(module), "warned": bool(told), "seconds": seconds}


def cycles(module: Any) -> str:
    control = getattr(module, "control", None)
    if control is None:
        return "-"
    if isinstance(control, AdaptiveCycles):
        return f"{control.forward}, {control.backward}"
    return f"{module.last_forward.cycles}, {module.last_backward.cycles}"


def training(told: Any) -> list[saved.Row]:
    rows: list[saved.Row] = []
    for rate, way in itertools.product(told.rates, list(WAYS)[: told.ways]):
        runs = [trained(way, told.steps, rate, seed) for seed in told.seeds]
        row: saved.Row = {"part": "training", "rate": rate, "method": way}
        row["seeds"] = len(told.seeds)
        for key in dict.fromkeys(key for run in runs for key in run):
            values = [run[key] for run in runs if key in run]
            if key == "cycles":
                row[key] = statistics.mode(values)
            elif key == "warned":
                row[key] = sum(values)
            else:
                row[f"{key}_median"] = statistics.median(values)
                row |= {f"{key}_least": min(values), f"{key}_largest": max(values)}
        rows.append(row)
        print(line(row), flush=True)
    return rows


def line(row: saved.Row) -> str:
    told = [
        f"  rate {row['rate']:g}, {row['method']}: cycles {row['cycles']}, "
        f"warned {row['warned']}/{row['seeds']}"
    ]
    for key in [key.removesuffix("_median") for key in row if key.endswith("_median")]:
        least, most = row[f"{key}_least"], row[f"{key}_largest"]
        told.append(f"    {key:<28}{row[f'{key}_median']:>10.4g}   {least:.4g} to {most:.4g}")
    return "\n".join(told)


def machine() -> Machine:
    """What a layer of width 128 takes here, forward and backward."""
    net, x = ODENet(lambda n: Block(128), 8), torch.randn(8, 64, 128)
    forward, backward = [], []
    for _ in range(15):
        began = time.process_time()
        loss = net(x).square().mean()
        between = time.process_time()
        loss.backward()
        forward.append((between - began) / net.depth)
        backward.append((time.process_time() - between) / net.depth)
    layer = statistics.median(forward)
    ratio = statistics.median(backward) / layer
    state = 4.0 * x.numel()
    return Machine(layer, 2e-5, 1e9, backward_ratio=ratio, state_bytes=state)


def planned(host: Machine) -> list[saved.Row]:
    rows: list[saved.Row] = []
    for layers in (64, 256, 1024):
        for coarse, count in (("mean", 1), ("mean", 2), ("fused", 1), ("identity", 4)):
            row: saved.Row = {"part": "plan", "layers": layers, "coarse": coarse, "cycles": count}
            for ranks in (8, 16, 32, 64, 128, 256):
                best = best_plan(
                    layers, ranks, machine=host, coarse=coarse, cycles=(count, count), record=True
                )
                row[f"{ranks} ranks"] = round(best.speedup, 2)
            rows.append(row)
    return rows


def targets(rows: list[saved.Row], steps: int) -> list[saved.Row]:
    """Held-out loss within 0.02 of serial training, or serial propagation by itself."""
    trained, key, told = (
        [row for row in rows if row["part"] == "training"],
        f"loss after {steps}",
        [],
    )
    for row in [row for row in trained if row["method"] != "serial"]:
        serial = next(each for each in trained if each["rate"] == row["rate"])
        behind = row.get(f"{key}_median", math.inf) - serial[f"{key}_median"]
        measured = f"{behind:+.3f}"
        if "refused_median" in row:
            measured += f", refused in step {row['refused_least']}"
        if row["warned"]:
            measured += f", and warned in {row['warned']} of {row['seeds']} seeds"
        name = f"rate {row['rate']:g}, {row['method']}: held-out loss behind serial training"
        told.append(saved.target(name, "at most 0.02", measured, behind <= 0.02))
    return told


def plan_table(host: Machine, rows: list[saved.Row]) -> str:
    told = [f"plan: a layer forward {1e3 * host.layer_seconds:.2f} ms, backward "
            f"{host.backward_ratio:.2f} times that; speedup over one rank"]  # fmt: skip
    for row in rows:
        gains = "  ".join(f"{key}: {value:.1f}" for key, value in row.items() if "ranks" in key)
        told.append(f"  {row['layers']:>5} layers, {row['coarse']}, c+{row['cycles']}   {gains}")
    return "\n".join(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--steps", type=int, default=90, help="a multiple of 3")
    parser.add_argument("--rates", nargs="+", type=float, default=[2e-3, 6e-3])
    parser.add_argument("--ways", type=int, default=len(WAYS), help="no more rows than these")
    parts = ("training", "plan")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    saved.add_option(parser)
    told = parser.parse_args()
    torch.set_num_threads(1)
    print(saved.heading(), flush=True)
    rows: list[saved.Row] = []
    lines = [saved.heading(), ""]
    if "training" in told.parts:
        rows += training(told)
        lines += ["training", *map(line, rows)]
    if "plan" in told.parts:
        host = machine()
        found = planned(host)
        lines.append(plan_table(host, found))
        print(lines[-1])
        rows += found
    goals = targets(rows, told.steps)
    lines += ["", *(f"{t['name']}, {t['target']}: {t['measured']}{'' if t['met'] else ', missed'}"
                    for t in goals)]  # fmt: skip
    print("\n".join(lines[-len(goals) - 1 :]))
    if told.save:
        setting = f"{len(told.seeds)} seeds, {told.steps} steps; errors of "
        setting += "gradients are relative"
        saved.save(told.save, "character_model", setting, rows, goals, "\n".join(lines))


if __name__ == "__main__":
    main()
