"""The probed radius is the largest that holds, by hand; no step raises the objective."""

import math

import pytest
import torch

from mgnet import Level
from mgnet.training import LeastSquares, LevenbergMarquardt, levenberg_marquardt
from mgnet.training.least_squares import probed_radius
from mgnet.training.least_squares.jacobian import DenseJacobian
from mgnet.training.least_squares.normal_equations import NormalEquations
from mgnet.training.least_squares.probed_radius import ProbedRadius
from mgnet.training.least_squares.step_rules import Nielsen, Trial

X = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64).unsqueeze(1)


def drawn(rows=9, columns=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    J = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    J *= torch.logspace(0.0, -3.0, columns, dtype=torch.float64)
    return NormalEquations(DenseJacobian(J), torch.randn(rows, generator=generator).double())


def until(limit, system):
    """Steps in a model that is exact up to a length, and worthless beyond."""

    def attempt(memory):
        d = system.damped(memory.mu)(None)
        image, size = system.J.matvec(d), length(system, memory.mu)
        exact = -float(image @ system.r) - 0.5 * float(image @ image)
        shift = memory.mu * system.scale * size**2
        # Exact with respect to the prediction, so that a share of it can be told.
        predicted = 0.5 * (shift + float(d @ system.descent))
        assert predicted == pytest.approx(exact, rel=1e-6)
        return Trial(exact if size <= limit else -1.0, predicted, size, 2.0 * predicted)

    return attempt


def length(system, mu):
    d = system.damped(mu)(None)
    return float((d if system.unit is None else d / system.unit).norm())


def searched(rule, memory, system, attempt, times=5):
    """After some searches: one that factorizes has to learn how lengths follow the damping."""
    for _ in range(times):
        memory = rule.look(memory, system, 1.0, attempt)
    return memory


def test_one_unknown_by_hand():
    """J = 1, r = -1: the step is 1 / (1 + mu), and holds at any length."""
    one = torch.ones(1, 1, dtype=torch.float64)
    system = NormalEquations(DenseJacobian(one), -one[0])
    rule = ProbedRadius()
    memory = rule.begin(3.0)._replace(pace=1.0)
    # The damping falls to 3 / 1.1, to 3 / 1.1^3, and to the end of its reach.
    memory = rule.look(memory, system, 1.0, until(math.inf, system))
    assert memory.mu == pytest.approx(1.0)
    assert memory.radius == pytest.approx(0.5)
    grown = math.log(0.5 / 0.25)
    assert memory.pace == pytest.approx(math.log(3.0) / grown)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("share", [0.6, 0.95, 1.02, 1.7])
def test_the_radius_is_the_largest_that_holds(shape, scaled, share):
    system = drawn(*shape)
    if scaled:
        system = system.measured(torch.linspace(0.5, 2.0, shape[1], dtype=torch.float64))
    rule, start = ProbedRadius(), 1e-2
    limit = share * length(system, start)
    memory = searched(rule, rule.begin(start), system, until(limit, system))
    assert limit / probed_radius.CLOSE**1.01 <= memory.radius <= limit
    assert length(system, memory.mu) == pytest.approx(memory.radius, rel=2e-3)


def test_a_radius_out_of_reach_is_left_for_the_next_search():
    system, rule = drawn(), ProbedRadius()
    start = length(system, 1e-2)
    memory = rule.look(rule.begin(1e-2), system, 1.0, until(0.0, system))
    assert memory.radius < 0.8 * start
    before, limit = memory, 1e-2 * start
    for _ in range(30):
        memory = rule.judge(memory, Trial(-1.0, 1.0, 1.0, 2.0))
        assert memory.mu > before.mu and memory.radius < before.radius
        memory = before = rule.look(memory, system, 1.0, until(limit, system))
        if memory.radius <= limit:
            break
    assert limit / probed_radius.CLOSE**1.01 <= memory.radius <= limit


def test_a_step_need_only_keep_its_share():
    system = drawn()
    rule = ProbedRadius(ratio=0.3)
    exact, limit = until(math.inf, system), 1.5 * length(system, 1.0)

    def attempt(memory):
        trial = exact(memory)
        return trial._replace(actual=(0.29 if trial.size > limit else 0.5) * trial.predicted)

    memory = searched(rule, rule.begin(1.0), system, attempt)
    assert limit / probed_radius.CLOSE**1.01 <= memory.radius <= limit


def test_nielsen_goes_on_when_the_damping_has_passed_its_minimum():
    rule, good = ProbedRadius(passed=3), Trial(1.0, 1.0, 1.0, 2.0)
    memory = rule.begin(1.0)
    for mu in (0.1, 0.01, 0.02, 0.03):
        memory = rule.judge(memory._replace(mu=mu, radius=1.0), good)
        assert rule.probes(memory) and not rule.accelerates(memory) and memory.mu == mu
    memory = rule.judge(memory._replace(mu=0.05), good)
    assert not rule.probes(memory) and rule.accelerates(memory) and memory.radius == 0.0
    assert rule.look(memory, None, 1.0, lambda memory: None) == memory
    for trial in (good, Trial(-1.0, 1.0, 1.0, 2.0)):
        assert rule.judge(memory, trial) == Nielsen().judge(memory, trial)


def tanh_network(seed=0):
    torch.manual_seed(seed)
    layers = torch.nn.Linear(1, 10), torch.nn.Tanh(), torch.nn.Linear(10, 1)
    return torch.nn.Sequential(*layers).double()


@pytest.mark.parametrize("right", [False, True])
def test_no_sweep_raises_the_objective(right):
    network = tanh_network()
    problem = LeastSquares(network, (X, torch.sin(3.0 * X)))
    smoother = LevenbergMarquardt(rule=ProbedRadius())
    level = Level(problem, smoother, objective=problem.value)
    u = problem.start()
    f = 1e-3 * torch.cos(torch.arange(len(u), dtype=torch.float64)) if right else None
    memory, values = smoother.start(level, u), []
    for _ in range(25):
        values.append(problem.value(u) - (float(f @ u) if right else 0.0))
        u, memory = smoother.smooth(level, u, f, 1, memory)
    assert all(b <= a + 1e-15 for a, b in zip(values[:-1], values[1:], strict=True))
    assert values[-1] < 0.05 * abs(values[0])


def test_no_sweep_leaves_the_bounds_or_raises_the_objective():
    problem = LeastSquares(tanh_network(), (X, torch.sin(3.0 * X)))
    level = Level(problem, LevenbergMarquardt(rule=ProbedRadius(), bounds=(-2.0, 2.0)))
    u = problem.start()
    memory, values = level.smoother.start(level, u), []
    for _ in range(60):
        values.append(problem.value(u))
        u, memory = level.smoother.smooth(level, u, None, 1, memory)
        assert float(u.abs().max()) <= 2.0
    assert values == sorted(values, reverse=True) and values[-1] < 1e-9
    assert float(u.abs().max()) == 2.0  # or nothing was bounded


def test_it_leads_to_more_digits_than_nielsen():
    def trained(rule, seed):
        network = tanh_network(seed)
        found = levenberg_marquardt(
            lambda network: network(X) - torch.sin(3.0 * X),
            network,
            rule=rule,
            corrections=0,  # with them Nielsen's rule is ahead by then
            max_cycles=60,
        )
        return math.log10(found.values[-1])

    gained = [trained(None, seed) - trained(ProbedRadius(), seed) for seed in range(2)]
    assert min(gained) > 1.0


def test_every_look_is_work():
    problem = LeastSquares(tanh_network(), (X, torch.sin(3.0 * X)))
    calls = []
    true = problem.residuals
    problem.residuals = lambda u: calls.append(1) or true(u)
    smoother = LevenbergMarquardt(rule=ProbedRadius())
    level = Level(problem, smoother, objective=problem.value)
    u = problem.start()
    smoother.smooth(level, u, None, 1, smoother.start(level, u))
    units = 1.0 if not calls else level.tally[0]
    assert len(calls) >= 3 and units == pytest.approx(1.0 + len(calls) / 3.0)


@pytest.mark.parametrize("given", [{"ratio": 1.0}, {"reach": 1.0}, {"passed": 0}, {"trials": 0}])
def test_wrong_numbers_are_refused(given):
    with pytest.raises(ValueError, match="ProbedRadius.*needs"):
        ProbedRadius(**given)
