"""A box knows what is allowed, the nearest allowed state, and which unknowns may move."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares, lsq_linear

from mgnet import Level, MatrixTransfer, cascade, run
from mgnet.knots import KAN, InputBands, knot_hierarchy
from mgnet.training import LeastSquares, LevenbergMarquardt, NewtonKrylov, levenberg_marquardt
from mgnet.training.least_squares.bounds import (
    Box,
    Boxed,
    HeldJacobian,
    box_of,
    boxed_step,
    check_inside,
)
from mgnet.training.least_squares.jacobian import DenseJacobian
from mgnet.training.least_squares.normal_equations import NormalEquations
from mgnet.training.least_squares.recentred import Recentred
from mgnet.training.least_squares.step_rules import Nielsen, TrustRegion
from mgnet.training.loss.parameters import FlatParameters
from tests.training.least_squares.standard.problems import problems

GENERATOR = torch.Generator().manual_seed(6)
INF = math.inf


def doubles(*shape, generator=GENERATOR):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def drawn_box(size, generator=GENERATOR):
    lower, upper = torch.sort(doubles(2, size, generator=generator), 0).values
    lower[::5], upper[1::5] = -INF, INF
    return Box(lower, upper)


def test_the_projection_is_the_nearest_allowed_state():
    box = drawn_box(100)
    u = 2.0 * doubles(100)
    v = box.project(u)
    assert box.inside(v) and not box.inside(u)
    assert torch.equal(box.project(v), v)
    # The variational inequality: no allowed state lies nearer.
    for _ in range(20):
        w = box.project(3.0 * doubles(100))
        assert float((u - v) @ (w - v)) <= 0.0
    assert not box.inside(torch.full((100,), math.nan).double())


def test_unknowns_are_held_where_descent_leaves_the_box():
    box = Box(torch.zeros(6).double(), torch.ones(6).double())
    u = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.5, 0.0], dtype=torch.float64)
    gradient = torch.tensor([2.0, -2.0, 2.0, -2.0, 2.0, 0.0], dtype=torch.float64)
    assert box.free(u, gradient).tolist() == [False, True, True, False, True, True]
    assert box.projected_gradient(u, gradient).tolist() == [0.0, -2.0, 2.0, 0.0, 2.0, 0.0]


@pytest.mark.parametrize("seed", range(4))
def test_the_projected_gradient_vanishes_at_the_minimum_alone(seed):
    generator = torch.Generator().manual_seed(seed)
    A, b = doubles(20, 8, generator=generator), doubles(20, generator=generator)
    box = drawn_box(8, generator)
    found = lsq_linear(A.numpy(), b.numpy(), (box.lower.numpy(), box.upper.numpy()), "bvls", 1e-14)
    u = torch.from_numpy(found.x)
    gradient = A.T @ (A @ u - b)
    assert 0 < int((~box.free(u, gradient)).sum()) < 8 and box.inside(u)
    assert float(box.projected_gradient(u, gradient).norm()) < 1e-10 < float(gradient.norm())
    other = box.project(u + 0.1 * doubles(8, generator=generator))
    slope = box.projected_gradient(other, A.T @ (A @ other - b))
    assert float(slope.norm()) > 1e-3


@pytest.mark.parametrize("seed", range(6))
def test_steps_in_the_box_end_at_the_minimum_over_the_box(seed):
    """Of a linear problem: few steps without damping, each lower than the one before."""
    generator = torch.Generator().manual_seed(seed)
    A, b = doubles(20, 8, generator=generator), 3.0 * doubles(20, generator=generator)
    box = drawn_box(8, generator)
    u, values = box.project(torch.zeros(8).double()), [math.inf]
    for _ in range(8):
        r = A @ u - b
        values.append(0.5 * float(r @ r))
        free = box.free(u, A.T @ r)

        def solver(mask, r=r):
            inverse = torch.linalg.pinv(A * mask)
            return lambda y: mask * (inverse @ (-r if y is None else y))

        point, solve = boxed_step(box, u, free, DenseJacobian(A), solver)
        assert box.inside(point) and torch.equal(point[~free], u[~free])
        assert not bool((solve(r) * ~free).any())
        slope = A.T @ (A @ point - b)
        assert float((slope * (solve(r) != 0.0)).norm()) < 1e-10  # the best given those at bounds
        u = point
    bounds = box.lower.numpy(), box.upper.numpy()
    found = lsq_linear(A.numpy(), b.numpy(), bounds, "bvls", 1e-14)
    assert values[-1] == pytest.approx(found.cost, rel=1e-12)
    torch.testing.assert_close(u, torch.from_numpy(found.x), rtol=1e-9, atol=1e-9)
    for before, after in zip(values, values[1:], strict=False):
        assert after <= before * (1.0 + 1e-14)


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))


def box_for(bounds, module=None):
    parameters = FlatParameters(module or network())
    box = box_of("levenberg_marquardt", parameters, bounds)
    check_inside("levenberg_marquardt", parameters, box, parameters.start().double())
    return box


def test_bounds_by_name_and_for_all():
    columns = torch.tensor([-5.0, -INF])
    box = box_for({"0.weight": (columns, 5.0), "2.bias": (-1, torch.tensor([2.0]))})
    nothing = [-INF] * 3, [INF] * 3
    assert box.lower.tolist() == [-5.0, -INF] * 3 + nothing[0] + nothing[0] + [-1.0]
    assert box.upper.tolist() == [5.0] * 6 + nothing[1] + nothing[1] + [2.0]
    every = box_for((-1.5, INF))
    assert every.lower.tolist() == [-1.5] * 13 and every.upper.tolist() == [INF] * 13
    module = network()
    module[0].requires_grad_(False)
    assert len(box_for((-2.0, 2.0), module).lower) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_the_module_rounds_keeps_its_bounds(dtype):
    module = torch.nn.Linear(1, 1, dtype=dtype)
    module.weight.data.fill_(0.9)
    # In single and in bfloat16 precision 0.7 is rounded down, 1.1 up.
    box = box_for({"weight": (0.7, 1.1), "bias": (-INF, 1e300)}, module)
    assert 0.7 <= box.lower[0] < 0.71 and 1.09 < box.upper[0] <= 1.1
    for u in (box.project(torch.tensor([-9.0, 0.0]).double()), box.upper.clamp_max(1e30)):
        FlatParameters(module).write(u)
        assert 0.7 <= module.weight.item() <= 1.1


REFUSED = [
    (
        {"0.weigth": (0, 1)},
        ValueError,
        "bounds for '0.weigth', which is not a trained parameter of .*",
    ),
    ({"0.bias": (torch.zeros(2), 1)}, ValueError, r"do not broadcast to its shape \(3,\)"),
    ({"0.bias": ("low", 1)}, ValueError, "do not broadcast"),
    ({"0.bias": (None, 1)}, ValueError, "do not broadcast"),
    ({"0.bias": (2, 1)}, ValueError, "lower one is not below the upper one"),
    ({"0.bias": (1, 1)}, ValueError, r"to hold a parameter, call requires_grad_\(False\)"),
    ({"0.bias": (math.nan, 1)}, ValueError, "lower one is not below"),
    ({"0.bias": 3.0}, TypeError, r"bounds 3.0 for 0.bias; give \(lower, upper\)"),
    (5, TypeError, "bounds 5 for all parameters"),
    ((torch.zeros(13), 1), ValueError, "bounds that are tensors for all parameters"),
    (
        {"2.bias": (7.0, 8.0)},
        ValueError,
        "state outside its bounds in 1 of 13 .* first in '2.bias'",
    ),
    ((5.0, INF), ValueError, "in 13 of 13 parameters, first in '0.weight'.* start inside"),
]


@pytest.mark.parametrize(("bounds", "error", "sentence"), REFUSED)
def test_what_is_refused(bounds, error, sentence):
    with pytest.raises(error, match=f"levenberg_marquardt got .*{sentence}"):
        box_for(bounds)


def test_a_frozen_parameter_has_no_bounds():
    module = network()
    module[0].bias.requires_grad_(False)
    with pytest.raises(ValueError, match="'0.bias', which is not a trained parameter"):
        box_for({"0.bias": (0, 1)}, module)


def test_residuals_outside_are_those_of_the_nearest_allowed_state():
    module, box = torch.nn.Linear(2, 1, bias=False), Box(torch.zeros(2), torch.ones(2))
    problem = Boxed(LeastSquares.from_torch(module, lambda m: 1.0 / m.weight), box)
    assert problem.residuals(torch.tensor([0.5, 1.5])).tolist() == [2.0, 1.0]


def test_held_columns_are_zero_in_all_products():
    J, free = DenseJacobian(doubles(7, 5)), torch.tensor([True, False, True, True, False])
    held, d, y = HeldJacobian(J, free), doubles(5), doubles(7)
    matrix = J.matrix * free
    for found, expected in (
        (held.dense(), matrix),
        (held.matvec(d), matrix @ d),
        (held.rmatvec(y), matrix.T @ y),
        (held.gram(), matrix.T @ matrix),
        (held.root().T @ held.root(), matrix.T @ matrix),
        (held.also(~free).gram(), (J.matrix * ~free).T @ J.matrix * ~free),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    all_held = NormalEquations(held.also(free & ~free), y)
    assert all_held.damped(1.0)(None).tolist() == [0.0] * 5


# Training in a box, against SciPy's trf

QUICK = (
    "rosenbrock, freudenstein roth, beale, jennrich sampson, helical valley, gaussian, meyer, "
    "powell singular, wood, kowalik osborne, osborne 1, watson 6, penalty 1 4, "
    "broyden tridiagonal 10, linear full rank 5 x 10"
).split(", ")
STANDARD = {problem.name: problem for problem in problems()}


def cut_off(problem):
    """A start, and bounds for every other unknown halfway from there to the minimum."""
    start, end = next(iter(problem.starts.values())), problem.points[0]
    lower, upper = torch.full_like(start, -INF), torch.full_like(start, INF)
    half = 0.5 * (start + end)
    even = torch.arange(len(start)) % 2 == 0
    upper[even & (end > start)] = half[even & (end > start)]
    lower[even & (end < start)] = half[even & (end < start)]
    return start.tolist(), lower.tolist(), upper.tolist()


def by_scipy(function, start, lower, upper, loss="linear", f_scale=1.0):
    jacobian = torch.func.jacrev(function)
    with np.errstate(over="ignore"):
        return least_squares(
            lambda p: function(torch.from_numpy(p)).numpy(),
            np.array(start),
            lambda p: jacobian(torch.from_numpy(p)).numpy(),
            bounds=(lower, upper),
            loss=loss,
            f_scale=f_scale,
            x_scale="jac",
            **{"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-13, "max_nfev": 1000},
        )


def by_us(function, start, lower, upper, **options):
    module = torch.nn.ParameterDict({"p": torch.tensor(start, dtype=torch.float64)})
    bounds = {"p": tuple(torch.tensor(side, dtype=torch.float64) for side in (lower, upper))}
    solution = levenberg_marquardt(lambda m: function(m["p"]), module, bounds=bounds, **options)
    box = Box(*bounds["p"])
    assert box.inside(module["p"].detach())
    return solution, int(((solution.value == box.lower) | (solution.value == box.upper)).sum())


@pytest.mark.parametrize("name", QUICK)
def test_the_minimum_in_a_box_is_that_of_scipy(name):
    problem = STANDARD[name].residual, *cut_off(STANDARD[name])
    theirs = by_scipy(*problem)
    for rule in (TrustRegion(), Nielsen()):
        solution, at_bounds = by_us(*problem, rule=rule, max_cycles=300)
        assert at_bounds > 0
        assert solution.values[-1] == pytest.approx(theirs.cost, rel=1e-8)
        most = (0.8 if rule.singular else 1.6) * theirs.njev
        assert solution.cycles <= max(most, 10)  # theirs differ between processors, down to 7


@pytest.mark.parametrize("loss", ["huber", "cauchy"])
@pytest.mark.parametrize("name", ["rosenbrock", "kowalik osborne", "osborne 1"])
def test_robust_losses_in_a_box(name, loss):
    problem, f_scale = (STANDARD[name].residual, *cut_off(STANDARD[name])), 0.03
    theirs = by_scipy(*problem, loss=loss, f_scale=f_scale)
    solution, at_bounds = by_us(*problem, loss=loss, f_scale=f_scale, ftol=1e-13)
    assert at_bounds > 0 and solution.reason.converged
    assert solution.values[-1] == pytest.approx(theirs.cost, rel=1e-8)


def test_bounds_that_are_not_met_change_nothing():
    start, minimum = [-1.2, 1.0], [1.0, 1.0]
    rosenbrock = STANDARD["rosenbrock"].residual
    solution, at_bounds = by_us(rosenbrock, start, [-2.0, -INF], [2.0, INF])
    free = torch.nn.ParameterDict({"p": torch.tensor(start, dtype=torch.float64)})
    unbounded = levenberg_marquardt(lambda m: rosenbrock(m["p"]), free)
    assert at_bounds == 0 and solution.value.tolist() == pytest.approx(minimum)
    assert solution.values == pytest.approx(unbounded.values)


@pytest.mark.parametrize("rule", [TrustRegion(), Nielsen()])
def test_all_unknowns_held_is_a_minimum(rule):
    solution, at_bounds = by_us(lambda p: p + 1.0, [0.0, 0.0], [0.0, 0.0], [1.0, 1.0], rule=rule)
    assert solution.reason.converged and at_bounds == 2 and solution.values[-1] == 1.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_network_ends_at_a_minimum_in_its_box(dtype):
    """From there SciPy finds nothing lower."""
    x = torch.linspace(-1.0, 1.0, 40, dtype=dtype).unsqueeze(1)
    torch.manual_seed(0)
    layers = torch.nn.Linear(1, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)
    module = torch.nn.Sequential(*layers).to(dtype)
    bounds = {"0.weight": (-3.1, 3.1), "2.weight": (-1.3, INF), "2.bias": (-0.7, 0.7)}
    seen = []

    def residual(module):
        if isinstance(module, torch.nn.Sequential):  # and no stand-in
            seen.append([module[0].weight, module[2].weight, module[2].bias])
        return module(x) - torch.sin(4.0 * x)

    solution = levenberg_marquardt(residual, module, bounds=bounds, max_cycles=400)
    assert solution.reason.converged or dtype == torch.float32
    assert len(seen) > 10
    for parameters in (*seen, [module[0].weight, module[2].weight, module[2].bias]):
        for tensor, (low, high) in zip(parameters, bounds.values(), strict=True):
            tensor = tensor.detach()
            assert low <= float(tensor.min()) <= float(tensor.max()) <= high
    box = box_of("test", FlatParameters(module), bounds)
    u = solution.value
    assert 0 < int(((u == box.lower) | (u == box.upper)).sum())
    x = x.double()
    problem = LeastSquares.from_torch(module.double(), lambda m: m(x) - torch.sin(4.0 * x))
    lower, upper = box.lower.numpy(), box.upper.numpy()
    further = least_squares(
        lambda p: problem.residuals(torch.from_numpy(p)).numpy(),
        u.numpy(),
        lambda p: problem.jacobian(torch.from_numpy(p)).numpy(),
        bounds=(lower, upper),
        max_nfev=100,
    )
    assert further.cost >= problem.value(u) * (1.0 - (1e-8 if dtype == torch.float64 else 1e-3))


def test_bounds_hold_on_all_levels_of_a_cascade():
    """Finer coefficients of splines are means of coarser ones, so they stay in the box."""
    x = torch.linspace(-1.0, 1.0, 200, dtype=torch.float64).unsqueeze(1)
    kan = KAN([1, 1], 4)
    torch.nn.utils.vector_to_parameters(torch.zeros(7).double(), kan.parameters())
    smoother = LevenbergMarquardt(bounds=(-0.5, 0.8))
    hierarchy = knot_hierarchy(kan, LeastSquares(kan, (x, torch.sin(4 * x))), 3, smoother)
    u, _ = run(cascade([10, 10, 10]), hierarchy, hierarchy[0].operator.start(), None)
    box = Box(torch.full_like(u, -0.5), torch.full_like(u, 0.8))
    assert box.inside(u) and bool((u == 0.8).any()) and bool((u == -0.5).any())
    gradient = hierarchy[0].operator.gradient(u)
    assert float(box.projected_gradient(u, gradient).norm()) < 1e-6 < float(gradient.norm())


def test_bounds_that_no_step_can_keep_are_refused():
    with pytest.raises(ValueError, match="got a state outside its bounds in 1 of 1 .* 'p'"):
        by_us(lambda p: p, [3.0], [0.0], [1.0])
    with pytest.raises(ValueError, match="bounds and a linear_solver; leave one out"):
        LevenbergMarquardt(bounds=(0.0, 1.0), linear_solver=NewtonKrylov(InputBands()))
    module, smoother = torch.nn.Linear(1, 1).double(), LevenbergMarquardt(bounds=(-9.0, 9.0))
    fine = LeastSquares(module, (torch.ones(3, 1).double(), torch.ones(3, 1).double()))
    coarse = Recentred.of(fine, fine.start(), MatrixTransfer(torch.ones(2, 1).double()))
    with pytest.raises(ValueError, match="a problem around a fine state, .* use a cascade"):
        smoother.linearize(Level(coarse, smoother), torch.zeros(1).double(), None)
