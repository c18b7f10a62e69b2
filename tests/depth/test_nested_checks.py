"""What is refused in one sentence; the refusals on the way are in `test_nested_training.py`."""

import math

import numpy as np
import pytest
import torch

from mgnet.depth import ODENet
from mgnet.depth.nested_checks import check_optimizer, checked_factor, checked_value
from mgnet.depth.parallel.batch_pieces import checked_loss


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "Rprop", "Adafactor"])
def test_optimizers_of_gradients_pass(kind):
    net = ODENet(torch.nn.Linear(2, 2), 2)
    optimizer = getattr(torch.optim, kind)(net.parameters())
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)  # patches `step`
    check_optimizer(net, None, optimizer)


@pytest.mark.parametrize("value", [math.inf, -1e-9, "1", True, torch.ones(2)])
def test_factors_that_are_none(value):
    with pytest.raises(ValueError, match="from schedule"):
        checked_factor(value, 0.5)


def test_numbers_of_all_kinds_pass():
    assert checked_factor(np.float32(0.5), 0.0) == checked_value(torch.full((1, 1), 0.5)) == 0.5
    assert checked_loss("train_in_depth", torch.ones(1, requires_grad=True)).shape == ()
    with pytest.raises(TypeError, match="got Tensor from validate"):
        checked_value(torch.ones(2))
