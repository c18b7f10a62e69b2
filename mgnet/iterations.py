"""The iterations that `Solver` repeats: plain cycles, Anderson acceleration, or a Krylov method."""

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
# A residual that exceeds the norm from the recurrence of GMRES by this factor is not rounding.
DRIFT = 3.0


class Cycles:
    """Runs the schedules of one solve and stores their results.

    Attributes
    ----------
    hierarchy : Hierarchy
        The hierarchy for the current batch.
    f : state or None
        Right-hand side; None stands for zero.
    memory : dict
        Memory of the smoothers.
    records : list of StepRecord
        Records of all steps so far.
    last : tuple or None
        Schedule, hierarchy, u, f and memory of the last cycle, to repeat it with `run`.
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
        # A state and the residual computed to test it.
        self._tested: tuple[State, State] | None = None

    def perform(
        self, schedule: Schedule, u: State | None, f: State | None, number: int, ahead: bool = False
    ) -> Outcome:
        """Run one schedule from u, logged as the cycle with this number."""
        given = schedule, self.hierarchy, u, f, self.memory
        tested, self._tested = self._tested, None
        if tested is not None and tested[0] is u and f is self.f:  # the next sweep begins with it
            self.hierarchy[0].keep_residual(u, f, tested[1])
        told = perform(*given, self.record, None, self.records, number, ahead)
        self.hierarchy[0].keep_residual(None, None, None)
        self.memory = told.memory
        return told

    def residual(self, u: State) -> State:
        """Residual of the equation at u, counted as a check."""
        return self._counted(lambda level: level.residual_at(u, self.f))

    def product(self, u: State) -> State:
        """The product A u, counted as a check."""
        return self._counted(lambda level: level.apply(u))

    def norm(self, u: State, residual: State | None = None) -> float:
        """The residual norm, counted as a check even if the last sweep gave the residual."""
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
        """A function that repeats the last cycle with a recorder."""
        return None if self.last is None else partial(run, *self.last)


class FixedPoint:
    """Repeats the cycle, starting from the last result or from Anderson's combination of results.

    The component of the initial state in the null space of the hierarchy is kept.

    Parameters
    ----------
    cycles : Cycles
        Performs the schedules.
    repeated : Schedule
        The schedule that is repeated, without the opening of a nested schedule.
    u : state or None
        Initial state; None stands for zero.
    anderson : Anderson, optional
        Acceleration; plain cycles without it.

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
        self._given: State | None = u  # with None a nested schedule starts differently
        self._start = self.value
        self._nullspace = hierarchy.nullspace
        self._iterates = anderson and Iterates(anderson, hierarchy.dot, hierarchy.norm)

    @property
    def advice(self) -> str:
        """Suggestion for a solve that has not converged."""
        return ""

    @property
    def restarts(self) -> int:
        """Number of restarts of the acceleration after too much growth of the residual norm."""
        return 0 if self._iterates is None else self._iterates.restarts

    def state(self) -> State:
        """The current state."""
        return self.value

    def measure(self, norms: list[float]) -> None:
        """Append the residual norm; after too much growth, that of the state that is restored."""
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
        """Restore an earlier state, if there is one, after a cycle that was not finite."""
        back = None if self._iterates is None else self._iterates.restart()
        if back is None:
            return False
        self.value, self.residual = back, None
        return True


class KrylovMethod:
    """A Krylov method preconditioned by the cycle; otherwise like `FixedPoint`.

    The first cycle of a nested schedule is a plain one, since its opening starts on the coarsest
    level.

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
        self._floor = 0.0  # the part of the norm at the last restart that is rounding
        self._foreign = bool({"smoother", "post_smoother"} & set(hierarchy[0].watched))
        self._advice = ""

    @property
    def advice(self) -> str:
        """Suggestion for a solve that has not converged."""
        return self._advice or self.engine.advice

    def _cycle(self, r: State) -> State:
        z = self.cycles.perform(self.repeated, None, r, self._number).state
        if self._nullspace is not None:
            return self._nullspace.remove(z)
        # The smoother may return the same array each time.
        return callbacks.duplicate(z) if self._foreign else z

    def state(self) -> State:
        """The current state, or the last finite one if a cycle that computes it is not finite."""
        if self._begun and self._failure is None:
            try:
                self._value = self.engine.state()
            except FloatingPointError as error:
                self._failure = error
        return self._value

    def measure(self, norms: list[float]) -> None:
        """Append the residual norm; between restarts, the norm from the recurrence."""
        engine = self.engine
        full = self._begun and isinstance(engine, Arnoldi) and engine.full
        # Below the rounding level the norm from the recurrence still falls, the residual does not.
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
        """The residual norm of the state that a solve returns, given the norms so far."""
        return norms[-1] if self._exact else self.cycles.norm(self.state())

    def confirm(self, norms: list[float]) -> None:
        """Replace the norm from the recurrence by that of the residual, and continue from there."""
        if self._exact:
            return
        said = norms[-1]
        self._begin()
        norms[-1] = found = self.engine.residual_norm
        varies = isinstance(self.engine, Arnoldi) and not self.engine.flexible
        if varies and found > DRIFT * said and found > 1e-10 * norms[0]:
            self._advice = (
                f"the residual norm was {found:.1e} where GMRES computed {said:.1e}, so the cycle "
                "is not one linear map; use FGMRES()"
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
        """Return False: there is no earlier state to restore."""
        return False


def iterate(
    cycles: Cycles, repeated: Schedule, u: State | None, acceleration: Acceleration | None
) -> FixedPoint | KrylovMethod:
    """The iteration of a solve, depending on its acceleration.

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
