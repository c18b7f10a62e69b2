"""Levenberg-Marquardt finds what SciPy and NIST find, and no step raises the objective."""

import math
import pickle

import numpy as np
import pytest
import scipy.optimize
import torch

from mgnet import Hierarchy, Level, Reason, run
from mgnet.knots import KAN, knot_transfer
from mgnet.schedule import Schedule, Step
from mgnet.training import LeastSquares, LevenbergMarquardt, levenberg_marquardt

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


def scalar(formula, start, smoother):
    """A level of one unknown, and its first state."""
    module = Curve(formula, [start])
    problem = LeastSquares.from_torch(module, lambda m: m())
    return Level(problem, smoother, objective=problem.value), problem.start()


def test_one_step_by_hand_its_growth_and_its_damping_after_two_refusals():
    """With r = atan(b) at b = 3, J = 1/10, s = 1/100, d = -10 atan(3) / (1 + mu).

    mu = 1/2 leads to -5.3, mu = 1 to -3.2: both are refused. Doubled, then quadrupled, mu is 4.
    """
    one, u = scalar(torch.atan, 3.0, LevenbergMarquardt(mu=0.5, acceleration=0.0))
    new, memory = one.smoother.smooth(one, u, None, 1, one.smoother.start(one, u))
    d = -10.0 * math.atan(3.0) / 5.0
    assert float(new) == pytest.approx(3.0 + d, rel=1e-12)
    # The gain is above 1: the damping falls to a third, no further.
    assert memory.mu == pytest.approx(4.0 / 3.0, rel=1e-12)
    assert memory.growth == 2.0
    assert one.tally[0] == pytest.approx(1.0 + 3.0 / 3.0)  # a Jacobian and three trials


def test_the_damping_follows_the_gain_by_hand():
    """With r = b + b^3 at b = 1, J = 4, d = -1/4: then b is 3/4, and r falls from 2 to 75/64."""
    one, u = scalar(lambda b: b + b**3, 1.0, LevenbergMarquardt(mu=1.0, acceleration=0.0))
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
    one, u = scalar(torch.square, 1.0, LevenbergMarquardt(mu=0.1, acceleration=bound))
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
    one, u = scalar(torch.atan, 3.0, LevenbergMarquardt(mu=0.5, trials=2, acceleration=0.0))
    same, memory = one.smoother.smooth(one, u, None, 1, one.smoother.start(one, u))
    assert same is u and float(u) == 3.0
    assert memory.mu == 4.0 and memory.growth == 2.0  # the next sweep goes on from here
    new, _ = one.smoother.smooth(one, u, None, 1, memory)
    assert float(new) == pytest.approx(3.0 - 2.0 * math.atan(3.0), rel=1e-12)


def test_at_the_minimum_the_state_stays_too():
    one = level(LevenbergMarquardt(trials=3), network=KAN([1, 1], 3))
    u, _ = sweeps(one, one.operator.start(), None, 60)
    for _ in range(20):
        before, (u, _) = u, one.smoother.smooth(one, u, None, 1, one.smoother.start(one, u))
        if u is before:
            break
    assert u is before


# NIST StRD, https://www.itl.nist.gov/div898/strd/nls/data/misra1a.shtml, from its first start
MISRA_X = [77.6, 114.9, 141.1, 190.8, 239.9, 289.0, 332.8, 378.4, 434.8, 477.3, 536.8, 593.1]
MISRA_X += [689.1, 760.0]
MISRA_Y = [10.07, 14.73, 17.94, 23.93, 29.61, 35.18, 40.02, 44.82, 50.76, 55.05, 61.01, 66.40]
MISRA_Y += [75.47, 81.78]


@pytest.mark.parametrize("start", [[500.0, 1e-4], [250.0, 5e-4]])
def test_misra1a_has_its_certified_values(start):
    x, y = torch.tensor([MISRA_X, MISRA_Y], dtype=torch.float64)
    module = Curve(lambda b, x: b[0] * (1.0 - torch.exp(-b[1] * x)), start)
    solution = levenberg_marquardt(lambda m: m(x) - y, module, rtol=1e-12)
    assert solution.reason.converged
    assert module.b.tolist() == pytest.approx([2.3894212918e2, 5.5015643181e-4], rel=1e-8)
    assert 2.0 * solution.values[-1] == pytest.approx(1.2455138894e-1, rel=1e-9)


def rosenbrock(b):
    return torch.stack([10.0 * (b[1] - b[0] ** 2), 1.0 - b[0]])


