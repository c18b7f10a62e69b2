"""Budgets are kept, both sides of a trial meet the same batches, and evidence decides."""

import math

import pytest
import torch

from mgnet.depth import DepthSpline, LayerParallel, ODENet, train_in_depth
from mgnet.depth.nested_training import warm_up_and_decay

X = torch.linspace(-1.0, 1.0, 64, dtype=torch.float64).unsqueeze(1)


def made(layers=2, width=4):
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.Tanh())
    ends = {"before": torch.nn.Linear(1, width), "after": torch.nn.Linear(width, 1)}
    return ODENet(block, layers, 2.0, learnable_steps=True, **ends).double()


def loss(module, batch):
    return (module(batch) - torch.sin(4.0 * batch)).square().mean()


def adam(net):
    return torch.optim.AdamW(net.parameters(), lr=1e-2)


def held_out(module):
    assert not module.training and not torch.is_grad_enabled()
    return float(loss(module, X))


def run(net=None, **options):
    given = {"batches": X.split(16), "optimizer": adam, "validate": held_out, "loss": loss}
    given |= {"depth": 8, "work": 40, **options}
    return train_in_depth(made() if net is None else net, **given)


def test_without_trials_every_depth_has_an_equal_part():
    told = run(trial=None)
    assert [each.layers for each in told.stages] == [2, 4, 8]
    assert told.net.depth == 8 and told.net.training
    for each in told.stages:
        assert each.work == pytest.approx(40 / 3, abs=1.0)
        assert each.steps == pytest.approx(each.work * 8 / each.layers)
    assert told.stages[-1].held_out < told.stages[0].held_out < 0.5
    moments = told.optimizer.state[told.net.block[0].weight]["exp_avg"]
    assert moments.shape[0] == 8
    assert told.optimizer.param_groups[0]["lr"] < 1e-2 * 0.1
    assert "as deep as was asked for" in told.explain()


def test_a_refinement_changes_no_output_and_a_trial_gives_both_the_same_batches():
    met = {}

    def watched(module, batch):
        met.setdefault(module.depth, []).append(float(batch[0]))
        return loss(module, batch)

    generator = torch.Generator().manual_seed(0)

    class Shuffled:
        def __iter__(self):
            return iter(X[torch.randperm(64, generator=generator)].split(16))

    # Steps of no length: the refined net has the loss of the shallow one.
    told = run(loss=watched, batches=Shuffled(), depth=4, schedule=lambda part: 0.0)
    shallow, deep = told.stages[1:3]
    assert (shallow.layers, deep.layers) == (2, 4)
    assert deep.held_out == pytest.approx(shallow.held_out, rel=1e-12)
    assert deep.kept and not shallow.kept  # a draw is for more layers
    before, count = told.stages[0].steps, deep.steps
    assert met[4][:count] == met[2][before : before + count]
    # Afterwards batches go on where the longer side of the trial ended, none twice.
    assert met[4][count : count + 3] == met[2][before + count : before + count + 3]


def test_more_layers_are_taken_where_they_pay_and_not_where_they_do_not():
    def stuck(module, batch):  # whatever is trained, few layers are told that they are bad
        return loss(module, batch)

    deep = run(loss=stuck, validate=lambda module: 1.0 / module.depth)
    assert deep.net.depth == 8 and len(deep.decisions) == 3
    flat = run(loss=stuck, validate=lambda module: float(module.depth))
    assert flat.net.depth == 2
    assert [each.kept for each in flat.stages] == [True, True, False, True, True, False, True]
    assert sum(each.work for each in flat.stages) == pytest.approx(40, abs=2.0)
    assert "2 layers of the 8 that were asked for" in flat.explain()
    assert "(dropped)" in flat.explain()


def test_seconds_groups_clips_and_modules_around():
    net = made()
    groups = [{"params": list(net.block.parameters()), "lr": 1e-3}]
    groups += [{"params": [net.learnable_steps, *net.after.parameters()]}]
    made_modules = []

    def wrap(net):
        made_modules.append(LayerParallel(net, levels=2, coarsening=2))
        return made_modules[-1]

    told = run(
        net,
        optimizer=lambda net: torch.optim.SGD(groups, lr=1e-2, momentum=0.9),
        seconds=0.5,
        work=math.inf,
        clip=1e-3,
        wrap=wrap,
        schedule=lambda part: 2.0,
        trial=None,
    )
    assert told.net.depth == 8 and made_modules[-1].net is told.net
    assert [g["lr"] for g in told.optimizer.param_groups] == [2e-3, 2e-2]
    assert sum(each.seconds for each in told.stages) < 20.0


