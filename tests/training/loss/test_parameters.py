"""A module's trainable parameters as a vector: swapped for an evaluation, written once."""

import pytest
import torch

from mgnet import Hierarchy, Level, cascade, cycle, run
from mgnet.depth import ODENet, depth_hierarchy
from mgnet.knots import KAN, FreeKnotKAN, knot_hierarchy
from mgnet.training import (
    LBFGS,
    AdaptiveBasis,
    Ansatz,
    Broyden,
    LastLayer,
    LeastSquares,
    LevenbergMarquardt,
    NewtonKrylov,
    TorchOptimizer,
    levenberg_marquardt,
    solve_last_layer_,
)
from mgnet.training.loss.parameters import FlatParameters


def module():
    made = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    made[2].weight = made[1].weight  # tied
    made[0].bias.requires_grad_(False)
    return made


def test_tied_parameters_count_once_and_frozen_ones_not():
    flat = FlatParameters(module())
    assert list(flat.trainable) == ["0.weight", "1.weight", "1.bias", "2.bias"]
    assert len(flat.start()) == 6 + 9 + 3 + 3
    assert not flat.all_trainable
    assert FlatParameters(torch.nn.Linear(1, 1)).all_trainable


def test_an_evaluation_sees_the_vector_and_leaves_the_module():
    own = module()
    before = [p.detach().clone() for p in own.parameters()]
    flat = FlatParameters(own)
    u = flat.start().double() + 1.0  # more digits than the module has
    x = torch.ones(4, 2)
    seen = flat.evaluate(lambda given: (given is own, given(x), own[2].weight), u)
    assert seen[0]
    assert seen[1].dtype == torch.float32
    torch.testing.assert_close(seen[2], before[2] + 1.0)
    assert all(map(torch.equal, own.parameters(), before))
    flat.write(u)
    torch.testing.assert_close(own(x), seen[1])
    assert own[2].weight is own[1].weight


def test_refusals():
    with pytest.raises(ValueError, match="Tanh has no parameter that requires a gradient"):
        FlatParameters(torch.nn.Tanh())
    with pytest.raises(TypeError, match="Linear has the complex parameter weight"):
        FlatParameters(torch.nn.Linear(1, 1, dtype=torch.complex64))


HALF = [torch.bfloat16, torch.float16]
X = torch.linspace(-1, 1, 50).unsqueeze(1)
SMOOTHERS = [
    LevenbergMarquardt(),
    LevenbergMarquardt(linear_solver=NewtonKrylov(direct=0)),
    LBFGS(),
    Broyden(),
    TorchOptimizer(torch.optim.Adam, {"lr": 0.01}),
    LastLayer(),
    AdaptiveBasis(LevenbergMarquardt()),
    AdaptiveBasis(TorchOptimizer(torch.optim.SGD, {"lr": 0.1})),
]


def network(dtype, seed=0):
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(1, 6), torch.nn.BatchNorm1d(6), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(6, 1)).to(dtype).eval()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("smoother", SMOOTHERS, ids=str)
def test_half_precision_is_trained_in_single_precision(dtype, smoother):
    """The same bits as a float32 module of the same numbers, at the same data."""
    x, y = X.to(dtype), torch.sin(3 * X).to(dtype)
    found = []
    for net, data in ((network(dtype), (x, y)), (network(dtype).float(), (x.float(), y.float()))):
        problem = LeastSquares(net, data)
        level = Level(problem, smoother, objective=problem.value)
        u, _ = run(cascade([10]), Hierarchy([level]), problem.start(), None)
        assert problem.value(u) < 0.9 * problem.value(problem.start())
        found.append(u)
    assert torch.equal(*found)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("seed", range(4))
def test_a_module_of_half_precision_is_rounded_at_the_end(dtype, seed):
    """However the residual is written: with inputs of either precision, asking for it, by parts."""
    y = torch.sin(3 * X)
    ways = [
        lambda net: net(X) - y,
        lambda net: net(X.to(next(net.parameters()).dtype)) - y,
        lambda net: net[3:](net[:3](X)) - y,
        lambda net: torch.nn.functional.linear(net[:3](X), net[3].weight, net[3].bias) - y,
    ]
    for residual in ways:
        expected = network(dtype, seed).float()
        told = levenberg_marquardt(residual, expected, max_cycles=15)
        net = network(dtype, seed)
        solution = levenberg_marquardt(residual, net, max_cycles=15)
        assert solution.values == told.values
        assert all(p.dtype == dtype for p in net.parameters())
        for p, q in zip(net.parameters(), expected.parameters(), strict=True):
            assert torch.equal(p, q.to(dtype))
    rounded = network(dtype, seed)
    solution = levenberg_marquardt(lambda net: net(X.to(dtype)) - y, rounded, max_cycles=15)
    assert solution.values[-1] < 1e-2 * solution.values[0]
    outside = network(dtype, seed)
    with pytest.raises(ValueError, match="it must call the module that it is given"):
        levenberg_marquardt(lambda _: outside(X.to(dtype)) - y, outside)


