"""All systems agree with dense algebra, and with one another."""

import numpy as np
import pytest

from mgnet.estimators.evidence import maximization, systems
from mgnet.estimators.evidence.features import features_of
from mgnet.estimators.evidence.likelihood import Classes, Normal
from mgnet.estimators.evidence.maximization import maximize
from mgnet.estimators.evidence.model import Additive, Hidden
from mgnet.estimators.evidence.modes import spline_modes
from mgnet.estimators.evidence.systems import (
    System,
    _Dual,
    _Primal,
    system_of,
    work_of_block_step,
    work_of_step,
)


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (9, 9)])
@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_both_matrices_are_the_dense_one(shape, damping):
    rng = np.random.default_rng(0)
    K, s, u = rng.normal(size=shape), rng.normal(size=shape[0]), rng.normal(size=shape[1])
    v, p = 0.3, rng.uniform(0.1, 3.0, shape[1])
    H = K.T @ K / v + np.diag(p)
    added = damping * np.trace(K.T @ K) / shape[1] / v
    expected = np.linalg.solve(H + added * np.eye(len(u)), K.T @ s / v - p * u)
    for method in (_Primal(K.T @ K), _Dual(K)):
        system = System(method, K.T @ s, u)
        system.set(v, p)
        np.testing.assert_allclose(system.solve(damping), expected, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(system.variances(), np.diag(np.linalg.inv(H)), rtol=1e-8)


def test_a_matrix_that_is_not_definite_has_no_step():
    system = System(_Primal(-np.eye(2)), np.ones(2), np.zeros(2))
    system.set(1.0, np.zeros(2))
    assert system.solve(0.0) is None and system.variances() is None


def problem(kind, rows=60, seed=0):
    """Features of rows, and a likelihood: squares, or so many classes."""
    rng = np.random.default_rng(seed)
    x, w = rng.uniform(-1.0, 1.0, (rows, 2)), rng.uniform(0.5, 2.0, rows)
    features = features_of(x, spline_modes(4, 3))
    if kind == "squares":
        return features, features.matrix(x), Normal(np.sin(3.0 * x[:, 0]) + x[:, 1], w)
    score = np.argsort(np.argsort(x[:, 0] + 0.5 * rng.normal(size=rows)))
    return features, features.matrix(x), Classes(score * kind // rows, w, kind)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("kind", ["squares", 2, 3, 5])
@pytest.mark.parametrize("seed", range(2))
def test_blocks_solve_the_equations_of_the_matrix(monkeypatch, kind, hidden, seed):
    monkeypatch.setattr(systems, "ITERATIONS", 2000)
    monkeypatch.setattr(systems, "TOLERANCE", 1e-12)
    features, B, own = problem(kind, seed=seed)
    o, rng = own.outputs, np.random.default_rng(seed)
    model = Hidden(features, spline_modes(4, 3), 3, o, 0) if hidden else Additive(features, o)
    u, p = rng.normal(size=model.size), rng.uniform(0.1, 3.0, model.size)
    (matrix, loss), (blocks, same) = (system_of(model, B, own, u, way) for way in (False, True))
    assert same == pytest.approx(loss, rel=1e-12)
    assert blocks.size == pytest.approx(matrix.size, rel=1e-12)
    for system in (matrix, blocks):
        system.set(0.7, p)
    np.testing.assert_allclose(blocks.gradient, matrix.gradient, atol=1e-9)
    for damping in (0.0, 0.5):
        expected = matrix.solve(damping)
        np.testing.assert_allclose(blocks.solve(damping), expected, atol=1e-7)
    variances = blocks.variances()
    assert (variances > 0.0).all() and (variances <= matrix.variances() * (1.0 + 1e-9)).all()
    if not hidden and o == 1:  # one block
        np.testing.assert_allclose(variances, matrix.variances(), rtol=1e-9)


def test_a_block_that_is_not_definite_has_no_step():
    features, B, own = problem(3)
    model = Additive(features, 3)
    system, _ = system_of(model, B, own, np.zeros(model.size), blocks=True)
    system.set(1.0, np.full(model.size, -1e3))
    assert system.solve(0.0) is None and system.variances() is None


@pytest.mark.parametrize("kind", [3, 6])
def test_steps_by_blocks_end_where_those_by_the_matrix_do(monkeypatch, kind):
    """A linear model with a known prior has one mode."""
    features, B, own = problem(kind, rows=120)
    model = Additive(features, own.outputs)
    prior = model.prior()
    monkeypatch.setattr(type(prior), "updated", lambda self, u, variances: self)
    monkeypatch.setattr(maximization, "CHANGE", -1.0)
    monkeypatch.setattr(maximization, "GAIN", 0.0)
    first, second = (maximize(model, B, own, 60, blocks=way) for way in (False, True))
    np.testing.assert_allclose(model.outputs(B, first.u), model.outputs(B, second.u), atol=1e-4)


@pytest.mark.parametrize("kind", ["squares", 2, 3])
def test_more_parameters_than_rows(monkeypatch, kind):
    """The dual way and the primal one end at the same parameters."""
    features, B, own = problem(kind, rows=20)
    model = Hidden(features, spline_modes(4, 3), 8, own.outputs, seed=0)
    assert len(B) * own.outputs < model.size
    dual = maximize(model, B, own, 6)

    def primal(model, B, likelihood, u, blocks):
        f, J = model.linearized(B, u)
        K, s = likelihood.equations(f, J)
        return System(_Primal(K.T @ K), K.T @ s, u), likelihood.loss(f)

    monkeypatch.setattr(maximization, "system_of", primal)
    other = maximize(model, B, own, 6)
    np.testing.assert_allclose(model.outputs(B, dual.u), model.outputs(B, other.u), atol=1e-5)


@pytest.mark.parametrize("kind", ["squares", 3])
def test_parts_of_the_rows_add_up(monkeypatch, kind):
    features, B, own = problem(kind, rows=200)
    model = Hidden(features, spline_modes(2, 3), 2, own.outputs, seed=0)
    u = model.start(own.start())
    whole, loss = system_of(model, B, own, u)
    monkeypatch.setattr(systems, "BLOCK", 7 * model.size * own.outputs)
    parts, same = system_of(model, B, own, u)
    np.testing.assert_allclose(parts.method.gram, whole.method.gram, atol=1e-9)
    np.testing.assert_allclose(parts.slope, whole.slope, atol=1e-9)
    assert same == pytest.approx(loss, rel=1e-12)


def test_work():
    assert work_of_step(30, 7) == work_of_step(7, 30) < work_of_step(30, 8)
    many = [50] * 10
    assert work_of_block_step(1000, many) < 0.1 * work_of_step(10_000, sum(many))
