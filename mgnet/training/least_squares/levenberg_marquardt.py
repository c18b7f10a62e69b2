"""Levenberg-Marquardt: Gauss-Newton steps in a trust region, as a smoother and as a tool.

`(J^T J + mu s I) d = f - J^T r` with s the mean of the diagonal of `J^T J`; mu follows the gain
ratio. Marquardt's own choice, that diagonal in place of `s I`, lets parameters run away that few
samples see: on the data of `make demo` held-out errors were worse with it, most for tanh networks.
Sources: Levenberg (1944); Nielsen, "Damping parameter in Marquardt's method" (1999); Transtrum and
Sethna, arXiv 1201.5885 (geodesic acceleration).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import torch

from mgnet.callbacks import ends
from mgnet.hierarchy import Hierarchy
from mgnet.history import CycleRecord, StepRecord
from mgnet.interpreter import Memory, StepData, run
from mgnet.level import Level
from mgnet.limits import check_limits
from mgnet.schedule import Schedule, Step
from mgnet.smoother import Smoother
from mgnet.solution import Reason, Solution
from mgnet.training.least_squares.jacobian import Jacobian
from mgnet.training.least_squares.linearization import Residual, residuals_of
from mgnet.training.least_squares.newton_krylov import KrylovEquations, NewtonKrylov, forcing_term
from mgnet.training.least_squares.normal_equations import NormalEquations
from mgnet.training.least_squares.problem import LeastSquares
from mgnet.training.least_squares.scaling import Rescaled, norm, unit_of
from mgnet.training.loss.checks import check_finite, not_finite

if TYPE_CHECKING:
    from mgnet.transfer import Transfer

__all__ = ["LevenbergMarquardt", "levenberg_marquardt"]

SWEEP = Schedule([Step("solve", 0)])


class Damping(NamedTuple):
    """What Levenberg-Marquardt remembers: mu, and its growth at the next refusal.

    With inexact linear solves, of the last sweep: the gradient norm and the tolerance.
    """

    mu: float
    growth: float
    gradient: float = 0.0
    tolerance: float = 0.0


@dataclass(frozen=True)
class LevenbergMarquardt(Smoother):
    """One sweep: one Jacobian, and steps from it until one lowers the objective.

    A sweep never raises the objective. For levels whose operator is a `LeastSquares`.

    Parameters
    ----------
    mu : float
        Initial damping, relative to the mean diagonal of `J^T J`, dimensionless.
    trials : int
        Steps tried per Jacobian before the sweep gives up and leaves the state.
    acceleration : float
        Largest ratio of twice the geodesic acceleration to the step, dimensionless; 0 leaves the
        acceleration out.
    linear_solver : NewtonKrylov, optional
        Of the linear systems; direct, by `NormalEquations`, without one.

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
    trials: int = 12
    acceleration: float = 0.75
    linear_solver: NewtonKrylov | None = field(default=None, repr=False)
    fixed_work: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.linear_solver is not None and not isinstance(self.linear_solver, NewtonKrylov):
            raise TypeError(
                f"LevenbergMarquardt got a linear_solver of type "
                f"{type(self.linear_solver).__name__}; give a NewtonKrylov, such as "
                "NewtonKrylov(mgnet.knots.KnotMultigrid()), or None"
            )
        if self.mu <= 0.0 or self.trials < 1 or self.acceleration < 0.0:
            raise ValueError(
                f"{self} needs a positive mu, at least one trial and a ratio that is not negative"
            )

    def start(self, level: Level, u: torch.Tensor) -> Damping:
        if not isinstance(level.operator, LeastSquares):
            raise TypeError(
                f"{level} has an operator of type {type(level.operator).__name__}; "
                "LevenbergMarquardt needs a LeastSquares"
            )
        return Damping(self.mu, 2.0)

    def carry(self, memory: Damping, transfer: Transfer) -> Damping:
        return memory  # mu is relative to the diagonal, so it means the same on the finer level

    def work(self, level: Level, sweeps: int) -> float:
        return 2.0 * sweeps

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Damping
    ) -> tuple[torch.Tensor, Damping]:
        for _ in range(sweeps):
            u, memory = self._sweep(level, u, f, memory)
        return u, memory

    def _sweep(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, memory: Damping
    ) -> tuple[torch.Tensor, Damping]:
        problem: Any = level.operator
        if problem.shift is not None:
            f = problem.shift if f is None else f + problem.shift
        r, J = problem.linearize(u)
        level.charge(1.0)
        half = problem.half_square(r)
        unit = unit_of(problem, r, half, u)
        if unit == 1.0:
            return self._step(level, (problem, u, r, J, f), half, memory)
        r, v, f = r / unit, u / unit, None if f is None else f / unit
        told = Rescaled(problem, unit), v, r, J, f
        new, memory = self._step(level, told, problem.half_square(r), memory)
        return (u if new is v else unit * new), memory

    def _step(
        self, level: Level, told: tuple[Any, ...], half: float, memory: Damping
    ) -> tuple[torch.Tensor, Damping]:
        """A sweep from the problem, the state, its residuals, their Jacobian, and f."""
        problem, u, r, J, f = told
        now = half - (0.0 if f is None else float(f @ u))
        system, memory = self._system(J, r, None if f is None else f.double(), memory, problem.unit)
        check_finite(self, level, u, now, system.descent)
        mu, growth = memory.mu, memory.growth
        # A decrease below the rounding of the value cannot be seen. Such a state is a minimum, and
        # refusals there say nothing about the damping, which the next level inherits.
        unseen = torch.finfo(r.dtype).eps * abs(now)
        for _ in range(self.trials):
            solve = system.damped(mu)
            d = solve(None)
            predicted = 0.5 * float(d @ (mu * system.scale * d + system.descent))
            if 0.0 < predicted <= unseen:
                return u, memory
            step = d if not self.acceleration else self._accelerated(problem, u, d, r, J, solve)
            level.charge(1.0 / 3.0 if not self.acceleration else 2.0 / 3.0)
            if step is not None and bool(torch.isfinite(step).all()) and predicted > 0.0:
                new = u + step.to(u.dtype)
                then = problem.half_square(problem.residuals(new))
                then -= 0.0 if f is None else float(f @ new)
                gain = (now - then) / predicted
                if gain > 1e-4:
                    shrink = max(1.0 / 3.0, 1.0 - (2.0 * min(gain, 1.0) - 1.0) ** 3)
                    return new, memory._replace(mu=max(mu * shrink, 1e-15), growth=2.0)
            mu, growth = min(mu * growth, 1e15), 2.0 * growth
        return u, memory._replace(mu=mu, growth=2.0)

    def _system(
        self, J: Jacobian, r: torch.Tensor, f: torch.Tensor | None, memory: Damping, unit: float
    ) -> tuple[NormalEquations | KrylovEquations, Damping]:
        if self.linear_solver is None:
            return NormalEquations(J, r, f), memory
        gradient = J.rmatvec(r)
        size = unit * norm(gradient if f is None else gradient - f)
        tolerance = forcing_term(
            size, memory.gradient, memory.tolerance, self.linear_solver.loosest
        )
        known = memory._replace(gradient=size, tolerance=tolerance)
        return self.linear_solver.system(J, r, f, tolerance), known

    def _accelerated(
        self,
        problem: LeastSquares,
        u: torch.Tensor,
        d: torch.Tensor,
        r: torch.Tensor,
        J: Jacobian,
        solve: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor | None:
        """The step with its geodesic acceleration; None where that is too large to trust."""
        h = 0.1
        curvature = (problem.residuals(u + (h * d).to(u.dtype)) - r) / h - J.matvec(d)
        a = solve(curvature * (-2.0 / h))
        if not 2.0 * float(a.norm()) <= self.acceleration * float(d.norm()):
            return None
        return d + 0.5 * a


def levenberg_marquardt(
    residual: Residual,
    module: torch.nn.Module,
    *,
    rtol: float = 1e-8,
    atol: float = 0.0,
    max_cycles: int = 200,
    seconds: float = math.inf,
    monitor: Callable[[CycleRecord, torch.Tensor], Any] | None = None,
    mu: float = 1e-2,
    acceleration: float = 0.75,
    linear_solver: NewtonKrylov | None = None,
    chunk_size: int | None = None,
    memory: Memory | None = None,
) -> Solution:
    """Train any PyTorch module on `1/2 |residual(module)|^2`.

    The parameters that require a gradient are the unknowns. Linear algebra is in float64 whatever
    the precision of the module. Cost and memory grow with residuals times parameters: a tool for up
    to a few thousand parameters, where it reaches errors that first-order methods do not.

    Parameters
    ----------
    residual : callable
        `module -> tensor` of any shape, or a tuple of tensors; it may differentiate with
        respect to its inputs (`torch.autograd.grad(..., create_graph=True)`). Fastest where entry i
        of each tensor depends on sample i of each call `module(x)` alone: for points of several
        kinds return a tuple, not one long tensor.
    module : torch.nn.Module
        Trained in place. It holds the best parameters at the end, also after an error or Ctrl-C.
    rtol, atol : float
        Ends when the gradient norm `|J^T r|` is at most `rtol` times that of the start, or `atol`.
    max_cycles : int
        One cycle is one sweep of `LevenbergMarquardt`: one Jacobian.
    seconds : float
        Wall time; a cycle that has begun is finished.
    monitor : callable, optional
        Called with (CycleRecord, flat vector of the parameters) at the start and after every cycle;
        returning True ends the training.
    mu, acceleration : float
        As in `LevenbergMarquardt`.
    linear_solver : NewtonKrylov, optional
        As in `LevenbergMarquardt`: for large KANs, where no matrix can be formed.
    chunk_size : int, optional
        Rows or columns of the Jacobian at once where it is made by them; less needs less memory.
    memory : dict, optional
        From an earlier `Solution` for the same module: goes on with its damping instead of `mu`.

    Returns
    -------
    Solution
        Its residual is the gradient `J^T r` and its objective `1/2 |r|^2`, never rising. Its
        `value` is the flat vector of the parameters, in float64.

    Raises
    ------
    ValueError
        If the module has no parameters to train, or the residuals are not finite at the start or do
        not depend on them.
    TypeError
        If the residuals are not real tensors.

    Examples
    --------
    >>> module = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> x = torch.linspace(-1, 1, 50).unsqueeze(1)
    >>> solution = levenberg_marquardt(lambda module: module(x) - torch.sin(3 * x), module)
    >>> solution.values[-1] < 1e-4
    True
    """
    check_limits(
        "levenberg_marquardt",
        rtol=rtol,
        atol=atol,
        max_cycles=max_cycles,
        seconds=seconds,
        monitor=monitor,
    )
    if not callable(residual) or isinstance(residual, torch.nn.Module | torch.Tensor):
        raise TypeError(
            f"levenberg_marquardt got a residual of type {type(residual).__name__}; give a "
            "function first, then the module, such as (lambda module: module(x) - y, module)"
        )
    began = time.perf_counter()
    problem = LeastSquares.from_torch(module, partial(residuals_of, residual), chunk_size)
    smoother = LevenbergMarquardt(mu, acceleration=acceleration, linear_solver=linear_solver)
    level = Level(problem, smoother, name="levenberg_marquardt")
    u = problem.start().double()
    damping = _damping(memory) or smoother.start(level, u)
    first = problem.residuals(u)
    level.charge(1.0 / 3.0)
    history: list[CycleRecord] = []
    records: list[StepRecord] = []
    reason = last = None
    try:
        while True:
            history.append(_look(level, u, len(history), began))
            if len(history) == 1:
                _check_start(first, history[0], level, u)
            reason = _reason(history, rtol, atol, max_cycles, seconds)
            if monitor is not None and ends("levenberg_marquardt", monitor, history[-1], u):
                reason = reason or Reason.MONITOR
            if reason is not None:
                break
            work, start = level.tally[0], time.perf_counter()
            new, kept = smoother.smooth(level, u, None, 1, damping)
            spent = level.tally[0] - work, time.perf_counter() - start
            records.append(StepRecord(len(history), SWEEP[0], *spent, None, None))
            if new is u:
                reason, damping = Reason.STATIONARY, kept
                break
            last = LastSweep(level, u, damping)
            u, damping = new, kept
    finally:
        problem.flat.write(u)
    broken = "the gradient became NaN or Inf, though the residuals are finite"
    return Solution(
        u,
        reason,
        tuple(history),
        level.tally[0],
        time.perf_counter() - began,
        {(0, "pre"): damping},
        tuple(records),
        f"after cycle {len(history) - 1}, {broken}" if reason is Reason.NOT_FINITE else "",
        last,
    )


class LastSweep(NamedTuple):
    """Repeats the last sweep for `Solution.explain`.

    Pickles and deep copies leave it out: it would take the module and the residual function along,
    and a lambda cannot be pickled.
    """

    level: Level
    u: torch.Tensor
    damping: Damping

    def __call__(self, record: Callable[[Step, StepData], None]) -> None:
        run(SWEEP, Hierarchy([self.level]), self.u, None, {(0, "pre"): self.damping}, record)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def _damping(memory: Memory | None) -> Damping | None:
    """What an earlier solution remembers."""
    kept = (memory or {}).get((0, "pre"))
    if kept is not None and not isinstance(kept, Damping):
        raise TypeError(
            f"levenberg_marquardt got memory of a {type(kept).__name__}; give that of its Solution"
        )
    return kept


def _look(level: Level, u: torch.Tensor, cycle: int, began: float) -> CycleRecord:
    """Objective and gradient norm at u, counted as one evaluation of the gradient."""
    value, gradient = level.operator.value_and_gradient(u)
    level.charge(1.0)
    seconds = time.perf_counter() - began
    return CycleRecord(cycle, norm(gradient), value, level.tally[0], seconds)


def _check_start(r: torch.Tensor, start: CycleRecord, level: Level, u: torch.Tensor) -> None:
    """Raise unless there are residuals, the same at a second look, and finite."""
    value = cast(float, start.value)
    if not len(r):
        raise ValueError("levenberg_marquardt got no residuals; give at least one sample")
    # Their squares may overflow.
    if not math.isfinite(start.residual_norm) or not bool(torch.isfinite(torch.cat([r, u])).all()):
        raise ValueError(not_finite(str(level), level.operator, u))
    again = 0.5 * float(r @ r)
    if abs(again - value) > 1e-3 * max(again, value):
        raise ValueError(
            f"levenberg_marquardt got residuals with 1/2 |r|^2 = {value:.4g} and, for the same "
            f"parameters, {again:.4g}; they must not be random: call module.eval() where there is "
            "dropout, and draw samples before"
        )


def _reason(
    history: list[CycleRecord], rtol: float, atol: float, max_cycles: int, seconds: float
) -> Reason | None:
    now = history[-1]
    if not math.isfinite(now.residual_norm):
        return Reason.NOT_FINITE
    if now.residual_norm <= atol:
        return Reason.ATOL
    if now.residual_norm <= rtol * history[0].residual_norm:
        return Reason.RTOL
    if now.cycle >= max_cycles:
        return Reason.MAX_CYCLES
    return Reason.SECONDS if now.seconds >= seconds else None
