"""The course of `mgnet fit` after parsing: train, show, compare, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mgnet.app import fit as job
from mgnet.app.fit import Data, Settings, Trained
from mgnet.app.folder import filled
from mgnet.app.screen import progress_bar, result_table
from mgnet.app.table import Table, split

__all__ = ["Order", "carry_out", "parameters"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What to fit, how, and where the result goes.

    Attributes
    ----------
    table : Table
    settings : Settings
    out : Path
        Output folder, checked before.
    compare : bool
        Whether other methods are trained for as long.
    """

    table: Table
    settings: Settings
    out: Path
    compare: bool = False


def parameters(inputs: int, settings: Settings) -> int:
    """Number of parameters of the finest network.

    Parameters
    ----------
    inputs : int
    settings : Settings

    Examples
    --------
    >>> parameters(2, Settings(hidden=(8,), intervals=4, degree=3, levels=4))
    840
    """
    widths = (inputs, *settings.hidden, 1)
    intervals = settings.intervals * 2 ** (settings.levels - 1)
    return sum(a * b for a, b in pairwise(widths)) * (intervals + settings.degree)


def carry_out(order: Order, say: Say, show: Say) -> bool:
    """Train, show and write; return whether Ctrl-C ended it early.

    The best model so far is written then. Without a model nothing is written, and KeyboardInterrupt
    goes on.

    Parameters
    ----------
    order : Order
    say : callable
        Takes remarks and warnings.
    show : callable
        Takes results.

    Raises
    ------
    ValueError
        If the settings do not fit the table.
    """
    settings = order.settings
    data = split(order.table, settings.held_out, settings.seed)
    _warn(order.table, data, settings, say)
    with progress_bar() as progress:
        fitted: Any = job.fit(data, settings, progress, lambda h, s: show(f"{h}\n\n{s}\n"))
    ours: Trained = fitted.trained
    interrupted = bool(fitted.interrupted)
    rivals: Sequence[Trained] = ()
    if order.compare and not interrupted:
        try:
            rivals = _compare(data, settings, say)
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted while other methods were trained; they are left out")
    show(result_table([ours, *rivals], data))
    show("(MSE: mean squared error over the variance of the target; work: gradient evaluations)")
    with filled(order.out) as stage:
        fitted.model.save(stage)
        try:
            _report(stage, fitted, rivals, data, settings)
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted while the report was written; only the model is complete")
        names = sorted(file.name for file in stage.iterdir())
    show("\n".join(["", *(f"wrote {order.out / name}" for name in names)]))
    if interrupted:
        say(
            f"interrupted; the best model so far, of training MSE {ours.train_mse:.1e} after "
            f"{ours.seconds:.1f} s, is in {order.out}"
        )
    return interrupted


def _warn(table: Table, data: Data, settings: Settings, say: Say) -> None:
    if table.dropped:
        say(f"{table.dropped} rows with missing values were left out")
    count = parameters(len(data.names), settings)
    if len(data.y) < count:
        say(
            f"warning: {len(data.y)} training rows for {count} parameters; expect a poor held-out "
            "error, or use fewer --levels, --intervals or --hidden"
        )


def _compare(data: Data, settings: Settings, say: Say) -> Sequence[Trained]:
    from mgnet.app.comparison import compare

    return compare(data, settings, say)


def _report(
    stage: Path, fitted: Any, rivals: Sequence[Trained], data: Data, settings: Settings
) -> None:
    from mgnet.app.report import write_report  # pyright: ignore

    write_report(stage, data, settings, [fitted.trained, *rivals])
