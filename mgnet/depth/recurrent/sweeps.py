"""Newton's sweeps over all time steps up to a tolerance."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from mgnet.depth.mgrit.newton import NewtonSweep
from mgnet.depth.parallel.control import CycleLimit, PassReport, summarize
from mgnet.depth.recurrent.chaos import LOOKS, falls, refuse_chaos
from mgnet.level import Level

__all__ = ["newton_sweeps"]


def newton_sweeps(
    sweep: NewtonSweep,
    level: Level,
    u: Tensor,
    f: Tensor | None,
    limit: CycleLimit,
    norm: Callable[[Tensor], float],
    rounding: float,
) -> tuple[Tensor, PassReport]:
    """Compute all points by as many sweeps as needed, but no more than the limit allows.

    Parameters
    ----------
    sweep : NewtonSweep
        The sweep.
    level : Level
        The level with all steps, whose equation already has its propagator and initial value.
    u : Tensor of shape (T + 1, batch, S)
        Initial states.
    f : Tensor of the same shape, optional
        The right-hand side.
    limit : CycleLimit
        The number of sweeps, and the error estimate at which to stop.
    norm : callable
        Norm of points, over all processes.
    rounding : float
        Smallest relative change that exceeds rounding errors.

    Returns
    -------
    (Tensor, PassReport)
        The states, and the report.

    Raises
    ------
    ChaoticRecurrenceError
        In a forward solve with a tolerance, if sweeps do not converge because errors grow.

    Examples
    --------
    >>> import torch
    >>> from mgnet.depth.mgrit.layer_hierarchy import layer_hierarchy
    >>> from mgnet.depth.recurrent.gru_steps import GRUSteps
    >>> from mgnet.depth.recurrent.propagation import TimeSteps
    >>> steps = TimeSteps(GRUSteps(torch.zeros(3, 1), None), torch.zeros(5, 1, 3), ())
    >>> level = layer_hierarchy(steps, 5, torch.ones(1, 1), levels=1)[0]
    >>> given = torch.ones(6, 1, 1), None, CycleLimit(20, 1e-6), torch.linalg.vector_norm, 1e-7
    >>> points, made = newton_sweeps(NewtonSweep(), level, *given)
    >>> points[-1].item(), made.cycles
    (0.03125, 2)
    """
    equation, memory = level.operator, sweep.start(level, u)
    changes: list[float] = []
    norms: list[float] = []
    made = PassReport(0, math.nan, math.nan)
    for _ in range(limit.cycles):
        before = u
        u, memory = sweep.smooth(level, u, f, 1, memory)
        norms.append(float(norm(equation.last_residual)))
        size = float(norm(u)) or 1.0
        changes.append(float(norm(u - before)) / size)
        made = summarize(changes, norms, rounding)
        if not math.isfinite(norms[-1]):  # such a sequence is linearized again from its start
            made = made._replace(estimate=math.inf)
        asked = max(limit.stop, rounding)
        # Changes are also small if damped sweeps stagnate, so the residual decides.
        if limit.stop and made.estimate <= asked:
            left = float(norm(equation.residual(u, f))) / size
            made = made._replace(estimate=max(left, made.estimate))  # NaN if left is NaN
            if made.estimate <= asked:
                break
        # Norms belong to the states at the start of a sweep.
        if limit.stop and f is None and made.cycles - 1 in LOOKS and not falls(norms):
            refuse_chaos(equation, u)
    return u, made
