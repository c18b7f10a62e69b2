"""`fit` learns, the same for the same seed; its errors are those of its predictions."""

import _thread
from dataclasses import replace

import numpy as np
import pytest

from mgnet.app.columns.targets import Targets
from mgnet.app.data import Data, Settings, parameters
from mgnet.app.fit import fit, without_constants
from mgnet.app.model import Model
from mgnet.estimators.rows import validation_rows


def data(rows=300, held=100, seed=0):
    x = np.random.default_rng(seed).uniform([0.0, 10.0], [2.0, 30.0], (rows + held, 2))
    y = 5.0 + 100.0 * np.sin(2 * x[:, 0]) * np.exp(-x[:, 1] / 20)
    return Data(("a", "b"), Targets(("y",)), x[:rows], y[:rows], x[rows:], y[rows:])


SMALL = Settings(hidden=(3,), intervals=2, levels=3, evaluations=120, seconds=30.0)


def test_the_errors_are_those_of_the_predictions():
    own = data()
    fitted = fit(own, SMALL)
    trained = fitted.trained
    for x, y, told in (
        (own.x, own.y, trained.train_loss),
        (own.x_held, own.y_held, trained.held_loss),
    ):
        assert np.mean((fitted.model.predict(x) - y) ** 2) / np.var(own.y) == pytest.approx(told)
    assert trained.held_loss < 1e-5
    assert parameters(2, SMALL) == 9 * (8 + 3)
    assert trained.parameters == sum(p.numel() for p in fitted.model.network.parameters())
    assert {level for *_, level in trained.history} == {0, 1, 2}
    assert not fitted.interrupted


def test_a_seed_gives_the_same_model():
    first, again = (fit(data(), SMALL).model.predict(data().x_held) for _ in range(2))
    assert np.array_equal(first, again)
    other = fit(data(), Settings(**{**vars(SMALL), "seed": 1})).model.predict(data().x_held)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("optimizer", "error"), [("lbfgs", 1e-3), ("adam", 0.5)])
def test_other_optimizers(optimizer, error):
    settings = Settings(**{**vars(SMALL), "optimizer": optimizer, "evaluations": 900})
    assert fit(data(), settings).trained.held_loss < error


@pytest.mark.parametrize("cycle", ["cascade 8,6,6", "nested V(1,1,5)", "F(1,1)"])
def test_a_cycle_of_ones_own(cycle):
    settings = Settings(**{**vars(SMALL), "cycle": cycle})
    announced = []
    fitted = fit(data(), settings, announce=lambda *told: announced.append(told))
    assert fitted.trained.held_loss < 1e-3
    assert announced == [(fitted.hierarchy, fitted.schedule)]
    if cycle.startswith("cascade"):
        assert len(fitted.trained.history) == 20  # once, as it was written


def test_progress_is_told():
    told = []
    fit(data(), SMALL, progress=lambda *values: told.append(values))
    seconds, fractions, errors, levels = zip(*told, strict=True)
    assert list(seconds) == sorted(seconds)
    assert list(fractions) == sorted(fractions)
    assert 0.0 < fractions[-1] < 1.1
    assert list(levels) == sorted(levels, reverse=True)
    assert errors[-1] < errors[0]


def test_ctrl_c_keeps_the_best_network():
    settings, told = Settings(hidden=(3,), levels=3, seconds=60.0), []

    def interrupt(*values):
        told.append(values)
        if len(told) == 3:
            _thread.interrupt_main()

    fitted = fit(data(), settings, progress=interrupt)
    assert fitted.interrupted
    assert fitted.trained.seconds < 30.0
    lowest = min(mse for _, _, mse, _ in fitted.trained.history)
    assert fitted.trained.train_loss < 10.0 * lowest  # best by the validation rows


def test_refusals():
    with pytest.raises(ValueError, match="optimizer 'newton'"):
        fit(data(), Settings(optimizer="newton"))
    with pytest.raises(ValueError, match="character"):
        fit(data(), Settings(cycle="V(1"))


@pytest.mark.parametrize(("most", "finest"), [((), (8, 8)), ((4,), (4, 4)), ((8, 4), (8, 4))])
def test_layers_are_refined_up_to_their_limits(most, finest):
    settings = Settings((2,), intervals=2, levels=3, evaluations=40, most_intervals=most)
    if most == (4,):
        settings = replace(settings, levels=2)
    settings = replace(settings, validation=0.0, starts=2)
    fitted = fit(data(), settings)
    assert fitted.hierarchy[0].operator.network.intervals == finest


def test_an_option_is_as_the_setting(options):
    by_setting = fit(data(), Settings(**{**vars(SMALL), "cycle": "F(1,1)"}))
    options('-mgnet_cycle "F(1,1)"')
    by_option = fit(data(), Settings(**{**vars(SMALL), "cycle": "cascade 9,9,9"}))
    assert np.array_equal(*(f.model.predict(data().x_held) for f in (by_setting, by_option)))


def test_fewer_levels_from_the_finest(options):
    coarser = Settings(**{**vars(SMALL), "intervals": 4, "levels": 2, "cycle": "cascade 3,2"})
    expected = fit(data(), coarser).model.predict(data().x_held)
    options('-mgnet_levels 2 -mgnet_cycle "cascade 3,2"')
    fitted = fit(data(), SMALL)
    assert len(fitted.hierarchy) == 2
    assert fitted.trained.parameters == parameters(2, SMALL)
    assert fitted.model.predict(data().x_held) == pytest.approx(expected, rel=1e-6)


