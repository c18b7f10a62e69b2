"""Linear models reach the largest marginal likelihood; steps never raise the objective."""

import numpy as np
import pytest
from scipy.optimize import minimize

from mgnet.estimators.evidence import maximization
from mgnet.estimators.evidence.features import features_of
from mgnet.estimators.evidence.likelihood import Classes, Normal, log_softmax
from mgnet.estimators.evidence.maximization import maximize
from mgnet.estimators.evidence.model import Additive, Hidden
from mgnet.estimators.evidence.modes import spline_modes
from mgnet.estimators.evidence.prior import FIXED


def curve(seed, rows=60, most=None, inputs=2):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, (rows, inputs))
    y = np.sin(3.0 * x[:, 0]) + x[:, -1] + 0.3 * rng.normal(size=rows)
    features = features_of(x, spline_modes(4, 3), None, most)
    return x, (y - y.mean()) / y.std(), features


@pytest.mark.parametrize("most", [1, None])
@pytest.mark.parametrize("seed", range(3))
def test_additive_models_maximise_the_marginal_likelihood(monkeypatch, seed, most):
    """Of the exact Gaussian, over the weights of the prior and the noise, by SciPy."""
    monkeypatch.setattr(maximization, "CHANGE", 1e-6)
    monkeypatch.setattr(maximization, "GAIN", 0.0)
    _, y, features = curve(seed, most=most)
    model = Additive(features, 1)
    B, weights = features.matrix(_), np.random.default_rng(seed).uniform(0.5, 2.0, len(y))
    weights *= len(y) / weights.sum()
    found = maximize(model, B, Normal(y, weights), 500)
    A, parts = np.column_stack([B, np.ones(len(y))]), model.prior().parts

    def evidence(logs):
        S = 1.0 / (np.exp(logs[1:]) @ parts + FIXED)
        C = np.exp(logs[0]) * np.diag(1.0 / weights) + (A * S) @ A.T
        return 0.5 * (np.linalg.slogdet(C)[1] + y @ np.linalg.solve(C, y))

    there = np.log([found.variance, *found.prior.weights])
    best = minimize(evidence, there, method="L-BFGS-B", bounds=[(-17.0, 20.0)] * len(there))
    assert evidence(there) < best.fun + 0.05
    # The mode of the posterior, and what of it the data determine.
    P = np.diag(found.prior.precisions)
    H = A.T @ (weights[:, None] * A) / found.variance + P
    np.testing.assert_allclose(
        found.u, np.linalg.solve(H, A.T @ (weights * y)) / found.variance, atol=1e-4
    )
    told = 1.0 - np.diag(np.linalg.inv(H)) * np.diag(P)
    np.testing.assert_allclose(found.determined, told, atol=1e-3)


def test_logistic_regression_is_that_of_scikit_learn(monkeypatch):
    """Of a linear model with the prior that was found."""
    from sklearn.linear_model import LogisticRegression

    x, y, features = curve(2, rows=150, most=1)
    labels = (y + np.random.default_rng(3).normal(size=150) > 0.0).astype(int)
    model, B = Additive(features, 1), features.matrix(x)
    monkeypatch.setattr(maximization, "CHANGE", 1e-6)
    monkeypatch.setattr(maximization, "GAIN", 0.0)
    found = maximize(model, B, Classes(labels, np.ones(150), 2), 300)
    A = np.column_stack([B, np.ones(150)]) / np.sqrt(found.prior.precisions)
    peer = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000, fit_intercept=False).fit(A, labels)
    chance = np.exp(log_softmax(model.outputs(B, found.u)))
    np.testing.assert_allclose(chance, peer.predict_proba(A), atol=1e-4)


@pytest.mark.parametrize("seed", range(2))
def test_steps_never_raise_the_objective(monkeypatch, seed):
    x, y, features = curve(seed)
    model = Hidden(features, spline_modes(2, 3), 3, 1, seed=seed)
    inner, gains = maximization._step, []

    def spy(*given):
        found = inner(*given)
        if found is not None:
            gains.append(found[1])
        return found

    monkeypatch.setattr(maximization, "_step", spy)
    found = maximize(model, features.matrix(x), Normal(y, np.ones(len(y))), 25)
    assert len(gains) == found.steps and min(gains) > -1e-6
    f = model.outputs(features.matrix(x), found.u)[:, 0]
    assert np.mean((f - y) ** 2) < 0.3
    assert ((found.determined >= 0.0) & (found.determined <= 1.0)).all()


def test_it_stops_when_told_and_begins_where_it_was():
    x, y, features = curve(0)
    model, B, own = Additive(features, 1), features.matrix(x), Normal(y, np.ones(len(y)))
    at_once = maximize(model, B, own, 10, stop=lambda: True)
    assert not at_once.u[:-1].any()
    done = maximize(model, B, own, 100)
    again = maximize(model, B, own, 100, done)
    assert again.steps < done.steps
    np.testing.assert_allclose(again.u, done.u, atol=0.05)
