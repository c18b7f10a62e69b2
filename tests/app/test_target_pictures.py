"""Law: pictures of classes and of several targets show every row once, and calibrated shares."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from mgnet.app.columns.targets import Targets
from mgnet.app.data import Data
from mgnet.app.target_pictures import draw_classes, draw_targets


def classes(kinds, rows=400, seed=0):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(kinds), rows)
    y = np.array([rng.choice(kinds, p=share) for share in shares])  # as often as it is told
    x, names = np.zeros((rows, 1)), tuple(f"k{k}" for k in range(kinds))
    return Data(("a",), Targets(("kind",), names), x, y, x, y), shares, y


@pytest.mark.parametrize("kinds", [2, 5])
def test_pairs_are_counted(kinds, tmp_path):
    data, shares, y = classes(kinds)
    figure = draw_classes(data, shares, y, "held-out rows")
    found = confusion_matrix(y, shares.argmax(1), labels=range(kinds))
    texts = {text.get_position(): int(text.get_text()) for text in figure.axes[0].texts}
    assert texts == {(c, r): found[r, c] for r, c in np.argwhere(found)}
    figure.savefig(tmp_path / "fit.png", dpi=30)


def test_probabilities_that_hold_lie_on_the_diagonal():
    data, shares, y = classes(3, rows=5000)
    told, held = draw_classes(data, shares, y, "held-out rows").axes[1].lines[1].get_data()
    assert len(told) == 10
    np.testing.assert_allclose(told, held, atol=0.05)
    off = draw_classes(data, shares, (y + 1) % 3, "held-out rows").axes[1].lines[1].get_data()
    assert np.abs(np.subtract(*off)).max() > 0.3


def test_many_classes_are_drawn_without_their_names():
    data, shares, y = classes(40, rows=100)
    assert not draw_classes(data, shares, y, "held-out rows").axes[0].texts


@pytest.mark.parametrize("count", [2, 4, 12])
def test_each_target_has_a_panel(count, tmp_path):
    y = np.random.default_rng(0).normal(size=(30, count))
    names = tuple(f"y{k}" for k in range(count))
    data = Data(("a",), Targets(names), y[:, :1], y, y[:, :1], y)
    figure = draw_targets(data, y + 1.0, y, "held-out rows")
    assert len(figure.axes) == min(count, 9)
    for k, ax in enumerate(figure.axes):
        points = np.asarray(ax.collections[0].get_offsets())
        assert sorted(points[:, 0]) == sorted(y[:, k])
        np.testing.assert_allclose(points[:, 1], points[:, 0] + 1.0)
    figure.savefig(tmp_path / "fit.png", dpi=30)
