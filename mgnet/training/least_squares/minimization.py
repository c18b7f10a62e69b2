"""Levenberg-Marquardt for any module: the loop, its stopping tests, and its result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import torch

from mgnet.callbacks import ends
from mgnet.hierarchy import Hierarchy
from mgnet.history import CycleRecord, StepRecord
from mgnet.interpreter import Memory, StepData, run
from mgnet.level import Level
from mgnet.limits import check_limits
from mgnet.schedule import Schedule, Step
from mgnet.solution import Reason, Solution
from mgnet.training.least_squares.arguments import (
    Refresh,
    Told,
    check_alike,
    check_usable,
    damping_of,
    problem_of,
    refreshed,
    refreshers,
)
from mgnet.training.least_squares.bounds import Bounds
from mgnet.training.least_squares.endings import (
    Tolerances,
    degenerate,
    is_minimal,
    lower_nearby,
    met_test,
    vanished,
)
from mgnet.training.least_squares.levenberg_marquardt import LevenbergMarquardt
from mgnet.training.least_squares.linearization import Residual
from mgnet.training.least_squares.newton_krylov import NewtonKrylov
from mgnet.training.least_squares.problem import LeastSquares
from mgnet.training.least_squares.singular_values import SingularEquations
from mgnet.training.least_squares.step_rules import Damping, StepRule, TrustRegion
from mgnet.training.least_squares.sweep import Sweep
from mgnet.training.least_squares.units import Scale, Unknowns

__all__ = ["levenberg_marquardt"]

SWEEP = Schedule([Step("solve", 0)])
CRAWL = 30  # consecutive steps that were shortened and gained less than a tenth
ATTEMPTS = 3  # to continue from a state that meets a test but is not a minimum
AGED = 30  # cycles without a change after which a problem counts as constant


def levenberg_marquardt(
    residual: Residual | LeastSquares,
    module: torch.nn.Module | None = None,
    *,
    ftol: float = 1e-8,
    xtol: float = 1e-8,
    gtol: float = 1e-8,
    max_cycles: int | None = None,
    seconds: float = math.inf,
    monitor: Callable[[CycleRecord, torch.Tensor], Any] | None = None,
    mu: float = 1e-2,
    acceleration: float = 0.75,
    corrections: int = 8,
    x_scale: Scale = "auto",
    loss: str = "linear",
    f_scale: float = 1.0,
    bounds: Bounds | None = None,
    rule: StepRule | None = None,
    linear_solver: NewtonKrylov | None = None,
    chunk_size: int | None = None,
    refresh: Refresh | Sequence[Refresh] | None = None,
    memory: Memory | None = None,
) -> Solution:
    """Train any PyTorch module on `1/2 |residual(module)|^2`.

    The function trains networks, and also fits formulas with a few parameters, as
    `scipy.optimize.least_squares` does. When a convergence test is met, it is verified before the
    training ends, so "converged" means that the residuals are orthogonal to the range of their
    Jacobian, or at the rounding level.

    The unknowns are the parameters that require a gradient. Linear algebra is in float64 whatever
    the precision of the module. Cost and memory grow with the number of residuals times the number
    of parameters, so the method suits up to a few thousand parameters, where it reaches errors
    smaller than those of first-order methods.

    Parameters
    ----------
    residual : callable, or LeastSquares
        `module -> tensor` of any shape, or a tuple of tensors; it may differentiate with
        respect to its inputs (`torch.autograd.grad(..., create_graph=True)`). The function is
        fastest if entry i of each tensor depends only on sample i of each call `module(x)`, so for
        several kinds of points return a tuple, not one long tensor. Alternatively, a problem such
        as a `Collocation`, which has its own network, penalty and Jacobian.
    module : torch.nn.Module
        Module that is trained in place. At the end it holds the best parameters, even after an
        error or Ctrl-C. Omit it if a problem is given, which contains its network.
    ftol, xtol, gtol : float
        Tolerances of the tests of MINPACK, dimensionless. The training ends when the actual and the
        predicted reduction of a step are at most `ftol` times the objective; when steps are no
        longer than `xtol` times the parameters, each in its unit; or when no cosine between the
        residuals and a column of the Jacobian exceeds `gtol`. Tolerances below the module's
        precision are raised.
    max_cycles : int, optional
        Limit on the number of cycles: one cycle is one sweep of `LevenbergMarquardt` with one
        Jacobian. The default is 200 for networks, and, as in MINPACK, 100 times the number of
        parameters plus one if no parameter is a weight of a network.
    seconds : float
        Limit on the wall time; a cycle that has begun is finished.
    monitor : callable, optional
        Function of (CycleRecord, flat vector of the parameters), called at the start and after
        every cycle; if it returns True, the training ends.
    loss, f_scale
        The same as for `LeastSquares`; losses such as "soft_l1" are meant for residuals with
        outliers.
    mu, acceleration, corrections, x_scale, rule, bounds
        The same as for `LevenbergMarquardt`.
    linear_solver : NewtonKrylov, optional
        The same as for `LevenbergMarquardt`; it is meant for large KANs, whose matrix cannot be
        formed.
    chunk_size : int, optional
        Number of rows or columns of the Jacobian per pass; a smaller number needs less memory.
    refresh : callable, or sequence of such, optional
        `(cycle, problem, u) -> problem`, called before every cycle from 1 on: it returns the next
        problem, with other points (`NewPoints`) or weights (`BalancedWeights`), or the same
        problem. The objective is always that of the current problem, and may rise when the problem
        changes. A convergence test counts only in the first cycle with a changed problem, so that
        it is met on data not used for training, or after 30 cycles without a change.
    memory : dict, optional
        Memory of an earlier `Solution` for the same module; its damping replaces `mu`.

    Returns
    -------
    Solution
        Its residual is the gradient `J^T r` and its objective `1/2 |r|^2`. The objective never
        rises, unless a fit of a formula that did not end at a minimum is repeated from the initial
        state; the last entry then belongs to the better result. `value` is the flat vector of the
        parameters in float64.

    Raises
    ------
    ValueError
        If there is nothing to train, or residuals are not finite at the start, random, or constant.
    TypeError
        If residuals are not real tensors, or a problem is given with a module, loss or
        `chunk_size`.

    Examples
    --------
    >>> module = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> x = torch.linspace(-1, 1, 50).unsqueeze(1)
    >>> solution = levenberg_marquardt(lambda module: module(x) - torch.sin(3 * x), module)
    >>> solution.values[-1] < 1e-4
    True
    >>> levenberg_marquardt(LeastSquares(module, (x, torch.cos(x)))).values[-1] < 1e-4
    True
    """
    check_limits(
        "levenberg_marquardt",
        max_cycles=1 if max_cycles is None else max_cycles,
        seconds=seconds,
        monitor=monitor,
        ftol=ftol,
        xtol=xtol,
        gtol=gtol,
    )
    began = time.perf_counter()
    problem = problem_of(residual, module, chunk_size, loss, f_scale)
    ways = mu, acceleration, corrections, linear_solver, x_scale, rule, bounds
    smoother = LevenbergMarquardt(*ways)
    level = Level(problem, smoother, name="levenberg_marquardt")
    u = problem.start().double()
    max_cycles = max_cycles or _most_cycles(problem, u)
    run = _Run(level, smoother, Tolerances(ftol, xtol, gtol), u, refreshers(refresh))
    run.damping = damping_of(memory) or smoother.start(level, u)
    if x_scale == "auto" and Unknowns(problem, len(u)).formula and not run.refresh:
        plain = replace(smoother, x_scale=1.0)
        run.start, run.ways = u, (plain, replace(plain, rule=rule or TrustRegion(0.5)))
    reason: Reason | None = None
    first = problem.residuals(u)
    level.charge(1.0 / 3.0)
    if not len(first):
        raise ValueError("levenberg_marquardt got no residuals; give at least one sample")
    try:
        while True:
            told = run.look(began)
            if not run.changed:
                check_alike(first, told, run.history, level)
            elif run.changed == (now := run.history[-1]).cycle:
                check_usable(told.r, told, now.residual_norm, run.level, now.cycle)
            reason = run.reason or _limit(run.history, told.largest, max_cycles, seconds)
            if monitor is not None and ends("levenberg_marquardt", monitor, run.history[-1], run.u):
                reason = reason or Reason.MONITOR
            if reason is not None:
                break
            run.step(told)
            run.renew()
        before = run.better()
        if before is not None:
            reason = before
            run.look(began)  # the history ends with the state that is returned
    finally:
        run.better()
        problem.flat.write(run.u)
    broken = "the gradient became NaN or Inf, though the residuals are finite"
    return Solution(
        run.u,
        cast(Reason, reason),
        tuple(run.history),
        run.level.tally[0],
        time.perf_counter() - began,
        {(0, "pre"): run.damping},
        tuple(run.records),
        f"after cycle {len(run.history) - 1}, {broken}" if reason is Reason.NOT_FINITE else "",
        run.last,
    )


def _most_cycles(problem: LeastSquares, u: torch.Tensor) -> int:
    """Default of `max_cycles`; for a formula it is that of MINPACK."""
    return max(200, 100 * (len(u) + 1)) if Unknowns(problem, len(u)).formula else 200


@dataclass
class _Run:
    """State of one call of `levenberg_marquardt`."""

    level: Level
    smoother: LevenbergMarquardt
    tolerances: Tolerances
    u: torch.Tensor
    refresh: tuple[Refresh, ...] = ()
    damping: Any = None
    history: list[CycleRecord] = field(default_factory=list)
    records: list[StepRecord] = field(default_factory=list)
    reason: Reason | None = None
    last: LastSweep | None = None
    attempts: int = 0
    asked: float = math.inf
    crawled: int = 0
    changed: int = 0  # the cycle in which the problem changed last
    restarted: int = 0  # entries of the history before the last new start
    start: torch.Tensor | None = None  # initial state of further attempts
    ways: tuple[LevenbergMarquardt, ...] = ()  # smoothers for further attempts
    earlier: tuple[torch.Tensor, float, Reason] | None = None  # the result of the first attempt

    def better(self) -> Reason | None:
        """Return to the final state of the earlier attempt if its objective is lower."""
        unseen = len(self.history) == self.restarted  # the new start has not been evaluated
        if self.earlier is None or not (
            unseen or self.earlier[1] < (self.history[-1].value or 0.0)
        ):
            return None
        self.u, _, reason = self.earlier
        self.earlier = None
        return reason

    def look(self, began: float) -> Told:
        """Evaluate the residuals and their Jacobian, and append an entry to the history."""
        told = self.smoother.begin(self.level, self.u, None, self.damping)
        seconds, gradient = time.perf_counter() - began, told.gradient
        entry = CycleRecord(len(self.history), gradient, told.half, self.level.tally[0], seconds)
        self.history.append(entry)
        return told

    def step(self, told: Told) -> None:
        """Run one sweep; set the reason for ending if the sweep ends at a minimum."""
        work, start = self.level.tally[0], time.perf_counter()
        sweep = self.smoother.step(self.level, told, self.damping)
        taken = sweep.u is not self.u
        if taken:
            self.last = LastSweep(self.level, self.u, self.damping)
        self.u, self.damping = sweep.u, sweep.memory
        slow = isinstance(sweep.system, SingularEquations) and sweep.memory.mu > 0.0
        slow = slow and sweep.trial.actual < 0.1 * sweep.told.half
        self.crawled = self.crawled + 1 if slow else 0
        met = met_test(self.tolerances, sweep) if sweep.seen else Reason.STATIONARY
        if met is not None or not taken:
            self._question(met or Reason.STATIONARY, sweep)
        elif self.crawled >= CRAWL:
            self._afresh()
        spent = self.level.tally[0] - work, time.perf_counter() - start
        self.records.append(StepRecord(len(self.history), SWEEP[0], *spent, None, None))

    def renew(self) -> None:
        """Refresh the problem for the next cycle."""
        if not self.refresh:
            return
        cycle, before = len(self.history), self.level.operator
        if 1 < cycle - self.changed <= AGED:
            self.reason = None  # a test counts only right after a change
        problem = refreshed(self.refresh, cycle, before, self.u)
        if problem is before or self.reason is not None:
            return
        work = self.level.tally[0]
        self.level = replace(self.level, operator=problem)
        self.level.tally[0] = work
        self.changed, self.attempts, self.asked, self.crawled = cycle, 0, math.inf, 0

    def _question(self, met: Reason, sweep: Sweep) -> None:
        """Check whether the state that meets a test is a minimum, and continue if it is not."""
        size = sweep.told.problem.unit * (2.0 * sweep.told.half) ** 0.5
        if is_minimal(self.level, sweep, self.asked):
            lower = lower_nearby(self.level, sweep)
            if lower is None:
                if vanished(sweep):
                    self._end(Reason.FLAT)
                elif degenerate(sweep):
                    self._end(met)
                else:
                    self.reason = met
                return
            self.u = lower
        self.attempts = self.attempts + 1 if size > 0.7 * self.asked else 1
        self.asked = size
        if self.attempts > ATTEMPTS:
            self._end(Reason.STAGNATES)
            return
        self._afresh()

    def _end(self, reason: Reason) -> None:
        """End if parameters are not determined, or start again with other settings."""
        value = self.history[-1].value or 0.0
        if not self.ways:
            self.reason = reason
            return
        if self.earlier is None or value < self.earlier[1]:
            self.earlier = self.u, value, reason
        (self.smoother, *ways), self.u = self.ways, cast(torch.Tensor, self.start)
        self.ways, self.attempts, self.asked, self.crawled = tuple(ways), 0, math.inf, 0
        self.restarted = len(self.history)
        self.damping = self.smoother.start(self.level, self.u)

    def _afresh(self) -> None:
        """Continue from the current state with a new radius and other units.

        Large column norms from early steps make steps in some unknowns far too short. Therefore
        separate units are replaced by a single unit for all unknowns, and a single unit by separate
        units from the current column norms.
        """
        self.crawled = 0
        scale = self.smoother.x_scale
        if isinstance(scale, str | float) and scale in ("auto", 1.0):
            other = 1.0 if scale == "auto" else "auto"
            self.smoother = replace(self.smoother, x_scale=other)
        self.damping = self.smoother.start(self.level, self.u)


class LastSweep(NamedTuple):
    """Repeats the last sweep for `Solution.explain`.

    Pickles and deep copies omit it, because it refers to the module and the residual function, and
    a lambda cannot be pickled.
    """

    level: Level
    u: torch.Tensor
    damping: Damping

    def __call__(self, record: Callable[[Step, StepData], None]) -> None:
        run(SWEEP, Hierarchy([self.level]), self.u, None, {(0, "pre"): self.damping}, record)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def _limit(
    history: list[CycleRecord], largest: float, max_cycles: int, seconds: float
) -> Reason | None:
    now = history[-1]
    if not math.isfinite(now.residual_norm):
        return Reason.NOT_FINITE
    if not largest:
        return Reason.STATIONARY
    if now.cycle >= max_cycles:
        return Reason.MAX_CYCLES
    return Reason.SECONDS if now.seconds >= seconds else None
