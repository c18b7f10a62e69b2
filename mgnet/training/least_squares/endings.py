"""Decide when Levenberg-Marquardt ends, and whether the final state is a minimum.

MINPACK's three tests cannot distinguish a minimum from other causes, since steps also become short,
and reductions small, in a curved valley or with a bad radius. Therefore, when a test is met, this
module measures the cosine between the residuals and the range of the Jacobian or, if the residuals
vanish, their rounding error. The result does not depend on the units of residuals and unknowns.
Sources: Moré (1978); Bates and Watts, Technometrics 23 (1981) 179-183.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import torch

from mgnet.level import Level
from mgnet.solution import Reason
from mgnet.training.least_squares.newton_krylov import KrylovEquations
from mgnet.training.least_squares.scaling import precision
from mgnet.training.least_squares.singular_values import SingularEquations
from mgnet.training.least_squares.sweep import Linearized, Sweep
from mgnet.training.least_squares.units import size_of

__all__ = [
    "Tolerances",
    "degenerate",
    "is_minimal",
    "lower_nearby",
    "met_test",
    "vanished",
]

OFFSET = 1e-4  # part of the residuals in the range of J; the value could fall by half its square
NOISE = 10.0  # multiple of the change of the residuals with the last digits of the unknowns
SAME = 1e-6  # a relative change of the norm of the residuals
ORTHOGONAL = 1e-3  # as OFFSET, for steps as long as the unknowns
COSINE = 1e-4  # between the residuals and a column of J
DETERMINED = 1e-7  # the smallest singular value, relative to the largest
LENGTHS = 3  # trial lengths of a step that changes the value slightly
MODERATE = 0.5  # a relative change of the value
GONE = 1e-8  # a column norm, relative to the largest so far


class Tolerances(NamedTuple):
    """Tolerances of the three tests, dimensionless; see `levenberg_marquardt`.

    Examples
    --------
    >>> Tolerances().ftol
    1e-08
    """

    ftol: float = 1e-8
    xtol: float = 1e-8
    gtol: float = 1e-8


def cosine(sweep: Sweep) -> float:
    """The largest cosine between the residuals and a column of their Jacobian; 1 if unknown."""
    if sweep.cosine is not None:
        return sweep.cosine
    told, size = sweep.told, (2.0 * sweep.told.half) ** 0.5
    if isinstance(sweep.system, KrylovEquations):
        return 1.0  # conjugate gradients have no columns
    if not size:
        return 0.0
    norms = sweep.system.columns.sqrt() * size
    part = told.J.rmatvec(told.r).abs() / torch.where(norms > 0.0, norms, 1.0)
    return float(torch.where(norms > 0.0, part, 0.0).max())


def met_test(tolerances: Tolerances, sweep: Sweep) -> Reason | None:
    """The reason for ending if one of MINPACK's tests is met, else None.

    Tolerances below the precision of the residuals are raised to it.

    Parameters
    ----------
    tolerances : Tolerances
        Tolerances of the tests.
    sweep : Sweep
        The last sweep.
    """
    told = sweep.told
    least = precision(told.problem)
    trial, ftol = sweep.trial, max(tolerances.ftol, least) * told.half
    if abs(trial.actual) <= ftol and trial.predicted <= ftol and trial.gain <= 2.0:
        return Reason.FTOL
    longest = sweep.memory.radius or trial.size
    if longest <= max(tolerances.xtol, least) * sweep.size:
        return Reason.XTOL
    return Reason.GTOL if cosine(sweep) <= max(tolerances.gtol, least) else None


def is_minimal(level: Level, sweep: Sweep, before: float) -> bool:
    """Whether the state that meets a test is a minimum, as far as first derivatives show.

    The state counts as a minimum if the residuals are orthogonal to the range of J, if they are at
    the rounding level, or if they are orthogonal to each column of J (up to a larger tolerance) and
    steps with a new radius hardly reduced their norm. The last case is for minima at which J is
    singular, where Gauss-Newton predicts a decrease that the curvature prevents.

    Parameters
    ----------
    level : Level
        Level to which work is charged.
    sweep : Sweep
        The last sweep.
    before : float
        Norm of the residuals when a test was last met, after which the radius was reset.
    """
    if _offset(sweep) <= OFFSET and (
        isinstance(sweep.system, KrylovEquations) or cosine(sweep) <= ORTHOGONAL
    ):
        return True
    told = sweep.told
    u = told.u
    shift = torch.arange(1.0, len(u) + 1.0, dtype=u.dtype, device=u.device).cos() * u
    moved = told.problem.residuals(u + precision(told.problem) * shift)
    level.charge(1.0 / 3.0)
    noise = told.problem.half_square(moved - told.r)
    if told.half <= NOISE**2 * noise:
        return True
    # Relative error of the residuals, and so of the cosines.
    blur = NOISE * (noise / told.half) ** 0.5
    size = told.problem.unit * (2.0 * told.half) ** 0.5
    return size >= (1.0 - SAME - blur) * before and cosine(sweep) <= COSINE + blur


def _offset(sweep: Sweep) -> float:
    """The cosine between the residuals and the range of J, for steps as long as the unknowns."""
    told, system = sweep.told, sweep.system
    if not told.half:
        return 0.0
    length = sweep.size or 1.0
    singular = isinstance(system, SingularEquations)
    mu = system.damping_at(length, 0.0) if singular else 1e-12
    d = system.damped(mu)(None)
    longer = max(1.0, size_of(d, system.unit) / length)
    # Along d the reduction is nearly a parabola with its maximum at d.
    predicted = 0.5 * float(d @ system.descent) * (2.0 - 1.0 / longer) / longer
    return max(predicted / told.half, 0.0) ** 0.5


def vanished(sweep: Sweep) -> bool:
    """Whether the effect of a parameter on the residuals has vanished."""
    if not isinstance(sweep.system, SingularEquations):
        return False
    now, told, norms = sweep.system.columns.sqrt(), sweep.told, sweep.memory.norms
    if not bool(now.any()) and _free(told) is None:
        return told.half > 0.0
    share = now * told.u.abs()  # the effect of a change of the parameter by its own size
    gone = (share > 0.0) & (share < GONE**2 * (2.0 * told.half) ** 0.5)
    if norms is not None and norms.shape == now.shape:
        gone = gone | (now < GONE * norms)
    free = _free(told)
    return bool((gone if free is None else gone & free).any())


def degenerate(sweep: Sweep) -> bool:
    """Whether nonzero residuals leave a combination of parameters undetermined."""
    if not isinstance(sweep.system, SingularEquations) or not sweep.told.half:
        return False
    values, free = sweep.system.factors[1], _free(sweep.told)
    count = len(sweep.u) if free is None else int(free.sum())
    return len(values) < count or count > 0 and bool(values[-1] < DETERMINED * values[0])


def _free(told: Linearized) -> torch.Tensor | None:
    """Which unknowns are not held at a bound; None without bounds."""
    J: Any = told.J
    return None if told.box is None else J.free


def lower_nearby(level: Level, sweep: Sweep) -> torch.Tensor | None:
    """A state with a lower value near a stationary one, which is then not a minimum.

    The directions in which the residuals change least are tried with both signs, since only there
    can the curvature that `J^T J` lacks lower the value.
    """
    if not isinstance(sweep.system, SingularEquations):
        return None
    best, lowest = None, sweep.told.value
    for direction in _tried(sweep):
        for sign in (1.0, -1.0):
            new, value = _small_change(level, sweep, sign * direction)
            if value < lowest:
                best, lowest = new, value
    return None if best is None else sweep.told.problem.unit * best


def _tried(sweep: Sweep) -> list[torch.Tensor]:
    """The weakest direction; if J has a null space, several of its directions and their sums."""
    system: Any = sweep.system
    values, free = system.factors[1], _free(sweep.told)
    lacking = (len(sweep.u) if free is None else int(free.sum())) - len(values)
    found = system.weakest(max(1, min(lacking, 3)), free)
    sums = [a + sign * b for a, b in combinations(found, 2) for sign in (1.0, -1.0)]
    return [*found, *sums]


def _small_change(
    level: Level, sweep: Sweep, direction: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """A state in this direction at which the value has changed slightly, and this value.

    If all curvature is in the second derivatives of the residuals, no column of J gives a length
    scale, so a search finds the length. If no change above rounding is found, the original state is
    returned.
    """
    told, length = sweep.told, 1e-3 * (sweep.size or 1.0)
    seen = 1e3 * told.digits * abs(told.value)
    straight = told.problem.half_square(told.J.matvec(direction))
    for _ in range(LENGTHS):
        new = told.u + length * direction
        new = new if told.box is None else told.box.project(new)
        value = told.problem.half_square(told.problem.residuals(new))
        level.charge(1.0 / 3.0)
        change = value - told.value
        # A larger change is acceptable if J predicts it.
        if seen < abs(change) <= max(MODERATE * told.value, 4.0 * length**2 * straight):
            return new, value
        length *= 1e6 if abs(change) <= seen else 1e-3
    return told.u, told.value
