"""Derivatives are those of finite steps; a model carried to finer knots is the same function."""

import numpy as np
import pytest

from mgnet.estimators.evidence.features import features_of
from mgnet.estimators.evidence.model import Additive, Hidden
from mgnet.estimators.evidence.modes import spline_modes


def rows(seed, count=40):
    rng = np.random.default_rng(seed)
    few, two = rng.choice([-1.0, 0.2, 1.0], count), rng.choice([-1.0, 1.0], count)
    return np.column_stack([rng.uniform(-1.0, 1.0, count), few, two])


def models(x, degree, outputs, intervals=2, units=3):
    modes = spline_modes(intervals, degree)
    whole, line = features_of(x, modes), features_of(x, modes, None, 1)
    return [
        Additive(line, outputs),
        Additive(whole, outputs),
        Hidden(whole, modes, units, outputs, seed=4),
    ]


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("degree", range(1, 6))
def test_derivatives(degree, outputs):
    x = rows(degree)
    for model in models(x, degree, outputs):
        B = model.features.matrix(x)
        u = model.start(np.arange(1.0, outputs + 1.0))
        u += 0.3 * np.random.default_rng(0).normal(size=model.size)
        f, J = model.linearized(B, u)
        assert f.shape == (len(x), outputs) and J.shape == (outputs, len(x), model.size)
        np.testing.assert_allclose(model.outputs(B, u), f, atol=1e-12)
        for number, step in enumerate(1e-6 * np.eye(model.size)):
            change = (model.outputs(B, u + step) - model.outputs(B, u - step)) / 2e-6
            close = np.isclose(J[:, :, number].T, change, atol=1e-6, rtol=1e-5)
            assert close.all() if degree > 1 else close.mean() > 0.9  # slopes jump at knots


def by_hand(model, B, u):
    """Outputs of a hidden-layer model, row by row and unit by unit."""
    first, shifts, second, linear, constants = model.split(u)
    f = np.tile(constants, (len(B), 1))
    for n, row in enumerate(B):
        f[n] += row[model.features.linear] @ linear
        for unit in range(model.units):
            a = np.tanh(row @ first[unit] + shifts[unit])
            f[n] += model.modes.values(np.array([a]))[0] @ second[unit]
    return f


def test_a_hidden_layer_model_is_what_it_says():
    x = rows(0)
    *_, model = models(x, 3, 2)
    u = np.random.default_rng(1).normal(size=model.size)
    B = model.features.matrix(x)
    np.testing.assert_allclose(model.outputs(B, u), by_hand(model, B, u), atol=1e-10)
    start = model.start(np.array([2.0, -1.0]))
    again = Hidden(model.features, model.modes, 3, 2, seed=4).start(np.array([2.0, -1.0]))
    other = Hidden(model.features, model.modes, 3, 2, seed=5).start(np.array([2.0, -1.0]))
    assert np.array_equal(start, again) and not np.array_equal(start, other)
    assert model.split(start)[4].tolist() == [2.0, -1.0] and not model.split(start)[3].any()


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("degree", [1, 3, 5])
@pytest.mark.parametrize("seed", range(2))
def test_finer_knots_and_more_units_change_nothing(seed, degree, outputs):
    """Also for inputs with few different values, whose columns change their number."""
    x = rows(seed)
    generator = np.random.default_rng(seed)
    _, coarse, hidden = models(x, degree, outputs)
    _, fine, wide = models(x, degree, outputs, intervals=4, units=6)
    deep = Hidden(hidden.features, wide.modes, 3, outputs, seed=4)
    first = Hidden(wide.features, hidden.modes, 3, outputs, seed=4)
    pairs = [(coarse, fine), (hidden, wide), (hidden, deep), (hidden, first)]
    for own, more in pairs:
        u = generator.normal(size=own.size)
        v = own.onto(more, u, x)
        assert v.shape == (more.size,)
        before = own.outputs(own.features.matrix(x), u)
        after = more.outputs(more.features.matrix(x), v)
        np.testing.assert_allclose(after, before, atol=1e-9 * np.abs(before).max())


def test_functions_of_many_values_are_the_same_between_the_rows():
    x, between = (np.random.default_rng(n).uniform(-1.0, 1.0, (50, 2)) for n in (0, 1))
    for own, more in zip(models(x, 3, 1), models(x, 3, 1, 4, 5), strict=True):
        u = np.random.default_rng(2).normal(size=own.size)
        before = own.outputs(own.features.matrix(between), u)
        after = more.outputs(more.features.matrix(between), own.onto(more, u, x))
        np.testing.assert_allclose(after, before, atol=1e-10)


@pytest.mark.parametrize("outputs", [1, 2])
def test_every_parameter_has_a_prior(outputs):
    x = rows(3)
    for model in models(x, 3, outputs):
        prior = model.prior()
        assert prior.precisions.shape == (model.size,) and (prior.precisions > 1e-7).all()
        parts = [set(prior.parts[[n]].nonzero()[1]) for n in range(len(prior.weights))]
        constants = set(range(model.size - outputs, model.size))
        assert parts[-1] == constants
        assert all(not part & constants for part in parts[:-1])
    line, bent, hidden = models(x, 3, outputs)
    assert len(line.prior().weights) == 2
    assert len(bent.prior().weights) == 1 + 2 + 1 + 1  # two inputs bend
    # Slopes of each of three inputs, bends; shifts; outputs and their bends; lines, constants.
    assert len(hidden.prior().weights) == 3 + 1 + 1 + 2 + 2
