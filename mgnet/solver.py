"""`Solver` repeats a schedule until a tolerance is met."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import scipy.sparse.linalg as spla

from mgnet import vector
from mgnet.anderson import Anderson
from mgnet.best_state import BestState
from mgnet.callbacks import ends, real_function
from mgnet.consistency import not_a_hierarchy
from mgnet.hierarchy import Hierarchy
from mgnet.history import CycleRecord
from mgnet.interpreter import Memory, StepData, run
from mgnet.iterations import Acceleration, Cycles, FixedPoint, KrylovMethod, iterate
from mgnet.krylov import CG, FGMRES, GMRES, BreakdownError
from mgnet.launched import hint_of_repeated_solve
from mgnet.level import Level
from mgnet.limits import check_limits, typed
from mgnet.norms import binary_exponent, norm, times_power_of_two
from mgnet.notation import parse
from mgnet.nullspace import in_range
from mgnet.operands import operands
from mgnet.rounding import is_rounding, stands_at_rounding
from mgnet.schedule import Schedule, Step
from mgnet.solution import Reason, Solution

__all__ = ["Solver"]

State = Any


class Solver:
    """Repeats a cycle until a tolerance is met.

    Parameters
    ----------
    hierarchy : Hierarchy
        Levels of the method.
    cycle : str or Schedule
        Schedule, or its text for `parse`. The opening of a nested or cascade schedule runs once,
        as the first cycle; then its steps on level 0 are repeated.
    rtol, atol : float
        Tolerances in the norm of the hierarchy: rtol is relative to the norm of f, as in PETSc and
        PyAMG, or to the initial residual norm if f is None or zero, and atol is absolute.
    max_cycles : int
        Limit on the number of cycles.
    batches : iterable, optional
        One batch per cycle, bound to all levels by `hierarchy.with_data`. Tolerances are not tested
        then, and the solve ends when the batches or `max_cycles` are used up.
    monitor : callable, optional
        Function of (CycleRecord, state), called after the initial residual and every cycle; if it
        returns True, the solve ends. `ProgressLines()` is one.
    record : callable, optional
        Function of (step, StepData), called after every step, as for `run`.
    merit : callable, optional
        `state -> value`. Unless a tolerance is met, the solution is the state with the lowest
        value among the start and the states after each cycle. The default is the objective of
        level 0 if a smoother may raise it (Adam), counted as work. There is no default with
        batches, whose values are not comparable: give the objective over all or held-out data.
    acceleration : Anderson, CG, GMRES or FGMRES, optional
        Method that combines several cycles; one iteration costs one cycle. Krylov methods require
        linear levels; their residual norms come from recurrences, except at restarts and the end.
    seconds : float
        Limit on the wall time; a cycle that has begun is finished. One process only.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type or value, or arguments cannot be combined.

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
        acceleration: Acceleration | None = None,
        seconds: float = math.inf,
    ):
        if not isinstance(hierarchy, Hierarchy):
            raise not_a_hierarchy("Solver", hierarchy)
        limits: dict[str, Any] = {"max_cycles": max_cycles, "seconds": seconds}
        check_limits("Solver", rtol=rtol, atol=atol, monitor=monitor, **limits)
        if not isinstance(cycle, str | Schedule):
            got = f"Solver got a cycle of type {type(cycle).__name__}"
            raise TypeError(f"{got}; give a text such as 'V(1,1)' or a Schedule")
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
                got = f"Solver got a {name} of type {type(function).__name__}"
                raise TypeError(f"{got}; give a function, such as print")
        self._check_acceleration(acceleration)
        if acceleration is not None and batches is not None:
            raise ValueError(
                "Solver got acceleration and batches; every batch is another equation, whose "
                "cycles cannot be combined, so leave one of them out"
            )
        self.rtol: float = rtol
        self.atol: float = atol
        self.max_cycles: int = max_cycles
        self.batches: Iterable[Any] | None = batches
        self.monitor: Callable[[CycleRecord, State], Any] | None = monitor
        self.record: Callable[[Step, StepData], None] | None = record
        self.merit: Callable[[State], float] | None = merit
        self.acceleration: Acceleration | None = acceleration
        self.seconds: float = seconds

    def _check_acceleration(self, acceleration: Any) -> None:
        if acceleration is None or isinstance(acceleration, Anderson):
            return
        if not isinstance(acceleration, CG | GMRES | FGMRES):
            raise TypeError(
                f"Solver got {typed('acceleration', acceleration)}; it takes CG(), GMRES(), "
                "FGMRES(), Anderson() or None"
            )
        for number, level in enumerate(self.hierarchy):
            if level.matrix is None or level.recenter is not None:
                raise TypeError(
                    f"Solver got acceleration={acceleration}, which is for linear levels, but "
                    f"level {number} has no matrix; use Anderson(), or give a linear function as "
                    "scipy.sparse.linalg.LinearOperator"
                )

    def solve(
        self, f: State | None = None, u: State | None = None, memory: Memory | None = None
    ) -> Solution:
        """Solve `A(u) = f`.

        Parameters
        ----------
        f : state of level 0, optional
            Right-hand side, or anything that NumPy converts to one; None stands for zero. If level
            0 has a matrix, shape (n, 1) is allowed and is then the shape of the solution.
        u : state of level 0, optional
            Initial state; None stands for zero, unless f is None. Nested schedules use it if the
            transfers inject. NumPy's rules promote the precision of matrix, f and u.
        memory : dict, optional
            Memory from an earlier `Solution` of the same hierarchy, to skip the setup.

        Returns
        -------
        Solution
            The result; its `reason` is why the solve ended. `Solution.require` raises an error.

        Raises
        ------
        TypeError, ValueError
            If f, u and level 0 do not fit together.
        """
        f, u, shape = operands("Solver.solve", self.hierarchy, f, u)
        began = time.perf_counter()
        hierarchy, bound = self._bound(f if u is None else u)
        f, projected = in_range(hierarchy.nullspace, f, hierarchy.norm)
        cycles = Cycles(hierarchy, f, dict(memory or {}), self.record)
        schedule, message, norms, history = self.schedule, "", list[float](), list[CycleRecord]()
        repeated = Schedule(schedule[schedule.opening :]) if schedule.opening else schedule
        iteration = iterate(cycles, repeated, u, self.acceleration)
        scale, best = 0.0 if f is None else hierarchy.norm(f), BestState(self._merit(f))
        spent, seen = 0.0, 0  # the work of cycles.records[:seen]
        while True:
            try:
                self._measure(iteration, norms, scale)
            except FloatingPointError as error:
                reason, message = Reason.NOT_FINITE, f"after cycle {len(history) - 1}, {error}"
                break
            best.see(iteration.state)
            spent, seen = spent + sum([e.work for e in cycles.records[seen:]]), len(cycles.records)
            work = spent + (cycles.checks + self._merit_work(best.values))
            history.append(_entry(norms, best.values, work, began))
            reason = self._reason(norms, scale, history[-1], iteration, f)
            if reason is None and bound is not None and len(norms) > 1:
                following = next(bound, None)
                reason = Reason.BATCHES if following is None else None
                cycles.hierarchy = following or cycles.hierarchy
            if reason is not None:
                break
            try:
                iteration.advance(schedule, len(norms))
            except FloatingPointError as error:
                if iteration.recover():
                    continue
                reason, message = Reason.NOT_FINITE, f"cycle {len(norms)}, {error}"
                break
            except BreakdownError as error:
                reason, message = Reason.BREAKDOWN, f"iteration {len(norms)}: {error}"
                break
            schedule = repeated
        if isinstance(iteration, KrylovMethod):
            norms[-1] = iteration.settled(norms)
            history[-1] = history[-1]._replace(residual_norm=norms[-1])
            if reason is Reason.BREAKDOWN and is_rounding(*self._standing(iteration, norms, f)):
                reason, message = Reason.ROUNDING, ""
        value, rounded = iteration.state(), reason is Reason.ROUNDING
        return Solution(
            _shaped(value if reason.converged else best.state(value), shape),
            reason,
            tuple(history),
            sum([e.work for e in cycles.records]) + (cycles.checks + self._merit_work(best.values)),
            time.perf_counter() - began,
            cycles.memory,
            tuple(cycles.records),
            message or ("" if reason.converged or rounded else iteration.advice),
            cycles.last_cycle,
            hierarchy.norm,
            iteration.restarts,
            hierarchy.dot,
            projected=projected,
            acceleration=self.acceleration,
        )

    def _measure(
        self, iteration: FixedPoint | KrylovMethod, norms: list[float], scale: float
    ) -> None:
        """Append the residual norm, computed from the state if the solve ends there."""
        iteration.measure(norms)
        ends = self._limit(norms, scale) not in (None, Reason.NOT_FINITE)
        if ends and isinstance(iteration, KrylovMethod):
            iteration.confirm(norms)

    def _standing(
        self, iteration: FixedPoint | KrylovMethod, norms: list[float], f: State | None
    ) -> tuple[list[float], Level, Callable[[State], float], State, State | None]:
        """Arguments of the functions in `mgnet.rounding` for the current state."""
        return norms, self.hierarchy[0], self.hierarchy.norm, iteration.state(), f

    def _merit_work(self, values: list[float]) -> float:
        """The work of evaluating these values: one unit each, but none for a user's function."""
        return 0.0 if self.merit is not None else float(len(values))

    def _bound(self, u: State) -> tuple[Hierarchy, Iterator[Hierarchy] | None]:
        """The hierarchy of the first cycle and, with batches, an iterator over the others."""
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
                "Solver.solve got no batches; give an iterable with at least one, and a new one "
                "for every solve"
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
        self,
        norms: list[float],
        scale: float,
        entry: CycleRecord,
        iteration: FixedPoint | KrylovMethod,
        f: State | None,
    ) -> Reason | None:
        """The reason to stop, or None; the monitor is called in any case."""
        reason = self._limit(norms, scale)
        if reason is Reason.MAX_CYCLES and self.batches is None:
            stands = stands_at_rounding(*self._standing(iteration, norms, f))
            reason = Reason.ROUNDING if stands else reason
        if reason is None and entry.seconds >= self.seconds:
            reason = Reason.SECONDS
        if self.monitor is not None and ends("Solver", self.monitor, entry, iteration.state()):
            return reason or Reason.MONITOR
        return reason

    def _limit(self, norms: list[float], scale: float) -> Reason | None:
        """The tolerance that these residual norms have met, or None; `scale` is the norm of f."""
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
        """One cycle from a zero start as a SciPy LinearOperator, for `cg(A, b, M=...)`.

        It is symmetric, as cg requires, if post-smoothing mirrors pre-smoothing. The setup is kept
        between calls. The operator works in the precision of the matrix of level 0, which may be
        complex. Vectors of other precisions are converted, and scaled where they would overflow.

        Raises
        ------
        TypeError, ValueError
            If level 0 has no number of unknowns, or holds a PETSc Mat or a tensor.

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
                "arrays; precondition a KSP with -pc_type python -pc_python_type mgnet.petsc.Cycle"
            )
        if vector.is_tensor(level.matrix):
            raise TypeError(
                "Solver.as_preconditioner got a level 0 with a tensor, but SciPy's vectors are "
                "arrays; give Solver(acceleration=CG()), GMRES() or FGMRES()"
            )
        kind = getattr(level.matrix, "dtype", None)
        # Use the precision of the matrix, which may be complex; an integer matrix counts as
        # float64.
        precise = isinstance(kind, np.dtype) and kind.kind in "fc"
        dtype = np.result_type(kind if precise else float, np.float32)

        def cycle(b: np.ndarray) -> np.ndarray:
            f, exponent = np.asarray(b).ravel(), 0
            kind = np.result_type(dtype, np.complex64) if f.dtype.kind == "c" else dtype
            common = np.result_type(f.dtype, kind)
            # f may be out of the range of the matrix's precision.
            if f.dtype.kind in "fc" and common != kind:
                exponent = binary_exponent(norm(f))
                f = times_power_of_two(f, -exponent)
            f, memory = f.astype(kind, copy=False), memories.get(kind)
            u, memories[kind] = run(self.schedule, self.hierarchy, None, f, memory)
            if self.hierarchy.nullspace is not None:
                u = self.hierarchy.nullspace.remove(u)
            return times_power_of_two(u.astype(common), exponent) if exponent else u

        shape = level.unknowns, level.unknowns
        return spla.LinearOperator(shape, matvec=cycle, dtype=dtype)  # type: ignore


def _check_clocks(seconds: float, u: State) -> None:
    """Raise an error if the processes of a joint solve might stop at different times."""
    processes = u.getComm().getSize() if vector.is_vec(u) else 1
    if processes > 1 and seconds < math.inf:
        raise ValueError(
            f"Solver got seconds {seconds:g} for a Vec over {processes} processes, whose clocks "
            "differ; give max_cycles"
        )


def _shaped(u: State, shape: tuple[int, ...]) -> State:
    """Reshape u; return u itself if it has this shape."""
    return u if vector.state_shape(u) == shape else u.reshape(shape)


def _entry(norms: list[float], values: list[float], work: float, began: float) -> CycleRecord:
    """The record of the current cycle from the last of these norms and values, if there are any."""
    value = values[-1] if values else None
    return CycleRecord(len(norms) - 1, norms[-1], value, work, time.perf_counter() - began)
