"""The same limits are refused in the same words by all functions that return a Solution."""

import math

import numpy as np
import pytest
import torch

from mgnet import Solver, gallery
from mgnet.knots import KAN, knot_hierarchy
from mgnet.limits import check_limits, doubled
from mgnet.training import LeastSquares, LevenbergMarquardt, levenberg_marquardt, train

X = torch.linspace(-1.0, 1.0, 20, dtype=torch.float64).unsqueeze(1)


def by_solver(**limits):
    return Solver(gallery.poisson(15), **limits).solve(np.ones(15))


def by_train(**limits):
    kan = KAN([1, 1], 2)
    hierarchy = knot_hierarchy(kan, LeastSquares(kan, (X, X**2)), 2, LevenbergMarquardt())
    return train(hierarchy, hierarchy[0].operator.start(), **limits)


def by_levenberg_marquardt(**limits):
    torch.manual_seed(0)
    module = torch.nn.Linear(1, 1).double()
    return levenberg_marquardt(lambda module: module(X) - X**2, module, **limits)


FUNCTIONS = {"Solver": by_solver, "train": by_train, "levenberg_marquardt": by_levenberg_marquardt}
TOLERANCES = {"Solver": ["rtol", "atol"], "levenberg_marquardt": ["ftol", "xtol", "gtol"]}
SECONDS = ("Solver", "train", "levenberg_marquardt")
WRONG = [
    (FUNCTIONS, {"max_cycles": 0}, ValueError, "max_cycles 0; it must be at least 1"),
    (FUNCTIONS, {"max_cycles": 2.0}, TypeError, "max_cycles 2.0; it must be an integer"),
    (FUNCTIONS, {"monitor": 1}, TypeError, "a monitor of type int; give a function"),
    (SECONDS, {"seconds": 0.0}, ValueError, "seconds 0.0; it must be positive"),
    (SECONDS, {"seconds": math.nan}, ValueError, "seconds nan; it must be positive"),
    (SECONDS, {"seconds": None}, TypeError, "seconds None; it must be a number"),
]
WRONG += [
    ((owner,), {name: value}, kind, f"{name} {value!r}; it must {words}")
    for owner, names in TOLERANCES.items()
    for name in names
    for value, kind, words in [
        (-1e-3, ValueError, "not be negative"),
        (-1, ValueError, "not be negative"),
        (math.nan, ValueError, "not be negative"),
        ("0", TypeError, "be a number"),
    ]
]


@pytest.mark.parametrize(
    ("name", "limits", "kind", "words"),
    [(name, *case) for names, *case in WRONG for name in names],
)
def test_a_wrong_limit_is_refused_alike(name, limits, kind, words):
    with pytest.raises(kind, match=f"^{name} got {words}"):
        FUNCTIONS[name](**limits)
    with pytest.raises(kind, match=f"^{name} got {words}"):
        check_limits(name, **limits)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_in_range_is_taken(name):
    solution = FUNCTIONS[name](max_cycles=np.int64(2), monitor=lambda entry, state: None)
    assert solution.cycles >= 1
    for tolerance in TOLERANCES.get(name, []):
        zero = dict.fromkeys(TOLERANCES[name], 0)
        limits = zero | {tolerance: np.float32(1e-3)}
        assert FUNCTIONS[name](**limits).reason.name == tolerance.upper()
    if name in SECONDS:
        assert FUNCTIONS[name](seconds=1e-9).reason.name == "SECONDS"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_signature_serves_all_monitors(name):
    told = []
    solution = FUNCTIONS[name](max_cycles=3, monitor=lambda *given: told.append(given))
    starts = [k for k in range(1, len(told)) if told[k][0].level < told[k - 1][0].level]
    assert [entry for k, (entry, _) in enumerate(told) if k not in starts] == list(solution.history)
    assert all(told[k][0].cycle == told[k - 1][0].cycle for k in starts)
    assert len(starts) == (name == "train")
    ended = FUNCTIONS[name](monitor=lambda entry, state: entry.cycle == 1)
    assert ended.reason.name == "MONITOR"
    assert ended.cycles == 1


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_doubled_as_long_as_they_may_be(seed):
    draw = np.random.default_rng(seed)
    count, times = int(draw.integers(1, 20)), int(draw.integers(0, 8))
    most = int(draw.integers(count, 1000))
    allowed = [count * 2**k for k in range(times + 1) if count * 2**k <= most]
    assert doubled(count, times, most) == max(allowed)
    assert doubled(count, times) == count * 2**times
    assert doubled(count, times, count - 1) == count
