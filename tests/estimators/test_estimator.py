"""Columns that never varied move no prediction; a weight is a number of rows."""

import pickle
import warnings
from fractions import Fraction

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingRegressor,
    StackingClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from mgnet.estimators import KANClassifier, KANRegressor, estimator
from mgnet.estimators.rows import validation_rows
from mgnet.estimators.training_budget import TrainingBudget

SMALL = {"ensemble": 1, "hidden": 3, "intervals": 2, "levels": 2}
ENSEMBLE = {"ensemble": 2, "intervals": 2, "levels": 1, "hidden": 2}


def table(rows=200, seed=0):
    x = np.random.default_rng(seed).uniform(-1.0, 1.0, (rows, 2))
    return x, np.exp(x[:, 0]) * np.sin(3 * x[:, 1])


def fitted(kind, x, y, **settings):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = kind(**{**SMALL, "max_iter": 4, **settings}).fit(x, y)
    return made, [str(one.message) for one in said if one.category is UserWarning]


def answers(made, x):
    return made.predict_proba(x) if isinstance(made, KANClassifier) else made.predict(x)


# Fits that fail


@pytest.mark.parametrize("ensemble", [1, 2])
@pytest.mark.parametrize("kind", [KANRegressor, KANClassifier])
def test_a_fit_that_fails_leaves_nothing(kind, ensemble):
    """A network of one table with the scales of another would be wrong without a word."""

    def interrupt(*_):
        raise KeyboardInterrupt

    x, y = table(40)
    y = y if kind is KANRegressor else y > 0.0
    made = kind(ensemble=ensemble, hidden=2, levels=1, max_iter=2)
    for fail, error in [
        (lambda: made.fit(x, y, budget=TrainingBudget(progress=interrupt)), KeyboardInterrupt),
        (lambda: made.fit(100.0 + x, y, sample_weight=np.ones(3)), ValueError),
        (lambda: made.set_params(hidden=10**9).fit(100.0 + x, y), ValueError),
    ]:
        expected = made.set_params(hidden=2).fit(x, y).predict(x)
        if ensemble == 1 and error is KeyboardInterrupt:  # it keeps the first sweep
            continue
        with pytest.raises(error):
            fail()
        with pytest.raises(NotFittedError):
            made.predict(x)
        assert np.array_equal(made.set_params(hidden=2).fit(x, y).predict(x), expected)


# Columns that never varied


UNSEEN = [0.0, 1.0, -1e6, 1e308, -1e308, 5e-324]


@pytest.mark.parametrize("kind", [KANRegressor, KANClassifier])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e308, -1e308, 1e-308, "conversions"])
def test_a_column_that_never_varied_is_left_out(kind, value):
    """Bit for bit the network of the table without it, whatever value it takes later."""
    rng = np.random.default_rng(3)
    x, y = table(60)
    y = y if kind is KANRegressor else y > 0.0
    column = rng.choice([0.1, 0.3 / 3.0, 1.1 - 1.0], 60) if value == "conversions" else value
    column = np.broadcast_to(column, 60)
    wide = np.column_stack([x[:, 0], column, x[:, 1], column])
    plain, nothing = fitted(kind, x, y)
    made, said = fitted(kind, wide, y)
    assert not nothing and made.n_features_in_ == 4
    assert said == [
        f"{kind.__name__} got the same value in all training rows in columns 1, 3; "
        "predictions do not depend on them"
    ]
    new, _ = table(20, seed=5)
    for unseen in UNSEEN:
        new_wide = np.column_stack([3 * new[:, 0], np.full(20, unseen), new[:, 1], -column[:20]])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            expected = answers(plain, new * [3, 1])
            for again in (made, pickle.loads(pickle.dumps(made))):
                assert np.array_equal(answers(again, new_wide), expected)


@pytest.mark.parametrize("kind", [KANRegressor, KANClassifier])
def test_a_category_that_no_row_has(kind):
    """One-hot columns in a pipeline: the category occurs in a fold, or in later rows, alone."""
    rng = np.random.default_rng(4)
    names = rng.choice(["a", "b"], 60)
    y = rng.normal(size=60) + (names == "a")
    y = y if kind is KANRegressor else y > 0.5
    hot = make_pipeline(
        OneHotEncoder(categories=[["a", "b", "rare"]], sparse_output=False),
        kind(**SMALL, max_iter=3),
    )
    with pytest.warns(UserWarning, match="in column 2; predictions do not depend on it"):
        hot.fit(names[:, None], y)
    with pytest.warns(UserWarning, match="column 2"):
        assert np.all(np.isfinite(cross_val_score(clone(hot), names[:, None], y, cv=2)))
    rows = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    seen, rare = answers(hot[-1], rows)
    assert np.array_equal(seen, rare)


