"""Self-scaled Broyden: the secant equation, quadratic termination, SciPy's BFGS, and descent."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, rosen, rosen_der

from mgnet import Level, MatrixTransfer, cascade, cycle, run
from mgnet.knots import KAN, knot_hierarchy, knot_transfer, kronecker_matrix
from mgnet.training import LBFGS, AdaptiveBasis, Broyden, LeastSquares, TorchOptimizer
from mgnet.training.optimizers.broyden import Curvature

MEMBERS = [Broyden(), Broyden("bfgs"), Broyden(scaling=False), Broyden("bfgs", scaling=False)]
each = pytest.mark.parametrize("smoother", MEMBERS, ids=str)


def vector(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spd(n, seed=0):
    M = vector(n, n, seed=seed)
    return M @ M.T + 0.1 * torch.eye(n, dtype=torch.float64)


def rosenbrock(smoother):
    return Level(
        lambda u: torch.as_tensor(rosen_der(u.numpy())),
        smoother,
        objective=lambda u: float(rosen(u.numpy())),
    )


@each
def test_the_new_matrix_satisfies_the_secant_equation_and_is_positive(smoother):
    H, g, d = spd(7), vector(7, seed=1), None
    d = -(H @ g)
    s = 0.3 * d
    y = spd(7, seed=3) @ s
    new = smoother.updated(H, s, y, g, 0.3)
    torch.testing.assert_close(new @ y, s)
    torch.testing.assert_close(new, new.T)
    assert float(torch.linalg.eigvalsh(new)[0]) > 0.0
    assert torch.equal(H, spd(7))  # as it was
    again = H.clone()
    torch.testing.assert_close(smoother.updated(again, s, y, g, 0.3, in_place=True), new)


def test_the_unscaled_update_is_that_of_the_textbook():
    """(I - s y^T / <y, s>) H (I - y s^T / <y, s>) + s s^T / <y, s>: Nocedal, Wright, (6.17)."""
    H, g = spd(6), vector(6, seed=1)
    s = -0.5 * (H @ g)
    y = spd(6, seed=2) @ s
    V = torch.eye(6, dtype=torch.float64) - torch.outer(y, s) / (y @ s)
    expected = V.T @ H @ V + torch.outer(s, s) / (y @ s)
    torch.testing.assert_close(MEMBERS[3].updated(H, s, y, g, 0.5), expected)


@each
def test_a_quadratic_ends_after_as_many_exact_steps_as_unknowns(smoother):
    """Every member of the family makes conjugate directions; Dixon (1972)."""
    n = 8
    A, b = spd(n), vector(n, seed=4)
    u, H = torch.zeros(n, dtype=torch.float64), None
    for _ in range(n):
        g = A @ u - b
        d = -g if H is None else -(H @ g)
        length = -float(g @ d) / float(d @ A @ d)
        H = smoother.updated(H, length * d, length * (A @ d), g, length)
        u = u + length * d
    torch.testing.assert_close(u, torch.linalg.solve(A, b), rtol=0, atol=1e-8)


@each
def test_rosenbrock_in_as_few_steps_as_scipy(smoother):
    x = np.array([-1.2, 1.0, 0.7, -0.4, 1.3])
    theirs = minimize(rosen, x, jac=rosen_der, method="BFGS", options={"gtol": 1e-8})
    level, u = rosenbrock(smoother), torch.as_tensor(x)
    memory, steps = smoother.start(level, u), 0
    while float(level.operator(u).norm()) > 1e-8:
        before = rosen(u.numpy())
        u, memory = smoother.smooth(level, u, None, 1, memory)
        steps += 1
        assert rosen(u.numpy()) < before
    assert steps <= 1.5 * theirs.nit
    assert level.tally[0] - steps <= 1.5 * theirs.nfev  # without those that begin a visit


def kan_level(smoother):
    x = torch.linspace(-1.0, 1.0, 60, dtype=torch.float64).unsqueeze(1)
    kan = KAN([1, 2, 1], 4)
    problem = LeastSquares(kan, (x, torch.sin(4 * x)))
    return Level(problem, smoother, objective=problem.value)


def test_sweeps_may_be_split_over_visits():
    at_once, split = kan_level(Broyden()), kan_level(Broyden())
    u = v = at_once.operator.start()
    u, _ = at_once.smoother.smooth(at_once, u, None, 12, at_once.smoother.start(at_once, u))
    memory = split.smoother.start(split, v)
    for sweeps in (1, 5, 6):
        before = memory.inverse if memory.inverse is None else memory.inverse.clone()
        old = memory
        v, memory = split.smoother.smooth(split, v, None, sweeps, memory)
        assert before is None or torch.equal(old.inverse, before)  # what is given is not edited
    assert torch.equal(u, v)
    assert split.tally[0] == at_once.tally[0] + 2.0  # a gradient at the start of each


def test_a_right_hand_side_is_minimised_with():
    A = spd(6)
    level = Level(lambda u: A @ u, Broyden(), objective=lambda u: 0.5 * float(u @ A @ u))
    u, f = torch.zeros(6, dtype=torch.float64), vector(6)
    memory = level.smoother.start(level, u)
    for right in (f, 2.0 * f):  # H serves the second as well
        u, memory = level.smoother.smooth(level, u, right, 40, memory)
        torch.testing.assert_close(u, torch.linalg.solve(A, right), rtol=0, atol=1e-6)


def test_a_spoiled_matrix_is_given_up_and_float32_stays():
    level = kan_level(Broyden())
    u = level.operator.start()
    memory = level.smoother.start(level, u)._replace(inverse=-torch.eye(len(u)).double())
    v, memory = level.smoother.smooth(level, u, None, 2, memory)
    assert level.operator.value(v) < level.operator.value(u)
    u32, _ = level.smoother.smooth(level, u.float(), None, 3, level.smoother.start(level, u))
    assert u32.dtype == torch.float32


def test_at_the_minimum_it_stays():
    level = Level(lambda u: u, Broyden(), objective=lambda u: 0.5 * float(u @ u))
    u = torch.zeros(3, dtype=torch.float64)
    assert level.smoother.smooth(level, u, None, 5, level.smoother.start(level, u))[0] is u


def test_the_matrix_is_carried_with_what_it_knows():
    kan, smoother = KAN([1, 2, 1], 4), Broyden()
    transfer = knot_transfer(kan, 2)
    H = spd(sum(p.numel() for p in kan.parameters()))
    fine = smoother.carry(Curvature(H, 0.5), transfer)
    down = torch.func.vmap(transfer.inject)
    torch.testing.assert_close(down(down(fine.inverse).T), H)
    torch.testing.assert_close(fine.inverse, fine.inverse.T)
    P = torch.as_tensor(kronecker_matrix(kan, 2).toarray())
    beside = torch.linalg.qr(P, mode="complete").Q[
        :, P.shape[1] :
    ]  # orthogonal to the coarse space
    least = torch.linalg.eigvalsh(beside.T @ fine.inverse @ beside)[0]
    assert float(least) >= float(H.diagonal().min()) * (1.0 - 1e-9)
    assert fine.gain == 0.5
    assert smoother.carry(Curvature(None), transfer).inverse is None
    without = MatrixTransfer(P)
    expected = P @ H @ P.T + H.diagonal().min() * torch.eye(len(P)).double()
    torch.testing.assert_close(smoother.carry(Curvature(H), without).inverse, expected)


def test_a_carried_matrix_pays_in_a_cascade(monkeypatch):
    def end():
        x = 2.0 * torch.rand(200, 2, generator=torch.Generator().manual_seed(0)).double() - 1.0
        y = torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:] ** 2)
        kan = KAN([2, 5, 1], 4)
        hierarchy = knot_hierarchy(kan, LeastSquares(kan, (x, y)), 3, Broyden())
        u, _ = run(cascade([40, 20, 20]), hierarchy, hierarchy[0].operator.start(), None)
        return hierarchy[0].operator.value(u)

    value = end()
    monkeypatch.setattr(Broyden, "carry", lambda *_: None)
    assert value < 0.3 * end()


@pytest.mark.parametrize("form", ["subspace", "injected"])
def test_cycles_lower_the_objective(form):
    x = torch.linspace(-1.0, 1.0, 60, dtype=torch.float64).unsqueeze(1)
    kan = KAN([1, 2, 1], 4, generator=torch.Generator().manual_seed(0))
    problem = LeastSquares(kan, (x, torch.sin(4 * x)))
    hierarchy = knot_hierarchy(kan, problem, 3, Broyden(), form=form)
    value, memory = hierarchy[0].operator.value, None
    u = hierarchy[0].operator.start()
    before = value(u)
    for _ in range(4):
        u, memory = run(cycle(3, 1, 3, 3, 3), hierarchy, u, None, memory)
        assert value(u) < before
        before = value(u)


@pytest.mark.parametrize("step", [Broyden(), LBFGS()], ids=str)
def test_on_the_hidden_layers_of_an_adaptive_basis(step):
    """Every update is made from the gradient of the reduced objective, and lowers it."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(1, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    x = torch.linspace(-1.0, 1.0, 50, dtype=torch.float64).unsqueeze(1)
    problem = LeastSquares(network.double(), (x, torch.sin(6 * x)))
    level, basis = Level(problem, step, objective=problem.value), AdaptiveBasis(step)
    u = problem.start()
    solved, _ = AdaptiveBasis(TorchOptimizer(torch.optim.SGD, {"lr": 0.0})).smooth(
        level, u, None, 1, None
    )
    u, _ = basis.smooth(level, u, None, 40, basis.start(level, u))
    assert problem.value(u) < 1e-2 * problem.value(solved)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="'broyden' or 'bfgs'"):
        Broyden("dfp")
    with pytest.raises(TypeError, match="needs an objective"):
        Broyden().start(Level(lambda u: u, Broyden()), None)


def test_its_matrix_is_carried_in_single_precision_too():
    """H is in float64 whatever the network; the transfers are not."""
    x = torch.linspace(-1, 1, 40).unsqueeze(1)
    kan = KAN([1, 2, 1], 2, dtype=torch.float32)
    hierarchy = knot_hierarchy(kan, LeastSquares(kan, (x, torch.sin(3 * x))), 2, Broyden())
    start = hierarchy[0].operator.start()
    u, memory = run(cascade([20, 1]), hierarchy, start, None)
    assert memory[0, "pre"].inverse.dtype == torch.float64
    assert hierarchy[0].operator.value(u) < 0.2 * hierarchy[0].operator.value(start)
