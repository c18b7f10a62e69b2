"""Optimizers of training loops go on with more layers as if nothing had happened."""

import copy
import math

import pytest
import torch

from mgnet.depth import DepthSpline, ODENet, parameter_groups, refine_optimizer
from mgnet.training import MultilevelGradient

X = torch.linspace(-1.0, 1.0, 40, dtype=torch.float64).unsqueeze(1)
OPTIMIZERS = [
    (torch.optim.Adam, {"lr": 1e-2, "amsgrad": True}),
    (torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 1e-3}),
    (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9}),
    (torch.optim.Adagrad, {"lr": 1e-2}),
    (torch.optim.LBFGS, {"max_iter": 5, "line_search_fn": "strong_wolfe"}),
]


def made(layers=3, **options):
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
    ends = {"before": torch.nn.Linear(1, 4), "after": torch.nn.Linear(4, 1)}
    return ODENet(block, layers, 2.0, **ends, **options).double()


def train(net, optimizer, steps):
    def closure():
        optimizer.zero_grad()
        loss = (net(X) - torch.sin(4 * X)).square().mean()
        loss.backward()
        return loss

    return [float(optimizer.step(closure).detach()) for _ in range(steps)]


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS, ids=lambda v: getattr(v, "__name__", ""))
@pytest.mark.parametrize("net", [{"learnable_steps": True, "boundary_layers": (1, 1)}, {}])
def test_training_goes_on_without_a_jump(kind, options, net):
    coarse = made(**net)
    optimizer = kind(coarse.parameters(), **options)
    train(coarse, optimizer, 12)
    with torch.no_grad():
        ended = float((coarse(X) - torch.sin(4 * X)).square().mean())
    fine = coarse.refine(3)
    carried = refine_optimizer(optimizer, coarse, fine)
    assert type(carried) is kind
    own = carried.param_groups[0]
    assert all(a is b for a, b in zip(own["params"], fine.parameters(), strict=True))
    assert {k: v for k, v in own.items() if k != "params"} == {
        k: v for k, v in optimizer.param_groups[0].items() if k != "params"
    }
    for name, p in fine.named_parameters():
        old = optimizer.state[coarse.get_parameter(name)]
        for key, value in carried.state[p].items():
            if kind is torch.optim.LBFGS or not isinstance(value, torch.Tensor):
                continue
            if not value.dim():
                assert value == old[key]
                continue
            assert value.shape == p.shape
            if name.startswith(("before", "after", "opening", "closing")):
                assert torch.equal(value, old[key])
    after = train(fine, carried, 12)
    if net:  # refinement is exact
        assert after[0] == pytest.approx(ended, rel=1e-12)
    assert min(after[6:]) < after[0]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_a_new_optimizer_would_take_another_step(kind):
    """Memory matters: the next step is not that of an optimizer without one."""
    coarse = made(learnable_steps=True)
    options = {"lr": 1e-2} | ({"momentum": 0.9} if kind is torch.optim.SGD else {})
    optimizer = kind(coarse.parameters(), **options)
    train(coarse, optimizer, 8)
    fine = coarse.refine()
    fresh = copy.deepcopy(fine)
    train(fine, refine_optimizer(optimizer, coarse, fine), 1)
    train(fresh, kind(fresh.parameters(), **options), 1)
    ends = [net.after.weight for net in (fine, fresh)]
    assert (ends[0] - ends[1]).norm() > 1e-4


@pytest.mark.parametrize("how", ["constant", "linear", "knots"])
def test_kinds_of_refinement(how):
    coarse = made(6, weights=DepthSpline(4, 2)) if how == "knots" else made(6)
    optimizer = torch.optim.Adam(coarse.parameters(), lr=1e-2)
    train(coarse, optimizer, 5)
    fine = coarse.refine(2, how)
    carried = refine_optimizer(optimizer, coarse, fine, how)
    p = fine.block[0].weight
    assert carried.state[p]["exp_avg"].shape == p.shape
    # Gradients of all rows of a refinement add up to that of the coarse row, at the least.
    sums = [each.sum(0) for each in (carried.state[p]["exp_avg"], _old(optimizer, coarse))]
    torch.testing.assert_close(*sums)


def _old(optimizer, coarse):
    return optimizer.state[coarse.block[0].weight]["exp_avg"]


def test_groups_levels_and_other_modules():
    coarse, other = made(4, learnable_steps=True), torch.nn.Linear(2, 2)
    groups = [*parameter_groups(coarse, 0.1), {"params": list(other.parameters()), "lr": 5.0}]
    optimizer = MultilevelGradient(torch.optim.Adam, coarse, {"lr": 1e-2}, groups=groups)
    train(coarse, optimizer, 4)
    fine = coarse.refine()
    carried = refine_optimizer(optimizer, coarse, fine)
    assert [g["weight_decay"] for g in carried.param_groups[:2]] == [0.1, 0.0]
    assert carried.param_groups[2]["lr"] == 5.0
    assert carried.param_groups[2]["params"][0] is other.weight
    assert train(fine, carried, 3)[-1] < 1.0


def test_refusals():
    coarse = made(4)
    optimizer, fine = torch.optim.Adam(coarse.parameters()), coarse.refine()
    with pytest.raises(TypeError, match="got \\(ODENet, Adam, ODENet\\); give the optimizer"):
        refine_optimizer(coarse, optimizer, fine)  # type: ignore[arg-type]
    for wrong in (coarse, made(6), made(8, learnable_steps=True), made(4).refine().refine(), fine):
        pair = (fine, wrong) if wrong is fine else (coarse, wrong)
        if wrong.depth == 16:
            continue
        with pytest.raises(ValueError, match=r"must be coarse\.refine\(factor, how\)"):
            refine_optimizer(optimizer, *pair)
    other = made(4)
    with pytest.raises(ValueError, match="holds no parameter of the coarse network"):
        refine_optimizer(optimizer, other, other.refine())


@pytest.mark.parametrize("weights", ["shared", DepthSpline(3, 1)])
def test_weights_that_refinement_leaves_as_they_are(weights):
    coarse = made(weights=weights)
    optimizer = torch.optim.Adam(coarse.parameters(), lr=1e-2)
    train(coarse, optimizer, 3)
    fine = coarse.refine(2)
    carried = refine_optimizer(optimizer, coarse, fine)
    for name, p in fine.named_parameters():
        old = optimizer.state[coarse.get_parameter(name)]
        assert torch.equal(carried.state[p]["exp_avg"], old["exp_avg"])
    with pytest.raises(ValueError, match="must be coarse.refine"):
        refine_optimizer(optimizer, coarse, made(layers=4, weights=weights))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("how", ["steps", "constant"])
def test_adafactor_of_a_single_layer(layers, how):
    coarse = made(layers, learnable_steps=True)
    optimizer = torch.optim.Adafactor(coarse.parameters(), lr=1e-2)
    train(coarse, optimizer, 3)
    fine = coarse.refine(2, how)
    carried = refine_optimizer(optimizer, coarse, fine, how)
    assert math.isfinite(train(fine, carried, 3)[-1])
