"""Law: Nielsen's damping and MINPACK's radius follow the ratio of actual to predicted reduction."""

import math

import numpy as np
import pytest
import torch

from mgnet import Level
from mgnet.training import LeastSquares, LevenbergMarquardt
from mgnet.training.least_squares.jacobian import DenseJacobian
from mgnet.training.least_squares.singular_values import SingularEquations
from mgnet.training.least_squares.step_rules import Damping, Nielsen, StepRule, Trial, TrustRegion
from mgnet.training.least_squares.units import Unknowns

DRAWN = np.random.default_rng(0).uniform(0.0, 1.0, (40, 6))


def trial(gain, predicted=2.0, size=1.5, slope=5.0):
    return Trial(gain * predicted, predicted, size, slope)


@pytest.mark.parametrize(
    ("gain", "factor"),
    [
        (0.5, 1.0),
        (0.75, 1.0 - 0.5**3),
        (0.25, 1.0 + 0.5**3),
        (2e-4, 1.0 + (1.0 - 4e-4) ** 3),
        (1.0, 1.0 / 3.0),
        (7.0, 1.0 / 3.0),
    ],
)
def test_nielsens_factor_after_a_step(gain, factor):
    memory = Nielsen().judge(Damping(0.3, 8.0), trial(gain))
    assert memory.mu == pytest.approx(0.3 * factor, rel=1e-12)
    assert (memory.growth, memory.gain) == (2.0, gain)


def test_nielsens_damping_doubles_its_growth_at_each_refusal():
    memory, rule = Nielsen().begin(1.0), Nielsen()
    for expected in (2.0, 8.0, 64.0, 1024.0):
        memory = rule.judge(memory, trial(-1.0))
        assert memory.mu == expected
    assert memory.growth == 32.0
    assert rule.judge(Damping(1e15, 2.0), trial(-1.0)).mu == 1e15
    assert rule.judge(Damping(2e-30, 2.0), trial(1.0)).mu == 1e-30


@pytest.mark.parametrize("rule", [Nielsen(), TrustRegion()])
def test_what_is_a_step(rule):
    assert trial(2e-4).accepted and not trial(0.5e-4).accepted
    assert not Trial(-math.inf, 1.0, 1.0, 1.0).accepted
    assert not Trial(1.0, 0.0, 1.0, 1.0).accepted  # a reduction that was not predicted
    assert rule.judge(Damping(1.0, 2.0, radius=1.0), trial(0.9)).gain == pytest.approx(0.9)


def minpack(radius, par, pnorm, actred, prered, dirder):
    """The update of `lmder`, in its words: reductions and slope relative to |r|^2 and 1/2 |r|^2."""
    ratio = actred / prered if prered else 0.0
    if ratio <= 0.25:
        temp = 0.5 if actred >= 0.0 else 0.5 * dirder / (dirder + 0.5 * actred)
        if temp < 0.1:
            temp = 0.1
        return temp * min(radius, pnorm / 0.1), par / temp
    if par == 0.0 or ratio >= 0.75:
        return pnorm / 0.5, 0.5 * par
    return radius, par


@pytest.mark.parametrize("draws", DRAWN)
def test_the_radius_is_minpacks(draws):
    """`lmder` measures in |r|^2: its prered and actred are ours over 1/2 |r|^2, dirder its half."""
    half = 10.0 ** (6.0 * draws[0] - 3.0)
    predicted, gain = draws[1] * half, 4.0 * draws[2] - 2.5
    radius, mu = 3.0 * draws[3], 0.0 if draws[4] < 0.3 else draws[4]
    size = radius * (0.05 + draws[5])
    # predicted = 1/2 |J d|^2 + mu s |D d|^2, slope = |J d|^2 + mu s |D d|^2
    damped = draws[4] * predicted
    slope = 2.0 * (predicted - damped) + damped
    found = TrustRegion().judge(
        Damping(mu, 2.0, radius=radius), Trial(gain * predicted, predicted, size, slope)
    )
    expected = minpack(
        radius, mu, size, gain * predicted / half, predicted / half, -0.5 * slope / half
    )
    assert (found.radius, found.mu) == pytest.approx(expected, rel=1e-12)
    assert found.gain == pytest.approx(gain)


def test_a_step_to_infinity_shrinks_the_radius_to_a_tenth():
    found = TrustRegion().judge(Damping(1.0, 2.0, radius=1.0), Trial(-math.inf, 1.0, 1.0, 1.0))
    assert (found.radius, found.mu) == pytest.approx((0.1, 10.0))


def equations(J, r):
    return SingularEquations(DenseJacobian(torch.tensor(J)), torch.tensor(r))


def test_the_first_radius():
    """The factor times |D u|, of the Gauss-Newton step where that is zero, and no more than it."""
    system = equations([[2.0, 0.0], [0.0, 0.5]], [6.0, 2.0])  # Gauss-Newton: (-3, -4)
    for factor, size, expected in ((0.1, 20.0, 2.0), (1.0, 20.0, 5.0), (0.2, 0.0, 1.0)):
        memory = TrustRegion(factor).propose(TrustRegion().begin(7.0), system, size)
        assert memory.radius == pytest.approx(expected)
        step = system.damped(memory.mu)(None)
        assert float(step.norm()) == pytest.approx(expected, rel=0.1)
        assert (memory.mu == 0.0) == (expected == 5.0)
    kept = TrustRegion().propose(Damping(0.0, 2.0, radius=0.7), system, 100.0)
    assert kept.radius == 0.7


def test_the_first_step_is_lengthened_while_the_model_holds():
    rule, before, now = TrustRegion(), Damping(0.0, 2.0), Damping(1.0, 2.0, radius=2.0)
    longer = rule.reaching(before, now, trial(0.9, size=1.5))
    assert longer is not None and longer.radius == 15.0
    assert rule.reaching(before, now, trial(0.7)) is None
    assert rule.reaching(before, now._replace(mu=0.0), trial(0.9)) is None  # the whole step
    assert rule.reaching(now, now, trial(0.9)) is None  # not the first
    assert Nielsen().reaching(before, now, trial(0.9)) is None


def test_by_hand_a_trust_region_takes_the_longest_good_step():
    """With r = b - 100 at b = 1, radii of 1 and 10 lie on the way; the next would be the whole."""
    module = torch.nn.Module()
    module.b = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    problem = LeastSquares.from_torch(module, lambda module: module.b - 100.0)
    level = Level(problem, LevenbergMarquardt(), objective=problem.value)
    u = problem.start()
    assert isinstance(level.smoother.rule_for(Unknowns(problem, 1)), TrustRegion)
    new, memory = level.smoother.smooth(level, u, None, 1, level.smoother.start(level, u))
    assert float(new) == pytest.approx(100.0, rel=1e-12)
    assert memory.mu == 0.0


def test_a_rule_of_ones_own():
    """Steepest descent's friend: a fixed damping."""

    class Fixed(StepRule):
        trials = 1

        def begin(self, mu):
            return Damping(mu, 2.0)

        def propose(self, memory, system, size):
            return memory

        def judge(self, memory, trial):
            return memory

    with pytest.raises(TypeError, match="a rule of type str; give a StepRule, such as TrustRegion"):
        LevenbergMarquardt(rule="nielsen")
    assert LevenbergMarquardt(rule=Fixed()).rule.accelerates(Damping(1.0, 2.0))
