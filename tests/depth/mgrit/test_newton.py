"""Laws: Newton's method for all steps at once finds the serial march, and says what it costs."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import mgnet
from mgnet.depth import CyclesToTolerance, FixedCycles, LayerParallel, ODENet
from mgnet.depth.mgrit.layer_hierarchy import layer_hierarchy
from mgnet.depth.mgrit.newton import NewtonSweep, newton_of
from mgnet.depth.mgrit.one_step import OneStep, dahlquist
from mgnet.depth.mgrit.scan import affine_scan

STRUCTURES = ["dense", "diagonal", "identity"]


def solved(problem, sweep, rtol=1e-12, most=60):
    hierarchy = problem.hierarchy(levels=1, solver=sweep)
    solver = mgnet.Solver(hierarchy, rtol=rtol, max_cycles=most)
    return solver.solve(u=problem.guess()), hierarchy


def lorenz(u, dt=0.01):
    """One step of the classical Runge-Kutta method."""

    def slope(u):
        x, y, z = u.T
        return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], 1)

    a = slope(u)
    b = slope(u + dt / 2 * a)
    c = slope(u + dt / 2 * b)
    return u + dt / 6 * (a + 2 * b + 2 * c + slope(u + dt * c))


def pendulum(steps=400):
    def euler(t, dt, u):
        return u + dt[:, None] * np.stack([u[:, 1], -np.sin(u[:, 0]) - u[:, 1]], axis=1)

    return OneStep(euler, np.array([1.0, 0.5]), np.full(steps, 8.0 / steps))


def test_the_correct_digits_double():
    solution, _ = solved(pendulum(), NewtonSweep(), rtol=1e-13)
    assert abs(solution.require().value - pendulum().serial()).max() < 1e-12
    norms = np.array(solution.residual_norms)
    assert len(norms) <= 7
    late = norms[1:-1][norms[1:-1] < 1e-2]
    following = norms[1:][norms[1:] < 1e-2][: len(late) + 1][1:]
    assert (following < np.maximum(30 * late**2, 1e-14)).all()


def test_diagonals_are_exact_for_elementwise_recurrences():
    def step(t, dt, u):
        return u + dt[:, None] * np.cos(u * [1.0, 2.0, 3.0])

    problem = OneStep(step, np.array([0.1, 0.2, 0.3]), np.full(300, 0.01))
    dense, _ = solved(problem, NewtonSweep("dense"))
    diagonal, _ = solved(problem, NewtonSweep("diagonal"))
    assert dense.cycles == diagonal.cycles <= 5
    np.testing.assert_allclose(dense.value, diagonal.value, rtol=1e-10)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("steps", [1, 2, 7, 64])
def test_n_sweeps_give_the_bits_of_the_march(structure, steps):
    problem = pendulum(steps)
    level = problem.hierarchy(levels=1, solver=NewtonSweep(structure))[0]
    u, _ = level.smoother.smooth(level, problem.guess(), None, steps + 1, None)
    assert (u == problem.serial()).all()


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("reverse", [False, True])
def test_right_hand_sides_and_the_other_direction(structure, reverse):
    """A step that differs from layer to layer; the start is the right-hand side's first row."""
    generator = np.random.default_rng(3)
    matrices = 0.3 * generator.standard_normal((23, 4, 4))

    class Layers:
        def advance(self, level, which, states):
            return np.tanh(np.einsum("kij,kj->ki", matrices[which], states))

        def linearize(self, level, which, states, structure):
            value = self.advance(level, which, states)
            jacobian = (1 - value**2)[..., None] * matrices[which]
            return value, jacobian if structure == "dense" else np.einsum("kii->ki", jacobian)

    hierarchy = layer_hierarchy(
        Layers(), 23, np.ones(4), levels=1, reverse=reverse, solver=NewtonSweep(structure)
    )
    f, guess = generator.standard_normal((2, 24, 4))
    level = hierarchy[0]
    u, _ = level.smoother.smooth(level, guess, f, 24, None)
    np.testing.assert_allclose(u, level.operator.march(f), rtol=1e-12)
    assert abs(level.residual_at(u, f)).max() < 1e-12


def test_a_linear_equation_takes_one_sweep():
    problem = dahlquist(-1.0 + 2.0j, steps=50, final_time=3.0)
    level = problem.hierarchy(levels=1, solver=NewtonSweep())[0]
    u, _ = level.smoother.smooth(level, problem.guess(), None, 1, None)
    assert abs(u - problem.serial()).max() < 1e-9  # by differences


@pytest.mark.parametrize("factor", [3, 4])
def test_as_coarsest_solver_of_cycles(factor):
    problem = pendulum(50)
    hierarchy = problem.hierarchy(coarsening=factor, solver=NewtonSweep())
    solution = mgnet.Solver(hierarchy, rtol=1e-12).solve(u=problem.guess())
    assert abs(solution.require().value - problem.serial()).max() < 1e-11


