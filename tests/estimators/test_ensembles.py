"""The default training of the estimators: weights are rows, odd tables are right or refused."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from joblib import parallel_backend
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_score

from mgnet.estimators import KANClassifier, KANRegressor
from mgnet.estimators.evidence import watch as watch_module
from mgnet.estimators.training_budget import TrainingBudget

KINDS = [KANRegressor, KANClassifier]
SMALL = {"ensemble": 2, "intervals": 2, "levels": 1, "hidden": 2}


def table(rows=60, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, (rows, 2))
    return x, np.sin(3.0 * x[:, 0]) + x[:, 1] + noise * rng.normal(size=rows)


def targets(kind, y, classes=2):
    return y if kind is KANRegressor else np.digitize(y, np.linspace(-0.5, 0.5, classes - 1))


def answers(made, x):
    return made.predict_proba(x) if isinstance(made, KANClassifier) else made.predict(x)


# Weights


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_whole_weights_are_repeated_rows(kind, seed, classes):
    """In any order, and at any scale."""
    rng = np.random.default_rng(seed)
    x, y = table(40, seed)
    y, times = targets(kind, y, classes), rng.integers(0, 5, 40)
    settings = {**SMALL, "ensemble": 3, "levels": 2, "random_state": seed}
    weighted = kind(**settings).fit(x, y, sample_weight=times)
    order = rng.permutation(times.sum())
    rows = np.repeat(np.arange(40), times)[order]
    others = [kind(**settings).fit(x[rows], y[rows])]
    others += [kind(**settings).fit(x, y, sample_weight=c * times) for c in (0.25, 3.0, 2.0**-900)]
    order = rng.permutation(40)
    others.append(kind(**settings).fit(x[order], y[order], sample_weight=times[order]))
    new = 1.5 * table(30, seed + 9)[0]
    for other in others:
        np.testing.assert_allclose(answers(other, new), answers(weighted, new), atol=1e-10)
    if kind is KANRegressor:
        std = [made.predict(new, return_std=True)[1] for made in (weighted, others[0])]
        np.testing.assert_allclose(*std, rtol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_other_weights_matter_by_their_ratios(kind):
    x, y = table()
    y, weights = targets(kind, y), np.random.default_rng(0).uniform(0.1, 3.0, 60)
    one, other = (kind(**SMALL).fit(x, y, sample_weight=c * weights) for c in (1.0, 7.3))
    np.testing.assert_allclose(answers(one, x), answers(other, x), atol=1e-7)
    plain = kind(**SMALL).fit(x, y)
    assert not np.allclose(answers(plain, x), answers(one, x), atol=1e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_class_weights_are_weights_of_rows(classes):
    x, y = table(80)
    y = targets(KANClassifier, y, classes)
    share = np.array([0.3, 1.7, 2.9])[:classes]  # no numbers of rows
    weighted = KANClassifier(**SMALL).fit(x, y, sample_weight=share[y])
    by_class = KANClassifier(**SMALL, class_weight=dict(enumerate(share))).fit(x, y)
    np.testing.assert_allclose(by_class.predict_proba(x), weighted.predict_proba(x), atol=1e-6)
    balanced = KANClassifier(**SMALL, class_weight="balanced").fit(x, y)
    own = 80.0 / (classes * np.bincount(y))
    given = KANClassifier(**SMALL, class_weight=dict(enumerate(own))).fit(x, y)
    np.testing.assert_array_equal(balanced.predict_proba(x), given.predict_proba(x))
    with pytest.raises(ValueError, match="class_weight"):
        KANClassifier(**SMALL, class_weight="odd").fit(x, y)


def test_balanced_weights_find_a_rare_class():
    x, y = table(400, noise=0.5)
    rare = y > np.quantile(y, 0.9)
    found = [
        KANClassifier(**SMALL, class_weight=w).fit(x, rare).predict(x)[rare].mean()
        for w in (None, "balanced")
    ]
    assert found[1] > max(found[0] + 0.05, 0.9)


# Standard deviations


@pytest.mark.parametrize("seed", range(3))
def test_standard_deviations_are_about_right(seed):
    x, y = table(120, seed)
    made = KANRegressor(**{**SMALL, "ensemble": 5}).fit(x, y)
    new, measured = table(2000, seed + 50)
    mean, std = made.predict(new, return_std=True)
    assert std.shape == (2000,)
    assert np.array_equal(mean, made.predict(new))
    spread = (measured - mean) / std
    assert 0.75 < np.sqrt(np.mean(spread**2)) < 1.3
    assert 0.6 < np.mean(np.abs(spread) < 1.0) < 0.78
    far = made.predict([[30.0, -30.0]], return_std=True)[1]
    assert far[0] > 3.0 * std.max()


def test_standard_deviations_in_other_units_and_of_several_targets():
    x, y = table()
    one = KANRegressor(**SMALL).fit(x, y).predict(x, return_std=True)[1]
    both = KANRegressor(**SMALL).fit(x, np.column_stack([1e200 * y, np.full(60, 3.0)]))
    mean, std = both.predict(x, return_std=True)
    assert mean.shape == std.shape == (60, 2) and not std[:, 1].any()
    np.testing.assert_allclose(std[:, 0], 1e200 * one, rtol=1e-5)
    single = KANRegressor(2, ensemble=1, intervals=2, levels=1, max_iter=2).fit(x, y)
    with pytest.raises(ValueError, match="fitted with ensemble 1; one network has no"):
        single.predict(x, return_std=True)


# What comes out


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_the_ensemble(kind, classes):
    x, y = table()
    made = kind(**{**SMALL, "ensemble": 3}).fit(x, targets(kind, y, classes))
    z = made.scales_.inputs(x)
    (own,) = made.ensembles_
    mean = torch.stack([own.network(n)(z) for n in range(3)]).mean(0).detach()
    found = made.network_(z).detach()
    if kind is KANClassifier and classes == 2:
        assert not found[:, 0].any()
        found = found[:, 1:]
    np.testing.assert_allclose(found, mean, atol=1e-6)
    assert made.n_iter_ == own.levels == len(made.loss_curve_) == 1
    for again in (clone(made).fit(x, targets(kind, y, classes)), pickle.loads(pickle.dumps(made))):
        assert np.array_equal(answers(again, x), answers(made, x))


def test_in_several_threads():
    x, y = table()
    with parallel_backend("threading"):
        one, two = (cross_val_score(KANRegressor(**SMALL), x, y, cv=2, n_jobs=n) for n in (1, 2))
    assert np.array_equal(one, two)


def test_several_targets_are_as_one_by_one():
    x, y = table()
    both = KANRegressor(**SMALL).fit(x, np.column_stack([y, x[:, 0] ** 2]))
    assert len(both.ensembles_) == 2 and both.network_.widths[-1] == 2
    alone = KANRegressor(**SMALL).fit(x, x[:, 0] ** 2)
    np.testing.assert_allclose(both.predict(x)[:, 1], alone.predict(x), atol=1e-9)


# Odd tables


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("degree", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [2, 3, 4, 7])
def test_few_rows(kind, degree, rows):
    x, y = table(rows)
    y = y if kind is KANRegressor else np.arange(rows) % 2
    made = kind(degree=degree, levels=1, ensemble=4).fit(x, y)
    assert len(made.ensembles_[0].fitted) == 2
    assert np.isfinite(answers(made, np.r_[x, [[1e9, -1e9]]])).all()


def test_straight_edges_are_refined():
    """One interval of degree 1 has no bends, finer knots do."""
    x, y = table(200, noise=0.01)
    made = KANRegressor(degree=1, ensemble=2, intervals=1, levels=4).fit(x, y)
    assert made.n_iter_ > 1 and made.network_.intervals[1] > 1 and made.score(x, y) > 0.99


@pytest.mark.parametrize("times", [None, 1.0, 50.0])
def test_one_row_again_and_again(times):
    x, y = np.tile([[0.5, -2.0]], (7, 1)), np.full(7, 4.0)
    weights = None if times is None else np.r_[times, np.zeros(6)]
    with pytest.warns(UserWarning, match="the same value in all training rows"):
        made = KANRegressor(**SMALL).fit(x, y, sample_weight=weights)
    mean, std = made.predict([[0.5, -2.0], [9.0, 9.0]], return_std=True)
    assert mean.tolist() == [4.0, 4.0] and std.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("case", ["two places", "few values", "wide", "very wide", "wild weights"])
@pytest.mark.parametrize("kind", KINDS)
def test_odd_tables(kind, case):
    rng = np.random.default_rng(0)
    x, y = table()
    weights = None
    if case == "two places":
        x = np.repeat(x[:2], 30, 0)
    elif case == "few values":
        x = np.rint(x)
    elif case == "wide":
        x = np.column_stack([x, rng.normal(size=(60, 60))])
    elif case == "very wide":
        x, y = np.column_stack([x, rng.normal(size=(60, 200))])[:30], y[:30]
    else:
        weights = 10.0 ** rng.uniform(-300.0, 300.0, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = kind(**SMALL).fit(x, targets(kind, y), sample_weight=weights)
        assert np.isfinite(answers(made, 2.0 * x)).all()
    if case == "two places" and kind is KANRegressor:
        means = np.repeat([y[:30].mean(), y[30:].mean()], 30)
        assert np.abs(made.predict(x) - means).max() < np.std(y)
    elif weights is None:
        assert made.score(x, targets(kind, y)) > 0.5


def test_more_than_fifty_columns_are_cut_and_trained():
    """So many that each keeps a line alone."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 60))
    made = KANRegressor(levels=1).fit(x, x[:, 7] - x[:, 3])
    assert made.score(x, x[:, 7] - x[:, 3]) > 0.99


