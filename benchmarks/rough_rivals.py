"""General methods of regression for benchmarks/rough_compositions.py.

Each is a function `fit(data, seconds, seed, **settings) -> predict`, for one thread. Methods
that train step by step hold out the last twentieth of their rows, at most 5000, and return the
state that was best on them.
"""

import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from multilevel_gradient import Roughness
from rough_link_models import Predict
from rough_targets import Rows

from mgnet import Level
from mgnet.knots import KAN, KnotMultigrid, roughness
from mgnet.training import (
    Broyden,
    LeastSquares,
    LevenbergMarquardt,
    NewtonKrylov,
    sine_network,
)

ROOM = 10**8  # numbers of a table of features


class PerInput(torch.nn.Module):
    """Cosines and sines of pi k x, k = 1 to `most`, of each input, scaled by k^-decay."""

    def __init__(self, most: int, decay: float):
        super().__init__()
        self.k = torch.arange(1, most + 1)
        self.decay = decay

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        k = self.k.to(x)
        turns = math.pi * x[:, :, None] * k
        both = torch.cat([turns.cos(), turns.sin()], 2) * torch.cat([k, k]) ** -self.decay
        return both.flatten(1)


def plain_network(inputs: int, width: int, kind: Any, seed: int, first: Any = None) -> Any:
    torch.manual_seed(seed)
    layers = [] if first is None else [first]
    into = inputs if first is None else 2 * inputs * first.k.numel()
    layers += [torch.nn.Linear(into, width), kind(), torch.nn.Linear(width, width), kind()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 1)).double()


def network_of(
    kind: str, inputs: int, width: int, seed: int, frequency: float = 10.0, decay: float = 0.5
) -> Any:
    """Two hidden layers; "fourier" has cosines and sines of each input before them."""
    if kind == "sine":
        generator = torch.Generator().manual_seed(seed)
        return sine_network([inputs, width, width, 1], frequency, generator=generator)
    if kind == "fourier":
        first = PerInput(int(frequency), decay)
        return plain_network(inputs, width, torch.nn.Tanh, seed, first)
    return plain_network(inputs, width, torch.nn.Tanh, seed)


