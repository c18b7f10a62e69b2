"""Law: the comparison trains what fits the data, one method after the other."""

import numpy as np
import pytest

from mgnet.app.comparison import baselines
from mgnet.app.data import Data, Settings


@pytest.mark.parametrize(
    ("inputs", "names"), [(3, [*["net"] * 3, "rival", "trees"]), (4, [*["net"] * 3, "trees"])]
)
def test_splines_stop_at_three_inputs(install, inputs, names):
    x = np.ones((4, inputs))
    data = Data(tuple("abcd"[:inputs]), "y", x, x[:, 0], x, x[:, 0])
    trained = list(baselines(data, Settings(), seconds=2.5))
    assert [rival.name for rival in trained] == names
    assert {rival.seconds for rival in trained} == {2.5}


def test_what_is_ready_survives_an_interrupt(install):
    install("interrupt baselines")
    x = np.ones((4, 1))
    found = []
    with pytest.raises(KeyboardInterrupt):
        for rival in baselines(Data(("a",), "y", x, x[:, 0], x, x[:, 0]), Settings(), 1.0):
            found.append(rival.name)
    assert found == [*["net"] * 3, "rival"]
