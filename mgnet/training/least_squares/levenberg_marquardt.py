"""Levenberg-Marquardt: Gauss-Newton steps in a trust region, as a smoother.

`(J^T J + mu s D^2) d = f - J^T r`: D holds the units of the unknowns (`units`), s is the mean of
the diagonal of `D^-1 J^T J D^-1`, and mu follows the ratio of actual to predicted reduction
(`step_rules`). Sources: Levenberg (1944); Marquardt (1963); Moré (1978); Transtrum and Sethna,
arXiv 1201.5885 (geodesic acceleration).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from mgnet.level import Level
from mgnet.limits import is_whole, shown
from mgnet.smoother import Smoother
from mgnet.training.least_squares.bounds import (
    Bounds,
    Boxed,
    HeldJacobian,
    box_of,
    boxed_step,
    check_inside,
    damped_beside,
)
from mgnet.training.least_squares.curvature import bent, corrected
from mgnet.training.least_squares.device_reads import is_far
from mgnet.training.least_squares.device_steps import DeviceTold, begun_on_device, leads_itself
from mgnet.training.least_squares.newton_krylov import KrylovEquations, NewtonKrylov, forcing_term
from mgnet.training.least_squares.normal_equations import NormalEquations
from mgnet.training.least_squares.problem import LeastSquares
from mgnet.training.least_squares.proportion import first_step, trial_of
from mgnet.training.least_squares.row_blocks import RowBlocks
from mgnet.training.least_squares.scaling import Rescaled, norm, unit_of
from mgnet.training.least_squares.singular_values import SingularEquations
from mgnet.training.least_squares.step_rules import Damping, Nielsen, StepRule, Trial, TrustRegion
from mgnet.training.least_squares.sweep import Attempt, Equations, Linearized, Sweep, searched
from mgnet.training.least_squares.units import Scale, Unknowns, check_scale, size_of
from mgnet.training.loss.checks import check_finite

if TYPE_CHECKING:
    from mgnet.transfer import Transfer

__all__ = ["LevenbergMarquardt"]

UNTRIED = Trial(-math.inf, 0.0, 0.0, 0.0)
FEW = 500  # unknowns for which singular values take less than a second


@dataclass(frozen=True)
class LevenbergMarquardt(Smoother):
    """A smoother whose sweep computes one Jacobian and tries steps until one lowers the objective.

    A sweep never raises the objective. The level's operator must be a `LeastSquares`. If the
    parameters are on a device, the linear algebra runs there too, and the host reads numbers once
    for each trial step; see `device_steps` for the exceptions.

    Parameters
    ----------
    mu : float
        Initial damping of `Nielsen`, relative to the mean diagonal of `J^T J`, dimensionless.
    acceleration : float
        Largest ratio of twice the geodesic acceleration to the step; 0 disables it.
    corrections : int
        Largest number of corrections per step if residuals deviate from the linear model. They use
        the same Jacobian, and each costs one evaluation of the residuals. 0 disables them.
    linear_solver : NewtonKrylov, optional
        Solver of the linear systems; by default a direct solver, `NormalEquations`.
    x_scale : str, float, tensor or mapping
        Typical sizes of the unknowns. With "auto", the weights and biases of a network share a
        unit, and every other unknown has its own, from the columns of the Jacobian; with "jac",
        every unknown has its own. Numbers are the sizes themselves, as for SciPy's `least_squares`:
        one for all unknowns, one for each, or by the names of parameters.
    rule : StepRule, optional
        Rule for the damping. The default is `Nielsen` for networks, and `TrustRegion` if no unknown
        is a weight of a network; `ProbedRadius` reaches more digits.
    bounds : (lower, upper) or dict of str to (lower, upper), optional
        Bounds of all parameters, or of some by their names; tensors broadcast to the shape of the
        parameter, and -inf and inf mean no bound. A state outside the bounds is refused, and bounds
        cannot be combined with a `linear_solver`.

    Raises
    ------
    TypeError, ValueError
        If a parameter has the wrong type or is out of range.

    Examples
    --------
    >>> from mgnet import Hierarchy, Level, Solver
    >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1)
    >>> network = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> problem = LeastSquares(network.double(), (x, torch.sin(3 * x)))
    >>> level = Level(problem, LevenbergMarquardt(), objective=problem.value)
    >>> solver = Solver(Hierarchy([level]), "V(0,0,40)", max_cycles=1)
    >>> problem.value(solver.solve(u=problem.start()).value) < 1e-4
    True
    """

    mu: float = 1e-2
    acceleration: float = 0.75
    corrections: int = field(default=8, repr=False)
    linear_solver: NewtonKrylov | None = field(default=None, repr=False)
    x_scale: Scale = field(default="auto", repr=False)
    rule: StepRule | None = field(default=None, repr=False)
    bounds: Bounds | None = field(default=None, repr=False)
    fixed_work: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.linear_solver is not None and not isinstance(self.linear_solver, NewtonKrylov):
            raise TypeError(
                "LevenbergMarquardt got a linear_solver of type "
                f"{type(self.linear_solver).__name__}; give a NewtonKrylov or None"
            )
        if not self.mu > 0.0 or not self.acceleration >= 0.0:
            raise ValueError(f"{self} needs a positive mu and a ratio that is not negative")
        if not is_whole(self.corrections):
            got = f"LevenbergMarquardt got corrections {shown(self.corrections)}"
            raise ValueError(f"{got}; give the largest number per step, an integer from 0")
        if self.bounds is not None and self.linear_solver is not None:
            raise ValueError("LevenbergMarquardt got bounds and a linear_solver; leave one out")
        check_scale("LevenbergMarquardt", self.x_scale)
        if self.rule is not None and not isinstance(self.rule, StepRule):
            got = f"LevenbergMarquardt got a rule of type {type(self.rule).__name__}"
            raise TypeError(f"{got}; give a StepRule, such as TrustRegion(), or None")

    def start(self, level: Level, u: torch.Tensor) -> Damping:
        problem = level.operator
        if not isinstance(problem, LeastSquares):
            got = f"{level} has an operator of type {type(problem).__name__}"
            raise TypeError(f"{got}; LevenbergMarquardt needs a LeastSquares")
        return self.rule_for(Unknowns(problem, len(u), self.x_scale)).begin(self.mu)

    def carry(self, memory: Damping, transfer: Transfer) -> Damping:
        # All other entries are relative, so they are valid on the finer level.
        return memory._replace(lowest=math.inf, since=0)

    def work(self, level: Level, sweeps: int) -> float:
        return 2.0 * sweeps

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Damping
    ) -> tuple[torch.Tensor, Damping]:
        for _ in range(sweeps):
            u, memory = self.step(level, self.begin(level, u, f, memory), memory)[:2]
        return u, memory

    def begin(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, memory: Damping
    ) -> Linearized | DeviceTold:
        """Call `linearize`; on a device, also try the first step, and read the numbers of both."""
        problem: Any = level.operator
        shift = problem.shift
        whole = f if shift is None else shift if f is None else f + shift
        told = None
        if is_far(u) and leads_itself(self, problem, u, whole, memory):
            told = begun_on_device(self, level, u, whole, memory)
        return self.linearize(level, u, f) if told is None else told

    def rule_for(self, unknowns: Unknowns) -> StepRule:
        """The step rule for these unknowns."""
        if self.rule is not None:
            return self.rule
        few = unknowns.formula and unknowns.count <= FEW and self.linear_solver is None
        return TrustRegion() if few and unknowns.problem.shift is None else Nielsen()

    def linearize(self, level: Level, u: torch.Tensor, f: torch.Tensor | None) -> Linearized:
        """The residuals of the level and their Jacobian at u.

        Raises
        ------
        ValueError
            If the level's problem is posed around a fine state and bounds were given.
        """
        problem: Any = level.operator
        if problem.shift is not None:
            f = problem.shift if f is None else f + problem.shift
        r, J = problem.linearize(u)
        level.charge(1.0)
        if self.bounds is None:
            return Linearized(problem, u, r, J, f, problem.half_square(r))
        if problem.shift is not None:
            got = f"{level} is a problem around a fine state"
            raise ValueError(f"{got}, for which LevenbergMarquardt has no bounds; use a cascade")
        box = box_of("LevenbergMarquardt", problem.flat, self.bounds)
        check_inside("LevenbergMarquardt", problem.flat, box, u)
        gradient = J.rmatvec(r) if f is None else J.rmatvec(r) - f
        J, boxed = HeldJacobian(J, box.free(u, gradient)), Boxed(problem, box)
        return Linearized(boxed, u, r, J, f, problem.half_square(r), box)

    def step(self, level: Level, told: Linearized | DeviceTold, memory: Damping) -> Sweep:
        """Try steps from a linearization until one lowers the objective."""
        if isinstance(told, DeviceTold):
            return told.swept()
        problem, u, r, J, f, half, box = told
        unit = unit_of(problem, r, half, u)
        if unit == 1.0:
            return self._step(level, told, memory)
        r, v, f = r / unit, u / unit, None if f is None else f / unit
        box = None if box is None else box.scaled(1.0 / unit)
        scaled = Linearized(Rescaled(problem, unit), v, r, J, f, problem.half_square(r), box)
        sweep = self._step(level, scaled, memory)
        return sweep._replace(u=u if sweep.u is v else unit * sweep.u)

    def _step(self, level: Level, told: Linearized, memory: Damping) -> Sweep:
        problem, u = told.problem, told.u
        unknowns = Unknowns(problem, len(u), self.x_scale)
        rule, memory = self._usable(self.rule_for(unknowns), told, memory)
        system, memory, begun = self._system(level, told, memory, unknowns, rule)
        check_finite(self, level, u, told.value, system.descent)
        size = size_of(u.double(), system.unit)
        if begun is not None:
            begun = begun if told.box is None else told.box.project(begun)
            trial = trial_of(told, system, begun)
            level.charge(1.0 / 3.0)
            if trial.accepted:
                return Sweep(begun, memory, told, trial, size, system, True)
        before = Sweep(u, memory, told, UNTRIED, size, system, True)
        bends = bool(self.acceleration)

        def attempt(memory: Damping) -> Attempt:
            return self._attempt(level, told, system, memory, bends and rule.accelerates(memory))

        moves, unseen = bool(system.descent.any()), told.digits * abs(told.value)
        return searched(rule, memory, before, unseen, moves, attempt)

    def _attempt(
        self, level: Level, told: Linearized, system: Equations, memory: Damping, bends: bool
    ) -> Attempt:
        """A step, its end (None if it is rejected), and its relative acceleration."""
        d, predicted, solve = _damped_step(told, system, memory.mu)
        trial = Trial(-math.inf, predicted, size_of(d, system.unit), float(d @ system.descent))
        step, bend = d, memory.bend
        seen = predicted > told.digits * abs(told.value)
        if seen and bends:
            level.charge(1.0 / 3.0)
            image = told.J.matvec(d)  # one pass over the rows if these are streamed
            step, bend = bent(told, d, image, solve, system, self.acceleration, bend)
        if not seen or step is None or not bool(torch.isfinite(step).all()):
            return trial, None, bend
        level.charge(1.0 / 3.0)
        new = told.u + step.to(told.u.dtype)
        new = new if told.box is None else told.box.project(new)
        r = told.problem.residuals(new)
        if len(r) != len(told.r):
            raise ValueError(f"the residual function gave {len(told.r)} residuals, then {len(r)}")
        if bends and self.corrections and _keeps(told, system):
            new, r, count = corrected(told, image, new, r, system, memory.mu, self.corrections)
            level.charge(count / 3.0)
        then = told._replace(u=new, half=told.problem.half_square(r)).value
        actual = told.value - then if math.isfinite(then) else -math.inf
        return trial._replace(actual=actual), new, bend

    def _usable(
        self, rule: StepRule, told: Linearized, memory: Damping
    ) -> tuple[StepRule, Damping]:
        """The rule; Nielsen's if there is an f, or if J is distributed or not in memory."""
        J = told.J.J if isinstance(told.J, HeldJacobian) else told.J
        whole = len(told.r) == J.shape[0] and not isinstance(J, RowBlocks)
        if not rule.singular or (told.f is None and whole):
            return rule, memory
        return Nielsen(), memory._replace(mu=memory.mu or self.mu)

    def _system(
        self,
        level: Level,
        told: Linearized,
        memory: Damping,
        unknowns: Unknowns,
        rule: StepRule,
    ) -> tuple[Equations, Damping, torch.Tensor | None]:
        """The damped systems in the units of the unknowns, the memory, and a first state to try."""
        system, memory = self._measured_as_they_are(told, memory, rule)
        if isinstance(system, KrylovEquations):
            if unknowns.given is not None or unknowns.x_scale == "jac":
                raise ValueError(
                    f"LevenbergMarquardt got x_scale for {unknowns.count} unknowns, more than "
                    f"the linear solver solves directly; leave x_scale out, or raise `direct`"
                )
            return system, memory, None
        proportion, begun = memory.proportion, None
        if told.f is None and not unknowns.knows(proportion):
            proportion, begun = first_step(unknowns, level, told, system, self.mu)
        unit, norms = unknowns.sizes(system.columns, proportion, memory.norms)
        known = memory._replace(norms=norms, proportion=proportion)
        return system if unit is None else system.measured(unit), known, begun

    def _measured_as_they_are(
        self, told: Linearized, memory: Damping, rule: StepRule
    ) -> tuple[Equations, Damping]:
        problem, r, J, f = told.problem, told.r, told.J, told.f
        if rule.singular:
            return SingularEquations(J, r), memory
        if self.linear_solver is None:
            return NormalEquations(J, r, None if f is None else f.double()), memory
        f = None if f is None else f.double()
        gradient = J.rmatvec(r)
        size = problem.unit * norm(gradient if f is None else gradient - f)
        tolerance = forcing_term(
            size, memory.gradient, memory.tolerance, self.linear_solver.loosest
        )
        known = memory._replace(gradient=size, tolerance=tolerance)
        return self.linear_solver.system(J, r, f, tolerance), known


def _keeps(told: Linearized, system: Equations) -> bool:
    """Whether steps are corrected with the same Jacobian: not if a solve is as costly as a step."""
    return told.box is None and told.f is None and not isinstance(system, KrylovEquations)


def _damped_step(
    told: Linearized, system: Equations, mu: float
) -> tuple[torch.Tensor, float, Callable[[torch.Tensor | None], torch.Tensor]]:
    """A step, its predicted reduction, and the solver for other right-hand sides."""
    if told.box is None:
        solve = system.damped(mu)
        d, shift = solve(None), mu * system.scale
        if system.unit is None:
            return d, 0.5 * float(d @ (shift * d + system.descent)), solve
        predicted = shift * size_of(d, system.unit) ** 2 + float(d @ system.descent)
        return d, 0.5 * predicted, solve
    J: Any = told.J
    solver = partial(damped_beside, system, J, mu)
    point, solve = boxed_step(told.box, told.u, J.free, J, solver)
    d = (point - told.u).double()
    image = J.matvec(d)
    return d, float(d @ system.descent) - 0.5 * float(image @ image), solve
