"""The interpreter `run`, which performs any schedule on any hierarchy, and `Solver`, which repeats it to a tolerance.

Every method is the full approximation scheme with other parts: with injection the coarse level solves
`A_c(v + w) = A_c(v) + R r`, without it `A_c(w) = R r`, and the correction w comes back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse.linalg as spla

from mgnet import report, vector
from mgnet.hierarchy import Hierarchy, Level
from mgnet.schedule import Schedule, Step, parse

__all__ = ["Reason", "Solution", "Solver", "StepData", "StepRecord", "run"]

State = Any
Memory = dict[tuple[int, str], Any]


class StepData(NamedTuple):
    """What `run` tells its recorder after each step.

    Attributes
    ----------
    level : Level
        On which the step ended (the recentred one, where there is one).
    state, rhs : state or None
        u and f on that level; None stands for zero.
    work : float
        Work units of the step, counted.
    seconds : float
        Wall time of the step, set-up of the smoother included.
    residual_norm : float or None
        Of the level that a `down` left, before the coarse correction.
    step_length : float or None
        Of an `up`: 1, what the line search returned, or 0 for a refused correction.
    """

    level: Level
    state: State
    rhs: State | None
    work: float
    seconds: float
    residual_norm: float | None
    step_length: float | None


def run(
    schedule: Schedule,
    hierarchy: Hierarchy,
    u: State | None,
    f: State | None,
    memory: Memory | None = None,
    record: Callable[[Step, StepData], None] | None = None,
) -> tuple[State, Memory]:
    """Perform a schedule once.

    Parameters
    ----------
    schedule : Schedule
    hierarchy : Hierarchy
    u, f : state of level 0 or None
        Start and right-hand side; None stands for zero, but not both.
    memory : dict, optional
        Of the smoothers, from an earlier run on the same hierarchy: keys are (level, "pre" | "post").
    record : callable, optional
        Receives (step, StepData) after every step.

    Returns
    -------
    (state, memory)
        New ones; nothing that was given is edited.

    Raises
    ------
    FloatingPointError
        As soon as a state is not finite; names the step and the level.

    Examples
    --------
    >>> from mgnet import gallery, nested
    >>> hierarchy = gallery.poisson(15)
    >>> u, memory = run(nested(len(hierarchy)), hierarchy, None, np.ones(15) / 16)
    >>> x = np.arange(1, 16) / 16
    >>> bool(abs(u - x * (1 - x) / 2).max() < 0.01)
    True
    """
    schedule.fit(hierarchy)
    levels = list(hierarchy)  # a descent may replace the level below by a recentred one
    us, fs, vs, rs = ([None] * len(levels) for _ in range(4))
    us[0], fs[0] = (vector.zeros_like(f) if u is None and f is not None else u), f
    if us[0] is None:
        raise ValueError("run got neither u nor f; give the one that tells the shape of a state")
    memory = dict(memory or {})
    unit = hierarchy[0].evaluation_cost
    for number, step in enumerate(schedule, 1):
        action, l, count = step  # noqa: E741
        level = levels[l]
        below = levels[l + 1] if l + 1 < len(levels) else level
        before, began = (level.tally[0], below.tally[0]), time.perf_counter()
        residual_norm = step_length = None
        if action in ("pre", "post", "solve"):
            smoother = level.post_smoother if action == "post" and level.post_smoother else level.smoother
            key = (l, "post" if smoother is level.post_smoother else "pre")
            if memory.get(key) is None:
                memory[key] = smoother.start(level, us[l])
            us[l], memory[key] = smoother.smooth(level, us[l], fs[l], count, memory[key])
        elif action == "down":
            rs[l] = level.residual_at(us[l], fs[l])
            residual_norm = hierarchy.norm(rs[l])
            if level.recenter is not None:
                below = levels[l + 1] = level.recenter(us[l])
                before = (before[0], 0.0)
            fs[l + 1] = level.transfer.restrict(rs[l])
            if level.transfer.inject is None:
                vs[l + 1], us[l + 1] = None, vector.zeros_like(fs[l + 1])
            else:
                us[l + 1] = vs[l + 1] = level.transfer.inject(us[l])
                fs[l + 1] = fs[l + 1] + below.apply(vs[l + 1])
            l = l + 1  # noqa: E741
        elif action == "up":
            d = level.transfer.prolong(us[l + 1] if vs[l + 1] is None else us[l + 1] - vs[l + 1])
            step_length = 1.0 if level.line_search is None else level.line_search(level, us[l], d, fs[l], rs[l])
            if step_length:
                us[l] = us[l] + d if step_length == 1.0 else us[l] + step_length * d
            rs[l] = None
        elif action == "start":
            _start(levels, us, fs, given=u is not None)
        else:
            us[l] = level.transfer.interpolate(us[l + 1])
            _carry(memory, levels, l)
        if not (math.isfinite(residual_norm) if residual_norm is not None else hierarchy.is_finite(us[l])):
            raise FloatingPointError(f"step {number}, '{step}' on level {step.level}: the state is not finite")
        if record is not None:
            seconds = time.perf_counter() - began
            work = (level.tally[0] - before[0]) * level.evaluation_cost
            if below is not level:
                work += (below.tally[0] - before[1]) * below.evaluation_cost
            data = StepData(levels[l], us[l], fs[l], work / unit, seconds, residual_norm, step_length)
            record(step, data)
    return us[0], memory


def _keep(records: list[StepRecord], cycle: int, step: Step, data: StepData) -> None:
    records.append(StepRecord(cycle, step, data.work, data.seconds, data.residual_norm, data.step_length))


def _start(levels: list[Level], us: list[State], fs: list[State], given: bool) -> None:
    """Carry the problem to the coarsest level: f by restrict, a given u by inject (where there is one)."""
    for l, level in enumerate(levels[:-1]):  # noqa: E741
        transfer = level.transfer
        fs[l + 1] = None if fs[l] is None else transfer.restrict(fs[l])
        if given and transfer.inject is not None:
            us[l + 1] = transfer.inject(us[l])
        else:
            us[l + 1] = vector.zeros_like(transfer.restrict(us[l]) if fs[l + 1] is None else fs[l + 1])


def _carry(memory: Memory, levels: list[Level], l: int) -> None:  # noqa: E741
    """Give the smoothers of level l what their counterparts on the coarser level remember."""
    for role in ("pre", "post"):
        coarse, fine = (levels[k].smoother if role == "pre" else levels[k].post_smoother for k in (l + 1, l))
        if coarse is not None and type(fine) is type(coarse) and memory.get((l + 1, role)) is not None:
            carried = coarse.carry(memory[l + 1, role], levels[l].transfer)
            if carried is not None:
                memory[l, role] = carried


class Reason(Enum):
    """Why a solve ended; `converged` tells whether a tolerance was met.

    Examples
    --------
    >>> Reason.RTOL.converged, Reason.MAX_CYCLES.converged
    (True, False)
    """

    RTOL = "the residual norm fell below rtol times the initial one"
    ATOL = "the residual norm fell below atol"
    MAX_CYCLES = "max_cycles were done before a tolerance was met; allow more cycles or improve the smoother"
    BATCHES = "the batches were used up"
    DIVERGED = "the residual norm grew to 1e5 times the initial one; damp the smoother or check the transfers (hierarchy.check)"
    NOT_FINITE = "a state was not finite (NaN or Inf, or its norm overflowed)"

    @property
    def converged(self) -> bool:
        return self in (Reason.RTOL, Reason.ATOL)


class StepRecord(NamedTuple):
    """One step of a solve, as numbers: cycle (from 1), step, and what `StepData` says.

    Examples
    --------
    >>> StepRecord(1, Step("pre", 0), 1.0, 0.002, None, None).work
    1.0
    """

    cycle: int
    step: Step
    work: float
    seconds: float
    residual_norm: float | None
    step_length: float | None


@dataclass(frozen=True, eq=False)
class Solution:
    """The result of `Solver.solve`.

    Attributes
    ----------
    value : state
        The last finite state of level 0.
    residual_norms : tuple of float
        Before the first cycle and after each.
    reason : Reason
    work : float
        Counted work units: of all steps, and one for each residual norm.
    memory : dict
        Of the smoothers; give it to the next `solve` to skip the set-up.
    record : tuple of StepRecord
    seconds : float
        Wall time of the whole solve.
    message : str
        Names the step and level of a NaN or Inf, else empty.
    last_cycle : callable or None
        Repeats the last cycle with a recorder, for `explain`.

    Examples
    --------
    >>> from mgnet import gallery
    >>> solution = Solver(gallery.poisson(63)).solve(np.ones(63))
    >>> solution.reason.name, len(solution.residual_norms) - 1
    ('RTOL', 12)
    """

    value: State
    residual_norms: tuple[float, ...]
    reason: Reason
    work: float
    memory: Memory = field(repr=False)
    record: tuple[StepRecord, ...] = field(repr=False)
    seconds: float = 0.0
    message: str = ""
    last_cycle: Callable[[Callable[[Step, StepData], None]], Any] | None = field(default=None, repr=False)

    @property
    def cycles(self) -> int:
        """Number of cycles done, the opening of a nested schedule being the first."""
        return len(self.residual_norms) - 1

    @property
    def factor(self) -> float:
        """Mean residual reduction per cycle (geometric), dimensionless; nan when there is none to measure."""
        first, last = self.residual_norms[0], self.residual_norms[-1]
        return (last / first) ** (1.0 / self.cycles) if self.cycles and first > 0.0 else math.nan

    def require(self) -> Solution:
        """This solution, or a RuntimeError with the reason when no tolerance was met."""
        if not self.reason.converged:
            raise RuntimeError(str(self))
        return self

    def explain(self) -> str:
        """A table: visits, time, work and residual reduction of every step on every level.

        Times and work are those of the solve. Reductions come from a repetition of its last cycle in which the residual
        norm of the step's level is taken before and after each step; those evaluations are not part of `work`.

        Examples
        --------
        >>> from mgnet import gallery
        >>> print(Solver(gallery.poisson(7, levels=2)).solve(np.ones(7)).explain().splitlines()[0])
        level  step    visits  seconds   time     work   work  reduction
        """
        return report.explain(self)

    def __str__(self) -> str:
        verdict = "converged" if self.reason.converged else "not converged"
        text = f"{verdict} ({self.reason.name}) after {self.cycles} cycles: residual norm {self.residual_norms[-1]:.3g}"
        if self.cycles:
            text += f" from {self.residual_norms[0]:.3g} (factor {self.factor:.3g} per cycle)"
        text += f", {self.work:.4g} work units, {self.seconds:.3g} s"
        return text if self.reason.converged else f"{text}; {self.message or self.reason.value}"


class Solver:
    """Repeats a cycle until a tolerance is met.

    Parameters
    ----------
    hierarchy : Hierarchy
    cycle : str or Schedule
        A text for `parse`. The opening of a nested or cascade schedule runs once, as the first cycle; then what it does
        on level 0 is repeated.
    rtol : float
        Relative to the residual norm of the start, dimensionless.
    atol : float
        Absolute, in the norm of the hierarchy.
    max_cycles : int
    batches : iterable, optional
        One batch per cycle, bound to all levels by `hierarchy.on`. Residual norms are then those of each cycle's batch,
        tolerances are not tested, and the solve ends with the batches or `max_cycles`.
    monitor : callable, optional
        Called with (cycle, residual norm, state) after the initial residual and every cycle.

    Examples
    --------
    >>> from mgnet import gallery
    >>> solver = Solver(gallery.poisson((63, 63)), "nested F(1,1)", rtol=1e-6)
    >>> solver.solve(np.full(63 * 63, 64.0**-2)).reason.converged
    True
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        cycle: str | Schedule = "V(1,1)",
        rtol: float = 1e-8,
        atol: float = 0.0,
        max_cycles: int = 50,
        batches: Iterable[Any] | None = None,
        monitor: Callable[[int, float, State], None] | None = None,
    ):
        if not isinstance(hierarchy, Hierarchy):
            raise TypeError(f"Solver got a {type(hierarchy).__name__}; it takes a Hierarchy: Hierarchy([level, ...])")
        if rtol < 0.0 or atol < 0.0 or max_cycles < 1:
            raise ValueError(
                f"Solver got rtol {rtol}, atol {atol}, max_cycles {max_cycles}; tolerances must not be negative, cycles at least 1"
            )
        self.hierarchy = hierarchy
        self.schedule = parse(cycle, len(hierarchy)) if isinstance(cycle, str) else cycle
        self.schedule.fit(hierarchy)
        if self.schedule.opening == len(self.schedule) and len(hierarchy) > 1:
            raise ValueError(
                "Solver got a schedule that ends with 'interpolate', so it has nothing to repeat on level 0; add sweeps there"
            )
        self.rtol = rtol
        self.atol = atol
        self.max_cycles = max_cycles
        self.batches = batches
        self.monitor = monitor

    def solve(self, f: State | None = None, u: State | None = None, memory: Memory | None = None) -> Solution:
        """Solve `A(u) = f`.

        Parameters
        ----------
        f : state of level 0, optional
            Right-hand side; None stands for zero.
        u : state of level 0, optional
            Start; None stands for zero, but not both. A nested schedule uses it where the transfers inject.
        memory : dict, optional
            From an earlier `Solution` of the same hierarchy, to skip the set-up.

        Returns
        -------
        Solution
            Whatever happened: see its `reason`; `Solution.require` raises.

        Raises
        ------
        ValueError
            If the shapes of f, u and level 0 differ.
        """
        f, u = self._checked(f, "f"), self._checked(u, "u")
        if f is None and u is None:
            raise ValueError("Solver.solve got neither f nor u; give the one that tells the shape of a state")
        if f is not None and u is not None and tuple(vector.as_numpy(f).shape) != tuple(vector.as_numpy(u).shape):
            raise ValueError(
                f"Solver.solve got f of shape {vector.as_numpy(f).shape} and u of shape {vector.as_numpy(u).shape}; they must be equal"
            )
        began = time.perf_counter()
        bound = None if self.batches is None else map(self.hierarchy.on, self.batches)
        hierarchy = self.hierarchy if bound is None else next(bound, None)
        if hierarchy is None:
            raise ValueError("Solver.solve got no batches; give an iterable with at least one, made anew for every solve")
        value, memory = (vector.zeros_like(f) if u is None else u), dict(memory or {})
        records: list[StepRecord] = []
        norms = [hierarchy.norm(hierarchy[0].residual_at(value, f))]
        work = hierarchy[0].residual_cost if hierarchy[0].residual else 1.0
        check, schedule, last, message = work, self.schedule, None, ""
        reason = self._reason(norms)
        while reason is None:
            cycle = len(norms)
            if cycle == 1 and self.monitor is not None:
                self.monitor(0, norms[0], value)
            last = partial(run, schedule, hierarchy, u, f, memory)
            try:
                value, memory = last(partial(_keep, records, cycle))
                norms.append(hierarchy.norm(hierarchy[0].residual_at(value, f)))
            except FloatingPointError as error:
                reason, message = Reason.NOT_FINITE, f"cycle {cycle}, {error}"
                break
            work += check
            u, schedule = value, self._repeated
            if self.monitor is not None:
                self.monitor(cycle, norms[-1], value)
            reason = self._reason(norms)
            if reason is None and bound is not None:
                hierarchy = next(bound, None)
                reason = Reason.BATCHES if hierarchy is None else None
        work += sum(entry.work for entry in records)
        return Solution(
            value, tuple(norms), reason, work, memory, tuple(records), time.perf_counter() - began, message, last
        )

    @property
    def _repeated(self) -> Schedule:
        return Schedule(self.schedule[self.schedule.opening :])

    def _reason(self, norms: list[float]) -> Reason | None:
        """Why to stop after these residual norms, or None."""
        now, cycles = norms[-1], len(norms) - 1
        if not math.isfinite(now):
            return Reason.NOT_FINITE
        if self.batches is None:
            if now <= self.atol:
                return Reason.ATOL
            if cycles and now <= self.rtol * norms[0]:
                return Reason.RTOL
            if now >= 1e5 * norms[0] > 0.0 and cycles:
                return Reason.DIVERGED
        return Reason.MAX_CYCLES if cycles >= self.max_cycles else None

    def _checked(self, state: State | None, name: str) -> State | None:
        if state is None:
            return None
        values = vector.as_numpy(state)
        if isinstance(state, np.ndarray) and state.dtype.kind in "iub":
            state = values = state.astype(float)
        size = self.hierarchy[0].unknowns
        if size and vector.is_vec(state):
            values = np.broadcast_to(0.0, state.getSize())
        if size and values.size != size:
            raise ValueError(f"Solver.solve got {name} with {values.size} entries; level 0 has {size} unknowns")
        return state

    def as_preconditioner(self) -> spla.LinearOperator:
        """One cycle from a zero start as a SciPy LinearOperator, for `scipy.sparse.linalg.cg(A, b, M=...)` and its like.

        Symmetric (as cg needs) when post-smoothing mirrors pre-smoothing. The set-up is kept between calls.

        Examples
        --------
        >>> from mgnet import gallery
        >>> hierarchy = gallery.poisson((31, 31))
        >>> M = Solver(hierarchy).as_preconditioner()
        >>> u, info = spla.cg(hierarchy[0].matrix, np.ones(961), M=M, maxiter=12)
        >>> info
        0
        """
        memory: Memory = {}

        def cycle(b: np.ndarray) -> np.ndarray:
            u, new = run(self.schedule, self.hierarchy, None, np.asarray(b, dtype=float).ravel())
            memory.update(new)
            return u

        size = self.hierarchy[0].unknowns
        return spla.LinearOperator((size, size), matvec=cycle, dtype=float)
