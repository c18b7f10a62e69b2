"""Law: the steps of a GRU are those of its cell, and their derivatives those of autograd."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mgnet.depth.recurrent.gru_steps import GRUSteps


def drawn(seed, bias=True, steps=4, batch=3, width=5):
    torch.manual_seed(seed)
    cell = nn.GRUCell(2, width, bias=bias, dtype=torch.float64)
    x, h = (torch.randn(steps, batch, n, dtype=torch.float64) for n in (2, width))
    return cell, x, h, F.linear(x, cell.weight_ih, cell.bias_ih).detach()


def by_hand(cell, x, h, k, implicit):
    """A step over k with frozen gates, by repeating it or by solving for it."""
    parts = [F.linear(x, cell.weight_ih, cell.bias_ih), F.linear(h, cell.weight_hh, cell.bias_hh)]
    (r, z, n), (hr, hz, hn) = [part.chunk(3, -1) for part in parts]
    r, z = torch.sigmoid(r + hr), torch.sigmoid(z + hz)
    n = torch.tanh(n + r * hn)
    if implicit:  # (h' - h) / k = (1 - z) (n - h')
        return (h + k * (1 - z) * n) / (1 + k * (1 - z))
    for _ in range(k):
        h = (1 - z) * n + z * h
    return h


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("k", [None, 1, 2, 7])
def test_steps_and_all_derivatives(bias, implicit, k):
    cell, x, h, gates = drawn(0, bias)
    lengths = None if k is None else torch.full((4, 1, 1), float(k), dtype=torch.float64)
    steps = GRUSteps(cell.weight_hh.detach(), None if not bias else cell.bias_hh.detach(), implicit)
    new = steps.advance(gates, lengths, h)
    torch.testing.assert_close(new, by_hand(cell, x, h, k or 1, implicit).detach())
    if k is None and not implicit:
        torch.testing.assert_close(new[1], cell(x[1], h[1]).detach())
    given = [gates, h, steps.weight, *([steps.bias] if bias else [])]
    given = [g.clone().requires_grad_() for g in given]
    recorded = GRUSteps(given[2], given[3] if bias else None, implicit)
    v, tape = torch.randn_like(h), steps.record(gates, lengths, h)
    wanted = torch.autograd.grad(recorded.advance(given[0], lengths, given[1]), given, v)
    of_inputs, of_weights = tape.gradients(v)
    found = [of_inputs, tape.vjp(v), *of_weights]
    for one, other in zip(wanted, found[: len(wanted)], strict=True):
        torch.testing.assert_close(one, other)
    assert bias or of_weights[1] is None
    part = slice(1, 4, 2)
    torch.testing.assert_close(tape[part].vjp(v[part]), tape.vjp(v)[part])


@pytest.mark.parametrize("implicit", [True, False])
def test_jacobians(implicit):
    cell, _, h, gates = drawn(1)
    steps = GRUSteps(cell.weight_hh.detach(), cell.bias_hh.detach(), implicit)
    lengths = torch.tensor([1.0, 3.0, 3.0, 2.0], dtype=torch.float64).view(-1, 1, 1)
    new, dense = steps.linearize(gates, lengths, h, "dense")
    torch.testing.assert_close(new, steps.advance(gates, lengths, h))

    def one(gates, length, h):
        return steps.advance(gates[None, None], length[None], h[None, None])[0, 0]

    jacobian = torch.func.jacrev(one, argnums=2)
    many = torch.func.vmap(torch.func.vmap(jacobian, (0, None, 0)))(gates, lengths, h)
    torch.testing.assert_close(dense, many)
    _, diagonal = steps.linearize(gates, lengths, h, "diagonal")
    torch.testing.assert_close(diagonal, torch.diagonal(many, dim1=-2, dim2=-1))


def test_huge_gates_stay_finite():
    steps = GRUSteps(torch.zeros(3, 1), None)
    gates = torch.tensor([-200.0, 200.0, 1.0])[None, None]
    lengths = torch.full((1, 1, 1), 1000.0)
    for sign in (1.0, -1.0):
        new = steps.advance(sign * gates, lengths, torch.ones(1, 1, 1))
        assert new.isfinite().all()
        tape = steps.record(sign * gates, lengths, torch.ones(1, 1, 1))
        assert tape.factors.isfinite().all() and tape.vjp(new).isfinite().all()
