"""Robust losses are SciPy's; the root of any loss is a residual whose half square is that loss."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from mgnet import Level
from mgnet.knots import KAN, InputBands
from mgnet.training import (
    LeastSquares,
    LevenbergMarquardt,
    NewtonKrylov,
    levenberg_marquardt,
    root_of_loss,
)
from mgnet.training.least_squares.losses import LOSSES, PointwiseLoss

NAMES = sorted(LOSSES)
GENERATOR = torch.Generator().manual_seed(5)


def doubles(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def scipy_cost(r, name, f_scale):
    """What `scipy.optimize.least_squares` minimises."""
    one = least_squares(lambda p: r + 0.0 * p, [0.0], loss=name, f_scale=f_scale, max_nfev=1)
    return one.cost


@pytest.mark.parametrize("name", NAMES)
def test_half_the_squared_root_is_the_loss_of_scipy(name):
    r = doubles(50) * 10.0 ** torch.linspace(-6, 6, 50, dtype=torch.float64)
    for f_scale in (0.03, 1.0, 200.0):
        roots = PointwiseLoss(name, f_scale).roots(r)
        assert torch.equal(roots.sign(), r.sign())
        for part in (slice(0, 10), slice(0, 25), slice(0, 50)):  # the large ones hide the small
            ours = 0.5 * float(roots[part].square().sum())
            rounding = 1e-14 * f_scale**2  # of SciPy's 2 (sqrt(1 + z) - 1)
            theirs = scipy_cost(r[part].numpy(), name, f_scale)
            assert ours == pytest.approx(theirs, rel=1e-9, abs=rounding)


@pytest.mark.parametrize("name", NAMES)
def test_slopes_are_the_derivatives_of_the_roots(name):
    loss = PointwiseLoss(name, 0.7)
    r = doubles(200) * 10.0 ** torch.linspace(-12, 8, 200, dtype=torch.float64)
    h = 1e-6 * r.abs()
    difference = (loss.roots(r + h) - loss.roots(r - h)) / (2.0 * h)
    torch.testing.assert_close(loss.slopes(r), difference, rtol=1e-6, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_zero_and_huge_residuals(name):
    loss = PointwiseLoss(name, 2.0)
    r = torch.tensor([0.0, -0.0, 1e-300, 1e-170, 1e-9, -1e-9], dtype=torch.float64)
    torch.testing.assert_close(loss.roots(r), r, rtol=1e-15, atol=0.0)
    assert loss.slopes(r).tolist() == pytest.approx([1.0] * 6, rel=1e-15)
    far = torch.tensor([-1e120, 1e120, 1e200, 1e300], dtype=torch.float64)
    roots, slopes = loss.roots(far), loss.slopes(far)
    assert bool(torch.isfinite(roots).all()) and bool((slopes >= 0.0).all())
    s = far.abs() / 2.0
    expected = {
        "soft_l1": (2.0 * s).sqrt(),
        "huber": (2.0 * s).sqrt(),
        "cauchy": (2.0 * s.log()).sqrt(),
        "arctan": torch.full_like(s, math.sqrt(math.pi / 2)),
    }[name]
    torch.testing.assert_close(roots.abs(), 2.0 * expected, rtol=1e-14, atol=0.0)


class Curve(torch.nn.Module):
    def __init__(self, start):
        super().__init__()
        self.p = torch.nn.Parameter(torch.as_tensor(start, dtype=torch.float64))

    def forward(self, t):
        return self.p[0] * torch.exp(-self.p[1] * t) + self.p[2]


def outliers(seed):
    """Sixty samples of an exponential; each fifth is far off."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0.0, 10.0, 60)
    noise = 0.05 * rng.standard_normal(60) + (rng.random(60) < 0.2) * rng.normal(0.0, 3.0, 60)
    return t, 2.0 * np.exp(-0.5 * t) + 0.5 + noise


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 3])
def test_the_minimum_is_that_of_scipy(name, seed):
    t, y = outliers(seed)
    start, f_scale = [1.5, 0.7, 0.3], 0.1

    def residual(p):
        return p[0] * np.exp(-p[1] * t) + p[2] - y

    options = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-12}
    theirs = least_squares(residual, start, loss=name, f_scale=f_scale, **options)
    data = torch.from_numpy(t), torch.from_numpy(y)
    problem = LeastSquares(Curve(start), data, loss=name, f_scale=f_scale)
    u = minimised(problem)
    assert 60.0 * problem.value(u) == pytest.approx(theirs.cost, rel=1e-8)
    assert u.tolist() == pytest.approx(theirs.x.tolist(), rel=1e-4)
    plain = minimised(LeastSquares(Curve(start), data))
    assert abs(u[1] - 0.5) < 0.5 * abs(plain[1] - 0.5)


