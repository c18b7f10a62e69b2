"""Law: the backward pass meets the cell of the forward pass, or says that it has changed."""

import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from mgnet.depth import CyclesToTolerance, TimeParallel

X, H = torch.randn(60, 2, 3, dtype=torch.float64), torch.zeros(1, 2, 4, dtype=torch.float64)
OUTSIDE = torch.ones(4, dtype=torch.float64)


class Relaxing(nn.Module):
    """With a buffer, attributes, and a part that only evaluation leaves out."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(7, 4).double()
        self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(4, dtype=torch.float64))
        self.dt, self.told, self.shift = 0.1, None, torch.ones(4, dtype=torch.float64)

    def forward(self, x, h):
        self.told = h  # what a cell only keeps is no other cell
        rate = self.dt * (2.0 if self.training else 1.0)
        slope = self.scale * self.mix(torch.cat([x, h], -1)).tanh() - OUTSIDE * self.shift * h
        return h + rate * slope


def solved(cell, mode="mgrit"):
    return TimeParallel(cell, control=CyclesToTolerance(1e-11), mode=mode)(X, H)[0].square().sum()


def gradient(cell, *losses):
    cell.zero_grad()
    sum(losses).backward()
    return cell.mix.weight.grad.clone()


@pytest.mark.parametrize("seed", range(2))
def test_a_buffer_that_was_replaced_is_that_of_the_forward_pass(seed):
    torch.manual_seed(seed)
    cell, other = Relaxing(), torch.rand(4).double()
    kept, found = cell.scale, []
    for mode in ("mgrit", "serial"):
        first = solved(cell, mode)
        cell.scale = other
        found.append(gradient(cell, first, solved(cell, mode)))
        cell.scale = kept
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-8)
    assert cell.unused.grad is None  # as in autograd


def set_dt(cell):
    cell.dt = 0.3


def replace(cell):
    cell.shift = cell.shift + 1.0


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_dt, "was changed after the forward pass"),
        (lambda cell: cell.eval(), "was changed after the forward pass"),
        (lambda cell: cell.scale.mul_(2.0), "edited in place, or replaced"),
        (lambda cell: cell.shift.mul_(2.0), "edited in place, or replaced"),
        (replace, "edited in place, or replaced"),
        (lambda cell: OUTSIDE.mul_(1.0), "edited in place, or replaced"),
    ],
)
def test_what_cannot_be_kept_is_refused(edit, words):
    cell = Relaxing()
    loss = solved(cell)
    edit(cell)
    with pytest.raises(RuntimeError, match=words):
        loss.backward()
    solved(cell).backward()


def test_what_was_computed_from_parameters_before_the_call_is_refused_and_caches_are_not():
    class Orthogonal(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.randn(4, 4).double())
            self.q = torch.matrix_exp(self.a - self.a.T)

        def forward(self, x, h):
            return 0.5 * h @ self.q.T + x.sum(-1, keepdim=True)

    with pytest.raises(ValueError, match="computed from its parameters before the call"):
        solved(Orthogonal())

    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = parametrizations.weight_norm(nn.Linear(7, 4).double())

        def forward(self, x, h):
            return self.mix(torch.cat([x, h], -1)).tanh()

    cell, found = Normed(), []
    for mode in ("mgrit", "serial"):
        with parametrize.cached():
            found.append(torch.autograd.grad(solved(cell, mode), [*cell.parameters()]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_a_checkpoint_in_a_cell():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.RNNCell(3, 4).double()

        def forward(self, x, h):
            return torch.utils.checkpoint.checkpoint(self.inner, x, h, use_reentrant=False)

    cell = Again()
    weights = [*cell.parameters()]
    one, other = [torch.autograd.grad(solved(cell, mode), weights) for mode in ("mgrit", "serial")]
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_threads_leave_the_cell_as_it_is():
    cell, errors = Relaxing(), []
    weight, parallel = cell.mix.weight, TimeParallel(cell)

    def train():
        try:
            for _ in range(6):
                parallel(X, H)[0].sum().backward()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=train) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and cell.mix.weight is weight and weight.requires_grad
