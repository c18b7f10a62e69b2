"""Side inputs reach every block as they were given; what a block does not take is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from mgnet.depth import LayerParallel, ODENet
from mgnet.depth.batched.side_inputs import SideInputs, check_side_inputs
from mgnet.depth.network.sequential import Increment


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, u, mask=None, *, pair=(None, None), scale=1.0):
        out = torch.tanh(self.linear(u)) * scale
        if mask is not None:
            out = torch.where(mask, out, 0.0)
        for part in pair:
            out = out if part is None else out + part
        return out


class AnyWords(nn.Module):
    def forward(self, u, **words):
        return u if "shift" not in words else u + words["shift"]


def test_structure_and_plain_values_are_a_part_of_the_key_and_tensors_are_not():
    a, b = torch.ones(2), torch.zeros(2)
    key = SideInputs.of({"pair": (a, b), "scale": 2.0}).key
    assert SideInputs.of({"scale": 2.0, "pair": (b, a)}).key == key
    for other in (
        {"pair": [a, b], "scale": 2.0},
        {"pair": (a, b), "scale": 2},
        {"pair": (a, b), "scale": 2.5},
        {"pair": (a, b.clone().requires_grad_()), "scale": 2.0},
        {"pair": (a, None), "scale": 2.0},
        {"pair": (a, b)},
    ):
        assert SideInputs.of(other).key != key
    assert hash(key) == hash(SideInputs.of({"pair": (b, b), "scale": 2.0}).key)


def test_rebuilt_is_what_was_given():
    a, b = torch.ones(2), torch.zeros(3).requires_grad_()
    given = {"mask": {"x": [a, None, 3], "y": (b, "word")}, "scale": True}
    told = SideInputs.of(given)
    assert told.learned == (b,) and told.fixed == (a,)
    again = told.rebuilt(told.learned, told.fixed)
    assert again["mask"]["x"][0] is a and again["mask"]["x"][1:] == [None, 3]
    assert again["mask"]["y"][0] is b and again["mask"]["y"][1] == "word"
    assert again["scale"] is True


@pytest.mark.parametrize("make", [Masked, lambda: Increment(Masked()), AnyWords])
def test_known_names_are_taken(make):
    side = {"shift": torch.ones(1)} if make is AnyWords else {"mask": torch.ones(1, 3) > 0}
    check_side_inputs("ODENet", make(), side)
    net = ODENet(lambda n: make(), 2)
    assert net(torch.ones(2, 3), **side).shape == (2, 3)


@pytest.mark.parametrize(
    ("make", "side", "message"),
    [
        (lambda: nn.Linear(3, 3), {"mask": None}, "Linear.forward does not take: its arguments"),
        (Masked, {"msk": None}, "side input msk, which Masked.forward does not take"),
        (Masked, {"u": torch.ones(1)}, "side input u, which Masked.forward does not take"),
        (lambda: Increment(Masked()), {"msk": None}, "msk, which Masked.forward does not take"),
        (Masked, {"mask": np.ones(3)}, "mask with array.*; use torch.from_numpy"),
        (Masked, {"pair": (torch.ones(1), object())}, "pair with <object.*give tensors and plain"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: LayerParallel(net, coarsening=2)])
def test_refusals(make, side, message, wrap):
    module = wrap(ODENet(lambda n: make(), 4))
    with pytest.raises(TypeError, match=message):
        module(torch.ones(2, 3), **side)


@pytest.mark.parametrize("mode", ["mgrit", "serial"])
def test_a_block_that_edits_a_side_input_is_refused(mode):
    class Edits(Masked):
        def forward(self, u, shift=None):
            shift += 1.0
            return super().forward(u) + shift

    shift = torch.ones(3)
    parallel = LayerParallel(ODENet(Edits(), 4), coarsening=2, mode=mode)
    with pytest.raises(ValueError, match="Edits edits a side input in place"):
        parallel(torch.ones(2, 3), shift=shift)
    assert torch.equal(shift, torch.ones(3))
