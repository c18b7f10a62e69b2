"""The smoother: no sweep raises the objective, and its steps are those by hand."""

import math

import pytest
import scipy.optimize
import torch

from mgnet import Hierarchy, Level, run
from mgnet.knots import KAN, knot_transfer
from mgnet.schedule import Schedule, Step
from mgnet.training import LeastSquares, LevenbergMarquardt
from mgnet.training.least_squares.step_rules import Nielsen

X = torch.linspace(-1.0, 1.0, 60, dtype=torch.float64).unsqueeze(1)


def level(smoother, target=None, network=None):
    network = network or KAN([1, 2, 1], 3)
    problem = LeastSquares(network, (X, torch.sin(5 * X) if target is None else target))
    return Level(problem, smoother, objective=problem.value)


def sweeps(one, u, f, count):
    memory = one.smoother.start(one, u)
    values = []
    for _ in range(count):
        u, memory = one.smoother.smooth(one, u, f, 1, memory)
        values.append(one.operator.value(u) - (0.0 if f is None else float(f @ u)))
    return u, values


@pytest.mark.parametrize("acceleration", [0.0, 0.75])
def test_a_linear_problem_is_solved_like_lstsq(acceleration):
    network = KAN([1, 1], 5)
    one = level(LevenbergMarquardt(acceleration=acceleration), network=network)
    u, values = sweeps(one, one.operator.start(), None, 25)
    J = one.operator.jacobian(u)
    best = torch.linalg.lstsq(J, torch.sin(5 * X) / len(X) ** 0.5).solution[:, 0]
    torch.testing.assert_close(u, best, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("acceleration", [0.0, 0.75])
def test_no_sweep_raises_the_objective(acceleration):
    one = level(LevenbergMarquardt(acceleration=acceleration, mu=1e-8))
    start = one.operator.start()
    f = 1e-3 * torch.cos(torch.arange(len(start), dtype=torch.float64))
    for rhs in (None, f):
        _, values = sweeps(one, start, rhs, 30)
        assert all(b <= a + 1e-15 for a, b in zip(values[:-1], values[1:], strict=True))
        assert values[-1] < 0.05 * abs(values[0])


def test_a_minimum_does_not_raise_the_damping():
    """Beside the minimum only rounding is left: whether a step is refused there means nothing."""
    one = level(LevenbergMarquardt(), network=KAN([1, 1], 5))
    for seed in range(5):
        torch.manual_seed(seed)
        u = torch.randn(8, dtype=torch.float64)
        u, memory = one.smoother.smooth(one, u, None, 30, one.smoother.start(one, u))
        again, kept = one.smoother.smooth(one, u, None, 20, memory)
        assert again is u and kept == memory
        assert memory.mu < one.smoother.mu


def test_it_ends_no_higher_than_scipy():
    one = level(LevenbergMarquardt())
    start = one.operator.start()
    _, values = sweeps(one, start, None, 200)

    def residuals(u):
        return one.operator.residuals(torch.from_numpy(u)).numpy()

    def jacobian(u):
        return one.operator.jacobian(torch.from_numpy(u)).numpy()

    theirs = scipy.optimize.least_squares(residuals, start.numpy(), jacobian, method="trf")
    assert values[-1] <= 1.05 * theirs.cost


def test_the_right_hand_side_tilts_the_objective():
    one = level(LevenbergMarquardt(), network=KAN([1, 1], 3))
    start = one.operator.start()
    f = 1e-2 * torch.ones(len(start), dtype=torch.float64)
    u, _ = sweeps(one, start, f, 30)
    torch.testing.assert_close(one.operator(u), f, rtol=1e-6, atol=1e-9)  # gradient = f


def test_damping_survives_refinement():
    memory = LevenbergMarquardt().start(level(LevenbergMarquardt()), X)._replace(mu=0.125)
    carried = LevenbergMarquardt().carry(memory, knot_transfer(KAN([1, 1])))
    assert carried.mu == 0.125


def test_refusals():
    with pytest.raises(ValueError, match="needs a positive mu"):
        LevenbergMarquardt(mu=0.0)
    hierarchy = Hierarchy([Level(lambda u: u, LevenbergMarquardt(), name="level 0")])
    with pytest.raises(
        TypeError, match="level 0 has an operator of type function; .* LeastSquares"
    ):
        run(Schedule([Step("solve", 0)]), hierarchy, X[:, 0], None)


class Curve(torch.nn.Module):
    """A formula with numbers to find."""

    def __init__(self, formula, start):
        super().__init__()
        self.formula = formula
        self.b = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, *inputs):
        return self.formula(self.b, *inputs)


