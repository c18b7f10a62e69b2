"""Box initialization: bends cut the box, values stay in it, no depth makes the basis collapse."""

import pytest
import torch

from mgnet.training import Residual, box_init_

WIDTH = 24


def network(kind, depth, inputs=2, act=torch.nn.ReLU):
    layers = [torch.nn.Linear(inputs, WIDTH), act()]
    for _ in range(depth - 1):
        layer = [torch.nn.Linear(WIDTH, WIDTH), act()]
        layers += layer if kind == "plain" else [Residual(torch.nn.Sequential(*layer))]
    return torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, 1)).double()


def draw(inputs, box, seed=1, samples=1000):
    low, high = (torch.as_tensor(side, dtype=torch.float64).expand(inputs) for side in box)
    uniform = torch.rand(samples, inputs, generator=torch.Generator().manual_seed(seed)).double()
    return low + (high - low) * uniform


def corners(inputs, box):
    low, high = (torch.as_tensor(side, dtype=torch.float64).expand(inputs) for side in box)
    return torch.cartesian_prod(*torch.stack([low, high], 1)).reshape(-1, inputs)


def rank(features):
    """With the constant, as the last layer has it."""
    size = torch.linalg.svdvals(torch.cat([features, torch.ones(len(features), 1)], 1))
    return int((size > 1e-8 * size[0]).sum())


@pytest.mark.parametrize("act", [torch.nn.ReLU, torch.nn.Tanh])
@pytest.mark.parametrize(
    ("inputs", "box"),
    [(1, (0.0, 1.0)), (3, (-2.0, 5.0)), (2, (torch.tensor([-1.0, 90.0]), [1.0, 100.0]))],
)
def test_hyperplanes_of_the_first_layer_cut_the_box(inputs, box, act):
    net = box_init_(network("plain", 1, inputs, act), box)
    arguments = list(net)[0](corners(inputs, box)).detach()
    lowest, highest = arguments.min(0).values, arguments.max(0).values
    assert bool((lowest < 0.0).all() and (highest > 0.0).all())
    # and each neuron uses its range: largest value 1, or largest argument 2
    largest = highest if act is torch.nn.ReLU else torch.maximum(highest, -lowest)
    assert bool((largest <= (1.0 if act is torch.nn.ReLU else 2.0) + 1e-12).all())
    assert float(largest.median()) > 0.99


@pytest.mark.parametrize("kind", ["plain", "residual"])
@pytest.mark.parametrize("act", [torch.nn.ReLU, torch.nn.Tanh])
@pytest.mark.parametrize("depth", [2, 12, 60])
def test_bends_cut_the_images_and_values_stay_in_the_box(kind, act, depth):
    box = (-1.0, 3.0)
    net = box_init_(network(kind, depth, act=act), box)
    x, bent = draw(2, box), []
    with torch.no_grad():
        for module in list(net)[:-1]:
            linear = next(module.inner.children()) if isinstance(module, Residual) else module
            if isinstance(linear, torch.nn.Linear):
                arguments = linear(x)
                cut = (arguments.min(0).values < 0.0) & (arguments.max(0).values > 0.0)
                bent.append(float(cut.double().mean()))
            x = module(x)
    assert min(bent) > 0.9 and sum(bent) / len(bent) > 0.98  # of the neurons, on fresh points
    bound = 1.5 if kind == "plain" else 2.8  # e, or some overshoot of the 512 points
    assert float(x.abs().max()) < bound


@pytest.mark.parametrize("kind", ["plain", "residual"])
@pytest.mark.parametrize("act", [torch.nn.ReLU, torch.nn.Tanh])
def test_rank_does_not_depend_on_the_depth_and_spread_hardly(kind, act):
    x, spread = draw(2, (0.0, 1.0)), []
    for depth in (5, 60):
        net = box_init_(network(kind, depth, act=act), (0.0, 1.0))
        features = net[:-1](x).detach()
        assert rank(features) == WIDTH + 1
        spread.append(float(features.std(0).mean()))
    assert 0.05 < spread[1] / spread[0] < 2.5  # the default: 1e-16


