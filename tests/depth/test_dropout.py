import pytest
import torch
from torch import nn
from torch.func import stack_module_state

from mgnet.depth.block import Layers, StackedBlock
from mgnet.depth.dropout import Use, draw_masks, watched


def stacked(make, count=4):
    torch.manual_seed(0)
    modules = [make().double() for _ in range(count)]
    parameters, buffers = (tuple(x.values()) for x in stack_module_state(modules))
    layers = Layers(tuple(x.detach() for x in parameters), buffers, *torch.ones(2, count))
    return StackedBlock(modules[0]), layers, modules


def between():
    return nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.Linear(5, 3), nn.Dropout(0.25))


def spatial():
    return nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Dropout2d(0.5))


USES = [
    (nn.Dropout(0.3), (4, 5), (4, 5)),
    (nn.Dropout1d(0.3), (4, 5, 6), (4, 5, 1)),
    (nn.Dropout1d(0.3), (5, 6), (5, 1)),
    (nn.Dropout2d(0.3), (4, 5, 6, 6), (4, 5, 1, 1)),
    (nn.Dropout2d(0.3), (4, 5, 6), (4, 5, 1)),
    (nn.Dropout3d(0.3), (4, 5, 2, 2, 2), (4, 5, 1, 1, 1)),
    (nn.Dropout3d(0.3), (5, 2, 2, 2), (5, 1, 1, 1)),
    (nn.AlphaDropout(0.3), (4, 5), (4, 5)),
    (nn.FeatureAlphaDropout(0.3), (4, 5, 6), (4, 5, 1)),
]


@pytest.mark.filterwarnings("ignore:dropout2d")
@pytest.mark.parametrize(("module", "shape", "expected"), USES)
def test_masks_are_what_pytorch_draws(module, shape, expected):
    """Given PyTorch's own choice of what is dropped, the results are PyTorch's."""
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    with watched(module) as uses:
        assert module(x) is x
    (use,) = uses
    assert use.shape == expected
    output = module(x)
    alpha = isinstance(module, nn.AlphaDropout | nn.FeatureAlphaDropout)
    dropped = output == module(torch.full_like(x, torch.inf)).nan_to_num() if alpha else output == 0
    if alpha:  # what is dropped has one value, the smallest there is for large x
        large = torch.manual_seed(1) and module(x.abs() + 1e3)
        dropped = large < 0
        output = torch.manual_seed(1) and module(x)
    mask = (~dropped).double() * use.scale
    axes = [k for k, n in enumerate(expected) if n == 1 and shape[k] > 1]
    mask = mask.amax(axes, keepdim=True) if axes else mask
    block = StackedBlock(module)
    layer = Layers((), (mask[None],), *torch.ones(2, 1))
    torch.testing.assert_close(block.record(layer, x[None]).value[0], output)


def test_masks_have_the_right_density():
    use = Use((100, 100), torch.float64, torch.device("cpu"), 0.7, 1 / 0.7)
    (masks,) = draw_masks([use], range(4), seed=1, call=2)
    assert masks.unique().tolist() == [0.0, 1 / 0.7]
    torch.testing.assert_close(
        masks.mean((1, 2)), torch.ones(4, dtype=torch.float64), atol=0.03, rtol=0
    )


def test_masks_are_keyed_by_seed_call_layer_and_use():
    use = Use((50,), torch.float32, torch.device("cpu"), 0.5, 2.0)
    drawn = [draw_masks([use, use], (3, 8), seed, call) for seed in (0, 1) for call in (0, 1)]
    masks = [mask for pair in drawn for masks in pair for mask in masks]
    assert len({tuple(mask.tolist()) for mask in masks}) == 16
    alone = draw_masks([use, use], (8,), 1, 1)
    assert all(torch.equal(x[1:], y) for x, y in zip(drawn[3], alone, strict=True))


@pytest.mark.parametrize("make", [between, spatial])
def test_evaluations_of_a_layer_agree_on_any_batching(make):
    block, layers, modules = stacked(make)
    states = torch.randn(4, 3, *((3,) if make is between else (2, 4, 4)), dtype=torch.float64)
    whole = block.with_masks(layers, states[0], range(10, 14), seed=5, call=1)
    value = block.record(whole, states).value
    part = block.with_masks(layers[2:], states[0], range(12, 14), seed=5, call=1)
    assert torch.equal(block.record(part, states[2:]).value, value[2:])
    with torch.no_grad():
        assert torch.equal(block.slope(whole[1:2], states[1:2]), value[1:2])
    other = block.with_masks(layers, states[0], range(10, 14), seed=5, call=2)
    assert not torch.equal(block.record(other, states).value, value)
    plain = StackedBlock(modules[0], traced=False).record(whole, states)
    torch.testing.assert_close(plain.value, value, rtol=1e-13, atol=1e-14)


def test_pulls_go_through_the_same_masks():
    block, layers, modules = stacked(between)
    states, lam = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    layers = block.with_masks(layers, states[0], range(4), seed=0, call=0)
    tape = block.record(layers, states)
    for i, (a, _, b, _) in enumerate(modules):
        u = states[i].clone().requires_grad_()
        first, second = (mask[i] for mask in layers.buffers)
        value = b(a(u) * first) * second
        torch.testing.assert_close(tape.value[i], value.detach())
        torch.testing.assert_close(tape.pull(lam)[i], torch.autograd.grad(value, u, lam[i])[0])


def test_evaluation_mode_drops_nothing():
    block, layers, modules = stacked(between)
    states = torch.randn(4, 3, 3, dtype=torch.float64)
    modules[0].eval()
    assert block.with_masks(layers, states[0], range(4), seed=0, call=0) is layers
    a, _, b, _ = modules[3]
    torch.testing.assert_close(block.record(layers, states).value[3], b(a(states[3])).detach())


def test_dropout_without_masks_is_refused():
    block, layers, _ = stacked(between)
    with pytest.raises(ValueError, match="draws random numbers .* with masks by StackedBlock"):
        block.record(layers, torch.zeros(4, 3, 3, dtype=torch.float64))
