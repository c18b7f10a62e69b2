"""Boxes as users write them."""

import numpy as np
import pytest
import torch

from mgnet.training.equations.domain import checked_domain

BOX = ((-1.0, 1.0), (0.0, 2.0))


@pytest.mark.parametrize(
    "given",
    [[(-1, 1), (0, 2)], [[-1.0, 1.0], [0.0, 2.0]], np.array(BOX), torch.tensor(BOX)]
    + [(np.array([-1, 1]), torch.tensor([0, 2]))],
)
def test_boxes(given):
    box = checked_domain("f", given)
    assert box == BOX and all(type(end) is float for pair in box for end in pair)


@pytest.mark.parametrize(
    "given",
    [(-1.0, 1.0), [], 3, None, "ab", ["ab"], [(0.0, 1.0, 2.0)], [(1.0, 0.0)], [(0.0, 0.0)]]
    + [
        [(0.0, 1e-310)],
        [(0.0, float("nan"))],
        [(0.0, float("inf"))],
        [(-1e308, 1e308)],
        [(0, 1), ("a", "b")],
    ]
    + [[(0, True)], [(0, 1j)], {0: (0, 1)}, torch.zeros(2)],
)
def test_what_is_no_box(given):
    with pytest.raises(ValueError, match=r"f got domain .*; give a pair \(low, high\) for each"):
        checked_domain("f", given)


def test_sides():
    assert checked_domain("f", [(1.0, 1.0), (0.0, 2.0)], sides=True)[0] == (1.0, 1.0)
    with pytest.raises(ValueError, match="f got domain"):
        checked_domain("f", [(1.0, 0.0)], sides=True)
