import pytest
import torch
from torch import nn
from torch.func import stack_module_state

from mgnet.depth.batched.block import StackedBlock
from mgnet.depth.batched.layers import Layers
from mgnet.depth.batched.programs import batch
from mgnet.depth.batched.tracing import trace_for_autograd, trace_layer


def traced(module, state):
    block = StackedBlock(module)
    inputs = [*(x.detach() for x in module.parameters()), torch.tensor(0.0), torch.tensor(1.0)]
    return block, [*inputs, state]


def operations(graph):
    return [node.target for node in graph.nodes if node.op == "call_function"]


def test_a_linear_layer_is_one_product_and_one_function():
    block, inputs = traced(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.randn(2, 3))
    one = trace_layer(block.evaluate, inputs, 2, 1)
    many = [x.expand(4, *x.shape).clone() for x in inputs]
    program = batch(one.slope, many, 4, False)
    done = [each for each in operations(program.whole.graph) if not each.is_view]
    assert done == [torch.ops.aten.baddbmm.default, torch.ops.aten.tanh_.default]
    prepared = program.prepare(*many[:-1])
    assert all(x._base is not None for x in prepared)
    expected = torch.tanh(inputs[-1] @ inputs[0].T + inputs[1])
    torch.testing.assert_close(program.run(*prepared, many[-1])[2], expected)
    assert len(one.forward.graph.output_node().args[0]) == 3  # the slope; tanh's value, the state


def test_a_pull_leaves_out_what_only_parameters_need():
    block, inputs = traced(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.randn(2, 3))
    one = trace_layer(block.evaluate, inputs, 2, 1)
    product = torch.ops.aten.mm.default
    assert operations(one.vjp.graph).count(product) == 1
    assert operations(one.vjp_all.graph).count(product) == 2


def test_views_of_strided_layers_are_prepared_without_copies():
    block, inputs = traced(nn.Linear(3, 3), torch.randn(2, 3))
    one = trace_layer(block.evaluate, inputs, 2, 1)
    many = [x.expand(8, *x.shape).clone()[::2] for x in inputs]
    program = batch(one.slope, many, 4, False)
    prepared = program.prepare(*many[:-1])
    many[0].fill_(0.0)
    many[1].fill_(5.0)
    assert program.run(*prepared, many[-1]).eq(5.0).all()


def test_what_autograd_would_not_see_is_noticed():
    class Quiet(nn.Linear):
        def forward(self, u):
            with torch.no_grad():
                return super().forward(u)

    for make, hidden in ((nn.Linear, False), (Quiet, True)):
        block, inputs = traced(make(3, 3), torch.randn(2, 3))
        assert trace_layer(block.evaluate, inputs, 2, 1).hidden is hidden


def test_the_graph_for_autograd_keeps_detached_tensors_detached():
    class Gate(nn.Module):
        def forward(self, u):
            return u * u.detach()

    block, inputs = traced(Gate(), torch.randn(2, 3))
    state = inputs[-1].requires_grad_()
    graph = trace_for_autograd(block.evaluate, [x.detach() for x in inputs], 0)
    (found,) = torch.autograd.grad(graph(*inputs).sum(), state)
    assert torch.equal(found, state.detach())


class Reuses(nn.Module):
    """Sees the product once more after its tanh, where `twice`."""

    def __init__(self, twice):
        super().__init__()
        self.inner, self.outer, self.twice = nn.Linear(3, 3), nn.Linear(3, 3, bias=False), twice

    def forward(self, u):
        z = self.inner(u)
        return self.outer(torch.tanh(z)).tanh() + (z if self.twice else u).tanh()


@pytest.mark.parametrize("twice", [False, True])
def test_products_are_overwritten_where_nobody_else_sees_them(twice):
    torch.manual_seed(0)
    modules = [Reuses(twice).double() for _ in range(4)]
    parameters, _ = stack_module_state(modules)
    layers = Layers(tuple(p.detach() for p in parameters.values()), (), *torch.ones(2, 4).double())
    block, (u, lam) = StackedBlock(modules[0]), torch.randn(2, 4, 5, 3, dtype=torch.float64)
    kept = u.clone()
    leaves = u.clone().requires_grad_()
    expected = torch.stack([module(v) for module, v in zip(modules, leaves, strict=True)])
    tape = block.record(layers, u)
    states = u.clone().requires_grad_()
    slope = block.slope(layers, states)
    (gradient,) = torch.autograd.grad(slope, states, lam)
    for found in (tape.value, slope, block.bound_slope(layers, u)(u)):
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)
    (wanted,) = torch.autograd.grad(expected, leaves, lam)
    torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(tape.vjp(lam), wanted, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(tape.vjp_all(lam)[0], wanted, rtol=1e-12, atol=1e-13)
    assert torch.equal(u, kept)
