"""Laws: a word of F and C is relaxation in that order; what it costs is counted."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from mgnet.depth.mgrit.layer_hierarchy import layer_hierarchy
from mgnet.depth.mgrit.relaxation import Relaxation, SerialSweep


@dataclass
class Multiply:
    """`u_{i+1} = z u_i`; notes how many layers every call takes."""

    z: float
    calls: list[int] = field(default_factory=list)

    def advance(self, level, which, states):
        self.calls.append(len(states))
        return self.z ** (3**level) * states


def level_of(propagator, relaxation, layers=7, weight=1.0):
    return layer_hierarchy(
        propagator, layers, np.ones(1), coarsening=3, relaxation=[relaxation], weight=weight
    )[0]


def by_matrices(u, f, z, factor, order, weight):
    """The same by rows of the matrix of the equation: each point takes its equation as true."""
    n, u = len(u) - 1, u.copy()
    c_points = sorted({*range(0, n, factor), n})
    for letter in order:
        old = u.copy()
        for i in range(n + 1):
            if letter == "F" and i not in c_points:
                u[i] = z * u[i - 1] + f[i]
            if letter == "C" and i in c_points:
                new = f[i] + (z * old[i - 1] if i else 0.0)
                u[i] = old[i] + weight * (new - old[i])
    return u


@pytest.mark.parametrize("order", ["F", "FC", "FCF", "FCFCF", "FFCCF"])
@pytest.mark.parametrize("weight", [1.0, 1.4])
@pytest.mark.parametrize("sweeps", [1, 2])
def test_a_word_is_an_order_of_relaxation(order, weight, sweeps):
    generator = np.random.default_rng(0)
    u, f = generator.standard_normal((8, 1)), generator.standard_normal((8, 1))
    level = level_of(Multiply(0.9), order, weight=weight)
    new, memory = level.smoother.smooth(level, u, f, sweeps, None)
    # C after C sees relaxed F-points: ours relaxes first
    word = (order * sweeps).replace("CC", "CFC")
    expected = by_matrices(u, f, 0.9, 3, word, weight)
    seen = slice(None) if order.endswith("F") else [0, 3, 6, 7]
    assert abs(new - expected)[seen].max() < 1e-14
    assert memory is None


def test_relaxing_again_is_free_and_the_rest_is_counted():
    propagator = Multiply(0.5)
    level = level_of(propagator, "FCF")
    u, _ = level.smoother.smooth(level, np.ones((8, 1)), None, 2, None)
    assert sum(propagator.calls) == 3 * 4 + 2 * 3  # FCF FCF = FCFCF: F-layers 4, C-layers 3
    assert level.tally[0] * 7 == pytest.approx(18)
    assert level.smoother.work(level, 1) * 7 == pytest.approx(11)
    assert Relaxation("F").smooth(level, u, None, 3, None)[0] is u


def test_all_intervals_go_in_one_call():
    propagator = Multiply(0.5)
    level = level_of(propagator, "F", layers=300)
    level.smoother.smooth(level, np.ones((301, 1)), None, 1, None)
    assert propagator.calls == [100, 100]


def test_the_serial_sweep_solves():
    hierarchy = layer_hierarchy(Multiply(0.5), 7, np.ones(1), levels=1)
    u, _ = hierarchy[0].smoother.smooth(hierarchy[0], np.zeros((8, 1)), None, 1, None)
    assert (u.ravel() == 0.5 ** np.arange(8)).all()
    assert hierarchy[0].smoother.work(hierarchy[0], 1) == hierarchy[0].tally[0] == 1.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("",), "order ''"), (("FG",), "order 'FG'"), (("F", 0.0), "weight 0"), (("F", 2.0), "2.0")],
)
def test_refusals(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Relaxation(*arguments)
    assert str(SerialSweep()) == "SerialSweep()"
