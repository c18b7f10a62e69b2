"""Laws: packing loses nothing, in order and gradient; samples stay rows where they can."""

import pytest
import torch

from mgnet.depth.ode.state_tree import StateTree

STATES = {
    "a tensor": lambda: torch.randn(3, 2),
    "a number": lambda: torch.randn(()),
    "a pair": lambda: (torch.randn(4, 1), torch.randn(4, 3)),
    "nested": lambda: {"a": torch.randn(2), "b": [torch.randn(()), torch.randn(2, 3)]},
    "one in a list": lambda: [torch.randn(2, 2)],
    "three axes": lambda: (torch.randn(2, 5, 1), torch.randn(2, 5, 2)),
}


def leaves(state):
    return torch.utils._pytree.tree_leaves(state)


@pytest.mark.parametrize("name", STATES)
def test_there_and_back(name):
    state = STATES[name]()
    tree = StateTree.of(state)
    packed = tree.pack(state)
    assert packed.dim() > 0 and packed.numel() == sum(x.numel() for x in leaves(state))
    again = tree.unpack(packed)
    assert type(again) is type(state)
    assert all(torch.equal(a, b) for a, b in zip(leaves(again), leaves(state), strict=True))
    many = tree.unpack(torch.stack([packed, 2.0 * packed, 3.0 * packed]))
    for a, b in zip(leaves(many), leaves(state), strict=True):
        assert torch.equal(a, torch.stack([b, 2.0 * b, 3.0 * b]))


def test_samples_stay_rows():
    assert StateTree.of(STATES["a pair"]()).side_by_side
    assert StateTree.of(STATES["three axes"]()).side_by_side
    assert not StateTree.of((torch.ones(2), torch.ones(2))).side_by_side
    assert not StateTree.of((torch.ones(2, 1), torch.ones(3, 1))).side_by_side


@pytest.mark.parametrize(
    ("y0", "kind", "told"),
    [
        ([1.0], TypeError, "y0 with 1.0; give a tensor"),
        ((), TypeError, "give a tensor, or a tuple"),
        (torch.ones(2, dtype=torch.int64), TypeError, "y0 of torch.int64; give float32 or float64"),
        (torch.ones(2, dtype=torch.complex64), TypeError, "torch.view_as_real"),
        (torch.ones(2, dtype=torch.bfloat16), TypeError, "y0 of torch.bfloat16"),
        ((torch.ones(2), torch.ones(2).double()), TypeError, "one precision and one device"),
        (torch.ones(0, 2), ValueError, r"shape \(0, 2\), which has no numbers"),
    ],
)
def test_what_is_no_state(y0, kind, told):
    with pytest.raises(kind, match=told):
        StateTree.of(y0)


@pytest.mark.parametrize(
    ("value", "kind", "told"),
    [
        (torch.ones(2), TypeError, "for a state of 2 tensors it must give dy/dt in the same"),
        ([torch.ones(2), torch.ones(3)], TypeError, "in the same structure"),
        ((torch.ones(2), 3.0), TypeError, "in the same structure"),
        ((torch.ones(2), torch.ones(2)), ValueError, r"shape \(2,\) for a state of shape \(3,\)"),
    ],
)
def test_slopes_of_another_structure(value, kind, told):
    with pytest.raises(kind, match=told):
        StateTree.of((torch.ones(2), torch.ones(3))).check_slope(value)
