"""Losses, gradients and Gauss-Newton matrices are those of PyTorch and the textbook."""

import numpy as np
import pytest
import torch

from mgnet.estimators.evidence.likelihood import Classes, Normal, log_softmax

ROWS, PARAMETERS = 12, 5


def drawn(outputs, seed=0):
    rng = np.random.default_rng(seed)
    f = rng.normal(size=(ROWS, outputs))
    return rng, f, rng.normal(size=(outputs, ROWS, PARAMETERS)), rng.uniform(0.2, 3.0, ROWS)


def test_log_softmax():
    _, f, _, _ = drawn(4)
    expected = torch.log_softmax(torch.from_numpy(f), 1).numpy()
    np.testing.assert_allclose(log_softmax(f), expected, atol=1e-14)
    two = np.column_stack([np.zeros(ROWS), f[:, 0]])
    np.testing.assert_allclose(log_softmax(f[:, :1]), log_softmax(two), atol=1e-14)
    assert np.isfinite(log_softmax(np.array([[1e6], [-1e6]]))).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_equations_of_squares(weighted):
    rng, f, J, w = drawn(1)
    w = w if weighted else np.ones(ROWS)
    y = rng.normal(size=ROWS)
    own = Normal(y, w)
    K, s = own.equations(f, J.copy())
    np.testing.assert_allclose(K.T @ K, J[0].T @ (w[:, None] * J[0]), rtol=1e-12)
    np.testing.assert_allclose(K.T @ s, J[0].T @ (w * (y - f[:, 0])), rtol=1e-12)
    assert own.loss(f) == pytest.approx(0.5 * np.sum(w * (y - f[:, 0]) ** 2))
    assert own.start() == pytest.approx(np.sum(w * y) / w.sum())
    free = w.sum() - 3.0
    assert own.variance(f, 3.0) == pytest.approx(np.sum(w * (y - f[:, 0]) ** 2) / free)
    assert own.variance(f, 1e9) > own.variance(f, 3.0)
    assert own.variance(y[:, None], 0.0) > 0.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_equations_of_classes(classes, seed):
    outputs = 1 if classes == 2 else classes
    rng, f, J, w = drawn(outputs, seed)
    labels = rng.integers(0, classes, ROWS)
    own = Classes(labels, w, classes)
    assert own.outputs == outputs

    def loss(u):  # of outputs that are linear in u
        logits = torch.from_numpy(f) + torch.einsum("onp,p->no", torch.from_numpy(J), u)
        if classes == 2:
            logits = torch.cat([torch.zeros_like(logits), logits], 1)
        each = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none")
        return (torch.from_numpy(w) * each).sum()

    zero = torch.zeros(PARAMETERS, dtype=torch.float64)
    K, s = own.equations(f, J.copy())
    assert own.loss(f) == pytest.approx(float(loss(zero)), rel=1e-12)
    gradient = torch.autograd.functional.jacobian(loss, zero).numpy()
    # Outputs are linear in u: the Hessian is the generalized Gauss-Newton matrix.
    hessian = torch.autograd.functional.hessian(loss, zero).numpy()
    np.testing.assert_allclose(-K.T @ s, gradient, atol=1e-10)
    np.testing.assert_allclose(K.T @ K, hessian, atol=1e-10)
    assert own.variance(f, 5.0) == 1.0
    p = np.exp(log_softmax(f))
    exact = sum(
        w[n] * J[:, n].T @ (np.diag(p[n]) - np.outer(p[n], p[n])) @ J[:, n]
        if classes > 2
        else w[n] * p[n, 0] * p[n, 1] * np.outer(J[0, n], J[0, n])
        for n in range(ROWS)
    )
    np.testing.assert_allclose(K.T @ K, exact, atol=1e-10)


@pytest.mark.parametrize("classes", [2, 3])
def test_sure_answers_give_finite_equations(classes):
    labels = np.arange(6) % classes
    f = np.full((6, 1 if classes == 2 else classes), 0.0)
    f[:, 0] = [800.0, -800.0, 40.0, -40.0, 1e5, -1e5]
    own = Classes(labels, np.ones(6), classes)
    K, s = own.equations(f, np.ones((f.shape[1], 6, 2)))
    assert np.isfinite(K).all() and np.isfinite(s).all() and np.isfinite(own.loss(f))


def test_starts_are_the_shares_and_parts_of_rows_are_rows():
    own = Classes(np.array([0, 1, 1, 1]), np.array([1.0, 2.0, 3.0, 4.0]), 2)
    assert own.start() == pytest.approx([np.log(9.5 / 1.5)])
    three = Classes(np.array([0, 1, 2, 2]), np.ones(4), 3).start()
    np.testing.assert_allclose(np.exp(three), np.array([1.5, 1.5, 2.5]) / 5.5)
    part = own.at(np.array([0, 3]))
    assert part.labels.tolist() == [0, 1] and part.rows == 5.0 and part.count == 2
    assert own.at(np.array([0, 3]), np.ones(2)).rows == 2.0
    squares = Normal(np.arange(4.0), np.arange(1.0, 5.0)).at(slice(1, 3))
    assert squares.targets.tolist() == [1.0, 2.0] and squares.rows == 5.0


@pytest.mark.parametrize("classes", [0, 2, 3, 5])
def test_derivatives_by_the_outputs_are_those_of_autograd(classes):
    outputs = 1 if classes in (0, 2) else classes
    rng, f, _, w = drawn(outputs, classes)
    own = Classes(rng.integers(0, classes, ROWS), w, classes) if classes else Normal(f[::-1, 0], w)

    def loss(f):
        weights = torch.from_numpy(w)
        if not classes:
            return 0.5 * (weights * (f[:, 0] - torch.from_numpy(own.targets.copy())) ** 2).sum()
        logits = torch.cat([torch.zeros_like(f), f], 1) if classes == 2 else f
        each = torch.nn.functional.cross_entropy(
            logits, torch.from_numpy(own.labels), reduction="none"
        )
        return (weights * each).sum()

    at = torch.from_numpy(f).requires_grad_()
    (slope,) = torch.autograd.grad(loss(at), at)
    np.testing.assert_allclose(own.descent(f), -slope.numpy(), atol=1e-12)
    whole = torch.autograd.functional.hessian(loss, at.detach()).numpy()
    hessian = np.einsum("nonp->nop", whole)
    curvature, g = own.curvature(f), rng.normal(size=f.shape)
    np.testing.assert_allclose(curvature.times(g), np.einsum("nop,np->no", hessian, g), atol=1e-12)
    along = np.einsum("no,nop,np->n", g, hessian, g)
    np.testing.assert_allclose(curvature.along(g), along, atol=1e-12)
    first = np.eye(outputs)[0]
    np.testing.assert_allclose(curvature.along(first), hessian[:, 0, 0], atol=1e-12)
