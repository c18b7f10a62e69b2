"""A sample of weight 2 is a sample that is there twice; one of weight 0 is left out."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_squared_error

from mgnet import Level
from mgnet.training import LastLayer, LeastSquares, LevenbergMarquardt
from mgnet.training.least_squares.weights import weighted_samples

GENERATOR = torch.Generator().manual_seed(2)
X = torch.randn(30, 2, generator=GENERATOR, dtype=torch.float64)
Y = torch.stack([X[:, 0].sin(), X.prod(1)], 1)
TIMES = torch.randint(0, 4, (30,), generator=GENERATOR)


def network():
    torch.manual_seed(0)
    layers = torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)
    return torch.nn.Sequential(*layers).double()


@pytest.mark.parametrize("loss", ["linear", "soft_l1"])
def test_weights_are_repetitions(loss):
    assert bool((TIMES == 0).any())
    rows = X.repeat_interleave(TIMES, 0), Y.repeat_interleave(TIMES, 0)
    repeated = LeastSquares(network(), rows, loss=loss, f_scale=0.2)
    weighted = LeastSquares(network(), (X, Y), sample_weight=0.3 * TIMES, loss=loss, f_scale=0.2)
    u = weighted.start() + 0.1
    assert weighted.value(u) == pytest.approx(repeated.value(u), rel=1e-13)
    assert weighted.mean_square(u) == pytest.approx(repeated.mean_square(u), rel=1e-13)
    torch.testing.assert_close(weighted.gradient(u), repeated.gradient(u), rtol=1e-11, atol=1e-13)
    (r, J), (_, J_long) = weighted.linearize(u), repeated.linearize(u)
    torch.testing.assert_close(r, weighted.residuals(u), rtol=0, atol=1e-15)
    torch.testing.assert_close(J.gram(), J_long.gram(), rtol=1e-11, atol=1e-13)
    if loss == "linear":
        outputs = weighted.outputs(u).detach()
        kept = TIMES > 0
        expected = 2.0 * mean_squared_error(Y[kept], outputs, sample_weight=TIMES[kept])
        assert weighted.mean_square(u) == pytest.approx(expected)
    other = weighted.with_network(network())
    assert other.value(u) == pytest.approx(weighted.value(u), rel=1e-14)


def test_what_a_sample_of_weight_zero_holds_plays_no_role():
    wild_x, wild_y = X.clone(), Y.clone()
    wild_x[3], wild_y[7] = math.inf, math.nan
    weights = np.ones(30)
    weights[[3, 7]] = 0.0
    problem = LeastSquares(network(), (wild_x, wild_y), sample_weight=weights)
    kept = torch.from_numpy(weights > 0.0)
    plain = LeastSquares(network(), (X[kept], Y[kept]))
    u = plain.start()
    torch.testing.assert_close(problem.residuals(u), plain.residuals(u), rtol=1e-14, atol=0.0)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (np.ones(29), r"of shape \(29,\) for 30 samples; it must be \(30,\)"),
        (np.ones((30, 1)), r"shape \(30, 1\)"),
        (-np.eye(30)[4], "negative, NaN or Inf for 1 of 30 samples, the first at index 4"),
        (np.full(30, np.nan), "for 30 of 30 samples"),
        (np.full(30, np.inf), "for 30 of 30 samples"),
        (np.zeros(30), "sum 0.0; one weight must be positive"),
        (np.full(30, 1e308), "sum inf; one weight must be positive, and their sum finite"),
    ],
)
def test_what_is_refused(weights, sentence):
    with pytest.raises(ValueError, match=f"LeastSquares got a sample_weight.*{sentence}"):
        LeastSquares(network(), (X, Y), sample_weight=weights)


def test_residual_functions_batches_and_the_last_layer_take_no_weights():
    with pytest.raises(ValueError, match="for a residual function; multiply its rows by the roots"):
        weighted_samples("LeastSquares", None, np.ones(3))
    problem = LeastSquares(network(), (X, Y), sample_weight=1.0 + TIMES)
    with pytest.raises(TypeError, match="with a sample_weight has no batches"):
        problem.subsampled(0.5)
    for bent in (problem, LeastSquares(network(), (X, Y), loss="huber")):
        level = Level(bent, LastLayer())
        with pytest.raises(TypeError, match="without weights or robust loss"):
            LastLayer().start(level, bent.start())
        LevenbergMarquardt().start(level, bent.start())
