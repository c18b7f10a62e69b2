"""Levenberg-Marquardt on a device, with one read by the host for each step.

The Jacobian, `J^T J`, its factor and all vectors stay on the device of the parameters. The host
decides whether a step is accepted and how long the next one is, based on some twenty numbers that
it reads together after the first trial; each further trial needs one more read. The numbers that
`levenberg_marquardt` needs at a state (the objective, the norm of the gradient, the cosine for its
tests) are read together with the numbers of the first trial from that state. The arithmetic is that
of `levenberg_marquardt`, except that all corrections are computed, and those after the last good
one are discarded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mgnet.level import Level
from mgnet.training.least_squares.curvature import AHEAD, CLOSE, CONTRACTS, STRONGER
from mgnet.training.least_squares.device_reads import deferred, read
from mgnet.training.least_squares.normal_equations import NormalEquations
from mgnet.training.least_squares.problem import LeastSquares
from mgnet.training.least_squares.proportion import is_to_be_known
from mgnet.training.least_squares.recentred import Recentred
from mgnet.training.least_squares.scaling import LEAST, MOST, precision
from mgnet.training.least_squares.step_rules import Damping, StepRule, Trial
from mgnet.training.least_squares.sweep import Attempt, Linearized, Sweep, searched
from mgnet.training.least_squares.units import Unknowns

__all__ = ["DeviceTold", "begun_on_device", "leads_itself"]


def leads_itself(
    smoother: Any,
    problem: Any,
    u: torch.Tensor,
    f: torch.Tensor | None,
    memory: Damping,
) -> bool:
    """Whether a step on a device needs only one read by the host; otherwise it needs many.

    This requires steps by Cholesky or QR without bounds, a problem whose residuals are all in this
    process, and a step after the first, since the first step determines the proportions of the
    layers.

    Parameters
    ----------
    smoother : LevenbergMarquardt
        Smoother of the level.
    problem : LeastSquares
        Problem of the level.
    u : tensor
        State before the step.
    f : tensor or None
        Right-hand side of a coarse problem; None means zero.
    memory : Damping
        Memory of the smoother.

    Examples
    --------
    >>> from mgnet.training import LevenbergMarquardt
    >>> problem = LeastSquares.from_torch(torch.nn.Linear(1, 1), lambda m: m.weight)
    >>> leads_itself(LevenbergMarquardt(), problem, problem.start(), None, Damping(1.0, 2.0))
    False
    """
    if smoother.bounds is not None or smoother.linear_solver is not None:
        return False
    unknowns = Unknowns(problem, len(u), smoother.x_scale)
    if smoother.rule_for(unknowns).singular or problem.checks_at_once:
        return False
    if f is None and is_to_be_known(unknowns) and not unknowns.knows(memory.proportion):
        return False
    while isinstance(problem, Recentred):
        problem = problem.fine
    return type(problem).half_square is LeastSquares.half_square


@dataclass(eq=False)
class DeviceTold:
    """A linearization on a device and its first trial, with the numbers of both.

    Attributes
    ----------
    level : Level
        Level of the step.
    told : Linearized
        The linearization.
    system : NormalEquations
        System of the step.
    rule : StepRule
        Rule that determines the damping.
    memory : Damping
        Memory before the step.
    acceleration : float
        Limit on the acceleration, as in `LevenbergMarquardt`.
    corrections : int
        Number of corrections, as in `LevenbergMarquardt`.
    rows : bool
        Whether systems are solved by QR of the rows of J, because Cholesky left too few digits.
    gradient, largest, size, cosine : float
        `|J^T r|`, the largest residual, `|D u|`, and the cosine for the test `gtol`.
    value : float
        `1/2 |r|^2 - <f, u>`.
    moves : bool
        Whether both the slope of the value and J are nonzero.
    """

    level: Level
    told: Linearized
    system: NormalEquations
    rule: StepRule
    memory: Damping
    acceleration: float
    corrections: int
    rows: bool
    gradient: float = 0.0
    largest: float = 0.0
    size: float = 0.0
    cosine: float = 0.0
    value: float = 0.0
    moves: bool = True
    first: tuple[list[float], torch.Tensor] | None = None  # numbers of the first trial, its end

    @property
    def u(self) -> torch.Tensor:
        """The state."""
        return self.told.u

    @property
    def r(self) -> torch.Tensor:
        """Its residuals."""
        return self.told.r

    @property
    def half(self) -> float:
        """`1/2 |r|^2`."""
        return self.told.half

    def swept(self) -> Sweep:
        """The accepted step; each trial after the first needs another read."""
        trial = Trial(-math.inf, 0.0, 0.0, 0.0)
        before = Sweep(
            self.u, self.memory, self.told, trial, self.size, self.system, True, self.cosine
        )
        unseen = self.told.digits * abs(self.value)
        sweep = searched(self.rule, self.memory, before, unseen, self.moves, self._attempt)
        return sweep._replace(memory=sweep.memory._replace(rows=self.rows))

    def _attempt(self, memory: Damping) -> Attempt:
        first, self.first = self.first, None
        if first is not None and memory.mu == self.memory.mu:
            attempt = self._judged(memory, *first)
            if attempt is not None:
                return attempt
            self.rows = True
        while True:
            with deferred() as checks:
                numbers, new = _tried(self, memory)
            *found, sound = read([*numbers, _all(checks, self.u)])
            if not sound:
                self.told.problem.checks_at_once = True  # and the host leads from here on
                return Trial(-math.inf, *found[1:4]), None, memory.bend
            attempt = self._judged(memory, found, new)
            if attempt is not None:
                return attempt
            self.rows = True

    def _judged(self, memory: Damping, numbers: list[float], new: torch.Tensor) -> Attempt | None:
        """The trial with these numbers; None if Cholesky left too few digits."""
        left, predicted, size, slope, then, usable, bend = numbers
        if not self.moves:
            return Trial(-math.inf, 0.0, 0.0, 0.0), None, memory.bend
        enough = self.system.enough(left)
        if not self.rows and not enough:
            return None
        self.rows = not enough
        trial = Trial(-math.inf, predicted, size, slope)
        if not predicted > self.told.digits * abs(self.value):
            return trial, None, memory.bend
        bend = memory.bend if math.isnan(bend) else bend
        if not usable:
            return trial, None, bend
        actual = self.value - then if math.isfinite(then) else -math.inf
        return trial._replace(actual=actual), new, bend


def begun_on_device(
    smoother: Any,
    level: Level,
    u: torch.Tensor,
    f: torch.Tensor | None,
    memory: Damping,
) -> DeviceTold | None:
    """The linearization at u and the first trial from there, with one read.

    The result is None if the host must control the step, because squares overflow or vanish, or
    because residuals are not finite or mix samples.

    Parameters
    ----------
    smoother : LevenbergMarquardt
        Smoother for which `leads_itself` is True.
    level : Level
        Level whose operator is the `LeastSquares` problem.
    u : tensor
        State before the step.
    f : tensor or None
        Right-hand side of a coarse problem; None means zero.
    memory : Damping
        Memory of the smoother.

    Examples
    --------
    >>> from mgnet.training import LevenbergMarquardt
    >>> problem = LeastSquares.from_torch(torch.nn.Linear(1, 1), lambda m: m.weight - 3.0)
    >>> level, u = Level(problem, LevenbergMarquardt()), torch.tensor([1.0, 0.0]).double()
    >>> begun = begun_on_device(level.smoother, level, u, None, Damping(1e-2, 2.0))
    >>> begun.half, begun.gradient, bool((begun.swept().u - torch.tensor([3.0, 0.0])).norm() < 0.1)
    (2.0, 2.0, True)
    """
    problem: Any = level.operator
    unknowns = Unknowns(problem, len(u), smoother.x_scale)
    with deferred() as checks:
        r, J = problem.linearize(u)
        level.charge(1.0)
        system = NormalEquations(J, r, None if f is None else f.double())
        unit, norms = unknowns.sizes(system.columns, memory.proportion, memory.norms)
        system = system if unit is None else system.measured(unit)
        told = Linearized(problem, u, r, J, f, math.nan)
        begun = DeviceTold(
            level,
            told,
            system,
            smoother.rule_for(unknowns),
            memory._replace(norms=norms),
            smoother.acceleration,
            smoother.corrections,
            memory.rows,
        )
        own = _numbers_of(told, system)
        trial, new = _tried(begun, begun.memory)
    half, value, gradient, *own, sound = read([*own, *trial, _all(checks, u)])
    own, numbers = own[: -len(trial)], own[-len(trial) :]
    begun.largest, begun.size, begun.cosine, scale, slopes, finite = own
    if not sound:
        problem.checks_at_once = True
    if not (sound and finite) or not LEAST < half < MOST:
        return None
    if slopes and not 1e-150 < gradient < 1e150:
        return None
    begun.told = told._replace(half=half)
    begun.value, begun.gradient, begun.moves = value, gradient, bool(slopes) and scale > 0.0
    begun.first = numbers, new
    return begun


def _all(checks: list[torch.Tensor], u: torch.Tensor) -> torch.Tensor:
    """Whether all checks hold."""
    return torch.stack(checks).all() if checks else u.new_ones(())


def _half(r: torch.Tensor) -> torch.Tensor:
    return 0.5 * (r @ r)


def _size(d: torch.Tensor, unit: torch.Tensor | None) -> torch.Tensor:
    return (d if unit is None else d / unit).norm()


def _numbers_of(told: Linearized, system: NormalEquations) -> list[torch.Tensor]:
    """The numbers of a state that the host reads."""
    half, descent = _half(told.r), system.descent
    pulled = descent if told.f is None else told.J.rmatvec(told.r)
    value = half if told.f is None else half - told.f @ told.u
    norms = system.columns.sqrt() * (2.0 * half).sqrt()
    cosines = pulled.abs() / torch.where(norms > 0.0, norms, 1.0)
    finite = torch.isfinite(descent).all() & torch.isfinite(value)
    return [
        half,
        value,
        pulled.norm(),
        told.r.abs().max(),
        _size(told.u.double(), system.unit),
        torch.where(norms > 0.0, cosines, 0.0).max(),
        system.matrix.trace(),
        descent.any(),
        finite,
    ]


def _tried(begun: DeviceTold, memory: Damping) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The numbers of a step and the state at its end, as in `LevenbergMarquardt._attempt`.

    The numbers are the least diagonal entry of the Cholesky factor; the predicted reduction, size
    and slope of the step; the value at its end; whether it can be taken; and the ratio of
    acceleration to step, NaN if it is unknown.
    """
    told, system, mu = begun.told, begun.system, memory.mu
    problem, u, unit = told.problem, told.u, system.unit
    solve, left = system.damped_unseen(mu, begun.rows)
    d = solve(None)
    shift = mu * (system.matrix.trace() / system.J.shape[1])
    size, slope = _size(d, unit), d @ system.descent
    if unit is None:
        predicted = 0.5 * (d @ (shift * d + system.descent))
    else:
        predicted = 0.5 * (shift * size**2 + slope)
    bends = bool(begun.acceleration) and begun.rule.accelerates(memory)
    step, usable, bend = d, torch.isfinite(d).all(), torch.full_like(size, memory.bend)
    if bends:
        image = told.J.matvec(d)
        step, usable, bend = _bent(begun, d, image, solve)
        begun.level.charge(1.0 / 3.0)
    new = torch.where(usable, u + step.to(u.dtype), u)
    r = problem.residuals(new)
    begun.level.charge(1.0 / 3.0)
    if len(r) != len(told.r):
        raise ValueError(f"the residual function gave {len(told.r)} residuals, then {len(r)}")
    if bends and begun.corrections and told.f is None:
        new, r = _corrected(begun, image, new, r, mu)
        begun.level.charge(begun.corrections / 3.0)
    then = _half(r) if told.f is None else _half(r) - told.f @ new
    return [left, predicted, size, slope, then, usable, bend], new


