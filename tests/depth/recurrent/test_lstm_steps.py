"""Law: the steps of an LSTM are those of its cell, and their derivatives those of autograd."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mgnet.depth.recurrent.lstm_steps import LSTMSteps


def drawn(seed, bias=True, steps=4, batch=3, width=5):
    torch.manual_seed(seed)
    cell = nn.LSTMCell(2, width, bias=bias, dtype=torch.float64)
    x, s = (torch.randn(steps, batch, n, dtype=torch.float64) for n in (2, 2 * width))
    return cell, x, s, F.linear(x, cell.weight_ih, cell.bias_ih).detach()


def by_hand(cell, x, state, k):
    """A step over k with frozen gates, by repeating it."""
    h, c = state.chunk(2, -1)
    gates = F.linear(x, cell.weight_ih, cell.bias_ih) + F.linear(h, cell.weight_hh, cell.bias_hh)
    i, f, g, o = gates.chunk(4, -1)
    for _ in range(k):
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.cat([torch.sigmoid(o) * torch.tanh(c), c], -1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("k", [None, 1, 2, 7])
def test_steps_and_all_derivatives(bias, k):
    cell, x, state, gates = drawn(0, bias)
    lengths = None if k is None else torch.full((4, 1, 1), float(k), dtype=torch.float64)
    steps = LSTMSteps(cell.weight_hh.detach(), cell.bias_hh.detach() if bias else None)
    new = steps.advance(gates, lengths, state)
    torch.testing.assert_close(new, by_hand(cell, x, state, k or 1).detach())
    if k is None:
        wanted = torch.cat(cell(x[1], state[1].chunk(2, -1)), -1).detach()
        torch.testing.assert_close(new[1], wanted)
    given = [gates, state, steps.weight, *([steps.bias] if bias else [])]
    given = [g.clone().requires_grad_() for g in given]
    recorded = LSTMSteps(given[2], given[3] if bias else None)
    v, tape = torch.randn_like(state), steps.record(gates, lengths, state)
    wanted = torch.autograd.grad(recorded.advance(given[0], lengths, given[1]), given, v)
    of_inputs, of_weights = tape.gradients(v)
    found = [of_inputs, tape.vjp(v), *of_weights]
    for one, other in zip(wanted, found[: len(wanted)], strict=True):
        torch.testing.assert_close(one, other)
    assert bias or of_weights[1] is None
    part = slice(1, 4, 2)
    torch.testing.assert_close(tape[part].vjp(v[part]), tape.vjp(v)[part])


def test_jacobians():
    cell, _, state, gates = drawn(1)
    steps = LSTMSteps(cell.weight_hh.detach(), cell.bias_hh.detach())
    lengths = torch.tensor([1.0, 3.0, 3.0, 2.0], dtype=torch.float64).view(-1, 1, 1)
    new, dense = steps.linearize(gates, lengths, state, "dense")
    torch.testing.assert_close(new, steps.advance(gates, lengths, state))

    def one(gates, length, state):
        return steps.advance(gates[None, None], length[None], state[None, None])[0, 0]

    jacobian = torch.func.jacrev(one, argnums=2)
    many = torch.func.vmap(torch.func.vmap(jacobian, (0, None, 0)))(gates, lengths, state)
    torch.testing.assert_close(dense, many)
    _, diagonal = steps.linearize(gates, lengths, state, "diagonal")
    torch.testing.assert_close(diagonal, torch.diagonal(many, dim1=-2, dim2=-1))


@pytest.mark.parametrize("opening", [-300.0, -20.0, 5.0, 15.0, 30.0, 300.0])
def test_sums_of_powers_of_any_forget_gate(opening):
    steps = LSTMSteps(torch.zeros(4, 1), None)
    gates = torch.tensor([0.5, opening, 1.0, 0.5])[None, None]
    for k in (1, 16, 1000):
        state = torch.tensor([[[0.0, 0.7]]])
        new = steps.advance(gates, torch.full((1, 1, 1), float(k)), state)
        i, f, g, _ = gates.double().flatten().unbind()
        f = torch.sigmoid(f)
        powers = f ** torch.arange(k, dtype=torch.float64)
        wanted = f**k * 0.7 + torch.sigmoid(i) * torch.tanh(g) * powers.sum()
        torch.testing.assert_close(new[0, 0, 1].double(), wanted, rtol=1e-4, atol=1e-6)
        tape = steps.record(gates, torch.full((1, 1, 1), float(k)), state)
        assert tape.of_cells.isfinite().all()
