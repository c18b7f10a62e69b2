"""Law: "converged" is said of minima only, in every unit, and each ending says what it is."""

import contextlib
import math

import numpy as np
import pytest
import scipy.optimize
import torch

from mgnet import Reason
from mgnet.training import levenberg_marquardt
from mgnet.training.least_squares.endings import Tolerances

NEVER = {"ftol": 0.0, "xtol": 0.0, "gtol": 0.0}
T = torch.linspace(0.1, 2.0, 12, dtype=torch.float64)


class Numbers(torch.nn.Module):
    def __init__(self, start):
        super().__init__()
        self.b = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))


def fit(formula, start, **options):
    """The solution, and the parameters that the module holds."""
    module = Numbers(start)
    solution = levenberg_marquardt(lambda m: formula(m.b), module, **options)
    assert np.array_equal(module.b.detach(), solution.value)
    return solution


def decay(b):
    return b[0] * torch.exp(-b[1] * T) + b[2] - 1.0 / (1.0 + T)


def line(b):
    return b[0] + b[1] * T - torch.sin(2.0 * T) + 0.0 * b[2]  # the last changes nothing


@pytest.mark.parametrize("test", ["ftol", "xtol", "gtol"])
@pytest.mark.parametrize("formula", [decay, line])
def test_each_test_of_minpack_ends_at_the_minimum(test, formula):
    solution = fit(formula, [1.0, 1.0, 0.1], **NEVER | {test: 1e-6})
    # One step solves a linear problem, and after it a change is no more seen.
    assert solution.reason is (Reason.STATIONARY if formula is line else Reason[test.upper()])
    best = scipy.optimize.least_squares(lambda b: formula(torch.from_numpy(b)).numpy(), [1, 1, 0.1])
    assert solution.values[-1] == pytest.approx(best.cost, rel=1e-7)


@pytest.mark.parametrize("formula", [decay, line])
def test_without_tolerances_it_ends_at_rounding(formula):
    solution = fit(formula, [1.0, 1.0, 0.1], **NEVER)
    assert solution.reason in (Reason.STATIONARY, Reason.FTOL, Reason.XTOL, Reason.GTOL)
    J = torch.func.jacrev(formula)(solution.value)
    cosines = (J.T @ formula(solution.value)).abs() / formula(solution.value).norm()
    assert float((cosines / J.norm(dim=0).clamp(min=1e-300)).max()) < 1e-8


@pytest.mark.parametrize("test", ["ftol", "xtol", "gtol"])
@pytest.mark.parametrize("tolerance", [0.5, 1e-2])
def test_a_test_that_is_met_far_from_the_minimum_is_no_end(test, tolerance):
    """So that loose tolerances and a bad start give no wrong answer: misra1a of NIST began it."""
    solution = fit(decay, [50.0, 8.0, -3.0], **NEVER | {test: tolerance})
    best = scipy.optimize.least_squares(
        lambda b: decay(torch.from_numpy(b)).numpy(), [1, 1, 0.1], xtol=1e-15, ftol=1e-15
    )
    if not solution.reason.converged:
        assert tolerance == 0.5 and solution.reason is Reason.STAGNATES
        return
    # A cosine of 1e-4 at most between residuals and the range of J.
    assert best.cost * (1 - 1e-12) <= solution.values[-1] <= best.cost * (1.0 + 1e-6)


def test_zero_residuals_are_stationary():
    solution = fit(lambda b: torch.stack([10.0 * (b[1] - b[0] ** 2), 1.0 - b[0]]), [-1.2, 1.0])
    assert solution.reason is Reason.STATIONARY
    assert solution.values[-1] == 0.0 and solution.value.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("start", [[0.0, 3.0], [1e-9, 3.0], [-1e-12, 1.0], [0.0, 0.0]])
def test_a_saddle_is_left(start):
    """With r = (b^2 - 1, c, 2): at b = 0 the gradient vanishes, and b = 1 and b = -1 are lower."""
    for factor in (1.0, 1e-5, 1e5):

        def formula(b, factor=factor):
            return factor * torch.stack([b[0] ** 2 - 1.0, b[1], 0.0 * b[0] + 2.0])

        solution = fit(formula, start)
        assert solution.reason.converged
        assert solution.values[-1] == pytest.approx(2.0 * factor**2, rel=1e-9)
        assert abs(float(solution.value[0])) == pytest.approx(1.0, rel=1e-4)


def test_a_parameter_that_ran_to_infinity_is_flat():
    """With r = (e^-a, c - 1, 2 - c) the value falls for ever as a grows, to a limit of 1/4."""

    def formula(b):
        return torch.stack([torch.exp(-b[0]), b[1] - 1.0, 2.0 - b[1]])

    solution = fit(formula, [-2.0, 0.0], x_scale="jac", **NEVER)
    assert solution.reason is Reason.FLAT
    assert not solution.reason.converged and "no longer changes the residuals" in str(solution)
    assert float(solution.value[0]) > 16.0
    assert solution.values[-1] == pytest.approx(0.25)


def test_derivatives_that_promise_what_residuals_do_not_keep_stagnate():
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, b):
            return b + 2.0

        @staticmethod
        def backward(ctx, g):
            return -g

    solution = fit(Wrong.apply, [5.0])
    assert solution.reason is Reason.STAGNATES
    assert solution.value.tolist() == [5.0]