def test_the_jacobian_of_the_user_serves_and_is_cheaper():
    def jacobian(t, dt, u):
        slope = np.zeros((len(u), 2, 2))
        slope[:, 0, 1], slope[:, 1, 0], slope[:, 1, 1] = 1.0, -np.cos(u[:, 0]), -1.0
        return np.eye(2) + dt[:, None, None] * slope

    plain = pendulum()
    own = OneStep(plain.step, plain.initial, plain.steps, jacobian=jacobian)
    (one, differences), (two, given) = (solved(each, NewtonSweep()) for each in (plain, own))
    assert one.cycles == two.cycles
    assert abs(two.require().value - plain.serial()).max() < 1e-12
    # A sweep: all steps, their Jacobians, the step tried; and a residual after each.
    assert differences[0].tally[0] == 1 + one.cycles * (1 + 2 * 2 + 1 + 1)
    assert given[0].tally[0] == 1 + two.cycles * (1 + 1 + 1 + 1)


def test_damped_steps_converge_where_plain_ones_diverge():
    """Lorenz' equations for 10 units of time: linearized errors grow by e^9."""
    problem = OneStep(lambda t, dt, u: lorenz(u), np.ones(3), np.ones(1000))
    with np.errstate(all="ignore"):
        u = problem.guess()
        for _ in range(3):  # plain
            arrivals = lorenz(u[:-1])
            jacobian = np.stack(
                [(lorenz(u[:-1] + e) - lorenz(u[:-1] - e)) / 2e-6 for e in 1e-6 * np.eye(3)], 2
            )
            u = u + affine_scan(jacobian, arrivals - u[1:], np.zeros(3))
        assert not np.isfinite(u).all()
        solution, _ = solved(problem, NewtonSweep(), rtol=1e-8, most=200)
    assert solution.cycles < 200 < len(problem.steps)
    error = abs(solution.require().value - problem.serial())
    assert error.max() < 1e-5 and error[:500].max() < 1e-7


def test_corrections_that_overflow_leave_finite_states():
    """Products of Jacobians along 80 units of time are beyond float64."""
    problem = OneStep(lambda t, dt, u: lorenz(u, 0.02), np.ones(3), np.ones(4000))
    with np.errstate(all="ignore"):
        level = problem.hierarchy(levels=1, solver=NewtonSweep())[0]
        u, memory = problem.guess(), None
        for sweep in range(1, 4):
            u, memory = level.smoother.smooth(level, u, None, 1, memory)
            assert np.isfinite(u).all() and abs(u).max() < 1e3
            assert (u[: sweep + 1] == problem.serial()[: sweep + 1]).all()


@pytest.mark.parametrize("size", [1.0, 1e40])
@pytest.mark.parametrize("structure", ["dense", "diagonal"])
def test_states_that_overflow_are_begun_anew_and_never_called_solved(structure, size):
    """The true states are finite; those of early sweeps, and of a bad guess, are not."""

    def step(t, dt, u):
        return np.where(abs(u) < 4.0, u + 0.1 * u * (1 - u**2) + 0.5 * u[:, ::-1], u**9 * 1e200)

    problem = OneStep(step, np.array([0.5, -0.2]), np.ones(30))
    with np.errstate(all="ignore"):
        level = problem.hierarchy(levels=1, solver=NewtonSweep(structure))[0]
        u, memory = size * problem.guess(), None
        for _ in range(31):
            u, memory = level.smoother.smooth(level, u, None, 1, memory)
            assert np.isfinite(u).all()
        np.testing.assert_allclose(u, problem.serial(), rtol=1e-12)


def test_damping_slows_but_converges():
    plain, _ = solved(pendulum(), NewtonSweep(), 1e-8)
    damped, _ = solved(pendulum(), NewtonSweep("dense", 0.02), 1e-8)
    assert plain.cycles < damped.cycles < 60
    assert abs(damped.require().value - pendulum().serial()).max() < 1e-6


# Nets


def net_of(**options):
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        block = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
        return ODENet(block, 22, final_time=2.0, **options), torch.randn(5, 3)
    finally:
        torch.set_default_dtype(torch.float32)


def gradients(module, x):
    x = x.clone().requires_grad_()
    out = module(x)
    return [out.detach(), *torch.autograd.grad(out.square().sum(), [x, *module.parameters()])]


