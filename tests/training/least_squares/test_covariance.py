"""Covariances and standard errors are those of SciPy's `curve_fit`."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import OptimizeWarning, curve_fit

from mgnet.knots import KAN, roughness
from mgnet.training import LeastSquares, covariance
from mgnet.training.least_squares.covariance import pseudoinverse

GENERATOR = torch.Generator().manual_seed(4)


class Decay(torch.nn.Module):
    """`a exp(-k t) + c`, with parameters of two shapes."""

    def __init__(self, p):
        super().__init__()
        p = torch.as_tensor(p, dtype=torch.float64)
        self.ends = torch.nn.Parameter(p[[0, 2]].clone())
        self.rate = torch.nn.Parameter(p[1].clone())

    def forward(self, t):
        return self.ends[0] * torch.exp(-self.rate * t) + self.ends[1]


def decay(t, a, k, c):
    return a * np.exp(-k * t) + c


def table(seed, unit=1.0):
    rng = np.random.default_rng(seed)
    t = np.linspace(0.0, 5.0, 40)
    sigma = rng.uniform(0.02, 0.2, 40)
    return t, unit * (decay(t, 2.5, 1.3, 0.5) + sigma * rng.standard_normal(40)), unit * sigma


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("form", ["plain", "weights", "residual function"])
@pytest.mark.parametrize("unit", [1.0, 1e-5])
def test_errors_are_those_of_curve_fit(absolute, form, unit):
    t, y, sigma = table(1, unit)
    own = None if form == "plain" else sigma
    p, theirs = curve_fit(
        decay, t, y, [unit, 1.0, 0.0], own, absolute_sigma=absolute, method="trf", xtol=1e-14
    )
    x, y, sigma = map(torch.from_numpy, (t, y, sigma))
    module = Decay(p)
    if form == "residual function":
        problem = LeastSquares.from_torch(module, lambda module: (module(x) - y) / sigma)
    else:
        weights = None if own is None else 1.0 / sigma.square()
        problem = LeastSquares(module, (x, y), sample_weight=weights)
    found = covariance(problem, problem.start(), absolute)
    places = [0, 2, 1]  # ends, then rate
    expected = torch.from_numpy(theirs[np.ix_(places, places)])
    norms = expected.diagonal().sqrt()
    scale = norms.unsqueeze(1) * norms
    torch.testing.assert_close(found.matrix / scale, expected / scale, rtol=1e-5, atol=1e-5)
    assert found.errors["ends"].shape == (2,) and found.errors["rate"].shape == ()
    errors = torch.cat([found.errors["ends"], found.errors["rate"].reshape(1)])
    torch.testing.assert_close(errors / norms, torch.ones(3).double(), rtol=1e-5, atol=0.0)


def test_errors_are_the_spread_of_repeated_fits():
    """Of a linear model exactly: no other library, drawn noise."""
    A = torch.randn(25, 3, generator=GENERATOR, dtype=torch.float64) * torch.tensor(
        [1.0, 1e-6, 1e5]
    )
    module = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    problem = LeastSquares(module, (A, torch.zeros(25, 1).double()))
    errors = covariance(problem, problem.start(), absolute_sigma=True).errors["weight"]
    noise = torch.randn(25, 20_000, generator=GENERATOR, dtype=torch.float64)
    spread = torch.linalg.lstsq(A, noise).solution.std(1)
    torch.testing.assert_close(errors[0], spread, rtol=0.03, atol=0.0)


def test_frozen_parameters_have_no_error():
    module = Decay([2.0, 1.0, 0.0])
    module.rate.requires_grad_(False)
    t, y, _ = map(torch.from_numpy, table(0))
    problem = LeastSquares(module, (t, y))
    assert covariance(problem, problem.start()).errors.keys() == {"ends"}


class Sum(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.known = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
        self.parts = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, x):
        return self.known * x + self.parts.sum()


def test_what_the_residuals_do_not_determine_is_infinite():
    x = torch.linspace(-1, 1, 21, dtype=torch.float64)
    problem = LeastSquares(Sum(), (x, torch.cos(9 * x)))
    with pytest.warns(UserWarning, match="21 residuals do not determine 2 of 3 parameters"):
        errors = covariance(problem, problem.start()).errors
    assert errors["parts"].tolist() == [math.inf] * 2
    r = problem.residuals(problem.start())
    expected = (r.square().sum() / 18 / (x.square().sum() / 21)).sqrt()  # of 21 mean squares
    assert errors["known"].item() == pytest.approx(expected.item(), rel=1e-12)


def test_no_more_residuals_than_parameters_tell_no_variance():
    t, y = np.array([0.0, 1.0, 2.0]), np.array([3.0, 2.0, 1.5])
    problem = LeastSquares(Decay([2.0, 0.7, 1.0]), (torch.from_numpy(t), torch.from_numpy(y)))
    with pytest.warns(UserWarning, match="3 residuals do not determine 3 of 3"):
        matrix = covariance(problem, problem.start()).matrix
    with pytest.warns(OptimizeWarning):
        assert np.array_equal(matrix.numpy(), curve_fit(decay, t, y, [2.0, 0.7, 1.0])[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bool(torch.isfinite(covariance(problem, problem.start(), True).matrix).all())


def test_targets_in_another_unit_have_errors_in_that_unit():
    """Where curve_fit, which compares singular values as they are, tells a variance of 0."""
    t, y, _ = map(torch.from_numpy, table(1))
    one, other = LeastSquares(Decay([2.5, 1.3, 0.5]), (t, y)), Decay([2.5e14, 1.3, 0.5e14])
    other = LeastSquares(other, (t, 1e14 * y))
    small, large = (covariance(p, p.start()).errors for p in (one, other))
    torch.testing.assert_close(large["ends"], 1e14 * small["ends"], rtol=1e-9, atol=0.0)
    torch.testing.assert_close(large["rate"], small["rate"], rtol=1e-9, atol=0.0)


def test_the_units_of_unknowns_play_no_role():
    """Without scaling, a column of 1e-20 would count as zero."""
    J = torch.randn(30, 4, generator=GENERATOR, dtype=torch.float64)
    units = torch.tensor([1e-20, 1.0, 1e10, 1e-3], dtype=torch.float64)
    (U, V, unknown), scaled = pseudoinverse(J), pseudoinverse(J * units)
    assert not bool(unknown.any())
    torch.testing.assert_close(V @ U.T, torch.linalg.pinv(J), rtol=1e-10, atol=1e-12)
    scaled_back = units.unsqueeze(1) * (scaled[1] @ scaled[0].T)
    torch.testing.assert_close(scaled_back, V @ U.T, rtol=1e-10, atol=1e-12)


def test_what_is_refused():
    x = torch.rand(20, 1, dtype=torch.float64)
    penalised = LeastSquares(KAN([1, 1]), (x, x), lambda kan: roughness(kan, 1.0))
    robust = LeastSquares(KAN([1, 1]), (x, x), loss="huber")
    for problem, sentence in ((penalised, "a penalty"), (robust, "the loss 'huber'")):
        with pytest.raises(ValueError, match=f"covariance got a problem with {sentence}"):
            covariance(problem, problem.start())
    with pytest.raises(TypeError, match="problem of type Linear; give a LeastSquares"):
        covariance(torch.nn.Linear(1, 1), x)
    broken = LeastSquares(KAN([1, 1]), (x, x))
    with pytest.raises(ValueError, match="not finite; give the parameters at a minimum"):
        covariance(broken, math.nan * broken.start())
