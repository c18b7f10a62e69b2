"""Any step on the hidden layers goes with an exact last layer: the reduced objective's own step."""

import numpy as np
import pytest
import scipy.optimize
import torch
from torch.nn.functional import cross_entropy

from mgnet import Hierarchy, Level, Solver, cascade, run
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import (
    LBFGS,
    AdaptiveBasis,
    LastLayer,
    LeastSquares,
    LevenbergMarquardt,
    NewtonLastLayer,
    Objective,
    TorchOptimizer,
    box_init_,
)
from mgnet.training.least_squares.adaptive_basis import _Reduced

X = torch.linspace(-1.0, 1.0, 60, dtype=torch.float64).unsqueeze(1)
Y = torch.cat([torch.sin(5 * X), X.abs()], 1)
SGD = TorchOptimizer(torch.optim.SGD, {"lr": 0.05})
ADAM = TorchOptimizer(torch.optim.Adam, {"lr": 1e-2})


RIDGE = 1e-5


def mlp(outputs=2):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(1, 4), torch.nn.Tanh(), torch.nn.Linear(4, outputs)]
    return box_init_(torch.nn.Sequential(*layers).double(), (-1.0, 1.0))


def level(step, last=None, network=None, penalty=None):
    problem = LeastSquares(network or mlp(), (X, Y), penalty)
    return Level(problem, AdaptiveBasis(step, last or LastLayer()), objective=problem.value)


def visits(one, u, count, sweeps=1, f=None):
    memory, states = one.smoother.start(one, u), []
    for _ in range(count):
        u, memory = one.smoother.smooth(one, u, f, sweeps, memory)
        states.append(u)
    return states


def reduced(xi, ridge):
    """The residual of the reduced objective through LAPACK alone, which autograd can follow."""
    hidden = torch.tanh(X @ xi[:4].view(4, 1).T + xi[4:])
    basis = torch.cat([hidden, torch.ones(60, 1, dtype=torch.float64)], 1) / 60**0.5
    A = torch.cat([basis, ridge**0.5 * torch.eye(5, dtype=torch.float64)])
    b = torch.cat([Y / 60**0.5, torch.zeros(5, 2, dtype=torch.float64)])
    W = torch.linalg.lstsq(A, b, driver="gels").solution
    r = A @ W - b
    return torch.cat([r[:60].flatten(), r[60:, 0][:4], r[60:, 1][:4], r[64]])


def test_lsgd_steps_along_the_gradient_of_the_reduced_objective():
    one = level(SGD, LastLayer(ridge=RIDGE))
    xi = one.operator.start()[:8]
    states = visits(one, one.operator.start(), 3, sweeps=2)
    for _ in range(6):
        xi = xi.clone().requires_grad_()
        (slope,) = torch.autograd.grad(0.5 * reduced(xi, RIDGE).square().sum(), xi)
        xi = xi.detach() - 0.05 * slope
    torch.testing.assert_close(states[-1][:8], xi, rtol=1e-9, atol=1e-10)
    W = states[-1][8:]
    assert float((one.operator.gradient(states[-1])[8:] + RIDGE * W).norm()) < 1e-12


def test_kaufmans_jacobian_is_that_of_the_reduced_residual_off_the_basis():
    one = level(LevenbergMarquardt())
    u, last = one.operator.start(), LastLayer(ridge=RIDGE)
    below = _Reduced(one, last, None).level_for(LevenbergMarquardt()).operator
    J, r = below.jacobian(u), reduced(u[:8], RIDGE)
    exact = torch.func.jacrev(reduced)(u[:8], RIDGE)  # Golub and Pereyra
    basis = torch.cat([one.operator.jacobian(u)[:, 8:], RIDGE**0.5 * torch.eye(10)])
    Q = torch.linalg.qr(basis)[0]
    torch.testing.assert_close(J[:, :8], exact - Q @ (Q.T @ exact), rtol=0, atol=1e-8)
    torch.testing.assert_close(J[:, :8].T @ r, exact.T @ r)  # the gradient lacks nothing
    torch.testing.assert_close(below.residuals(u), r, rtol=0, atol=1e-10)
    assert not J[:, 8:].any()


def test_variable_projection_ends_no_higher_than_scipy_on_the_reduced_problem():
    one = level(LevenbergMarquardt(), LastLayer(ridge=RIDGE))
    u = visits(one, one.operator.start(), 60)[-1]
    theirs = scipy.optimize.least_squares(
        lambda xi: reduced(torch.from_numpy(xi), RIDGE).numpy(),
        one.operator.start()[:8].numpy(),
        lambda xi: torch.func.jacrev(reduced)(torch.from_numpy(xi), RIDGE).numpy(),
    )
    ours = one.operator.value(u) + 0.5 * RIDGE * float(u[8:].square().sum())
    assert ours <= theirs.cost * (1.0 + 1e-6)


def test_variable_projection_needs_fewer_steps_than_levenberg_marquardt():
    values = {}
    for name, smoother in {"whole": LevenbergMarquardt(), "projected": None}.items():
        one = level(LevenbergMarquardt())
        one = Level(one.operator, smoother or one.smoother)
        values[name] = [one.operator.value(u) for u in visits(one, one.operator.start(), 15)]
    assert values["projected"][4] < 0.3 * values["whole"][4]


