"""Law: the last layer is in proportion to the targets, so their size does not matter."""

import math

import numpy as np
import pytest
import torch

from mgnet import Level
from mgnet.knots import KAN
from mgnet.training import (
    LeastSquares,
    LevenbergMarquardt,
    ProbedRadius,
    levenberg_marquardt,
    quasi_random,
    sine_network,
)
from mgnet.training.least_squares.normal_equations import NormalEquations
from mgnet.training.least_squares.proportion import first_step, trial_of
from mgnet.training.least_squares.sweep import Linearized
from mgnet.training.least_squares.units import Unknowns

X = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64).unsqueeze(1)
Linear, Parameter, Sequential = torch.nn.Linear, torch.nn.Parameter, torch.nn.Sequential


class Formula(torch.nn.Module):
    """Numbers of its own and, if asked for, a network."""

    def __init__(self, inner=None, **start):
        super().__init__()
        self.inner = inner
        for name, value in start.items():
            self.register_parameter(name, Parameter(torch.as_tensor(value).double()))


def layers(*widths, activation=torch.nn.Tanh):
    made = []
    for before, after in zip(widths[:-1], widths[1:], strict=True):
        made += [Linear(before, after), activation()]
    return Sequential(*made[:-1]).double()


def deep(*widths, activation=torch.nn.Tanh):
    """The same with the same parameters each time."""
    torch.manual_seed(0)
    return layers(*widths, activation=activation)


def level_of(problem, smoother=None):
    return Level(problem, smoother or LevenbergMarquardt(), objective=problem.value)


def told_of(module, target, dtype=torch.float64, x=X):
    problem = LeastSquares.from_torch(module, lambda m: m(x.to(dtype)) - target.to(dtype))
    u = problem.start().double()
    r, J = problem.linearize(u)
    told = Linearized(problem, u, r, J, None, problem.half_square(r))
    return Unknowns(problem, len(u)), told, NormalEquations(J, r)


def found_of(module, target, dtype=torch.float64):
    found, told, system = told_of(module, target, dtype)
    return first_step(found, level_of(found.problem), told, system, 1e-2)


@pytest.mark.parametrize(
    ("widths", "activation"),
    [((1, 6, 1), torch.nn.Tanh), ((1, 6, 1), torch.nn.ReLU), ((1, 6, 6, 1), torch.nn.Tanh)],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [1e4, 1e-4])
def test_targets_tell_the_units_of_the_last_layer_alone(widths, activation, dtype, size):
    module = deep(*widths, activation=activation).to(dtype)
    proportion, begun = found_of(module, size * (1.0 + torch.sin(3.0 * X)), dtype)
    *others, weights, bias = proportion.units
    assert set(others) == {1.0}
    first = len(begun) - 7
    typical = np.mean(begun[:first].numpy() ** 2) ** 0.5
    for unit, part in ((weights, begun[first:-1]), (bias, begun[-1:])):
        ratio = float(part.double().square().mean()) ** 0.5 / typical
        assert unit == pytest.approx(ratio / 10.0 if size > 1.0 else ratio * 10.0, rel=1e-5)
        assert unit > 10.0 if size > 1.0 else unit < 0.1


@pytest.mark.parametrize("size", [1e4, 1e-4])
def test_in_a_deep_linear_network_it_is_one_layer(size):
    """Residuals are linear in each layer alone; in two at once they are not."""
    module = Sequential(Linear(1, 4), Linear(4, 4), Linear(4, 1)).double()
    proportion, _ = found_of(module, size * (X + 1.0))
    assert set(proportion.units[:4]) == {1.0}
    assert min(abs(math.log10(unit)) for unit in proportion.units[4:]) > 1.0


def test_of_targets_with_an_offset_the_bias_is_large_and_the_weights_are_not():
    units = found_of(deep(1, 6, 1), 1e3 + torch.sin(3.0 * X))[0].units
    assert units[-1] > 20.0 and units[-2] < 0.3 * units[-1]


def test_where_all_is_linear_or_in_proportion_or_given_units_stay():
    assert found_of(Linear(1, 1).double(), 1e6 * X)[0].plain
    module = deep(1, 6, 1)
    for factor in (0.5, 1.0, 2.0):
        proportion, begun = found_of(module, factor * torch.sin(3.0 * X))
        assert proportion.plain and begun is None
    found, told, system = told_of(module, 1e4 * X)
    for x_scale in (1.0, 2.0, "jac"):
        other = Unknowns(found.problem, found.count, x_scale)
        given = first_step(other, level_of(found.problem), told, system, 1e-2)
        assert given == (None, None)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rows", [40, 5])
