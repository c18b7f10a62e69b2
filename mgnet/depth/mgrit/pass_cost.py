"""What one pass costs: evaluations and messages, in all and on the longest way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mgnet.depth.mgrit.plan_calls import Call

__all__ = ["Cost", "cost_of", "with_gatherings"]


class Cost(NamedTuple):
    """Of one direction, in layer evaluations of that direction and in messages.

    Attributes
    ----------
    evaluations : int
        Of single layers, on all ranks together; with `costs`, what they cost.
    critical : int
        Of those, the ones that follow each other: the largest number on any rank, call by call.
    messages : int
        States of one point, sent to a neighbouring rank, by all ranks together.
    critical_messages : int
        Of those, the ones that follow each other.

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
    """The cost of some calls in their order.

    Parameters
    ----------
    calls : list of Call
    owned : list of array
        For each level where the layers of each rank begin, and where the last ones end.
    strides : sequence of int
        How many evaluations a layer of each level costs.
    reverse : bool
    everywhere : int, optional
        The coarsest level, if every rank marches over all of it.
    cascaded : bool
        Whether a cascade comes first.
    weights : list of array, optional
        What each layer of each level costs, where they differ.

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
        elif strides[level] > 1 and layers and layers[-1] == begins[-1] - 1:  # for fewer, maybe
            each[-1] -= stride * begins[-1] - owned[0][-1]
        evaluations += each.sum().item()
        critical += each.max().item()
        # The state at the beginning of a block is the end of the layer before it.
        crossing = begins[1:-1] - (0 if reverse else 1)
        within = (crossing >= layers.start) & (crossing < layers.stop)
        sent = sends * int((within & ((crossing - layers.start) % layers.step == 0)).sum())
        messages += sent
        critical_messages += sent > 0
    if marched:
        # Each march gathers its right-hand side (a cascade has none, recording gathers states), and
        # the forward pass the parameters.
        gatherings = marched // int(owned[-1][-1]) - cascaded + (not reverse)
        found = Cost(evaluations, critical, messages, critical_messages)
        return with_gatherings(found, gatherings, ranks)
    return Cost(evaluations, critical, messages, critical_messages)


def with_gatherings(cost: Cost, gatherings: int, ranks: int) -> Cost:
    """With so many messages from all ranks to all.

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
