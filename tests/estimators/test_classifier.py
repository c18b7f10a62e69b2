"""Probabilities of classes within the training rows and beyond; labels of every kind."""

import numpy as np
import pytest
from sklearn.datasets import make_moons
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mgnet.estimators import KANClassifier

SMALL = {"ensemble": 1, "hidden": 3, "intervals": 2, "levels": 2}
ENSEMBLE = {"ensemble": 2, "hidden": 2, "intervals": 2, "levels": 1}


def test_classes_with_names_in_a_pipeline_and_a_grid_search():
    x, labels = make_moons(160, noise=0.1, random_state=0)
    y = np.array(["lower", "upper"])[labels]
    pipeline = make_pipeline(StandardScaler(), KANClassifier(**SMALL, max_iter=5))
    search = GridSearchCV(pipeline, {"kanclassifier__roughness": [1e-5, 1e3]}, cv=2).fit(x, y)
    assert search.best_params_ == {"kanclassifier__roughness": 1e-5}
    assert search.score(x, y) > 0.95
    chances = search.predict_proba(x)
    assert np.allclose(chances.sum(1), 1.0)
    assert list(search.classes_) == ["lower", "upper"]
    far = search.predict_proba([[100.0, -100.0]])
    assert np.all(np.isfinite(far))


def test_probabilities_beyond_the_rows_are_those_at_the_nearest_place():
    """Continued linearly the network would be sure of whatever is far away."""
    x, labels = make_moons(200, noise=0.2, random_state=0)
    made = KANClassifier(**SMALL, max_iter=5, random_state=0).fit(x, labels)
    low, high = x.min(0), x.max(0)
    away = np.array([[-9.0, 0.1], [0.3, 50.0], [1e6, -1e6], [0.5, 0.2]])
    nearest = np.clip(away, low, high)
    np.testing.assert_allclose(made.predict_proba(away), made.predict_proba(nearest), rtol=1e-12)
    z = made.scales_.inputs(nearest)
    expected = np.exp(made.network_(z).detach().numpy())
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(made.predict_proba(away), expected, rtol=1e-9)


@pytest.mark.parametrize(
    "names",
    [
        ["b", "a", "ccc"],
        np.array(["b", "a", "ccc"], dtype=object),
        [-3, 10**15, 7],
        [2.0, -1.0, 0.0],
        np.array([200, 0, 7], dtype=np.uint8),
        [True, False],
    ],
)
def test_labels_of_every_kind_are_the_same_classes(names):
    """But for their order."""
    x, labels = make_moons(90, noise=0.2, random_state=0)
    labels[:20] = len(names) - 1
    known = np.asarray(names)
    made = KANClassifier(**ENSEMBLE).fit(x, known[labels])
    order = np.argsort(np.argsort(known))  # the place of each name
    plain = KANClassifier(**ENSEMBLE).fit(x, order[labels])
    assert made.classes_.tolist() == sorted(names) and made.classes_.dtype == known.dtype
    assert np.array_equal(made.predict_proba(x), plain.predict_proba(x))
    assert np.array_equal(made.predict(x), made.classes_[plain.predict(x)])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (np.array(["a", None, "b"], dtype=object), "objects of the kinds NoneType, str as label"),
        (np.array(["a", 1, 2.5], dtype=object), "kinds float, int, str as labels; give text only"),
        (np.array([0, 1, 2], dtype=object), "objects of the kinds int as labels; .* or numbers as"),
        (np.array([0.25, 1.0, 2.0]), "Unknown label type: continuous"),
        (np.array([0.0, np.nan, 2.0]), "NaN"),
        (np.array(["2026-01-01"] * 3, "datetime64[D]"), "KANClassifier got y of dates or times"),
    ],
)
def test_labels_that_are_refused(names, words):
    x, _ = make_moons(30, random_state=0)
    for turned in range(3):
        with pytest.raises(ValueError, match=words):
            KANClassifier(**ENSEMBLE).fit(x, np.roll(names, turned)[np.arange(30) % 3])
