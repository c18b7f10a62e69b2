"""The last layer of a network in proportion to the other layers: its units and its first step.

If the targets are far larger or smaller than the initial outputs, the last layer must grow or
shrink accordingly, but the other layers need not. With one unit for all layers, the other layers
then saturate or stagnate. Therefore, if the parameters in which the residuals are linear can solve
most of the problem, the first step changes only these parameters, to a least-squares solution that
needs no search. The unit of these parameters is then their size in this solution.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from mgnet.level import Level
from mgnet.training.least_squares.scaling import precision
from mgnet.training.least_squares.step_rules import Trial
from mgnet.training.least_squares.units import Proportion, Unknowns, size_of

__all__ = ["first_step", "is_to_be_known", "trial_of"]

OUT = 3.0  # a ratio of sizes that counts as out of proportion
FAR = 10.0  # a ratio that requires a unit; sizes change by less in a training run
SOLVED = 0.75  # part of the objective that an accepted first step must remove


def first_step(
    unknowns: Unknowns, level: Level, told: Any, system: Any, mu: float
) -> tuple[Proportion | None, torch.Tensor | None]:
    """The units of parameters in which residuals are linear, and their damped solution.

    The unit of each parameter is its size in the solution of the linear least-squares problem, to
    within a factor of ten. Every parameter has its own unit because, for targets with an offset,
    the bias is large and the weights are not.

    Parameters
    ----------
    unknowns : Unknowns
        Unknowns of the problem.
    level : Level
        Level to which work is charged.
    told : Linearized
        Linearization at the initial state.
    system : NormalEquations or SingularEquations
        System of the step.
    mu : float
        Damping relative to the mean diagonal of `J^T J` for these parameters.

    Returns
    -------
    proportion : Proportion or None
        Units of 1 if the sizes are in proportion; None if the units come from elsewhere.
    state : tensor of shape (unknowns,), or None
        State with the damped solution; None if the sizes are in proportion.
    """
    if not is_to_be_known(unknowns):
        return None, None
    shared = _shared(unknowns)
    plain = Proportion((1.0,) * len(unknowns.tensors))
    if not _out(told, system.columns, shared):
        return plain, None
    found = _linear_ones(level, told, shared)
    others = [place for place in shared if place not in found]
    typical = _mean_square(told.u, others) ** 0.5
    if not found or not 0.0 < typical < math.inf:
        return plain, None
    new = _solved(told, system, found, mu)
    least = precision(told.problem)  # outputs that cancel leave rounding errors
    units = [
        _unit(_mean_square(new, [p]) ** 0.5 / typical, least) if p in found else 1.0
        for p in unknowns.places
    ]
    if not all(map(math.isfinite, units)):
        return plain, None
    return Proportion(tuple(units)), new


def is_to_be_known(unknowns: Unknowns) -> bool:
    """Whether parameters share a unit, so that their proportion must be determined.

    Examples
    --------
    >>> from mgnet.training import LeastSquares
    >>> problem = LeastSquares.from_torch(torch.nn.Linear(1, 1), lambda m: m.weight)
    >>> is_to_be_known(Unknowns(problem, 2)), is_to_be_known(Unknowns(problem, 2, "jac"))
    (True, False)
    """
    auto = unknowns.x_scale == "auto" if isinstance(unknowns.x_scale, str) else False
    return auto and unknowns.problem.tells_units and bool(_shared(unknowns))


def _shared(unknowns: Unknowns) -> list[slice]:
    """The slices of the parameters that share a unit."""
    return [place for _, place in unknowns.tensors if not bool(unknowns.own[place].any())]


def _unit(size: float, least: float) -> float:
    size = max(size, least)
    return max(1.0, size / FAR) if size > 1.0 else min(1.0, size * FAR)


def _solved(told: Any, system: Any, places: list[slice], mu: float) -> torch.Tensor:
    """The state with the damped solution of the least-squares problem of these parameters."""
    held = torch.cat([torch.arange(place.start, place.stop) for place in places])
    matrix = system.gram_of(held)
    matrix.diagonal().add_(mu * matrix.diagonal().mean())
    right = -told.J.rmatvec(_without(told, places))[held]
    new = told.u.clone()
    new[held] = torch.linalg.solve(matrix, right).to(new)
    return new


def trial_of(told: Any, system: Any, new: torch.Tensor) -> Trial:
    """The step to the state of `first_step`; it is rejected if it reduces the objective too little.

    If the present features cannot fit the data, they have to change. This works better while the
    last layer is small, for example because a nearly linear network has small second derivatives.
    """
    d, half = new.double() - told.u.double(), told.problem.half_square
    actual = told.half - half(told.problem.residuals(new))
    predicted = told.half - half(told.r + told.J.matvec(d))
    actual = actual if actual >= SOLVED * told.half else -math.inf
    return Trial(actual, predicted, size_of(d, system.unit), float(d @ system.descent))


def _out(told: Any, columns: torch.Tensor, shared: list[slice]) -> bool:
    """Whether targets are much larger or smaller than outputs with parameters of this size.

    Targets count as smaller if the residuals nearly vanish when the last parameters are set to
    zero.
    """
    needed = 2.0 * told.half
    given = _mean_square(told.u, shared) * sum(float(columns[place].sum()) for place in shared)
    if not 0.0 < given < math.inf or not 0.0 < needed < math.inf:
        return False
    if needed > OUT**2 * given:
        return True
    last = (shared[-count:] for count in range(1, min(len(shared), 3)))
    left = min(
        (2.0 * told.problem.half_square(_without(told, places)) for places in last), default=needed
    )
    return left < min(needed, given) / OUT**2


def _without(told: Any, places: list[slice]) -> torch.Tensor:
    """The residuals with zeros for these parameters, in which the residuals are linear."""
    kept = torch.zeros_like(told.u, dtype=torch.float64)
    for place in places:
        kept[place] = told.u[place].double()
    return told.r - told.J.matvec(kept)


def _mean_square(u: torch.Tensor, places: list[slice]) -> float:
    entries = torch.cat([u.new_empty(0), *(u[place] for place in places)]).double()
    return float(entries.square().mean()) if len(entries) else 0.0


def _linear_ones(level: Level, told: Any, shared: list[slice]) -> list[slice]:
    """The parameters in which residuals are jointly linear."""
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
    """The probe plus a further direction if residuals are linear in both, else None.

    The test uses this length, or a larger one that changes the residuals by their own size, at
    which curvature is visible even in float32.
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
