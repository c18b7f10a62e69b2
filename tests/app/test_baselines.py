"""Laws of the rivals: they fit what they must, choose honestly and keep the time."""

from dataclasses import replace

import numpy as np
import pytest

from mgnet.app.baselines import spline
from mgnet.app.boosted_trees import boosting
from mgnet.app.columns.targets import Targets
from mgnet.app.data import Data

MODULES = {"spline": "baselines", "boosting": "boosted_trees"}


def table(function, inputs=2, rows=600, noise=0.0):
    rng = np.random.default_rng(1)
    x = rng.uniform(0.5, 2.0, (rows, inputs))
    y = function(x) + noise * rng.standard_normal(rows)
    cut = 3 * rows // 4
    names = tuple("abcd"[:inputs])
    return Data(names, Targets(("y",)), x[:cut], y[:cut], x[cut:], y[cut:])


def wave(x):
    return np.sin(3.0 * x[:, 0]) * np.prod(x, axis=1)


def fit(name, data, seconds=0.6):
    return spline(data, seconds) if name == "spline" else boosting(data, seconds, seed=0)


@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_the_spline_reproduces_cubics(inputs):
    data = table(lambda x: 5.0 + np.prod(x**3 - x, axis=1), inputs)
    assert spline(data, 0.5).held_loss < 1e-12


@pytest.mark.parametrize("name", ["spline", "boosting"])
def test_the_figures_are_those_of_the_model(name):
    data = table(wave, noise=0.05)
    trained = fit(name, data)
    variance = np.var(data.y)
    held = np.mean((trained.predict(data.x_held) - data.y_held) ** 2) / variance
    assert trained.held_loss == pytest.approx(held)
    assert trained.history[-1][2] == pytest.approx(trained.train_loss)
    assert trained.history[-1][0] == trained.seconds
    assert trained.parameters > 10
    assert np.isnan(trained.work)
    assert trained.note


@pytest.mark.parametrize("name", ["spline", "boosting"])
def test_each_beats_the_constant_by_far(name):
    assert fit(name, table(wave, rows=1500, noise=0.02)).held_loss < 0.05


def test_the_spline_does_not_fit_the_noise():
    data = table(wave, inputs=1, rows=400, noise=0.3)
    trained = spline(data, 1.0)
    x = np.linspace(0.6, 1.9, 200)[:, None]
    assert np.mean((trained.predict(x) - wave(x)) ** 2) < 0.2 * 0.3**2


@pytest.mark.parametrize("name", ["spline", "boosting"])
def test_held_out_rows_do_not_touch_the_model(name, monkeypatch):
    clock = iter(np.arange(0.0, 1e4, 0.02))
    data = table(wave, noise=0.05)
    other = replace(data, y_held=-data.y_held, x_held=data.x_held[::-1] + 0.1)
    predictions = []
    for one in (data, other):
        clock = iter(np.arange(0.0, 1e4, 0.02))  # the same time for both
        monkeypatch.setattr(
            f"mgnet.app.{MODULES[name]}.perf_counter", lambda clock=clock: next(clock)
        )
        predictions.append(fit(name, one, 2.0).predict(data.x))
    assert np.array_equal(*predictions)


@pytest.mark.parametrize("name", ["spline", "boosting"])
def test_the_seconds_are_kept(name):
    assert fit(name, table(wave, rows=3000), 1.5).seconds < 2.5


def test_four_inputs_are_refused():
    with pytest.raises(ValueError, match="got 4 inputs"):
        spline(table(wave, inputs=4), 0.1)


def test_an_input_that_does_not_vary_is_refused():
    data = table(wave)
    data.x[:, 1] = 1.0
    with pytest.raises(ValueError, match="input b does not vary"):
        spline(data, 0.1)


@pytest.mark.parametrize("rows", [4, 8])
def test_a_handful_of_rows_is_fitted_or_refused_in_words(rows):
    data = table(wave, inputs=1, rows=rows)
    try:
        assert np.isfinite(spline(data, 0.1).train_loss)
    except ValueError as error:
        assert "rows" in str(error)


def test_no_held_out_rows_give_nan():
    data = replace(table(wave), x_held=np.zeros((0, 2)), y_held=np.zeros(0))
    assert np.isnan(spline(data, 0.1).held_loss)