def minimised(problem, smoother=None, sweeps=80):
    smoother = smoother or LevenbergMarquardt()
    level, u = Level(problem, smoother), problem.start()
    memory = smoother.start(level, u)
    for _ in range(sweeps):
        new, memory = smoother.smooth(level, u, None, 1, memory)
        if new is u:
            break
        u = new
    return u


def problem_of_a_kan(intervals, weighted, outputs, **options):
    x = 2.0 * torch.rand(200, 2, generator=GENERATOR, dtype=torch.float64) - 1.0
    y = 3.0 * doubles(200, outputs)
    options["sample_weight"] = torch.rand(200, generator=GENERATOR) + 0.1 if weighted else None
    kan = KAN([2, 3, outputs], intervals, linear=intervals > 10)
    return LeastSquares(kan, (x, y), loss="cauchy", f_scale=0.5, **options)


# With few intervals the Jacobian of a KAN is dense, with many sparse.
@pytest.mark.parametrize("intervals", [2, 60])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_residuals_jacobian_value_and_gradient_agree(intervals, outputs, weighted):
    problem = problem_of_a_kan(intervals, weighted, outputs)
    u = problem.start() + 0.1
    r, J = problem.linearize(u)
    torch.testing.assert_close(r, problem.residuals(u), rtol=0, atol=1e-14)
    value, gradient = problem.value_and_gradient(u)
    assert value == pytest.approx(0.5 * float(r @ r), rel=1e-13)
    torch.testing.assert_close(J.rmatvec(r), gradient, rtol=1e-10, atol=1e-13)
    dense = J.dense()
    torch.testing.assert_close(J.gram(), dense.T @ dense, rtol=1e-10, atol=1e-13)
    d = doubles(len(u))
    torch.testing.assert_close(J.matvec(d), dense @ d, rtol=1e-10, atol=1e-12)
    difference = (problem.residuals(u + 1e-6 * d) - problem.residuals(u - 1e-6 * d)) / 2e-6
    torch.testing.assert_close(dense @ d, difference, rtol=1e-5, atol=1e-7)


def test_iterative_systems_and_residual_functions_keep_their_fast_jacobian():
    x = 2.0 * torch.rand(300, 1, generator=GENERATOR, dtype=torch.float64) - 1.0
    y = torch.sin(4 * x) + (torch.arange(300).unsqueeze(1) % 7 == 0) * 2.0
    krylov = LevenbergMarquardt(linear_solver=NewtonKrylov(InputBands()))
    values = []
    for smoother in (LevenbergMarquardt(), krylov):
        torch.manual_seed(0)
        data = LeastSquares(KAN([1, 1], 30), (x, y), loss="huber", f_scale=0.1)
        values.append(data.value(minimised(data, smoother, 25)))
    kan = KAN([1, 1], 30)
    free = LeastSquares.from_torch(kan, lambda kan: kan(x) - y, loss="huber", f_scale=0.1)
    assert type(free.linearize(free.start())[1].parts[0][1]).__name__ == "LocalJacobian"
    values.append(free.value(minimised(free, None, 25)) / 300)
    assert values == pytest.approx([values[0]] * 3, rel=1e-6)


def test_single_precision_and_several_blocks():
    module = torch.nn.Linear(2, 1)
    x, y = torch.randn(9, 2, generator=GENERATOR), torch.randn(5, 1, generator=GENERATOR)
    problem = LeastSquares.from_torch(
        module, lambda m: (m(x), m(x[:5]) - y), loss="soft_l1", f_scale=0.3
    )
    u = problem.start()
    r, J = problem.linearize(u)
    assert r.dtype == J.dense().dtype == torch.float64 and len(r) == 14
    plain = LeastSquares.from_torch(module, problem.residual).residuals(u)
    assert problem.value(u) == pytest.approx(scipy_cost(plain.numpy(), "soft_l1", 0.3), rel=1e-9)
    torch.testing.assert_close(J.rmatvec(r).float(), problem.gradient(u), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"loss": "l1"}, "got loss 'l1'; it must be linear, soft_l1, huber, cauchy or arctan"),
        ({"loss": torch.nn.MSELoss()}, "got loss MSELoss"),
        ({"loss": "huber", "f_scale": 0.0}, "f_scale 0.0; it must be a positive number"),
        ({"f_scale": math.nan}, "f_scale nan; it must be a positive number"),
        ({"f_scale": True}, "f_scale True; it must be a positive number"),
    ],
)
def test_what_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        LeastSquares.from_torch(torch.nn.Linear(1, 1), lambda m: m(torch.ones(3, 1)), **options)


