"""Splines on any knots are SciPy's, with their derivatives, and continue linearly."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch.autograd import gradcheck, gradgradcheck

from mgnet.knots.nonuniform import local_basis_on, spline_layer_on

DEGREES = [1, 2, 3, 4, 5]


def random_knots(intervals, degree, inputs=1, seed=0):
    """Widths between 0.05 and 1, also beyond the domain."""
    widths = np.random.default_rng(seed).uniform(0.05, 1.0, (inputs, intervals + 2 * degree))
    return np.cumsum(np.pad(widths, [(0, 0), (1, 0)]), 1) - 1.0


def dense(x, knots, degree, order=0):
    """Column i: the derivative of the given order of spline i, from the local evaluation."""
    first, parts = local_basis_on(torch.as_tensor(x)[:, None], torch.as_tensor(knots), degree, 2)
    columns = first[..., None] + torch.arange(degree + 1)
    zeros = torch.zeros(len(x), 1, len(knots) - degree - 1, dtype=parts[0].dtype)
    return zeros.scatter(-1, columns, parts[order])[:, 0].numpy()


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("intervals", [1, 2, 9])
def test_values_slopes_and_curvatures_are_those_of_scipy(degree, intervals):
    knots = random_knots(intervals, degree)[0]
    x = np.linspace(knots[degree], knots[-degree - 1], 57)[:-1]
    x = np.union1d(x, knots[degree : -degree - 1])  # at the knots too, from the right
    for order in (0, 1, 2):
        ours = dense(x, knots, degree, order)
        for i, unit in enumerate(np.eye(intervals + degree)):
            spline = BSpline(knots, unit, degree)
            exact = spline(x, order) if order <= degree else 0.0 * x
            np.testing.assert_allclose(ours[:, i], exact, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("degree", DEGREES)
def test_outside_the_domain_splines_are_straight_lines(degree):
    knots = random_knots(4, degree)[0]
    u = np.random.default_rng(0).standard_normal(4 + degree)
    spline = BSpline(knots, u, degree)
    for end, beyond in ((knots[degree], -7.0), (knots[-degree - 1], 12.0)):
        side = end + 1e-13 * np.sign(end - beyond)
        slope = float(spline.derivative()(side))
        line = float(spline(end)) + slope * (beyond - end)
        x = np.array([beyond])
        assert float((dense(x, knots, degree) @ u)[0]) == pytest.approx(line, rel=1e-9)
        assert float((dense(x, knots, degree, 1) @ u)[0]) == pytest.approx(slope, rel=1e-9)
        assert not dense(x, knots, degree, 2).any()


@pytest.mark.parametrize("degree", DEGREES)
def test_both_backward_passes_in_x_and_in_the_knots(degree):
    knots = torch.tensor(random_knots(3, degree, inputs=2), requires_grad=True)
    a, b = knots.detach()[:, degree], knots.detach()[:, -degree - 1]
    t = torch.tensor([[-0.3], [0.13], [0.52], [0.9], [1.4]], dtype=torch.float64)
    x = (a + (b - a) * t).requires_grad_()

    def together(x, knots):  # weighted, because the splines alone sum to 1
        _, parts = local_basis_on(x, knots, degree, derivatives=1)
        weights = torch.arange(1.0, degree + 2, dtype=torch.float64).sqrt()
        return tuple(part @ weights for part in parts)

    assert gradcheck(together, (x, knots))
    assert gradgradcheck(together, (x, knots), atol=1e-4)


def test_autograd_gives_the_derivatives():
    knots = torch.tensor(random_knots(5, 3)[0])
    x = torch.linspace(-1.0, 6.0, 41, dtype=torch.float64)[:, None].requires_grad_()
    _, parts = local_basis_on(x, knots, 3, derivatives=2)
    weights = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    for low, high in zip(parts[:-1], parts[1:], strict=True):
        (found,) = torch.autograd.grad((low @ weights).sum(), x, create_graph=True)
        torch.testing.assert_close(found, high @ weights, rtol=1e-11, atol=1e-11)


def test_one_knot_vector_per_input_and_leading_shapes():
    knots = torch.tensor(random_knots(4, 3, inputs=3))
    u = torch.tensor(np.random.default_rng(1).standard_normal((3, 7, 2)))
    x = torch.rand(5, 6, 3, dtype=torch.float64) + knots[:, 3]
    ours = spline_layer_on(x, u, knots, 3)
    expected = sum(BSpline(knots[p].numpy(), u[p].numpy(), 3)(x[..., p]) for p in range(3))
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)
    shared = spline_layer_on(x, u, knots[0], 3)
    torch.testing.assert_close(shared, spline_layer_on(x, u, knots[:1].repeat(3, 1), 3))
    one = torch.func.vmap(torch.func.vmap(lambda row: spline_layer_on(row, u, knots, 3)))(x)
    torch.testing.assert_close(one, ours)


@pytest.mark.parametrize("degree", DEGREES)
@pytest.mark.parametrize("empty", ["left", "middle", "right"])
def test_empty_intervals_are_passed_over(degree, empty):
    middle = {"left": [0, 0, 1, 2], "middle": [0, 1, 1, 2], "right": [0, 1, 2, 2]}[empty]
    knots = np.r_[-degree:0, middle, 3 : 3 + degree].astype(float)
    x = np.linspace(0.0, 2.0, 9)
    values = dense(x, knots, degree)
    np.testing.assert_allclose(values.sum(1), 1.0, atol=1e-14)
    exact = [BSpline(knots, unit, degree)(x[:-1]) for unit in np.eye(3 + degree)]
    np.testing.assert_allclose(values[:-1], np.transpose(exact), atol=1e-13)
    np.testing.assert_allclose(values[-1], dense(x[-1:] - 1e-12, knots, degree)[0], atol=1e-10)


def test_nan_stays_nan_and_breaks_nothing_else():
    knots = torch.tensor(random_knots(4, 3)[0])
    x = torch.tensor([[float("nan")], [0.5 * float(knots[3] + knots[-4])]], dtype=torch.float64)
    first, parts = local_basis_on(x, knots, 3, derivatives=2)
    assert 0 <= int(first.min()) and int(first.max()) <= 3
    for part in parts:
        assert part[0].isnan().all() and part[1].isfinite().all()
