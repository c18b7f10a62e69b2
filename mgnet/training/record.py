"""The history of a training run as data: loss against gradient evaluations, work and seconds."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mgnet.interpreter import StepData
from mgnet.level import Level
from mgnet.schedule import Step
from mgnet.training.least_squares.recentred import Recentred
from mgnet.training.loss.objective import Objective

__all__ = ["Record", "Row", "network_of"]


class Row(NamedTuple):
    """One step in a `Record`; evaluations, work and seconds are sums since the first step.

    Attributes
    ----------
    action : str
        Name of the action that the step performed.
    level : int
        Level on which the step ended.
    loss, held_out : float
        Losses after the step; nan on levels that solve for a correction, and if there is no
        objective.
    evaluations : float
        Number of gradient evaluations on all levels.
    work : float
        Work in work units: gradient evaluations of level 0.
    seconds : float
        Wall time spent in the steps.

    Examples
    --------
    >>> Row("post", 0, 0.5, 0.6, 3.0, 3.0, 0.1).loss
    0.5
    """

    action: str
    level: int
    loss: float
    held_out: float
    evaluations: float
    work: float
    seconds: float


class Record:
    """Records the history of a run: pass it to `run` or `Solver` as `record`.

    The cost of evaluating the losses is not included. A step with 50 sweeps gives one row; with
    `schedule.split()` there is one row per sweep. `mgnet.plot.plots.plot_records` draws the record.

    Parameters
    ----------
    held_out : Objective, optional
        The loss on held-out data.
    loss : Objective, optional
        Objective to use instead of the levels' own objectives, for example if these use batches or
        random numbers. Both losses are evaluated for the network of each level.

    Examples
    --------
    >>> from mgnet import Hierarchy, Level, cascade, run
    >>> from mgnet.training import LeastSquares, LevenbergMarquardt
    >>> x = torch.linspace(0, 1, 20, dtype=torch.float64).unsqueeze(1)
    >>> network = torch.nn.Linear(1, 1, dtype=torch.float64)
    >>> problem = LeastSquares(network, (x, 3.0 * x))
    >>> held_out = LeastSquares(network, (x + 1.0, 3.0 * x + 3.0))
    >>> hierarchy = Hierarchy([Level(problem, LevenbergMarquardt(), objective=problem.value)])
    >>> record = Record(held_out)
    >>> u, _ = run(cascade([20]).split(), hierarchy, problem.start(), None, record=record)
    >>> last = record.rows[-1]
    >>> last.action, last.loss < 1e-12, last.held_out < 1e-12
    ('solve', True, True)
    """

    def __init__(self, held_out: Objective | None = None, loss: Objective | None = None):
        self.held_out = held_out
        self.loss = loss
        self.rows: list[Row] = []
        self._bound: dict[tuple[Any, Any], Callable[[Any], float]] = {}

    def __call__(self, step: Step, data: StepData) -> None:
        """Add the row of a step."""
        before = self.rows[-1] if self.rows else Row("", 0, 0.0, 0.0, 0.0, 0.0, 0.0)
        network = network_of(data.level)
        own = data.level.objective
        if self.loss is not None or network is None or own is None:
            loss = self._value(self.loss, network, data.state)
        else:
            loss = float(own(data.state))
        self.rows.append(
            Row(
                step.action,
                step.level + (step.action == "down"),
                loss,
                self._value(self.held_out, network, data.state),
                before.evaluations + data.evaluations,
                before.work + data.work,
                before.seconds + data.seconds,
            )
        )

    def _value(self, objective: Objective | None, network: Any, u: Any) -> float:
        if objective is None or network is None:
            return math.nan
        key = objective, network
        if key not in self._bound:
            self._bound[key] = objective.with_network(network).value
        return self._bound[key](u)

    def table(self) -> np.ndarray:
        """The rows as a structured array; its fields are those of `Row`."""
        kinds = [("action", "U11"), ("level", int)]
        kinds += [(name, float) for name in Row._fields[2:]]
        return np.array(self.rows, dtype=kinds)

    def to_csv(self, path: str | Path) -> None:
        """Write the rows as CSV, with a header line."""
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Row._fields)
            writer.writerows(self.rows)

    def read_csv(self, path: str | Path) -> None:
        """Insert rows from `to_csv` before the present rows, for a run that was resumed.

        Raises
        ------
        ValueError
            If the file is not such a table.
        """
        with open(path, encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
        try:
            if tuple(lines[0]) != Row._fields:
                raise ValueError("other columns")
            rows = [Row(line[0], int(line[1]), *map(float, line[2:])) for line in lines[1:]]
        except (IndexError, TypeError, ValueError):
            raise ValueError(
                f"{path} is not a record: its columns must be {', '.join(Row._fields)}, as to_csv "
                "writes them"
            ) from None
        self.rows[:0] = rows


def network_of(level: Level) -> torch.nn.Module | None:
    """The network whose parameters a state of this level contains; None if it is a correction."""
    problem = level.operator
    if isinstance(problem, Objective) and not isinstance(problem, Recentred):
        return problem.network
    return None
