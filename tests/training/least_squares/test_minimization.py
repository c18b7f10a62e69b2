"""Levenberg-Marquardt finds what SciPy and NIST find, and tells truly how it ended."""

import math
import pickle

import numpy as np
import pytest
import scipy.optimize
import torch

from mgnet import Reason
from mgnet.training import levenberg_marquardt

X = torch.linspace(-1.0, 1.0, 60, dtype=torch.float64).unsqueeze(1)


class Curve(torch.nn.Module):
    """A formula with numbers to find."""

    def __init__(self, formula, start):
        super().__init__()
        self.formula = formula
        self.b = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, *inputs):
        return self.formula(self.b, *inputs)


# NIST StRD, https://www.itl.nist.gov/div898/strd/nls/data/misra1a.shtml, from its first start
MISRA_X = [77.6, 114.9, 141.1, 190.8, 239.9, 289.0, 332.8, 378.4, 434.8, 477.3, 536.8, 593.1]
MISRA_X += [689.1, 760.0]
MISRA_Y = [10.07, 14.73, 17.94, 23.93, 29.61, 35.18, 40.02, 44.82, 50.76, 55.05, 61.01, 66.40]
MISRA_Y += [75.47, 81.78]


@pytest.mark.parametrize("start", [[500.0, 1e-4], [250.0, 5e-4]])
def test_misra1a_has_its_certified_values(start):
    x, y = torch.tensor([MISRA_X, MISRA_Y], dtype=torch.float64)
    module = Curve(lambda b, x: b[0] * (1.0 - torch.exp(-b[1] * x)), start)
    solution = levenberg_marquardt(lambda m: m(x) - y, module)
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
    solution = levenberg_marquardt(lambda m: m(*inputs), module)
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


ONLY = {"ftol": 0.0, "xtol": 0.0, "gtol": 0.0}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_cycles": 3}, Reason.MAX_CYCLES),
        ({"seconds": 1e-9}, Reason.SECONDS),
        (ONLY | {"ftol": 1e-3}, Reason.FTOL),
        (ONLY | {"xtol": 1e-3}, Reason.XTOL),
        (ONLY | {"gtol": 1e-3}, Reason.GTOL),
        (ONLY, Reason.STATIONARY),
        ({"monitor": lambda entry, u: entry.cycle == 2}, Reason.MONITOR),
        ({"max_cycles": 1, "monitor": lambda entry, u: entry.cycle == 1}, Reason.MAX_CYCLES),
    ],
)
def test_reasons(options, reason):
    module = torch.nn.Linear(1, 1).double() if reason.converged else network()
    solution = levenberg_marquardt(lambda m: m(X) - X**3, module, **options)
    assert solution.reason is reason
    assert reason.converged == (reason.name in ("FTOL", "XTOL", "GTOL", "STATIONARY"))
    assert (reason.value in str(solution)) != reason.converged
    assert len(solution.record) == solution.cycles
    if reason.converged:
        x = X[:, 0].numpy()
        best = np.linalg.lstsq(np.stack([x, np.ones(60)], 1), x**3, rcond=None)[0]
        np.testing.assert_allclose(solution.value, best, atol=1e-6)
        assert solution.require() is solution
    if reason is Reason.STATIONARY:  # the last sweep found no step
        assert solution.values[-1] == solution.values[-2]
        np.testing.assert_allclose(solution.value, best, atol=1e-8)


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
    for outside in (X, network()(X)):  # that needs a gradient in other parameters
        with pytest.raises(ValueError, match="does not depend on the parameters"):
            levenberg_marquardt(lambda m, outside=outside: outside, network())
