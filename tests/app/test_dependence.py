"""Law: partial dependence is the mean prediction over rows of the table, at values in its units."""

import numpy as np
import pytest

from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.app.data import Data
from mgnet.app.dependence import plot_dependence
from mgnet.app.files.columns import Column


def numbers(x, y, targets=("y",), classes=()):
    names = tuple(f"x{k}" for k in range(x.shape[1]))
    return Data(names, Targets(targets, classes), x, y, x[:0], y[:0])


@pytest.mark.parametrize("seed", range(3))
def test_the_parts_of_a_sum_are_found(seed, tmp_path):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-5.0, [1e3, 1.0, 1e-3], (80, 3))

    def predict(x):
        return np.sin(x[:, 0]) + 7.0 * x[:, 1] ** 2 + 1e4 * x[:, 2]

    figure = plot_dependence(numbers(x, predict(x)), predict)
    for number, part in enumerate([np.sin, lambda v: 7.0 * v**2, lambda v: 1e4 * v]):
        places, means = map(np.asarray, figure.axes[number].lines[0].get_data())
        assert (places[0], places[-1]) == (x[:, number].min(), x[:, number].max())
        rest = predict(x).mean() - part(x[:, number]).mean()
        np.testing.assert_allclose(means, part(places) + rest, rtol=1e-9, atol=1e-6)
    figure.savefig(tmp_path / "inputs.png", dpi=30)


def test_levels_and_dates_are_named(tmp_path):
    rng = np.random.default_rng(0)
    texts = rng.choice(np.array(["red", "$ green", "blue"], dtype=object), 60)
    dates = np.datetime64("2024-01-01", "us") + np.arange(60) * np.timedelta64(1, "D")
    columns = [Column("color", "text", texts), Column("when", "date", dates)]
    encoding = Encoding.of(columns)
    x, _ = encoding.encode({column.name: column for column in columns})
    y = x @ [1.0, 2.0, 3.0, 0.0]
    data = Data(encoding.names, Targets(("y",)), x, y, x[:0], y[:0], encoding=encoding)
    figure = plot_dependence(data, lambda x: x @ [1.0, 2.0, 3.0, 0.0])
    levels, days = figure.axes
    figure.savefig(tmp_path / "inputs.png", dpi=30)
    assert [tick.get_text() for tick in levels.get_xticklabels()] == [r"\$ green", "blue", "red"]
    np.testing.assert_allclose(levels.lines[0].get_ydata(), [1.0, 2.0, 3.0])
    counts = np.array([bar.get_height() for bar in levels.patches])
    np.testing.assert_allclose(counts / counts.sum(), x[:, :3].mean(0))
    assert days.get_xlabel() == "when" and np.ptp(days.lines[0].get_ydata()) < 1e-12
    assert "2024-01-26" in [tick.get_text() for tick in days.get_xticklabels()]


def encoded(columns, cycles=()):
    """Their inputs as data, with a target."""
    encoding = Encoding.of(columns, cycles=cycles)
    x, _ = encoding.encode({column.name: column for column in columns})
    y = np.zeros(len(x))
    return Data(encoding.names, Targets(("y",)), x, y, x[:0], y[:0], encoding=encoding)


