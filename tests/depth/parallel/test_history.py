"""Law: estimates come from the norms of all points, and need no number before they are asked."""

import math

import pytest
import torch

from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR, SerialCommunicator
from mgnet.depth.parallel.control import summarize
from mgnet.depth.parallel.history import History


def states(seed):
    return torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("reverse", [False, True])
def test_estimates_are_those_of_ordinary_norms(reverse):
    history, changes, norms = History(SERIAL_COMMUNICATOR, reverse, torch.float64), [], []
    own, end = (slice(0, 4), 0) if reverse else (slice(1, 5), -1)
    for cycle in range(3):
        residual, before, after = (states(10 * cycle + k) * 0.1**cycle for k in range(3))
        history.add_residual(residual)
        history.add_change(before, after)
        norms.append(float(residual[own].norm()))
        changes.append(float((after[end] - before[end]).norm() / after[end].norm()))
    expected = summarize(changes, norms, history.rounding)
    assert history.summarize()[:3] == pytest.approx(expected[:3], rel=1e-12)
    assert history.summarize().estimates == pytest.approx(expected.estimates, rel=1e-12)


class Between(SerialCommunicator):
    """Another process holds layers on each side; each gives the ends of its own part, too."""

    def gather(self, values):
        return torch.cat([values, values.flip(0), values], 1)


@pytest.mark.parametrize("reverse", [False, True])
def test_only_the_end_of_all_layers_is_the_output(reverse):
    history, before, after = History(Between(), reverse, torch.float64), states(1), states(2)
    history.add_residual(states(0))
    history.add_change(before, after)
    end = 0 if reverse else -1
    own = states(0)[:-1] if reverse else states(0)[1:]
    history.summarize()
    change = (after - before)[end].norm() / after[end].norm()
    assert history.changes == pytest.approx([float(change)], rel=1e-12)
    squares = 2.0 * float(own.norm()) ** 2 + float(after[end].norm()) ** 2
    assert history.norms == pytest.approx([squares**0.5], rel=1e-12)


class Counting(SerialCommunicator):
    calls = 0

    def gather(self, values):
        self.calls += 1
        return values


def test_numbers_are_gathered_once_and_when_asked():
    communicator = Counting()
    history = History(communicator, False, torch.float64)
    for cycle in range(4):
        history.add_residual(states(cycle))
        history.add_change(states(cycle), states(cycle + 1))
    assert communicator.calls == 0
    assert history.summarize() == history.summarize()
    assert communicator.calls == 1


def test_without_cycles_there_is_nothing_to_gather():
    communicator = Counting()
    assert math.isnan(History(communicator, False, torch.float64).summarize().estimate)
    assert communicator.calls == 0


def test_a_state_of_zeros_has_no_relative_change():
    history = History(SERIAL_COMMUNICATOR, False, torch.float64)
    history.add_change(states(0), torch.zeros(5, 3, 2))
    assert math.isinf(history.summarize().estimate)


class Recording(SerialCommunicator):
    def gather(self, values):
        self.rows = values
        return torch.ones(len(values), 1)


class Joining(SerialCommunicator):
    def __init__(self, parts):
        self.parts = parts

    def gather(self, values):
        return torch.cat(self.parts, 1)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cuts", [(0, 4), (0, 1, 4), (0, 2, 2, 4), (0, 1, 2, 3, 4)])
def test_every_process_has_the_numbers_of_one(reverse, cuts):
    """The output is the last point of all processes, not that of each."""

    def fed(communicator, begin, end):
        history = History(communicator, reverse, torch.float64)
        for cycle in range(3):
            history.add_residual(states(cycle)[begin : end + 1])
            history.add_change(states(cycle)[begin : end + 1], states(cycle + 1)[begin : end + 1])
        return history

    pairs = list(zip(cuts[:-1], cuts[1:], strict=True))
    recorded = [Recording() for _ in pairs]
    for communicator, pair in zip(recorded, pairs, strict=True):
        fed(communicator, *pair).summarize()
    joining = Joining([communicator.rows for communicator in recorded])
    expected = fed(SERIAL_COMMUNICATOR, 0, 4).summarize()
    for pair in pairs:
        assert fed(joining, *pair).summarize() == expected
