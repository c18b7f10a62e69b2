"""The 27 nonlinear regressions of NIST's Statistical Reference Datasets, both starts each.

Observations, starts and certified numbers are those of https://www.itl.nist.gov/div898/strd/nls,
in `nist.json` beside this file; residuals are model minus observation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from tests.training.least_squares.standard.problem import Standard, vector

DATA = json.loads(Path(__file__).with_name("nist.json").read_text())

Model = Callable[..., torch.Tensor]  # (b, x) or (b, x1, x2) -> expected observations


def saturation(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return b[0] * (1.0 - torch.exp(-b[1] * x))


def misra1b(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return b[0] * (1.0 - (1.0 + b[1] * x / 2.0) ** -2.0)


def misra1c(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return b[0] * (1.0 - (1.0 + 2.0 * b[1] * x) ** -0.5)


def misra1d(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return b[0] * b[1] * x / (1.0 + b[1] * x)


def chwirut(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.exp(-b[0] * x) / (b[1] + b[2] * x)


def lanczos(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (b[0::2] * torch.exp(-x[:, None] * b[1::2])).sum(1)


def gauss(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    first = b[2] * torch.exp(-(((x - b[3]) / b[4]) ** 2))
    second = b[5] * torch.exp(-(((x - b[6]) / b[7]) ** 2))
    return b[0] * torch.exp(-b[1] * x) + first + second


def power(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return b[0] * x ** b[1]


def rational(numerator: int, b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Of polynomials; that below begins with 1."""
    powers = x[:, None] ** torch.arange(len(b), dtype=b.dtype)
    below = 1.0 + powers[:, 1 : len(b) - numerator + 1] @ b[numerator:]
    return powers[:, :numerator] @ b[:numerator] / below


def nelson(b: torch.Tensor, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
    return b[0] - b[1] * x1 * torch.exp(-b[2] * x2)


def mgh17(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return b[0] + b[1] * torch.exp(-x * b[3]) + b[2] * torch.exp(-x * b[4])


def roszman1(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return b[0] - b[1] * x - torch.atan(b[2] / (x - b[3])) / math.pi


def enso(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    turn = 2.0 * math.pi * x
    year = b[1] * torch.cos(turn / 12.0) + b[2] * torch.sin(turn / 12.0)
    second = b[4] * torch.cos(turn / b[3]) + b[5] * torch.sin(turn / b[3])
    third = b[7] * torch.cos(turn / b[6]) + b[8] * torch.sin(turn / b[6])
    return b[0] + year + second + third


def mgh09(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3])


def rat42(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return b[0] / (1.0 + torch.exp(b[1] - b[2] * x))


def mgh10(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return b[0] * torch.exp(b[1] / (x + b[2]))


def eckerle4(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return b[0] / b[1] * torch.exp(-0.5 * ((x - b[2]) / b[1]) ** 2)


def rat43(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return b[0] / (1.0 + torch.exp(b[1] - b[2] * x)) ** (1.0 / b[3])


def bennett5(b: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return b[0] * (b[1] + x) ** (-1.0 / b[2])


GROUPS = {  # of parameters that may change places: exponentials, peaks, waves
    "Lanczos": ((0, 1), (2, 3), (4, 5)),
    "Gauss": ((2, 3, 4), (5, 6, 7)),
    "MGH17": ((1, 3), (2, 4)),
    "ENSO": ((3, 4, 5), (6, 7, 8)),
}
MODELS: dict[str, Model] = {
    "Misra1a": saturation,
    "Misra1b": misra1b,
    "Misra1c": misra1c,
    "Misra1d": misra1d,
    "Chwirut1": chwirut,
    "Chwirut2": chwirut,
    "Lanczos1": lanczos,
    "Lanczos2": lanczos,
    "Lanczos3": lanczos,
    "Gauss1": gauss,
    "Gauss2": gauss,
    "Gauss3": gauss,
    "DanWood": power,
    "Kirby2": partial(rational, 3),
    "Hahn1": partial(rational, 4),
    "Nelson": nelson,
    "MGH17": mgh17,
    "Roszman1": roszman1,
    "ENSO": enso,
    "MGH09": mgh09,
    "Thurber": partial(rational, 4),
    "BoxBOD": saturation,
    "Rat42": rat42,
    "MGH10": mgh10,
    "Eckerle4": eckerle4,
    "Rat43": rat43,
    "Bennett5": bennett5,
}


def problem(name: str) -> Standard:
    data, model = DATA[name], MODELS[name]
    predictors, y = [vector(x) for x in data["x"]], vector(data["y"])
    if name == "Nelson":
        y = torch.log(y)

    def residual(b: torch.Tensor) -> torch.Tensor:
        return model(b, *predictors) - y

    certified = vector(data["certified"])
    return Standard(
        name,
        "NIST",
        residual,
        {f"start {k}": vector(start) for k, start in enumerate(data["starts"], 1)},
        (0.5 * data["sum_of_squares"],),
        (certified,),
        certified=certified,
        deviations=vector(data["deviations"]),
        groups=GROUPS.get(name if name in GROUPS else name[:-1], ()),
        observed=float(y.norm()),
    )


def problems() -> list[Standard]:
    return [problem(name) for name in MODELS]