@pytest.mark.parametrize("shares", ["one row", "three rows each", "separable", "rare"])
def test_odd_classes(shares):
    x, y = table()
    labels = {
        "one row": np.where(np.arange(60) == 7, 2, y > 0.0),
        "three rows each": np.arange(60) // 3 % 20 * 3,
        "separable": np.digitize(x[:, 0], [-0.3, 0.3]),
        "rare": np.arange(60) < 2,
    }[shares]
    made = KANClassifier(**SMALL).fit(x, labels)
    chances = made.predict_proba(np.r_[x, 1e6 * x])
    assert np.isfinite(chances).all() and np.allclose(chances.sum(1), 1.0)
    assert made.classes_.tolist() == np.unique(labels).tolist()
    if shares == "separable":
        assert made.score(x, labels) > 0.95


# Ends


@pytest.mark.parametrize("kind", KINDS)
def test_time_is_kept(kind, monkeypatch):
    """By a clock that goes on by a second whenever it is looked at."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            self.now += 1.0
            return self.now

    x, y = table()
    whole = kind(ensemble=3, levels=1).fit(x, targets(kind, y))
    monkeypatch.setattr(watch_module, "time", Clock())
    short = kind(ensemble=3, levels=1, seconds=0.5).fit(x, targets(kind, y))
    assert len(short.ensembles_[0].fitted) == 1 and len(whole.ensembles_[0].fitted) == 3
    assert np.isfinite(answers(short, x)).all()
    if kind is KANRegressor:
        assert np.isfinite(short.predict(x, return_std=True)[1]).all()


@pytest.mark.parametrize("targets", [1, 3])
def test_without_any_time_there_is_a_linear_model(targets):
    """Of every target, as good as least squares; with time they share it."""
    x, y = table(200, noise=0.01)
    y = np.column_stack([y, x @ [1.0, -2.0], x @ [0.0, 5.0]])[:, :targets]
    scores = r2_score(y, KANRegressor(seconds=1e-9).fit(x, y).predict(x), multioutput="raw_values")
    line = LinearRegression().fit(x, y)
    expected = r2_score(y, line.predict(x), multioutput="raw_values")
    assert (scores > expected - 0.03).all()
    up = y[:, 0] > 0.0
    expected = LogisticRegression().fit(x, up).score(x, up)
    assert KANClassifier(seconds=1e-9).fit(x, up).score(x, up) > expected - 0.03


def test_targets_share_the_time(monkeypatch):
    """By a clock that goes on by a second whenever it is looked at."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            self.now += 1.0
            return self.now

    x, y = table()
    y = np.column_stack([y, -y, 2.0 * y])
    monkeypatch.setattr(watch_module, "time", Clock())
    made = KANRegressor(seconds=300.0).fit(x, y)
    members = [len(own.fitted) for own in made.ensembles_]
    assert min(members) >= max(members) - 1 and max(members) < 5


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c(kind):
    """In the second member it leaves the first to a budget of one's own; in the first, nothing."""
    x, y = table()

    def interrupted(member):
        def tell(seconds, done, loss, level):
            told.append(done)
            if len(told) > member:
                raise KeyboardInterrupt

        told = []
        return TrainingBudget(progress=tell)

    made = kind(**{**SMALL, "ensemble": 3})
    with pytest.raises(KeyboardInterrupt):
        made.fit(x, targets(kind, y), budget=interrupted(0))
    budget = interrupted(1)
    made.fit(x, targets(kind, y), budget=budget)
    assert budget.interrupted and len(made.ensembles_[0].fitted) == 1
    assert np.isfinite(answers(made, x)).all()


