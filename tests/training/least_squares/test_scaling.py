"""Law: targets and unknowns times a power of two give the answer times it, over the whole range."""

import math

import numpy as np
import pytest
import torch

from mgnet import Hierarchy, Level, cascade, cycle, run
from mgnet.knots import KAN, KnotMultigrid, knot_hierarchy
from mgnet.training import (
    AdaptiveBasis,
    LastLayer,
    LeastSquares,
    LevenbergMarquardt,
    NewtonKrylov,
    TorchOptimizer,
    levenberg_marquardt,
    solve_last_layer_,
)
from mgnet.training.least_squares.newton_krylov import conjugate_gradients
from mgnet.training.least_squares.scaling import norm, power_of_two, unit_of
from mgnet.training.least_squares.step_rules import Nielsen

X = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64).unsqueeze(1)
Y = torch.sin(3 * X) + 0.3 * X**2
EXPONENTS = [-990, -700, -565, -530, -200, 0, 200, 500, 530, 700, 980]
LINEAR = {  # in its unknowns
    "LM": LevenbergMarquardt(),
    "LM without acceleration": LevenbergMarquardt(acceleration=0.0),
    "Newton-Krylov": LevenbergMarquardt(linear_solver=NewtonKrylov(direct=0)),
    "Newton-multigrid": LevenbergMarquardt(linear_solver=NewtonKrylov(KnotMultigrid(), direct=0)),
    "last layer": LastLayer(),
    "last layer with a ridge": LastLayer(ridge=1e-3),
}


def drawn(seed):
    """Powers of two at both ends and at random."""
    return sorted({*EXPONENTS, *np.random.default_rng(seed).integers(-990, 980, 4).tolist()})


def result(smoother, k, levels, schedule, f=None):
    kan = KAN([1, 1], 4)
    with torch.no_grad():
        kan.coefficients[0].mul_(2.0**k)
    problem = LeastSquares(kan, (X, Y * 2.0**k))
    hierarchy = knot_hierarchy(kan, problem, levels, smoother)
    start = hierarchy[0].operator.start()
    u, _ = run(schedule, hierarchy, start, None if f is None else f * 2.0**k)
    assert not torch.equal(u, start)
    return u


def assert_scaled(found, expected, k, name):
    if "last" in name:  # LAPACK rounds otherwise at the ends of the range
        torch.testing.assert_close(found * 2.0**-k, expected, rtol=1e-8, atol=1e-10)
    else:
        assert torch.equal(found, expected * 2.0**k), k


@pytest.mark.parametrize("name", LINEAR)
def test_the_answer_scales(name):
    for levels, schedule in ((1, cascade([6])), (2, cascade([4, 3]))):
        expected = result(LINEAR[name], 0, levels, schedule)
        for k in drawn(len(name)):
            assert_scaled(result(LINEAR[name], k, levels, schedule), expected, k, name)


@pytest.mark.parametrize("name", ["LM", "Newton-Krylov", "last layer"])
def test_the_answer_scales_with_a_right_hand_side(name):
    f = 1e-2 * torch.cos(torch.arange(7, dtype=torch.float64))
    expected = result(LINEAR[name], 0, 1, cascade([5]), f)
    for k in drawn(3):
        assert_scaled(result(LINEAR[name], k, 1, cascade([5]), f), expected, k, name)


def test_the_tool_ends_alike():
    """The same reason, cycles and parameters; gradients times the factor, also where loss is 0."""
    told = {}
    for k in drawn(4):
        kan = KAN([1, 1], 4)
        with torch.no_grad():
            kan.coefficients[0].mul_(2.0**k)
        solution = levenberg_marquardt(lambda kan, k=k: kan(X) - Y * 2.0**k, kan, max_cycles=20)
        told[k] = solution, solution.value * 2.0**-k
    for solution, value in told.values():
        assert solution.reason is told[0][0].reason
        assert solution.cycles == told[0][0].cycles
        assert torch.equal(value, told[0][1])
        ratio = np.array(solution.residual_norms) / solution.residual_norms[0]
        np.testing.assert_allclose(
            ratio, np.array(told[0][0].residual_norms) / told[0][0].residual_norms[0], rtol=1e-12
        )


