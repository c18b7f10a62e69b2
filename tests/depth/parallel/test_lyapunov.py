"""Laws: exponents are those of the literature, of matrices and of autograd; verdicts follow."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import mgnet
from mgnet.depth import (
    CyclesToTolerance,
    FixedCycles,
    LayerParallel,
    NewtonSweep,
    ODENet,
    OneStep,
    lyapunov,
)
from mgnet.depth.parallel.lyapunov import told_of
from mgnet.depth.parallel.method import SERIAL_METHOD
from mgnet.depth.parallel.propagation_setup import PropagationSetup, detached


def lorenz(t, dt, u):
    """The classical Runge-Kutta method."""

    def slope(u):
        x, y, z = u.T
        return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], 1)

    h = dt[:, None]
    a = slope(u)
    b = slope(u + h / 2 * a)
    c = slope(u + h / 2 * b)
    return u + h / 6 * (a + 2 * b + 2 * c + slope(u + h * c))


def test_lorenz():
    """0.9056 per unit of time (Viswanath 1998); 300 units are known to about 0.03."""
    problem = OneStep(lorenz, np.array([-10.0, -10.0, 28.0]), np.full(15000, 0.02))
    found = lyapunov(problem, directions=1)
    assert found.per_time == pytest.approx(0.9056, abs=0.04)
    assert found.exponent == pytest.approx(0.02 * found.per_time)
    assert not found.converges and "expect no parallel method" in str(found)


def test_logistic_map():
    found = lyapunov(OneStep(lambda t, dt, u: 4 * u * (1 - u), np.array([0.3]), np.ones(5000)))
    assert found.exponent == pytest.approx(np.log(2.0), abs=0.01)


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.3])
def test_a_linear_map_has_the_logarithm_of_its_spectral_radius(scale):
    A = np.random.default_rng(0).standard_normal((5, 5))
    A *= scale / abs(np.linalg.eigvals(A)).max()
    found = lyapunov(OneStep(lambda t, dt, u: u @ A.T, np.ones(5), np.ones(600)))
    assert found.exponent == pytest.approx(np.log(scale), abs=0.01)
    assert found.converges == (found.exponent * 600 < np.log(1000.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nets_have_the_growth_of_their_jacobians(dtype):
    """Of the whole product, by autograd, to the logarithm of the width at most."""
    torch.manual_seed(0)
    net = ODENet(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), 40, final_time=12.0).to(dtype)
    x = torch.randn(3, 4, dtype=dtype)
    found = lyapunov(net, x, directions=6)
    for sample in range(3):
        product = torch.autograd.functional.jacobian(lambda u: net(u[None])[0], x[sample])
        exact = float(torch.linalg.matrix_norm(product, 2).log()) / 40
        assert exact - np.log(4) / 40 < found.exponents[sample] < exact + 1e-3
    assert found.exponent == pytest.approx(np.mean(found.exponents))
    assert str(lyapunov(LayerParallel(net), x, directions=6)) == str(found)


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_cells(kind):
    torch.manual_seed(0)
    cell, x = kind(3, 6).double(), torch.randn(60, 2, 3, dtype=torch.float64)
    found = lyapunov(cell, x, directions=6)
    width = 12 if kind is nn.LSTMCell else 6

    def run(state):
        h = state[None]
        for given in x[:, :1]:
            h = torch.cat(cell(given, h.chunk(2, 1)), 1) if width == 12 else cell(given, h)
        return h[0]

    start = torch.zeros(width, dtype=torch.float64)
    product = torch.autograd.functional.jacobian(run, start)
    exact = float(torch.linalg.matrix_norm(product, 2).log()) / 60
    assert exact - np.log(width) / 60 < found.exponents[0] < exact + 1e-3
    assert found.exponent < 0 and found.converges


def test_functions_begin_with_a_state():
    x, start = torch.zeros(50, 2, 3), torch.rand(2, 3)
    found = lyapunov(lambda given, h: 1.1 * h + given, x, state=start)
    assert found.exponent == pytest.approx(np.log(1.1), abs=1e-4)
    assert found.converges and "little enough" in str(found)
    with pytest.raises(TypeError, match="give the initial state"):
        lyapunov(lambda given, h: h, x)


def test_side_inputs_are_given_on():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(1))

        def forward(self, u, scale=0.0):
            return u * scale + self.bias

    net, x = ODENet(lambda n: Scaled(), 20, final_time=20.0), torch.ones(1, 3)
    assert lyapunov(net, x, scale=torch.tensor(0.5)).exponent == pytest.approx(np.log(1.5), 1e-4)


def test_errors_that_vanish_and_states_that_overflow():
    found = lyapunov(OneStep(lambda t, dt, u: 0.0 * u, np.ones(2), np.ones(9)))
    assert found.exponent == -np.inf and found.converges
    with np.errstate(all="ignore"):
        found = lyapunov(OneStep(lambda t, dt, u: u**9 * 1e50, np.ones(2), np.ones(9)))
    assert np.isnan(found.exponent) and not found.converges
    assert "not finite" in str(found)


# Where it is said


class Chaotic(nn.Module):
    def __init__(self, gain=4.0):
        super().__init__()
        self.linear = nn.Linear(16, 16, bias=False)
        nn.init.normal_(self.linear.weight, std=gain / 4)

    def forward(self, u):
        return torch.tanh(self.linear(u)) - u


def warned(net, x, **settings):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        LayerParallel(net, **settings)(x).sum().backward()
    return [str(each.message) for each in told if "continues training" in str(each.message)]


def test_the_guard_says_it_once_where_errors_are_large():
    torch.manual_seed(0)
    net = ODENet(lambda n: Chaotic(), 64, final_time=64.0)
    x = torch.randn(3, 16)
    (told,) = warned(net, x, control=FixedCycles(2))
    assert str(lyapunov(net, x, directions=1)) in told and "expect no parallel method" in told
    net = ODENet(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), 64)
    (told,) = warned(net, x[:, :4], control=FixedCycles(1, tolerance=1e-9))
    assert "little enough" in told or "errors shrink" in told
    assert warned(net, x[:, :4], control=CyclesToTolerance(0.01)) == []


def test_a_message_costs_no_count_and_no_random_number():
    torch.manual_seed(0)
    net, u = ODENet(lambda n: Chaotic(), 6), torch.randn(2, 16)
    setup = PropagationSetup.of(net.kernel, detached(net.layers()), SERIAL_METHOD)
    before = net.kernel.evaluations, torch.get_rng_state()
    assert "per layer" in told_of(setup, u)
    assert net.kernel.evaluations == before[0] and torch.equal(torch.get_rng_state(), before[1])
    assert told_of(setup, u[:0]) == ""


def test_a_divergence_names_it():
    class Cubic(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, u):
            return 50 * self.linear(u) ** 3

    net = ODENet(lambda n: Cubic(), 16, final_time=16.0)
    with pytest.raises(FloatingPointError, match="weights are finite.*not finite along the layers"):
        LayerParallel(net)(torch.ones(2, 4))


@pytest.mark.parametrize("solver", [mgnet.depth.SerialSweep(), NewtonSweep("identity")])
def test_explain_says_it_where_a_solve_has_not_converged(solver):
    steps = np.full(2000, 0.01)
    problem = OneStep(lorenz, np.ones(3), steps)
    hierarchy = problem.hierarchy(levels=2 if "Serial" in str(solver) else 1, solver=solver)
    with np.errstate(all="ignore"):
        solution = mgnet.Solver(hierarchy, rtol=1e-8, max_cycles=4).solve(u=problem.guess())
        assert not solution.reason.converged
        assert "expect no parallel method to converge" in solution.explain()
    pleasant = OneStep(lambda t, dt, u: u * (1 - dt[:, None]), np.ones(1), steps)
    solution = mgnet.Solver(pleasant.hierarchy(), rtol=1e-8).solve(u=pleasant.guess())
    assert solution.reason.converged and "exponent" not in solution.explain()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((nn.GRU(2, 2), torch.ones(3, 1, 2)), "lyapunov got a GRU; give an ODENet"),
        ((nn.GRUCell(2, 2), None), "a GRUCell and the input None; give a batch of inputs"),
        ((3, torch.ones(3, 1, 2)), "lyapunov got a int"),
        ((nn.GRUCell(2, 2), torch.ones(2)), r"the sequence \(2,\) for a cell"),
    ],
)
def test_refusals(given, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        lyapunov(*given)
    with pytest.raises(ValueError, match="directions = 0"):
        lyapunov(nn.GRUCell(2, 2), torch.ones(3, 1, 2), directions=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_and_does_not_stop_a_training(dtype):
    net = ODENet(torch.nn.Linear(3, 3), 16).to(dtype)
    x = torch.randn(4, 3, dtype=dtype)
    with pytest.raises(TypeError, match="whose differences are meaningless"):
        lyapunov(net, x)
    if dtype == torch.bfloat16:
        control = FixedCycles(1, tolerance=1e-9)
        with pytest.warns(UserWarning, match="estimated relative error"):
            LayerParallel(net, control=control).train()(x).sum().backward()


def test_states_that_are_tuples_and_sequences_without_a_batch():
    lstm, x = torch.nn.LSTMCell(3, 4).double(), torch.randn(60, 1, 3, dtype=torch.float64)
    parts = torch.zeros(2, 1, 4, dtype=torch.float64)

    def own(x, state):
        return lstm(x, state)

    wanted = lyapunov(lstm, x).exponent
    for found in (lyapunov(lstm, x[:, 0]), lyapunov(lstm, x, state=tuple(parts))):
        assert found.exponent == pytest.approx(wanted)
    assert lyapunov(own, x, state=tuple(parts)).exponent == pytest.approx(wanted)
    halved = lyapunov(lambda x, h: (0.5 * h[0], 0.5 * h[1]), x, state=tuple(parts + 1.0))
    assert halved.exponent == pytest.approx(np.log(0.5))
    with pytest.raises(TypeError, match="got a state of type float"):
        lyapunov(own, x, state=0.5)
