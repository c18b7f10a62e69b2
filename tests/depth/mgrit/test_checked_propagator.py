"""A propagator of the user gives the answer of a clean one, or is refused in one sentence."""

import numpy as np
import pytest
import torch

from mgnet import Solver
from mgnet.depth.mgrit.checked_propagator import CheckedPropagator
from mgnet.depth.mgrit.layer_hierarchy import layer_hierarchy
from mgnet.depth.mgrit.newton import NewtonSweep


class Decay:
    """u' = -u by the implicit Euler method; `fault` changes what a step does with its states."""

    def __init__(self, fault=lambda step, level, u: step(u)):
        self.fault, self.kept = fault, {}

    def advance(self, level, which, states):
        return self.fault(lambda u: u / (1.0 + 4**level / 64), (self, level, which), states)


def edits(step, place, u):
    u /= 3.0
    return step(3.0 * u)


def edits_and_gives_it(step, place, u):
    u[:] = step(u)
    return u


def one_array(step, place, u):
    out = place[0].kept.setdefault(tuple(u.shape), u + 0.0)
    out[:] = step(u)
    return out


REFUSED = {
    "edits": edits,
    "edits and gives it": edits_and_gives_it,
    "nothing": lambda step, place, u: None,
    "flat": lambda step, place, u: step(u).reshape(-1)[: len(u)],
    "an axis more": lambda step, place, u: step(u)[:, None],
    "the first alone": lambda step, place, u: step(u)[:1][0],
    "a list": lambda step, place, u: step(u).tolist(),
}


def solve(propagator, kind):
    hierarchy = layer_hierarchy(propagator, 18, kind([1.0, 2.0]), coarsening=4)
    guess = kind(np.ones((19, 2)))
    solution = Solver(hierarchy, rtol=1e-12).solve(u=guess).require()
    return hierarchy, np.asarray(solution.value), np.asarray(hierarchy[0].operator.march(None))


KINDS = [np.array, lambda x: torch.tensor(np.array(x))]


@pytest.mark.parametrize("kind", KINDS, ids=["NumPy", "torch"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_propagator_is_refused(name, kind):
    initial = kind([1.0, 2.0])
    with pytest.raises((TypeError, ValueError)) as caught:
        solve(Decay(REFUSED[name]), kind)
    assert str(caught.value).startswith("layer_hierarchy has a propagator, Decay, with a method")
    hierarchy = layer_hierarchy(Decay(REFUSED[name]), 18, initial)
    with pytest.raises((TypeError, ValueError), match="layer_hierarchy has a propagator, Decay"):
        hierarchy.check(kind(np.ones((19, 2))))
    assert initial.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("kind", KINDS, ids=["NumPy", "torch"])
@pytest.mark.parametrize("fault", [one_array, lambda step, place, u: step(u)], ids=["kept", "new"])
def test_one_array_each_time_changes_nothing(fault, kind):
    hierarchy, parallel, serial = solve(Decay(fault), kind)
    exact = np.array([1.0, 2.0]) * (64 / 65.0) ** np.arange(19)[:, None]
    assert abs(serial - exact).max() < 1e-14 and abs(parallel - exact).max() < 1e-11
    assert "a call for all layers" in hierarchy.check(kind(np.ones((19, 2))))


def test_check_finds_layers_that_are_mixed():
    """In a first guess all states are alike, so a mean of them all goes unseen."""

    def mixes(step, place, u):
        return u + (step(u) - u).mean(axis=0)

    hierarchy = layer_hierarchy(Decay(mixes), 18, np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="level 0 has a propagator whose state"):
        hierarchy.check(np.ones((19, 2)))


def test_the_rest_of_a_propagator_is_reached():
    class Marches(Decay):
        def march(self, level, layers, start, rows, reverse):
            return [start] * (layers + 1)

    assert CheckedPropagator(Decay()).kept == {}
    assert not hasattr(CheckedPropagator(Decay()), "march")
    assert len(CheckedPropagator(Marches()).march(0, 3, np.ones(1), None, False)) == 4


def test_gradients_go_through():
    weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    class Scale:
        def advance(self, level, which, states):
            return weight * states

    hierarchy = layer_hierarchy(Scale(), 3, torch.ones(1, dtype=torch.float64), levels=1)
    hierarchy[0].operator.march(None)[-1].sum().backward()
    assert weight.grad.item() == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("linearize", "sentence"),
    [
        (lambda states: (states.__imul__(0.5), np.full((4, 1, 1), 0.5)), "edits its argument"),
        (lambda states: 0.5 * states, "a pair, the states on the other side"),
    ],
)
def test_linearize_is_watched(linearize, sentence):
    class Halve:
        def advance(self, level, which, states):
            return 0.5 * states

        def linearize(self, level, which, states, structure):
            return linearize(states)

    level = layer_hierarchy(Halve(), 4, np.ones(1), levels=1, solver=NewtonSweep())[0]
    with pytest.raises((TypeError, ValueError), match=sentence):
        level.smoother.smooth(level, np.ones((5, 1)), None, 1, None)


def test_one_array_each_time_may_be_given():
    values, jacobian = np.empty((4, 1)), np.empty((4, 1, 1))

    class Halve:
        def advance(self, level, which, states):
            return 0.5 * states

        def linearize(self, level, which, states, structure):
            values[:], jacobian[:] = 0.5 * states, 0.5
            return values, jacobian

    level = layer_hierarchy(Halve(), 4, np.ones(1), levels=1, solver=NewtonSweep())[0]
    u, _ = level.smoother.smooth(level, np.ones((5, 1)), None, 2, None)
    assert (u.ravel() == 0.5 ** np.arange(5)).all()
