"""Products with the derivatives are those with the matrix of `linearized`."""

import numpy as np
import pytest

from mgnet.estimators.evidence.features import features_of
from mgnet.estimators.evidence.model import Additive, Hidden
from mgnet.estimators.evidence.modes import spline_modes
from mgnet.estimators.evidence.tangents import tangent


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("outputs", [1, 4])
def test_products_and_blocks(hidden, outputs):
    rng = np.random.default_rng(outputs)
    x = rng.uniform(-1.0, 1.0, (30, 3))
    x[:, 1] = x[:, 1] > 0.0  # an input of one column
    features = features_of(x, spline_modes(4, 3))
    model = (
        Hidden(features, spline_modes(2, 3), 3, outputs, seed=0)
        if hidden
        else Additive(features, outputs)
    )
    B, u, v = features.matrix(x), rng.normal(size=model.size), rng.normal(size=model.size)
    f, J = model.linearized(B, u)
    same, own = tangent(model, B, u)
    np.testing.assert_allclose(same, f, atol=1e-12)
    np.testing.assert_allclose(own.forward(v), np.einsum("onp,p->no", J, v), atol=1e-10)
    r = rng.normal(size=f.shape)
    np.testing.assert_allclose(own.backward(r), np.einsum("onp,no->p", J, r), atol=1e-10)
    places = np.concatenate([block.places for block in own.blocks])
    assert sorted(places.tolist()) == list(range(model.size))
    for block in own.blocks:
        slopes = np.broadcast_to(block.slopes, f.shape)
        part = np.einsum("np,no->onp", block.columns, slopes)
        np.testing.assert_allclose(part, J[:, :, block.places], atol=1e-12)
