"""The cost of one pass: evaluations and messages, in total and on the critical path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mgnet.depth.mgrit.plan_calls import Call

__all__ = ["Cost", "cost_of", "with_gatherings"]


class Cost(NamedTuple):
    """The cost of a pass in one direction, in layer evaluations of that direction and in messages.

    Attributes
    ----------
    evaluations : int
        Total number of evaluations of single layers on all ranks; with `costs`, their total cost.
    critical : int
        Evaluations on the critical path: the largest number on any rank, summed over the calls.
    messages : int
        Total number of messages of all ranks, each of which contains the state at one point.
    critical_messages : int
        Number of messages on the critical path.

    Examples
    --------
    >>> Cost(96, 56, 8, 4).critical
    56
    """

    evaluations: int
    critical: int
    messages: int
    critical_messages: int


def cost_of(
    calls: list[Call],
    owned: list[np.ndarray],
    strides: Sequence[int],
    reverse: bool,
    everywhere: int | None,
    cascaded: bool,
    weights: list[np.ndarray] | None,
) -> Cost:
    """Compute the cost of calls in their order.

    Parameters
    ----------
    calls : list of Call
        The calls of the propagator.
    owned : list of array
        For each level, the first layer of each rank, followed by the end of the last block.
    strides : sequence of int
        For each level, the number of evaluations that one of its layers costs.
    reverse : bool
        Whether the pass runs from right to left.
    everywhere : int, optional
        The number of the coarsest level, if every rank marches over all of it.
    cascaded : bool
        Whether a cascade comes first.
    weights : list of array, optional
        The cost of each layer of each level, if costs differ.

    Returns
    -------
    Cost
        The sum over the calls.

    Examples
    --------
    >>> calls, owned = [Call(0, slice(0, 4, 1))], [np.array([0, 2, 4])]
    >>> cost_of(calls, owned, [1], False, None, False, None)
    Cost(evaluations=4, critical=2, messages=1, critical_messages=1)
    """
    evaluations: Any = 0
    critical: Any = 0
    messages = critical_messages = marched = 0
    ranks = len(owned[0]) - 1
    for level, which, times, sends in calls:
        begins = owned[level]
        stride = strides[level] * times
        if level == everywhere and which.stop - which.start == 1:
            marched += 1
            own = stride if weights is None else times * weights[level][which].item()
            evaluations += ranks * own
            critical += own
            continue
        layers = range(begins[-1])[which]
        before = np.clip(-((layers.start - begins) // layers.step), 0, len(layers))
        each = stride * np.diff(before)
        if weights is not None:
            each = times * np.diff(np.cumsum([0.0, *weights[level][which]])[before])
        elif strides[level] > 1 and layers and layers[-1] == begins[-1] - 1:  # maybe fewer
            each[-1] -= stride * begins[-1] - owned[0][-1]
        evaluations += each.sum().item()
        critical += each.max().item()
        # The state at the start of a block is the end of the layer before it.
        crossing = begins[1:-1] - (0 if reverse else 1)
        within = (crossing >= layers.start) & (crossing < layers.stop)
        sent = sends * int((within & ((crossing - layers.start) % layers.step == 0)).sum())
        messages += sent
        critical_messages += sent > 0
    if marched:
        # Each march gathers its right-hand side (a cascade has none, recording gathers states), and
        # the forward pass gathers the parameters.
        gatherings = marched // int(owned[-1][-1]) - cascaded + (not reverse)
        found = Cost(evaluations, critical, messages, critical_messages)
        return with_gatherings(found, gatherings, ranks)
    return Cost(evaluations, critical, messages, critical_messages)


def with_gatherings(cost: Cost, gatherings: int, ranks: int) -> Cost:
    """Add the messages of this number of gather operations over all ranks.

    Examples
    --------
    >>> with_gatherings(Cost(4, 2, 1, 1), 1, 4)
    Cost(evaluations=4, critical=2, messages=9, critical_messages=3)
    """
    in_a_row = gatherings * math.ceil(math.log2(ranks))
    return cost._replace(
        messages=cost.messages + ranks * in_a_row,
        critical_messages=cost.critical_messages + in_a_row,
    )
