"""Every sample is in one part, places do not overlap, and the tape holds what is read, no more."""

import pytest
import torch

from mgnet.depth.batched.tracing import trace
from mgnet.depth.compiled import operations as ops
from mgnet.depth.compiled.graph_operations import WRITERS
from mgnet.depth.compiled.layer_code import Writer
from mgnet.depth.compiled.layout import Layout, Sums, blocks_of, kept_values, operations_of


def code_of(function, *tensors, rows=4):
    u = torch.randn(5, rows)
    given = [*tensors, torch.tensor(0.0), torch.tensor(1.0), u]  # with time and step
    return Writer(trace(lambda *x: function(x[-1], *x[:-3]), given, {}), u, WRITERS).written()


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize("rows", [1, 32, 64, 200])
def test_parts_of_a_batch(lanes, rows):
    for samples in (1, 7, 16, 33, 64, 100, 1000):
        end = 0
        for block in blocks_of(samples, lanes, rows):
            assert block.first == end and block.S % lanes == 0 and block.S <= 128
            end += block.samples
            assert 0 <= block.parts * block.S - block.samples < lanes
        assert end == samples


def test_what_is_kept():
    code = code_of(lambda u, v: torch.sin(u + 1.0) * v + u.tanh() * 2.0, torch.randn(4))
    numbers = {row[0]: row[:4] for row in code.code}
    all_of_it = kept_values(code, {0, 1})
    assert numbers[ops.SCALE][2] in all_of_it and {0, code.slope} <= all_of_it
    few = kept_values(code, set())
    assert numbers[ops.SCALE][2] not in few and code.slope not in few
    curves = [row for row in code.code if row[0] == ops.UNARY]
    for _, out, a, *_, kind in curves:  # the sine by what it takes, tanh by what it gives
        assert (a in few, out in few) == ((True, False) if kind == ops.SIN else (a == 0, True))


def test_the_first_to_write_an_adjoint():
    code = code_of(lambda u: (u.tanh() * u.tanh()).sin() + u.tanh())
    table, empty = operations_of(code)
    written = set()
    for op, out, a, b, *_, first in table[::-1]:
        pairs = [(1, a)] if op == ops.UNARY else [(2, b), (1, a)]
        for bit, k in pairs:
            assert bool(first & bit) == (k not in written and k != 0)
            written.add(k)
        assert out in written or out == code.slope
    assert not empty
    code = code_of(lambda u: torch.cat([u[:, 1:].tanh(), u[:, :1]], -1))
    table, empty = operations_of(code)
    assert empty and all(code.values[k].root == k for k in empty)
    assert {value.root for k, value in enumerate(code.values) if value.root != k} - {0} <= empty


@pytest.mark.parametrize("layers", [1, 3])
def test_places_do_not_overlap(layers):
    code = code_of(lambda u, v: torch.sin(u + v) * v, torch.randn(4))
    table, empty = operations_of(code)
    S, lanes = 16, 8
    layout = Layout(code, empty, layers, S, kept_values(code, {0, 1}), {}, lanes, True)
    taken = []
    for k, value in enumerate(code.values):
        for places, count in ((layout.at, layers + (k == 0)), (layout.of, 1)):
            first, stride = places[k]
            count = count if stride else 1
            taken += [(first + n * stride, value.rows * S) for n in range(count)]
    taken += [(layout.source, layers * 4 * S), (layout.turned, S * lanes)]
    taken.sort()
    for (a, size), (b, _) in zip(taken, taken[1:], strict=False):
        assert a + size <= b
    assert taken[-1][0] + taken[-1][1] <= layout.size


def test_sums_begin_with_what_is_shared():
    v, A = torch.randn(4), torch.randn(4, 4)
    code = code_of(lambda u, v, A: (u + v) @ A, v, A)
    vector, matrix = (next(k for k, s in enumerate(code.shapes) if len(s) == n) for n in (1, 2))
    sums = Sums(code, {0: 3, vector: 3, matrix: 1}, 8, {matrix})
    assert sums.shared == 4 * 8 and sums.size == 4 * 8 + 3 + 3 * 8
    numbers = torch.arange(float(sums.size))
    assert [tuple(sums.of(numbers, p).shape) for p in (0, vector, matrix)] == [
        (3,), (3, 4), (1, 4, 4)
    ]  # fmt: skip
    assert sums.at[matrix + 1, 0] == -1
