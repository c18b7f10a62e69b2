"""Nested iteration in depth for minibatches: few layers at first, and more if they pay off."""

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
    """A number of training steps with the same number of layers.

    Attributes
    ----------
    layers : int
        Number of layers.
    steps : int
        Number of steps of the optimizer.
    work : float
        Work in steps of the deepest net; a step with n layers counts as n / depth.
    seconds : float
        Wall time in seconds, including validation.
    loss : float
        Mean loss over the batches; NaN if there were no steps.
    held_out : float
        Value of `validate` at the end of the stage.
    kept : bool
        True if training continued from this stage; False for the net that lost a trial.

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
    """The result of `train_in_depth`.

    Attributes
    ----------
    net : ODENet
        The trained net.
    optimizer : torch.optim.Optimizer
        The optimizer of the net's parameters.
    stages : list of Stage
        The stages in order, including those of the nets that lost a trial.
    decisions : list of str
        One sentence about every trial, and one about the end of the training.

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
        """A table of the stages, followed by the decisions."""
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
    """A learning-rate factor that rises linearly, stays constant, and decays linearly.

    Parameters
    ----------
    part : float
        Fraction of the training that has been completed, from 0 to 1.
    warm_up, decay : float
        Fraction of the training during which the factor rises, and fraction during which it decays.
    least : float
        The factor at the end.

    Returns
    -------
    float
        The factor, from 0 to 1.

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
    """Train an ODE net with minibatches, and add layers when they are worth their cost.

    The budget is divided into equal parts, one for every number of layers from `net.depth` to
    `depth`. At the end of a part, a trial decides whether to add layers: the net and its refinement
    each train for a fraction `trial` of the next part, from the same state, moments and learning
    rate, and the net with the lower held-out value is kept. The refined net takes fewer steps in
    the trial, because its steps cost more. If the shallower net wins, it also gets the next part,
    after which more layers are tried again. There are no more trials once the budget is used up.

    Parameters
    ----------
    net : ODENet
        The net with the fewest layers, changed in place. With `learnable_steps=True`, refinement
        is exact.
    loss : callable
        The function `loss(module, batch)`, which returns a tensor without axes.
    batches : iterable
        The batches, which are used repeatedly, such as a DataLoader.
    optimizer : callable
        A function `net -> optimizer` that creates the optimizer of the net's parameters with the
        largest learning rates. Later optimizers are refinements of it, including moments and groups
        (`refine_optimizer`). An optimizer that evaluates the loss itself, such as L-BFGS, is
        refused.
    validate : callable
        The function `validate(module)`, which returns a number; lower is better. The module is in
        evaluation mode and computes no gradients; the time counts toward `seconds`.
    depth : int
        Largest number of layers, `net.depth` times a power of `factor`.
    work, seconds : float
        The budget: in steps of the deepest net, where a step with n layers counts as n / depth
        (the same on every machine), or in seconds of wall time. At least one must be finite.
    factor, how
        The arguments of `ODENet.refine`.
    schedule : callable
        A function that maps the fraction of the budget that has been used to a factor, at least 0,
        by which all learning rates are multiplied. Both nets in a trial get the same factors.
    trial : float, optional
        The fraction of a part of the budget that each of the two nets gets in a trial; None means
        that the net is always refined, without trials.
    clip : float, optional
        Upper bound for the norm of the whole gradient; a larger gradient is scaled down to it.
    wrap : callable, optional
        A function that turns each net into the module to be trained and validated, such as
        `lambda net: LayerParallel(net, coarsening=4)`. For MPI ranks, use
        `lambda net: mgnet.petsc.distribute(LayerParallel(net), batches=2)`: all ranks call
        `train_in_depth` with the same batches, and between the parts of the training, each rank
        has the whole net for refinement.

    Returns
    -------
    NestedTraining
        The trained `net` and `optimizer`, and the table `explain()`.

    Raises
    ------
    TypeError, ValueError
        If the arguments are invalid; this is checked before training.
    FloatingPointError
        If a loss or a held-out value is not finite; the message names the step.

    Notes
    -----
    Source of nested iteration in depth: Cyr, Gunther, Schroder, "Multilevel initialization for
    layer-parallel deep neural network training", arXiv 1912.08974, where weights are interpolated
    and every refinement is accepted.

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
    """The fraction of the budget that has been used: of the work or the seconds, the larger one."""

    def __init__(self, work: float, seconds: float, depth: int):
        self.work, self.seconds, self.depth = work, seconds, depth
        self.done, self.began = 0.0, time.perf_counter()
        self.communicator: Communicator | None = None

    def used(self) -> float:
        """The fraction that has been used, from 0 to 1."""
        elapsed = time.perf_counter() - self.began
        if self.communicator is not None and self.seconds < math.inf:
            elapsed = of_first(self.communicator, elapsed)  # clocks differ between ranks
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
        """Train until the fraction `end` of the budget is used, and compute the held-out value.

        The schedule is delayed by the fraction `late` of the budget.

        Raises
        ------
        FloatingPointError
            If a loss or the held-out value is not finite.
        """
        budget = self.budget
        began, done, losses = time.perf_counter(), budget.done, []
        with spread(self.wrap, net, optimizer) as own:
            budget.communicator = own.communicator
            own.module.train()
            while (part := budget.used()) < end:
                losses.append(self._step(own, min(1.0, part - late)))
                budget.done += net.depth / budget.depth
                if losses[-1].device.type == "cpu":  # reading a loss on a GPU would wait for it
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
    """Refine the net; in a trial, keep the better of the two nets."""
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
    """Raise an error if a loss is not finite; `first` is the number of the first step."""
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
