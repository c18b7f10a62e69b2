"""Systems agree with dense algebra; linear models reach the largest marginal likelihood."""

import numpy as np
import pytest
from scipy.optimize import minimize

from mgnet.estimators.evidence import maximization
from mgnet.estimators.evidence.features import features_of
from mgnet.estimators.evidence.likelihood import Classes, Normal, log_softmax
from mgnet.estimators.evidence.maximization import _Dual, _Normal, maximize, work_of_step
from mgnet.estimators.evidence.model import Additive, Hidden
from mgnet.estimators.evidence.modes import spline_modes
from mgnet.estimators.evidence.prior import FIXED


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (9, 9)])
@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_both_systems_are_the_dense_one(shape, damping):
    rng = np.random.default_rng(0)
    K, s, u = rng.normal(size=shape), rng.normal(size=shape[0]), rng.normal(size=shape[1])
    v, p = 0.3, rng.uniform(0.1, 3.0, shape[1])
    H = K.T @ K / v + np.diag(p)
    added = damping * np.trace(K.T @ K) / shape[1] / v
    expected = np.linalg.solve(H + added * np.eye(len(u)), K.T @ s / v - p * u)
    for system in (_Normal(K.T @ K, K.T @ s, u), _Dual(K.copy(), s, u)):
        system.set(v, p)
        np.testing.assert_allclose(system.solve(damping), expected, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(system.variances(), np.diag(np.linalg.inv(H)), rtol=1e-8)


def test_a_matrix_that_is_not_definite_has_no_step():
    system = _Normal(-np.eye(2), np.ones(2), np.zeros(2))
    system.set(1.0, np.zeros(2))
    assert system.solve(0.0) is None and system.variances() is None


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


@pytest.mark.parametrize("kind", ["squares", "two", "three"])
def test_more_parameters_than_rows(monkeypatch, kind):
    """The dual way and the primal one end at the same parameters."""
    x, y, features = curve(0, rows=20)
    likelihood = {
        "squares": Normal(y, np.ones(20)),
        "two": Classes((y > 0.0).astype(int), np.ones(20), 2),
        "three": Classes(np.digitize(y, [-0.5, 0.5]), np.ones(20), 3),
    }[kind]
    model = Hidden(features, spline_modes(4, 3), 8, likelihood.outputs, seed=0)
    B = features.matrix(x)
    assert len(x) * likelihood.outputs < model.size
    dual = maximize(model, B, likelihood, 6)

    def primal(model, B, likelihood, u):
        f, J = model.linearized(B, u)
        K, s = likelihood.equations(f, J)
        return _Normal(K.T @ K, K.T @ s, u), likelihood.loss(f)

    monkeypatch.setattr(maximization, "_system", primal)
    other = maximize(model, B, likelihood, 6)
    np.testing.assert_allclose(model.outputs(B, dual.u), model.outputs(B, other.u), atol=1e-5)


def test_blocks_of_rows_add_up(monkeypatch):
    x, y, features = curve(1, rows=200)
    B = features.matrix(x)
    for outputs, own in [
        (1, Normal(y, np.linspace(0.5, 1.5, 200))),
        (3, Classes(np.digitize(y, [-0.5, 0.5]), np.ones(200), 3)),
    ]:
        model = Hidden(features, spline_modes(2, 3), 2, outputs, seed=0)
        u = model.start(own.start())
        whole, loss = maximization._system(model, B, own, u)
        with monkeypatch.context() as small:
            small.setattr(maximization, "BLOCK", 7 * model.size * outputs)
            parts, same = maximization._system(model, B, own, u)
        np.testing.assert_allclose(parts.gram, whole.gram, atol=1e-9)
        np.testing.assert_allclose(parts.slope, whole.slope, atol=1e-9)
        assert same == pytest.approx(loss, rel=1e-12)


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


def test_work_is_symmetric():
    assert work_of_step(30, 7) == work_of_step(7, 30) < work_of_step(30, 8)
