"""A mixture of linear, additive and hidden-layer models, trained on folds: an ensemble of networks.

For every fold, one model of each kind is trained without the rows of the fold. The predictions for
these rows determine the weights of the mixture and its errors. Knots are then refined as long as
the data determine the new parameters and the loss on left-out rows decreases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from mgnet.estimators.evidence.assembly import assembled
from mgnet.estimators.evidence.features import Features, different_values, features_of
from mgnet.estimators.evidence.likelihood import Likelihood
from mgnet.estimators.evidence.maximization import Fitted, maximize
from mgnet.estimators.evidence.model import Additive, Hidden, Model
from mgnet.estimators.evidence.modes import spline_modes
from mgnet.estimators.evidence.plan import EXAMPLES, Plan, Sizes
from mgnet.estimators.evidence.stacking import Folds, mixture
from mgnet.estimators.evidence.watch import Watch
from mgnet.estimators.scales import continued
from mgnet.knots import KAN

__all__ = ["Ensemble", "train"]

LINEAR, ADDITIVE, HIDDEN = range(3)
SEEDS = 1000  # difference of the seeds of two members
KNOWN = 0.35  # degree to which the data must determine the roughest mode for a refinement
LEAST_NOISE = 0.1  # part of the mean squared error on rows left out
LEAST_STEPS = 2  # steps of the linear model, which is trained even without any time
GAIN = 0.01  # decrease of the loss on rows left out that finer knots must achieve


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The result of `train`.

    Attributes
    ----------
    fitted : list of list of Fitted
        For each fold: the linear, the additive and the hidden-layer model.
    shares : array of shape (3,)
        Weight of each kind of model in the sum; for classes, the weights are multiplied by a scale.
    folds : Folds
        Rows that each member leaves out.
    unseen : array of shape (entries, outputs)
        Outputs of members for the rows that they left out.
    losses : tuple of float
        Mean loss on left-out rows, for each level.
    intervals : (int, int)
        Intervals of the network's layers.
    degree : int
        Degree of the splines.
    spread : float
        Mean variance of the members' outputs over training rows.
    """

    fitted: list[list[Fitted]]
    shares: np.ndarray
    folds: Folds
    unseen: np.ndarray
    losses: tuple[float, ...]
    intervals: tuple[int, int]
    degree: int
    spread: float = 0.0

    @property
    def units(self) -> int:
        """Number of units in the hidden layer of a member."""
        return self.fitted[0][HIDDEN].model.units  # type: ignore[attr-defined]

    @property
    def levels(self) -> int:
        """Number of levels of knots that were kept."""
        return len(self.losses)

    def deviation(self, x: torch.Tensor) -> np.ndarray:
        """The standard deviation of a new measurement at each row of x, for squared errors.

        The variance of the noise is the mean squared error on left-out rows minus the mean variance
        among members there; to this, the variance among members at x is added.

        Parameters
        ----------
        x : tensor of shape (rows, inputs)
            Rows; outside [-1, 1], the members are extended linearly.
        """
        noise = max(2.0 * self.losses[-1] - self.spread, LEAST_NOISE * 2.0 * self.losses[-1])
        return np.sqrt(noise + self.differences(x))

    def differences(self, x: torch.Tensor) -> np.ndarray:
        """The variance of the members' outputs, of shape (rows,)."""
        members = [self.network(number) for number in range(len(self.fitted))]
        outputs = np.stack([continued(own, x).numpy()[:, 0] for own in members])
        return outputs.var(0, ddof=1) if len(members) > 1 else np.zeros(len(x))

    def network(self, member: int | None = None) -> KAN:
        """The mean of all members, or a single member, as a KAN."""
        chosen = self.fitted if member is None else [self.fitted[member]]
        pairs = [
            (float(share) / len(chosen), fitted)
            for own in chosen
            for share, fitted in zip(self.shares, own, strict=True)
        ]
        return assembled(pairs, self.intervals, self.degree)