def test_what_half_precision_cannot_hold_is_refused():
    module = torch.nn.Linear(1, 1, dtype=torch.float16)
    before = module.weight.clone()
    with pytest.raises(OverflowError, match=r"'weight' became 1e\+06, too large for torch.float16"):
        levenberg_marquardt(lambda m: m(X) - 1e6 * X, module)
    assert torch.equal(module.weight, before)
    module = torch.nn.Linear(1, 1, dtype=torch.bfloat16)
    levenberg_marquardt(lambda m: m(X) - 1e6 * X, module)
    assert float(module.weight.detach()) == pytest.approx(1e6, rel=4e-3)


@pytest.mark.parametrize("dtype", HALF)
def test_last_layers_of_half_precision(dtype):
    net = network(dtype)
    solve_last_layer_(net, [(X.to(dtype), torch.sin(3 * X).to(dtype))])
    error = net(X.to(dtype)).float() - torch.sin(3 * X)
    assert float(error.detach().square().mean()) < 0.2
    assert all(p.dtype == dtype for p in net.parameters())


@pytest.mark.parametrize("dtype", [*HALF, torch.float32])
def test_the_module_may_change_after_the_objective_was_made(dtype):
    """Its mode, and what is not trained."""
    parts = torch.nn.Linear(1, 6), torch.nn.Tanh(), torch.nn.Dropout(0.5), torch.nn.Linear(6, 1)
    net = torch.nn.Sequential(*parts).to(dtype)
    net[0].requires_grad_(False)
    problem = LeastSquares(net, (X.to(dtype), torch.sin(3 * X).to(dtype)))
    u = problem.start()
    net.eval()
    assert problem.value(u) == problem.value(u)  # nothing is drawn
    with torch.no_grad():
        net[0].weight += 1.0
    assert problem.value(u) == LeastSquares(net, problem.data).value(u)


@pytest.mark.parametrize("dtype", HALF)
def test_statistics_of_a_normalization_are_kept(dtype):
    net, single = network(dtype).train(), network(dtype).float().train()
    for each in (net, single):
        levenberg_marquardt(lambda m: m(X) - torch.sin(3 * X), each, max_cycles=3)
    for own, other in zip(net.buffers(), single.buffers(), strict=True):
        assert torch.equal(own, other.to(own.dtype))
    assert int(net[1].num_batches_tracked) > 0


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("kind", [KAN, FreeKnotKAN])
def test_splines_of_half_precision(kind, dtype):
    """Alone, and in a module; by their own Jacobians where those hold."""
    for wrap in (lambda kan: kan, torch.nn.Sequential, Ansatz):
        net = wrap(kind([1, 3, 1], 3, dtype=torch.float32).to(dtype))
        single = wrap(kind([1, 3, 1], 3, dtype=torch.float32).to(dtype).float())
        told = levenberg_marquardt(lambda m: m(X) - torch.sin(3 * X), single, max_cycles=6)
        found = levenberg_marquardt(lambda m: m(X) - torch.sin(3 * X), net, max_cycles=6)
        assert found.values == told.values and found.values[-1] < 0.1 * found.values[0]


@pytest.mark.parametrize("dtype", HALF)
def test_levels_of_half_precision(dtype):
    x, y = X.to(dtype), torch.sin(3 * X).to(dtype)
    kan = KAN([1, 3, 1], 3, dtype=torch.float32).to(dtype)
    block = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh())
    ends = torch.nn.Linear(1, 3), torch.nn.Linear(3, 1)
    net = ODENet(block, 2, learnable_steps=True, before=ends[0], after=ends[1]).to(dtype)
    for make, template in ((knot_hierarchy, kan), (depth_hierarchy, net)):
        levels = make(template, LeastSquares(template, (x, y)), 2, LevenbergMarquardt())
        start = levels[0].operator.start()
        for schedule in (cascade([10, 5]), cycle(2)):
            u, _ = run(schedule, levels, start, None)
            assert u.dtype == torch.float32
            assert levels[0].operator.value(u) < 0.5 * levels[0].operator.value(start)
        assert all(p.dtype == dtype for p in levels.network(0, u).parameters())
