"""Law: both modes are measured on copies of the input; random numbers of the caller stay."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from mgnet.depth import CyclesToTolerance, FixedCycles
from mgnet.depth.parallel.control import PassReport
from mgnet.depth.recurrent.initial_state import InitialState
from mgnet.depth.recurrent.measured import faster, seconds_of_modes
from mgnet.depth.recurrent.sequences import TimeSequence


def test_both_modes_are_called_with_gradients_that_stay_inside():
    cell = nn.GRU(2, 3)
    rows = [torch.randn(n, 2).requires_grad_() for n in (5, 9)]
    for given in (torch.randn(7, 2, 2).requires_grad_(), pack_sequence(rows, False)):
        sequence, calls = TimeSequence.of(given, batch_first=False), []
        start = InitialState.of(cell, sequence, None)

        def call(sequence, start, mode, calls=calls):
            calls.append(mode)
            torch.rand(3)
            x = sequence.x if sequence.packed is None else sequence.packed
            return cell(x, start.given(start.states))

        before = torch.get_rng_state()
        found = seconds_of_modes(call, sequence, start, [*cell.parameters()])
        assert calls == ["serial"] * 3 + ["mgrit"] * 3
        assert min(found.values()) > 0.0
        assert torch.equal(torch.get_rng_state(), before)
        assert all(p.grad is None for p in (*cell.parameters(), *rows))


def test_a_fixed_number_of_cycles_beyond_its_tolerance_is_not_taken():
    seconds, control = {"serial": 2.0, "mgrit": 1.0}, FixedCycles(2, tolerance=0.1)
    good, bad = (PassReport(2, 0.1, estimate, (estimate,)) for estimate in (0.01, 0.5))
    assert faster(seconds, [good, good], control) == "mgrit"
    assert faster(seconds, [good, bad], control) == "serial"
    assert faster(seconds, [good, bad], CyclesToTolerance(1e-6)) == "mgrit"
