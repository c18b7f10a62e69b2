"""Law: a state that the block cannot take is refused in words, before any layer."""

import pytest
import torch

from mgnet.depth import LayerParallel, ODENet


def net(parallel):
    made = ODENet(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()), 8)
    return LayerParallel(made) if parallel else made


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(
    ("x", "kind", "words"),
    [
        (torch.zeros(5, 3), ValueError, "4 numbers on the last axis"),
        (torch.tensor(1.0), ValueError, "4 numbers on the last axis"),
        (torch.zeros(5, 4, dtype=torch.float64), TypeError, "torch.float64.*x.to.torch.float32"),
        (torch.zeros(5, 4, dtype=torch.int64), TypeError, "torch.int64.*x.to.torch.float32"),
        (torch.zeros(5, 4, device="meta"), ValueError, "state on meta.*x.to..cpu"),
        ([[0.0] * 4], TypeError, "state of type list; give a tensor"),
    ],
)
def test_a_wrong_state_is_refused(parallel, x, kind, words):
    with pytest.raises(kind, match=words):
        net(parallel)(x)


def test_autocast_converts():
    with torch.autocast("cpu", torch.bfloat16):
        assert net(False)(torch.zeros(5, 4)).isfinite().all()


def test_other_blocks_are_left_alone():
    assert ODENet(torch.nn.Tanh(), 4)(torch.zeros(2, 3, 5)).shape == (2, 3, 5)