# The root of any loss


def test_the_root_of_cross_entropy_has_its_value_and_gradient():
    logits = (3.0 * doubles(20, 3)).requires_grad_()
    labels = torch.arange(20) % 3
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    half_square = 0.5 * root_of_loss(loss).square().sum()
    assert float(half_square.detach()) == pytest.approx(float(loss.detach().sum()), rel=1e-14)
    (ours,) = torch.autograd.grad(half_square, logits, retain_graph=True)
    (theirs,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


def test_a_loss_of_zero_has_the_derivative_zero():
    """Cross entropy of logits 40 apart is 0 in double precision."""
    logits = torch.tensor([[40.0, 0.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 0]), reduction="none")
    roots = root_of_loss(loss)
    assert roots[0] == 0.0
    (gradient,) = torch.autograd.grad(roots.sum(), logits)
    assert gradient[0].tolist() == [0.0, 0.0] and bool(torch.isfinite(gradient).all())


def test_with_signs_the_root_of_a_deviance_is_smooth():
    """Near `mu = y` the Poisson deviance residual is (mu - y) / sqrt(y)."""
    y = torch.tensor([4.0, 9.0, 25.0], dtype=torch.float64)
    for h in (1e-3, -1e-3):
        mu = (y * (1.0 + h)).requires_grad_()
        deviance = torch.xlogy(y, y / mu) - (y - mu)
        F = root_of_loss(deviance, mu - y)
        torch.testing.assert_close(F, (mu - y) / y.sqrt(), rtol=1e-3, atol=0.0)
        (slope,) = torch.autograd.grad(F.sum(), mu)
        torch.testing.assert_close(slope, 1.0 / y.sqrt(), rtol=1e-2, atol=0.0)
    assert root_of_loss(torch.tensor([-1e-12])).tolist() == [0.0]  # rounding of a difference


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((torch.tensor(1.0),), "got one number; give the loss of each sample"),
        ((torch.tensor([1.0, -0.5]),), "got a loss of -0.5; only losses that are never negative"),
        ((torch.ones(3), torch.ones(3, 1)), r"shape \(3,\) and signs of shape \(3, 1\)"),
    ],
)
def test_what_has_no_root(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        root_of_loss(*arguments)
    assert math.isnan(root_of_loss(torch.tensor([math.nan])).item())


def half_moons(seed):
    """Two classes that overlap."""
    generator = torch.Generator().manual_seed(seed)
    angle = math.pi * torch.rand(200, generator=generator, dtype=torch.float64)
    labels = torch.arange(200) % 2
    points = torch.stack([angle.cos() + labels, (1 - 2 * labels) * angle.sin() + 0.5 * labels], 1)
    return points + 0.3 * torch.randn(200, 2, generator=generator, dtype=torch.float64), labels


@pytest.mark.parametrize("seed", range(3))
def test_cross_entropy_ends_lower_than_after_as_many_gradients(seed):
    x, labels = half_moons(seed)
    entropy = torch.nn.CrossEntropyLoss(reduction="none")

    def network():
        torch.manual_seed(seed)
        layers = torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
        return torch.nn.Sequential(*layers).double()

    ours, theirs = network(), network()
    levenberg_marquardt(lambda m: root_of_loss(entropy(m(x), labels)), ours, max_cycles=40)
    lbfgs = torch.optim.LBFGS(
        theirs.parameters(), max_iter=40, max_eval=40, line_search_fn="strong_wolfe"
    )

    def closure():
        lbfgs.zero_grad()
        loss = entropy(theirs(x), labels).mean()
        loss.backward()
        return loss

    lbfgs.step(closure)
    ends = [float(entropy(net(x), labels).mean().detach()) for net in (ours, theirs)]
    assert ends[0] < 0.95 * ends[1]
