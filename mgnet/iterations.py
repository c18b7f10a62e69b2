"""What `Solver` repeats: plain cycles, cycles that Anderson combines, or a Krylov method."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from mgnet import callbacks, vector
from mgnet.anderson import Anderson, Iterates
from mgnet.hierarchy import Hierarchy
from mgnet.history import StepRecord
from mgnet.interpreter import Memory, Outcome, StepData, perform, run
from mgnet.krylov import CG, FGMRES, GMRES, Arnoldi, ConjugateGradients, Equation
from mgnet.schedule import Schedule, Step

__all__ = ["Acceleration", "Cycles", "FixedPoint", "KrylovMethod", "iterate"]

State = Any
Acceleration = Anderson | CG | GMRES | FGMRES
# A residual so many times what the recurrence of GMRES says is no rounding.
DRIFT = 3.0


class Cycles:
    """Performs schedules for one solve, and keeps what they leave.

    Attributes
    ----------
    hierarchy : Hierarchy
        That of the batch at hand.
    f : state or None
    memory : dict
        Of the smoothers.
    records : list of StepRecord
    last : tuple or None
        Schedule, hierarchy, u, f and memory of the last cycle, for `run`.
    checks : float
        Evaluations on level 0 outside of cycles.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import cycle, gallery
    >>> cycles = Cycles(gallery.poisson(7), np.ones(7), {}, None)
    >>> cycles.perform(cycle(3), None, cycles.f, 1).state.shape, len(cycles.records)
    ((7,), 9)
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        f: State | None,
        memory: Memory,
        record: Callable[[Step, StepData], None] | None,
    ):
        self.hierarchy = hierarchy
        self.f = f
        self.memory = memory
        self.record = record
        self.records: list[StepRecord] = []
        self.last: tuple | None = None
        self.checks = 0.0
        self._tested: tuple[State, State] | None = None  # a state, and the residual of its test

    def perform(
        self, schedule: Schedule, u: State | None, f: State | None, number: int, ahead: bool = False
    ) -> Outcome:
        """One schedule from u, logged as the cycle of this number."""
        given = schedule, self.hierarchy, u, f, self.memory
        tested, self._tested = self._tested, None
        if tested is not None and tested[0] is u and f is self.f:  # a sweep begins with it
            self.hierarchy[0].keep_residual(u, f, tested[1])
        told = perform(*given, self.record, None, self.records, number, ahead)
        self.hierarchy[0].keep_residual(None, None, None)
        self.memory = told.memory
        return told

    def residual(self, u: State) -> State:
        """Of the equation at u, counted as a check."""
        return self._counted(lambda level: level.residual_at(u, self.f))

    def product(self, u: State) -> State:
        """A u, counted as a check."""
        return self._counted(lambda level: level.apply(u))

    def norm(self, u: State, residual: State | None = None) -> float:
        """The residual norm, counted as a check, also where the last sweep gave the residual."""
        if residual is None:
            residual = self.residual(u)
            self._tested = (u, residual) if vector.is_vec(u) else None
        else:
            self._counted(lambda level: level.charge(level.residual_work))
        return self.hierarchy.norm(residual)

    def _counted(self, call: Callable[[Any], Any]) -> Any:
        level = self.hierarchy[0]
        before = level.tally[0]
        result = call(level)
        self.checks += level.tally[0] - before
        return result

    @property
    def last_cycle(self) -> Callable[..., Any] | None:
        """Repeats the last cycle with a recorder."""
        return None if self.last is None else partial(run, *self.last)


class FixedPoint:
    """Cycle after cycle, each from what the last one gave, or from Anderson's combination.

    The component of the start in the null space of the hierarchy is kept.

    Parameters
    ----------
    cycles : Cycles
    repeated : Schedule
        Without the opening of a nested one.
    u : state or None
        The start; None stands for zero.
    anderson : Anderson, optional

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import cycle, gallery
    >>> hierarchy = gallery.poisson(7)
    >>> iteration = FixedPoint(Cycles(hierarchy, np.ones(7), {}, None), cycle(3), None)
    >>> norms = []
    >>> iteration.measure(norms)
    >>> iteration.advance(cycle(3), 1)
    >>> iteration.measure(norms)
    >>> norms[1] < norms[0]
    True
    """

    def __init__(
        self,
        cycles: Cycles,
        repeated: Schedule,
        u: State | None,
        anderson: Anderson | None = None,
    ):
        hierarchy = cycles.hierarchy
        self.cycles = cycles
        self.repeated = repeated
        self.value = vector.zeros_like(cycles.f) if u is None else u
        self.residual: State | None = None
        self._given: State | None = u  # a nested schedule starts otherwise from None
        self._start = self.value
        self._nullspace = hierarchy.nullspace
        self._iterates = anderson and Iterates(anderson, hierarchy.dot, hierarchy.norm)

    @property
    def advice(self) -> str:
        """What a solve that has not converged should try."""
        return ""

    @property
    def restarts(self) -> int:
        """Of the acceleration, where the residual norm grew too far."""
        return 0 if self._iterates is None else self._iterates.restarts

    def state(self) -> State:
        """The state so far."""
        return self.value

    def measure(self, norms: list[float]) -> None:
        """Append the residual norm; where it grew too far, that of the state one goes back to."""
        norms.append(self.cycles.norm(self.value, self.residual))
        while self._iterates is not None and self._iterates.refuses(norms):
            self.value = self._iterates.restart()
            norms[-1] = self.cycles.norm(self.value)

    def advance(self, schedule: Schedule, number: int) -> None:
        """Do one cycle."""
        u = self.value if self.cycles.records else self._given
        cycles = self.cycles
        cycles.last = schedule, cycles.hierarchy, u, cycles.f, cycles.memory
        told = cycles.perform(schedule, u, cycles.f, number, ahead=True)
        plain, self.residual = told.state, told.residual
        if self._nullspace is not None:
            plain = self._nullspace.remove(plain, keep=self._start)
        if self._iterates is None or schedule != self.repeated:
            self.value = plain
        else:
            self.value, self.residual = self._iterates.next(self.value, plain), None

    def recover(self) -> bool:
        """Go back to an earlier state after a cycle that was not finite, if there is one."""
        back = None if self._iterates is None else self._iterates.restart()
        if back is None:
            return False
        self.value, self.residual = back, None
        return True