@pytest.mark.parametrize("text", ["newton", "cascade + newton", "newton(dense, 0.01)"])
@pytest.mark.parametrize(("scheme", "coarsening"), [("euler", 5), ("rk4", 4)])
def test_a_net_and_its_gradients(text, scheme, coarsening):
    net, x = net_of(scheme=scheme)
    wanted = gradients(net, x)
    parallel = LayerParallel(
        net, coarsening=coarsening, forward=text, backward=text, control=FixedCycles(5)
    )
    tolerance = 1e-12 if "0.01" not in text else 1e-5
    for found, exact in zip(gradients(parallel, x), wanted, strict=True):
        torch.testing.assert_close(found, exact, rtol=tolerance, atol=tolerance)


def test_the_adjoint_is_linear_and_takes_one_sweep():
    net, x = net_of()
    parallel = LayerParallel(net, backward="newton", control=FixedCycles(8, backward=1))
    for found, exact in zip(gradients(parallel, x), gradients(net, x), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("text", ["newton(diagonal)", "newton(identity)"])
def test_other_structures_converge_to_a_tolerance(text):
    net, x = net_of()
    parallel = LayerParallel(net, forward=text, backward=text, control=CyclesToTolerance(1e-10))
    for found, exact in zip(gradients(parallel, x), gradients(net, x), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-8)
    assert parallel.last_forward.cycles < 15
    assert parallel.last_forward.estimate < 1e-10


@pytest.mark.parametrize("layers", [4, 5, 6, 7, 8])
def test_linear_layers_take_one_sweep_whatever_the_last_interval(layers):
    torch.manual_seed(0)
    net, x = ODENet(nn.Linear(3, 3), layers).double(), torch.randn(5, 3, dtype=torch.float64)
    parallel = LayerParallel(net, forward="newton", backward="newton", control=FixedCycles(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one sweep is known to be enough
        for found, exact in zip(gradients(parallel, x), gradients(net, x), strict=True):
            torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)
    assert max(parallel.last_forward.estimate, parallel.last_backward.estimate) < 1e-12


def test_a_residual_that_is_not_finite_raises():
    class Cube(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, u):
            return (1e200 * self.linear(u)) ** 3

    net, x = ODENet(lambda n: Cube(), 12).double(), torch.ones(2, 3, dtype=torch.float64)
    with pytest.raises(FloatingPointError, match="residual is not finite after 2 Newton sweeps"):
        LayerParallel(net, forward="newton", control=FixedCycles(2))(x)


# Refusals


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("full",), "structure 'full'; it must be one of dense, diagonal, identity"),
        (("dense", 1.0), "damping 1.0; it must be a number from 0 to below 1"),
        (("dense", -0.1), "damping -0.1"),
        (("dense", float("nan")), "damping nan"),
    ],
)
def test_what_a_sweep_may_be(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        NewtonSweep(*arguments)


def test_a_sweep_is_printed_and_read():
    assert str(NewtonSweep("diagonal", 0.25)) == "NewtonSweep('diagonal', 0.25)"
    assert newton_of(" cascade + newton ( diagonal , .25 ) ") == NewtonSweep("diagonal", 0.25)
    assert newton_of("cascade + V") is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("newton(full)", r"character 8: got 'full\)'; expected dense, diagonal or identity"),
        ("newton(dense", r"the text ends there; expected '\)'"),
        ("newton(dense, 2)", r"character 15: got '2\)'; expected a damping from 0 to below 1"),
        ("newton V", r"character 8: got 'V'; expected the end"),
        ("cascade newton", r"character 9: got 'newton'; expected '\+'"),
    ],
)
def test_texts_are_refused_with_a_position(text, sentence):
    net, _ = net_of()
    with pytest.raises(ValueError, match=sentence):
        LayerParallel(net, forward=text)


def test_a_propagator_that_cannot_be_linearized_is_told_what_to_do():
    class Halve:
        def advance(self, level, which, states):
            return 0.5 * states

    level = layer_hierarchy(Halve(), 4, np.ones(1), levels=1, solver=NewtonSweep())[0]
    with pytest.raises(TypeError, match=r"the propagator Halve, which has no method linearize"):
        level.smoother.smooth(level, np.ones((5, 1)), None, 1, None)
    level = layer_hierarchy(Halve(), 4, np.ones(1), levels=1, solver=NewtonSweep("identity"))[0]
    u, _ = level.smoother.smooth(level, np.ones((5, 1)), None, 4, None)
    assert (u.ravel() == 0.5 ** np.arange(5)).all()


def test_jacobians_of_another_shape_are_refused():
    class Halve:
        def advance(self, level, which, states):
            return 0.5 * states

        def linearize(self, level, which, states, structure):
            return 0.5 * states, np.ones((4, 2, 3))

    level = layer_hierarchy(Halve(), 4, np.ones(2), levels=1, solver=NewtonSweep())[0]
    with pytest.raises(ValueError, match=r"dense ones \(k, ..., H, H\)"):
        level.smoother.smooth(level, np.ones((5, 2)), None, 1, None)
