"""What the pictures draw is what they were given."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread
from matplotlib.text import Text

from mgnet.app.columns.targets import Targets
from mgnet.app.data import Data, Trained
from mgnet.app.pictures import influential, plot_fit, plot_training


def table(inputs, rows=120):
    x = np.random.default_rng(0).random((rows, inputs))
    y = x @ np.arange(1.0, inputs + 1.0)
    return Data(tuple("abcd"[:inputs]), Targets(("y",)), x[:100], y[:100], x[100:], y[100:])


def predict(x):
    return x @ np.arange(1.0, x.shape[1] + 1.0) + 0.01 * x[:, 0]


def as_set(points):
    return {tuple(np.round(point, 12)) for point in np.asarray(points)}


def test_one_input_shows_all_rows_the_fit_and_the_held_out_error():
    data = table(1)
    top, bottom = plot_fit(data, predict).axes
    assert as_set(top.collections[0].get_offsets()) == as_set(np.c_[data.x, data.y])
    x, y = top.lines[0].get_data()
    assert y == pytest.approx(predict(np.asarray(x)[:, None]))
    assert (min(x), max(x)) == (min(data.x.min(), data.x_held.min()), data.x.max())
    error = predict(data.x_held) - data.y_held
    assert as_set(bottom.collections[0].get_offsets()) == as_set(np.c_[data.x_held, error])


def test_two_inputs_show_the_rows_the_map_and_the_error():
    data = table(2)
    first, second, third = plot_fit(data, predict).axes[:3]
    drawn = first.collections[0]
    expected = np.c_[np.r_[data.x, data.x_held], np.r_[data.y, data.y_held]]
    assert as_set(np.c_[drawn.get_offsets(), drawn.get_array()]) == as_set(expected)
    mesh = second.collections[0]
    corners = mesh.get_coordinates()
    places = 0.5 * (corners[:-1, :-1] + corners[1:, 1:])
    values = mesh.get_array()
    inside = ~values.mask
    assert 0.5 < inside.mean() < 1.0  # not beyond the hull of the rows
    assert np.allclose(values[inside].data, predict(places[inside]))
    errors = third.collections[0]
    expected = np.c_[data.x_held, np.abs(predict(data.x_held) - data.y_held)]
    low = errors.norm.vmin
    expected[:, 2] = np.maximum(expected[:, 2], low)
    assert as_set(np.c_[errors.get_offsets(), errors.get_array()]) == as_set(expected)
    assert mesh.get_clim() == drawn.get_clim()


def test_of_many_rows_the_largest_errors_are_drawn(monkeypatch):
    data = table(2)
    monkeypatch.setattr("mgnet.app.pictures.MOST_POINTS", 7)
    errors = plot_fit(data, predict).axes[2].collections[0]
    largest = np.sort(np.abs(predict(data.x_held) - data.y_held))[-7:]
    np.testing.assert_allclose(errors.get_array(), largest)  # the largest last: on top


def test_more_inputs_show_the_two_that_matter_and_all_held_out_rows():
    data = table(4)
    assert influential(data, predict) == [3, 2, 1, 0]
    one, two, last, rest = plot_fit(data, predict).axes
    assert [ax.get_xlabel() for ax in (one, two)] == ["d", "c"]
    x, y = one.lines[0].get_data()
    line = np.tile(np.median(data.x, axis=0), (len(x), 1))
    line[:, 3] = x
    assert y == pytest.approx(predict(line))
    pairs = np.c_[data.y_held, predict(data.x_held)]
    assert as_set(last.collections[0].get_offsets()) == as_set(pairs)
    residuals = np.c_[predict(data.x_held), data.y_held - predict(data.x_held)]
    assert as_set(rest.collections[0].get_offsets()) == as_set(residuals)


def test_an_exact_fit_rows_on_a_line_and_no_held_out_rows_can_be_drawn(tmp_path):
    x = np.repeat(np.linspace(0.0, 1.0, 30)[:, None], 2, axis=1)
    data = Data(("a", "b"), Targets(("y",)), x, x.sum(1), x[:0], x.sum(1)[:0])
    figure = plot_fit(data, lambda x: x.sum(axis=1))
    first, second, third = figure.axes[:3]
    drawn = first.collections[0]
    assert as_set(np.c_[drawn.get_offsets(), drawn.get_array()]) == as_set(np.c_[x, x.sum(1)])
    mesh = second.collections[0]
    corners, values = mesh.get_coordinates(), mesh.get_array()
    places = 0.5 * (corners[:-1, :-1] + corners[1:, 1:])
    assert not np.ma.getmaskarray(values).any()  # a line has no hull: nothing is left out
    np.testing.assert_allclose(values, places.sum(axis=-1), atol=1e-12)
    assert third.get_title() == "y: |error|, training rows"
    errors = third.collections[0]
    assert as_set(errors.get_offsets()) == as_set(x)
    assert (errors.get_array() == errors.norm.vmin).all()  # no error: the lowest colour
    assert errors.norm.vmax == pytest.approx(2e-15) and errors.norm.vmin < errors.norm.vmax
    figure.savefig(tmp_path / "fit.png")
    assert np.ptp(imread(tmp_path / "fit.png")[..., :3]) > 0.5


@pytest.fixture
def models():
    steps = [(0.1 * 1.5**k, float(k), 10.0**-k, 2 - k // 4) for k in range(12)]
    ours = Trained("KAN", predict, 9, steps[-1][0], 12.0, 1e-11, 2e-6, tuple(steps))
    rival = Trained("tree", predict, 9, 5.0, np.nan, 1e-3, 1e-7, ((5.0, np.nan, 1e-3, 0),))
    lost = Trained("lost", predict, 9, 5.0, np.nan, 1e-3, np.nan)
    return [ours, rival, lost]


def test_the_training_picture_shows_histories_and_held_out_errors(models, tmp_path):
    figure = plot_training(models)
    (ax,) = figure.axes
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    drawn = [np.c_[line.get_data()] for line in ax.lines]
    for model in models[:2]:
        history = np.array([(entry[0], entry[2]) for entry in model.history])
        assert any(one.shape == history.shape and np.allclose(one, history) for one in drawn)
        end = [[model.seconds, model.held_loss]]
        assert any(one.shape == (1, 2) and np.allclose(one, end) for one in drawn)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [name.split(":")[0] for name in names] == ["tree", "KAN", "lost"]
    figure.savefig(tmp_path / "training.png")


def test_refinements_are_marked_and_levels_named(models):
    (ax,) = plot_training(models).axes
    (discs,) = (
        line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata()) == 2
    )
    assert list(discs.get_xdata()) == [models[0].history[k][0] for k in (4, 8)]
    assert [text.get_text() for text in ax.texts] == ["level 2", "level 1", "level 0"]


@pytest.mark.parametrize("seconds", [9.99, 9.0, 5.0])
def test_the_last_level_is_named_however_short_it_was(seconds):
    history = ((0.1, 1.0, 1e-1, 1), (seconds, 2.0, 1e-2, 0), (10.0, 3.0, 1e-3, 0))
    figure = plot_training([Trained("KAN", predict, 9, 10.0, 3.0, 1e-3, 2e-3, history)])
    figure.draw_without_rendering()
    former, last = figure.axes[0].texts
    assert (former.get_text(), last.get_text()) == ("level 1", "level 0")
    assert not former.get_window_extent().overlaps(last.get_window_extent())


def test_every_model_has_its_own_colour_and_marker(models):
    (ax,) = plot_training(models).axes
    ends = [line for line in ax.lines if line.get_markersize() == 9]
    assert len({(to_hex(line.get_color()), line.get_marker()) for line in ends}) == 2
    plot_training([])


@pytest.mark.parametrize("inputs", [1, 2])
def test_dollar_signs_in_names_begin_no_formula(inputs, tmp_path):
    """One of two dollar signs that is no formula ended a fit when its pictures were written."""
    data = replace(
        table(inputs), names=("$x_{$", "b [$]", "$$")[:inputs], targets=Targets(("y^{$ [$]",))
    )
    figure = plot_fit(data, predict)
    figure.savefig(tmp_path / "fit.png", dpi=30)
    assert any(r"y^{\$ [\$]" in text.get_text() for text in figure.findobj(Text))