@pytest.mark.parametrize("kind", [KANRegressor, KANClassifier])
def test_a_column_that_varies_in_validation_rows_alone(kind):
    x, y = table(60)
    y = y if kind is KANRegressor else y > 0.0
    strata = np.zeros(60) if kind is KANRegressor else y
    kept = validation_rows(strata, 0.1, seed=0)
    wide = np.column_stack([x, np.where(kept, np.arange(60.0), 7.0)])
    plain, _ = fitted(kind, x, y)
    made, said = fitted(kind, wide, y)
    assert len(said) == 1 and "column 2" in said[0]
    assert np.array_equal(answers(made, wide), answers(plain, x))
    whole, said = fitted(kind, wide, y, early_stopping=False)
    assert not said and whole.network_.widths[0] == 3


@pytest.mark.parametrize("kind", [KANRegressor, KANClassifier])
def test_no_column_varies(kind):
    rng = np.random.default_rng(5)
    y = rng.normal(size=50) if kind is KANRegressor else rng.integers(0, 3, 50)
    made, said = fitted(kind, np.full((50, 2), 4.0), y, max_iter=40, early_stopping=False)
    assert len(said) == 1 and "columns 0, 1" in said[0]
    found = answers(made, np.array([[4.0, 4.0], [1e308, 0.0], [-3.0, 5.0]]))
    mean = y.mean() if kind is KANRegressor else np.bincount(y) / 50
    np.testing.assert_allclose(found, np.broadcast_to(mean, found.shape), rtol=1e-3)


def test_many_constant_columns_are_named_in_short():
    x, y = table(40)
    _, (said,) = fitted(KANRegressor, np.column_stack([np.zeros((40, 20)), x]), y)
    assert "columns 0, 1, 2, 3, 4, 5, 6, 7 and 12 more; predictions" in said


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0, 1e-300, 5e-324, 1e300, -1.7e308])
def test_a_target_that_never_varies_is_predicted_as_it_is(value):
    x, y = table(40)
    both = np.column_stack([np.full(40, value), y])
    for target in (both[:, 0], both):
        made, _ = fitted(KANRegressor, x, target)
        far = np.r_[x, [[1e3, -1e3]]]
        assert np.all(made.predict(far).reshape(41, -1)[:, 0] == value)


def test_one_class_is_refused():
    x, _ = table(20)
    for labels, weights in [(np.zeros(20), None), (np.arange(20) < 3, np.arange(20) >= 3)]:
        with pytest.raises(ValueError, match="rows of one class only"):
            KANClassifier(**SMALL).fit(x, labels, sample_weight=weights)


# Weights


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("kind", [KANRegressor, KANClassifier])
@pytest.mark.parametrize("seed", range(3))
def test_a_weight_is_a_number_of_rows(kind, seed, early):
    rng = np.random.default_rng(seed)
    x, y = table(60, seed)
    y = y + rng.normal(size=60)
    y = y if kind is KANRegressor else np.digitize(y, [-1.0, 0.5])
    times = rng.integers(0, 4, 60)
    order = rng.permutation(60)
    settings = {**SMALL, "max_iter": 6, "early_stopping": early}
    weighted = kind(**settings).fit(x[order], y[order], sample_weight=times[order])
    repeated = kind(**settings).fit(np.repeat(x, times, 0), np.repeat(y, times, 0))
    halves = kind(**settings).fit(x, y, sample_weight=0.5 * times)
    new = 1.5 * table(50, seed + 9)[0]
    for other in (repeated, halves):
        np.testing.assert_allclose(answers(weighted, new), answers(other, new), rtol=0, atol=1e-10)
    score = weighted.score(x, y, sample_weight=times)
    assert score == pytest.approx(weighted.score(np.repeat(x, times, 0), np.repeat(y, times, 0)))
    plain, ones = kind(**settings).fit(x, y), kind(**settings).fit(x, y, sample_weight=np.ones(60))
    assert np.array_equal(answers(plain, new), answers(ones, new))
    assert not np.allclose(answers(plain, new), answers(weighted, new), atol=1e-6)


