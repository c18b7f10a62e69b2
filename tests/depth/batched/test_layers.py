"""Layers: slices are views, found once; buffers are set in place."""

import torch

from mgnet.depth import Layers


def four():
    return Layers(
        (torch.arange(8.0).reshape(4, 2),), (torch.zeros(4, 3),), torch.arange(4.0), torch.ones(4)
    )


def test_layers_are_views():
    layers = four()
    part = layers[1::2]
    assert part is layers[1::2]
    assert len(part) == 2
    layers.parameters[0][3] = 7.0
    assert part.parameters[0][1].eq(7.0).all()
    longer = layers.with_steps(2 * layers.steps)
    assert torch.equal(longer[1::2].steps, 2 * part.steps)
    assert longer.parameters is layers.parameters


def test_buffers_are_updated_in_place():
    layers = four()
    buffer = layers.buffers[0]
    layers[1:3].update([torch.ones(2, 3)])
    assert layers.buffers[0] is buffer
    assert buffer.sum(1).tolist() == [0.0, 3.0, 3.0, 0.0]
