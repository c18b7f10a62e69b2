"""Where the time of a solve went, and which part reduces the residual: the text of `Solution.explain`."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from mgnet import vector

if TYPE_CHECKING:
    from mgnet.schedule import Step
    from mgnet.solver import Solution, StepData

__all__ = ["explain"]


def explain(solution: Solution) -> str:
    """The table of `Solution.explain`; see there.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet import Solver, gallery
    >>> print(explain(Solver(gallery.poisson(7, levels=2)).solve(np.ones(7))).splitlines()[-1])
    reduction: residual norm after / before, geometric mean over the visits of one cycle
    """
    visits: dict[tuple[int, str], int] = defaultdict(int)
    seconds: dict[tuple[int, str], float] = defaultdict(float)
    work: dict[tuple[int, str], float] = defaultdict(float)
    refused: dict[tuple[int, str], int] = defaultdict(int)
    for entry in solution.record:
        key = (entry.step.level, entry.step.action)
        visits[key] += 1
        seconds[key] += entry.seconds
        work[key] += entry.work
        refused[key] += entry.step_length == 0.0
    factors = _reductions(solution)
    order = ("start", "interpolate", "pre", "down", "solve", "up", "post")
    keys = sorted(visits, key=lambda key: (key[0], order.index(key[1])))
    rows = []
    for key in keys:
        logs = factors.get(key)
        factor = f"{math.exp(sum(logs) / len(logs)):.3f}" if logs else "-"
        if refused[key]:
            factor += f" ({refused[key]} refused)"
        rows.append((str(key[0]), key[1], visits[key], seconds[key], work[key], factor))
    rest = (solution.seconds - sum(seconds.values()), solution.work - sum(work.values()))
    rows.append(("", "checks", solution.cycles + 1, *rest, "-"))
    lines = ["level  step    visits  seconds   time     work   work  reduction"]
    for level, action, count, time, units, factor in rows:
        time_share = 100.0 * time / solution.seconds if solution.seconds else 0.0
        work_share = 100.0 * units / solution.work if solution.work else 0.0
        lines.append(
            f"{level:>5}  {action[:6]:<6}  {count:>6}  {time:>7.3g}  {time_share:>4.0f}%  {units:>7.4g}  {work_share:>4.0f}%  {factor}"
        )
    lines.append(f"total  {solution.cycles} cycles{solution.seconds:>13.3g}  {solution.work:>15.4g}")
    lines.append("reduction: residual norm after / before, geometric mean over the visits of one cycle")
    return "\n".join(lines)


def _reductions(solution: Solution) -> dict[tuple[int, str], list[float]]:
    """Logarithms of the residual reduction of each step of the last cycle, by level and action."""
    logs: dict[tuple[int, str], list[float]] = defaultdict(list)
    norms: dict[int, float] = {}  # of each level, after the step before

    def measure(step: Step, data: StepData) -> None:
        level = step.level + (step.action == "down")
        after = vector.norm(data.level.residual_at(data.state, data.rhs))
        before = norms.get(level, 0.0)
        if step.action in ("pre", "post", "solve", "up") and before > 0.0 and after > 0.0:
            logs[step.level, step.action].append(math.log(after / before))
        norms[level] = after

    if solution.last_cycle is not None:
        norms[0] = solution.residual_norms[-2]
        solution.last_cycle(measure)
    return logs
