"""A recurrent classifier trained by cycles over time and step by step, and evaluated both ways.

    OMP_NUM_THREADS=1 python benchmarks/sequence_classification.py [--seeds 5] [--epochs 8]
        [--save]

Activities of people as in UCI HAR: 6 classes, 9 channels, 128 steps, and nobody is in both the
training and the test set. The sequences are drawn by this script: three kinds of gait (a tempo,
harmonics and phases of their own) and three postures (a direction of gravity), body acceleration,
rates of turn and total acceleration, with a tempo, strength, and a tilt of the sensor that belong
to the person, and noise. A GRU of width 24 and a linear layer on its last state are trained by
Adam, 630 sequences of 21 people in batches of 50. Ways: a GRU step by step; by cycles to 1e-6; by
three cycles forward and backward, 3 levels, factor 4; and the implicit GRU of Moon and Cyr (ICLR
2022) step by step, and by their two cycles forward and one backward. Weights, batches and data of a
seed are the same for all. Every trained network is evaluated on 540 sequences of 9 other people by
its own cycles (to 1e-6, or 2, where it was trained step by step) and step by step: accuracies, and
how many predictions differ. Medians and standard deviations are over the
seeds.
"""

import argparse
import statistics
import warnings
from typing import Any

import numpy as np
import saved
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgnet.depth import CyclesToTolerance, FixedCycles, ImplicitGRUCell, TimeParallel
from mgnet.depth.parallel.control import Control

CLASSES, STEPS, RATE = 6, 128, 50.0  # samples a second
PEOPLE, OTHERS, EACH, BATCH = 21, 9, 30, 50
OTHER_EACH, WIDTH = 60, 24
NOISE = 0.5
TIGHT, PUBLISHED = CyclesToTolerance(1e-6), FixedCycles(2, 1)
WAYS: dict[str, tuple[type[nn.GRUCell], Control | None]] = {
    "GRU, step by step": (nn.GRUCell, None),
    "GRU, cycles to 1e-6": (nn.GRUCell, TIGHT),
    "GRU, 3 + 3 cycles": (nn.GRUCell, FixedCycles(3)),
    "implicit GRU, step by step": (ImplicitGRUCell, None),
    "implicit GRU, 2 + 1 cycles": (ImplicitGRUCell, PUBLISHED),
}


def rotation(angles: np.ndarray) -> np.ndarray:
    """About the three axes in turn."""
    found = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        found = turn @ found
    return found