class KrylovMethod:
    """A Krylov method whose preconditioner is the cycle; otherwise as `FixedPoint`.

    The first cycle of a nested schedule is a plain one: its opening starts from the coarsest level.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import cycle, gallery
    >>> hierarchy = gallery.poisson(7)
    >>> iteration = KrylovMethod(Cycles(hierarchy, np.ones(7), {}, None), cycle(3), None, CG())
    >>> norms = []
    >>> iteration.measure(norms)
    >>> iteration.advance(cycle(3), 1)
    >>> iteration.measure(norms)
    >>> norms[1] < norms[0]
    True
    """

    restarts: int = 0

    def __init__(
        self,
        cycles: Cycles,
        repeated: Schedule,
        u: State | None,
        method: CG | GMRES | FGMRES,
    ):
        hierarchy = cycles.hierarchy
        self.cycles = cycles
        self.repeated = repeated
        self._start = vector.zeros_like(cycles.f) if u is None else u
        self._given = u
        self._nullspace = hierarchy.nullspace
        self._number = 0
        equation = Equation(self.cycles.product, self._cycle, hierarchy.dot, hierarchy.norm)
        if isinstance(method, CG):
            self.engine: ConjugateGradients | Arnoldi = ConjugateGradients(equation)
        else:
            self.engine = Arnoldi(equation, method.restart, isinstance(method, FGMRES))
        self._begun = self._exact = False
        self._value = self._start
        self._failure: FloatingPointError | None = None
        self._floor = 0.0  # what rounding leaves of the norm at the last start
        self._foreign = bool({"smoother", "post_smoother"} & set(hierarchy[0].watched))
        self._advice = ""

    @property
    def advice(self) -> str:
        """What a solve that has not converged should try."""
        return self._advice or self.engine.advice

    def _cycle(self, r: State) -> State:
        z = self.cycles.perform(self.repeated, None, r, self._number).state
        if self._nullspace is not None:
            return self._nullspace.remove(z)
        return callbacks.duplicate(z) if self._foreign else z  # it may give one array each time

    def state(self) -> State:
        """The state so far, or the last that is known where a cycle for it is not finite."""
        if self._begun and self._failure is None:
            try:
                self._value = self.engine.state()
            except FloatingPointError as error:
                self._failure = error
        return self._value

    def measure(self, norms: list[float]) -> None:
        """Append the residual norm; that of the recurrence, between two starts."""
        engine = self.engine
        full = self._begun and isinstance(engine, Arnoldi) and engine.full
        # Below rounding the recurrence falls on, but not the residual.
        if not self._begun or full or engine.residual_norm <= self._floor:
            self._begin()
        norms.append(engine.residual_norm)

    def _begin(self) -> None:
        u = self.state()
        if self._failure is not None:
            raise self._failure
        if self._nullspace is not None:
            u = self._nullspace.remove(u, keep=self._start)
        self.engine.begin(u, self.cycles.residual(u))
        self._begun = self._exact = True
        self._value = u
        self._floor = vector.precision_of(u) * self.engine.residual_norm

    def settled(self, norms: list[float]) -> float:
        """The residual norm at the state with which a solve ends, after these norms."""
        return norms[-1] if self._exact else self.cycles.norm(self.state())

    def confirm(self, norms: list[float]) -> None:
        """Replace the norm of the recurrence by that of the residual, and go on from there."""
        if self._exact:
            return
        said = norms[-1]
        self._begin()
        norms[-1] = found = self.engine.residual_norm
        varies = isinstance(self.engine, Arnoldi) and not self.engine.flexible
        if varies and found > DRIFT * said and found > 1e-10 * norms[0]:
            self._advice = (
                f"the residual norm was {found:.1e} where GMRES said {said:.1e}, so the cycle is "
                "not one linear map; take FGMRES()"
            )

    def advance(self, schedule: Schedule, number: int) -> None:
        """Do one iteration."""
        if self._failure is not None:
            raise self._failure
        self._number, cycles, self._exact = number, self.cycles, False
        if schedule != self.repeated:
            u = self._given
            cycles.last = schedule, cycles.hierarchy, u, cycles.f, cycles.memory
            self._value = cycles.perform(schedule, u, cycles.f, number).state
            self._begun = False
            return
        cycles.last = self.repeated, cycles.hierarchy, self._value, cycles.f, cycles.memory
        self.engine.advance()

    def recover(self) -> bool:
        """Nothing is kept that one could go back to."""
        return False


def iterate(
    cycles: Cycles, repeated: Schedule, u: State | None, acceleration: Acceleration | None
) -> FixedPoint | KrylovMethod:
    """What a solve repeats.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import cycle, gallery
    >>> cycles = Cycles(gallery.poisson(7), np.ones(7), {}, None)
    >>> type(iterate(cycles, cycle(3), None, CG())).__name__
    'KrylovMethod'
    """
    if acceleration is None or isinstance(acceleration, Anderson):
        return FixedPoint(cycles, repeated, u, acceleration)
    return KrylovMethod(cycles, repeated, u, acceleration)
