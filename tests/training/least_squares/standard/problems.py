"""All standard problems: the 35 of Moré, Garbow and Hillstrom in several sizes, the 27 of NIST.

    for problem in problems():
        for label, start in problem.starts.items():
            problem.residual(start), problem.minima

`minima.json` beside this file has the minima of the paper, which gives their sums of squares to six
digits, halved and with more digits, and other local minima that solvers come to from 10 x0 and
100 x0. So it is with the values at infinity.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from tests.training.least_squares.standard import nist, small, variable
from tests.training.least_squares.standard.problem import Residual, Standard, vector
from tests.training.least_squares.standard.small import count

FACTORS = {"x0": 1.0, "10 x0": 10.0, "100 x0": 100.0}
MINIMA = json.loads(Path(__file__).with_name("minima.json").read_text())

FIXED: list[tuple[Residual, list[float]]] = [
    (small.rosenbrock, [-1.2, 1.0]),
    (small.freudenstein_roth, [0.5, -2.0]),
    (small.powell_badly_scaled, [0.0, 1.0]),
    (small.brown_badly_scaled, [1.0, 1.0]),
    (small.beale, [1.0, 1.0]),
    (small.jennrich_sampson, [0.3, 0.4]),
    (small.helical_valley, [-1.0, 0.0, 0.0]),
    (small.bard, [1.0, 1.0, 1.0]),
    (small.gaussian, [0.4, 1.0, 0.0]),
    (small.meyer, [0.02, 4000.0, 250.0]),
    (small.gulf, [5.0, 2.5, 0.15]),
    (small.box, [0.0, 10.0, 20.0]),
    (small.powell_singular, [3.0, -1.0, 0.0, 1.0]),
    (small.wood, [-3.0, -1.0, -3.0, -1.0]),
    (small.kowalik_osborne, [0.25, 0.39, 0.415, 0.39]),
    (small.brown_dennis, [25.0, 5.0, -5.0, -1.0]),
    (small.osborne_1, [0.5, 1.5, -1.0, 0.01, 0.02]),
    (small.biggs, [1.0, 2.0, 1.0, 1.0, 1.0, 1.0]),
    (small.osborne_2, [1.3, 0.65, 0.65, 0.7, 0.6, 3.0, 5.0, 7.0, 2.0, 4.5, 5.5]),
]


class Family(NamedTuple):
    """A problem whose number of unknowns n, and perhaps of residuals m, can be chosen."""

    residual: Residual
    start: torch.Tensor  # of length n
    size: str


def families() -> Iterator[Family]:
    """In the order of the paper, with the sizes of MINPACK's test drivers."""
    one = torch.ones(40, dtype=torch.float64)
    for n in 6, 9, 12:
        yield Family(variable.watson, 0.0 * one[:n], f"{n}")
    yield Family(variable.extended_rosenbrock, vector([-1.2, 1.0] * 5), "10")
    yield Family(variable.extended_powell_singular, vector([3.0, -1.0, 0.0, 1.0] * 3), "12")
    for n in 4, 10:
        yield Family(variable.penalty_1, count(1, n), f"{n}")
    for n in 4, 10:
        yield Family(variable.penalty_2, one[:n] / 2.0, f"{n}")
    yield Family(variable.variably_dimensioned, 1.0 - count(1, 10) / 10.0, "10")
    yield Family(variable.trigonometric, one[:10] / 10.0, "10")
    for n in 10, 30, 40:
        yield Family(variable.brown_almost_linear, one[:n] / 2.0, f"{n}")
    t = count(1, 10) / 11.0
    yield Family(variable.boundary_value, t * (t - 1.0), "10")
    yield Family(variable.integral_equation, t * (t - 1.0), "10")
    yield Family(variable.broyden_tridiagonal, -one[:10], "10")
    yield Family(variable.broyden_banded, -one[:10], "10")
    for linear in variable.linear_full_rank, variable.linear_rank_1, variable.linear_rank_1_zeros:
        for m in 10, 50:
            yield Family(partial(linear, m), one[:5], f"5 x {m}")
    for n, m in (1, 8), (8, 8), (9, 9), (10, 10):
        yield Family(partial(variable.chebyquad, m), count(1, n) / (n + 1.0), f"{n} x {m}")


def name_of(residual: Residual) -> str:
    function = residual.func if isinstance(residual, partial) else residual
    return function.__name__.replace("_", " ")


def starts_of(name: str, start: torch.Tensor) -> dict[str, torch.Tensor]:
    """Multiples of the standard start; MINPACK's convention where that is zero.

    Of the larger sizes that MINPACK's drivers take from the standard start only, no multiples.
    """
    found = {label: factor * start for label, factor in FACTORS.items()}
    if not bool(start.any()):
        ones = torch.ones_like(start)
        found |= {label: f * ones for label, f in FACTORS.items() if f != 1.0}
    if name in ONCE:
        return {"x0": found["x0"]}
    return found


ONCE = {"brown almost linear 30", "brown almost linear 40"}


def mgh() -> list[Standard]:
    """The problems of Moré, Garbow and Hillstrom, in the order of the paper."""
    cases = [(name_of(residual), residual, vector(start)) for residual, start in FIXED]
    cases += [(f"{name_of(f.residual)} {f.size}", f.residual, f.start) for f in families()]
    return [
        Standard(
            name,
            "MGH",
            residual,
            starts_of(name, start),
            tuple(MINIMA[name]["minima"]),
            tuple(vector(x) for x in MINIMA[name]["points"]),
            tuple(MINIMA[name].get("at_infinity", ())),
        )
        for name, residual, start in cases
    ]


def problems() -> list[Standard]:
    """All of them: 35 of Moré, Garbow and Hillstrom in 47 sizes, then 27 of NIST."""
    return mgh() + nist.problems()