def exponentials(b, x):
    return b[0] * torch.exp(-b[1] * x) + b[2] * torch.exp(-b[3] * x) - 1.0 / (1.0 + x)


@pytest.mark.parametrize(
    ("formula", "start", "inputs"),
    [
        (rosenbrock, [-1.2, 1.0], []),
        (exponentials, [1.0, 3.0, 0.5, 0.2], [torch.linspace(0, 4, 30).double()]),
    ],
)
@pytest.mark.parametrize("method", ["lm", "trf"])
def test_it_ends_where_scipy_ends(formula, start, inputs, method):
    def residuals(b):
        return formula(torch.from_numpy(b), *inputs).numpy()

    theirs = scipy.optimize.least_squares(residuals, start, method=method, gtol=1e-14)
    module = Curve(formula, start)
    solution = levenberg_marquardt(lambda m: m(*inputs), module, rtol=1e-12)
    assert solution.reason.converged
    assert solution.values[-1] <= theirs.cost * (1 + 1e-9) + 1e-20
    np.testing.assert_allclose(solution.value, theirs.x, rtol=1e-5)
    np.testing.assert_array_equal(solution.value, module.b.detach())


def network(dtype=torch.float64):
    torch.manual_seed(0)
    layers = torch.nn.Linear(1, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1)
    return torch.nn.Sequential(*layers).to(dtype)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-5), (torch.float32, 1e-4)])
def test_three_lines_train_a_network(dtype, error):
    module, x = network(dtype), X.to(dtype)
    solution = levenberg_marquardt(lambda m: m(x) - torch.sin(3 * x), module, max_cycles=60)
    assert solution.values[-1] < error
    assert all(b <= a * (1 + 1e-6) for a, b in zip(solution.values[:-1], solution.values[1:]))  # noqa: B905
    half = 0.5 * float((module(x) - torch.sin(3 * x)).detach().square().sum())
    assert half == pytest.approx(solution.values[-1], rel=1e-2 if dtype == torch.float32 else 1e-9)
    assert all(p.dtype == dtype for p in module.parameters())
    assert solution.value.dtype == torch.float64
    assert [entry.cycle for entry in solution.history] == list(range(solution.cycles + 1))


def test_the_history_is_that_of_the_states():
    """Objective and gradient by NumPy, for the two parameters of a line, at every state."""
    module, states = torch.nn.Linear(1, 1).double(), []
    solution = levenberg_marquardt(
        lambda m: m(X) - X**3, module, monitor=lambda entry, u: states.append(u.numpy())
    )
    x = X[:, 0].numpy()
    J = np.stack([x, np.ones(60)], 1)
    for entry, b in zip(solution.history, states, strict=True):
        r = J @ b - x**3
        assert entry.value == pytest.approx(0.5 * r @ r)
        assert entry.residual_norm == pytest.approx(np.linalg.norm(J.T @ r), abs=1e-13)
    np.testing.assert_array_equal(solution.value, states[-1])


def test_the_work_is_that_of_all_evaluations():
    """Residuals alone are a third of a gradient; a sweep is one Jacobian and steps from it."""
    calls = {"residuals": 0, "derivatives": 0}

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, r):
            calls["residuals"] += 1
            return r.clone()

        @staticmethod
        def backward(ctx, g):
            calls["derivatives"] += 1
            return g.clone()

    def residual(module):
        return Counted.apply(module.b[:1] ** 2 - 3.0)  # one residual: its Jacobian is one gradient

    module = Curve(lambda b: b, [5.0])
    solution = levenberg_marquardt(residual, module, acceleration=0.0)
    alone = calls["residuals"] - calls["derivatives"]
    assert solution.work == pytest.approx(calls["derivatives"] + alone / 3.0)
    works = [entry.work for entry in solution.history]
    assert works[0] == pytest.approx(4.0 / 3.0)  # the start, and a second look at it
    assert works[-1] == solution.work
    sweeps = [entry.work for entry in solution.record]
    assert np.diff(works) == pytest.approx([sweep + 1.0 for sweep in sweeps])
    seconds = [entry.seconds for entry in solution.history]
    assert seconds == sorted(seconds)
    assert 0.0 < seconds[-1] <= solution.seconds


def test_the_memory_goes_on_with_the_same_bits():
    def fitted(module, *limits):
        memory = None
        for limit in limits:
            solution = levenberg_marquardt(
                lambda m: m(X) - torch.sin(5 * X), module, max_cycles=limit, memory=memory
            )
            memory = solution.memory
        return solution.value

    whole, parts = fitted(network(), 9), fitted(network(), 4, 5)
    assert torch.equal(whole, parts)
    with pytest.raises(TypeError, match="memory of a float; give that of its Solution"):
        levenberg_marquardt(lambda m: m(X) - X, network(), memory={(0, "pre"): 1.0})


