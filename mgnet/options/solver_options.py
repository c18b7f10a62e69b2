"""A `Solver` whose cycle, levels and smoothers come from PETSc's options.

Without petsc4py or without options, the solver is the one that the script specifies.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mgnet import (
    CycleRecord,
    Hierarchy,
    Level,
    Schedule,
    Smoother,
    Solver,
    Step,
    StepData,
    parse,
)
from mgnet.consistency import not_a_hierarchy
from mgnet.iterations import Acceleration
from mgnet.limits import shown
from mgnet.options.log import logged
from mgnet.options.reader import OptionReader, check_names
from mgnet.options.smoother_text import parse_acceleration, parse_smoother

__all__ = ["solver_from_options"]

State = Any
Monitor = Callable[[CycleRecord, State], Any]


def solver_from_options(
    hierarchy: Hierarchy,
    *,
    prefix: str = "",
    cycle: str = "V(1,1)",
    rtol: float = 1e-8,
    atol: float = 0.0,
    max_cycles: int = 50,
    batches: Iterable[Any] | None = None,
    monitor: Monitor | None = None,
    record: Callable[[Step, StepData], None] | None = None,
    merit: Callable[[State], float] | None = None,
    acceleration: Acceleration | None = None,
    seconds: float = math.inf,
) -> Solver:
    """Build the solver that the script specifies, modified by the options of the command line.

    Call `init(sys.argv)` first. The attributes `hierarchy` and `schedule` of the solver include the
    changes made by the options, for scripts that use `run`.

    Parameters
    ----------
    hierarchy : Hierarchy
        The levels, from the finest to the coarsest.
    prefix : str
        Prefix of the option names: with "train_", the options are `-train_mgnet_cycle` and so on.
    cycle, rtol, atol, max_cycles, batches, monitor, record, merit, acceleration, seconds
        The settings of `Solver`, used where no option is given; an option takes precedence.

    Returns
    -------
    Solver
        The solver with the settings of the script and of the options.

    Raises
    ------
    ValueError
        If an `mgnet` option is unknown or has an invalid value.
    TypeError
        If `hierarchy` is not a `Hierarchy`.

    Examples
    --------
    >>> from mgnet import gallery
    >>> solver = solver_from_options(gallery.poisson(7), cycle="F(2,1)")
    >>> len(solver.schedule)
    14
    """
    if not isinstance(hierarchy, Hierarchy):
        raise not_a_hierarchy("solver_from_options", hierarchy)
    check_names()
    values = OptionReader(prefix)
    cycle = values.get("cycle", cycle)
    hierarchy = _hierarchy(hierarchy, values)
    try:
        schedule = parse(cycle, len(hierarchy))
    except ValueError as error:
        given = values.text("mgnet_cycle") is not None
        raise ValueError(f"option {values.shown('cycle')}: {error}" if given else error) from None
    schedule = _with_sweeps(schedule, values, len(hierarchy))
    rtol, atol = values.get("rtol", rtol), values.get("atol", atol)
    max_cycles, seconds = values.get("max_cycles", max_cycles), values.get("seconds", seconds)
    accelerated = values.get("acceleration", acceleration)
    if isinstance(accelerated, str):
        accelerated = parse_acceleration(accelerated, f"option {values.shown('acceleration')}")
    if values.get("monitor", False):
        monitor = partial(_monitor, prefix, monitor)
    view = values.get("view", None)
    values.help()
    told = batches, monitor, record, merit, accelerated, seconds
    solver = Solver(logged(hierarchy), schedule, rtol, atol, max_cycles, *told)
    if view is not None:
        _say(_VIEWS[view](solver, hierarchy, cycle))
    return solver


def _hierarchy(hierarchy: Hierarchy, values: OptionReader) -> Hierarchy:
    """The levels and smoothers that the options specify."""
    count = values.get("levels", len(hierarchy))
    if count > len(hierarchy):
        raise ValueError(
            f"option {values.shown('levels')} got '{shown(count)}'; this hierarchy has "
            f"{len(hierarchy)} levels"
        )
    for level, name in values.levels_named():
        if level >= count:
            given = values.shown(f"levels_{level}_{name}")
            raise ValueError(f"option {given} is for no level; this hierarchy has 0 to {count - 1}")
    parts: list[dict[str, Smoother]] = [{} for _ in range(count)]
    for name in ("smoother", "post_smoother"):
        everywhere = _smoother(values, name, None)
        for level in range(count - 1):
            part = _smoother(values, name, level) or everywhere
            if part is not None:
                parts[level][name] = part
    coarsest = _smoother(values, "coarse_solver", None) or _smoother(values, "smoother", count - 1)
    if coarsest is not None:
        parts[-1]["smoother"] = coarsest
    if count == len(hierarchy) and not any(parts):
        return hierarchy
    return hierarchy.with_levels(lambda levels: _changed(parts, levels))


def _changed(parts: list[dict[str, Smoother]], levels: Sequence[Level]) -> list[Level]:
    kept = list(levels[: len(parts)])
    if len(kept) < len(levels):  # the coarse solver moves up
        last = replace(kept[-1], transfer=None, recenter=None, post_smoother=None)
        kept[-1] = replace(last, smoother=levels[-1].smoother)
    return [_with_parts(level, parts[number:]) for number, level in enumerate(kept)]


def _with_parts(level: Level, parts: Sequence[dict[str, Smoother]]) -> Level:
    """The level with the first of these parts; the rest are for coarse levels from `recenter`."""
    before = parts[0].get("smoother")
    after = parts[0].get("post_smoother", None if before else level.post_smoother)
    recenter = level.recenter
    return replace(
        level,
        smoother=before or level.smoother,
        post_smoother=after,
        recenter=(
            (lambda u: _with_parts(recenter(u), parts[1:])) if recenter and parts[1:] else recenter
        ),
    )


def _smoother(values: OptionReader, name: str, level: int | None) -> Smoother | None:
    text = values.get(name, None, level)
    given = values.shown(name if level is None else f"levels_{level}_{name}")
    return None if text is None else parse_smoother(text, f"option {given}")


def _with_sweeps(schedule: Schedule, values: OptionReader, levels: int) -> Schedule:
    """The schedule with the numbers of sweeps that the options specify."""
    everywhere = values.get("sweeps", None)
    of_level = [values.get("sweeps", None, level) for level in range(levels)]
    steps = []
    for step in schedule:
        count = of_level[step.level]
        if step.action in ("pre", "post"):
            count = count or everywhere
        elif step.action != "solve":
            count = None
        steps.append(step._replace(count=count or step.count))
    return Schedule(steps)


def _monitor(prefix: str, others: Monitor | None, entry: CycleRecord, state: State) -> Any:
    if entry.cycle == 0 and prefix:
        _say(f"  Residual norms for {prefix} solve.")
    _say(f"{entry.cycle:3d} mgnet Residual norm {entry.residual_norm:14.12e}")
    return None if others is None else others(entry, state)


def _say(text: str) -> None:
    sys.modules["petsc4py.PETSc"].Sys.Print(text)  # on one rank


def _ascii(solver: Solver, hierarchy: Hierarchy, cycle: str) -> str:
    lines = [
        "mgnet Solver Object:",
        f"  cycle: {cycle}",
        f"  maximum cycles={solver.max_cycles}",
        f"  tolerances: relative={solver.rtol:g}, absolute={solver.atol:g}",
        f"  levels={len(hierarchy)}, 0 is the finest",
    ]
    if solver.seconds < math.inf:
        lines.append(f"  maximum seconds={solver.seconds:g}")
    if solver.acceleration is not None:
        lines.append(f"  acceleration: {solver.acceleration}")
    for number, level in enumerate(hierarchy):
        lines.append(f"  level {number}: unknowns={level.unknowns or 'not known'}")
        lines.append(f"    smoother: {level.smoother}")
        if level.post_smoother is not None:
            lines.append(f"    post-smoother: {level.post_smoother}")
        if level.transfer is not None:
            lines.append(f"    transfer: {level.transfer}")
    return "\n".join(lines)


def _json(solver: Solver, hierarchy: Hierarchy, cycle: str) -> str:
    levels = [
        {
            "unknowns": level.unknowns,
            "smoother": str(level.smoother),
            "post_smoother": None if level.post_smoother is None else str(level.post_smoother),
            "transfer": None if level.transfer is None else str(level.transfer),
        }
        for level in hierarchy
    ]
    told = {"cycle": cycle, "steps": solver.schedule.text, "levels": levels}
    limits = {"rtol": solver.rtol, "atol": solver.atol, "max_cycles": solver.max_cycles}
    limits["seconds"] = solver.seconds if solver.seconds < math.inf else None  # no inf in JSON
    how = {"acceleration": None if solver.acceleration is None else str(solver.acceleration)}
    return json.dumps(told | limits | how)


def _table(solver: Solver, hierarchy: Hierarchy, cycle: str) -> str:
    return f"{hierarchy}\n\ncycle {cycle}\n{solver.schedule}"


_VIEWS: dict[str, Callable[[Solver, Hierarchy, str], str]] = {
    "table": _table,
    "ascii": _ascii,
    "json": _json,
}