STEPS = {"LSGD": SGD, "too long": TorchOptimizer(torch.optim.SGD, {"lr": 50.0}), "Adam": ADAM,
         "L-BFGS": LBFGS(), "Levenberg-Marquardt": LevenbergMarquardt()}  # fmt: skip


def penalty(network):
    size = sum(p.numel() for p in network.parameters())
    return 1e-3 * torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("network", [mlp, lambda: KAN([1, 3, 2], 3)], ids=["MLP", "KAN"])
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("extra", ["nothing", "ridge", "penalty"])
def test_no_visit_raises_the_objective(network, name, extra):
    last = LastLayer(ridge=1e-4 if extra == "ridge" else 0.0, rcond=1e-10)
    one = level(STEPS[name], last, network(), penalty if extra == "penalty" else None)
    start = one.operator.start()
    size = 10 if len(start) == 18 else 36
    values = [
        one.operator.value(u) + 0.5 * last.ridge * float(u[-size:].square().sum())
        for u in [start, *visits(one, start, 8, sweeps=3)]
    ]
    assert all(b <= a + 1e-14 for a, b in zip(values[:-1], values[1:], strict=True))
    assert values[-1] < 0.3 * values[0]


@pytest.mark.parametrize("step", [SGD, LBFGS()])
def test_a_right_hand_side_tilts_the_objective(step):
    one = level(step)
    u = one.operator.start()
    f = 1e-3 * torch.cos(torch.arange(len(u), dtype=torch.float64))
    values = [one.value(v, f) for v in [u, *visits(one, u, 6, sweeps=20, f=f)]]
    assert all(b <= a for a, b in zip(values[:-1], values[1:], strict=True))
    xi = u[:8].clone().requires_grad_()
    basis = (
        torch.cat([torch.tanh(X @ xi[:4].view(4, 1).T + xi[4:]), torch.ones_like(X)], 1) / 60**0.5
    )
    slope = torch.cat([f[8:16].view(2, 4).T, f[16:].unsqueeze(0)])
    W = torch.linalg.solve(basis.T @ basis, basis.T @ Y / 60**0.5 + slope)
    whole = 0.5 * (basis @ W - Y / 60**0.5).square().sum() - (slope * W).sum() - f[:8] @ xi
    (expected,) = torch.autograd.grad(whole, xi)
    below = _Reduced(one, LastLayer(), f)
    torch.testing.assert_close(below.gradient(u)[:8] - f[:8], expected, rtol=1e-7, atol=1e-9)
    assert below.value(u) - float(f[:8] @ u[:8]) == pytest.approx(float(whole.detach()))


def test_variable_projection_refuses_a_right_hand_side_on_the_last_layer():
    one = level(LevenbergMarquardt())
    u = one.operator.start()
    inner = torch.cat([torch.ones(8), torch.zeros(10)]).double()
    visits(one, u, 1, f=1e-3 * inner)
    with pytest.raises(ValueError, match="does not fit into a sum of squares"):
        visits(one, u, 1, f=torch.ones_like(u))


def test_newton_gradient_descent_classifies():
    angle = torch.linspace(0, 9, 200, dtype=torch.float64)
    spiral = torch.stack([angle.cos(), angle.sin()], 1) * (angle.unsqueeze(1) / 9)
    x, y = torch.cat([spiral, -spiral]), torch.arange(2).repeat_interleave(200)
    layers = [torch.nn.Linear(2, 20), torch.nn.Tanh(), torch.nn.Linear(20, 2)]
    network = box_init_(torch.nn.Sequential(*layers).double(), (-1.0, 1.0))
    problem = Objective(network, cross_entropy, (x, y))
    values = []
    for smoother in (AdaptiveBasis(ADAM, NewtonLastLayer(ridge=1e-6)), ADAM):
        one = Level(problem, smoother, objective=problem.value)
        values.append([problem.value(u) for u in visits(one, problem.start(), 5, sweeps=20)])
    ngd, adam = values
    assert all(b <= a + 1e-12 for a, b in zip(ngd[:-1], ngd[1:], strict=True))
    assert ngd[-1] < 0.3 * adam[-1]


def test_the_memory_of_the_step_survives_refinement():
    kan = KAN([1, 2, 2], 2)
    hierarchy = knot_hierarchy(kan, LeastSquares(kan, (X, Y)), 3, AdaptiveBasis(ADAM))
    start = torch.nn.utils.parameters_to_vector(kan.refine(4).parameters()).detach()
    u, memory = run(cascade([20, 20, 20]), hierarchy, start, None)
    assert float(memory[0, "pre"]["state"][0]["step"]) == 60.0
    assert hierarchy[0].operator.value(u) < 1e-3


def test_it_runs_in_a_solver_and_counts_its_work():
    one = level(ADAM)
    solver = Solver(Hierarchy([one]), "V(0,0,30)", max_cycles=2)
    solution = solver.solve(u=one.operator.start())
    assert one.operator.value(solution.value) < 0.5 * one.operator.value(one.operator.start())
    checks = 2 + 1  # the solver's residuals, one before and one after each cycle
    assert one.tally[0] == pytest.approx(2 * one.smoother.work(one, 30) + checks)
    assert "Adam" in str(one.smoother)
    assert np.isfinite(solution.work)