def test_it_explains_itself():
    solution = levenberg_marquardt(lambda m: m(X) - torch.sin(5 * X), network(), max_cycles=7)
    assert str(solution).startswith(
        f"not converged (MAX_CYCLES) after 7 cycles: objective {solution.values[-1]:.3g} from "
        f"{solution.values[0]:.3g}, residual norm {solution.residual_norms[-1]:.3g} from "
    )
    sweeps = solution.explain().splitlines()[1].split()
    assert sweeps[:3] == ["0", "solve", "7"]
    assert float(sweeps[5]) == pytest.approx(sum(e.work for e in solution.record), rel=1e-3)
    last = solution.residual_norms[-1] / solution.residual_norms[-2]
    assert float(sweeps[-1]) == pytest.approx(last, abs=6e-4)
    kept = pickle.loads(pickle.dumps(solution))  # though the residual is a lambda
    assert torch.equal(kept.value, solution.value)
    assert kept.explain().splitlines()[1].split() == [*sweeps[:-1], "-"]


def test_frozen_parameters_stay():
    module = network()
    module[0].weight.requires_grad_(False)
    before = module[0].weight.clone()
    levenberg_marquardt(lambda m: m(X) - X, module, max_cycles=5)
    assert torch.equal(module[0].weight, before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_leaves_the_best_parameters(error):
    module, values = network(), []

    def monitor(entry, u):
        values.append(entry.value)
        if entry.cycle == 4:
            raise error("stop")

    with pytest.raises(error, match="stop"):
        levenberg_marquardt(lambda m: m(X) - X**2, module, monitor=monitor)
    half = 0.5 * float((module(X) - X**2).detach().square().sum())
    assert half == pytest.approx(values[-1])
    assert values[-1] == min(values) < values[0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_cycles": 3}, Reason.MAX_CYCLES),
        ({"seconds": 1e-9}, Reason.SECONDS),
        ({"atol": 1e9}, Reason.ATOL),
        ({"rtol": 0.1}, Reason.RTOL),
        ({"rtol": 0.0}, Reason.STATIONARY),
        ({"monitor": lambda entry, u: entry.cycle == 2}, Reason.MONITOR),
        ({"atol": 1e9, "monitor": lambda entry, u: True}, Reason.ATOL),
    ],
)
def test_reasons(options, reason):
    module = torch.nn.Linear(1, 1).double() if reason is Reason.STATIONARY else network()
    solution = levenberg_marquardt(lambda m: m(X) - X**3, module, **options)
    assert solution.reason is reason
    assert reason.converged == (reason.name in ("ATOL", "RTOL", "STATIONARY"))
    assert (reason.value in str(solution)) != reason.converged
    if reason is Reason.RTOL:
        now = np.array(solution.residual_norms) / solution.residual_norms[0]
        assert now[-1] <= 0.1 < now[:-1].min()
    if reason is Reason.STATIONARY:
        assert len(solution.record) == solution.cycles + 1  # the sweep that found no step
        x = X[:, 0].numpy()
        best = np.linalg.lstsq(np.stack([x, np.ones(60)], 1), x**3, rcond=None)[0]
        np.testing.assert_allclose(solution.value, best, atol=1e-8)
        assert solution.require() is solution


def test_a_gradient_that_is_not_finite_ends_it():
    module = Curve(lambda b: b + torch.sqrt((b - 1.0) * (b > 1.0)), [4.0])  # slope 0 / 0
    solution = levenberg_marquardt(lambda m: m(), module)
    assert solution.reason is Reason.NOT_FINITE
    assert math.isnan(solution.residual_norms[-1])
    assert 0.5 * float(module.b.detach()) ** 2 == solution.values[-1] < solution.values[0]
    message = f"after cycle {solution.cycles}, the gradient became NaN or Inf"
    with pytest.raises(RuntimeError, match=message):
        solution.require()
    assert "solve" in solution.explain()


def test_refusals_of_the_tool():
    with pytest.raises(ValueError, match="levenberg_marquardt got a loss that is not finite"):
        levenberg_marquardt(lambda m: m(X) * float("nan"), network())
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        levenberg_marquardt(lambda m: m(X), torch.nn.Tanh())
    with pytest.raises(ValueError, match="does not depend on the parameters"):
        levenberg_marquardt(lambda m: X, network())
