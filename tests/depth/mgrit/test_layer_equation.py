"""Laws: the layer equation is the serial recursion, forward and reverse; nothing is paid twice."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from mgnet.depth.mgrit.c_layers import CLayers, intervals
from mgnet.depth.mgrit.communicator import Gathered, SerialCommunicator
from mgnet.depth.mgrit.layer_equation import LayerEquation
from mgnet.depth.mgrit.marching import march_by_advance


class Net:
    """Layers `u + s_i tanh(W_i u)`; counts its evaluations."""

    def __init__(self, layers, width=3, seed=0):
        generator = np.random.default_rng(seed)
        self.W = generator.standard_normal((layers, width, width))
        self.count = 0

    def advance(self, level, which, states):
        W = self.W[which]
        self.count += len(W)
        assert len(states) == len(W)
        if isinstance(states, torch.Tensor):
            W = torch.from_numpy(W)
            return states + 0.1 * torch.tanh(states @ W)
        return states + 0.1 * np.tanh(states @ W)


def serial(net, u0, reverse):
    """The trajectory by an ordinary loop over single layers."""
    points = [u0]
    for W in net.W[::-1] if reverse else net.W:
        points.append(points[-1] + 0.1 * np.tanh(points[-1] @ W))
    return np.stack(points[::-1] if reverse else points)


def equation_of(net, u0, factor, reverse):
    n = len(net.W)
    return LayerEquation(net, 0, n, u0, CLayers(intervals(n, factor, reverse)), reverse)


SIZES = [(1, 2), (2, 2), (5, 2), (5, 3), (5, 4), (5, 7), (12, 4), (13, 4), (14, 4), (15, 4)]
both = pytest.mark.parametrize("reverse", [False, True])
kinds = pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])


@kinds
@both
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_the_march_is_the_serial_loop(kind, reverse, layers):
    net, u0 = Net(layers), np.random.default_rng(1).standard_normal((2, 3))
    equation = equation_of(net, kind(u0), 2, reverse)
    exact = serial(net, u0, reverse)
    assert abs(np.asarray(equation.march(None)) - exact).max() < 1e-15
    assert net.count == layers
    f = np.random.default_rng(2).standard_normal((layers + 1, 2, 3))
    u = equation.march(kind(f))
    fresh = equation_of(net, kind(u0), 2, reverse)  # one that does not remember u
    assert abs(np.asarray(fresh(u)) - f).max() < 1e-14
    assert isinstance(u, type(kind(u0)))


@kinds
@both
@pytest.mark.parametrize(("layers", "factor"), SIZES)
def test_relaxation_leaves_a_residual_on_c_points_only(kind, reverse, layers, factor):
    generator = np.random.default_rng(layers)
    net, u0 = Net(layers), generator.standard_normal((2, 3))
    u, f = (generator.standard_normal((layers + 1, 2, 3)) for _ in range(2))
    equation = equation_of(net, kind(u0), factor, reverse)
    relaxed = equation.relax(kind(u), kind(f))
    full = f - np.asarray(equation(relaxed))  # of all points, by the definition of A
    c_points = sorted({*range(0, layers, factor), layers})
    assert (np.asarray(relaxed)[c_points] == u[c_points]).all()
    f_points = np.setdiff1d(np.arange(layers + 1), c_points)
    assert abs(full[f_points]).max(initial=0.0) < 1e-14
    r = np.asarray(equation.residual(relaxed, kind(f)))
    assert abs(equation.residual(kind(u), kind(f)) - r).max() < 1e-14  # relaxes by itself
    assert r.shape == (len(c_points), 2, 3)
    assert abs(r - full[c_points]).max() < 1e-14


@both
@pytest.mark.parametrize(("layers", "factor"), SIZES)
def test_evaluations_are_counted_and_never_repeated(reverse, layers, factor):
    net = Net(layers)
    equation = equation_of(net, np.ones((1, 3)), factor, reverse)
    u, f, coarse = np.ones((layers + 1, 1, 3)), np.ones((layers + 1, 1, 3)), -(-layers // factor)
    v = equation.relax(u, f)
    assert net.count == layers - coarse
    assert equation.relax(v, f) is v
    equation.residual(v, f)
    assert net.count == layers
    w = equation.relax_c(v, f, 1.0)  # takes what arrived for the residual
    equation.residual(v, f)
    assert net.count == layers == round(equation.tally[0] * layers)
    equation.relax(w, f)
    assert net.count == 2 * layers - coarse
    equation.relax(w, u)  # another right-hand side
    assert net.count == 3 * layers - 2 * coarse


def test_c_points_alone_are_evaluated_once_for_every_right_hand_side():
    net = Net(5)
    equation = LayerEquation(net, 0, 5, np.ones((1, 3)), CLayers(intervals(5, 2, False), True))
    full = equation_of(net, np.ones((1, 3)), 2, False)
    u, (f, g) = np.ones((4, 1, 3)), np.random.default_rng(0).standard_normal((2, 6, 1, 3))
    for right in (f, g):
        r, net.count = equation.residual(u, right), 0
        assert equation.relax(u, right) is u
        assert (equation.residual(u, right) == r).all() and net.count == 0
        expected = full.residual(full.transfer.prolong(u), right)
        assert abs(r - expected).max() < 1e-15


def test_a_solved_state_needs_no_evaluation():
    net = Net(6)
    equation = equation_of(net, np.ones((1, 3)), 2, False)
    f = np.random.default_rng(0).standard_normal((7, 1, 3))
    u = equation.march(f)
    assert equation(u) is f
    u = equation.march(None)
    assert (equation(u)[0] == 1.0).all() and not equation(u)[1:].any()
    assert net.count == 12
    assert not equation(u.copy())[1:].any()
    assert net.count == 18


@kinds
@both
@pytest.mark.parametrize("rows", [False, True])
def test_a_propagator_may_march_by_itself(kind, reverse, rows):
    net, u0 = Net(5), np.random.default_rng(1).standard_normal((2, 3))
    f = kind(np.random.default_rng(2).standard_normal((6, 2, 3))) if rows else None
    wanted = equation_of(net, kind(u0), 2, reverse).march(f)
    asked = []

    class Marches(Net):
        def march(self, *told):
            asked.append(told)
            return march_by_advance(self, *told)

        def advance(self, level, which, states):
            assert asked
            return super().advance(level, which, states)

    found = equation_of(Marches(5), kind(u0), 2, reverse).march(f)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))
    ((level, layers, start, added, backwards),) = asked
    assert (level, layers, backwards) == (0, 5, reverse)
    assert start.shape == (1, 2, 3) and (added is None) == (not rows)


def test_an_equation_that_is_posed_anew_remembers_nothing():
    net, other = Net(6), Net(6, seed=1)
    equation = equation_of(net, np.ones((1, 3)), 2, False)
    f = np.random.default_rng(0).standard_normal((7, 1, 3))
    u = equation.march(f)
    v = equation.relax(u, f)
    r = equation.residual(v, f)
    assert equation.last_residual is r
    points = equation.transfer.inject(v)
    equation.pose(other, np.zeros((1, 3)))
    assert equation.last_residual is None and equation.transfer.inject(v) is not points
    fresh = equation_of(other, np.zeros((1, 3)), 2, False)
    for name, told in (("relax", (v, f)), ("residual", (v, f)), ("__call__", (u,))):
        np.testing.assert_array_equal(getattr(equation, name)(*told), getattr(fresh, name)(*told))
    assert equation.march(None)[0].tolist() == [[0.0, 0.0, 0.0]]


@both
def test_c_relaxation_is_weighted(reverse):
    net, generator = Net(6), np.random.default_rng(0)
    u, f = (generator.standard_normal((7, 1, 3)) for _ in range(2))
    equation = equation_of(net, u[0], 3, reverse)
    old = u[::3]
    full, part = (equation.relax_c(u, f, weight)[::3] for weight in (1.0, 1.5))
    assert abs(part - (old + 1.5 * (full - old))).max() < 1e-14
    arrived = equation.relax(u, f)  # by the definition of C-relaxation
    for left, right in pairwise([0, 3, 6]):
        a, b, W = (left + 1, left, net.W[left]) if reverse else (right - 1, right, net.W[right - 1])
        expected = arrived[a] + 0.1 * np.tanh(arrived[a] @ W) + f[b]
        assert abs(full[b // 3] - expected).max() < 1e-15


def test_no_state_is_edited():
    net = Net(5)
    equation = equation_of(net, np.ones((1, 3)), 2, False)
    u, f = np.ones((6, 1, 3)), np.full((6, 1, 3), 0.5)
    for a in (u, f, equation.initial):
        a.setflags(write=False)
    v = equation.relax(u, f)
    v.setflags(write=False)
    equation.residual(v, f)
    equation.relax_c(v, f, 0.5)
    equation(v)
    equation.march(f)


def test_the_coarsest_level_has_no_c_layers():
    equation = LayerEquation(Net(3), 1, 3, np.ones((1, 3)), None)
    with pytest.raises(ValueError, match="level 1 is the coarsest and has no C-layers"):
        equation.relax(np.ones((4, 1, 3)), None)


class Third(SerialCommunicator):
    """One of three processes; all are given what the others have."""

    def __init__(self, parts):
        self.parts = parts

    def allgather(self, rows):
        return self.parts


@kinds
@both
def test_a_gathered_level_is_marched_as_a_whole_by_each(kind, reverse):
    net, generator = Net(7), np.random.default_rng(1)
    u0, f = generator.standard_normal((2, 3)), generator.standard_normal((8, 2, 3))
    begins = [0, 3, 5, 7]
    parts = [kind(f[a : b + 1].copy()) for a, b in pairwise(begins)]
    for place in range(2):  # the copy at which a part begins is not to be read
        parts[place if reverse else place + 1][-1 if reverse else 0] = np.nan
    whole = LayerEquation(net, 1, 7, kind(u0), None, reverse)
    for first, last in pairwise(begins):
        own = LayerEquation(
            net, 0, last - first, kind(u0), None, reverse, Third(parts), Gathered(first, 7)
        )
        for rhs, every in ((None, None), (parts[begins.index(first)], kind(f))):
            np.testing.assert_array_equal(own.march(rhs), whole.march(every)[first : last + 1])
        assert own.tally == [2.0]
    idle = LayerEquation(net, 0, 0, kind(u0), None, reverse, Third(parts), Gathered(7, 7))
    count = net.count
    assert len(idle.march(kind(f[:1]))) == 1 and net.count == count
