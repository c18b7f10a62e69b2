"""Law: what an ensemble is, is told in words, for each target."""

from types import SimpleNamespace

import numpy as np

from mgnet.app.ensemble_text import ensemble_text


def ensemble(levels):
    return SimpleNamespace(
        shares=np.array([0.25, 0.15, 0.6]),
        fitted=[None] * 5,
        units=4,
        intervals=(16, 8),
        losses=tuple(0.5**k for k in range(1, levels + 1)),
        levels=levels,
    )


def test_members_shares_and_levels_are_told():
    text = ensemble_text([ensemble(2)], ["rho"])
    assert text.startswith("ensemble of 5 members on parts of the rows: 25 % linear, 15 % additive")
    assert "60 % with a hidden layer of 4 units" in text
    assert "16 and 8 intervals after 2 levels; MSE" in text and text.endswith(": 1, 0.5")
    text = ensemble_text([ensemble(2)], ["p", "q"], "log loss")
    assert "log loss" in text and text.endswith(": 0.5, 0.25")


def test_several_targets_have_a_text_each():
    lines = ensemble_text([ensemble(1), ensemble(2)], ["a", "b"]).splitlines()
    assert lines[0].startswith("a: ") and lines[2].startswith("b: ") and "1 level;" in lines[1]
