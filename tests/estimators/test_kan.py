"""The estimators keep scikit-learn's contract, learn, and choose by the rows kept for that."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_friedman1
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from mgnet.estimators import KANClassifier, KANRegressor
from mgnet.estimators.budgeted_training import train_within
from mgnet.estimators.training_budget import TrainingBudget

SMALL = {"ensemble": 1, "hidden": 3, "intervals": 2, "levels": 2}


ENSEMBLE = {"ensemble": 2, "hidden": 2, "intervals": 2, "levels": 1}


@parametrize_with_checks(
    [
        KANRegressor(**SMALL, max_iter=20),
        KANClassifier(**SMALL, max_iter=4),
        KANRegressor(**ENSEMBLE),
        KANClassifier(**ENSEMBLE),
        KANRegressor(),
        KANClassifier(),
    ]
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


def table(rows=200, seed=0):
    x = np.random.default_rng(seed).uniform(-1.0, 1.0, (rows, 2))
    return x, np.exp(x[:, 0]) * np.sin(3 * x[:, 1])


def test_a_smooth_function_is_learned_and_a_seed_repeats_it():
    x, y = table()
    x_new, y_new = table(seed=1)
    first = KANRegressor(3, ensemble=1, levels=2, roughness=1e-9, max_iter=40).fit(x, y)
    assert first.score(x_new, y_new) > 0.999
    assert len(first.loss_curve_) == first.n_iter_ <= 40
    for again in (clone(first).fit(x, y), pickle.loads(pickle.dumps(first))):
        assert np.array_equal(again.predict(x_new), first.predict(x_new))
    other = clone(first).set_params(random_state=1).fit(x, y)
    assert not np.array_equal(other.predict(x_new), first.predict(x_new))


def test_several_outputs_and_no_hidden_layer():
    x, _ = table()
    y = np.column_stack([x[:, 0] ** 2 + x[:, 1], 50.0 - x[:, 1]])
    kan = KANRegressor((), ensemble=1, levels=1, roughness=1e-9, max_iter=20).fit(x, y)
    assert kan.network_.widths == (2, 2)
    assert np.allclose(kan.predict(x), y, atol=1e-2)
    # beyond the data, where a sum of functions goes on linearly
    line = LinearRegression().fit(x, y[:, 1])
    assert kan.predict([[0.0, 3.0]])[0, 1] == pytest.approx(line.predict([[0.0, 3.0]])[0], rel=1e-2)


def test_noise_is_held_by_early_stop():
    x, y = make_friedman1(100, 5, noise=3.0, random_state=0)
    x_new, y_new = make_friedman1(500, 5, random_state=1)
    settings = {"ensemble": 1, "hidden": 3, "roughness": 1e-9, "max_iter": 25}
    stopped = KANRegressor(**settings).fit(x, y)
    endless = KANRegressor(**settings, early_stopping=False, tol=-1.0).fit(x, y)
    assert endless.n_iter_ == 25 > stopped.n_iter_
    assert stopped.score(x_new, y_new) > endless.score(x_new, y_new) + 0.1


def test_a_budget_of_ones_own():
    x, y = table(40)
    told = []
    budget = TrainingBudget(sweeps=7, progress=lambda *values: told.append(values))
    kan = KANRegressor(**SMALL).fit(x, y, budget=budget)
    assert kan.n_iter_ == len(told) == len(budget.history) == 7


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"optimizer": "newton"},
            "KANRegressor got optimizer 'newton'; it must be auto, lm, lbfgs or adam",
        ),
        ({"max_iter": 0}, "max_iter 0, .* must be positive"),
        ({"seconds": -1.0}, "seconds -1.0; they must be positive"),
        ({"validation_fraction": 1.0}, "validation_fraction 1.0; it must lie between"),
        ({"roughness": -1.0}, "roughness -1.0; it must be finite and not negative"),
        ({"hidden": (3, 0)}, r"hidden \(3, 0\); give a positive integer"),
        ({"levels": 0}, "levels 0 and degree 3; give positive integers"),
        ({"cycle": "V(1"}, "character"),
    ],
)
def test_refusals(settings, words):
    with pytest.raises(ValueError, match=words):
        KANRegressor(ensemble=1, **settings).fit(*table(20))
    if "solver" in settings:
        with pytest.raises(ValueError, match="KANClassifier got optimizer 'lm'"):
            KANClassifier(optimizer="lm").fit(table(20)[0], np.arange(20) % 2)


def test_one_sentence_without_scikit_learn():
    code = "import sys; sys.modules['sklearn'] = None; import mgnet.estimators"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = told.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: mgnet.estimators needs scikit-learn")
    assert "pip install" in last


@pytest.mark.parametrize("kind", [KANRegressor, KANClassifier])
def test_rows_are_trained_on_or_kept_never_both(kind, monkeypatch):
    met = []

    def spy(budget, hierarchy, cycle, steps, held_out, *others):
        met.append((hierarchy[0].operator, held_out))
        return train_within(budget, hierarchy, cycle, steps, held_out, *others)

    monkeypatch.setattr("mgnet.estimators.estimator.train_within", spy)
    x, y = table(100)
    target = y if kind is KANRegressor else y > 0.0
    made = kind(**SMALL, max_iter=2, validation_fraction=0.3, roughness=0.0).fit(x, target)
    kind(**SMALL, max_iter=2, early_stopping=False, roughness=0.0).fit(x, target)
    (trained, held_out), (all_of_them, nothing) = met
    parts = [problem.data[0] for problem in (trained, held_out)]
    assert len(parts[0]) in (70, 71) and sum(map(len, parts)) == 100
    together = torch.cat(parts)
    whole = made.scales_.inputs(x)
    assert torch.equal(*(part[part[:, 0].argsort()] for part in (together, whole)))
    assert nothing is None and torch.equal(all_of_them.data[0], whole)


# Units


POWERS = [-1000, -560, -100, -1, 100, 500, 1000]


@pytest.mark.parametrize("power", POWERS)
def test_targets_in_another_unit(power):
    """By a power of two: the same digits, over the whole range of the format."""
    x, y = table(60)
    new, y_new = table(30, seed=1)
    new = 1.5 * new
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, other = (KANRegressor(**SMALL, max_iter=5).fit(x, np.ldexp(y, p)) for p in (0, power))
        assert np.array_equal(other.predict(new), np.ldexp(one.predict(new), power))
        assert other.score(new, np.ldexp(y_new, power)) == one.score(new, y_new)
    assert one.score(x, y) == pytest.approx(r2_score(y, one.predict(x)), rel=1e-14)


@pytest.mark.parametrize("kind", [KANRegressor, KANClassifier])
@pytest.mark.parametrize("power", [*POWERS, 1022])
def test_inputs_in_another_unit(kind, power):
    x, y = table(60)
    y = y if kind is KANRegressor else y > 0.0
    new = 1.9 * table(30, seed=1)[0]
    ask = kind.predict if kind is KANRegressor else kind.predict_proba
    powers = np.array([power, -power if power < 1000 else 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = kind(**SMALL, max_iter=4).fit(x, y)
        other = kind(**SMALL, max_iter=4).fit(np.ldexp(x, powers), y)
        assert np.array_equal(ask(other, np.ldexp(new, powers)), ask(one, new))


@pytest.mark.parametrize("seed", range(3))
def test_units_that_are_no_powers_of_two(seed):
    """Subnormal numbers, single precision, the ends of the range, and small changes far from 0."""
    rng = np.random.default_rng(seed)
    x, y = table(60, seed)
    expected = KANRegressor(**SMALL, max_iter=10).fit(x, y).score(x, y)
    largest, single = np.finfo(float).max, np.finfo(np.float32)
    y_range = y / np.abs(y).max()
    cases = [
        (x, y * 10.0 ** -rng.integers(150, 308)),
        (x, y * 10.0 ** rng.integers(150, 307)),
        (x, y_range * largest),
        (x, y * 1e-312),
        (x, 1e300 + 1e290 * y),
        (x * largest, y),
        (x * 1e-312, y),
        (1e300 + 1e292 * x, y),
        (x.astype(np.float32) * single.max, y),
        (x.astype(np.float32), (y * 1e-38).astype(np.float32)),
        (x.astype(np.float32), (y_range * single.max).astype(np.float32)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for X, Y in cases:
            made = KANRegressor(**SMALL, max_iter=10).fit(X, Y)
            assert made.score(X, Y) == pytest.approx(expected, abs=3e-3), (X[0], Y[0])


def test_far_beyond_the_range_there_is_a_number_or_infinity():
    x, y = table(60)
    made = KANRegressor(**SMALL, max_iter=4).fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        far = made.predict([[1e308, -1e308], [1e308, 1e308], [-1e300, 0.0]])
        assert not np.isnan(far).any()
        assert np.isfinite(far[2])
        assert made.score(x, 1e-300 * y) < -1e300
    slope = made.predict([[-1e3, 0.0]]) - made.predict([[-2e3, 0.0]])
    assert far[2] == pytest.approx(-1e297 * slope[0], rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_a_row_that_is_most_of_the_table_is_trained_on(seed):
    x, y = table(40)
    x, y = np.r_[np.zeros((400, 2)), x], np.r_[np.full(400, 3.0), y]
    made = KANRegressor(**SMALL, max_iter=15, random_state=seed).fit(x, y)
    assert made.predict([[0.0, 0.0]]) == pytest.approx(3.0, abs=0.15)


@pytest.mark.parametrize("outputs", [1, 2])
def test_scores_take_the_outputs_of_the_fit_alone(outputs):
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (40, 2))
    y = np.sin(x) if outputs == 2 else np.sin(x[:, 0])
    regressor = KANRegressor(ensemble=1, levels=1, max_iter=2).fit(x, y)
    right = r2_score(y, regressor.predict(x))
    assert regressor.score(x, y) == pytest.approx(right, rel=1e-12)
    if outputs == 1:
        assert regressor.score(x, y[:, None]) == pytest.approx(right, rel=1e-12)
    for other in (np.c_[x, x], np.sin(x) if outputs == 1 else np.sin(x[:, 0])):
        with pytest.raises(ValueError, match="KANRegressor.score got y of shape .*; give the targ"):
            regressor.score(x, other)


def test_layers_are_refined_up_to_their_limits():
    x, y = table(60)
    kan = KANRegressor(
        ensemble=1, hidden=2, intervals=2, levels=4, most_intervals=(None, 4), max_iter=30
    )
    kan.set_params(early_stopping=False, tol=-1.0).fit(x, y)
    assert kan.network_.intervals == (16, 4)
    with pytest.raises(ValueError, match="finest network has 1639800 parameters"):
        KANRegressor(100, ensemble=1, intervals=8, levels=12, most_intervals=[2**14, 8]).fit(
            x[:, :1], y
        )
    with pytest.raises(ValueError, match="most_intervals"):
        KANRegressor(**SMALL, most_intervals=(8, 8, 8)).fit(x, y)


@pytest.mark.parametrize("given", [0, -1, 2.5, "many", None, True])
def test_starts_that_nobody_can_make(given):
    with pytest.raises(ValueError, match="n_init"):
        KANRegressor(**SMALL, n_init=given).fit(*table(30))


@pytest.mark.parametrize("starts", [1, 3])
def test_several_starts_are_trained(starts):
    x, y = table(60)
    kan = KANRegressor(
        ensemble=1, hidden=2, levels=1, n_init=starts, max_iter=5, early_stopping=False
    )
    assert kan.fit(x, y).n_iter_ == 5 * starts
    losses = np.reshape(kan.loss_curve_, (starts, 5))
    assert len(np.unique(losses[:, 0])) == starts
    kept = float(np.mean((kan.predict(x) - y) ** 2) / np.var(y))
    assert kept == pytest.approx(losses.min(), rel=0.1)  # the penalty decides, too


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("roughness", [0.0, 1e-3])
@pytest.mark.parametrize("kind", [KANRegressor, KANClassifier])
def test_many_rows_with_weights_and_without(kind, roughness, weighted):
    """So many that coarse levels see a part of them."""
    rng = np.random.default_rng(0)
    x, w = rng.uniform(-1.0, 1.0, (5000, 2)), rng.uniform(0.1, 2.0, 5000)
    y = x[:, 0] * x[:, 1]
    target = y if kind is KANRegressor else y > 0.0
    made = kind(ensemble=1, hidden=2, intervals=2, levels=2, max_iter=8, roughness=roughness)
    assert made.fit(x, target, w if weighted else None).score(x, target) > 0.9
