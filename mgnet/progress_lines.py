"""A monitor that prints the progress of a solve or a training run, one line every few seconds."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from mgnet.history import CycleRecord
from mgnet.limits import is_number, shown

__all__ = ["ProgressLines"]


class ProgressLines:
    """A monitor for `Solver`, `train` and `levenberg_marquardt` that prints a line now and then.

    The line shows the cycle, the objective (if it is evaluated), the residual norm and the seconds;
    in training the residual is the gradient of the objective. The start, every new level and every
    further start of a tournament also have a line; start 0 is not numbered. To see the result,
    print the `Solution`.

    Parameters
    ----------
    every : float
        Seconds between two lines; 0 writes a line after every cycle.
    file : text stream, optional
        Stream to write to; by default, the current standard error when a line is written.

    Raises
    ------
    TypeError, ValueError
        If the file is not a text stream or `every` is negative.

    Examples
    --------
    >>> import sys
    >>> import numpy as np
    >>> from mgnet import Solver, gallery
    >>> progress = ProgressLines(every=0.0, file=sys.stdout)
    >>> _ = Solver(gallery.poisson(63), max_cycles=2, monitor=progress).solve(np.ones(63))
    cycle 0: residual norm 7.94e+00, ... s
    cycle 1: residual norm 2.87e+00, ... s
    cycle 2: residual norm 6.01e-01, ... s
    """

    def __init__(self, every: float = 10.0, file: TextIO | None = None):
        if not is_number(every, 0.0):
            raise ValueError(f"ProgressLines got every {shown(every)}; it must not be negative")
        if file is not None and not hasattr(file, "write"):
            raise TypeError(
                f"ProgressLines got a file of type {type(file).__name__}; give a text stream, such "
                "as sys.stdout"
            )
        self.every = every
        self.file = file
        self._last: CycleRecord | None = None

    def __call__(self, entry: CycleRecord, state: Any = None) -> None:
        """Write the line of an entry if enough time has passed."""
        last = self._last
        places = last and (entry.level, entry.member) != (last.level, last.member)
        new = last is None or entry.cycle == 0 or places
        if not new and entry.seconds < last.seconds + self.every:  # type: ignore[union-attr]
            return
        self._last = entry
        stream = sys.stderr if self.file is None else self.file
        stream.write(f"{_line(entry)}\n")
        stream.flush()


def _line(entry: CycleRecord) -> str:
    level = f", level {entry.level}" if entry.level else ""
    level += f", start {entry.member}" if entry.member else ""
    objective = "" if entry.value is None else f"objective {entry.value:.2e}, "
    return (
        f"cycle {entry.cycle}{level}: {objective}residual norm {entry.residual_norm:.2e}, "
        f"{entry.seconds:.1f} s"
    )
