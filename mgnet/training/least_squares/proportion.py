"""The last layer of a network in proportion to the others: its unit, and its first step.

Where targets are far larger, or smaller, than what weights as large as the others give, the last
layer has to grow, or shrink, as much, and the others have not. With one unit for all, the others
saturate on the way, or stand still at its end. So the parameters in which residuals are linear get
a unit of their own, and the first step is theirs alone: least squares, which is no search. A
training is then the same for targets of any size.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from mgnet.level import Level
from mgnet.training.least_squares.scaling import precision
from mgnet.training.least_squares.step_rules import Trial
from mgnet.training.least_squares.units import Proportion, Unknowns

__all__ = ["last_layer_step", "proportion_of"]

NOISE = 10.0  # times the precision
FAR = 3.0  # a ratio of sizes that is out of proportion; 0.4 to 2.9 for targets of size 1


def proportion_of(
    unknowns: Unknowns, level: Level, told: Any, columns: torch.Tensor
) -> Proportion | None:
    """In which parameters of a network residuals are linear, and of which size they will be.

    Parameters
    ----------
    unknowns : Unknowns
    level : Level
        Work is charged to it.
    told : Linearized
    columns : tensor of shape (unknowns,)
        The diagonal of `J^T J`.

    Returns
    -------
    Proportion or None
        With unit 1 where sizes are in proportion; None where units are given, or known otherwise.
    """
    shared = [place for _, place in unknowns.tensors if not bool(unknowns.own[place].any())]
    if not shared or unknowns.x_scale != "auto" or not unknowns.problem.tells_units:
        return None
    plain = Proportion((False,) * len(unknowns.tensors), 1.0)
    if not _may_be_out(told, columns, shared):
        return plain
    found = _linear_ones(level, told, shared)
    others = [place for place in shared if place not in found]
    given = _given(told, columns, others, found)
    needed = _square(told, _without(told, found))
    if not 0.0 < given < math.inf or not needed < math.inf:
        return plain
    # What is left of outputs that cancel is their rounding.
    seen = max(needed, (NOISE * precision(told.problem)) ** 2 * 2.0 * told.half)
    ratio = (seen / given) ** 0.5
    if 1.0 / FAR < ratio < FAR:
        return plain
    unit = ratio / FAR if ratio > 1.0 else ratio * FAR  # so that nothing jumps at the limits
    return Proportion(tuple(place in found for place in unknowns.places), unit)


def last_layer_step(
    unknowns: Unknowns, proportion: Proportion, told: Any, system: Any, mu: float
) -> tuple[torch.Tensor, Trial]:
    """To the damped solution of the least squares problem of the parameters that are linear.

    Parameters
    ----------
    unknowns : Unknowns
    proportion : Proportion
    told : Linearized
    system : NormalEquations or SingularEquations
    mu : float
        Damping, relative to the mean diagonal of that problem.

    Returns
    -------
    new : tensor of shape (unknowns,)
    trial : Trial
    """
    pairs = zip(unknowns.places, proportion.linear, strict=True)
    places = [place for place, is_one in pairs if is_one]
    held = torch.cat([torch.arange(place.start, place.stop) for place in places])
    matrix = system.gram_of(held)
    matrix.diagonal().add_(mu * matrix.diagonal().mean())
    new = told.u.clone()
    right = -told.J.rmatvec(_without(told, places))[held]
    new[held] = torch.linalg.solve(matrix, right).to(new)
    d, half = new.double() - told.u.double(), told.problem.half_square
    actual = told.half - half(told.problem.residuals(new))
    predicted = told.half - half(told.r + told.J.matvec(d))
    size = float((d if system.unit is None else d / system.unit).norm())
    actual = actual if math.isfinite(actual) else -math.inf
    return new, Trial(actual, predicted, size, float(d @ system.descent))


def _may_be_out(told: Any, columns: torch.Tensor, shared: list[slice]) -> bool:
    """Whether residuals are too large for all parameters, or what the last ones give."""
    needed, given = 2.0 * told.half, _given(told, columns, shared, shared)
    if not 0.0 < given < math.inf or not 0.0 < needed < math.inf:
        return False
    last = (shared[-count:] for count in range(1, min(len(shared), 3)))
    return needed > FAR**2 * given or any(
        _square(told, _without(told, places)) < needed / FAR**2 for places in last
    )


def _given(told: Any, columns: torch.Tensor, typical: list[slice], places: list[slice]) -> float:
    """The squared size of what parameters do to the residuals when as large as typical ones."""
    total = sum(float(columns[place].sum()) for place in places)
    return _mean_square(told.u, typical) * total


def _without(told: Any, places: list[slice]) -> torch.Tensor:
    """The residuals if these parameters were zero, in which they are linear."""
    kept = torch.zeros(len(told.u), dtype=torch.float64)
    for place in places:
        kept[place] = told.u[place].double()
    return told.r - told.J.matvec(kept)


def _square(told: Any, r: torch.Tensor) -> float:
    return 2.0 * told.problem.half_square(r)


def _mean_square(u: torch.Tensor, places: list[slice]) -> float:
    entries = torch.cat([u.new_empty(0), *(u[place] for place in places)]).double()
    return float(entries.square().mean()) if len(entries) else 0.0


def _linear_ones(level: Level, told: Any, shared: list[slice]) -> list[slice]:
    """The parameters in which residuals are linear, all of them together."""
    found: list[slice] = []
    probe = torch.zeros_like(told.u)
    length = _mean_square(told.u, shared) ** 0.5
    for place in reversed(shared):
        further = torch.zeros_like(told.u)
        further[place] = torch.arange(1.0, place.stop - place.start + 1.0).cos().to(further)
        joined = _linear_beside(level, told, probe, further, length)
        if joined is not None:
            probe = joined
            found.append(place)
    return found


def _linear_beside(
    level: Level, told: Any, probe: torch.Tensor, further: torch.Tensor, length: float
) -> torch.Tensor | None:
    """The probe with a further direction, if residuals are linear in both; else None.

    At that length, or one that changes them by their own size: curvature shows there, also in
    float32.
    """
    half, J = told.problem.half_square, told.J
    change = half(J.matvec(further.double()))
    if not change:
        return None
    d = probe + max((told.half / change) ** 0.5, length) * further
    image = J.matvec(d.double())
    bend = half(told.problem.residuals(told.u + d) - told.r - image)
    level.charge(1.0 / 3.0)
    return d if bend <= (1e3 * precision(told.problem)) ** 2 * half(image) else None
