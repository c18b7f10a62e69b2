"""Terminal output of `mgnet fit`: a progress bar, and the result as a table."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table as Grid

from mgnet.app.files.columns import shown

if TYPE_CHECKING:
    from mgnet.app.data import Data, Trained

__all__ = ["progress_bar", "result_table"]

EVERY = 10.0  # seconds between lines if there is no terminal
WIDTH = 120  # if the output is not a terminal
MOST_WIDTH = 10_000
MOST_TARGETS = 3  # targets with a column of their own


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Callable[..., None]]:
    """A bar on stderr with seconds, level and loss; occasional lines if it is not a terminal.

    Parameters
    ----------
    console : rich Console, optional
        Console to write to; stderr by default.

    Yields
    ------
    callable
        Function of `(seconds, budget_fraction, training_loss, level)`.

    Examples
    --------
    >>> with progress_bar() as progress:
    ...     progress(1.0, 0.5, 1e-3, 2)
    """
    console = console or Console(stderr=True, force_terminal=sys.stderr.isatty())
    bar = Progress(
        TextColumn("training"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    told = 0.0
    with bar:
        task = bar.add_task("", total=1.0)

        def progress(seconds: float, fraction: float, loss: float, level: int) -> None:
            nonlocal told
            text = f"{seconds:6.1f} s   level {level}"
            if not math.isnan(loss):
                text += f"   training loss {loss:.3e}"
            if not console.is_terminal and seconds >= told + EVERY:
                told = seconds
                sys.stderr.write(f"mgnet: training,{text}\n")
                sys.stderr.flush()
            bar.update(task, completed=min(fraction, 1.0), description=text)

        yield progress


def result_table(results: Sequence[Trained], data: Data) -> str:
    """The trained models as a table in which a star marks the best held-out error.

    Parameters
    ----------
    results : sequence of Trained
        Models to list.
    data : Data
        Training and held-out rows.

    Examples
    --------
    >>> import numpy as np
    >>> from mgnet.app.columns.targets import Targets
    >>> from mgnet.app.data import Data, Trained
    >>> x, y = np.zeros((2, 1)), np.array([0.0, 4.0])
    >>> data = Data(("T",), Targets(("rho",)), x, y, x[:0], y[:0])
    >>> ours = Trained("KAN", lambda x: x[:, 0], 20, 1.5, 30.0, 1e-4, 4e-4)
    >>> print(result_table([ours], data))
    model   parameters   seconds   work   train MSE   held-out MSE   held-out RMSE, rho
    ───────────────────────────────────────────────────────────────────────────────────
    KAN             20       1.5     30     1.0e-04      4.0e-04 *                 0.04
    """
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    grid.add_column("model", overflow="fold")
    loss, classes = data.loss_name, data.targets.classes
    last = ["held-out accuracy"] if classes else _errors(data)
    for head in ("parameters", "seconds", "work", f"train {loss}", f"held-out {loss}", *last):
        grid.add_column(head, justify="right", no_wrap=True)
    best = min((r.held_loss for r in results if math.isfinite(r.held_loss)), default=math.nan)
    digits = ".4f" if classes else ".1e"
    for r in results:
        star = " *" if r.held_loss == best else "  "
        grid.add_row(
            escape(r.name),
            str(r.parameters),
            f"{r.seconds:.1f}",
            "-" if math.isnan(r.work) else f"{r.work:.4g}",
            f"{r.train_loss:{digits}}",
            f"{r.held_loss:{digits}}{star}",
            *_measures(r, data),
        )
    text = io.StringIO()  # not a terminal, so no escape codes
    console = Console(file=text, width=MOST_WIDTH, force_terminal=False)
    # Wide enough for the whole table.
    console.width = max(WIDTH, Console().width, console.measure(grid).maximum)
    console.print(grid)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _errors(data: Data) -> list[str]:
    between = "\n" if len(data.targets.names) > 1 else " "
    return [
        f"held-out RMSE,{between}{escape(shown(name))}"
        for name in data.targets.names[:MOST_TARGETS]
    ]


def _measures(result: Trained, data: Data) -> list[str]:
    """The accuracy, or the root mean square errors of the first targets."""
    if not data.targets.classes and len(data.targets.names) == 1:
        return [f"{math.sqrt(result.held_loss) * data.deviation[0]:.3g}"]
    if not len(data.y_held):
        return ["-"] * (1 if data.targets.classes else len(_errors(data)))
    own = result.predict(data.x_held), data.y_held, data.weights_held
    if data.targets.classes:
        return [f"{data.accuracy(*own):.4f}"]
    return [f"{value:.3g}" for value in data.root_mean_squares(*own)[:MOST_TARGETS]]