@pytest.mark.parametrize("early", [False, True])
def test_a_row_of_weight_zero_says_nothing(early):
    x, y = table(60)
    weights = np.arange(60) % 3 * 1.0
    wild_x, wild_y = x.copy(), y.copy()
    wild_x[weights == 0.0], wild_y[weights == 0.0] = 1e300, -1e300
    settings = {**SMALL, "max_iter": 5, "early_stopping": early}
    one = KANRegressor(**settings).fit(wild_x, wild_y, sample_weight=weights)
    rest = KANRegressor(**settings).fit(*(part[weights > 0.0] for part in (x, y, weights)))
    assert np.array_equal(one.predict(x), rest.predict(x))
    labels = np.where(weights == 0.0, "none", np.where(y > 0.0, "up", "down"))
    classes = KANClassifier(**settings).fit(x, labels, sample_weight=weights).classes_
    assert classes.tolist() == ["down", "up"]


@pytest.mark.parametrize("kind", [KANRegressor, KANClassifier])
def test_scores_refuse_weights_of_nothing(kind):
    x, y = table(30)
    y = y if kind is KANRegressor else y > 0.0
    made = kind(**SMALL, max_iter=2).fit(x, y)
    for weights, words in [
        (np.zeros(30), f"{kind.__name__} got a sample_weight of zeros"),
        (-np.ones(30), "Negative"),
        (np.ones(29), "expected"),
    ]:
        for call in (made.score, clone(made).fit):
            with pytest.raises(ValueError, match=words):
                call(x, y, sample_weight=weights)


def test_weights_pass_through_whatever_takes_estimators():
    x, y = table(60)
    up, weights = y > 0.0, np.random.default_rng(0).uniform(0.1, 2.0, 60)
    regressor = KANRegressor(**SMALL, max_iter=3)
    classifier = KANClassifier(**SMALL, max_iter=3)
    direct = regressor.fit(x, y, sample_weight=weights).predict(x)
    pipeline = make_pipeline(MinMaxScaler((-1.0, 1.0)), regressor)
    through = pipeline.fit(x, y, kanregressor__sample_weight=weights).predict(x)
    np.testing.assert_allclose(through, direct, rtol=0, atol=1e-7)
    boosted = AdaBoostClassifier(classifier, n_estimators=2, random_state=0).fit(x, up, weights)
    assert boosted.score(x, up, weights) > 0.8
    assert AdaBoostRegressor(regressor, n_estimators=2).fit(x, y, weights).score(x, y) > 0.5
    assert BaggingRegressor(regressor, n_estimators=2).fit(x, y, weights).score(x, y) > 0.5
    with config_context(enable_metadata_routing=True):
        routed = clone(regressor).set_fit_request(sample_weight=True)
        routed = routed.set_score_request(sample_weight=True)
        folds = cross_validate(
            routed, x, y, cv=KFold(2), params={"sample_weight": weights}, return_estimator=True
        )
        half = slice(30, 60)
        alone = clone(regressor).fit(x[half], y[half], sample_weight=weights[half])
        assert np.array_equal(folds["estimator"][0].predict(x), alone.predict(x))
        first = slice(0, 30)
        expected = alone.score(x[first], y[first], sample_weight=weights[first])
        assert folds["test_score"][0] == expected


@pytest.mark.parametrize("settings", [{}, {"optimizer": "lbfgs"}, {"hidden": 10**12}])
def test_a_network_beyond_the_memory_is_refused_before_it_is_built(monkeypatch, settings):
    monkeypatch.setattr(estimator, "KAN", None)  # nothing may be built
    x = np.random.default_rng(0).normal(size=(10, 20_000))
    count = "about 1e18" if "hidden" in settings else str(20_001 * 8 * 19)
    with pytest.raises(ValueError, match=f"the finest network has {count} parameters"):
        KANRegressor(ensemble=1, **settings).fit(x, x[:, 0])


