"""Law: pictures of classes and of several targets show every row once, and calibrated shares."""

from dataclasses import replace
from itertools import combinations

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


@pytest.mark.parametrize("kinds", [2, 6, 30])
@pytest.mark.parametrize("letters", [1, 12, 60])
def test_no_name_of_a_class_covers_another(kinds, letters):
    data, shares, y = classes(kinds, rows=100)
    long = tuple(f"{k}{'e' * letters}" for k in range(kinds))
    figure = draw_classes(replace(data, targets=Targets(("kind",), long)), shares, y, "rows")
    figure.draw_without_rendering()
    ax = figure.axes[0]
    texts = [*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label]
    boxes = [text.get_window_extent() for text in texts]
    assert not any(one.overlaps(two) for one, two in combinations(boxes, 2))
    assert all(box.y0 >= 0.0 and box.x0 >= 0.0 for box in boxes)


def test_many_classes_are_drawn_without_their_names():
    data, shares, y = classes(40, rows=100)
    assert not draw_classes(data, shares, y, "held-out rows").axes[0].texts


@pytest.mark.parametrize("count", [2, 4, 12])
def test_each_target_has_a_panel(count, tmp_path):
    y = np.random.default_rng(0).normal(size=(30, count))
    names = tuple(f"y{k}" for k in range(count))
    data = Data(("a",), Targets(names), y[:, :1], y, y[:, :1], y)
    figure = draw_targets(data, y + 1.0, y, "held-out rows")
    assert len(figure.axes) == 2 * min(count, 9)
    panels = {ax.get_title().split(",")[0]: ax for ax in figure.axes if ax.get_title()}
    below = [ax for ax in figure.axes if not ax.get_title()]
    for k, name in enumerate(names[:9]):
        points = np.asarray(panels[name].collections[0].get_offsets())
        assert sorted(points[:, 0]) == sorted(y[:, k])
        np.testing.assert_allclose(points[:, 1], points[:, 0] + 1.0)
        rest = np.asarray(below[k].collections[0].get_offsets())
        assert sorted(rest[:, 0]) == sorted(y[:, k] + 1.0)
        np.testing.assert_allclose(rest[:, 1], -1.0)
    figure.savefig(tmp_path / "fit.png", dpi=30)
