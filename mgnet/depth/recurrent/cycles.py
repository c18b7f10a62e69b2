"""MGRIT over time: the trajectory of a recurrence, or its adjoint, up to a tolerance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgnet.depth.mgrit.c_layers import level_factors
from mgnet.depth.mgrit.communicator import (
    SERIAL_COMMUNICATOR,
    Communicator,
    gathered_norm,
    own_points,
    squares,
)
from mgnet.depth.mgrit.layer_equation import Propagator
from mgnet.depth.mgrit.layer_hierarchy import layer_hierarchy, mgrit, relaxation_words
from mgnet.depth.mgrit.newton import newton_of
from mgnet.depth.mgrit.relaxation import Relaxation
from mgnet.depth.parallel.control import CycleLimit, PassReport, summarize
from mgnet.depth.parallel.history import least_change
from mgnet.depth.recurrent.chaos import LOOKS, falls, refuse_chaos
from mgnet.depth.recurrent.sweeps import newton_sweeps
from mgnet.hierarchy import Hierarchy
from mgnet.interpreter import run
from mgnet.limits import is_whole, shown
from mgnet.schedule import Schedule

__all__ = ["TimeCycles"]


@dataclass(frozen=True)
class TimeCycles:
    """Levels and cycles over time.

    Parameters
    ----------
    levels : int
        Largest number of levels; short sequences have fewer.
    coarsening : int or sequence of int, optional
        Number of steps per step of the next level. By default it is the same on all levels, and the
        coarsest level has as many steps as any other level computes one after another.
    relaxation : str or sequence of str
        Relaxation of each level as a word, such as "FCF", for `layer_hierarchy`.
    cycle : str
        "V", "F" or "W"; or Newton's sweeps on one level, in the notation of `newton_of`.

    Raises
    ------
    ValueError
        If an argument is malformed.
    TypeError
        If `cycle` is not a string.

    Examples
    --------
    >>> TimeCycles(2).factors(900), TimeCycles(3, 4).factors(900), TimeCycles(3, 4).factors(10)
    ((30,), (4, 4), (4,))
    """

    levels: int = 2
    coarsening: int | Sequence[int] | None = None
    relaxation: str | Sequence[str] = ("FCF",)
    cycle: str = "V"

    def __post_init__(self) -> None:
        if not is_whole(self.levels, 1):
            raise ValueError(
                f"TimeParallel got levels = {shown(self.levels)}; give an integer of at least 1"
            )
        if not isinstance(self.cycle, str):
            raise TypeError(
                f"TimeParallel got cycle = {shown(self.cycle)}; give V, F, W, newton, "
                "newton(diagonal) or newton(identity) as text"
            )
        factors = level_factors(self.levels, 2 if self.coarsening is None else self.coarsening)
        for word in relaxation_words(self.relaxation, len(factors)):
            Relaxation(word)
        if newton_of(self.cycle) is None:
            mgrit(self.levels, self.cycle)

    def are_serial(self, steps: int) -> bool:
        """Whether there are so few steps that they are solved one after another, on one level."""
        return not self.factors(steps) and (newton_of(self.cycle) is None or steps < 2)

    def factors(self, steps: int) -> tuple[int, ...]:
        """The coarsening factors for this number of steps; the coarsest level has two or more.

        Parameters
        ----------
        steps : int
            Number of time steps.

        Returns
        -------
        tuple of int
            One factor for each level except the coarsest.
        """
        if newton_of(self.cycle) is not None:
            return ()
        chosen = max(2, round(steps ** (1.0 / self.levels)))
        found = []
        for factor in level_factors(self.levels, self.coarsening or chosen):
            steps = -(-steps // factor)
            if steps < 2:
                break
            found.append(factor)
        return tuple(found)

    def solve(
        self,
        propagator: Propagator,
        steps: int,
        start: Tensor,
        f: Tensor | None,
        limit: CycleLimit,
        communicator: Communicator,
        reverse: bool = False,
        guess: Tensor | None = None,
        total: int | None = None,
    ) -> tuple[Tensor, PassReport, bool]:
        """Solve the layer equation of all steps, at all points.

        Parameters
        ----------
        propagator : Propagator
            The steps.
        steps : int
            Number T of steps of this process.
        start : Tensor of shape (batch, S)
            The value at the start (with `reverse`, at the end), if f is None.
        f : Tensor of shape (T + 1, batch, S), optional
            The right-hand side.
        limit : CycleLimit
            The number of cycles and the tolerance. If cycles do not reach a given tolerance, the
            solution is computed step by step.
        communicator : Communicator
            The processes that share the steps.
        reverse : bool
            Whether the equation runs backward in time.
        guess : Tensor of shape (T + 1, batch, S), optional
            Initial states, instead of a solution on the coarsest level.
        total : int, optional
            Total number of steps of all processes, which determines the levels; T by default.

        Returns
        -------
        (Tensor of shape (T + 1, batch, S), PassReport, bool)
            The solution; the report, whose estimate is that of the relative error at all C-points;
            and whether the cycles reached the tolerance. If they did not, the steps were computed
            one by one.

        Raises
        ------
        ChaoticRecurrenceError
            In a forward solve with a tolerance, if cycles do not converge because errors grow.
        """
        total = steps if total is None else total
        factors, newton = self.factors(total), newton_of(self.cycle)
        hierarchy = layer_hierarchy(
            propagator,
            steps,
            start,
            levels=len(factors) + 1,
            coarsening=factors,
            relaxation=self._words(len(factors)),
            reverse=reverse,
            communicator=communicator,
        )
        if communicator is not SERIAL_COMMUNICATOR:  # norms after each cycle detect problems
            hierarchy = Hierarchy(hierarchy.levels, norm=lambda u: 0.0)
        if self.are_serial(total):
            return hierarchy[0].operator.march(f), PassReport(0, 0.0, 0.0), True
        cycles = _Cycles(hierarchy, communicator, reverse, start.dtype)
        if guess is not None:
            points = guess
        else:
            points = start.expand(steps + 1, *start.shape) if f is None else torch.zeros_like(f)
        try:
            if newton is not None:
                given = points, f, limit, cycles.norm, cycles.rounding
                points, made = newton_sweeps(newton, hierarchy[0], *given)
            else:
                opening, cycle = mgrit(len(hierarchy), f"cascade + {self.cycle}")
                if guess is not None:
                    equation = hierarchy[0].operator
                    points = equation.transfer.interpolate(equation.begun(guess, f))
                elif f is None and opening is not None:
                    points, _ = run(opening, hierarchy, points, None)
                points, made = cycles.take(cycle, points, f, limit)
        except FloatingPointError:
            if not limit.stop:
                raise
            made = PassReport(len(cycles.changes), math.inf, math.inf)
        if not limit.stop or made.estimate <= max(limit.stop, cycles.rounding):
            return points, made, True
        points = hierarchy[0].operator.march(f)
        if f is None and made.estimate == math.inf:  # only exact states can show the reason
            refuse_chaos(hierarchy[0].operator, points)
        return points, made._replace(estimate=0.0), False

    def _words(self, factors: int) -> tuple[str, ...]:
        words = relaxation_words(self.relaxation, self.levels - 1)
        return words[: max(factors, 1)]


class _Cycles:
    """Runs cycles over time and records their history."""

    def __init__(
        self, hierarchy: Hierarchy, communicator: Communicator, reverse: bool, dtype: torch.dtype
    ):
        self.hierarchy = hierarchy
        self.rounding = least_change(dtype)
        self.changes: list[float] = []
        self.norms: list[float] = []
        self._ends = communicator, reverse

    def take(
        self, cycle: Schedule, u: Tensor, f: Tensor | None, limit: CycleLimit
    ) -> tuple[Tensor, PassReport]:
        """The relaxed points after as many cycles as needed, but no more than the limit allows."""
        equation, memory = self.hierarchy[0].operator, None
        inject = equation.transfer.inject
        # The next cycle starts with the results of relaxation and residual, at no extra cost.
        u = equation.relax(u, f)
        self._add_residual(*self._norms_of(equation.residual(u, f)))
        made = self._made(math.nan)
        for _ in range(limit.cycles):
            before, stalled = inject(u), bool(limit.stop) and self._stalled()
            if stalled:
                u = equation.relax_c(u, f, 1.0)
            else:
                u, memory = run(cycle, self.hierarchy, u, f, memory)
            u = equation.relax(u, f)
            residual, after = equation.residual(u, f), inject(u)
            found, size, change = self._norms_of(residual, after, after - before)
            self._add_residual(found)
            size = size or 1.0
            self.changes.append(change / size)
            made = self._made(size)
            if limit.stop and made.estimate <= max(limit.stop, self.rounding):
                break
            if limit.stop and f is None and made.cycles in LOOKS and not falls(self.norms):
                refuse_chaos(equation, u)
            if stalled and self.norms[-1] > 0.9 * self.norms[-2]:
                break
        return u, made

    def _stalled(self) -> bool:
        """Whether coarse corrections are only rounding errors, as happens with large coarse values.

        If so, C-relaxation, which uses only fine steps, replaces the cycles.
        """
        return bool(self.changes) and self.changes[-1] <= self.rounding

    def _made(self, size: float) -> PassReport:
        """A report whose estimate is at least the residual: diverging cycles may change little."""
        made = summarize(self.changes, self.norms, self.rounding)
        return made._replace(estimate=max(self.norms[-1] / size, made.estimate))

    def _add_residual(self, norm: float) -> None:
        if not math.isfinite(norm):  # this happens on all processes together
            raise FloatingPointError("the residual of a cycle over time is not finite")
        self.norms.append(norm)

    def _norms_of(self, *states: Tensor) -> list[float]:
        """Norms of states at the C-points, over all processes, in one message."""
        communicator, reverse = self._ends
        own = [x if communicator.is_first(reverse) else own_points(x, reverse) for x in states]
        return communicator.gather(torch.stack([squares(x) for x in own])).sum(1).sqrt().tolist()

    def norm(self, points: Tensor) -> float:
        """The norm of points, over all processes."""
        communicator, reverse = self._ends
        return gathered_norm(communicator, points, reverse)