@pytest.mark.parametrize("odd", [10**400, Fraction(10**400), float("inf"), None, "1e999"])
def test_objects_that_are_no_finite_doubles(odd):
    x, y = table(20)
    row, column = x.astype(object), y.astype(object)
    row[3, 1] = column[3] = odd
    made = KANRegressor(**SMALL, max_iter=1).fit(x, y)
    words = "beyond the largest double|NaN|infinit|expects is finite"
    for call in (
        lambda: KANRegressor().fit(row, y),
        lambda: KANRegressor().fit(x, column),
        lambda: KANRegressor().fit(x, y, sample_weight=column),
        lambda: KANClassifier().fit(row, y > 0.0),
        lambda: made.predict(row),
        lambda: made.score(x, column),
    ):
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize("kind", [KANRegressor, KANClassifier])
def test_verbose_tells_every_level_and_changes_nothing(kind, capsys):
    x, y = table(60)
    y = y if kind is KANRegressor else (y > 0.0).astype(int)
    quiet, _ = fitted(kind, x, y)
    assert capsys.readouterr().err == ""
    told, _ = fitted(kind, x, y, verbose=True)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines][:1] == ["sweep 1, level 1"]
    assert {line.split(", level ")[1][0] for line in lines} <= {"0", "1"}
    assert f"loss {told.loss_curve_[0]:.2e}" in lines[0]
    np.testing.assert_array_equal(answers(told, x), answers(quiet, x))
    for wrong in (2, "yes", None):
        with pytest.raises(ValueError, match=f"{kind.__name__} got verbose .*; it must be True or"):
            kind(verbose=wrong).fit(x, y)


# In what takes estimators


@pytest.mark.parametrize("routing", [False, True])
def test_in_what_takes_estimators(routing):
    """With metadata routing and without; weights are repeated rows there, too."""
    x, y = table(80)
    classes, times = np.digitize(y, [-0.5, 0.5]), np.random.default_rng(0).integers(1, 3, 80)
    rows = np.repeat(np.arange(80), times)
    with config_context(enable_metadata_routing=routing):
        regressor, classifier = KANRegressor(**ENSEMBLE), KANClassifier(**ENSEMBLE)
        for made in (regressor, classifier) if routing else ():
            made.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        targets_of = {
            TransformedTargetRegressor(regressor, func=np.sinh, inverse_func=np.arcsinh): y,
            MultiOutputRegressor(regressor): np.column_stack([y, -y]),
            MultiOutputClassifier(classifier): np.column_stack([classes, classes > 0]),
        }
        for meta, target in targets_of.items():
            weighted = meta.fit(x, target, sample_weight=times).predict(x)
            repeated = meta.fit(x[rows], target[rows]).predict(x)
            np.testing.assert_allclose(weighted, repeated, atol=1e-9)
        calibrated = CalibratedClassifierCV(classifier, cv=2).fit(x, classes, sample_weight=times)
        assert calibrated.score(x, classes) > 0.6
        bagged = BaggingRegressor(regressor, n_estimators=2, random_state=0)
        assert bagged.fit(x, y, sample_weight=times).score(x, y) > 0.6
        stacked = StackingClassifier([("a", classifier), ("b", clone(classifier))], cv=2)
        assert stacked.fit(x, classes).score(x, classes) > 0.6
        search = GridSearchCV(regressor, {"degree": [1, 3]}, cv=2).fit(x, y, sample_weight=times)
        ranked = permutation_importance(search, x, y, n_repeats=3, random_state=0)
        assert (ranked.importances_mean > 0.2).all()


def test_a_budget_is_routed_to_one_fit():
    x, y = table(60)
    with config_context(enable_metadata_routing=True):
        routed, budget = KANRegressor(**ENSEMBLE).set_fit_request(budget=True), TrainingBudget()
        pipeline = make_pipeline(StandardScaler(), routed).fit(x, y, budget=budget)
        assert pipeline.score(x, y) > 0.5 and budget.seconds > 0.0
        search = GridSearchCV(routed, {"degree": [1, 2]}, cv=2, error_score="raise")
        with pytest.raises(ValueError, match="a TrainingBudget got a second training"):
            search.fit(x, y, budget=TrainingBudget())


def test_a_budget_is_of_one_training():
    """The best network of another table is none of this."""
    x, y = table(60)
    for settings in (ENSEMBLE, SMALL):
        budget = TrainingBudget(**({} if settings is ENSEMBLE else {"sweeps": 3}))
        made = KANRegressor(**settings)
        made.fit(x, y, budget=budget)
        with pytest.raises(ValueError, match="a TrainingBudget got a second training; make one"):
            made.fit(x, 100.0 - y, budget=budget)
        for wrong in (3, "long", [budget]):
            with pytest.raises(TypeError, match="KANRegressor got budget .*; it must be a Trainin"):
                made.fit(x, y, budget=wrong)
    for limits in ({"sweeps": 3}, {"evaluations": 70.0}):
        with pytest.raises(ValueError, match="got a budget of .* limit the seconds alone, or give"):
            KANRegressor(**ENSEMBLE).fit(x, y, budget=TrainingBudget(**limits))
