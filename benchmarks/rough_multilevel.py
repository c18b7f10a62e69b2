"""The multilevel rows of benchmarks/rough_compositions.py, and nothing else."""

import math
import time
from functools import partial
from typing import Any

import torch
from rough_link_models import Predict
from rough_rivals import by_blocks, error, parts
from rough_targets import Rows

from mgnet import CycleRecord
from mgnet.knots import KAN, knot_hierarchy, roughness
from mgnet.training import (
    LeastSquares,
    LevenbergMarquardt,
    MultilevelGradient,
    levenberg_marquardt,
    train,
)


def multilevel(
    data: Rows,
    seconds: float,
    seed: int,
    *,
    hidden: tuple[int, ...],
    levels: int = 6,
    starts: int = 8,
    keep: tuple[int, ...] = (4, 2, 1, 1, 1),
    outer: int = 16,
    rows: float = 10.0,
    coarsest: int = 8,
    roughness_weight: float = 0.0,
    degree: int = 3,
) -> Predict:
    """A tournament over the knots: many starts on the coarsest, the best ones on finer ones."""
    until = time.process_time() + 0.95 * seconds
    generator = torch.Generator().manual_seed(seed)
    kan = KAN([data.x.shape[1], *hidden, 1], coarsest, degree, generator=generator)
    penalty = partial(roughness, weight=roughness_weight) if roughness_weight else None
    problem = LeastSquares(kan, (data.x, data.y), penalty=penalty)
    hierarchy = knot_hierarchy(
        kan, problem, levels, LevenbergMarquardt(), most_intervals=(None, *[outer] * len(hidden))
    )

    def over(record: CycleRecord, u: Any) -> bool:
        """Seconds of `train` are wall time; these are of the processor."""
        return time.process_time() > until

    solution = train(
        hierarchy,
        hierarchy[0].operator.start(),
        rows=rows,
        starts=starts,
        keep=keep[: levels - 1],
        seed=seed,
        max_cycles=30,
        patience=3,
        gain=0.05,
        monitor=over,
    )
    return by_blocks(hierarchy.network(0, solution.value))


def gradient_first(
    data: Rows,
    seconds: float,
    seed: int,
    *,
    hidden: tuple[int, ...],
    intervals: int = 256,
    outer: int = 8,
    keep: tuple[int, ...] = (6, 1),
    shares: tuple[float, ...] = (0.06, 0.2),
    rate: float = 1e-2,
    batch: int = 500,
    rows: float = 10.0,
) -> Predict:
    """The multilevel gradient finds the minimum, Levenberg-Marquardt goes to its bottom.

    `keep[i]` starts train for `shares[i]` of the seconds each, on the finest knots; the best of
    them go on. Levenberg-Marquardt sees ten rows per parameter until three quarters of the seconds
    are over.
    """
    began = time.process_time()
    kept, x_apart, y_apart = parts(data)
    x, y = kept.x.float(), kept.y.float()
    knots = [intervals, *[outer] * len(hidden)]

    def begin(number: int) -> tuple[KAN, torch.optim.Optimizer]:
        own = torch.Generator().manual_seed(1000 * seed + number)
        kan = KAN([x.shape[1], *hidden, 1], knots, dtype=torch.float32, generator=own)
        return kan, MultilevelGradient(torch.optim.Adam, kan, {"lr": rate})

    def steps(kan: KAN, optimizer: torch.optim.Optimizer, time_given: float) -> None:
        own = time.process_time()
        while (part := (time.process_time() - own) / time_given) < 1.0:
            for group in optimizer.param_groups:
                group["lr"] = rate * (1.0 + math.cos(math.pi * part)) / 2.0
            few = torch.randint(len(x), (batch,), generator=generator)
            optimizer.zero_grad()
            (kan(x[few]) - y[few]).square().mean().backward()
            optimizer.step()

    generator = torch.Generator().manual_seed(seed)
    field = [begin(number) for number in range(keep[0])]
    for best, share in zip(keep, shares, strict=True):
        field = field[:best]
        for each in field:
            steps(*each, share * seconds)
        field.sort(key=lambda each: error(each[0], x_apart, y_apart))
    kan = field[0][0].double()
    problem = LeastSquares(kan, (data.x, data.y))
    few, _ = problem.split(round(rows * sum(p.numel() for p in kan.parameters())))

    def descend(own: Any, until: float) -> None:
        levenberg_marquardt(
            own, max_cycles=10**6, monitor=lambda record, u: time.process_time() > until
        )

    descend(few, began + 0.75 * seconds)
    descend(problem, began + 0.95 * seconds)
    return by_blocks(kan)