def drawn(seed):
    """A random sum of functions of the parameters, with residuals that do not vanish."""
    random = np.random.default_rng(seed)
    count, rows = int(random.integers(1, 5)), int(random.integers(5, 15))
    A = torch.from_numpy(random.normal(size=(rows, count)))
    B = torch.from_numpy(random.normal(size=(rows, count)))
    y = torch.from_numpy(random.normal(size=rows))
    unit = 10.0 ** random.uniform(-4.0, 4.0, count)
    scale = 10.0 ** random.uniform(-4.0, 4.0)
    start = random.normal(size=count) * 10.0 ** random.uniform(-1.0, 1.0) * unit
    kind = (torch.tanh, torch.sin, lambda t: t / (1.0 + t.square()), torch.square)[seed % 4]

    def formula(b):
        v = b / torch.from_numpy(unit)
        return scale * (kind(A @ v) + B @ v - y)

    return formula, start, unit


@pytest.mark.parametrize("seed", range(48))
def test_no_lower_point_is_near_what_converged(seed):
    """SciPy goes on from there and finds nothing; in its own units, with its own derivatives."""
    formula, start, unit = drawn(seed)
    solution = fit(formula, start.tolist())
    assert solution.reason.converged
    found = solution.value.numpy()
    value = 0.5 * float(formula(solution.value).square().sum())
    assert solution.values[-1] == pytest.approx(value, rel=1e-12)
    random = np.random.default_rng(seed)
    for length in (0.0, 1e-3):
        near = found + length * random.normal(size=len(unit)) * (np.abs(found) + 1e-2 * unit)
        theirs = scipy.optimize.least_squares(
            lambda b: formula(torch.from_numpy(b)).numpy(),
            near,
            lambda b: torch.func.jacrev(formula)(torch.from_numpy(b)).numpy(),
            x_scale="jac",
            method="lm",
            xtol=1e-14,
            ftol=1e-14,
        )
        assert theirs.cost >= value * (1.0 - 1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_where_parameters_are_not_determined_the_answer_is_the_best_that_was_found(seed):
    """One column of J depends on others: it begins again, and returns what was lowest."""
    random = np.random.default_rng(seed)
    A, y = (torch.from_numpy(random.normal(size=size)) for size in ((8, 3), (8,)))

    def formula(b):
        return torch.tanh(A[:, 0] * (b[0] + b[1])) + A[:, 1] * b[2] ** 2 - y

    solution = fit(formula, [3.0, -1.0, 2.0])
    value = 0.5 * float(formula(solution.value).square().sum())
    assert value == pytest.approx(min(solution.values), rel=1e-12)
    assert solution.values[-1] == pytest.approx(value, rel=1e-12)


def test_tolerances_are_minpacks_names():
    assert Tolerances()._fields == ("ftol", "xtol", "gtol")
    assert all(math.isfinite(each) for each in Tolerances())


@pytest.mark.parametrize("x_scale", ["auto", "jac", 1.0])
def test_a_saddle_without_any_slope_is_no_minimum(x_scale):
    """At the origin of `(p q - 1)^2` the Jacobian is zero, and only p and q together lead on."""
    module = torch.nn.Module()
    module.p = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    times = torch.linspace(0.1, 1.0, 5, dtype=torch.float64)
    solution = levenberg_marquardt(
        lambda m: (m.p[0] * m.p[1] - 1.0) * times, module, x_scale=x_scale
    )
    assert solution.values[-1] < 1e-20 or not solution.reason.converged


@pytest.mark.parametrize("start", [[1.0, 8.0], [2.0, -5.0], [1.0, 50.0]])
def test_a_far_start_is_no_minimum(start):
    """A Gaussian beside the data: all columns of J are tiny there, and so are predictions."""
    x = torch.linspace(-2.0, 3.0, 30, dtype=torch.float64)
    module = torch.nn.Module()
    module.p = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    solution = levenberg_marquardt(
        lambda m: m.p[0] * torch.exp(-((x - m.p[1]) ** 2)) - torch.exp(-((x - 1.0) ** 2)), module
    )
    assert solution.values[-1] < 1e-20 or not solution.reason.converged


def test_an_interrupt_after_a_new_beginning_keeps_what_was_found():
    """It begins again from a worse start; an error in its first Jacobian must not leave that."""
    x = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
    evaluations, values = [], []

    def residual(module):
        evaluations.append(module.p.detach().clone())
        return module.p[0] * torch.exp(-module.p[1] * x * 1e3) - 1.0 - x

    def fitted(limit):
        module = torch.nn.Module()
        module.p = torch.nn.Parameter(torch.tensor([3.0, 5.0], dtype=torch.float64))

        def monitor(entry, u):
            values.append(entry.value)
            if entry.cycle == limit:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            levenberg_marquardt(residual, module, monitor=monitor)
        return 0.5 * float(residual(module).detach().square().sum())

    fitted(10**6)
    for limit in range(1, len(values) - 1, max(1, len(values) // 8)):
        best = min(values[: limit + 1])
        assert fitted(limit) <= best * (1.0 + 1e-9)
