"""A module's trainable parameters as a vector: swapped for an evaluation, written once."""

import pytest
import torch

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
