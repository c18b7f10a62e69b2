"""Columns of tiny and huge numbers are drawn and compared in units of powers of ten."""

from dataclasses import replace

import numpy as np
import pytest

from mgnet.app.columns.targets import Targets
from mgnet.app.data import Data
from mgnet.app.units import Units, labelled


def data(x_scale=1.0, y_scale=1.0, seed=0):
    x = np.random.default_rng(seed).uniform(-1.0, 1.0, (40, 2)) * [x_scale, 1.0]
    y = (np.sin(x[:, 0] / x_scale) + x[:, 1]) * y_scale
    return Data(("a", "b"), Targets(("y",)), x[:30], y[:30], x[30:], y[30:])


def test_ordinary_tables_are_left_as_they_are():
    own = data(1e20, 1e-20)
    assert Units.of(own).data(own) is own


@pytest.mark.parametrize("seed", range(8))
def test_in_these_units_numbers_are_of_ordinary_size(seed):
    rng = np.random.default_rng(seed)
    own = data(*10.0 ** (rng.choice([-1, 1], 2) * rng.uniform(31, 306, 2)), seed)
    units = Units.of(own)
    small = units.data(own)
    for column in (*small.x.T, small.y):
        assert 0.1 < np.abs(column).max() < 10.0
    assert small.names[1] == "b"
    name, _, unit = small.names[0].partition(" / ")
    assert name == "a"
    np.testing.assert_allclose(small.x[:, 0] * float(unit), own.x[:, 0], rtol=1e-12)
    assert small.targets.names == (f"y / {units.targets:.0e}",)

    def model(x):  # of the table
        return own.y.max() * (x[:, 0] / np.abs(own.x[:, 0]).max())

    expected = model(own.x) / units.targets
    np.testing.assert_allclose(units.of_units(model)(small.x), expected, rtol=1e-12)
    again = units.of_table(units.of_units(model))(own.x)
    np.testing.assert_allclose(again, model(own.x), rtol=1e-12)


def test_the_least_numbers_and_zeros():
    own = Data(
        ("a", "b"),
        Targets(("y",)),
        np.array([[5e-324, 0.0]] * 3),
        np.zeros(3),
        np.zeros((0, 2)),
        np.zeros(0),
    )
    units = Units.of(own)
    assert units.inputs.tolist() == [1e-307, 1.0] and units.targets == 1.0


def test_pictures_tell_the_units_of_the_file():
    told = replace(data(1e200), units={"a": "K", "b": "bar", "y": "kg/m3", "c": "m"})
    assert labelled(told).names == ("a [K]", "b [bar]")
    assert labelled(told).targets.names == ("y [kg/m3]",)
    first, second = labelled(Units.of(told).data(told)).names
    assert first.startswith("a / 1e+") and first.endswith(" [K]") and second == "b [bar]"
    assert labelled(own := data()) is own