def train(
    x: np.ndarray,
    likelihood: Likelihood,
    folds: Folds,
    plan: Plan,
    seed: int,
    watch: Watch | None = None,
) -> Ensemble:
    """Train all models on all folds, mix them, and refine knots.

    Ctrl-C or the watch ends the training with the current result: the last complete level, or those
    members of the coarsest level that are finished (at least the linear model of the first member).

    Parameters
    ----------
    x : array of shape (rows, inputs)
        Rows within [-1, 1].
    likelihood : Likelihood
        Likelihood of the rows.
    folds : Folds
        Rows that each member leaves out.
    plan : Plan
        Sizes of the models, and limits on the work.
    seed : int
        Seed of the networks.
    watch : Watch, optional
        Time limit and progress.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C was pressed before the first member was trained.
    """
    watch = Watch() if watch is None else watch
    level = _trained(x, likelihood, folds, plan, seed, plan.sizes, None, watch)
    losses, values = [level.loss], different_values(x)
    while len(losses) < plan.levels and not watch.ended:
        sizes = next(
            (
                sizes
                for sizes in _wanted(level)
                if sizes[:4] != level.sizes[:4]
                and plan.allows(sizes, values, len(x), likelihood.outputs)
            ),
            None,
        )
        if sizes is None:
            break
        finer = _trained(x, likelihood, folds, plan, seed, sizes, level, watch)
        if finer is level or finer.loss > level.loss - GAIN * abs(level.loss):
            break
        level = finer
        losses.append(level.loss)
    return Ensemble(
        level.fitted,
        level.shares,
        level.folds,
        np.tensordot(level.shares, level.unseen, 1),
        tuple(loss / float(level.folds.weights.sum()) for loss in losses),
        (max(level.sizes[:2]), level.sizes.second),
        plan.degree,
    )


@dataclass(frozen=True, eq=False)
class _Level:
    number: int
    sizes: Sizes
    folds: Folds
    features: tuple[Features, ...]
    fitted: list[list[Fitted]]
    unseen: np.ndarray
    shares: np.ndarray
    loss: float


def _trained(
    x: np.ndarray,
    likelihood: Likelihood,
    folds: Folds,
    plan: Plan,
    seed: int,
    sizes: Sizes,
    former: _Level | None,
    watch: Watch,
) -> _Level:
    """Train all members on a level; if interrupted, return fewer members or the previous level."""
    features = _features(x, likelihood.weights, sizes, plan, former)
    matrices = [own.matrix(x) for own in features]
    unseen = np.empty((len(features), len(folds.rows), likelihood.outputs))
    fitted: list[list[Fitted]] = []
    number = 0 if former is None else former.number + 1
    for member in range(folds.count):
        own: list[Fitted] = []
        rows, weights = folds.kept(member, likelihood.weights)
        models = _models(features, sizes, plan, likelihood.outputs, seed + SEEDS * member)
        try:
            if watch.begins(number, member, folds.count) and (fitted or former):
                break
            for kind, (model, B) in enumerate(zip(models, matrices, strict=True)):
                begin = None if former is None else _carried(former.fitted[member][kind], model, x)
                if begin is None or not begin.steps:
                    part = likelihood.at(rows, weights)
                    stops = _after(LEAST_STEPS, watch.stops) if kind == LINEAR else watch.stops
                    begin = _on_rows(model, B[rows], part, plan, seed, begin, stops)
                own.append(begin)
        except KeyboardInterrupt:
            watch.ended = watch.interrupted = True
            if fitted or former:
                break
            raise
        if watch.ended and (fitted or former):
            break  # before it was finished
        fitted.append(own)
        left = folds.members == member
        for kind, (part, B) in enumerate(zip(own, matrices, strict=True)):
            unseen[kind, left] = part.model.outputs(B[folds.rows[left]], part.u)
    if former and len(fitted) < len(former.fitted):
        return former
    done = folds.only(len(fitted))
    judge = likelihood.at(done.rows, done.weights)
    unseen = unseen[:, folds.members < done.count]
    shares = mixture(judge, unseen)
    loss = judge.loss(np.tensordot(shares, unseen, 1))
    return _Level(number, sizes, done, features, fitted, unseen, shares, loss)


