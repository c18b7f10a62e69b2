"""The arrays of a formula are the model: splines as SciPy has them, scales that never overflow."""

import json

import numpy as np
import pytest
from scipy.interpolate import BSpline

from mgnet.app.exports.formula import Formula, Layer


@pytest.mark.parametrize("degree", range(1, 6))
def test_pieces_are_the_splines_of_scipy(degree):
    draw, n, (a, b) = np.random.default_rng(degree), 4, (-0.1, 0.3)
    layer = Layer(n, draw.standard_normal((2, n + degree, 3)))
    pieces = layer.pieces(degree, (a, b))
    assert pieces.shape == (2, 3, n, degree + 1)
    h = (b - a) / n
    knots = a + h * np.arange(-degree, n + degree + 1)
    s = np.linspace(0.0, 1.0, 7)
    for p in range(2):
        spline = BSpline(knots, layer.coefficients[p], degree)
        for i in range(n):
            found = pieces[p, :, i] @ s ** np.arange(degree + 1)[:, None]
            np.testing.assert_allclose(found, spline(a + h * (i + s)).T, atol=1e-13)


@pytest.mark.parametrize("seed", range(6))
def test_scales_are_those_of_the_model(seed, drawn):
    model, x = drawn(seed)
    formula = Formula.of(model)
    size, low, length = formula.sized()
    a, b = formula.domain
    x = x[np.isfinite(x).all(axis=1)]
    with np.errstate(over="ignore"):
        places = (np.ldexp(x, -size) - low) / np.where(length > 0.0, length, 1.0)
    places = a + (b - a) * np.where(length > 0.0, places, 0.0)
    np.testing.assert_allclose(places, model.inputs(x).numpy(), rtol=1e-13, atol=1e-13)
    assert formula.widths == list(model.network.widths)
    told = formula.described()
    assert json.loads(told["inputs"]) == list(model.names)
    assert json.loads(told["targets"]) == list(model.targets.names) and told["classes"] == "[]"


def test_words_on_columns(mixed):
    formula, *_ = mixed(0)
    assert formula.domains() == [
        "-3 to 40",
        "'a', 'b \"é\"\\\\n', '', 'c', or another",
        "0 to 1 (1: true, 0: false)",
        "'x', or another",
    ]