def test_what_is_not_finite_is_named():
    with pytest.raises(FloatingPointError, match="the loss nan in step 3 with 2 layers"):
        count = iter([1.0, 1.0, math.nan])
        run(loss=lambda module, batch: module(batch).sum() * next(count, 1.0))
    with pytest.raises(FloatingPointError, match="held-out value nan with 2 layers"):
        run(validate=lambda module: math.nan)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"net": torch.nn.Linear(1, 1)}, TypeError, "got a Linear; give an ODENet"),
        ({"depth": 6}, ValueError, "depth 6 for a net of 2 layers; give 2 times a power of 2"),
        ({"depth": 1}, ValueError, "depth 1 for a net"),
        ({"work": math.inf}, ValueError, "give a positive budget"),
        ({"work": 0}, ValueError, "give a positive budget"),
        ({"work": math.nan}, ValueError, "give a positive budget"),
        ({"trial": 0.7}, ValueError, "trial 0.7; give a part of up to 0.5"),
        ({"trial": 0.0}, ValueError, "trial 0.0"),
        ({"how": "knots"}, ValueError, "knots"),
        ({"factor": 1}, ValueError, "factor 1"),
        ({"optimizer": lambda net: None}, TypeError, "an optimizer of type NoneType"),
        ({"optimizer": adam(made())}, TypeError, "AdamW; give a function net -> optimizer"),
        ({"optimizer": lambda net: adam(made())}, ValueError, "without any parameter of the net"),
        ({"optimizer": lambda n: torch.optim.LBFGS(n.parameters())}, TypeError, "got LBFGS, which"),
        ({"schedule": lambda part: -1.0}, ValueError, r"factor -1.0 from schedule\(0\)"),
        ({"schedule": lambda part: math.nan}, ValueError, "factor nan from schedule"),
        ({"schedule": lambda part: None}, ValueError, "factor None from schedule"),
        ({"clip": -1.0}, ValueError, "clip -1.0"),
        ({"clip": "1"}, ValueError, "clip '1'"),
        ({"loss": lambda module, batch: 1.0}, TypeError, "a loss of type float"),
        ({"loss": lambda module, batch: module(batch)}, TypeError, r"a loss of shape \(16, 1\);"),
        ({"loss": lambda module, batch: torch.ones(())}, TypeError, "without a gradient"),
        ({"validate": lambda module: None}, TypeError, "got NoneType from validate"),
        ({"validate": lambda module: "0.3"}, TypeError, "got str from validate"),
        ({"wrap": lambda net: None}, TypeError, "got NoneType from wrap; give a module"),
        ({"batches": []}, ValueError, "batches that are empty"),
        ({"batches": iter(X.split(16))}, ValueError, "batches that ended"),
    ],
)
def test_refusals(options, error, message):
    with pytest.raises(error, match=message):
        run(**options)


def test_both_sides_of_a_trial_have_the_same_learning_rates():
    parts = {2: [], 4: []}

    def watched(module, batch):
        parts[module.depth].append(asked[-1])
        return loss(module, batch)

    asked = []
    told = run(loss=watched, depth=4, schedule=lambda part: asked.append(part) or 1.0)
    before, deep = told.stages[0].steps, told.stages[2].steps
    begun = parts[2][before]
    assert parts[4][0] == pytest.approx(begun) and deep > 1
    # A step of the deep net takes twice as long, so it meets every second rate.
    assert parts[4][:deep] == pytest.approx(parts[2][before : before + 2 * deep : 2])
    assert max(asked) <= 1.0 and begun > 0.0


@pytest.mark.parametrize("trial", [0.25, None])
def test_a_budget_that_is_used_up_is_not_overdrawn(trial):
    asked = []
    told = run(work=0.1, trial=trial, schedule=lambda part: asked.append(part) or 1.0 - part)
    assert asked == [0.0] and sum(each.steps for each in told.stages) == 1
    assert told.net.depth == (8 if trial is None else 2)
    if trial:
        assert told.decisions == [
            "2 layers of the 8 that were asked for: the budget was used up before the next trial"
        ]


@pytest.mark.parametrize("weights", ["shared", DepthSpline(3, 1)])
def test_weights_that_refinement_leaves_as_they_are(weights):
    torch.manual_seed(0)
    net = ODENet(torch.nn.Linear(1, 1), 2, weights=weights).double()
    told = run(net, work=8, trial=None)
    assert told.net.depth == 8
    assert torch.isfinite(told.optimizer.state[told.net.block.weight]["exp_avg"]).all()


def test_the_factor_of_the_rate_is_continuous():
    values = [warm_up_and_decay(k / 1000) for k in range(1001)]
    assert values[0] == values[-1] == 0.0 and max(values) == 1.0
    assert max(abs(b - a) for a, b in zip(values, values[1:], strict=False)) < 0.04
    assert warm_up_and_decay(1.0, least=0.1) == 0.1