@pytest.mark.parametrize("step", [LevenbergMarquardt(), TorchOptimizer(torch.optim.SGD)])
def test_adaptive_bases_scale_with_their_last_layer(step):
    torch.manual_seed(0)
    hidden = torch.nn.Linear(1, 5), torch.nn.Tanh()
    net = torch.nn.Sequential(*hidden, torch.nn.Linear(5, 1)).double()

    def result(k):
        y = Y * 2.0**k
        problem = LeastSquares(net, (X, y))
        u = problem.start()
        u[-6:] *= 2.0**k
        level = Level(problem, AdaptiveBasis(step), objective=problem.value)
        u, _ = run(cascade([5]), Hierarchy([level]), u, None)
        u[-6:] *= 2.0**-k
        return u

    exponents = [k for k in drawn(5) if abs(k) > 400]
    expected = result(0)
    for k in exponents:
        # The descent on the hidden layers sees the loss in its unit: the same for all of these.
        found = result(k)
        if isinstance(step, LevenbergMarquardt):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
        outputs = [LeastSquares(net, (X, Y)).outputs(u) for u in (found, expected)]
        assert float((outputs[0] - Y).norm()) <= 1.5 * float((outputs[1] - Y).norm())


def test_last_layers_scale():
    def result(k):
        torch.manual_seed(0)
        hidden = torch.nn.Linear(1, 5), torch.nn.Tanh()
        net = torch.nn.Sequential(*hidden, torch.nn.Linear(5, 1)).double()
        solve_last_layer_(net, [(X[:20], Y[:20] * 2.0**k), (X[20:], Y[20:] * 2.0**k)])
        return net[2].weight.detach() * 2.0**-k

    expected = result(0)
    for k in drawn(6):
        torch.testing.assert_close(result(k), expected, rtol=1e-9, atol=1e-12)


def test_single_precision_has_the_range_of_its_numbers():
    """Squares of float32 residuals of 1e-25 and 1e25 are none in float32."""
    values = []
    for scale in (2.0**-85, 1.0, 2.0**85):
        torch.manual_seed(0)
        module = torch.nn.Linear(1, 1)
        with torch.no_grad():
            for p in module.parameters():
                p.mul_(scale)
        y = (2.0 * X.float() + 1.0) * scale
        solution = levenberg_marquardt(lambda m, y=y: m(X.float()) - y, module)
        assert solution.reason.converged
        assert (module.weight.item() / scale, module.bias.item() / scale) == pytest.approx(
            (2, 1), rel=1e-5
        )
        values.append(solution.values[0] / scale**2)
    assert values == pytest.approx([values[1]] * 3)


def test_cycles_scale_too():
    expected = result(LevenbergMarquardt(), 0, 2, cycle(2))
    assert torch.equal(result(LevenbergMarquardt(), 100, 2, cycle(2)), expected * 2.0**100)


