"""Regression of arXiv 2603.04827, section 5: [2, 5, 1], from 55 to 230 parameters.

"error" is the mean squared error with targets scaled to [0, 1], "loss" with targets as they are,
and the second loss that on 20000 other points, targets scaled.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from pinn_problems import Plan
from pinn_tables import Run

from mgnet import Level, Smoother
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import Broyden, LeastSquares, LevenbergMarquardt

LM = LevenbergMarquardt()


class Regression(NamedTuple):
    """As far as a `pinn_problems.Problem`."""

    title: str
    target: str
    seconds: float
    classical: str
    plan: Plan
    mlp: tuple[int, ...]


PROBLEM = Regression(
    "Regression, 20000 points, 230 weights",
    "3.67e-05 in 60 s (published)",
    60.0,
    "targets scaled to [0, 1]",
    Plan((2, 5, 1), 5, (20000,) * 4, (0.3, 0.25, 0.2, 0.25), degree=3, every=0),
    (2, 13, 13, 1),
)


def points(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = 1e-4 + (1.0 - 2e-4) * torch.rand(40000, 2, generator=generator, dtype=torch.float64)
    c, s = math.cos(0.175), math.sin(0.175)
    a, b = c * x[:, :1] - s * x[:, 1:], s * x[:, :1] + c * x[:, 1:]
    y = torch.cos(4.0 * math.pi * a) + torch.sin(math.pi * b) + torch.sin(2.0 * math.pi * b)
    return x, y + torch.sin(3.0 * math.pi * b**2).abs()


def data(seed: int) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], float]:
    """Training and other points, targets scaled to [0, 1]; the scale."""
    x, y = points(seed)
    low, high = float(y.min()), float(y.max())
    y = (y - low) / (high - low)
    return [(x[:20000], y[:20000]), (x[20000:], y[20000:])], high - low


def descend(
    problem: LeastSquares,
    u: torch.Tensor,
    seconds: float,
    memory: object = None,
    smoother: Smoother = LM,
    sweeps: int = 1,
) -> tuple[torch.Tensor, object, int]:
    """Sweeps for some seconds."""
    level, steps, began = Level(problem, smoother, objective=problem.value), 0, time.perf_counter()
    memory = memory or smoother.start(level, u)
    while time.perf_counter() - began < seconds:
        u, memory = smoother.smooth(level, u, None, sweeps, memory)
        steps += sweeps
    return u, memory, steps


def judge(problem: LeastSquares, u: torch.Tensor, seed: int, steps: int, began: float) -> Run:
    seconds = time.perf_counter() - began
    (_, others), scale = data(seed)
    error, held = problem.mean_square(u), problem.with_data(others).mean_square(u)
    return Run(len(u), steps, seconds, error, error * scale**2, held)


def nested(_: object, seed: int, seconds: float, at_once: bool = False) -> Run:
    plan, (given, _) = PROBLEM.plan, data(seed)[0]
    kan = KAN(
        plan.widths,
        plan.intervals,
        plan.degree,
        linear=True,
        generator=torch.Generator().manual_seed(seed),
    )
    levels = len(plan.points)
    hierarchy = knot_hierarchy(kan, LeastSquares(kan, given), levels, LM)
    u, memory, steps, began = LeastSquares(kan, given).start(), None, 0, time.perf_counter()
    for stage, share in enumerate(plan.shares):
        level = levels - 1 - stage
        if stage:
            u = hierarchy[level].transfer.interpolate(u)  # type: ignore[union-attr]
        if at_once:
            share = 0.0 if level else 1.0
        u, memory, more = descend(hierarchy[level].operator, u, share * seconds, memory)
        steps += more
    return judge(hierarchy[0].operator, u, seed, steps, began)


def mlp(_: object, seed: int, seconds: float, smoother: Smoother = LM, sweeps: int = 1) -> Run:
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in zip(PROBLEM.mlp[:-1], PROBLEM.mlp[1:], strict=True):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.Tanh()]
    given, _ = data(seed)[0]
    problem = LeastSquares(torch.nn.Sequential(*layers[:-1]).double(), given)
    u, began = problem.start(), time.perf_counter()
    u, _, steps = descend(problem, u, seconds, None, smoother, sweeps)
    return judge(problem, u, seed, steps, began)


ROWS: dict[str, Callable[..., Run]] = {
    "nested": nested,
    "at once": lambda p, seed, seconds: nested(p, seed, seconds, at_once=True),
    "LM": mlp,
    "Broyden": lambda p, seed, seconds: mlp(p, seed, seconds, Broyden(), 10),
}
