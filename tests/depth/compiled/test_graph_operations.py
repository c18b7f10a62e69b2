"""A graph is written down as it is, or refused with the name of what the loops do not know."""

import pytest
import torch
from torch import nn

from mgnet.depth import ODENet
from mgnet.depth.batched.tracing import trace_for_autograd
from mgnet.depth.compiled import operations as ops
from mgnet.depth.compiled.graph_operations import code_of
from mgnet.depth.compiled.layer_code import UnknownOperationError


def written(block, *shape, **options):
    net, u = ODENet(block, 2, **options), torch.randn(*shape)
    one = [x[0].detach() for x in net.layers().tensors()]
    return code_of(trace_for_autograd(net.kernel.evaluate, [*one, u], len(net.kernel.names)), u)


class Block(nn.Module):
    """A block of one function of u, a matrix A and a vector v."""

    def __init__(self, function, width=4):
        super().__init__()
        self.A = nn.Parameter(torch.randn(width, width))
        self.v = nn.Parameter(torch.randn(width))
        self.function = function

    def forward(self, u):
        return self.function(u, self.A, self.v)


def test_a_layer_with_a_function():
    code = written(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), 5, 3)
    assert [row[0] for row in code.code] == [ops.LINEAR, ops.UNARY]
    assert code.shapes == [(), (3,), (3, 3), (3, 3)]
    assert len(code.values) == 3 and code.slope == 2


def test_stages_share_their_parameters():
    code = written(nn.Linear(3, 3), 5, 3, scheme="rk4")
    assert [row[0] for row in code.code].count(ops.LINEAR) == 4
    assert len({row[6] for row in code.code if row[0] == ops.LINEAR}) == 1


KNOWN = {
    "functions": lambda u, A, v: u.tanh() + u.sigmoid() * u.relu() - u.exp() + u.sin() - u.cos(),
    "powers": lambda u, A, v: u**2 - u**3 + u * u,
    "numbers": lambda u, A, v: 2.0 - 3 * u / 4 + (1 - u) * v - (v - u) * 0.5,
    "a matrix made of another": lambda u, A, v: u @ (A - A.T - torch.diag(v)),
    "features": lambda u, A, v: torch.cat([u[:, 2:], u[:, :2] * 2.0], -1) + u,
    "halves": lambda u, A, v: torch.cat(u.chunk(2, -1)[::-1], -1),
    "a row for each sample": lambda u, A, v: (u + A[:1].expand(5, 4).tanh()) * A[1],
    "numbers of a vector": lambda u, A, v: torch.stack([v[0] * u[:, 1], u[:, 0]] * 2, -1),
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known(name):
    code = written(Block(KNOWN[name]), 5, 4)
    assert len(code.code) == len(code.numbers) and code.values[code.slope].rows == 4


UNKNOWN = {
    "softmax": lambda u, A, v: u.softmax(-1),
    "a mean over samples": lambda u, A, v: u - u.mean(0),
    "a mean over features": lambda u, A, v: u - u.mean(-1, keepdim=True),
    "samples turned": lambda u, A, v: u.flip(0),
    "samples multiplied": lambda u, A, v: u @ (u.T @ u),
    "a matrix from the left": lambda u, A, v: (A @ u.T).T,
    "some samples": lambda u, A, v: torch.cat([u[1:], u[:1]]),
    "features beside samples": lambda u, A, v: u.T.contiguous().view(4, 4),
    "a feature for all": lambda u, A, v: u * u[:, :1],
    "a division": lambda u, A, v: u / (1.0 + u * u),
    "a division by a tensor": lambda u, A, v: u / v,
    "nothing of the state": lambda u, A, v: v.expand(4, 4),
    "branches by value": lambda u, A, v: torch.where(u > 0, u, 2 * u),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_refused(name):
    with pytest.raises(UnknownOperationError):
        written(Block(UNKNOWN[name]), 4, 4)  # as many samples as features


@pytest.mark.parametrize("shape", [(5, 3, 4), (2, 3, 5, 4)])
def test_states_with_more_axes(shape):
    block = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.GELU())
    assert [row[0] for row in written(block, *shape).code][0] == ops.NORM
    with pytest.raises(UnknownOperationError):
        written(Block(lambda u, A, v: u.transpose(0, 1).contiguous().view_as(u)), *shape)
    with pytest.raises(UnknownOperationError, match="differs between samples"):
        written(Block(lambda u, A, v: u + A[: shape[-2]]), *shape[:-2], min(shape[-2], 4), 4)
