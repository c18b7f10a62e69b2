"""Boosted trees of classes, and of rows with weights; test_baselines.py has what all rivals do."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from mgnet.app.boosted_trees import boosting
from mgnet.app.columns.targets import Targets
from mgnet.app.data import Data


def classes(seed, weights=None):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, (300, 2))
    y = (x[:, 0] > 0.0).astype(int) + (x[:, 1] > 0.5)
    y[0] = 3  # alone in its class
    parts = (x[:200], y[:200], x[200:], y[200:])
    return Data(("a", "b"), Targets(("kind",), tuple("pqrs")), *parts, weights=weights)


@pytest.mark.parametrize("seed", [0, 1])
def test_probabilities_of_all_classes_and_their_log_loss(seed):
    data = classes(seed)
    trained = boosting(data, 0.5, seed)
    shares = trained.predict(data.x_held)
    assert shares.shape == (100, 4)
    assert trained.held_loss == pytest.approx(log_loss(data.y_held, shares, labels=range(4)))
    assert data.accuracy(shares, data.y_held) > 0.9


def test_rows_of_small_weight_hardly_count():
    """Half of the rows say the opposite, and weigh next to nothing."""
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (400, 1))
    lying = np.arange(400) % 2 == 1
    y = np.where(lying, -x[:, 0], x[:, 0])
    weights = np.where(lying, 1e-6, 1.0)
    data = Data(("a",), Targets(("y",)), x, y, x, y, weights, weights)
    trained = boosting(data, 0.5, 0)
    assert np.abs(trained.predict(x) - x[:, 0]).mean() < 0.1
    assert trained.held_loss < 0.05
