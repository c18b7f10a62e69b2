"""Laws: blocks are kept with a function as long as they are of its tensors; closures are seen."""

import gc
import weakref

import torch

from mgnet.depth.batched.surroundings import fingerprint
from mgnet.depth.ode.right_hand_side import METHODS, RightHandSide, kept_of, needs_autograd
from mgnet.depth.ode.state_tree import StateTree

TREE = StateTree.of(torch.ones(2))


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, t, y):
        return self.linear(y) * t


def test_the_time_comes_first():
    func, t, y = Linear(), torch.tensor(3.0), torch.ones(2)
    side = RightHandSide(func, TREE)
    assert torch.equal(side(t, y), func(t, y))
    assert torch.equal(side(t, y, torch.tensor(1.0)), func(t + 1.0, y))
    assert [*side.parameters()] == [*func.parameters()]


def test_blocks_are_kept():
    func = Linear()
    block = kept_of(func).block(func, TREE, "euler")
    assert kept_of(func).block(func, TREE, "euler") is block
    assert kept_of(func).block(func, TREE, "rk4") is not block
    func.linear = torch.nn.Linear(2, 2, bias=False)
    assert kept_of(func).block(func, TREE, "euler").names == ("func.linear.weight",)


def test_what_is_kept_is_no_part_of_the_function():
    """It goes with the function, changes no trace of it, and is not saved."""
    func = Linear()
    before = fingerprint(func)
    kept_of(func).block(func, TREE, "euler")
    assert fingerprint(func) == before
    assert [*func.state_dict()] == ["linear.weight", "linear.bias"]
    gone = weakref.ref(func)
    del func
    gc.collect()
    assert gone() is None


def test_functions_without_a_place():
    bound = torch.nn.Linear(2, 2).forward
    assert kept_of(bound) is not kept_of(bound)


def test_closures():
    w, t, y = torch.ones(2, requires_grad=True), torch.tensor(0.0), torch.ones(2)

    def learned(t, y):
        return w * y

    def fixed(t, y):
        return w.detach() * y

    for func, expected in ((learned, True), (fixed, False), (Linear(), False)):
        assert needs_autograd(func, RightHandSide(func, TREE), t, y) is expected
    with torch.no_grad():
        assert not needs_autograd(learned, RightHandSide(learned, TREE), t, y)


def test_names_of_torchdiffeq():
    assert METHODS["rk4"] == "rk4_38" and METHODS["rk4_classic"] == "rk4"
    assert METHODS["heun2"] == METHODS["heun"] == "heun"
