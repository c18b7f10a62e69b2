"""The problems of Moré, Garbow and Hillstrom with a fixed number of unknowns.

Problems 1 to 19 of "Testing unconstrained optimization software", ACM TOMS 7 (1981) 17-41, as
residuals; observations are in `mgh.json` beside this file.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from tests.training.least_squares.standard.problem import vector

DATA = {
    name: vector(y)
    for name, y in json.loads(Path(__file__).with_name("mgh.json").read_text()).items()
}


def count(first: int, last: int) -> torch.Tensor:
    """The whole numbers from first to last."""
    return torch.arange(first, last + 1, dtype=torch.float64)


def rosenbrock(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([10.0 * (x[1] - x[0] ** 2), 1.0 - x[0]])


def freudenstein_roth(x: torch.Tensor) -> torch.Tensor:
    a, b = x
    return torch.stack(
        [-13.0 + a + ((5.0 - b) * b - 2.0) * b, -29.0 + a + ((b + 1.0) * b - 14.0) * b]
    )


def powell_badly_scaled(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([1e4 * x[0] * x[1] - 1.0, torch.exp(-x).sum() - 1.0001])


def brown_badly_scaled(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2.0])


def beale(x: torch.Tensor) -> torch.Tensor:
    return vector([1.5, 2.25, 2.625]) - x[0] * (1.0 - x[1] ** count(1, 3))


def jennrich_sampson(x: torch.Tensor) -> torch.Tensor:
    i = count(1, 10)
    return 2.0 + 2.0 * i - torch.exp(i * x[0]) - torch.exp(i * x[1])


def helical_valley(x: torch.Tensor) -> torch.Tensor:
    turn = torch.atan2(x[1], x[0]) / (2.0 * math.pi)
    turn = torch.where(turn < -0.25, turn + 1.0, turn)  # so that it jumps where x1 = 0, x2 < 0
    radius = torch.sqrt(x[0] ** 2 + x[1] ** 2)
    return torch.stack([10.0 * (x[2] - 10.0 * turn), 10.0 * (radius - 1.0), x[2]])


def bard(x: torch.Tensor) -> torch.Tensor:
    u = count(1, 15)
    v = 16.0 - u
    return DATA["bard"] - (x[0] + u / (v * x[1] + torch.minimum(u, v) * x[2]))


def gaussian(x: torch.Tensor) -> torch.Tensor:
    t = (8.0 - count(1, 15)) / 2.0
    y = torch.cat([DATA["gaussian"], DATA["gaussian"][:-1].flip(0)])
    return x[0] * torch.exp(-x[1] * (t - x[2]) ** 2 / 2.0) - y


def meyer(x: torch.Tensor) -> torch.Tensor:
    return x[0] * torch.exp(x[1] / (45.0 + 5.0 * count(1, 16) + x[2])) - DATA["meyer"]


def gulf(x: torch.Tensor) -> torch.Tensor:
    t = count(1, 99) / 100.0
    y = 25.0 + (-50.0 * torch.log(t)) ** (2.0 / 3.0)
    return torch.exp(-((y - x[1]).abs() ** x[2]) / x[0]) - t


def box(x: torch.Tensor) -> torch.Tensor:
    t = count(1, 10) / 10.0
    difference = torch.exp(-t * x[0]) - torch.exp(-t * x[1])
    return difference - x[2] * (torch.exp(-t) - torch.exp(-10.0 * t))


def powell_singular(x: torch.Tensor) -> torch.Tensor:
    a, b, c, d = x
    return torch.stack(
        [
            a + 10.0 * b,
            math.sqrt(5.0) * (c - d),
            (b - 2.0 * c) ** 2,
            math.sqrt(10.0) * (a - d) ** 2,
        ]
    )


def wood(x: torch.Tensor) -> torch.Tensor:
    a, b, c, d = x
    return torch.stack(
        [
            10.0 * (b - a**2),
            1.0 - a,
            math.sqrt(90.0) * (d - c**2),
            1.0 - c,
            math.sqrt(10.0) * (b + d - 2.0),
            (b - d) / math.sqrt(10.0),
        ]
    )


def kowalik_osborne(x: torch.Tensor) -> torch.Tensor:
    u = DATA["kowalik u"]
    return DATA["kowalik"] - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis(x: torch.Tensor) -> torch.Tensor:
    t = count(1, 20) / 5.0
    first = x[0] + t * x[1] - torch.exp(t)
    return first**2 + (x[2] + x[3] * torch.sin(t) - torch.cos(t)) ** 2


def osborne_1(x: torch.Tensor) -> torch.Tensor:
    t = 10.0 * count(0, 32)
    return DATA["osborne 1"] - (x[0] + x[1] * torch.exp(-t * x[3]) + x[2] * torch.exp(-t * x[4]))


def biggs(x: torch.Tensor) -> torch.Tensor:
    t = count(1, 13) / 10.0
    y = torch.exp(-t) - 5.0 * torch.exp(-10.0 * t) + 3.0 * torch.exp(-4.0 * t)
    model = x[2] * torch.exp(-t * x[0]) - x[3] * torch.exp(-t * x[1]) + x[5] * torch.exp(-t * x[4])
    return model - y


def osborne_2(x: torch.Tensor) -> torch.Tensor:
    t = count(0, 64) / 10.0
    peaks = x[1:4] * torch.exp(-((t[:, None] - x[8:11]) ** 2) * x[5:8])
    return DATA["osborne 2"] - (x[0] * torch.exp(-t * x[4]) + peaks.sum(1))
