"""Result of a solve or a training run: value, reason for ending, and where time and work went.

`Solver.solve`, `mgnet.training.train` and `mgnet.training.levenberg_marquardt` all return a
`Solution`. In training, the residual is the gradient of the objective.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from mgnet import vector
from mgnet.diagnosis import Diagnosis, advise
from mgnet.history import CycleRecord, StepRecord
from mgnet.schedule import Step

if TYPE_CHECKING:
    from mgnet.interpreter import StepData

__all__ = ["Corrections", "Reason", "Solution"]

State = Any
Memory = dict[tuple[int, str], Any]


class Reason(Enum):
    """Reason why a solve or a training run ended; `converged` is whether it met a tolerance.

    Examples
    --------
    >>> Reason.RTOL.converged, Reason.MAX_CYCLES.converged
    (True, False)
    """

    RTOL = (
        "the residual norm fell below rtol times the norm of the right-hand side, or times the "
        "first residual norm where that is zero"
    )
    ATOL = "the residual norm fell below atol"
    FTOL = "a step reduced the objective by less than ftol times its value, as requested"
    XTOL = "steps became shorter than xtol times the parameters"
    GTOL = "the residuals became orthogonal to the columns of their Jacobian, to gtol"
    STATIONARY = "no step lowers the objective any more, it is minimal to rounding"
    MAX_CYCLES = (
        "max_cycles were done before a tolerance was met; allow more cycles or improve the smoother"
    )
    ROUNDING = (
        "the residual norm has reached rounding, so it is as small as the precision of the state "
        "allows; use a larger rtol (explain suggests one) or a higher precision"
    )
    BATCHES = "the batches were used up"
    MONITOR = "the monitor asked to end"
    STAGNATES = "the objective hardly falls any more"
    FLAT = (
        "a parameter no longer changes the residuals, so the objective tends to a limit that no "
        "finite parameters reach; start elsewhere, or bound that parameter"
    )
    SECONDS = "the seconds were used up; allow more if objective or residual norm are still falling"
    BREAKDOWN = "the Krylov method around the cycle broke down"
    DIVERGED = (
        "the residual norm grew 1e5-fold; damp the smoother or check the parts (hierarchy.check)"
    )
    NOT_FINITE = "a state or its residual was not finite (NaN or Inf, or its norm overflowed)"

    @property
    def converged(self) -> bool:
        return self in CONVERGED


CONVERGED = {Reason.RTOL, Reason.ATOL, Reason.FTOL, Reason.XTOL, Reason.GTOL, Reason.STATIONARY}


class Corrections(NamedTuple):
    """Counts of accepted, shortened and refused coarse corrections to one level.

    Attributes
    ----------
    full, shortened, refused : int
        Number of corrections added with step length 1, added with another step length, and
        refused, as the line search decided; without a line search, all are full.
    lengths : tuple of float
        Step lengths in order; 0 for a refused correction.

    Examples
    --------
    >>> print(Corrections(3, 1, 2, (1.0, 0.25, 1.0, 0.0, 1.0, 0.0)))
    3 full, 1 shortened, 2 refused
    """

    full: int
    shortened: int
    refused: int
    lengths: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.full} full, {self.shortened} shortened, {self.refused} refused"


@dataclass(frozen=True, eq=False)
class Solution:
    """The result of `Solver.solve`, `train` and `levenberg_marquardt`.

    Attributes
    ----------
    value : state
        The last finite state of level 0, or the best one if the solver has a `merit`. For
        `levenberg_marquardt`, the flat vector of parameters.
    reason : Reason
        Why the solve or the training run ended.
    history : tuple of CycleRecord
        One record before the first cycle and one after each.
    work : float
        Counted work units of all steps, plus one for each residual norm.
    seconds : float
        Wall time of the whole solve.
    memory : dict
        Memory of the smoothers; pass it to the next solve to skip the setup.
    record : tuple of StepRecord
        Records of all steps.
    message : str
        Step and level of a NaN or Inf, or the reason why a Krylov method broke down or does not
        converge; else empty.
    last_cycle : callable or None
        Function that repeats the last cycle with a recorder, for `explain`.
    norm : callable
        Norm of the hierarchy.
    restarts : int
        Number of restarts of the acceleration after too much growth of the residual norm.
    dot : callable
        Inner product of the hierarchy.
    member : int
        Index of the start of `train` that gave the value; 0 is the given network. `history` and
        `record` contain the entries of all starts, each with its own `member`.
    projected : float
        Relative norm, between 0 and 1, of the removed part of the right-hand side, which is outside
        the range of a singular matrix; for hierarchies with a `nullspace`.
    acceleration : Anderson, CG, GMRES, FGMRES or None
        Acceleration of the solver; `explain` does not suggest one that is in use.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import Solver, gallery
    >>> solution = Solver(gallery.poisson(63)).solve(np.ones(63))
    >>> solution.reason.name, len(solution.residual_norms) - 1
    ('RTOL', 12)
    """

    value: State
    reason: Reason
    history: tuple[CycleRecord, ...] = field(repr=False)
    work: float
    seconds: float
    memory: Memory = field(repr=False)
    record: tuple[StepRecord, ...] = field(repr=False)
    message: str = ""
    last_cycle: Callable[[Callable[[Step, StepData], None]], Any] | None = field(
        default=None, repr=False
    )
    norm: Callable[[State], float] = field(default=vector.norm, repr=False)
    restarts: int = 0
    dot: Callable[[State, State], float] = field(default=vector.dot, repr=False)
    member: int = 0
    projected: float = 0.0
    acceleration: Any = field(default=None, repr=False)

    @property
    def residual_norms(self) -> tuple[float, ...]:
        """Residual norms before the first cycle and after each."""
        return tuple(entry.residual_norm for entry in self.history)

    @property
    def values(self) -> tuple[float, ...]:
        """Values of the objective, one per residual norm; empty if it was not evaluated."""
        return tuple(entry.value for entry in self.history if entry.value is not None)

    @property
    def cycles(self) -> int:
        """Number of cycles; the opening of a nested schedule counts as the first."""
        return len(self.history) - 1

    @property
    def factor(self) -> float:
        """Geometric mean of the residual reduction per cycle, dimensionless; nan without cycles."""
        first, last = self.history[0].residual_norm, self.history[-1].residual_norm
        return (last / first) ** (1.0 / self.cycles) if self.cycles and first > 0.0 else math.nan

    @property
    def corrections(self) -> dict[int, Corrections]:
        """Counts of the coarse corrections to each level, finest first.

        Examples
        --------
        >>> import numpy as np
        >>> from mgnet import Solver, gallery
        >>> solution = Solver(gallery.poisson(7), max_cycles=2).solve(np.ones(7))
        >>> {level: str(told) for level, told in solution.corrections.items()}
        {0: '2 full, 0 shortened, 0 refused', 1: '2 full, 0 shortened, 0 refused'}
        """
        lengths: dict[int, list[float]] = defaultdict(list)
        for entry in self.record:
            if entry.step_length is not None:
                lengths[entry.step.level].append(entry.step_length)
        made = {}
        for level, of_level in sorted(lengths.items()):
            full, refused = of_level.count(1.0), of_level.count(0.0)
            shortened = len(of_level) - full - refused
            made[level] = Corrections(full, shortened, refused, tuple(of_level))
        return made

    def _of_member(self) -> tuple[CycleRecord, ...]:
        """The first entry of the history, and then those of the start that gave the value."""
        own = tuple(entry for entry in self.history[1:] if entry.member == self.member)
        return (self.history[0], *own)

    def require(self) -> Solution:
        """Return this solution, or raise an error if no tolerance was met.

        Raises
        ------
        RuntimeError
            If no tolerance was met; the message gives the reason.
        """
        if not self.reason.converged:
            raise RuntimeError(str(self))
        return self

    def explain(self) -> str:
        """A table: visits, time, work and residual reduction of every step on every level.

        Times and work are those of the solve. Reductions come from a repetition of its last cycle,
        in which the residual norm of the level is computed before and after each step; these
        evaluations are not part of `work`.

        If the solve is slow, text below the table names the level that causes it, the measured
        values, and a remedy.

        Examples
        --------
        >>> import numpy as np
        >>> from mgnet import Solver, gallery
        >>> print(Solver(gallery.poisson(7, levels=2)).solve(np.ones(7)).explain().splitlines()[0])
        level  step    visits  seconds   time     work   work  reduction
        """
        return _explain(self)

    def __str__(self) -> str:
        verdict = "converged" if self.reason.converged else "not converged"
        text = f"{verdict} ({self.reason.name}) after {self.cycles} cycles: "
        own = self._of_member()
        values = tuple(entry.value for entry in own if entry.value is not None)
        if values:
            text += f"objective {_fallen(values)}"
            least = f"{min(values):.3g}"  # that of `value` if `merit` chose the state
            text += ", " if least == f"{values[-1]:.3g}" else f" (least {least}), "
        text += f"residual norm {_fallen(tuple(entry.residual_norm for entry in own))}"
        if self.cycles and not values:
            text += f" (factor {self.factor:.3g} per cycle)"
        text += f", {self.work:.4g} work units, {self.seconds:.3g} s"
        if self.projected > 1e-8:
            text += f"; {self.projected:.2g} of the norm of f was projected out"
        return text if self.reason.converged else f"{text}; {self.message or self.reason.value}"


def _fallen(values: tuple[float, ...]) -> str:
    """Text such as "0.5 from 2"."""
    return f"{values[-1]:.3g}" + (f" from {values[0]:.3g}" if len(values) > 1 else "")


def _explain(solution: Solution) -> str:
    visits: dict[tuple[int, str], int] = defaultdict(int)
    seconds: dict[tuple[int, str], float] = defaultdict(float)
    work: dict[tuple[int, str], float] = defaultdict(float)
    for entry in solution.record:
        key = (entry.step.level, entry.step.action)
        visits[key] += 1
        seconds[key] += entry.seconds
        work[key] += entry.work
    diagnosis, corrections = Diagnosis(solution), solution.corrections
    order = ("start", "interpolate", "pre", "down", "solve", "up", "post")
    keys = sorted(visits, key=lambda key: (key[0], order.index(key[1])))
    rows = []
    for key in keys:
        logs = diagnosis.logs.get(key)
        factor = f"{math.exp(sum(logs) / len(logs)):.3f}" if logs else "-"
        if key[1] == "up" and corrections[key[0]].full < visits[key]:
            factor += f" ({corrections[key[0]]})"
        rows.append((str(key[0]), key[1], visits[key], seconds[key], work[key], factor))
    rest = (solution.seconds - sum(seconds.values()), solution.work - sum(work.values()))
    rows.append(("", "checks", solution.cycles + 1, *rest, "-"))
    lines = ["level  step    visits  seconds   time     work   work  reduction"]
    for level, action, count, time, units, factor in rows:
        time_share = 100.0 * time / solution.seconds if solution.seconds else 0.0
        work_share = 100.0 * units / solution.work if solution.work else 0.0
        lines.append(
            f"{level:>5}  {action[:6]:<6}  {count:>6}  {time:>7.3g}  {time_share:>4.0f}%  "
            f"{units:>7.4g}  {work_share:>4.0f}%  {factor}"
        )
    lines.append(
        f"total  {solution.cycles} cycles{solution.seconds:>13.3g}  {solution.work:>15.4g}"
    )
    lines.append(
        "reduction: residual norm after / before, geometric mean over the visits of one cycle"
    )
    if solution.restarts:
        lines.append(f"the acceleration restarted {solution.restarts} times")
    return "\n".join([*lines, *advise(solution, diagnosis)])
