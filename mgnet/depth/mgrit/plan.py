"""Prediction of the cost of MGRIT: evaluations, critical path, messages, seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

import numpy as np

from mgnet.depth.mgrit.c_layers import level_factors, level_sizes
from mgnet.depth.mgrit.coarse_kinds import check_coarse
from mgnet.depth.mgrit.machine import Machine
from mgnet.depth.mgrit.newton import newton_of
from mgnet.depth.mgrit.pass_cost import Cost, cost_of, with_gatherings
from mgnet.depth.mgrit.plan_calls import Call, check_calls, plan_calls
from mgnet.depth.mgrit.step_costs import checked_costs, even_blocks, level_costs
from mgnet.limits import is_whole, shown

__all__ = ["Plan", "best_plan", "plan"]


@dataclass(frozen=True)
class Plan:
    """The predicted cost of one forward pass, or of one forward and backward pass.

    Attributes
    ----------
    layers, ranks : int
        Number of layers and of ranks.
    levels : int
        Number of levels.
    coarsening : int or tuple of int
        Coarsening factor, or one factor per level except the coarsest.
    coarse : str
        Kind of coarse layers.
    cycle : str
        The cycle as text.
    cycles : tuple of (int or None)
        Numbers of forward and of backward cycles; None stands for a serial pass. Without a backward
        pass, there is only one entry.
    forward : Cost
        Cost of the forward pass.
    backward : Cost or None
        Cost of the backward pass, in vector-Jacobian products.
    critical_path : float
        Length of the critical path of both passes, in forward layer evaluations.
    seconds, serial_seconds : float
        Predicted time of this plan, and that of the serial passes on one rank.
    memory : float
        Memory on the rank with the most layers, in bytes.

    Examples
    --------
    >>> plan(1024, ranks=8, coarsening=16).speedup > 2
    True
    """

    layers: int
    ranks: int
    levels: int
    coarsening: int | tuple[int, ...]
    coarse: str
    cycle: str
    cycles: tuple[int | None, ...]
    forward: Cost
    backward: Cost | None
    critical_path: float
    seconds: float
    serial_seconds: float
    memory: float

    @property
    def speedup(self) -> float:
        """The serial time divided by the predicted time."""
        return self.serial_seconds / self.seconds

    def __str__(self) -> str:
        passes = [("forward", "layer evaluations", self.forward)]
        if self.backward is not None:
            passes.append(("backward", "vector-Jacobian products", self.backward))
        lines = [
            f"{self.layers} layers on {self.ranks} rank{'s' * (self.ranks > 1)}: "
            f"{self.levels} level{'s' * (self.levels > 1)}, coarsening {self.coarsening}"
            f"{'' if self.coarse == 'mean' else f', coarse layers: {self.coarse}'}"
        ]
        for cycles, (name, unit, cost) in zip(self.cycles, passes, strict=True):
            how = "serial" if cycles is None or self.levels == 1 else f"{self.cycle}, {cycles} x"
            lines.append(
                f"{name:<9} {how:<17} {cost.evaluations:.12g} {unit} "
                f"({cost.evaluations / self.layers:.3g} per layer), messages: {cost.messages}; "
                f"on the critical path: {cost.critical:.12g}, messages: {cost.critical_messages}"
            )
        lines.append(
            f"together  {self.seconds:.3g} s, serial {self.serial_seconds:.3g} s: "
            f"speedup {self.speedup:.2f}"
        )
        if self.memory:
            lines.append(f"memory    {self.memory / 2**20:.3g} MiB per rank")
        return "\n".join(lines)


def plan(
    layers: int,
    ranks: int = 1,
    coarsening: int | Sequence[int] = 4,
    cycle: str = "cascade + V",
    machine: Machine = Machine(),  # noqa: B008
    *,
    levels: int = 2,
    relaxation: Sequence[str] = ("F", "FCF"),
    cycles: Sequence[int | None] = (1, 1),
    record: bool = False,
    gathered: bool = False,
    coarse: str = "mean",
    jacobian: int = 1,
    costs: Sequence[float] | None = None,
) -> Plan:
    """Predict the cost of a layer-parallel pass; the numbers of evaluations are exact.

    The schedule is run with a propagator that only records its calls. Every rank owns a block of
    whole layers of the coarsest level; the blocks are as equal as possible, and surplus ranks stay
    idle.

    Parameters
    ----------
    layers, ranks : int
        Number of layers and of ranks.
    coarsening : int or sequence of int
        Coarsening factor between a level and the next: one factor for all levels, or one for each,
        finest first.
    cycle : str
        The cycle in the notation of `mgrit`; a Newton sweep counts as a cycle.
    machine : Machine
        Costs of the machine; by default, a layer takes one unit of time and messages take none.
    levels : int
        Number of levels; 1 means serial propagation.
    relaxation : sequence of str
        Words of relaxation, as in `layer_hierarchy`.
    cycles : sequence of (int or None)
        Numbers of forward and of backward cycles, after the cascade if `cycle` begins with one;
        None stands for a serial pass. Give one entry for a forward pass alone.
    record : bool
        Whether the closing sweep evaluates all layers, as in training, instead of only those that
        end at F-points. A backward pass then also evaluates each coarse level once, for its
        vector-Jacobian products.
    gathered : bool
        Whether every rank marches over the whole coarsest level, as in
        `mgnet.petsc.distribute_layers` if it is small. This needs more evaluations in total but not
        on the critical path, where the `log2(ranks)` messages of a gather operation replace one
        message from each rank to the next.
    coarse : str
        Kind of coarse layers, as in `LayerParallel`: "fused" layers cost as much as the layers that
        they represent (and are never gathered), and "identity" layers cost nothing.
    jacobian : int
        In Newton sweeps, the cost of a layer's Jacobian, in evaluations (in a backward pass, in
        vector-Jacobian products); with `LayerParallel`, it is the number of entries of a sample's
        state. The scan is not counted.
    costs : sequence of float, optional
        Cost of every layer, in evaluations, if costs differ, for example because steps of a time
        grid take more iterations. A coarse layer costs the mean of the layers that it represents,
        and the blocks of the ranks have about the same cost.

    Returns
    -------
    Plan
        The predicted cost.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid, or the plan is too large to be counted.

    Examples
    --------
    >>> print(plan(64, ranks=4, cycles=(1,)))
    64 layers on 4 ranks: 2 levels, coarsening 4
    forward   cascade + V, 1 x  144 layer evaluations (2.25 per layer), messages: 9; on the critical
    path: 60, messages: 7
    together  60 s, serial 64 s: speedup 1.07
    """
    _check(ranks, cycles, machine, jacobian)
    check_coarse("plan", coarse)
    factors = level_factors(levels, coarsening)
    sizes = level_sizes(layers, factors)
    check_calls(sizes, factors, relaxation, cycle, cycles, ranks)
    given = checked_costs("plan", costs, sizes[0])
    weights = None if given is None else level_costs(given, factors, coarse)
    owned = _owned(sizes, factors, ranks, given)
    calls = []
    for count, reverse in zip(cycles, (False, True), strict=False):
        if count is None:
            calls.append(plan_calls(layers, (), relaxation, cycle, 0, False, reverse))
        else:
            calls.append(
                plan_calls(layers, factors, relaxation, cycle, count, record, reverse, jacobian)
            )
    gathered = gathered and levels > 1 and coarse != "fused"
    everywhere = levels - 1 if gathered and len(owned[0]) > 2 else None
    if record and len(calls) == 2:  # the adjoint records each coarse level once
        for k in sorted({call.level for call in calls[1]} - {0}):
            size = int(owned[k][-1])
            at_once = 1 if k == everywhere else size
            calls[0] += [Call(k, slice(n, n + at_once, 1)) for n in range(0, size, at_once)]
    cascaded = cycle.startswith("cascade")
    told = [
        cost_of(
            each, owned, _strides(factors, coarse), bool(reverse), everywhere, cascaded, weights
        )
        for reverse, each in enumerate(calls)
    ]
    sweep = newton_of(cycle) if levels > 1 else None
    if sweep is not None:
        tries = 1 if sweep.structure == "identity" else 2  # gatherings per forward sweep
        for reverse, count in enumerate(cycles):
            gatherings = (count or 0) * (1 if reverse else tries)
            told[reverse] = with_gatherings(told[reverse], gatherings, len(owned[0]) - 1)
    message = machine.latency + machine.state_bytes / machine.bandwidth
    ratios = (1.0, machine.backward_ratio)[: len(told)]
    critical = sum(w * cost.critical for w, cost in zip(ratios, told, strict=True))
    return Plan(
        layers=int(layers),
        ranks=int(ranks),
        levels=int(levels),
        coarsening=tuple(coarsening) if isinstance(coarsening, Sequence) else int(coarsening),
        coarse=coarse,
        cycle=cycle,
        cycles=tuple(cycles),
        forward=told[0],
        backward=told[1] if len(told) == 2 else None,
        critical_path=critical,
        seconds=critical * machine.layer_seconds + sum(c.critical_messages for c in told) * message,
        serial_seconds=sum(ratios)
        * (layers if given is None else float(given.sum()))
        * machine.layer_seconds,
        memory=float(np.diff(owned[0]).max())
        * (machine.layer_bytes + len(told) * machine.state_bytes),
    )


def _check(ranks: int, cycles: Sequence[int | None], machine: Machine, jacobian: int) -> None:
    if not is_whole(ranks, 1):
        raise ValueError(f"plan got ranks = {shown(ranks)}; give an integer of at least 1")
    counted = isinstance(cycles, Sequence) and len(cycles) in (1, 2)
    if not counted or not all(k is None or is_whole(k) for k in cycles):
        raise ValueError(
            f"plan got cycles = {shown(cycles)}; give the number of cycles forward and backward, "
            "such as (2, 1), with None for a serial pass"
        )
    if not isinstance(machine, Machine):
        raise TypeError(
            f"plan got machine {shown(machine)}; give, for example, "
            "Machine(layer_seconds=1e-3, latency=1e-5)"
        )
    if not is_whole(jacobian):
        raise ValueError(
            f"plan got jacobian = {shown(jacobian)}; give the evaluations that the Jacobian of a "
            "layer costs, an integer of at least 0"
        )


def best_plan(
    layers: int,
    ranks: int = 1,
    cycle: str = "cascade + V",
    machine: Machine = Machine(),  # noqa: B008
    *,
    coarsenings: Sequence[int] = (2, 4, 8, 16, 32, 64),
    coarsest: int = 8,
    relaxation: Sequence[str] = ("F", "FCF"),
    cycles: Sequence[int | None] = (1, 1),
    record: bool = False,
    coarse: str = "mean",
) -> Plan:
    """Find the levels and factor with the least predicted time; the plan may be serial.

    Plans with equal numbers of cycles are compared, although errors grow with the factor and with
    the number of levels.

    Parameters
    ----------
    layers : int
        Number of layers.
    ranks : int
        Number of available ranks.
    cycle : str
        The cycle in the notation of `mgrit`.
    machine : Machine
        Costs of the machine.
    coarsenings : sequence of int
        Coarsening factors to try; a plan has the same factor between all levels.
    coarsest : int
        Smallest number of layers allowed on the coarsest level, at least 2.
    relaxation : sequence of str
        Words of relaxation, as in `layer_hierarchy`.
    cycles : sequence of (int or None)
        Numbers of forward and of backward cycles, as in `plan`.
    record : bool
        Whether the closing sweep evaluates all layers, as in training.
    coarse : str
        Kind of coarse layers, as in `plan`.

    Returns
    -------
    Plan
        The fastest plan; a serial plan is for one rank.

    Raises
    ------
    ValueError
        If an argument is invalid.

    Examples
    --------
    >>> best = best_plan(1024, ranks=8)
    >>> best.levels, best.coarsening
    (2, 64)
    >>> best_plan(16, ranks=2, machine=Machine(latency=10.0)).levels  # as long as ten layers
    1
    """
    given = isinstance(coarsenings, Sequence) and len(coarsenings) > 0
    if not given or not all(is_whole(factor, 2) for factor in coarsenings):
        raise ValueError(
            f"best_plan got coarsenings {shown(coarsenings)}; give a sequence of integers of at "
            "least 2"
        )
    for name, number in (("layers", layers), ("coarsest", coarsest)):
        if not is_whole(number, 1):
            raise ValueError(
                f"best_plan got {name} = {shown(number)}; give an integer of at least 1"
            )
    shapes: list[tuple[int, int]] = [(1, coarsenings[0])]
    for factor in coarsenings:
        size, levels = -(-layers // factor), 2
        while size >= max(coarsest, 2):
            shapes.append((levels, factor))
            size, levels = -(-size // factor), levels + 1
    plans = [
        plan(
            layers,
            ranks if levels > 1 else 1,
            factor,
            cycle,
            machine,
            levels=levels,
            relaxation=relaxation,
            cycles=cycles,
            record=record,
            coarse=coarse,
        )
        for levels, factor in shapes
    ]
    return min(plans, key=lambda found: found.seconds)


def _owned(
    sizes: Sequence[int], factors: Sequence[int], ranks: int, costs: np.ndarray | None
) -> list[np.ndarray]:
    """For every level, the first layer of each rank, followed by the end of the last block."""
    busy = min(ranks, sizes[-1])
    if costs is None:
        begins = np.linspace(0, sizes[-1], busy + 1).round().astype(int)
    else:
        begins = even_blocks(costs, math.prod(factors), busy)
    owned = [begins]
    for size, factor in zip(sizes[-2::-1], factors[::-1], strict=True):
        owned.append(np.minimum(owned[-1] * factor, size))
    return owned[::-1]


def _strides(factors: Sequence[int], coarse: str) -> list[int]:
    """For each level, the number of finest layers that one of its layers evaluates."""
    if coarse == "identity":
        return [1] + [0] * len(factors)
    return list(accumulate(factors if coarse == "fused" else [1] * len(factors), mul, initial=1))
