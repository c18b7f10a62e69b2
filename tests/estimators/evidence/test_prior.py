"""Weights of a linear model's prior converge to where its marginal likelihood is largest."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from mgnet.estimators.evidence.prior import FIXED, LEAST, MOST, Part, prior_of


def test_precisions_are_sums_of_parts():
    parts = [Part(np.array([0, 2]), 2.0, 3.0), Part(np.array([2, 3]), np.array([1.0, 4.0]), 0.5)]
    prior = prior_of(5, parts)
    np.testing.assert_allclose(prior.precisions, np.array([6.0, 0.0, 6.5, 2.0, 0.0]) + FIXED)


def problem(seed):
    """A normal linear model with two overlapping parts, and the marginal likelihood of both."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(40, 6))
    y = A @ (rng.normal(size=6) * [2.0, 2.0, 1.0, 0.3, 0.3, 0.2]) + 0.5 * rng.normal(size=40)
    rough = np.arange(1.0, 5.0)
    prior = prior_of(6, [Part(np.arange(6)), Part(np.arange(2, 6), rough)])

    def evidence(logs):
        S = np.diag(1.0 / (np.exp(logs) @ prior.parts + FIXED))
        C = 0.25 * np.eye(40) + A @ S @ A.T
        return 0.5 * (np.linalg.slogdet(C)[1] + y @ np.linalg.solve(C, y))

    return A, y, prior, evidence


@pytest.mark.parametrize("seed", range(4))
def test_updates_maximise_the_marginal_likelihood(seed):
    A, y, prior, evidence = problem(seed)
    for _ in range(300):
        H = A.T @ A / 0.25 + np.diag(prior.precisions)
        former, prior = (
            prior,
            prior.updated(np.linalg.solve(H, A.T @ y / 0.25), np.diag(np.linalg.inv(H))),
        )
    best = minimize(
        evidence, np.zeros(2), method="L-BFGS-B", bounds=[(np.log(LEAST), np.log(MOST))] * 2
    )
    assert evidence(np.log(prior.weights)) == pytest.approx(best.fun, abs=1e-4)
    assert prior.change(former) < 1e-3


def test_limits_and_changes():
    prior = prior_of(2, [Part(np.array([0])), Part(np.array([1]))])
    wild = prior.updated(np.array([0.0, 1e9]), np.array([0.0, 1.0]))
    assert wild.weights[0] <= MOST and wild.weights[1] == LEAST
    assert prior.change(prior) == 0.0
    assert wild.change(prior) == 0.0  # both rest at their limits
    half = prior.updated(np.array([2.0**0.5, 1.0]), np.zeros(2))
    assert half.change(prior) == pytest.approx(np.log(2.0), rel=1e-6)


def test_weights_are_carried_by_name():
    coarse = prior_of(2, [Part(np.array([0]), name="a"), Part(np.array([1]), 1.0, 7.0, "c")])
    coarse = replace(coarse, weights=np.array([2.0, 5.0]))
    parts = [Part(np.array([n]), 1.0, 0.1, name) for n, name in enumerate("bca")]
    fine = prior_of(3, parts).carried(coarse)
    assert fine.weights.tolist() == [0.1, 5.0, 2.0] and fine.names == ("b", "c", "a")