def test_the_first_step_is_a_ridge_regression_of_the_last_layer(seed, rows):
    """Whose matrix may come from either form of the system."""
    torch.manual_seed(seed)
    size = 10.0 ** (2 + seed) if seed % 2 else 10.0 ** -(2 + seed)
    module = Sequential(Linear(1, 6), torch.nn.Tanh(), Linear(6, 1)).double()
    x = X[:rows]
    y = size * torch.cos(2.0 * x + seed)
    unknowns, told, system = told_of(module, y, x=x)
    u = told.u
    assert system.dual == (rows < len(u))
    _, new = first_step(unknowns, level_of(unknowns.problem), told, system, 1e-2)
    features = torch.cat([torch.tanh(module[0](x)), torch.ones_like(x)], 1).detach()
    ridge = 1e-2 * float(features.square().sum()) / 7.0
    stacked = torch.cat([features, ridge**0.5 * torch.eye(7).double()])
    right = torch.cat([y, torch.zeros(7, 1).double()])
    exact = torch.linalg.lstsq(stacked, right, driver="gelsd").solution.squeeze(1)
    assert torch.equal(new[:-7], u[:-7])
    assert torch.allclose(new[-7:], exact, rtol=1e-9, atol=1e-12 * size + 1e-15)
    trial = trial_of(told, system, new)
    after = unknowns.problem.value(new)
    assert trial.accepted == (after <= 0.25 * told.half)
    assert trial.actual in (-math.inf, pytest.approx(told.half - after, rel=1e-9))


def wave(x):
    return torch.sin(3.0 * x[:, :1]) * torch.cos(2.0 * x[:, -1:])


def sizes_of(network, inputs, rule=None):
    """Cycles to a relative error of one hundredth, for targets of sizes far apart."""
    x = quasi_random(150, [(-1.0, 1.0)] * inputs)
    found = {}
    for size in (1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e6):
        torch.manual_seed(1)
        y, goal = size * wave(x), 0.5 * float((1e-2 * size * wave(x)).square().sum())
        solution = levenberg_marquardt(
            lambda m, y=y: m(x) - y,
            network(),
            max_cycles=100,
            rule=rule,
            monitor=lambda record, u, goal=goal: record.value < goal,
        )
        assert solution.values[-1] < goal, size
        found[size] = len(solution.history) - 1
    return found


@pytest.mark.parametrize(
    ("network", "inputs", "rule"),
    [
        (lambda: layers(1, 12, 1), 1, None),
        (lambda: layers(2, 10, 10, 1), 2, None),
        (lambda: layers(2, 10, 10, 1), 2, ProbedRadius()),
        (lambda: KAN([2, 4, 1], 6), 2, None),
        (lambda: sine_network([2, 10, 10, 1]), 2, None),
    ],
)
def test_the_size_of_the_targets_does_not_matter(network, inputs, rule):
    """Tiny ones take as many cycles as each other, and large ones no more than twice as many."""
    found = sizes_of(network, inputs, rule)
    assert len({found[1e-12], found[1e-6], found[1e-3]}) == 1
    assert max(found.values()) <= 2 * min(found.values())


@pytest.mark.parametrize("chunk_size", [None, 10])
def test_a_problem_that_zero_solves_is_solved_at_once(chunk_size):
    """The outputs cancel to their rounding, by whole matrices or by rows of them."""
    module = layers(2, 5, 2)
    x = quasi_random(30, [(-1.0, 1.0)] * 2)
    values = levenberg_marquardt(lambda m: m(x), module, chunk_size=chunk_size, max_cycles=3).values
    assert values[1] < 1e-25 * values[0]


def test_far_targets_beside_a_coefficient():
    """The unit of the coefficient is told by its column, not by the targets."""
    module = Formula(deep(1, 6, 1), rate=0.5)
    problem = LeastSquares.from_torch(module, lambda m: m.inner(X) - 1e3 * torch.sin(m.rate + X))
    level = level_of(problem)
    u = problem.start()
    _, memory = level.smoother.smooth(level, u, None, 1, level.smoother.start(level, u))
    named = dict(zip(problem.shapes, memory.proportion.units, strict=True))
    large = {name for name, unit in named.items() if unit != 1.0}
    assert large == {"inner.2.weight", "inner.2.bias"}
    column = float(problem.jacobian(u)[:, list(problem.shapes).index("rate")].norm())
    assert memory.norms.tolist() == pytest.approx([column])


@pytest.mark.parametrize("coefficient", [{}, {"rate": 1.0}])
def test_the_work_of_the_probes_is_charged(coefficient):
    """A third of a gradient for each evaluation of the residuals, of probes as of steps."""
    calls = []

    def residual(module):
        calls.append(1)
        return module.inner(X) * sum(module.parameters(recurse=False), 1.0) - 1e3 * X

    problem = LeastSquares.from_torch(Formula(deep(1, 6, 1), **coefficient), residual)
    level = level_of(problem, LevenbergMarquardt(acceleration=0.0))
    u = problem.start()
    memory, told = level.smoother.start(level, u), level.smoother.linearize(level, u, None)
    calls.clear()
    before = level.tally[0]
    level.smoother.step(level, told, memory)
    assert level.tally[0] - before == pytest.approx(len(calls) / 3.0)
