"""A box knows what is allowed, the nearest allowed state, and which unknowns may move."""

import math

import pytest
import torch
from scipy.optimize import lsq_linear

from mgnet.training.least_squares.bounds import Box, box_of, boxed_step
from mgnet.training.least_squares.jacobian import DenseJacobian
from mgnet.training.loss.parameters import FlatParameters

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
    return box_of("levenberg_marquardt", FlatParameters(module or network()), bounds)


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
        "bounds for '0.weigth', which is no trained parameter of .*",
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
        "start outside its bounds in 1 of 13 .* first in '2.bias'",
    ),
    ((5.0, INF), ValueError, "in 13 of 13 parameters, first in '0.weight'.* begin inside"),
]


@pytest.mark.parametrize(("bounds", "error", "sentence"), REFUSED)
def test_what_is_refused(bounds, error, sentence):
    with pytest.raises(error, match=f"levenberg_marquardt got .*{sentence}"):
        box_for(bounds)


def test_a_frozen_parameter_has_no_bounds():
    module = network()
    module[0].bias.requires_grad_(False)
    with pytest.raises(ValueError, match="'0.bias', which is no trained parameter"):
        box_for({"0.bias": (0, 1)}, module)