def nielsen(mu, acceleration=0.0, trials=12):
    """Damping relative to the mean diagonal, in one unit for all: what is easy by hand."""
    return LevenbergMarquardt(mu, acceleration, x_scale=1.0, rule=Nielsen(trials))


def scalar(formula, start, smoother):
    """A level of one unknown, and its first state."""
    module = Curve(formula, [start])
    problem = LeastSquares.from_torch(module, lambda m: m())
    return Level(problem, smoother, objective=problem.value), problem.start()


def test_one_step_by_hand_its_growth_and_its_damping_after_two_refusals():
    """With r = atan(b) at b = 3, J = 1/10, s = 1/100, d = -10 atan(3) / (1 + mu).

    mu = 1/2 leads to -5.3, mu = 1 to -3.2: both are refused. Doubled, then quadrupled, mu is 4.
    """
    one, u = scalar(torch.atan, 3.0, nielsen(0.5))
    new, memory = one.smoother.smooth(one, u, None, 1, one.smoother.start(one, u))
    d = -10.0 * math.atan(3.0) / 5.0
    assert float(new) == pytest.approx(3.0 + d, rel=1e-12)
    # The gain is above 1: the damping falls to a third, no further.
    assert memory.mu == pytest.approx(4.0 / 3.0, rel=1e-12)
    assert memory.growth == 2.0
    assert one.tally[0] == pytest.approx(1.0 + 3.0 / 3.0)  # a Jacobian and three trials


def test_the_damping_follows_the_gain_by_hand():
    """With r = b + b^3 at b = 1, J = 4, d = -1/4: then b is 3/4, and r falls from 2 to 75/64."""
    one, u = scalar(lambda b: b + b**3, 1.0, nielsen(1.0))
    new, memory = one.smoother.smooth(one, u, None, 1, one.smoother.start(one, u))
    assert float(new) == pytest.approx(0.75, rel=1e-12)
    # predicted = 1/2 d (mu s d - J r) = 1/2 (-1/4) (-4 - 8)
    gain = 0.5 * (4.0 - (75.0 / 64.0) ** 2) / 1.5
    assert 0.8 < gain < 0.9
    assert memory.mu == pytest.approx(1.0 - (2.0 * gain - 1.0) ** 3, rel=1e-9)


@pytest.mark.parametrize(("bound", "mu"), [(0.75, 0.2), (0.9, 0.1)])
def test_an_acceleration_that_is_too_large_is_refused_by_hand(bound, mu):
    """With r = b^2 at b = 1, d = -1 / (2 (1 + mu)), a = -d^2 / (1 + mu).

    2 |a / d| = 1 / (1 + mu)^2 is 0.83 for mu = 0.1, the first trial, and 0.69 for 0.2, the second.
    """
    one, u = scalar(torch.square, 1.0, nielsen(0.1, bound))
    new, memory = one.smoother.smooth(one, u, None, 1, one.smoother.start(one, u))
    d = -1.0 / (2.0 * (1.0 + mu))
    expected = 1.0 + d - 0.5 * d**2 / (1.0 + mu)
    assert float(new) == pytest.approx(expected, rel=1e-9)
    predicted = 0.5 * d * (4.0 * mu * d - 2.0)
    gain = (0.5 - 0.5 * expected**4) / predicted
    shrink = max(1.0 / 3.0, 1.0 - (2.0 * min(gain, 1.0) - 1.0) ** 3)
    assert memory.mu == pytest.approx(mu * shrink, rel=1e-9)


def test_a_sweep_that_finds_no_step_leaves_the_state():
    """At b = 3 neither mu = 1/2 nor mu = 1 lowers atan(b)^2, as above."""
    one, u = scalar(torch.atan, 3.0, nielsen(0.5, trials=2))
    same, memory = one.smoother.smooth(one, u, None, 1, one.smoother.start(one, u))
    assert same is u and float(u) == 3.0
    assert memory.mu == 4.0 and memory.growth == 2.0  # the next sweep goes on from here
    new, _ = one.smoother.smooth(one, u, None, 1, memory)
    assert float(new) == pytest.approx(3.0 - 2.0 * math.atan(3.0), rel=1e-12)


def test_at_the_minimum_the_state_stays_too():
    one = level(LevenbergMarquardt(rule=Nielsen(trials=3)), network=KAN([1, 1], 3))
    u, _ = sweeps(one, one.operator.start(), None, 60)
    for _ in range(20):
        before, (u, _) = u, one.smoother.smooth(one, u, None, 1, one.smoother.start(one, u))
        if u is before:
            break
    assert u is before
