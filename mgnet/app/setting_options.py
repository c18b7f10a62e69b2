"""Parse the values of command-line options: names, counts, numbers, and fields of `Settings`."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from mgnet.app.columns.codes import CYCLES
from mgnet.app.data import Settings
from mgnet.app.files.columns import shown

__all__ = ["SETTINGS", "column_names", "counts", "cycles", "finite", "kept"]
__all__ += ["settings_of", "with_settings"]

SETTINGS = "mgnet.settings"  # key under which click keeps them while it parses
MEMBERS = 5  # default number of members of an ensemble
# Options for the training of a single network.
SINGLE = ("hidden", "intervals", "levels", "most_intervals", "starts", "cycle", "optimizer")
SINGLE += ("evaluations", "validation", "roughness")
AT_LEAST_1, LEVELS = click.IntRange(min=1), click.IntRange(1, 64)


def column_names(_context: object, _option: object, text: str | None) -> list[str] | None:
    """Read comma-separated names; quotes protect a comma."""
    if text is None:
        return None
    try:
        names = [name.strip() for name in next(csv.reader([text], strict=True), [])]
    except csv.Error:  # a line end, a quote that is not closed, or an unfinished name
        names = [""]
    if not all(names) or not names:
        raise click.BadParameter(f"got '{shown(text)}'; expected column names with commas between")
    return names


def cycles(_context: object, _option: object, text: str | None) -> list[str]:
    """Read the names of the cycles of dates, and refuse duplicates."""
    names = [] if text is None else [name.strip() for name in text.split(",")]
    if not set(names) <= set(CYCLES) or len(set(names)) < len(names):
        raise click.BadParameter(f"got '{shown(str(text))}'; expected some of {','.join(CYCLES)}")
    return names


def finite(_context: object, _option: object, number: float | None) -> float | None:
    """Check that a number is neither infinite nor NaN."""
    if number is not None and not math.isfinite(number):
        raise click.BadParameter(f"got {number}; expected a finite number")
    return number


Check = Callable[[click.Context, click.Parameter, Any], Any]


def kept(check: Check | None = None) -> Check:
    """A callback for an option that is a field of `Settings`: the value is checked and stored."""

    def keep(context: click.Context, option: click.Parameter, value: Any) -> None:
        value = value if check is None else check(context, option, value)
        if value is not None:
            context.meta.setdefault(SETTINGS, {})[option.name] = value

    return keep


def counts(_context: object, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Read positive integers separated by commas."""
    if text is None:
        return None
    try:
        found = tuple(int(count) for count in text.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        what = "widths" if option.name == "hidden" else "one number, or one for each layer,"
        raise click.BadParameter(f"got '{text}'; expected {what} of at least 1, such as 8 or 8,8")
    return found


_option = partial(click.option, expose_value=False, callback=kept())

OPTIONS = [
    _option(
        "--ensemble",
        type=AT_LEAST_1,
        help="Members that are trained and averaged; 1: a single network, set by the options "
        f"below. Default: {MEMBERS}, or 1 where one of them is given.",
    ),
    _option(
        "--hidden",
        callback=kept(counts),
        default=",".join(map(str, Settings.hidden)),
        show_default=True,
        help="Widths of the hidden layers.",
    ),
    _option(
        "--intervals",
        type=AT_LEAST_1,
        default=Settings.intervals,
        show_default=True,
        help="Spline intervals on the coarsest level.",
    ),
    _option(
        "--degree",
        type=click.IntRange(1, 5),
        default=Settings.degree,
        show_default=True,
        help="Of the splines.",
    ),
    _option(
        "--levels",
        type=LEVELS,
        default=Settings.levels,
        show_default=True,
        help="Levels; each doubles the intervals.",
    ),
    _option(
        "--most-intervals",
        callback=kept(counts),
        help="Largest intervals of each layer, such as '256,16'; default: no limit.",
    ),
    _option(
        "--starts",
        type=AT_LEAST_1,
        help="Networks on the coarsest level; the best continue. Default: 8 for many rows, else 1.",
    ),
    _option(
        "--cycle",
        default=Settings.cycle,
        help="Schedule, such as 'cascade 32,16,8,4'; default: by budget.",
    ),
    _option(
        "--optimizer",
        type=click.Choice(["auto", "lm", "lbfgs", "adam"]),
        default=Settings.optimizer,
        show_default=True,
        help="Method of a sweep; auto: lm for numbers, lbfgs for labels.",
    ),
    _option(
        "--seconds",
        type=click.FloatRange(0.0, min_open=True),
        callback=kept(finite),
        help="Time limit, for an ensemble of all but --compare; for a single network of its "
        f"training, by default {Settings.seconds:g}.",
    ),
    _option(
        "--evaluations",
        type=AT_LEAST_1,
        help="Budget in gradients of the finest network.",
    ),
    _option(
        "--seed",
        type=click.IntRange(min=0),
        default=Settings.seed,
        show_default=True,
        help="Seed of the split and of the initial network.",
    ),
    _option(
        "--held-out",
        type=float,
        default=Settings.held_out,
        show_default=True,
        help="Fraction of rows kept for the test.",
    ),
    _option(
        "--validation",
        type=click.FloatRange(0.0, 1.0, max_open=True),
        default=Settings.validation,
        show_default=True,
        help="Fraction of the training rows that decides when to stop; 0: none.",
    ),
    _option(
        "--roughness",
        type=click.FloatRange(0.0),
        callback=kept(finite),
        default=Settings.roughness,
        show_default=True,
        help="Penalty on the curvature of splines; use more for noisy data.",
    ),
]


def settings_of(context: click.Context, petsc: bool) -> Settings:
    """The settings from a command line.

    Parameters
    ----------
    context : click.Context
        Context of the command.
    petsc : bool
        Whether PETSc options control the training.

    Raises
    ------
    click.UsageError
        If options exclude each other.
    """
    told: dict[str, Any] = dict(context.meta[SETTINGS])
    if {"seconds", "evaluations"} <= told.keys():
        raise click.UsageError("--seconds and --evaluations are two budgets; give one of them")
    typed = ParameterSource.COMMANDLINE
    single = [name for name in SINGLE if context.get_parameter_source(name) == typed]
    members = told.setdefault("ensemble", 1 if single or petsc else MEMBERS)
    if members > 1 and (single or petsc):
        what = f"--{single[0].replace('_', '-')}" if single else "an option -mgnet_..."
        raise click.UsageError(
            f"--ensemble {members} and {what} exclude each other: that option controls the "
            "training of a single network; leave one of them out"
        )
    if members > 1:
        told.setdefault("seconds", math.inf)
    return Settings(**told)


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with an option for each field of `Settings`; the context's `meta` stores them."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command