def parts(data: Rows) -> tuple[Rows, torch.Tensor, torch.Tensor]:
    """Rows to train on, and those apart."""
    apart = min(len(data.x) // 20, 5000)
    kept = data._replace(x=data.x[:-apart], y=data.y[:-apart])
    return kept, data.x[-apart:], data.y[-apart:]


def by_blocks(network: torch.nn.Module, dtype: torch.dtype = torch.float64) -> Predict:
    def predict(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([network(part.to(dtype)).double() for part in x.split(10000)])

    return predict


def error(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    dtype = next(network.parameters()).dtype
    return float((by_blocks(network, dtype)(x) - y).square().mean())


def best_of(
    network: torch.nn.Module, steps: Iterator[None], x: torch.Tensor, y: torch.Tensor, until: float
) -> Predict:
    """Runs `steps`, which change the network, until the time is over; looks every 1/20 of it."""
    began = time.process_time()
    looks, best, kept = 0, math.inf, {}
    for _ in steps:
        now = time.process_time()
        if now - began < looks * (until - began) / 20.0 and now < until:
            continue
        looks = 1 + int(20.0 * (now - began) / (until - began))
        found = error(network, x, y)
        if found < best:
            best, kept = found, {k: v.detach().clone() for k, v in network.state_dict().items()}
        if now >= until:
            break
    found = error(network, x, y)
    if kept and not found < best:
        network.load_state_dict(kept)
    return by_blocks(network, next(network.parameters()).dtype)


def smoothed(
    data: Rows,
    until: float,
    network: torch.nn.Module,
    smoother: Any,
    *,
    rows: int = 10**9,
    sweeps: int = 1,
    penalty: Any = None,
    krylov: bool = False,
) -> Predict:
    """Any smoother of mgnet on all of the network, on the first `rows` rows."""
    kept, x, y = parts(data)
    few = kept.x[:rows], kept.y[:rows]
    if krylov:
        scale = len(few[0]) ** -0.5
        problem = LeastSquares.from_torch(network, lambda net: scale * (net(few[0]) - few[1]))
    else:
        problem = LeastSquares(network, few, penalty=penalty)
    level = Level(problem, smoother, objective=problem.value)

    def steps() -> Iterator[None]:
        u = problem.start()
        memory = smoother.start(level, u)
        while True:
            new, memory = smoother.smooth(level, u, None, sweeps, memory)
            if new is u or torch.equal(new, u):
                return
            u = new
            torch.nn.utils.vector_to_parameters(u, network.parameters())
            yield

    return best_of(network, steps(), x, y, until)


def adam(
    data: Rows,
    until: float,
    network: torch.nn.Module,
    *,
    rate: float,
    batch: int,
    dtype: torch.dtype,
    seed: int,
    penalty: Any = None,
) -> Predict:
    """Minibatches, rates that fall by a cosine of the time."""
    kept, x, y = parts(data)
    network = network.to(dtype)
    x_train, y_train = kept.x.to(dtype), kept.y.to(dtype)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(seed)

    def steps() -> Iterator[None]:
        began = time.process_time()
        while True:
            order = torch.randperm(len(x_train), generator=generator)
            for few in order.split(batch):
                part = min((time.process_time() - began) / (until - began), 1.0)
                optimizer.param_groups[0]["lr"] = rate * (1.0 + math.cos(math.pi * part)) / 2.0
                loss = (network(x_train[few]) - y_train[few]).square().mean()
                optimizer.zero_grad()
                loss.backward()
                if penalty is not None:
                    penalty.add_gradient()
                optimizer.step()
                yield

    return best_of(network, steps(), x, y, until)


def network(
    data: Rows,
    seconds: float,
    seed: int,
    *,
    kind: str,
    by: str,
    width: int,
    frequency: float = 10.0,
    decay: float = 0.5,
    rows: int = 10**9,
    rate: float = 1e-3,
    batch: int = 1000,
) -> Predict:
    """A network with two hidden layers, by LM, Broyden or Adam."""
    until = time.process_time() + seconds
    made = network_of(kind, data.x.shape[1], width, seed, frequency, decay)
    if kind == "fourier" and len(data.x) * 12 * frequency < ROOM:  # features once, not each time
        first, made = made[0], made[1:]
        data = data._replace(x=torch.cat([first(x.float()) for x in data.x.split(10000)]))
        inner = adam(data, until, made, rate=rate, batch=batch, dtype=torch.float32, seed=seed)
        return lambda x: torch.cat([inner(first(part.float())) for part in x.split(10000)])
    if by == "adam":
        return adam(data, until, made, rate=rate, batch=batch, dtype=torch.float32, seed=seed)
    smoother = LevenbergMarquardt() if by == "lm" else Broyden()
    return smoothed(data, until, made, smoother, rows=rows, sweeps=1 if by == "lm" else 5)


def kan_at_once(
    data: Rows,
    seconds: float,
    seed: int,
    *,
    by: str,
    hidden: tuple[int, ...],
    intervals: int = 256,
    roughness_weight: float = 0.0,
    krylov: bool = False,
    rate: float = 1e-2,
    batch: int = 1000,
    degree: int = 3,
) -> Predict:
    """The network of the multilevel method, on its finest knots from the start."""
    until = time.process_time() + seconds
    generator = torch.Generator().manual_seed(seed)
    widths, dtype = [data.x.shape[1], *hidden, 1], torch.float32 if by == "adam" else None
    kan = KAN(widths, intervals, degree, dtype=dtype, generator=generator)
    if by == "adam":
        penalty = Roughness(kan, roughness_weight) if roughness_weight else None
        options: Any = {"rate": rate, "batch": batch, "dtype": torch.float32, "seed": seed}
        return adam(data, until, kan, **options, penalty=penalty)
    penalty = partial(roughness, weight=roughness_weight) if roughness_weight else None
    solver = NewtonKrylov(KnotMultigrid()) if krylov else None
    smoother = LevenbergMarquardt(linear_solver=solver)
    return smoothed(data, until, kan, smoother, penalty=penalty, krylov=krylov)


def fourier(data: Rows, seconds: float, seed: int, *, most: int, penalty: float) -> Predict:
    """Cosines and sines of each input, linear ridge regression: an additive model."""
    features = PerInput(most, 0.0)
    size = 2 * most * data.x.shape[1] + 1
    A = torch.zeros(size, size, dtype=torch.float64)
    b = torch.zeros(size, 1, dtype=torch.float64)

    def row(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([features(x), x.new_ones(len(x), 1)], 1)

    for x, y in zip(data.x.split(10000), data.y.split(10000), strict=True):
        A += row(x).T @ row(x)
        b += row(x).T @ y
    c = torch.linalg.solve(A / len(data.x) + penalty * torch.eye(size), b / len(data.x))
    return lambda x: torch.cat([row(part) @ c for part in x.split(10000)])


def kernel_ridge(
    data: Rows, seconds: float, seed: int, *, centres: int, length: float, penalty: float
) -> Predict:
    """Matern 3/2, by Nystrom's method on centers drawn from the rows."""
    generator = torch.Generator().manual_seed(seed)
    z = data.x[torch.randperm(len(data.x), generator=generator)[:centres]]

    def kernel(x: torch.Tensor) -> torch.Tensor:
        far = math.sqrt(3.0) / length * torch.cdist(x, z)
        return (1.0 + far) * torch.exp(-far)

    A = len(data.x) * penalty * kernel(z) + 1e-9 * torch.eye(centres)
    b = torch.zeros(centres, 1, dtype=torch.float64)
    for x, y in zip(data.x.split(10000), data.y.split(10000), strict=True):
        K = kernel(x)
        A += K.T @ K
        b += K.T @ y
    c = torch.linalg.solve(A, b)
    return lambda x: torch.cat([kernel(part) @ c for part in x.split(10000)])
