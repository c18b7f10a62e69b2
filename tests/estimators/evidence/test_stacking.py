"""Folds hold every row once; mixtures are the best in the simplex."""

import numpy as np
import pytest

from mgnet.estimators.evidence.likelihood import Classes, Normal
from mgnet.estimators.evidence.stacking import DOUBT, folds_of, mixture


@pytest.mark.parametrize("seed", range(5))
def test_folds_are_balanced_and_add_up(seed):
    rng = np.random.default_rng(seed)
    rows, count = int(rng.integers(10, 80)), int(rng.integers(2, 8))
    strata = rng.integers(0, 3, rows)
    folds = folds_of(strata, np.ones(rows), count, seed)
    assert sorted(folds.rows) == list(range(rows)) and folds.count == count
    sizes = np.bincount(folds.members, minlength=count)
    assert np.ptp(sizes) <= 1
    for stratum in range(3):
        own = np.bincount(folds.members[strata[folds.rows] == stratum], minlength=count)
        assert np.ptp(own) <= 1
    again, other = (
        folds_of(strata, np.ones(rows), count, seed),
        folds_of(strata, np.ones(rows), count, seed + 1),
    )
    assert np.array_equal(folds.members, again.members)
    assert not np.array_equal(folds.members, other.members)


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_weights_are_split_and_their_total_stays(seed, counts):
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 12, 30).astype(float)
    of_rows = None if counts else np.ones(30)
    folds = folds_of(np.zeros(30, dtype=int), weights, 4, seed, of_rows)
    total = np.bincount(folds.rows, folds.weights, 30)
    np.testing.assert_allclose(total, weights)
    times = np.bincount(folds.rows, minlength=30)
    assert (times == np.where((weights >= 4.0) & counts, 4, 1)).all()
    left_out = np.zeros(30)
    for member in range(4):
        rows, kept = folds.kept(member, weights)
        assert (kept > 0.0).all()
        own = folds.members == member
        back = np.bincount(folds.rows[own], folds.weights[own], 30)
        np.testing.assert_allclose(np.bincount(rows, kept, 30) + back, weights)
        left_out += back
    np.testing.assert_allclose(left_out, weights)
    first = folds.only(2)
    assert first.count == 2 and set(first.members) == {0, 1}


def test_mixtures_are_the_best_of_the_simplex():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        outputs = rng.normal(size=(3, 60, 1))
        y = outputs[:, :, 0].T @ rng.dirichlet(np.ones(3)) + 0.3 * rng.normal(size=60)
        own = Normal(y, rng.uniform(0.5, 2.0, 60))
        best = min(own.variance(f, 0.0) for f in outputs)

        def objective(shares, outputs=outputs, own=own, best=best):
            loss = own.loss(np.tensordot(shares, outputs, 1)) / best
            return loss - DOUBT / 3.0 * np.log(np.maximum(shares, 1e-300)).sum()

        shares = mixture(own, outputs)
        assert (shares >= 0.0).all() and shares.sum() == pytest.approx(1.0)
        grid = np.linspace(0.002, 0.996, 60)
        others = [(a, b, 1.0 - a - b) for a in grid for b in grid if a + b < 0.999]
        assert objective(shares) <= min(objective(np.array(other)) for other in others) + 1e-6


def test_equal_models_share_equally_and_classes_choose():
    labels = np.arange(90) % 3
    right = 3.0 * np.eye(3)[labels]
    own = Classes(labels, np.ones(90), 3)
    found = mixture(own, np.stack([right] * 3))
    np.testing.assert_allclose(found, found[0], atol=1e-5)
    shares = mixture(own, np.stack([right, -right, np.zeros((90, 3))]))
    assert shares[0] > 0.9


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_members_that_are_too_careful_or_too_sure_are_scaled(classes, factor):
    rng = np.random.default_rng(0)
    logits = 2.0 * rng.normal(size=(4000, classes))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)  # a softmax of the logits
    f = logits[:, 1:] - logits[:, :1] if classes == 2 else logits
    shares = mixture(Classes(labels, np.ones(4000), classes), np.stack([f / factor] * 2))
    assert shares.sum() == pytest.approx(factor, rel=0.1)
