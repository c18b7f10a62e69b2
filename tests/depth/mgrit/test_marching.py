"""Law: a march takes the layers in their order, and adds rows after each."""

import numpy as np
import pytest

from mgnet import Solver
from mgnet.depth.mgrit.layer_hierarchy import layer_hierarchy
from mgnet.depth.mgrit.marching import march_by_advance


class Shift:
    def __init__(self):
        self.calls = []

    def advance(self, level, which, states):
        self.calls.append((level, which.start, which.stop))
        return 2.0 * states


@pytest.mark.parametrize("reverse", [False, True])
def test_layers_in_turn(reverse):
    propagator, rows = Shift(), [np.array([1.0]), np.array([-3.0])]
    points = march_by_advance(propagator, 5, 2, np.array([1.0]), rows, reverse)
    assert [float(point[0]) for point in points] == [1.0, 3.0, 3.0]
    assert propagator.calls == [(5, 0, 1), (5, 1, 2)][:: -1 if reverse else 1]


class Damped:
    """Its `relax` and `trajectory` are no methods for a hierarchy."""

    relax, trajectory = 0.7, ()

    def advance(self, level, which, states):
        return states / (1.0 + 3**level / 12)


def test_names_of_users_are_theirs():
    start = np.array([1.0])
    hierarchy = layer_hierarchy(Damped(), 12, start, levels=2, coarsening=3)
    found = Solver(hierarchy, rtol=1e-12).solve(u=np.ones((13, 1))).value
    points = march_by_advance(Damped(), 0, 12, start[None], None, False)
    np.testing.assert_allclose(found, np.concatenate(points), rtol=1e-12)
