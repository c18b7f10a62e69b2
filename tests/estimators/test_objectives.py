"""The objectives of the estimators, against scikit-learn, autograd and plain sums over rows."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, mean_squared_error

from mgnet.estimators.objectives import bending, entropy, squares
from mgnet.knots import KAN


def table(rows=200, seed=0):
    x = np.random.default_rng(seed).uniform(-1.0, 1.0, (rows, 2))
    return x, np.exp(x[:, 0]) * np.sin(3 * x[:, 1])


def test_the_objective_is_cross_entropy_and_the_penalty():
    kan = KAN([2, 3], 4)
    x, labels = table(30)[0], np.arange(30) % 3
    rows = torch.from_numpy(x), torch.from_numpy(labels), None
    u = torch.nn.utils.parameters_to_vector(kan.parameters()).detach()
    with torch.no_grad():
        plain = log_loss(labels, torch.softmax(kan(rows[0]), 1).numpy())
    assert entropy(kan, rows, 0.0).value(u) == pytest.approx(plain)
    expected = plain + 0.5 * 0.1 * float(bending(kan).detach())
    assert entropy(kan, rows, 0.1).value(u) == pytest.approx(expected)
    fine = kan.refine()
    assert bending(fine).item() == pytest.approx(bending(kan).item())


# With few intervals the Jacobian of a KAN is dense, with many sparse.
@pytest.mark.parametrize("intervals", [2, 60])
@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_weighted_squares_are_those_of_repeated_rows(intervals, penalty):
    rng = np.random.default_rng(1)
    x, times = torch.rand(300, 2, dtype=torch.float64), rng.integers(1, 5, 300)
    y = torch.sin(5.0 * x)
    kan = KAN([2, 3, 2], intervals, linear=intervals == 60)
    weighted = squares(kan, (x, y, times * 0.7), penalty)
    pick = torch.from_numpy(np.repeat(np.arange(300), times))
    repeated = squares(kan, (x[pick], y[pick], None), penalty)
    u = weighted.start() + 0.1
    assert weighted.value(u) == pytest.approx(repeated.value(u), rel=1e-13)
    assert weighted.mean_square(u) == pytest.approx(repeated.mean_square(u), rel=1e-13)
    torch.testing.assert_close(weighted.gradient(u), repeated.gradient(u), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(weighted.linearize(u)[0], weighted.residuals(u), rtol=0, atol=1e-14)
    (r, J), (r_long, J_long) = weighted.linearize(u), repeated.linearize(u)
    kinds = {type(J.parts[0][1]).__name__, type(J_long.parts[0][1]).__name__}
    assert kinds == {"DenseJacobian" if intervals == 2 else "KANJacobian"}
    torch.testing.assert_close(J.gram(), J_long.gram(), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(J.rmatvec(r), J_long.rmatvec(r_long), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(J.matvec(u), J.dense() @ u, rtol=1e-11, atol=1e-11)
    outputs = kan(x).detach().numpy()
    expected = 2.0 * mean_squared_error(y, outputs, sample_weight=times)
    assert weighted.with_network(kan).mean_square(weighted.start()) == pytest.approx(expected)


def test_weighted_squares_have_no_batches():
    x = torch.zeros(3, 1, dtype=torch.float64)
    with pytest.raises(TypeError, match="weights belong to all its samples"):
        squares(KAN([1, 1]), (x, x, np.arange(1.0, 4.0)), 0.0).subsampled(0.5)


def test_weighted_entropy_is_that_of_scikit_learn():
    kan = KAN([2, 3], 4)
    x, labels = table(30)[0], np.arange(30) % 3
    weights = np.random.default_rng(2).uniform(0.1, 4.0, 30)
    rows = torch.from_numpy(x), torch.from_numpy(labels), weights
    one = entropy(kan, rows, 0.0)
    chances = torch.softmax(kan(rows[0]), 1).detach().numpy()
    expected = log_loss(labels, chances, sample_weight=weights)
    assert one.value(one.start()) == pytest.approx(expected)
    bent = entropy(kan, rows, 0.2)
    expected += 0.1 * float(bending(kan).detach())
    assert bent.value(bent.start()) == pytest.approx(expected)
