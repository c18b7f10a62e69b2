"""`Solver` repeats a schedule until a tolerance is met."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse.linalg as spla

from mgnet import vector
from mgnet.anderson import Anderson, Iterates
from mgnet.callbacks import ends, real_function
from mgnet.diagnosis import stands_at_rounding
from mgnet.hierarchy import Hierarchy
from mgnet.history import CycleRecord, StepRecord
from mgnet.interpreter import Memory, StepData, perform, run
from mgnet.launched import hint_of_repeated_solve
from mgnet.limits import check_limits
from mgnet.norms import binary_exponent, norm, times_power_of_two
from mgnet.notation import parse
from mgnet.operands import operands
from mgnet.schedule import Schedule, Step
from mgnet.solution import Reason, Solution

__all__ = ["Solver"]

State = Any


class Solver:
    """Repeats a cycle until a tolerance is met.

    Parameters
    ----------
    hierarchy : Hierarchy
    cycle : str or Schedule
        A text for `parse`. The opening of a nested or cascade schedule runs once, as the first
        cycle; then what it does on level 0 is repeated.
    rtol : float
        Relative to the norm of f, dimensionless, as in PETSc and PyAMG; to the residual norm of the
        start when f is None or zero.
    atol : float
        Absolute, in the norm of the hierarchy.
    max_cycles : int
    batches : iterable, optional
        One batch per cycle, bound to all levels by `hierarchy.with_data`. Residual norms are then
        those of each cycle's batch, tolerances are not tested, and the solve ends with the batches
        or `max_cycles`.
    monitor : callable, optional
        Called with (CycleRecord, state) after the initial residual and every cycle; returning True
        ends the solve. `ProgressLines()` is one.
    record : callable, optional
        Receives (step, StepData) after every step, as in `run`.
    merit : callable, optional
        `state -> value`: unless a tolerance is met, the solution is the state with the least value,
        of the start and the states after each cycle. By default the objective of level 0 where a
        smoother may raise it, as Adam does, counted as work; but nothing with batches, whose values
        do not compare: give the objective over all data, or over held-out data.
    acceleration : Anderson, optional
        Goes on from combinations of the last cycles instead of the last one alone.
    seconds : float
        Wall time; a cycle that has begun is finished. On one process: the clocks of several differ.

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
        monitor: Callable[[CycleRecord, State], Any] | None = None,
        record: Callable[[Step, StepData], None] | None = None,
        merit: Callable[[State], float] | None = None,
        acceleration: Anderson | None = None,
        seconds: float = math.inf,
    ):
        if not isinstance(hierarchy, Hierarchy):
            raise TypeError(
                f"Solver got a {type(hierarchy).__name__}; "
                "it takes a Hierarchy: Hierarchy([level, ...])"
            )
        limits: dict[str, Any] = {"max_cycles": max_cycles, "seconds": seconds}
        check_limits("Solver", rtol=rtol, atol=atol, monitor=monitor, **limits)
        if not isinstance(cycle, str | Schedule):
            raise TypeError(
                f"Solver got a cycle of type {type(cycle).__name__}; give a text as 'V(1,1)', or a "
                "Schedule"
            )
        self.hierarchy: Hierarchy = hierarchy
        self.schedule: Schedule = parse(cycle, len(hierarchy)) if isinstance(cycle, str) else cycle
        self.schedule.fit(hierarchy)
        if self.schedule.opening == len(self.schedule) and len(hierarchy) > 1:
            raise ValueError(
                "Solver got a schedule that ends with 'interpolate', so it has nothing to repeat "
                "on level 0; add sweeps there"
            )
        for name, function in (("record", record), ("merit", merit)):
            if function is not None and not callable(function):
                raise TypeError(
                    f"Solver got a {name} of type {type(function).__name__}; give a function, "
                    "such as print"
                )
        if acceleration is not None and not isinstance(acceleration, Anderson):
            raise TypeError(
                f"Solver got acceleration of type {type(acceleration).__name__}; "
                "it takes an Anderson, such as Anderson(memory=5), or None"
            )
        if acceleration is not None and batches is not None:
            raise ValueError(
                "Solver got acceleration and batches; every batch is another equation, whose "
                "cycles do not combine, so leave one of them out"
            )
        self.rtol: float = rtol
        self.atol: float = atol
        self.max_cycles: int = max_cycles
        self.batches: Iterable[Any] | None = batches
        self.monitor: Callable[[CycleRecord, State], Any] | None = monitor
        self.record: Callable[[Step, StepData], None] | None = record
        self.merit: Callable[[State], float] | None = merit
        self.acceleration: Anderson | None = acceleration
        self.seconds: float = seconds

    def solve(
        self, f: State | None = None, u: State | None = None, memory: Memory | None = None
    ) -> Solution:
        """Solve `A(u) = f`.

        Parameters
        ----------
        f : state of level 0, optional
            Right-hand side; None stands for zero. Whatever NumPy makes an array of numbers of will
            do; where level 0 has a matrix of size n, also of shape (n, 1), which the solution then
            has, too, but not the states that a monitor gets.
        u : state of level 0, optional
            Start; None stands for zero, but not both. A nested schedule uses it where the transfers
            inject. The precision of the solution is that of NumPy's promotion of matrix, f and u,
            at least float64 for integers.
        memory : dict, optional
            From an earlier `Solution` of the same hierarchy, to skip the set-up.

        Returns
        -------
        Solution
            Whatever happened: see its `reason`; `Solution.require` raises.

        Raises
        ------
        TypeError, ValueError
            If f, u and level 0 do not fit together.
        """
        f, u, shape = operands("Solver.solve", self.hierarchy, f, u)
        began = time.perf_counter()
        hierarchy, bound = self._bound(f if u is None else u)
        value, memory = (vector.zeros_like(f) if u is None else u), dict(memory or {})
        schedule, last, message, checks, residual = self.schedule, None, "", 0.0, None
        opening = schedule.opening
        repeated = Schedule(schedule[opening:]) if opening else schedule
        records, norms, history = list[StepRecord](), list[float](), list[CycleRecord]()
        scale, best = 0.0 if f is None else hierarchy.norm(f), _Best(self._merit(f))
        iterates = self.acceleration and Iterates(self.acceleration, hierarchy.dot, hierarchy.norm)
        spent, seen = 0.0, 0  # the work of records[:seen]
        while True:
            before = hierarchy[0].tally[0]
            norms.append(_norm(hierarchy, value, f, residual))
            while iterates is not None and iterates.refuses(norms):
                value = iterates.restart()
                norms[-1] = _norm(hierarchy, value, f)
            checks += hierarchy[0].tally[0] - before
            best.see(value)
            spent, seen = spent + sum([entry.work for entry in records[seen:]]), len(records)
            work = spent + (checks + self._merit_work(best.values))
            history.append(_entry(norms, best.values, work, began))
            reason = self._reason(norms, scale, history[-1], value, f)
            if reason is None and bound is not None and len(norms) > 1:
                following = next(bound, None)
                reason = Reason.BATCHES if following is None else None
                hierarchy = following or hierarchy
            if reason is not None:
                break
            u = value if records else u
            last = schedule, hierarchy, u, f, memory
            try:
                told = perform(*last, self.record, None, records, len(norms), ahead=True)
                plain, memory, residual = told
            except FloatingPointError as error:
                back, residual = None if iterates is None else iterates.restart(), None
                if back is None:
                    reason, message = Reason.NOT_FINITE, f"cycle {len(norms)}, {error}"
                    break
                value = back
                continue
            if iterates is None or schedule != repeated:
                value = plain
            else:
                value, residual = iterates.next(value, plain), None
            schedule = repeated
        return Solution(
            _shaped(value if reason.converged else best.state(value), shape),
            reason,
            tuple(history),
            sum([entry.work for entry in records]) + (checks + self._merit_work(best.values)),
            time.perf_counter() - began,
            memory,
            tuple(records),
            message,
            last and partial(run, *last),
            hierarchy.norm,
            0 if iterates is None else iterates.restarts,
            hierarchy.dot,
        )

    def _merit_work(self, values: list[float]) -> float:
        """The work of so many values: one each, but those of a function of the user."""
        return 0.0 if self.merit is not None else float(len(values))

    def _bound(self, u: State) -> tuple[Hierarchy, Iterator[Hierarchy] | None]:
        """The hierarchy of the first cycle and, with batches, those of the others."""
        _check_clocks(self.seconds, u)
        hint_of_repeated_solve(self.hierarchy, u)
        if self.batches is None:
            return self.hierarchy, None
        if not isinstance(self.batches, Iterable):
            raise TypeError(
                f"Solver got batches of type {type(self.batches).__name__}; give an iterable of "
                "them, such as [(x, y)] or a DataLoader"
            )
        bound = map(self.hierarchy.with_data, self.batches)
        first = next(bound, None)
        if first is None:
            raise ValueError(
                "Solver.solve got no batches; give an iterable with at least one, made anew for "
                "every solve"
            )
        return first, bound

    def _merit(self, f: State | None) -> Callable[[State], float] | None:
        level = self.hierarchy[0]
        monotone = all(level.smoother.monotone for level in self.hierarchy)
        if self.merit is not None:
            return real_function("Solver", "a merit", self.merit)
        if self.batches is not None or level.objective is None:
            return None
        return None if monotone else (lambda u: level.value(u, f, self.hierarchy.dot))

    def _reason(
        self, norms: list[float], scale: float, entry: CycleRecord, u: State, f: State | None
    ) -> Reason | None:
        """Why to stop, or None; the monitor is called in any case."""
        reason, hierarchy = self._limit(norms, scale), self.hierarchy
        if reason is Reason.MAX_CYCLES and self.batches is None:
            stands = stands_at_rounding(norms, hierarchy[0], hierarchy.norm, u, f)
            reason = Reason.ROUNDING if stands else reason
        if reason is None and entry.seconds >= self.seconds:
            reason = Reason.SECONDS
        if self.monitor is not None and ends("Solver", self.monitor, entry, u):
            return reason or Reason.MONITOR
        return reason

    def _limit(self, norms: list[float], scale: float) -> Reason | None:
        """What these residual norms have met, or None; `scale` is the norm of f."""
        now, cycles = norms[-1], len(norms) - 1
        if not math.isfinite(now):
            return Reason.NOT_FINITE
        if self.batches is None:
            if now <= self.atol:
                return Reason.ATOL
            if now <= self.rtol * (scale or norms[0]):
                return Reason.RTOL
            if cycles and now >= 1e5 * max(scale, norms[0]):
                return Reason.DIVERGED
        return Reason.MAX_CYCLES if cycles >= self.max_cycles else None

    def as_preconditioner(self) -> spla.LinearOperator:
        """One cycle from a zero start as a SciPy LinearOperator, `cg(A, b, M=...)`.

        Symmetric (as cg needs) when post-smoothing mirrors pre-smoothing. The set-up is kept
        between calls. It works in the precision of the matrix of level 0, which may be complex, on
        vectors of any: those that are out of its range are scaled.

        Examples
        --------
        >>> from mgnet import gallery
        >>> hierarchy = gallery.poisson((31, 31))
        >>> M = Solver(hierarchy).as_preconditioner()
        >>> u, info = spla.cg(hierarchy[0].matrix, np.ones(961), M=M, maxiter=12)
        >>> info
        0
        """
        memories: dict[np.dtype, Memory] = {}
        level = self.hierarchy[0]
        if not level.unknowns:
            raise ValueError(
                "Solver.as_preconditioner got a level 0 without a number of unknowns; "
                "give Level(size=...)"
            )
        if vector.is_mat(level.matrix):
            raise TypeError(
                "Solver.as_preconditioner got a level 0 with a PETSc Mat, but SciPy's vectors are "
                "arrays; precondition a KSP by -pc_type python -pc_python_type mgnet.petsc.Cycle"
            )
        kind = getattr(level.matrix, "dtype", None)
        # The precision of the matrix, which may be complex; an integer matrix counts as float64.
        precise = isinstance(kind, np.dtype) and kind.kind in "fc"
        dtype = np.result_type(kind if precise else float, np.float32)

        def cycle(b: np.ndarray) -> np.ndarray:
            f, exponent = np.asarray(b).ravel(), 0
            kind = np.result_type(dtype, np.complex64) if f.dtype.kind == "c" else dtype
            common = np.result_type(f.dtype, kind)
            if f.dtype.kind in "fc" and common != kind:  # it may be out of the range of the matrix
                exponent = binary_exponent(norm(f))
                f = times_power_of_two(f, -exponent)
            f, memory = f.astype(kind, copy=False), memories.get(kind)
            u, memories[kind] = run(self.schedule, self.hierarchy, None, f, memory)
            return times_power_of_two(u.astype(common), exponent) if exponent else u

        shape = level.unknowns, level.unknowns
        return spla.LinearOperator(shape, matvec=cycle, dtype=dtype)  # type: ignore