def _bent(
    begun: DeviceTold,
    d: torch.Tensor,
    image: torch.Tensor,
    solve: Callable[[torch.Tensor | None], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Like `curvature.bent`: the step, whether it can be taken, and the ratio or NaN."""
    told, unit = begun.told, begun.system.unit
    ahead = told.problem.residuals(told.u + (AHEAD * d).to(told.u.dtype))
    a = solve(((ahead - told.r) / AHEAD - image) * (-2.0 / AHEAD))
    longer, length = 2.0 * _size(a, unit), _size(d, unit)
    fair = longer <= begun.acceleration * length
    short = length <= precision(told.problem) ** 0.5 * _size(told.u, unit)
    step = torch.where(fair, d + 0.5 * a, d)
    ratio = torch.where(length > 0.0, longer / length, 0.0)
    usable = (fair | short) & torch.isfinite(step).all()
    return step, usable, torch.where(fair, ratio, math.nan)


def _corrected(
    begun: DeviceTold, image: torch.Tensor, new: torch.Tensor, r: torch.Tensor, mu: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Like `curvature.corrected`: the end of the step, and the residuals there."""
    told, system = begun.told, begun.system
    goal = told.r + image.to(told.r.dtype)
    gap, fair = _half(r - goal), CLOSE * _half(goal)
    solve, _ = system.damped_unseen(STRONGER * mu, begun.rows)
    goes_on = (fair < gap) & (gap < math.inf)
    for _ in range(begun.corrections):
        end = new + solve(goal - r).to(new.dtype)
        there = told.problem.residuals(end)
        left = _half(there - goal)
        goes_on = goes_on & (left < CONTRACTS * gap)
        new, r = torch.where(goes_on, end, new), torch.where(goes_on, there, r)
        gap = torch.where(goes_on, left, gap)
        goes_on = goes_on & (fair < gap)
    return new, r
