import linecache

import pytest
import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

from mgnet.depth.batched.graphs import ShapeError, Traced, extract, open_sizes, results, taken
from mgnet.depth.batched.stand_ins import StandIns
from mgnet.depth.batched.tracing import trace


def opened(function, shape=(5, 3), axes=(0,)):
    given = StandIns([], torch.ones(shape), axes)
    traced = trace(function, [given.state], None)
    sizes = open_sizes(traced.graph, [given.state.shape[axis] for axis in axes])
    return traced, sizes


@pytest.mark.parametrize(
    "function",
    [
        lambda u: u.repeat(2, 1).flatten().view(u.shape[0], 2, 3),
        lambda u: torch.arange(u.numel() // 2 + 1) * 1.0,
        lambda u: u[1:] / (u[1:].shape[0] * 0.1 * 3.0),
        lambda u: u + torch.tensor([1.0, 2.0, 3.0]),
        lambda u: torch.cat([u, u])[: 2 * u.shape[0] - 1],
    ],
)
def test_a_graph_is_right_for_other_sizes(function):
    traced, sizes = opened(function)
    assert len(sizes) == 1
    for size in (2, 5, 8):
        u = torch.randn(size, 3)
        assert torch.equal(traced(size, u), function(u))
        alone = trace(function, [u], None)
        assert alone.text() == traced.text([size])


def test_texts_tell_sizes_and_constants_apart():
    traced, _ = opened(lambda u: u.expand(2, u.shape[0], 3))
    assert traced.text([4]) != traced.text([5])
    u = [torch.ones(1)]
    one, two = (
        trace(f, u, None)
        for f in (lambda u: u + torch.tensor(1.0), lambda u: u + torch.tensor(2.0))
    )
    assert one.text() != two.text()


def test_numbers_that_are_not_made_of_sizes_are_refused():
    traced, _ = opened(lambda u: u.sum(0))
    size = traced.graph.find_nodes(op="placeholder")[0].meta["val"]
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.ones(1)
    number = graph.call_function(torch.numel, (x,))
    number.meta["val"] = size
    graph.output(graph.call_function(torch.add, (x, number)))
    other = StandIns([], torch.ones(5, 3), [0]).state.shape[0]
    if other.node.expr == size.node.expr:
        number.meta["val"] = size % 3
    with pytest.raises(ShapeError):
        open_sizes(graph, [other])


def test_torch_keeps_no_source_of_a_graph_that_was_taken():
    kept = fx.graph_module._loader.eval_cache
    before = len(kept), len(linecache.cache)
    traced = taken(make_fx(lambda x: (x + 1, x * torch.ones(2)))(torch.ones(2)))
    assert (len(kept), len(linecache.cache)) == before
    first, second = results(traced.graph)
    u = torch.randn(2)
    assert torch.equal(traced(u)[0], u + 1) and second.op == "call_function"
    (x,) = traced.graph.find_nodes(op="placeholder")
    assert torch.equal(extract(traced, [x], first).bare()(u), u + 1)
    assert isinstance(traced, Traced)
