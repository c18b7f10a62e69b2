"""Nested iteration in depth for minibatches: few layers learn first, more follow if they pay."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from mgnet.depth.endless_batches import EndlessBatches
from mgnet.depth.mgrit.communicator import Communicator, of_first
from mgnet.depth.nested_checks import (
    check_budget,
    check_optimizer,
    checked_factor,
    checked_value,
    parts_of,
)
from mgnet.depth.nested_ranks import Spread, spread
from mgnet.depth.network.ode_net import ODENet
from mgnet.depth.network.optimizer_state import refine_optimizer
from mgnet.depth.parallel.batch_pieces import checked_loss
from mgnet.depth.parallel.gradient_norm import clip_grad_norm_
from mgnet.depth.parallel.microbatches import accumulate_gradients

__all__ = ["NestedTraining", "Stage", "train_in_depth", "warm_up_and_decay"]

Loss = Callable[[torch.nn.Module, Any], torch.Tensor]


class Stage(NamedTuple):
    """Some steps with one number of layers.

    Attributes
    ----------
    layers : int
    steps : int
        Of the optimizer.
    work : float
        In steps of the deepest net, one of n layers counts n / depth.
    seconds : float
        Of wall time, validation included.
    loss : float
        Mean over the batches; NaN without steps.
    held_out : float
        What `validate` gave at the end.
    kept : bool
        Whether training went on from here; False for the loser of a trial.

    Examples
    --------
    >>> Stage(8, 100, 25.0, 1.5, 0.3, 0.4, True).layers
    8
    """

    layers: int
    steps: int
    work: float
    seconds: float
    loss: float
    held_out: float
    kept: bool


@dataclass
class NestedTraining:
    """What `train_in_depth` did.

    Attributes
    ----------
    net : ODENet
    optimizer : torch.optim.Optimizer
    stages : list of Stage
    decisions : list of str
        A sentence for every trial, and for the end.

    Examples
    --------
    >>> net = ODENet(torch.nn.Linear(2, 2), 2)
    >>> print(NestedTraining(net, torch.optim.SGD(net.parameters(), lr=0.1)).explain())
    layers  steps   work  seconds      loss  held out
    """

    net: ODENet
    optimizer: torch.optim.Optimizer
    stages: list[Stage] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)

    def explain(self) -> str:
        """A table of the stages, and the decisions."""
        lines = [
            f"{'layers':>6} {'steps':>6} {'work':>6} {'seconds':>8} {'loss':>9} {'held out':>9}"
        ]
        for each in self.stages:
            lines.append(
                f"{each.layers:>6} {each.steps:>6} {each.work:>6.1f} {each.seconds:>8.2f} "
                f"{each.loss:>9.3g} {each.held_out:>9.4g}{'' if each.kept else '  (dropped)'}"
            )
        return "\n".join([*lines, *self.decisions])


def warm_up_and_decay(
    part: float, warm_up: float = 0.03, decay: float = 0.3, least: float = 0.0
) -> float:
    """The factor of a learning rate after a part of the training: up, level, and linearly down.

    Parameters
    ----------
    part : float
        From 0 to 1.
    warm_up, decay : float
        Parts at the beginning and at the end.
    least : float
        The factor at the end.

    Examples
    --------
    >>> [round(warm_up_and_decay(part), 3) for part in (0.0, 0.015, 0.5, 0.85, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    rising = part / warm_up if part < warm_up else 1.0
    falling = (1.0 - part) / decay if part > 1.0 - decay else 1.0
    return rising * max(least, min(1.0, falling))


def train_in_depth(
    net: ODENet,
    loss: Loss,
    batches: Iterable[Any],
    optimizer: Callable[[ODENet], torch.optim.Optimizer],
    validate: Callable[[torch.nn.Module], float],
    *,
    depth: int,
    work: float = math.inf,
    seconds: float = math.inf,
    factor: int = 2,
    how: str | None = None,
    schedule: Callable[[float], float] = warm_up_and_decay,
    trial: float | None = 0.25,
    clip: float | None = None,
    wrap: Callable[[ODENet], torch.nn.Module] = lambda net: net,
) -> NestedTraining:
    """Train an ODE net by minibatches, with more and more layers where they are worth their time.

    Every number of layers from `net.depth` to `depth` has an equal part of the budget. At the end
    of its part a trial decides: the net and its refinement train on, each with a piece of the next
    part, from the same state, moments and learning rate; what has the lower held-out value at the
    end is kept. A refined net takes fewer steps in its piece, since a step costs more. If the
    shallower net wins, it has the next part, too, at the end of which more layers are tried again.
    Once the budget is used up, nothing is tried any more.

    Parameters
    ----------
    net : ODENet
        With the fewest layers; changed in place. With `learnable_steps=True` refinement is exact.
    loss : callable
        `loss(module, batch)`, a tensor without axes.
    batches : iterable
        Gone through again and again, as a DataLoader is.
    optimizer : callable
        `net -> optimizer` of its parameters, whose learning rates are the largest: the first
        optimizer; later ones are refined, moments, groups and all (`refine_optimizer`). Not one
        that evaluates the loss itself, as L-BFGS does.
    validate : callable
        `validate(module)`, a number, the lower the better. The module is in evaluation mode,
        without gradients; the time counts.
    depth : int
        The most layers, `net.depth` times a power of `factor`.
    work, seconds : float
        The budget: in steps of the deepest net, a step of n layers counting n / depth (the same on
        every machine), or in wall time. At least one is finite.
    factor, how
        As in `ODENet.refine`.
    schedule : callable
        `part of the budget -> factor` of all learning rates, at least 0; both sides of a trial have
        the same ones.
    trial : float, optional
        The piece of a part that each of the two has in a trial. None: no trials, always refine.
    clip : float, optional
        The largest norm of all gradients together.
    wrap : callable, optional
        Makes the module that is trained and validated of each net, such as
        `lambda net: LayerParallel(net, coarsening=4)`. Over MPI ranks
        `lambda net: mgnet.petsc.distribute(LayerParallel(net), batches=2)`: all ranks call this
        with the same batches; each has the whole net between the parts of the training, for
        refinement.

    Returns
    -------
    NestedTraining
        `net` and `optimizer` as they are at the end, and `explain()`.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, before anything is trained.
    FloatingPointError
        If a loss or a held-out value is not finite; names the step.

    Notes
    -----
    Source of nested iteration in depth: Cyr, Gunther, Schroder, "Multilevel initialization for
    layer-parallel deep neural network training", arXiv 1912.08974, where weights are interpolated
    and every refinement is taken.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> x = torch.linspace(-1, 1, 64).unsqueeze(1)
    >>> block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
    >>> ends = torch.nn.Linear(1, 4), torch.nn.Linear(4, 1)
    >>> net = ODENet(block, 2, learnable_steps=True, before=ends[0], after=ends[1])
    >>> def loss(module, batch):
    ...     return (module(batch) - torch.sin(3 * batch)).square().mean()
    >>> told = train_in_depth(
    ...     net,
    ...     loss,
    ...     x.split(16),
    ...     lambda net: torch.optim.AdamW(net.parameters(), lr=1e-2),
    ...     lambda module: loss(module, x).item(),
    ...     depth=8,
    ...     work=120,
    ... )
    >>> told.net.depth in (2, 4, 8), told.stages[-1].held_out < 0.1
    (True, True)
    """
    parts = parts_of(net, depth, factor, how)
    check_budget(work, seconds, trial, clip)
    budget = _Budget(work, seconds, depth)
    first = optimizer(net) if callable(optimizer) else optimizer
    check_optimizer(net, optimizer, first)
    for group in first.param_groups:
        group.setdefault("initial_lr", group["lr"])
    run = _Run(loss, EndlessBatches(batches), validate, schedule, clip, wrap, budget)
    told = NestedTraining(net, first)
    size, early = 1.0 / parts, False
    for part in range(parts):
        end = (part + 1) * size if part + 1 < parts else 1.0
        deepest = told.net.depth == depth
        if part and not deepest:
            piece = 0.0 if trial is None else trial * size
            early = piece > 0.0 and budget.used() >= 1.0
            if early:
                break
            _try_more_layers(told, run, piece, factor, how)
        told.stages.append(run.train(told.net, told.optimizer, end))
    told.decisions.append(_end(told, depth, early))
    return told


class _Budget:
    """How much is used: the larger part of work and of seconds."""

    def __init__(self, work: float, seconds: float, depth: int):
        self.work, self.seconds, self.depth = work, seconds, depth
        self.done, self.began = 0.0, time.perf_counter()
        self.communicator: Communicator | None = None

    def used(self) -> float:
        """From 0 to 1."""
        elapsed = time.perf_counter() - self.began
        if self.communicator is not None and self.seconds < math.inf:
            elapsed = of_first(self.communicator, elapsed)  # clocks differ
        return max(self.done / self.work, elapsed / self.seconds)


@dataclass
class _Run:
    loss: Loss
    stream: EndlessBatches
    validate: Callable[[torch.nn.Module], float]
    schedule: Callable[[float], float]
    clip: float | None
    wrap: Callable[[ODENet], torch.nn.Module]
    budget: _Budget

    def train(
        self, net: ODENet, optimizer: torch.optim.Optimizer, end: float, late: float = 0.0
    ) -> Stage:
        """Steps until so much of the budget is used, and the held-out value.

        `late`: the part of the budget by which the schedule is set back.
        """
        budget = self.budget
        began, done, losses = time.perf_counter(), budget.done, []
        with spread(self.wrap, net, optimizer) as own:
            budget.communicator = own.communicator
            own.module.train()
            while (part := budget.used()) < end:
                losses.append(self._step(own, min(1.0, part - late)))
                budget.done += net.depth / budget.depth
                if losses[-1].device.type == "cpu":  # another device would be waited for
                    _check_finite(losses[-1:], len(losses), net.depth)
            _check_finite(losses, 1, net.depth)
            own.module.eval()
            with torch.no_grad():
                held_out = checked_value(self.validate(own.module))
            own.module.train()
            if own.communicator is not None:
                held_out = of_first(own.communicator, held_out)
        total = float(torch.stack(losses).double().mean()) if losses else math.nan
        if not math.isfinite(held_out):
            raise FloatingPointError(
                f"train_in_depth got the held-out value {held_out} with {net.depth} layers; take a "
                "lower learning rate, or clip=1.0"
            )
        work, seconds = budget.done - done, time.perf_counter() - began
        return Stage(net.depth, len(losses), work, seconds, total, held_out, True)

    def _step(self, own: Spread, part: float) -> torch.Tensor:
        factor = checked_factor(self.schedule(part), part)
        for group in own.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        own.optimizer.zero_grad()
        batch = self.stream.next()
        if own.communicator is None:
            value = checked_loss("train_in_depth", self.loss(own.module, batch))
            value.backward()
        else:
            value = accumulate_gradients(own.module, self.loss, batch)
        if self.clip is not None:
            clip_grad_norm_(own.module, self.clip)
        own.optimizer.step()
        return value.detach()


def _try_more_layers(
    told: NestedTraining, run: _Run, piece: float, factor: int, how: str | None
) -> None:
    """Refine; with a trial, keep what is better after it."""
    coarse = told.net, told.optimizer
    fine_net = told.net.refine(factor, how)
    fine = fine_net, refine_optimizer(told.optimizer, told.net, fine_net, how)
    if not piece:
        told.net, told.optimizer = fine
        return
    begun = run.budget.used()
    run.stream.mark()
    shallow = run.train(*coarse, begun + piece)
    run.stream.rewind()
    again = run.budget.used()
    deep = run.train(*fine, again + piece, again - begun)
    better = deep.held_out <= shallow.held_out
    told.stages += [shallow._replace(kept=not better), deep._replace(kept=better)]
    told.net, told.optimizer = fine if better else coarse
    told.decisions.append(
        f"trial: {deep.layers} layers {deep.held_out:.4g}, {shallow.layers} layers "
        f"{shallow.held_out:.4g} with equal budgets; {told.net.depth} layers go on"
    )


def _check_finite(losses: list[torch.Tensor], first: int, layers: int) -> None:
    """Raise for a loss that is not finite; `first` is the number of the step of the first one."""
    values = torch.stack(losses).double() if losses else torch.zeros(1)
    wrong = (~values.isfinite()).nonzero().flatten()
    if len(wrong):
        number = int(wrong[0])
        raise FloatingPointError(
            f"train_in_depth got the loss {float(values[number])} in step {first + number} with "
            f"{layers} layers; take a lower learning rate, or clip=1.0"
        )


def _end(told: NestedTraining, depth: int, early: bool) -> str:
    net = told.net
    if net.depth == depth:
        return f"{depth} layers, as deep as was asked for"
    if early:
        return (
            f"{net.depth} layers of the {depth} that were asked for: the budget was used up before "
            "the next trial"
        )
    return (
        f"{net.depth} layers of the {depth} that were asked for: with this budget more layers did "
        "not lower the held-out value as fast as more steps did"
    )