def test_deviations_are_those_of_the_last_fit():
    x, y = table()
    made = KANRegressor(**SMALL).fit(x, y)
    expected = made.predict(x, return_std=True)[1]
    made.set_params(ensemble=1, max_iter=2)
    assert np.array_equal(made.predict(x, return_std=True)[1], expected)
    made.fit(x, y).set_params(ensemble=2)
    with pytest.raises(ValueError, match="was fitted with ensemble 1"):
        made.predict(x, return_std=True)


def test_steps_are_limited():
    x, y = table(200, noise=0.0)
    few, many, more = (
        KANRegressor(ensemble=2, levels=1, max_iter=n).fit(x, y) for n in (1, 30, 500)
    )
    steps = [fitted.steps for own in few.ensembles_[0].fitted for fitted in own]
    assert set(steps) == {1} and few.score(x, y) < many.score(x, y)
    assert np.array_equal(many.predict(x), more.predict(x))


def test_verbose_tells_members_and_changes_nothing(capsys):
    x, y = table()
    quiet = KANRegressor(**SMALL).fit(x, y)
    assert capsys.readouterr().err == ""
    told = KANRegressor(**SMALL, verbose=True).fit(x, y)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"level 0, member {n} of 2" for n in (1, 2)]
    assert np.array_equal(told.predict(x), quiet.predict(x))
    KANRegressor(**SMALL, verbose=True).fit(x, np.column_stack([y, y]))
    lines = [line.split(", ")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["target 1 of 2"] * 2 + ["target 2 of 2"] * 2


# Refusals


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        *[
            ({"ensemble": e}, "got ensemble .*; it must be a positive integer")
            for e in (0, 2.5, True)
        ],
        (
            {"roughness": 1e-3},
            "got roughness 0.001 and ensemble 5; roughness is for the",
        ),
        ({"most_intervals": 8}, "got most_intervals 8 and ensemble 5"),
        ({"optimizer": "lbfgs"}, "got optimizer 'lbfgs' and ensemble 5"),
        ({"cycle": "V(1,1)"}, r"got cycle 'V\(1,1\)' and ensemble 5"),
        ({"n_init": 3}, "got n_init 3 and ensemble 5; .* give ensemble=1 too, or leave it out"),
        ({"tol": 0.1}, "got tol 0.1 and ensemble 5"),
        ({"early_stopping": False}, "got early_stopping False and ensemble 5"),
        ({"validation_fraction": 0.2}, "got validation_fraction 0.2 and ensemble 5"),
        ({"seconds": 0}, "and seconds 0; they must be positive"),
        ({"intervals": (4, 4)}, r'got intervals \(4, 4\); give a positive integer or "auto"'),
        ({"intervals": 0}, "got intervals 0; give a positive integer"),
        ({"levels": 2.0}, 'got levels 2.0; give a positive integer or "auto"'),
        ({"hidden": (3, 3)}, r"got hidden \(3, 3\) and ensemble 5; .* have one hidden layer"),
        ({"hidden": ()}, r"got hidden \(\) and ensemble 5"),
        ({"hidden": 0}, "got hidden 0; give a positive integer"),
        *[({"degree": d}, "got degree .*; it must be 1, 2, 3, 4 or 5") for d in (0, 6, 2.5, None)],
        ({"hidden": 10**9}, "got hidden 1000000000, .* leave out columns, or give ensemble=1"),
        ({"intervals": 10**9}, "intervals 1000000000 and ensemble 5 for 2 inputs and 1 outputs"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_refusals(kind, settings, words):
    x, y = table(20)
    with pytest.raises(ValueError, match=f"{kind.__name__} .*{words}"):
        kind(**settings).fit(x, targets(kind, y))
