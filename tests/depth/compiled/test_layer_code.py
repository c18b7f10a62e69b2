"""Parts of values stand in their roots; tensors of a layer are parameters, or values."""

import torch

from mgnet.depth.batched.tracing import trace
from mgnet.depth.compiled import operations as ops
from mgnet.depth.compiled.graph_operations import WRITERS
from mgnet.depth.compiled.layer_code import Writer


def writer(function, *tensors, rows=4):
    u = torch.randn(5, rows)
    given = [*tensors, torch.tensor(0.0), torch.tensor(1.0), u]  # with time and step
    return Writer(trace(lambda *x: function(x[-1], *x[:-3]), given, {}), u, WRITERS)


def test_parts_stand_in_their_roots():
    code = writer(lambda u: torch.cat([u[:, 1:].tanh(), u[:, :1]], -1)).written()
    parts = [value for number, value in enumerate(code.values) if value.root != number]
    assert sorted((value.first, value.rows) for value in parts) == [(0, 1), (0, 3), (1, 3), (3, 1)]
    assert [row[0] for row in code.code] == [ops.UNARY, ops.COPY, ops.COPY]


def test_a_tensor_with_a_row_for_each_sample_is_a_value():
    code = writer(lambda u, A: u * A[0] + torch.cat([A, A[:1]]), torch.randn(4, 4)).written()
    given = [value for value in code.values if value.given]
    assert [value.rows for value in given] == [4] and code.values[0].given is False


def test_a_tensor_that_is_used_twice_is_one_parameter():
    v = torch.randn(4)
    code = writer(lambda u, v: (u + v) * v + v, v).written()
    assert [row[6] for row in code.code] == [1, 1, 1] and code.shapes == [(), (4,)]