@pytest.mark.parametrize("act", [torch.nn.ReLU, torch.nn.Tanh])
def test_default_initialization_does_collapse(act):
    torch.manual_seed(0)
    features = network("plain", 60, act=act)[:-1](draw(2, (0.0, 1.0))).detach()
    assert rank(features) == 1


@pytest.mark.parametrize("step", [1.0, 1.0 / 30.0])
@pytest.mark.parametrize("last", [torch.nn.ReLU(), torch.nn.Tanh(), None])
def test_blocks_of_any_step_widen_their_box_by_their_share(step, last):
    blocks = 30
    parts = []
    for _ in range(blocks):
        inner = [torch.nn.Linear(4, 9), torch.nn.ReLU(), torch.nn.Linear(9, 4)]
        parts.append(Residual(torch.nn.Sequential(*inner, *([last] if last else [])), step))
    net = torch.nn.Sequential(*parts, torch.nn.Linear(4, 1)).double()
    box_init_(net, (-1.0, 1.0))
    x = draw(4, (-1.0, 1.0), samples=500)
    values = net[: len(parts)](x).detach()
    assert bool((values.abs() < 1.0 + (0.1 + torch.e - 1.0) * (2.0 if last else 1.0)).all())
    assert float((values - x).abs().max()) > 0.1


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("step", [1.0, 0.7])
@pytest.mark.parametrize("last", [torch.nn.ReLU(), torch.nn.Tanh(), None])
def test_the_first_block_widens_the_box_by_its_share_exactly(last, step, blocks):
    """By 1 / blocks of the width: upwards by a ReLU, by halves to both sides by others."""
    box = (torch.tensor([-1.0, 90.0]), torch.tensor([-0.5, 90.8]))
    inner = [torch.nn.Linear(2, 2), *([last] if last else [])]
    parts = [Residual(torch.nn.Sequential(*inner), step)]
    parts += [Residual(torch.nn.Linear(2, 2), step) for _ in range(blocks - 1)]
    net = torch.nn.Sequential(*parts, torch.nn.Linear(2, 1)).double()
    box_init_(net, box)
    x = corners(2, box)
    added = (parts[0](x) - x).detach()
    share = (box[1] - box[0]).double() / blocks
    if isinstance(last, torch.nn.ReLU):
        assert float(added.min()) == 0.0
        torch.testing.assert_close(added.max(0).values, share)
    else:
        torch.testing.assert_close(added.abs().max(0).values, 0.5 * share)


def test_the_generator_decides_and_the_last_layer_stays():
    nets = [network("plain", 3) for _ in range(3)]
    before = nets[0][-1].weight.clone()
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        assert box_init_(net, (0.0, 1.0), torch.Generator().manual_seed(seed)) is net
    assert torch.equal(nets[0][2].weight, nets[1][2].weight)
    assert not torch.equal(nets[0][2].weight, nets[2][2].weight)
    assert torch.equal(nets[0][-1].weight, before)
    single = box_init_(network("plain", 3).float(), (0.0, 1.0))
    torch.testing.assert_close(single[2].weight, nets[0][2].weight.float())
    linear = torch.nn.Sequential(torch.nn.Linear(2, 1))
    assert box_init_(linear, (0.0, 1.0)) is linear


@pytest.mark.parametrize(
    ("net", "box", "message"),
    [
        (torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.GELU()), (0, 1), "got GELU"),
        (torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False)), (0, 1), "Linear with bias"),
        (torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(1, 2)), (0, 1), "without a Linear"),
        (network("plain", 2), (1.0, 1.0), "low side must be below"),
        (torch.nn.Sequential(Residual(Residual(torch.nn.Linear(1, 1)))), (0, 1), "in a row"),
    ],
)
def test_refusals(net, box, message):
    with pytest.raises(ValueError, match=message):
        box_init_(net, box)


def test_a_block_needs_a_positive_step():
    with pytest.raises(ValueError, match="must be positive"):
        Residual(torch.nn.Identity(), 0.0)
