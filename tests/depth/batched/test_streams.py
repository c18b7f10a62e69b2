"""Law: side streams begin after what was before, and what follows waits for all of them."""

import pytest
import torch

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers
from mgnet.depth.batched.streams import STREAMS, side_by_side
from tests.depth.graph_recorder import Stream, use_streams


def made(count, seen):
    def call(number):
        seen.append((number, Stream.current.name))
        return torch.full((2,), float(number)), [torch.zeros(1)]

    return [lambda number=number: call(number) for number in range(count)]


@pytest.mark.parametrize("count", [2, 3, STREAMS, STREAMS + 1, 3 * STREAMS + 1])
def test_fork_and_join(monkeypatch, count):
    use_streams(monkeypatch)
    seen = []
    results = side_by_side(made(count, seen), torch.ones(1))
    assert [int(x[0]) for x, _ in results] == list(range(count))  # in the order of the calls
    sides = [f"side {n}" for n in range(min(count, STREAMS))]
    assert seen == [(n, sides[n % len(sides)]) for n in range(count)]
    told = [what for what in Stream.log if what[0] != "made"]
    forks = [("wait", side, "main") for side in sides]
    joins = [("wait", "main", side) for side in sides]
    assert told == forks + joins + [("record", "main")] * 2 * count  # each tensor of a result
    assert Stream.current.name == "main"


def test_one_call_and_tensors_of_the_host_need_no_stream(monkeypatch):
    seen = []
    Stream.current, Stream.log = Stream.__new__(Stream), []
    Stream.current.name = "main"
    side_by_side(made(3, seen), torch.ones(1))
    assert not Stream.log and {name for _, name in seen} == {"main"}
    use_streams(monkeypatch)
    side_by_side(made(1, seen), torch.ones(1))
    assert not Stream.log


@pytest.mark.parametrize("traced", [True, False])
def test_layers_that_run_one_after_another_are_side_by_side_where_they_are_traced(
    monkeypatch, traced
):
    template = torch.nn.Conv1d(2, 2, 3, padding=1)
    block = StackedBlock(template, traced=traced)
    weights = [torch.randn(5, *p.shape) for p in template.parameters()]
    layers = Layers(tuple(weights), (), *torch.ones(2, 5))
    states, lam = torch.randn(2, 5, 3, 2, 4)

    def passes():
        tape = block.record(layers, states)
        return [tape.value, tape.vjp(lam), *tape.vjp_all(lam)[1], block.slope(layers, states)]

    with torch.no_grad():
        expected = passes()
        use_streams(monkeypatch)
        found = passes()
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    joins = [what for what in Stream.log if what[:2] == ("wait", "main")]
    # Code of users may share what one layer makes on its stream with another one.
    assert len(joins) == (4 * STREAMS if traced else 0)
    recorded = Stream.log.count(("record", "main"))
    tape = block.record(layers, states)
    each = sum(len(one.tensors()) for one in tape.tapes) if traced else 0
    assert Stream.log.count(("record", "main")) - recorded == each
