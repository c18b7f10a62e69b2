"""Law: as a smoother it takes the steps of a training loop, and levels keep their memory."""

import pytest
import torch

from mgnet import Jacobi, Level, cascade, run
from mgnet.checkpoint import Checkpoint, Checkpoints
from mgnet.depth import ODENet, depth_hierarchy
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import (
    LeastSquares,
    MultilevelGradient,
    MultilevelOptimizer,
    Objective,
    TorchOptimizer,
)

X = torch.linspace(-1.0, 1.0, 60, dtype=torch.float64).unsqueeze(1)
ADAM = torch.optim.Adam, {"lr": 1e-2}


def problem(kan):
    return LeastSquares(kan, (X, torch.sin(9 * X)))


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_steps_are_those_of_a_training_loop(levels, frozen):
    kan = KAN([1, 2, 1], 16, linear=True)
    kan.linear.bias.requires_grad_(not frozen)
    smoother = MultilevelOptimizer(*ADAM, levels=levels)
    one = Level(problem(kan), smoother)
    u, memory = one.operator.start(), None
    for sweeps in (1, 3, 2):  # the state survives between visits
        u, memory = smoother.smooth(one, u, None, sweeps, memory)
    optimizer = MultilevelGradient(ADAM[0], kan, ADAM[1], levels=levels)
    for _ in range(6):
        optimizer.zero_grad()
        (0.5 * (kan(X) - torch.sin(9 * X)).square().mean()).backward()
        optimizer.step()
    expected = torch.nn.utils.parameters_to_vector(p for p in kan.parameters() if p.requires_grad)
    torch.testing.assert_close(u, expected.detach(), rtol=0, atol=1e-12)
    assert one.tally[0] == 6


def test_a_right_hand_side_is_subtracted_from_the_gradient():
    smoother = MultilevelOptimizer(torch.optim.SGD, {"lr": 0.5}, levels=1)
    one = Level(problem(KAN([1, 2, 1], 8)), smoother)
    u = one.operator.start()
    after, _ = smoother.smooth(one, u, torch.ones_like(u), 1, None)
    torch.testing.assert_close(after, u - 0.5 * (one.operator(u) - 1.0))


@pytest.mark.parametrize("factor", [2, 3])
def test_a_cascade_over_knots_keeps_the_memory_of_former_levels(factor):
    kan = KAN([1, 3, 1], 4)
    hierarchy = knot_hierarchy(kan, problem(kan), 3, MultilevelOptimizer(*ADAM), factor=factor)
    u = hierarchy[0].operator.start()
    begun = hierarchy[2].operator.value(hierarchy[2].operator.start())
    u, memory = run(cascade([30] * 3), hierarchy, u, None)
    state, transfers = memory[0, "pre"].state, memory[0, "pre"].transfers
    assert [len(chain) for chain in transfers] == [2, 2]
    sizes = [7, 4 * factor + 3, 4 * factor**2 + 3]
    assert len(state["state"][0]["exp_avg"]) == sum(sizes)
    assert float(state["state"][0]["step"]) == 90.0
    assert hierarchy[0].operator.value(u) < 0.1 * begun
    one = knot_hierarchy(kan, problem(kan), 3, MultilevelOptimizer(*ADAM, levels=1), factor=factor)
    plain = knot_hierarchy(kan, problem(kan), 3, TorchOptimizer(*ADAM), factor=factor)
    ends = [run(cascade([5] * 3), h, h[0].operator.start(), None)[0] for h in (one, plain)]
    torch.testing.assert_close(*ends, rtol=0, atol=1e-10)


def test_a_cascade_over_layers():
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh())
    net = ODENet(
        block, 4, before=torch.nn.Linear(1, 3), after=torch.nn.Linear(3, 1), learnable_steps=True
    ).double()
    loss = Objective(net, torch.nn.functional.mse_loss, (X, torch.sin(3 * X)))
    hierarchy = depth_hierarchy(net, loss, 3, MultilevelOptimizer(*ADAM))
    u, memory = run(cascade([60] * 3), hierarchy, hierarchy[0].operator.start(), None)
    assert sorted({len(chain) for chain in memory[0, "pre"].transfers}) == [0, 2]
    assert hierarchy[0].operator.value(u) < 0.1 * loss.value(loss.start())


@pytest.mark.parametrize("kind", ["knots", "layers"])
@pytest.mark.parametrize("steps", [5, 8])  # the last checkpoint is on level 1, or on 0
def test_a_cascade_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, kind, steps):
    smoother = MultilevelOptimizer(*ADAM)
    if kind == "knots":
        kan = KAN([1, 2, 1], (8, 12))
        hierarchy = knot_hierarchy(kan, problem(kan), 3, smoother, most_intervals=(None, 12))
    else:
        block = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Tanh())
        net = ODENet(block, 4).double()
        hierarchy = depth_hierarchy(net, problem(net), 3, smoother)
    schedule, u = cascade([2] * 3).split(), hierarchy[0].operator.start()
    expected, _ = run(schedule, hierarchy, u, None)
    run(schedule, hierarchy, u, None, record=Checkpoints(tmp_path, hierarchy, every=steps))
    checkpoint = Checkpoint.load(tmp_path)
    assert checkpoint.progress.position == len(schedule) // steps * steps < len(schedule)
    progress = checkpoint.resume_on(schedule, hierarchy)
    got, _ = run(schedule, hierarchy, None, None, resume=progress)
    assert torch.equal(got, expected)


def test_descents_without_a_network_are_refused():
    kan = KAN([1, 2, 1], 4)
    smoother = MultilevelOptimizer(*ADAM)
    hierarchy = knot_hierarchy(kan, problem(kan), 2, smoother)
    coarse = hierarchy[0].recenter(hierarchy[0].operator.start())
    with pytest.raises(TypeError, match="no network of its own; use it in a cascade"):
        smoother.smooth(coarse, torch.zeros(coarse.size or 1).double(), None, 1, None)
    with pytest.raises(TypeError, match="no network of its own"):
        smoother.smooth(Level(lambda u: u, Jacobi(), size=1), torch.ones(1), None, 1, None)
    with pytest.raises(ValueError, match="got 0 levels"):
        MultilevelOptimizer(*ADAM, levels=0)
    with pytest.raises(TypeError, match="MultilevelOptimizer got 3"):
        MultilevelOptimizer(3)
    assert str(smoother) == "multilevel Adam(lr=0.01)"
