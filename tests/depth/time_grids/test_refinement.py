"""Laws: cells above the tolerance are halved, needlessly short ones joined, and grids end."""

import numpy as np
import pytest

from mgnet.depth.time_grids.adaptive_solution import Ending
from mgnet.depth.time_grids.dyadic_grid import MOST_HALVINGS, DyadicGrid
from mgnet.depth.time_grids.refinement import MOST_AT_ONCE, ending_of, halvings


@pytest.mark.parametrize("order", [1, 2, 4])
def test_halvings_bring_the_error_below_the_tolerance(order):
    rng = np.random.default_rng(0)
    sizes = 10.0 ** rng.uniform(-4.0, 4.0, 200)
    more = halvings(sizes, np.ones(200, dtype=bool), order)
    left = sizes * 2.0 ** (-(order + 1.0) * more)
    reached = (left <= 1.0) | (more == MOST_AT_ONCE)
    assert reached[sizes > 1.0].all() and (more[sizes <= 1.0] <= 0).all()
    assert (left[more < 0] <= 1.0).all()


def test_what_is_not_known_stays():
    more = halvings(np.full(3, np.inf), np.array([True, False, False]), 1)
    assert more.tolist() == [MOST_AT_ONCE, 0, 0]


def test_near_the_end_nothing_is_joined():
    known = np.ones(2, dtype=bool)
    assert halvings(np.array([20.0, 1e-6]), known, 1)[1] < 0
    assert halvings(np.array([5.0, 1e-6]), known, 1)[1] == 0


def test_endings():
    cells = DyadicGrid.first(np.ones(2))
    none, more = np.zeros(2, dtype=int), np.array([1, 0])
    small, large = np.array([1.0, 0.1]), np.array([2.0, 0.1])
    assert ending_of(small, cells, none, 1, 1, 1) is Ending.TOLERANCE
    assert ending_of(large, cells, more, 3, 3, 100) is Ending.MAX_GRIDS
    assert ending_of(large, cells, more, 2, 3, 5) is Ending.MAX_STEPS
    assert ending_of(large, cells, more, 2, 3, 6) is None
    short = DyadicGrid(np.ones(1), np.zeros(1), np.array([MOST_HALVINGS - 1]))
    assert ending_of(large[:1], short, more[:1], 2, 3, 6) is Ending.TOO_SHORT
    assert ending_of(large[:1], short, none[:1], 2, 3, 6) is None
