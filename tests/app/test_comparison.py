"""Law: the comparison trains what fits the data, one method after the other."""

import itertools
import types
from dataclasses import replace

import numpy as np
import pytest

from mgnet.app import comparison
from mgnet.app.columns.targets import Targets
from mgnet.app.comparison import baselines, perceptron, single_level
from mgnet.app.data import Data, Settings


@pytest.mark.parametrize(
    ("inputs", "names"), [(3, [*["net"] * 3, "rival", "trees"]), (4, [*["net"] * 3, "trees"])]
)
def test_splines_stop_at_three_inputs(install, inputs, names):
    x = np.ones((4, inputs))
    data = Data(tuple("abcd"[:inputs]), Targets(("y",)), x, x[:, 0], x, x[:, 0])
    trained = list(baselines(data, Settings(), seconds=2.5))
    assert [rival.name for rival in trained] == names
    assert {rival.seconds for rival in trained} == {2.5}


def test_what_is_ready_survives_an_interrupt(install):
    install("interrupt baselines")
    x = np.ones((4, 1))
    found = []
    with pytest.raises(KeyboardInterrupt):
        for rival in baselines(
            Data(("a",), Targets(("y",)), x, x[:, 0], x, x[:, 0]), Settings(), 1.0
        ):
            found.append(rival.name)
    assert found == [*["net"] * 3, "rival"]


def table(inputs=2, rows=240):
    x = np.random.default_rng(0).uniform(1.0, 3.0, (rows, inputs))
    y = 7.0 + np.prod(x, axis=1) + x[:, 0] ** 3
    cut = 3 * rows // 4
    return Data(tuple("abcd"[:inputs]), Targets(("y",)), x[:cut], y[:cut], x[cut:], y[cut:])


SMALL = Settings(hidden=(3,), intervals=2, levels=3, evaluations=1, seed=5)


def mse(one, x, y, data):
    """Over the variance of the training target, by hand."""
    spread = ((data.y - data.y.mean()) ** 2).mean()
    return ((one.predict(x) - y) ** 2).mean() / spread


def test_the_real_methods_are_judged_by_their_own_predictions():
    data = table()
    single_level(data, SMALL, "lm")  # what is compiled once takes no time from the first
    found = {one.name: one for one in baselines(data, SMALL, seconds=0.8)}
    names = ["KAN, one level, LM", "KAN, one level, L-BFGS", "tanh MLP, LM"]
    assert list(found)[:3] == names and len(found) == 5
    for one in found.values():
        assert one.train_loss == pytest.approx(mse(one, data.x, data.y, data), rel=1e-6)
        assert one.held_loss == pytest.approx(mse(one, data.x_held, data.y_held, data), rel=1e-6)
        assert one.held_loss < 0.2
    for name in names[:2]:  # (2 * 3 + 3) edges, 8 intervals and degree 3
        assert found[name].parameters == 9 * 11
        assert {level for *_, level in found[name].history} == {0}
    for name in names:  # the seconds count, not the one evaluation
        assert len(found[name].history) > 1
    spline, boosting = list(found.values())[3:]
    assert spline.held_loss < 1e-10  # the data are a cubic
    assert boosting.held_loss > spline.held_loss


@pytest.mark.parametrize(("inputs", "asked"), [(1, 30), (2, 99), (4, 500)])
def test_the_perceptron_has_about_as_many_parameters(inputs, asked):
    data, settings = table(inputs), replace(SMALL, evaluations=10)
    one = perceptron(data, settings, asked)

    def count(width):
        layers = [inputs, width, width, 1]
        return sum(a * b + b for a, b in itertools.pairwise(layers))

    nearest = min(range(2, 60), key=lambda width: abs(count(width) - asked))
    assert one.parameters == count(nearest)
    assert f"[{inputs}, {nearest}, {nearest}, 1]" in one.note
    again, other = (perceptron(data, replace(settings, seed=s), asked) for s in (5, 6))
    assert np.array_equal(one.predict(data.x), again.predict(data.x))
    assert not np.array_equal(one.predict(data.x), other.predict(data.x))


def test_without_held_out_rows_there_is_no_held_out_error():
    data = table()
    data = replace(data, x_held=data.x[:0], y_held=data.y[:0])
    settings = replace(SMALL, evaluations=5)
    assert np.isnan(perceptron(data, settings, 30).held_loss)
    assert np.isnan(single_level(data, settings, "lm").held_loss)


def test_an_interrupt_within_a_method_ends_the_comparison(monkeypatch):
    interrupted = types.SimpleNamespace(interrupted=True)
    monkeypatch.setattr(comparison, "fit", lambda *_, **__: interrupted)
    with pytest.raises(KeyboardInterrupt):
        single_level(table(), SMALL, "lm")

    def train_within(budget, hierarchy, *_):
        budget.interrupted = True
        return 0, hierarchy[0].operator.start()

    monkeypatch.setattr(comparison, "train_within", train_within)
    with pytest.raises(KeyboardInterrupt):
        perceptron(table(), SMALL, 30)
