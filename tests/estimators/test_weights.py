"""Weights count rows, those of classes move them: against plain loops, and repeated rows."""

import warnings

import numpy as np
import pytest

from mgnet.estimators import KANClassifier, KANRegressor
from mgnet.estimators.weights import class_factors, counted, counted_rows

SMALL = {"ensemble": 3, "intervals": 2, "levels": 1, "hidden": 2}
SINGLE = {"ensemble": 1, "hidden": 2, "levels": 1, "max_iter": 4}


def table(rows=60, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, (rows, 2))
    y = np.sin(3.0 * x[:, 0]) + x[:, 1] + 0.3 * rng.normal(size=rows)
    return x, np.digitize(y, np.linspace(-0.5, 0.5, classes - 1))


def test_what_counts_as_numbers_of_rows():
    """Whole numbers, also over a power of two; no decimals, which would be rows without end."""
    rng = np.random.default_rng(0)
    times, once = rng.integers(1, 3000, 50), np.ones(50, dtype=int)
    times[:2] = 1, 2
    for scale in (1.0, 6.0, 2.0**-40, 2.0**-1000):
        counts, rows = counted(times * scale, once)
        assert np.array_equal(counts, times) and np.array_equal(rows, times)
    others = [
        rng.uniform(size=50),
        rng.uniform(size=50).astype(np.float32).astype(float),
        0.1 * times,
        np.round(rng.uniform(0.01, 1.0, 50), 2),
        np.ldexp(1.0, -20 * np.arange(50)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for given in others:
            for repeats in (once, 7 * once, times):
                counts, rows = counted(given, repeats)
                known = once if np.ptp(repeats) == 0 else times
                assert np.array_equal(rows, known) and counts.sum() == pytest.approx(known.sum())
                np.testing.assert_allclose(counts / given, counts[0] / given[0])
        counts, _ = counted(np.array([0.5, 1e-300, 5e-324]), once[:3])
    assert counts.sum() == pytest.approx(3.0)


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_counted(seed):
    """Drawn tables of few different rows, beside a loop."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 2, (40, 2)).astype(float), rng.integers(0, 2, 40)
    for weights in (None, rng.integers(0, 4, 40) / 8.0, rng.uniform(0.1, 1.0, 40)):
        for factors in (None, np.array([1.0, 5.0])):
            known, repeats = {}, {}
            for n, key in enumerate(zip(*x.T, y, strict=True)):
                w = 1.0 if weights is None else weights[n]
                if w:
                    known[key], repeats[key] = known.get(key, 0.0) + w, repeats.get(key, 0) + 1
            found = counted_rows(x, y, weights, factors)
            keys = list(zip(*found[0].T, found[1], strict=True))
            assert sorted(keys) == sorted(known)
            whole = weights is None or weights.max() < 0.5
            rows = [known[key] * (1 if weights is None else 8) for key in keys]
            rows = np.array(rows if whole else [repeats[key] for key in keys])
            np.testing.assert_allclose(found[3], rows)
            expected = [known[key] * (1.0 if factors is None else factors[key[-1]]) for key in keys]
            np.testing.assert_allclose(found[2], expected / np.sum(expected) * rows.sum())


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 1, 1: 2, 2: 3}, {0: 0.3, 2: 1.7}])
@pytest.mark.parametrize("settings", [SMALL, SINGLE])
def test_weights_are_repeated_rows_with_weights_of_classes_too(settings, class_weight):
    x, y = table()
    times = np.random.default_rng(1).integers(0, 4, 60)
    rows = np.repeat(np.arange(60), times)
    made = KANClassifier(**settings, class_weight=class_weight)
    weighted = made.fit(x, y, sample_weight=times).predict_proba(x)
    repeated = made.fit(x[rows], y[rows]).predict_proba(x)
    np.testing.assert_allclose(weighted, repeated, atol=1e-10)


def test_equal_weights_of_classes_change_nothing():
    """Also where many rows are the same."""
    x, y = table()
    x = np.rint(2.0 * x)
    plain = KANClassifier(**SMALL).fit(x, y).predict_proba(x)
    ones = KANClassifier(**SMALL, class_weight={0: 4, 1: 4, 2: 4}).fit(x, y).predict_proba(x)
    assert np.array_equal(ones, plain)


@pytest.mark.parametrize("kind", [KANRegressor, KANClassifier])
def test_weights_that_are_nearly_the_same_leave_the_rows_of_a_table_of_few_values(kind):
    """2000 rows of 32 kinds are no table of 32 rows."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (2000, 2)).astype(float)
    y = (rng.uniform(size=2000) < 0.3 + 0.1 * x[:, 0]).astype(int)
    answers = [
        made.predict_proba(x)[:, 1] if kind is KANClassifier else made.predict(x)
        for weights in (None, 1.0 + 1e-9 * rng.uniform(size=2000))
        for made in [kind(ensemble=2, levels=1).fit(x, y, sample_weight=weights)]
    ]
    assert np.ptp(answers[0]) > 0.2
    np.testing.assert_allclose(*answers, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_row_with_most_of_the_weight_is_trained_on(seed):
    """By every member, also where weights are no numbers of rows."""
    rng = np.random.default_rng(seed)
    x, weights = rng.normal(size=(30, 2)), rng.uniform(0.1, 1.0, 30)
    y, weights[7] = rng.normal(size=30), 1e3 * np.pi
    y[7] = 40.0
    made = KANRegressor(random_state=seed).fit(x, y, sample_weight=weights)
    assert made.predict(x[7:8]) == pytest.approx(40.0, abs=0.04)


@pytest.mark.parametrize("gone", [0, 1, 2])
@pytest.mark.parametrize("settings", [SMALL, SINGLE])
def test_a_class_of_weight_zero_is_none(settings, gone):
    x, y = table()
    shares = {k: 0.0 if k == gone else 1.0 for k in range(3)}
    made = KANClassifier(**settings, class_weight=shares).fit(x, y)
    others = KANClassifier(**settings).fit(x[y != gone], y[y != gone])
    assert made.classes_.tolist() == others.classes_.tolist() == [k for k in range(3) if k != gone]
    np.testing.assert_allclose(made.predict_proba(x), others.predict_proba(x), atol=1e-10)


def test_weights_of_classes_that_are_none():
    x, y = table()
    wrong = [{0: -1.0}, {0: np.nan}, {0: np.inf}, {0: "2"}, {0: None}, {0: 10**400}, {0: [1.0]}]
    for class_weight in wrong:
        with pytest.raises(ValueError, match="got class_weight .*; weights of classes must"):
            KANClassifier(**SMALL, class_weight=class_weight).fit(x, y)
    for class_weight, words in [
        ({0: 1.0, 1: 0.0, 2: 0.0}, "rows of one class only, 0; it needs two classes"),
        ({0: 0.0, 1: 0.0, 2: 0.0}, "rows of weight 0 alone; it needs two classes"),
        ({0: 1.0, 1: 1.0, 7: 1.0}, r"classes, \[2\], are not in class_weight"),
        ("even", "class_weight"),
        ([1.0, 2.0, 3.0], "class_weight"),
    ]:
        with pytest.raises(ValueError, match=words):
            KANClassifier(**SMALL, class_weight=class_weight).fit(x, y)


def test_factors_of_any_size():
    y = np.repeat([0, 1, 2], 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sizes in ([1e-300, 1.0, 1e300], [1e308, 1e308, 1.0], [5e-324, 1e-320, 1e-310]):
            found = class_factors("KANClassifier", dict(enumerate(sizes)), y, None)
            x = np.arange(15.0)[:, None]
            counts = counted_rows(x, y, None, found[::5])[2]
            assert np.isfinite(counts).all() and counts.sum() == pytest.approx(15.0)
    weights = np.r_[np.zeros(5), np.ones(5), np.full(5, 3.0)]
    balanced = class_factors("KANClassifier", "balanced", y, weights)
    totals = np.bincount(y, weights * balanced)
    np.testing.assert_allclose(totals, [0.0, 10.0, 10.0])