def test_a_cycle_goes_round_and_sine_and_cosine_together(tmp_path):
    hours = np.random.default_rng(0).integers(0, 24 * 400, 300)
    dates = np.datetime64("2024-01-01", "us") + hours * np.timedelta64(1, "h")
    data = encoded([Column("when", "date", dates)], ("hour", "weekday", "month"))

    def predict(x):  # of places on the circles alone
        for k in (1, 3, 5):
            assert np.hypot(x[:, k], x[:, k + 1]) == pytest.approx(1.0)
        return 7.0 * x[:, 1] + 2.0 * x[:, 4] + x[:, 5]

    days, hour, weekday, month = plot_dependence(data, predict).axes
    assert [ax.get_xlabel() for ax in (hour, weekday, month)] == [
        "when, hour",
        "when, weekday",
        "when, month",
    ]
    for ax, count, part in [
        (hour, 24, lambda turn: 7.0 * np.sin(turn)),
        (weekday, 7, lambda turn: 2.0 * np.cos(turn)),
        (month, 12, np.sin),
    ]:
        places, means = ax.lines[0].get_data()
        parts = part(2.0 * np.pi * np.asarray(places) / count)
        np.testing.assert_allclose(means - means[0], parts - parts[0], atol=1e-9)
    kinds = dates.astype("datetime64[M]").astype(int) % 12, dates.astype("datetime64[D]")
    for ax, numbers in [
        (hour, hours % 24),
        (weekday, (kinds[1].astype(int) + 3) % 7),
        (month, kinds[0]),
    ]:
        counts = np.bincount(numbers)
        bars = np.array([bar.get_height() for bar in ax.patches])
        np.testing.assert_allclose(bars / bars.max(), counts / counts.max())
    assert [tick.get_text() for tick in weekday.get_xticklabels()][::6] == ["Mon", "Sun"]


def test_values_drawn_one_by_one_have_their_bars_and_ticks_below_them():
    rng = np.random.default_rng(0)
    sold, few = rng.integers(0, 2, 80).astype(float), rng.integers(0, 4, 80).astype(float)
    data = encoded([Column("sold", "boolean", sold), Column("few", "number", few)])
    first, second = plot_dependence(data, lambda x: x[:, 0] + x[:, 1]).axes
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["false", "true"]
    for ax, column in ((first, sold), (second, few)):
        values, counts = np.unique(column, return_counts=True)
        assert ax.get_xticks().tolist() == values.tolist() == ax.lines[0].get_xdata().tolist()
        middles = [bar.get_x() + 0.5 * bar.get_width() for bar in ax.patches]
        assert middles == pytest.approx(values)
        bars = np.array([bar.get_height() for bar in ax.patches])
        np.testing.assert_allclose(bars / bars.max(), counts / counts.max())


def test_of_many_columns_those_that_matter_are_drawn():
    x = np.random.default_rng(0).normal(size=(100, 40))
    figure = plot_dependence(numbers(x, x[:, 31]), lambda x: x[:, 31] + 0.5 * x[:, 7])
    assert [ax.get_xlabel() for ax in figure.axes[:2]] == ["x31", "x7"]
    assert len(figure.axes) == 12 and "12 of 40 columns" in figure.get_suptitle()


def test_an_order_that_is_known_is_taken():
    """Ranking two thousand columns takes seconds, and was done for each picture."""
    x = np.random.default_rng(0).normal(size=(100, 40))
    order = [*range(20, 40), *range(20)]
    rows = []
    figure = plot_dependence(numbers(x, x[:, 31]), lambda x: rows.append(len(x)) or x[:, 31], order)
    assert [ax.get_xlabel() for ax in figure.axes] == [f"x{k}" for k in range(20, 32)]
    assert len(rows) == 12  # predictions for the panels alone


def test_classes_and_targets_have_a_line_each(tmp_path):
    rng = np.random.default_rng(0)
    x, kinds = rng.normal(size=(50, 2)), ("a", "b", "c")
    p = np.array([0.2, 0.3, 0.5])
    data = numbers(x, rng.integers(0, 3, 50), classes=kinds)
    figure = plot_dependence(data, lambda x: np.tile(p, (len(x), 1)))
    means = [np.asarray(line.get_ydata())[0] for line in figure.axes[0].lines]
    assert means == pytest.approx(p.tolist())
    assert [text.get_text() for text in figure.legends[0].texts] == list(kinds)
    data = numbers(x, x * [1e-6, 1e6], ("u", "v"))
    figure = plot_dependence(data, lambda x: x * [1e-6, 1e6])
    for number, line in enumerate(figure.axes[1].lines):
        slope = np.ptp(line.get_ydata()) / np.ptp(line.get_xdata())
        assert slope == pytest.approx(number / x[:, 1].std(), abs=1e-12)
    figure.savefig(tmp_path / "inputs.png", dpi=30)
