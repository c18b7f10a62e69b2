"""Training on folds: what comes out is used as it is said, and ends when it is told to."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mgnet.estimators.evidence.ensemble import train
from mgnet.estimators.evidence.features import different_values
from mgnet.estimators.evidence.likelihood import Classes, Normal
from mgnet.estimators.evidence.plan import plan_of
from mgnet.estimators.evidence.stacking import folds_of
from mgnet.estimators.evidence.watch import Watch


def table(kind, rows=60, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, (rows, 2))
    y = np.sin(5.0 * x[:, 0]) + x[:, 1] + 0.2 * rng.normal(size=rows)
    y = (y - y.mean()) / y.std()
    labels = {"two": y > 0.0, "three": np.digitize(y, [-0.5, 0.5])}
    if kind == "squares":
        return x, Normal(y, np.ones(rows))
    return x, Classes(labels[kind].astype(int), np.ones(rows), 2 + (kind == "three"))


def trained(kind, folds=3, watch=None, rows=60, levels=None, **sizes):
    x, own = table(kind, rows)
    plan = plan_of(different_values(x), rows, own.outputs, folds, levels=levels, **sizes)
    parts = folds_of(np.zeros(rows, dtype=int), own.weights, plan.folds, 0)
    return x, own, train(x, own, parts, plan, 0, watch)


@pytest.mark.parametrize("kind", ["squares", "two", "three"])
def test_outputs_are_means_of_members_and_unseen_are_their_own(kind):
    x, own, found = trained(kind)
    rows, outputs = torch.from_numpy(x), []
    for member, models in enumerate(found.fitted):
        parts = [part.model.outputs(part.model.features.matrix(x), part.u) for part in models]
        outputs.append(np.tensordot(found.shares, parts, 1))
        network = found.network(member)(rows).detach().numpy()
        np.testing.assert_allclose(network, outputs[-1], atol=1e-6)
        left = found.folds.members == member
        unseen = outputs[-1][found.folds.rows[left]]
        np.testing.assert_allclose(found.unseen[left], unseen, atol=1e-12)
    np.testing.assert_allclose(found.network()(rows).detach(), np.mean(outputs, 0), atol=1e-6)
    judge = own.at(found.folds.rows, found.folds.weights)
    loss = judge.loss(found.unseen) / found.folds.weights.sum()
    assert found.losses[-1] == pytest.approx(loss)
    assert found.losses[-1] < own.loss(np.tile(own.start(), (60, 1))) / 60.0
    assert found.levels == len(found.losses) and (np.diff(found.losses) < 0.0).all()
    np.testing.assert_allclose(
        found.differences(rows), np.var(outputs, axis=0, ddof=1)[:, 0], atol=1e-6
    )


def test_members_never_see_what_they_leave_out():
    """Other targets in one fold change other members alone."""
    x, own = table("squares")
    plan = plan_of(different_values(x), 60, 1, 3, levels=1)
    folds = folds_of(np.zeros(60, dtype=int), own.weights, 3, 0)
    y = own.targets.copy()
    y[folds.rows[folds.members == 1]] += 5.0
    one, other = (train(x, Normal(t, own.weights), folds, plan, 0) for t in (own.targets, y))
    for member in range(3):
        pairs = zip(one.fitted[member], other.fitted[member], strict=True)
        same = [np.array_equal(a.u, b.u) for a, b in pairs]
        assert same == [member == 1] * 3


def test_rough_functions_get_finer_knots_and_lines_do_not():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, (300, 1))
    found = []
    for y in (x[:, 0] + 0.3 * rng.normal(size=300), np.sin(9.0 * x[:, 0])):
        own = Normal((y - y.mean()) / y.std(), np.ones(300))
        plan = plan_of(different_values(x), 300, 1, 3)
        folds = folds_of(np.zeros(300, dtype=int), own.weights, 3, 0)
        found.append(train(x, own, folds, plan, 0))
    line, wave = found
    assert line.levels <= 2 and wave.levels > 2 and wave.intervals[0] > line.intervals[0]
    assert wave.losses[-1] < 0.1 * wave.losses[0]
    limited = train(x, own, folds, plan_of(different_values(x), 300, 1, 3, levels=2), 0)
    assert limited.levels == 2


class Counting(Watch):
    """Time is over, or Ctrl-C comes, when a step of a member on a level begins."""

    def __init__(self, level, member, interrupt):
        super().__init__()
        self.place, self.interrupt, self.reached = (level, member), interrupt, False

    def begins(self, level, member, members):
        self.reached = self.reached or (level, member) == self.place
        if self.reached and not self.interrupt:
            self.ended = True
        return self.ended

    def stops(self):
        if self.reached and self.interrupt:
            raise KeyboardInterrupt
        return self.ended


@pytest.mark.parametrize("interrupt", [False, True])
@pytest.mark.parametrize("kind", ["squares", "three"])
def test_an_end_leaves_the_members_that_are_done(kind, interrupt):
    whole = trained(kind, levels=1)[2]
    for member in (1, 2):
        watch = Counting(0, member, interrupt)
        x, _, found = trained(kind, watch=watch)
        assert len(found.fitted) == member == found.folds.count and found.levels == 1
        for part, other in zip(found.fitted[0], whole.fitted[0], strict=True):
            np.testing.assert_array_equal(part.u, other.u)
        assert len(found.unseen) == (found.folds.members < member).sum()
        assert torch.isfinite(found.network()(torch.from_numpy(x))).all()
        assert watch.ended and watch.interrupted == interrupt
    if interrupt:
        with pytest.raises(KeyboardInterrupt):
            trained(kind, watch=Counting(0, 0, True))
    else:  # one member there is in any case
        assert len(trained(kind, watch=Counting(0, 0, False))[2].fitted) == 1


@pytest.mark.parametrize("kind", ["squares", "three"])
def test_without_any_time_there_is_a_line(kind):
    """A command that had no time left wrote constants."""
    whole = trained(kind, levels=1)[2]
    found = trained(kind, watch=Watch(0.0))[2]
    line, other = (one.fitted[0][0] for one in (found, whole))
    assert len(found.fitted) == 1
    np.testing.assert_allclose(line.u, other.u, atol=0.1 * np.abs(other.u).max())
    assert found.shares[0] > found.shares[1:].sum()


@pytest.mark.parametrize("interrupt", [False, True])
def test_an_end_on_a_finer_level_leaves_the_level_before(interrupt):
    """A function that is refined: else there is no finer level to end on."""
    few = {"rows": 120, "intervals": 2}
    whole = trained("squares", levels=1, **few)[2]
    for member in (0, 2):
        watch = Counting(1, member, interrupt)
        found = trained("squares", watch=watch, levels=4, **few)[2]
        assert watch.reached and found.levels == 1
        np.testing.assert_array_equal(found.unseen, whole.unseen)


def test_deviations():
    """The noise less what members differ by, and their differences at a place."""
    x, _, found = trained("squares")
    rows = torch.from_numpy(x)
    found = replace(found, spread=float(found.differences(rows).mean()))
    noise = max(2.0 * found.losses[-1] - found.spread, 0.2 * found.losses[-1])
    np.testing.assert_allclose(found.deviation(rows) ** 2, noise + found.differences(rows))
    far = found.deviation(torch.tensor([[9.0, -9.0]], dtype=torch.float64))
    assert far[0] > 2.0 * found.deviation(rows).max()
    alone = replace(found, fitted=found.fitted[:1])
    assert not alone.differences(rows).any()
