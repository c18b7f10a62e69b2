"""Laws: blocks are kept with a function as long as they are of its tensors; closures are seen."""

import gc
import warnings
import weakref

import pytest
import torch
from torch import nn

from mgnet.depth import odeint
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

    def late(t, y):  # it may come into play later
        return w * y if t > 0 else y

    detached = w.detach()

    def fixed(t, y):
        return detached * y

    for func, expected in ((learned, True), (late, True), (fixed, False), (Linear(), False)):
        assert needs_autograd(func, RightHandSide(func, TREE), t, y) is expected
    with torch.no_grad():
        assert not needs_autograd(learned, RightHandSide(learned, TREE), t, y)


def test_names_of_torchdiffeq():
    assert METHODS["rk4"] == "rk4_38" and METHODS["rk4_classic"] == "rk4"
    assert METHODS["heun2"] == METHODS["heun"] == "heun"


@pytest.mark.parametrize("late", ["time", "state"])
def test_a_tensor_that_is_used_later_keeps_its_gradient(late):
    rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

    def func(t, y):
        begun = t > 0.5 if late == "time" else bool(y.max() > 1.5)
        return rate * y if begun else y

    t, y0 = torch.linspace(0.0, 1.0, 9, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    (found,) = torch.autograd.grad(odeint(func, y0, t, method="euler")[-1].sum(), rate)
    y = y0
    for start, length in zip(t[:-1], t.diff(), strict=True):
        y = y + length * func(start, y)
    torch.testing.assert_close(found, torch.autograd.grad(y.sum(), rate)[0])


@pytest.mark.parametrize("kind", ["time", "state"])
def test_numbers_that_are_read_from_tensors(kind):
    class Reading(nn.Linear):
        def forward(self, t, y):
            size = t.item() if kind == "time" else y.detach().norm().item()
            return super().forward(y) * size

    torch.manual_seed(0)
    func, t, y = Reading(3, 3).double(), torch.linspace(0.0, 1.0, 4).double(), torch.ones(2, 3)
    y = y.double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = odeint(func, y, t, method="euler")[-1]
    for start, length in zip(t[:-1], t.diff(), strict=True):
        y = y + length * func(start, y)
    torch.testing.assert_close(found, y)