def test_other_smoothers_on_each_level_and_fewer_cycles(options, capfd):
    options("-mgnet_levels_1_smoother mgnet.training.LBFGS -mgnet_monitor -mgnet_max_cycles 3")
    fitted = fit(data(), Settings(**{**vars(SMALL), "cycle": "V(1,1)", "evaluations": 10**6}))
    assert fitted.hierarchy is not None
    names = [str(level.smoother).partition("(")[0] for level in fitted.hierarchy]
    assert names == ["LevenbergMarquardt", "LBFGS", "LevenbergMarquardt"]
    assert [level for *_, level in fitted.trained.history] == [0] * 6
    assert capfd.readouterr().out.count(" mgnet Residual norm ") == 4
    options('-mgnet_cycle "cascade 4,4,4" -mgnet_max_cycles 1')  # memory meets another smoother
    history = fit(data(), Settings(**{**vars(SMALL), "evaluations": 10**6})).trained.history
    assert [level for *_, level in history] == [2] * 4 + [1] * 4 + [0] * 4


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-mgnet_levels 9", "option -mgnet_levels got '9'; this hierarchy has 3 levels"),
        ("-mgnet_rtol 1e-3", "option -mgnet_rtol: a fit ends with its budget"),
        ("-mgnet_seconds 9", "option -mgnet_seconds: a fit ends with its budget"),
        ("-mgnet_acceleration Anderson", "option -mgnet_acceleration: a fit keeps the best"),
        ("-mgnet_cycle V(1", "option -mgnet_cycle: cycle 'V\\(1'"),
        ("-mgnet_smoother Jacobi", "Jacobi.* cannot train this network: "),
    ],
)
def test_options_that_do_not_fit(options, line, words):
    options(line)
    announced = []
    with pytest.raises(ValueError, match=words):
        fit(data(), SMALL, announce=lambda *told: announced.append(told))
    assert not announced


def test_validation_rows_hold_a_table_with_noise():
    rng = np.random.default_rng(0)
    own = data(rows=100)
    y = own.y + 10.0 * rng.normal(size=100)
    noisy = Data(own.names, own.targets, own.x, y, own.x_held, own.y_held)
    settings = {**vars(SMALL), "evaluations": 200}
    stopped, endless = (fit(noisy, Settings(**{**settings, "validation": v})) for v in (0.2, 0.0))
    assert stopped.trained.work < 200.0 <= endless.trained.work
    assert stopped.trained.held_loss < 0.5 * endless.trained.held_loss
    assert stopped.trained.train_loss > endless.trained.train_loss


def widened(own, column):
    """The same rows with a column more, in the middle."""
    rows = len(own.x)
    wide, wide_held = (
        np.insert(x, 1, part, axis=1)
        for x, part in ((own.x, column[:rows]), (own.x_held, column[rows:]))
    )
    return Data(("a", "k", "b"), Targets(("y",)), wide, own.y, wide_held, own.y_held)


@pytest.mark.parametrize("value", [0.0, 7.0, 1e308, 1e-308])
def test_an_input_that_does_not_vary_is_no_input_of_the_model(value, tmp_path):
    own = data(60, 20)
    settings = Settings(**{**vars(SMALL), "levels": 1, "evaluations": 20})
    wide = widened(own, np.full(80, value))
    with pytest.warns(UserWarning, match="column 1; predictions do not depend on it"):
        fitted = fit(wide, settings)
    plain = fit(own, settings)
    assert fitted.model.names == ("a", "b")
    fitted.model.save(tmp_path)
    for model in (fitted.model, Model.load(tmp_path)):
        assert np.array_equal(model.predict(own.x_held), plain.model.predict(own.x_held))
    unseen = widened(own, np.full(80, 1e300)).x_held
    assert np.array_equal(fitted.trained.predict(unseen), plain.model.predict(own.x_held))
    assert fitted.trained.held_loss == plain.trained.held_loss


def test_inputs_that_do_not_vary_where_the_network_is_trained():
    own = data(60, 20)
    kept = validation_rows(np.zeros(60), 0.1, SMALL.seed)
    column = np.r_[np.where(kept, 1.0, 0.0), np.arange(20.0)]
    narrow, names = without_constants(widened(own, column), SMALL)
    assert names == ("k",) and narrow.names == own.names
    assert np.array_equal(narrow.x, own.x) and np.array_equal(narrow.x_held, own.x_held)
    whole = Settings(**{**vars(SMALL), "validation": 0.0})
    assert without_constants(widened(own, column), whole)[1] == ()
    rounded = np.where(np.arange(80) % 2, 0.3, 0.1 + 0.2)
    assert without_constants(widened(own, rounded), SMALL)[1] == ("k",)
    nothing = Data(
        ("a",), Targets(("y",)), 0.0 * own.x[:, :1], own.y, own.x_held[:, :1], own.y_held
    )
    with pytest.raises(
        ValueError, match=r"no input varies in the training rows .*\(a\); there is nothing"
    ):
        without_constants(nothing, SMALL)
