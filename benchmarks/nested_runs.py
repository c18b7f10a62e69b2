"""Runs of benchmarks/nested_gpt.py: two tasks, and training with a plan of depths in equal time."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformer_layers import Block, Embedding, texts, windows

from mgnet.depth import ODENet, parameter_groups, refine_optimizer, train_in_depth
from mgnet.depth.nested_training import warm_up_and_decay as decayed

DEPTHS = 2, 4, 8, 16, 32
DEEPEST = DEPTHS[-1]
VALUES, LENGTH, GAPS = 16, 64, (24, 33)  # of the task "carry"
Rows = tuple[torch.Tensor, torch.Tensor]  # tokens, and what is to be said at each


class Setting(NamedTuple):
    """What a row may choose."""

    rate: float
    final_time: float


class Task(NamedTuple):
    """A network for a number of layers, batches, data held out, and settings to choose from."""

    name: str
    net: Callable[[int, Setting, int], ODENet]
    batch: Callable[[np.random.Generator], Rows]
    held_out: Rows
    grid: list[Setting]
    budgets: Sequence[float]
    how: tuple[str, ...]  # the argument of `ODENet.refine`


class Plan(NamedTuple):
    """Numbers of layers, their shares of the time, and how `ODENet.refine` gets to the next."""

    depths: tuple[int, ...]
    shares: tuple[float, ...]
    how: str = "steps"


class Result(NamedTuple):
    """Results of one training: nats per token held out, layers at the end, time used in units."""

    loss: float
    layers: int
    used: float


def network(
    block: Callable[[], nn.Module], before: Callable[[], nn.Module], width: int, tokens: int
) -> Any:
    def made(layers: int, setting: Setting, seed: int) -> ODENet:
        torch.manual_seed(seed)
        ends: dict[str, Any] = {"before": before()}
        ends["after"] = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, tokens))
        return ODENet(lambda n: block(), layers, setting.final_time, learnable_steps=True, **ends)

    return made


def text() -> Task:
    """The next byte of Python's standard library; every tenth file is held out."""
    training, apart = texts()

    def batch(rng: np.random.Generator, of: np.ndarray = training, count: int = 8) -> Rows:
        rows = windows(of, count, rng)
        return rows[:, :-1], rows[:, 1:]

    held_out = batch(np.random.default_rng(1), apart, 256)
    grid = [Setting(*each) for each in product((1e-3, 2e-3, 4e-3, 8e-3), (1.0, 2.0, 4.0))]
    return Task(
        "text", network(Block, Embedding, 64, 256), batch, held_out, grid, [8, 32, 128], ("steps",)
    )


def carry() -> Task:
    """Which value came last, though a layer looks one token back only.

    Values stand 24 to 33 tokens apart, with nothing between: n layers see n tokens back.
    """

    def batch(rng: np.random.Generator, count: int = 8) -> Rows:
        tokens = np.zeros((count, LENGTH), np.int64)
        for row in tokens:
            places = np.cumsum([0, *rng.integers(GAPS[0], GAPS[1] + 1, LENGTH // GAPS[0])])
            places = places[places < LENGTH]
            row[places] = rng.integers(1, VALUES + 1, len(places))
        last = np.maximum.accumulate(np.where(tokens > 0, np.arange(LENGTH), 0), axis=1)
        wanted = np.take_along_axis(tokens, last, 1)
        return torch.from_numpy(tokens), torch.from_numpy(wanted)

    def before() -> nn.Module:
        return nn.Embedding(VALUES + 1, 32)

    make = network(lambda: Block(32, 2, window=2), before, 32, VALUES + 1)
    grid = [Setting(*each) for each in product((2e-3, 4e-3, 8e-3, 1.6e-2), (4.0, 16.0))]
    budgets, hows = [50, 100, 200], ("steps", "constant")
    return Task("carry", make, batch, batch(np.random.default_rng(1), 256), grid, budgets, hows)


def loss_of(module: nn.Module, rows: Rows) -> torch.Tensor:
    return functional.cross_entropy(module(rows[0]).flatten(0, 1), rows[1].flatten())


def optimizer_of(net: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameter_groups(net, 0.1), lr=rate, betas=(0.9, 0.95))


def step(net: nn.Module, optimizer: torch.optim.Optimizer, rows: Rows) -> None:
    optimizer.zero_grad()
    loss_of(net, rows).backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()


def costs(task: Task, rounds: int = 15) -> dict[int, float]:
    """Processor seconds of a step for each number of layers: medians of alternating runs."""
    rng, setting = np.random.default_rng(0), Setting(1e-3, 1.0)
    nets = {layers: task.net(layers, setting, 0) for layers in DEPTHS}
    optimizers = {layers: optimizer_of(net, setting.rate) for layers, net in nets.items()}
    times: dict[int, list[float]] = {layers: [] for layers in DEPTHS}
    for _ in range(rounds):
        for layers, net in nets.items():
            began = time.process_time()
            step(net, optimizers[layers], task.batch(rng))
            times[layers].append(time.process_time() - began)
    return {layers: statistics.median(each[2:]) for layers, each in times.items()}


def held_out(task: Task, net: nn.Module) -> float:
    with torch.no_grad():
        return float(loss_of(net, task.held_out))


def train(
    task: Task, plan: Plan, setting: Setting, budget: float, seed: int, cost: dict[int, float]
) -> Result:
    """Steps that take, by `cost`, as long as `budget` steps of the deepest net."""
    rng = np.random.default_rng(seed)
    net = task.net(plan.depths[0], setting, seed)
    optimizer = optimizer_of(net, setting.rate)
    used = end = 0.0
    for depth, share in zip(plan.depths, plan.shares, strict=True):
        while net.depth < depth:
            fine = net.refine(2, plan.how)
            net, optimizer = fine, refine_optimizer(optimizer, net, fine, plan.how)
        end += share * budget
        while used < end - 1e-9:
            factor = decayed(used / budget, warm_up=0.05)
            for group in optimizer.param_groups:
                group["lr"] = setting.rate * factor
            step(net, optimizer, task.batch(rng))
            used += cost[net.depth] / cost[DEEPEST]
    return Result(held_out(task, net), net.depth, used)


class _Batches:
    """Start from the seed each time."""

    def __init__(self, task: Task, seed: int):
        self.task, self.seed = task, seed

    def __iter__(self) -> Iterator[Rows]:
        rng = np.random.default_rng(self.seed)
        while True:
            yield self.task.batch(rng)


def train_with_trials(
    task: Task, how: str, setting: Setting, budget: float, seed: int, cost: dict[int, float]
) -> Result:
    """By `train_in_depth`, which decides on batches of its own and counts layers, not seconds.

    Its work is so chosen that it takes at most the budget, whatever it decides.
    """
    dearest = max(cost[n] / cost[DEEPEST] * DEEPEST / n for n in DEPTHS)
    apart = [task.batch(np.random.default_rng(1000 + seed)) for _ in range(8)]

    def validate(module: nn.Module) -> float:
        return statistics.fmean(float(loss_of(module, rows)) for rows in apart)

    told = train_in_depth(
        task.net(DEPTHS[0], setting, seed),
        loss_of,
        _Batches(task, seed),
        lambda net: optimizer_of(net, setting.rate),
        validate,
        depth=DEEPEST,
        work=budget / dearest,
        how=how,
        schedule=partial(decayed, warm_up=0.05),
        clip=1.0,
    )
    used = sum(stage.steps * cost[stage.layers] for stage in told.stages) / cost[DEEPEST]
    return Result(held_out(task, told.net), told.net.depth, used)