def _check_clocks(seconds: float, u: State) -> None:
    """Raise where processes that solve together might not end together."""
    processes = u.getComm().getSize() if vector.is_vec(u) else 1
    if processes > 1 and seconds < math.inf:
        raise ValueError(
            f"Solver got seconds {seconds:g} for a Vec over {processes} processes, whose clocks "
            "differ; give max_cycles"
        )


class _Best:
    """The state with the least value, where there is a merit function."""

    def __init__(self, merit: Callable[[State], float] | None):
        self.merit = merit
        self.values: list[float] = []
        self.least = math.inf
        self._state: State | None = None

    def see(self, u: State) -> None:
        if self.merit is None:
            return
        self.values.append(self.merit(u))
        if self.values[-1] < self.least:
            self.least, self._state = self.values[-1], u

    def state(self, last: State) -> State:
        """The best; the last one where that is as good to rounding."""
        if self._state is None or self.values[-1] <= self.least + 1e-12 * abs(self.least):
            return last
        return self._state


def _norm(hierarchy: Hierarchy, u: State, f: State | None, residual: State | None = None) -> float:
    """The residual norm, counted as work, also where the last sweep has given the residual."""
    level = hierarchy[0]
    if residual is None:
        residual = level.residual_at(u, f)
    else:
        level.charge(level.residual_work)
    return hierarchy.norm(residual)


def _shaped(u: State, shape: tuple[int, ...]) -> State:
    """The state u in this shape, itself where it has it."""
    return u if vector.state_shape(u) == shape else u.reshape(shape)


def _entry(norms: list[float], values: list[float], work: float, began: float) -> CycleRecord:
    """Where the solve stands after the last of these norms and values, if there are any."""
    value = values[-1] if values else None
    return CycleRecord(len(norms) - 1, norms[-1], value, work, time.perf_counter() - began)