@pytest.mark.parametrize("seed", range(3))
def test_norms_at_both_ends(seed):
    v = torch.randn(30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for k in drawn(seed):
        assert norm(v * 2.0**k) == pytest.approx(math.ldexp(float(v.norm()), k), rel=1e-14)
        b = v[:4] * 2.0**k
        found = conjugate_gradients(lambda d: 2.0 * d, b, lambda r: r)
        assert found.converged
        assert torch.equal(found.value, b / 2.0)
    assert norm(torch.zeros(3)) == 0.0
    assert math.isinf(norm(torch.tensor([math.inf, 1.0])))
    assert math.isnan(norm(torch.tensor([math.nan, 1.0])))


def test_units():
    assert [power_of_two(s) for s in (3.0, 2.0**-1074, 1.5e308)] == [2.0, 2.0**-1074, 2.0**1023]
    assert [power_of_two(s) for s in (0.0, math.inf, math.nan)] == [1.0] * 3
    problem = LeastSquares(torch.nn.Linear(1, 1).double(), (X, Y))
    u = problem.start()
    for size, unit in ((1e-90, 1.0), (1e90, 1.0), (0.0, 1.0), (2.0**-700, 2.0**-700)):
        r = torch.full((3,), size, dtype=torch.float64)
        assert unit_of(problem, r, problem.half_square(r), u) == unit
    tiny = torch.full((3,), 2.0**-1060, dtype=torch.float64)  # beside parameters of size 1
    assert unit_of(problem, tiny, 0.0, u) == 1.0


class Formula(torch.nn.Module):
    """Residuals of unknowns in other units: `2^k formula(2^-units b)`."""

    def __init__(self, formula, start, k, units):
        super().__init__()
        self.formula, self.factor, self.units = formula, 2.0**k, torch.tensor(units).double().exp2()
        self.b = torch.nn.Parameter(torch.tensor(start).double() * self.units)

    def forward(self):
        return self.factor * self.formula(self.b / self.units)


def formulas(seed):
    """With a matrix and data that are drawn; the last has a matrix of unknowns, as a network."""
    random = np.random.default_rng(seed)
    A, y = (torch.from_numpy(random.normal(size=size)) for size in ((9, 3), (9,)))
    t = torch.linspace(0.1, 2.0, 9, dtype=torch.float64)
    yield lambda b: torch.tanh(A @ b) + 0.1 * b[0] - y
    yield lambda b: b[0] * torch.exp(-b[1] * t) + b[2] - y
    yield lambda b: torch.cat([10.0 * (b[1:] - b[:-1].square()), 1.0 - b])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("options", [{}, {"rule": Nielsen()}], ids=["TrustRegion", "Nielsen"])
def test_iterates_are_the_same_in_all_units(seed, options):
    """Of residuals and of each unknown, by their column norms: the whole history."""
    random = np.random.default_rng(100 + seed)
    start = random.normal(size=3)
    for formula in formulas(seed):
        told = {}
        for case in range(4):
            k = int(random.integers(-200, 201)) if case else 0
            units = random.integers(-60, 61, 3) if case else np.zeros(3, int)
            module, states = Formula(formula, start, k, units), []
            solution = levenberg_marquardt(
                lambda m: m(),
                module,
                x_scale="jac",
                max_cycles=60,
                monitor=lambda entry, u, states=states, m=module: states.append(u / m.units),
                **options,
            )
            values = [math.ldexp(value, -2 * k) for value in solution.values]
            told[case] = solution.reason, values, torch.stack(states), solution.work
        for case in range(1, 4):
            assert told[case][0] is told[0][0]
            assert told[case][1] == pytest.approx(told[0][1], rel=1e-12, abs=1e-28)
            assert told[case][3] == told[0][3]
            torch.testing.assert_close(told[case][2], told[0][2], rtol=1e-12, atol=1e-14)


def tanh_network():
    return torch.nn.Sequential(
        torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
    ).double()


def cycles_to(make, factor, goal):
    torch.manual_seed(0)
    module, y = make(), factor * torch.sin(3.0 * X)

    def near(entry, u):
        return (2.0 * entry.value) ** 0.5 <= goal * float(y.norm())

    return levenberg_marquardt(lambda m: m(X) - y, module, monitor=near).cycles


@pytest.mark.parametrize("make", [lambda: KAN([1, 3, 1]), tanh_network], ids=["KAN", "tanh"])
@pytest.mark.parametrize("goal", [1e-2, 1e-3])
def test_far_targets_need_no_more_cycles(make, goal):
    usual = cycles_to(make, 1.0, goal)
    for factor in (1e6, 1e9):
        assert cycles_to(make, factor, goal) <= 1.3 * usual + 5