def _models(
    features: tuple[Features, ...], sizes: Sizes, plan: Plan, outputs: int, seed: int
) -> list[Model]:
    modes = spline_modes(sizes.second, plan.degree)
    linear, additive, hidden = features
    return [
        Additive(linear, outputs),
        Additive(additive, outputs),
        Hidden(hidden, modes, sizes.units, outputs, seed),
    ]


def _features(
    x: np.ndarray,
    weights: np.ndarray,
    sizes: Sizes,
    plan: Plan,
    former: _Level | None,
) -> tuple[Features, ...]:
    """Features of linear, additive and hidden-layer models; unchanged ones are reused."""
    kinds = ((sizes.additive, 1), (sizes.additive, sizes.modes), (sizes.first, sizes.modes // 2))
    made = []
    for kind, (intervals, most) in enumerate(kinds):
        known = None if former is None else former.features[kind]
        if known is None or (kind != LINEAR and known.modes.intervals != intervals):
            known = features_of(x, spline_modes(intervals, plan.degree), weights, most)
        made.append(known)
    return tuple(made)


def _carried(former: Fitted, model: Model, x: np.ndarray) -> Fitted:
    """A model of the previous level on new knots; the same object if the knots are the same."""
    own = former.model
    same = own.features is model.features and own.size == model.size
    if same and getattr(own, "modes", None) is getattr(model, "modes", None):
        return former
    u = own.onto(cast(Any, model), former.u, x)  # both have the same class
    prior = model.prior().carried(former.prior)
    return Fitted(model, u, prior, former.variance, np.zeros(len(u)), 0)


def _on_rows(
    model: Model,
    B: np.ndarray,
    likelihood: Likelihood,
    plan: Plan,
    seed: int,
    begin: Fitted | None,
    stops: Callable[[], bool],
) -> Fitted:
    """A model trained on these rows; if there are many, it is first trained on some of them."""
    hidden = isinstance(model, Hidden)
    steps, few = plan.steps(hidden, begin is not None), EXAMPLES * model.size
    rows = _some(len(B), plan.rows, seed)
    if begin is None and hidden and len(rows) > 2 * few:
        part = _some(len(B), few, seed)
        begin = maximize(model, B[part], likelihood.at(part), steps, None, stops, plan.blocks)
        steps = plan.steps(hidden, True)
    if len(rows) < len(B):
        B, likelihood = B[rows], likelihood.at(rows)
    return maximize(model, B, likelihood, steps, begin, stops, plan.blocks)


def _after(steps: int, stops: Callable[[], bool]) -> Callable[[], bool]:
    """The same stopping function, except that its first `steps` calls never stop."""
    asked = iter(range(steps))
    return lambda: next(asked, None) is None and stops()


def _some(rows: int, most: int, seed: int) -> np.ndarray:
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _wanted(level: _Level) -> tuple[Sizes, Sizes]:
    """The next sizes, doubled where the data determine the roughest mode or most parameters.

    The second result is the same, except that the number of units does not change.
    """
    told = np.zeros(4)
    for _, additive, hidden in level.fitted:
        own, last = additive.model, cast(Hidden, hidden.model)
        weights = additive.determined[: -own.count].reshape(-1, own.count)
        first, _, second, _, _ = last.split(hidden.determined)
        parts = weights[own.features.bent], first[:, last.features.bent], second[:, -1]
        told[:3] += [part.max(initial=0.0) for part in parts]
        told[3] += hidden.determined.mean()
    more = np.where(told > KNOWN * len(level.fitted), 2, 1)
    additive, first, second, units = (n * int(m) for n, m in zip(level.sizes, more, strict=False))
    all_modes = 2 * max(additive, first) + level.sizes.modes
    larger = Sizes(additive, first, second, units, all_modes)
    return larger, larger._replace(units=level.sizes.units)
