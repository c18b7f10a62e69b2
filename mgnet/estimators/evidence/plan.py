"""Sizes of the models of an ensemble, and their work, which is counted rather than timed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mgnet.estimators.evidence.systems import work_of_block_step, work_of_step

__all__ = ["EXAMPLES", "Plan", "Sizes", "plan_of"]

WORK, WORK_PER_ROW = 2e10, 2e5  # multiplications of all members on one level, a few seconds
STEPS, STEPS_LINEAR, STEPS_FINER = 25, 30, 8
UNITS_OF_BLOCKS = 8
EXAMPLES = 10  # rows per parameter for the first steps
MOST_INTERVALS, MOST_UNITS = 256, 32
LEVELS = 8
LARGE = 10**30  # a size that is refused later; larger ones overflow a double
FEWEST_ROWS = 2000  # rows to which wide tables are reduced before models are made smaller
# If the work exceeds this multiple, for example with many classes, fewer rows are used at the end.
MUCH, FEWEST = 100.0, 300


class Sizes(NamedTuple):
    """Sizes of the models on one level.

    Attributes
    ----------
    additive, first, second : int
        Intervals of additive models, and of the first and second layers of hidden-layer models.
    units : int
        Units of the hidden layer.
    modes : int
        Largest number of modes for each input of an additive model; a hidden-layer model has half
        as many.
    """

    additive: int
    first: int
    second: int
    units: int
    modes: int


@dataclass(frozen=True)
class Plan:
    """Sizes of the models, and limits on the work.

    Attributes
    ----------
    folds : int
        Number of folds.
    sizes : Sizes
        Sizes on the coarsest level.
    degree : int
        Degree of the splines.
    levels : int
        Largest number of levels.
    rows : int
        Largest number of rows on which the largest models are trained.
    work : float
        Limit on the multiplications on one level.
    most_steps : int
        Limit on the steps of any model on any level.
    blocks : bool
        Whether steps avoid a matrix over all parameters, as is necessary for many classes.
    """

    folds: int
    sizes: Sizes
    degree: int
    levels: int
    rows: int
    work: float
    most_steps: int = STEPS_LINEAR
    blocks: bool = False

    def steps(self, hidden: bool, begun: bool) -> int:
        """Limit on the steps of a model; it is lower if an earlier model gives its parameters."""
        steps = (STEPS_FINER if begun else STEPS) if hidden else STEPS_LINEAR
        return min(steps, self.most_steps)

    def allows(self, sizes: Sizes, inputs: np.ndarray, rows: int, outputs: int) -> bool:
        """Whether models of these sizes are within the limits, given numbers of distinct values."""
        if max(sizes[:3]) > MOST_INTERVALS or sizes.units > MOST_UNITS:
            return False
        return _work(self, sizes, 0, inputs, rows, outputs) <= self.work

    def parameters(self, inputs: np.ndarray, outputs: int) -> int:
        """Number of parameters of the network of all members on the coarsest level."""
        units = self.folds * self.sizes.units + outputs
        first = len(inputs) * (max(self.sizes[:2]) + self.degree)
        return units * (first + outputs * (self.sizes.second + self.degree))

    def numbers(self, inputs: np.ndarray, rows: int, outputs: int) -> int:
        """Number of entries of the largest matrix of a step on the coarsest level."""
        if self.blocks:
            return min(rows, self.rows) * (
                len(inputs) * self.sizes.modes + self.sizes.units * outputs
            )
        _, wide, hidden = _counts(self, self.sizes, inputs, outputs)
        seen = min(rows, self.rows) * outputs
        return max(int(size) * min(int(size), seen) for size in (hidden, wide * outputs))


def _counts(
    plan: Plan, sizes: Sizes, inputs: np.ndarray, outputs: int
) -> tuple[float, float, float]:
    """Columns of a hidden-layer model and of an additive model; parameters of the former."""
    largest = int(inputs.max(initial=0))  # larger limits change nothing and may not fit an int64
    few, wide = (
        np.minimum(inputs - 1, min(most, intervals + plan.degree - 1, largest)).sum()
        for most, intervals in ((sizes.modes // 2, sizes.first), (sizes.modes, sizes.additive))
    )
    hidden = sizes.units * (few + (sizes.second + plan.degree) * outputs) + len(inputs) * outputs
    return few, wide, hidden


def _work(
    plan: Plan, sizes: Sizes, first: int, inputs: np.ndarray, rows: int, outputs: int
) -> float:
    """Approximate number of multiplications on a level, after `first` steps on few rows."""
    seen = min(rows, plan.rows) * (plan.folds - 1.0) / plan.folds * outputs
    few, wide, hidden = _counts(plan, sizes, inputs, outputs)

    def of_hidden(seen: float) -> float:
        if not plan.blocks:
            return work_of_step(seen, hidden)
        behind = sizes.units * (sizes.second + plan.degree) + len(inputs)
        return work_of_block_step(seen / outputs, [few] * sizes.units + [behind] * outputs)

    def of_sum(columns: float) -> float:
        if not plan.blocks:
            return work_of_step(seen, columns * outputs)
        return work_of_block_step(seen / outputs, [columns] * outputs)

    parts = (
        first * of_hidden(min(seen, EXAMPLES * hidden)),
        STEPS_FINER * of_hidden(seen),
        STEPS_LINEAR / 2 * of_sum(wide),
        STEPS_LINEAR / 4 * of_sum(len(inputs)),
    )
    return plan.folds * sum(parts)


def plan_of(
    values: np.ndarray,
    rows: int,
    outputs: int,
    folds: int = 5,
    degree: int = 3,
    units: int | None = None,
    intervals: int | None = None,
    levels: int | None = None,
    most_steps: int = STEPS_LINEAR,
) -> Plan:
    """Choose sizes for a table so that the work stays within limits.

    Parameters
    ----------
    values : array of int of shape (inputs,)
        Number of distinct values of each input.
    rows : int
        Number of rows.
    outputs : int
        Number of outputs of the likelihood.
    folds, degree : int
        Number of folds, and degree of the splines.
    units, intervals, levels : int, optional
        Sizes that the user requested.
    most_steps : int
        Limit on the steps of any model.

    Examples
    --------
    >>> plan_of(np.array([100, 2]), 100, 1).sizes
    Sizes(additive=8, first=4, second=4, units=4, modes=12)
    """
    first = 4 if intervals is None else min(intervals, LARGE)
    units = None if units is None else min(units, LARGE)
    sizes = Sizes(2 * first, first, first, units or 4, 2 * (first + degree - 1))
    work = outputs * (WORK + WORK_PER_ROW * rows)
    folds, levels = min(folds, max(2, rows // 3)), levels or LEVELS
    plan = Plan(folds, sizes, degree, levels, rows, work, most_steps)
    if outputs > 1 and _work(plan, sizes, STEPS, values, rows, outputs) > work:
        more = sizes._replace(units=units or UNITS_OF_BLOCKS)
        plan = replace(plan, sizes=more, blocks=True)
    while True:  # for wide or long tables, fewer modes, units and rows
        sizes = plan.sizes
        too_much = _work(plan, sizes, STEPS, values, rows, outputs) / work
        if too_much <= 1.0:
            return plan
        if sizes.modes > 2 and (len(values) > 50 or plan.blocks):
            sizes = sizes._replace(modes=max(2, sizes.modes // 2))
        elif plan.rows > FEWEST_ROWS:
            plan = replace(plan, rows=max(FEWEST_ROWS, plan.rows // 2))
        elif sizes.units > 2 and units is None:
            sizes = sizes._replace(units=sizes.units // 2)
        elif plan.folds > 2:
            plan = replace(plan, folds=plan.folds - 1)
        elif sizes.modes > 2 and too_much > MUCH:
            sizes = sizes._replace(modes=max(2, sizes.modes // 2))
        elif plan.rows > FEWEST and too_much > MUCH:
            plan = replace(plan, rows=max(FEWEST, plan.rows // 2))
        else:
            return plan
        plan = replace(plan, sizes=sizes)
