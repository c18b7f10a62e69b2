"""Law: a march takes the layers in their order, and adds rows after each."""

import numpy as np
import pytest

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
