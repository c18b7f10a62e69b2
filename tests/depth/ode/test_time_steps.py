"""Law: the layers are the steps of the grid, with the weights of the right-hand side itself."""

import torch

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR
from mgnet.depth.ode.right_hand_side import RightHandSide
from mgnet.depth.ode.state_tree import StateTree
from mgnet.depth.ode.time_steps import TimeSteps


class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([2.0, 3.0]))
        self.register_buffer("offset", torch.ones(2))

    def forward(self, t, y):
        return self.weight * y + self.offset * t


def made(points):
    func = Scaled()
    block = StackedBlock(RightHandSide(func, StateTree.of(torch.ones(2))), "euler")
    return func, TimeSteps.of(block, points, torch.float32)


def test_layers_of_a_grid():
    func, steps = made(torch.tensor([0.0, 0.5, 2.0, 1.0], dtype=torch.float64))
    _, layers = steps.layers(SERIAL_COMMUNICATOR, 1)
    assert layers.times.tolist() == [0.0, 0.5, 2.0]
    assert layers.steps.tolist() == [0.5, 1.5, -1.0]
    assert layers.times.dtype == layers.steps.dtype == torch.float32
    (weight,), (offset,) = layers.parameters, layers.buffers
    assert weight.data_ptr() == func.weight.data_ptr() and weight.shape == (3, 2)
    assert offset.data_ptr() == func.offset.data_ptr() and offset.shape == (3, 2)
    (weight * torch.arange(3.0)[:, None]).sum().backward()
    assert func.weight.grad.tolist() == [3.0, 3.0]


def test_times_with_a_gradient_are_a_shift_of_zero():
    points = torch.tensor([0.0, 1.0, 3.0], requires_grad=True)
    _, steps = made(points)
    _, layers = steps.layers(SERIAL_COMMUNICATOR, 1)
    shift = layers.parameters[-1]
    assert shift.tolist() == [0.0, 0.0]
    assert not layers.times.requires_grad
    gradient = torch.autograd.grad((shift * torch.tensor([1.0, 10.0])).sum(), points)[0]
    assert gradient.tolist() == [1.0, 10.0, 0.0]
