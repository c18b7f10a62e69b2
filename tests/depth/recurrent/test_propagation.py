"""Law: propagators over time give the steps of every level, and the adjoint their transposes."""

import pytest
import torch
from torch import nn

from mgnet.depth import LayerEquation
from mgnet.depth.recurrent.gru_steps import GRUSteps
from mgnet.depth.recurrent.lstm_steps import LSTMSteps
from mgnet.depth.recurrent.propagation import TimeAdjoint, TimeSteps


def drawn(kind, steps=11, batch=3, width=4, factors=(4,)):
    torch.manual_seed(0)
    cell = (nn.GRUCell if kind is GRUSteps else nn.LSTMCell)(2, width, dtype=torch.float64)
    inputs = torch.randn(steps, batch, len(cell.weight_hh), dtype=torch.float64)
    known = kind(cell.weight_hh.detach(), cell.bias_hh.detach())
    return TimeSteps(known, inputs, factors)


def test_levels_have_means_and_lengths():
    levels = drawn(GRUSteps, factors=(4, 2)).levels
    inputs = levels[0][0]
    assert levels[0][1] is None
    assert levels[1][1].flatten().tolist() == [4.0, 4.0, 3.0]
    assert levels[2][1].flatten().tolist() == [8.0, 3.0]
    torch.testing.assert_close(levels[1][0][1], inputs[4:8].mean(0))
    torch.testing.assert_close(levels[2][0][1], inputs[8:].mean(0))


@pytest.mark.parametrize("kind", [GRUSteps, LSTMSteps])
def test_the_adjoint_of_a_march_is_that_of_autograd(kind):
    steps = drawn(kind)
    width = 4 if kind is GRUSteps else 8
    start = torch.randn(3, width, dtype=torch.float64).requires_grad_()
    points = LayerEquation(steps, 0, 11, start, None).march(None)
    f = torch.randn_like(points)
    (wanted,) = torch.autograd.grad((points * f).sum(), start)
    adjoint = TimeAdjoint(steps, points.detach())
    found = LayerEquation(adjoint, 0, 11, f[-1], None, reverse=True).march(f)
    torch.testing.assert_close(found[0], wanted)


@pytest.mark.parametrize("kind", [GRUSteps, LSTMSteps])
@pytest.mark.parametrize("level", [0, 1])
def test_linearizations(kind, level):
    steps = drawn(kind)
    width = 4 if kind is GRUSteps else 8
    points = torch.randn(12, 3, width, dtype=torch.float64)
    which = slice(0, 3, 2)
    states = points[:-1:4][which] if level else points[which]
    new, dense = steps.linearize(level, which, states, "dense")
    torch.testing.assert_close(new, steps.advance(level, which, states))
    v = torch.randn_like(states)
    transposed = TimeAdjoint(steps, points).linearize(level, which, v, "dense")
    torch.testing.assert_close(transposed[1], dense.mT)
    torch.testing.assert_close(transposed[0], (dense.mT @ v[..., None]).squeeze(-1))
    _, diagonal = TimeAdjoint(steps, points).linearize(level, which, v, "diagonal")
    torch.testing.assert_close(diagonal, torch.diagonal(dense, dim1=-2, dim2=-1))


@pytest.mark.parametrize("kind", [GRUSteps, LSTMSteps])
@pytest.mark.parametrize("level", [0, 1])
def test_sequences_that_have_ended_keep_their_states(kind, level):
    steps = drawn(kind)
    lengths = torch.tensor([11, 6, 4])
    running = torch.arange(11)[:, None, None] < lengths[:, None]
    held = TimeSteps(steps.steps, steps.inputs, steps.factors, running)
    states = torch.randn(11, 3, 4 if kind is GRUSteps else 8, dtype=torch.float64)[:: 4**level]
    which, v = slice(0, len(states)), torch.randn_like(states)
    new, tape = held.advance(level, which, states), held.record(level, which, states)
    counts = running if not level else torch.stack([running[n : n + 4].sum(0) for n in (0, 4, 8)])
    runs = (counts > 0).expand_as(new)
    assert torch.equal(new[~runs], states[~runs]) and torch.equal(tape.vjp(v)[~runs], v[~runs])
    inputs = held.levels[level][0]
    lengths = counts.clamp_min(1).double() if level else None
    wanted = steps.steps.advance(inputs, lengths, states)
    assert torch.equal(new[runs], wanted[runs])
    value, dense = held.linearize(level, which, states, "dense")
    assert torch.equal(value, new)
    torch.testing.assert_close(tape.vjp(v), (dense.mT @ v[..., None]).squeeze(-1))
    _, diagonal = held.linearize(level, which, states, "diagonal")
    torch.testing.assert_close(diagonal, torch.diagonal(dense, dim1=-2, dim2=-1))
    assert torch.equal(tape.gradients(v)[0][~runs[..., :1].squeeze(-1)].abs().sum(), v.sum() * 0)
