"""Depth hierarchies nest, keep the laws, and their cycles never raise the loss."""

import numpy as np
import pytest
import torch

from mgnet import cascade, parse, run
from mgnet.depth.hierarchy import depth_hierarchy
from mgnet.depth.network.ode_net import ODENet
from mgnet.depth.network.spline_weights import DepthSpline
from mgnet.training import LBFGS, LeastSquares, LevenbergMarquardt, Objective, TorchOptimizer, train

ADAM = TorchOptimizer(torch.optim.Adam, {"lr": 1e-2})


def data():
    x = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64).unsqueeze(1)
    return x, torch.sin(3.0 * x)


def net_of(layers=2, **options):
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh())
    ends = {"before": torch.nn.Linear(1, 3), "after": torch.nn.Linear(3, 1)}
    return ODENet(block, layers, 2.0, **ends, **options).double()


def least_squares(net):
    return LeastSquares(net, data())


def penalised(net):
    """With a penalty that copies do not change: no sum of squares known to be one."""
    x, y = data()
    return Objective.from_torch(
        net, lambda net: (net(x) - y).pow(4).mean() + net.regularization(1e-2)
    )


@pytest.mark.parametrize("form", ["subspace", "injected"])
@pytest.mark.parametrize("objective", [least_squares, penalised])
@pytest.mark.parametrize(
    ("options", "how"),
    [
        ({"learnable_steps": True}, "steps"),
        ({}, "linear"),
        ({"weights": DepthSpline(4, 2)}, "knots"),
    ],
)
def test_all_laws_hold(form, objective, options, how):
    if objective is penalised and how == "knots":
        objective = least_squares  # the penalty is one of the layers' weights, exact too
    net = net_of(**options)
    hierarchy = depth_hierarchy(net, objective(net), 3, ADAM, how=how, form=form)
    told = hierarchy.check(hierarchy[0].operator.start())
    assert told.count("gradient of the objective") == 3
    assert told.count("undoes prolong") == 2
    assert told.count("recentering") == (2 if form == "subspace" else 0)
    assert told.count("nesting") == (2 if form == "injected" and how != "linear" else 0)
    depths = [2, 2, 2] if how == "knots" else [8, 4, 2]
    assert [level.cost for level in hierarchy] == depths
    u = hierarchy[0].operator.start()
    network = hierarchy.network(0, u)
    assert network.depth == depths[0]
    x = data()[0]
    torch.testing.assert_close(
        hierarchy[0].operator.with_network(network).value(u), objective(network).value(u)
    )
    assert network(x).shape == (40, 1)


@pytest.mark.parametrize("smoother", [ADAM, LBFGS(), LevenbergMarquardt()])
def test_a_cascade_by_gates_has_no_jump(smoother):
    net = net_of(learnable_steps=True)
    hierarchy = depth_hierarchy(net, least_squares(net), 4, smoother)
    values = []

    def record(step, data):
        if step.action in ("solve", "interpolate", "post"):
            values.append((step.action, data.level.operator.value(data.state)))

    run(cascade([20, 5, 5, 5]), hierarchy, hierarchy[0].operator.start(), None, record=record)
    pairs = zip(values[:-1], values[1:], strict=True)
    jumps = [b - a for (_, a), (action, b) in pairs if action == "interpolate"]
    assert len(jumps) == 3 and max(map(abs, jumps)) <= 1e-15
    assert values[-1][1] < values[0][1]


@pytest.mark.parametrize("form", ["subspace", "injected"])
@pytest.mark.parametrize("smoother", [LBFGS(), LevenbergMarquardt()])
def test_guarded_cycles_never_raise_the_loss(form, smoother):
    net = net_of(learnable_steps=True)
    hierarchy = depth_hierarchy(net, least_squares(net), 3, smoother, form=form)
    u = hierarchy[0].operator.start()
    value = hierarchy[0].operator.value
    memory = None
    for _ in range(4):
        before = value(u)
        u, memory = run(parse("V(2,2)", 3), hierarchy, u, None, memory=memory)
        assert value(u) <= before


def test_nested_schedules_and_automatic_refinement():
    net = net_of(learnable_steps=True)
    hierarchy = depth_hierarchy(net, least_squares(net), 3, LBFGS())
    u = hierarchy[0].operator.start()
    first = hierarchy[0].operator.value(u)
    v, _ = run(parse("nested V(2,2)", 3), hierarchy, u, None)
    assert hierarchy[0].operator.value(v) < 0.5 * first
    solution = train(hierarchy, u, max_cycles=10)
    assert hierarchy[0].operator.value(solution.value) < 0.1 * first


def test_batches_bind_to_all_levels():
    net = net_of(learnable_steps=True)
    hierarchy = depth_hierarchy(net, Objective(net, torch.nn.functional.mse_loss, data()), 2, ADAM)
    x, y = data()
    bound = hierarchy.with_data((x[:5], y[:5]))
    assert all(len(level.operator.data[0]) == 5 for level in bound)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"levels": 0}, "0 levels; it needs at least 1"),
        ({"form": "fas"}, "must be 'subspace' or 'injected'"),
        ({"how": "knots"}, "refinement of knots"),
    ],
)
def test_wrong_arguments(options, sentence):
    net = net_of()
    options = {"levels": 2} | options
    levels = options.pop("levels")
    with pytest.raises(ValueError, match=sentence):
        depth_hierarchy(net, least_squares(net), levels, ADAM, **options)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("how", ["steps", "constant", "linear"])
def test_frozen_parameters_stay_exactly_and_the_others_train(how, seed):
    draw, x = np.random.default_rng(seed), torch.linspace(-1, 1, 30).double().unsqueeze(1)
    torch.manual_seed(seed)
    block = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh())
    ends = torch.nn.Linear(1, 3), torch.nn.Linear(3, 1)
    net = ODENet(block, 2, learnable_steps=True, before=ends[0], after=ends[1]).double()
    names = [name for name, _ in net.named_parameters()]
    count = int(draw.integers(1, len(names)))
    frozen = [names[k] for k in draw.choice(len(names), count, replace=False)]
    for name in frozen:
        net.get_parameter(name).requires_grad_(False)
    smoother = (LevenbergMarquardt(), LBFGS())[seed % 2]
    hierarchy = depth_hierarchy(net, LeastSquares(net, (x, x**2)), 2, smoother, how=how)
    u, _ = run(cascade([3, 3]), hierarchy, hierarchy[0].operator.start(), None)
    found, fine = hierarchy.network(0, u), net.refine(2, how)
    for name, p in fine.named_parameters():
        assert torch.equal(found.get_parameter(name), p) == (name in frozen), name
