"""Odd arguments: a network, a hierarchy or an estimator is made, or refused in one sentence."""

import math
import time

import numpy as np
import pytest
import torch

from mgnet.depth import DepthSpline, ODENet, depth_hierarchy
from mgnet.estimators import KANClassifier, KANRegressor
from mgnet.knots import (
    KAN,
    FreeKnotKAN,
    MultichannelMLP,
    knot_hierarchy,
    knot_transfer,
    kronecker_matrix,
)
from mgnet.training import LBFGS, LeastSquares, Objective

HUGE = 10**12, 10**15, 2**63, 10**30, 10**400, 10**5000
ODD = (
    *HUGE, -1, 0, -(10**30), True, False, 2.0, 1e300, math.nan, math.inf, -math.inf, None, "3", "",
    b"2", [], [2], (1, 2), {}, {2}, np.int64(2), np.float64(2.5), np.array([2]), 2 + 1j, object(),
    [10**30] * 2, [True, 1], [1.5, 1], ["a", 1], [1, 0], [1, -1], [1, math.nan], [1, 10**5000],
)  # fmt: skip
X = torch.linspace(-1.0, 1.0, 8, dtype=torch.float64).unsqueeze(1)
SMALL = KAN([1, 1], 2)
NET = ODENet(torch.nn.Linear(1, 1).double(), 2)


def in_knots(**given):
    knot_hierarchy(SMALL, LeastSquares(SMALL, (X, X)), smoother=LBFGS(), **given)


def in_depth(**given):
    problem = Objective(NET, torch.nn.functional.mse_loss, (X, X))
    depth_hierarchy(NET, problem, smoother=LBFGS(), **given)


def net(spline=None, by_function=False, **given):
    block = torch.nn.Linear(1, 1)
    weights = given.pop("weights", "per layer")
    if spline is not None:
        weights = DepthSpline(spline, given.pop("degree", 1))
    ODENet((lambda n: torch.nn.Linear(1, 1)) if by_function else block, weights=weights, **given)


def regression(**given):
    KANRegressor(**{"max_iter": 1, **given}).fit(X.numpy(), X.numpy()[:, 0])


def classification(**given):
    KANClassifier(**{"max_iter": 1, **given}).fit(X.numpy(), np.arange(8) % 2)


SPLINES = {
    "widths": [1, 2, 1], "intervals": 3, "degree": 2, "domain": (-1.0, 1.0), "linear": False,
    "hidden": "tanh",
}  # fmt: skip
FITS = {
    "hidden": 2, "intervals": 2, "levels": 2, "degree": 3, "roughness": 1e-3, "max_iter": 1,
    "tol": 1e-3, "seconds": None, "n_iter_no_change": 5, "validation_fraction": 0.2,
    "random_state": 0, "ensemble": 1,
}  # fmt: skip
ENSEMBLES = {
    "hidden": 2, "intervals": 2, "levels": 2, "degree": 3, "max_iter": 1, "seconds": None,
    "random_state": 0, "ensemble": 2,
}  # fmt: skip
# What is made -> its arguments as they should be.
MADE = {
    "KAN": (lambda **given: KAN(**given), SPLINES),
    "FreeKnotKAN": (lambda **given: FreeKnotKAN(**given), SPLINES),
    "MultichannelMLP": (lambda **given: MultichannelMLP(KAN(**given)), SPLINES),
    "KAN.refine": (lambda factor: SMALL.refine(factor), {"factor": 2}),
    "KAN.coarsen": (lambda factor: SMALL.coarsen(factor), {"factor": 2}),
    "FreeKnotKAN.refine": (lambda factor: FreeKnotKAN([1, 1], 2).refine(factor), {"factor": 2}),
    "knot_transfer": (lambda factor: knot_transfer(SMALL, factor), {"factor": 2}),
    "kronecker_matrix": (lambda factor: kronecker_matrix(SMALL, factor), {"factor": 2}),
    "knot_hierarchy": (in_knots, {"levels": 2, "factor": 2}),
    "depth_hierarchy": (in_depth, {"levels": 2, "factor": 2}),
    "ODENet": (net, {"layers": 3, "final_time": 1.0, "boundary_layers": (0, 0), "scheme": "euler"}),
    "ODENet of a function": (lambda **given: net(by_function=True, **given), {"layers": 3}),
    "ODENet of a spline": (net, {"layers": 3, "spline": 2, "degree": 1}),
    "ODENet.refine": (lambda factor: NET.refine(factor), {"factor": 2}),
    "KANRegressor": (regression, FITS),
    "KANClassifier": (classification, FITS),
    "KANRegressor, an ensemble": (regression, ENSEMBLES),
    "KANClassifier, an ensemble": (classification, ENSEMBLES),
}


def tried(name, seed, number):
    """Make it with one argument odd, or two; the sentence of the refusal, or an empty one."""
    make, plain = MADE[name]
    rng = np.random.default_rng([seed, number])
    given = dict(plain)
    for argument in rng.choice(list(plain), min(len(plain), 1 + int(rng.integers(2)))):
        given[argument] = ODD[int(rng.integers(len(ODD)))]
    began = time.perf_counter()
    try:
        make(**given)
        told = ""
    except (ValueError, TypeError) as error:
        told = str(error)
        assert told and "\n" not in told and len(told) < 600, (number, told)
        assert time.perf_counter() - began < 20.0, number
    except Exception as error:
        raise AssertionError(f"{name} {number}: {type(error).__name__}: {error}") from error
    return told


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MADE)
def test_odd_arguments_are_right_or_refused(name):
    for number in range(6 if MADE[name][0] in (regression, classification) else 12):
        tried(name, 1, number)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("KAN", {"intervals": 10**12}),
        ("KAN", {"intervals": 10**5000}),
        ("KAN", {"widths": [10**6, 10**8]}),
        ("FreeKnotKAN", {"intervals": 10**30}),
        ("MultichannelMLP", {"intervals": 10**30}),
        ("KAN.refine", {"factor": 10**30}),
        ("knot_transfer", {"factor": 10**12}),
        ("knot_hierarchy", {"levels": 60}),
        ("knot_hierarchy", {"levels": 10**30}),
        ("depth_hierarchy", {"levels": 10**6}),
        ("ODENet", {"layers": 10**12}),
        ("ODENet of a function", {"layers": 10**12}),
        ("ODENet.refine", {"factor": 10**12}),
        ("KANRegressor", {"levels": 20, "intervals": 4}),
        ("KANClassifier", {"intervals": 10**9}),
        ("KANRegressor, an ensemble", {"intervals": 10**9}),
        ("KANClassifier, an ensemble", {"hidden": 10**12}),
    ],
)
def test_what_is_too_large_is_counted_before_it_is_built(name, given):
    make, plain = MADE[name]
    with pytest.raises(
        ValueError, match=r"(?s)got .*(GiB of memory|are not trained here).*; (use|leave)"
    ):
        make(**{**plain, **given})