def gaits(generator: np.random.Generator) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Three kinds of walking: steps per second, and amplitudes and phases of the harmonics."""
    return [
        (tempo, generator.uniform(0.2, 0.8, (2, 6)), generator.uniform(0.0, 2.0 * np.pi, (2, 6)))
        for tempo in (1.8, 1.6, 2.0)
    ]


def sequences(people: int, each: int, seed: int, group: int) -> tuple[Tensor, Tensor]:
    """X of shape (samples, steps, 9), float32, and the classes."""
    kinds, generator = gaits(np.random.default_rng(0)), np.random.default_rng((seed, group))
    gravity = np.array([[0.0, 0.0, 1.0], [0.25, 0.0, 0.97], [0.4, 0.3, 0.87]])
    time = np.arange(STEPS) / RATE
    found, classes = [], []
    for _ in range(people):
        tempo, strength = generator.normal(1.0, 0.08), generator.uniform(0.6, 1.4)
        tilt = rotation(generator.normal(0.0, 0.15, 3))
        for number in range(each):
            kind = number % CLASSES
            body = np.zeros((STEPS, 6))
            if kind < 3:
                rate, amplitudes, phases = kinds[kind]
                begin = generator.uniform(0.0, 2.0 * np.pi)
                for harmonic in (1, 2):
                    turn = harmonic * (2.0 * np.pi * rate * tempo * time + begin)
                    body += (
                        strength
                        * amplitudes[harmonic - 1]
                        * np.sin(turn[:, None] + phases[harmonic - 1])
                    )
            down = gravity[max(kind - 3, 0)]
            parts = [body[:, :3] @ tilt.T, body[:, 3:] @ tilt.T, (body[:, :3] + down) @ tilt.T]
            found.append(np.hstack(parts) + NOISE * generator.standard_normal((STEPS, 9)))
            classes.append(kind)
    return torch.tensor(np.array(found), dtype=torch.float32), torch.tensor(classes)


class Classifier(nn.Module):
    """A recurrent network and a linear layer on its last output."""

    def __init__(self, recurrent: TimeParallel):
        super().__init__()
        self.recurrent = recurrent
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


def solved(cell: nn.GRUCell, control: Control | None) -> TimeParallel:
    """Step by step, to a tolerance, or by fixed cycles on three levels."""
    if control is None:
        return TimeParallel(cell, mode="serial", batch_first=True)
    if control is TIGHT:
        return TimeParallel(cell, control=control, batch_first=True)
    return TimeParallel(cell, 3, 4, control=control, batch_first=True)


def train(way: str, seed: int, epochs: int, x: Tensor, classes: Tensor) -> Classifier:
    torch.manual_seed(seed)
    kind, control = WAYS[way]
    network = Classifier(solved(kind(x.shape[-1], WIDTH), control))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(network(x[rows]), classes[rows]).backward()
            optimizer.step()
    return network


def evaluate(network: Classifier, way: str, x: Tensor, classes: Tensor) -> dict[str, float]:
    """Accuracies by cycles and step by step, in percent, and how many predictions differ."""
    cell: Any = network.recurrent.cell
    kind, control = WAYS[way]
    usual = TIGHT if kind is nn.GRUCell else PUBLISHED
    predictions = []
    for network.recurrent in (solved(cell, control or usual), solved(cell, None)):
        with torch.no_grad():
            predictions.append(torch.cat([network(part).argmax(1) for part in x.split(300)]))
    right = [100.0 * float((p == classes).float().mean()) for p in predictions]
    differ = int((predictions[0] != predictions[1]).sum())
    return {"parallel": right[0], "serial": right[1], "differ": differ}


def row_of(way: str, found: list[dict[str, float]]) -> saved.Row:
    row: saved.Row = {"method": way, "differ_largest": max(run["differ"] for run in found)}
    for name in ("parallel", "serial"):
        values = [run[name] for run in found]
        row[f"{name}_median"], row[f"{name}_mean"] = statistics.median(values), np.mean(values)
        row[f"{name}_least"], row[f"{name}_largest"] = min(values), max(values)
        row[f"{name}_deviation"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {key: float(v) if isinstance(v, np.floating) else v for key, v in row.items()}


def line(row: saved.Row) -> str:
    told = f"{row['method']:<28}"
    for name in ("parallel", "serial"):
        spread = f"{row[f'{name}_least']:.1f} to {row[f'{name}_largest']:.1f}"
        told += f"{row[f'{name}_median']:>10.1f}{row[f'{name}_deviation']:>7.2f}{spread:>15}"
    return f"{told}{row['differ_largest']:>9}"


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    serial, tight, fixed, *_ = rows
    found = []
    for row in (tight, fixed):
        apart = abs(row["parallel_mean"] - serial["serial_mean"])
        allowed = serial["serial_deviation"]
        name = f"{row['method']}: difference of the mean accuracy from step-by-step training"
        name += ", in percent"
        goal = f"at most one standard deviation of the latter, {allowed:.2f}"
        found.append(saved.target(name, goal, f"{apart:.2f}", apart <= allowed))
    name = f"{tight['method']}: largest number of predictions per seed that differ"
    name += " between cycles and steps"
    most = tight["differ_largest"]
    return [*found, saved.target(name, "none", f"{most}", not most)]


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "TimeParallel took")  # fixed cycles, while nothing is learnt
    setting = f"{options.seeds} seeds, {options.epochs} epochs, accuracy on other people, percent"
    heads = f"{'trained':<28}{'by cycles':>10}{'std':>7}{'':>15}{'serial':>10}{'std':>7}{'':>15}"
    lines, runs = [setting, saved.heading(), "", f"{heads}{'differ':>9}"], {way: [] for way in WAYS}
    print("\n".join(lines), flush=True)
    for seed in range(options.seeds):
        data = sequences(PEOPLE, EACH, seed, 0)
        other = sequences(OTHERS, OTHER_EACH, seed, 1)
        for way, found in runs.items():
            found.append(evaluate(train(way, seed, options.epochs, *data), way, *other))
    rows = [row_of(way, found) for way, found in runs.items()]
    lines += [line(row) for row in rows]
    print("\n".join(lines[-len(rows) :]), flush=True)
    if options.save:
        text = "\n".join(lines)
        saved.save(options.save, "sequence_classification", setting, rows, targets(rows), text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    saved.add_option(parser)
    main(parser.parse_args())
