"""The propagator calls of a plan: counted first, then recorded one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mgnet.depth.mgrit.layer_hierarchy import layer_levels, mgrit, relaxation_words
from mgnet.depth.mgrit.newton import newton_of
from mgnet.hierarchy import Hierarchy
from mgnet.interpreter import run
from mgnet.limits import shown
from mgnet.schedule import Schedule

__all__ = ["Call", "check_calls", "plan_calls"]

# A plan loops over its calls; this many take seconds, as does a state of ten million numbers.
MOST_CALLS, MOST_LAYERS = 300_000, 10**7


class Call(NamedTuple):
    """A batched call of the layers `which` of a level, each costing `times` evaluations.

    `sends` states whether each rank sends the result to the rank whose layers follow.
    """

    level: int
    which: slice
    times: int = 1
    sends: bool = True


class _Note:
    """A propagator that records calls without evaluating anything."""

    def __init__(self, jacobian: int, reverse: bool) -> None:
        self.calls: list[Call] = []
        self.jacobian = jacobian
        self.reverse = reverse

    def advance(self, level: int, which: slice, states: np.ndarray) -> np.ndarray:
        self.calls.append(Call(level, which))
        return states

    def linearize(
        self, level: int, which: slice, states: np.ndarray, structure: str
    ) -> tuple[np.ndarray, np.ndarray]:
        # In a forward pass, the step is then tested, by further calls.
        self.calls.append(Call(level, which, 1 + self.jacobian, sends=self.reverse))
        return states, np.ones((*states.shape, 1) if structure == "dense" else states.shape)


def plan_calls(
    layers: int,
    factors: Sequence[int],
    relaxation: Sequence[str],
    text: str,
    count: int,
    record: bool,
    reverse: bool,
    jacobian: int = 1,
) -> list[Call]:
    """The calls of an opening, `count` cycles and the closing sweep: levels and layers.

    Parameters
    ----------
    layers : int
        Number of layers.
    factors : sequence of int
        Coarsening factors; an empty sequence means a serial pass.
    relaxation : sequence of str
        Words of relaxation.
    text : str
        The cycle in the notation of `mgrit`.
    count : int
        Number of cycles.
    record, reverse : bool
        Whether the closing sweep is recorded, and whether the pass runs from right to left.
    jacobian : int
        Cost of a layer's Jacobian in evaluations, in Newton sweeps.

    Returns
    -------
    list of Call
        The calls in order.

    Examples
    --------
    >>> calls = plan_calls(8, (4,), ("F",), "V", 0, record=False, reverse=False)
    >>> [(level, len(range(8)[which])) for level, which, *_ in calls]
    [(0, 2), (0, 2), (0, 2)]
    """
    note, levels = _Note(jacobian, reverse), len(factors) + 1
    words = relaxation if factors else ("F",)
    made = layer_levels(layers, (1,), factors, words, reverse=reverse, finest=newton_of(text))
    hierarchy = Hierarchy(made)
    for level in made:
        level.operator.pose(note, np.zeros(1))
    if not factors:
        hierarchy[0].operator.march(None)
        return note.calls
    opening, cycle = mgrit(levels, text)
    u = np.zeros((layers + 1, 1))
    for schedule in ([] if opening is None else [opening]) + [cycle] * count:
        u, _ = run(schedule, hierarchy, u, None)
    equation = hierarchy[0].operator
    if reverse and count and newton_of(text) is not None:  # the residual after the last sweep
        equation.residual(u, None)
        equation.pose(note, np.zeros(1))
    u = equation.relax(u, None)
    if record:
        equation.arrivals(u, None)
    return note.calls


def check_calls(
    sizes: Sequence[int],
    factors: Sequence[int],
    relaxation: Sequence[str],
    text: str,
    cycles: Sequence[int | None],
    ranks: int,
) -> None:
    """Refuse a plan that would take minutes, by counting its calls before they are recorded.

    Parameters
    ----------
    sizes, factors : sequence of int
        Sizes of the levels, and the factors between them.
    relaxation, text, cycles, ranks
        The arguments of `plan`.

    Raises
    ------
    ValueError
        If there are too many layers or calls.

    Examples
    --------
    >>> check_calls((64, 16), (4,), ("F",), "V", (1, 1), 4)
    """
    letters = max(map(len, relaxation_words(relaxation, len(factors))))
    opening, cycle = mgrit(len(sizes), text)

    def calls(schedule: Schedule | None) -> int:
        """A lower bound on the number of calls: each F-relaxation has one per offset plus one."""
        counted = 0
        for _, level, _ in schedule or ():
            coarsest = level == len(factors)
            if newton_of(text) is not None and not level:
                counted += 2 * factors[0] if factors else 1
                continue
            counted += (
                sizes[-1] if coarsest else (1 + letters) * (min(factors[level], sizes[level]) + 1)
            )
        return counted

    closing = (
        (5 if newton_of(text) is not None else 3) * (min(factors[0], sizes[0]) + 1)
        if factors
        else 0
    )
    total = sum(
        sizes[0]
        if count is None or not factors
        else calls(opening) + count * calls(cycle) + closing
        for count in cycles
    )
    crossed = total * min(ranks, sizes[-1])  # each call is examined for every rank
    if sizes[0] > MOST_LAYERS or total > MOST_CALLS or crossed > 1000 * MOST_CALLS:
        told = shown(total).removeprefix("about ")
        raise ValueError(
            f"plan got {shown(sizes[0])} layers and about {told} calls on "
            f"{shown(ranks)} ranks; at most {MOST_LAYERS} layers, {MOST_CALLS} calls, and "
            f"{1000 * MOST_CALLS} calls times ranks are counted: more levels or a larger "
            "coarsening shorten the march over the coarsest level"
        )
