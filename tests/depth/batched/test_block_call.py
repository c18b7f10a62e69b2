"""A block with checkpoints inside is the one without them: values, gradients, masks, statistics."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mgnet.depth.batched.block_call import keyed_call
from mgnet.depth.batched.draws import KEY, Draws


class Block(nn.Module):
    """Two parts in a row with dropout and statistics, each perhaps checkpointed."""

    def __init__(self, how=None, p=0.4):
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.register_buffer(KEY, torch.tensor(5), persistent=False)
        self.how, self.p = how, p
        self.double()

    def part(self, layer, u):
        return F.dropout(torch.tanh(layer(u)), self.p, self.training) * layer.bias

    def forward(self, u):
        u = F.dropout(self.norm(u), self.p, self.training)
        for layer in (self.first, self.second):
            run = self.part if self.how is None else checkpoint
            given = (layer, u) if self.how is None else (self.part, layer, u)
            u = run(*given, **(self.how or {}))
        return u


SAFE = {"use_reentrant": False}


def pair(how=SAFE, train=True):
    torch.manual_seed(0)
    plain, checkpointed = Block(), Block(how)
    checkpointed.load_state_dict(plain.state_dict())
    return plain.train(train), checkpointed.train(train)


def called(block, draws, *given, strict=True):
    """The call with tensors that have left the block when the backward pass comes."""
    tensors = {name: x.detach().clone() for name, x in block.state_dict(keep_vars=True).items()}
    tensors[KEY] = block.get_buffer(KEY)
    for name, _ in block.named_parameters():
        tensors[name].requires_grad_()
    out = keyed_call(
        block,
        lambda *given: functional_call(block, tensors, given, tie_weights=False),
        given,
        tensors,
        draws,
        strict,
    )
    return out, [x for x in tensors.values() if x.requires_grad], tensors


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("needs", [True, False])
def test_a_checkpointed_block_is_the_plain_one(needs, train, strict):
    x = torch.randn(6, 4, dtype=torch.float64).requires_grad_(needs)
    plain, checkpointed = pair(train=train)
    draws = Draws()
    state = torch.get_rng_state()
    for _ in range(2):  # found in the first call
        found = []
        for block, each in ((plain, Draws()), (checkpointed, draws)):
            out, leaves, tensors = called(block, each, x, strict=strict)
            gradients = torch.autograd.grad(out.square().sum(), [*leaves, *[x] * needs])
            found.append([out, *gradients, *tensors.values()])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
        assert draws.recomputes
    assert torch.equal(torch.get_rng_state(), state)


def test_under_autocast():
    x = torch.randn(6, 4)
    plain, checkpointed = (block.float() for block in pair())
    found = []
    for block in (plain, checkpointed):
        with torch.autocast("cpu", torch.bfloat16):
            out, leaves, _ = called(block, Draws(), x)
        found.append([out, *torch.autograd.grad(out.float().square().sum(), leaves)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=1e-3)


def test_without_a_graph_nothing_is_called_again():
    _, block = pair()
    draws = Draws()
    with torch.no_grad():
        out, *_ = called(block, draws, torch.ones(6, 4, dtype=torch.float64))
    assert not draws.recomputes and not out.requires_grad


def refusal(how, change=lambda block: None, create_graph=False, block=None):
    block = block or pair(how)[1]
    out, leaves, _ = called(block, Draws(), torch.ones(6, 4, dtype=torch.float64))
    change(block)
    torch.autograd.grad(out.sum(), leaves, create_graph=create_graph, allow_unused=True)


def test_what_cannot_be_called_again_is_refused():
    refusal(SAFE)
    with pytest.raises(ValueError, match="give use_reentrant=False"):
        refusal({"use_reentrant": True})
    with pytest.raises(RuntimeError, match="preserve_rng_state=False, so that they differ"):
        refusal({"use_reentrant": False, "preserve_rng_state": False})
    with pytest.raises(RuntimeError, match="its mode was changed before"):
        refusal(SAFE, nn.Module.eval)
    with pytest.raises(RuntimeError, match="a derivative of a gradient is not given"):
        refusal(SAFE, create_graph=True)


class Outside(Block):
    scale = None

    def part(self, layer, u):
        return super().part(layer, u) * self.scale[0]


@pytest.mark.parametrize("frozen", [True, False])
def test_a_gradient_that_would_be_lost_is_refused(frozen):
    block = Outside(SAFE)
    block.scale = [torch.ones(4, dtype=torch.float64, requires_grad=True)]
    tensors = dict(block.named_parameters()) | dict(block.named_buffers())
    block.requires_grad_(not frozen)
    u = torch.ones(6, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"of shape \(4,\) that requires a gradient"):
        keyed_call(block, block, (u,), tensors, Draws()).sum().backward()


def test_a_checkpoint_around_the_call_is_none_in_it():
    x = torch.randn(6, 4, dtype=torch.float64)
    plain, _ = pair()
    draws = Draws()
    tensors = dict(plain.named_parameters()) | dict(plain.named_buffers())

    def call(u):
        return keyed_call(plain, plain, (u,), tensors, draws)

    out = checkpoint(call, x, use_reentrant=False)
    assert isinstance(out, torch.Tensor)
    found = torch.autograd.grad(out.sum(), list(plain.parameters()))
    expected = torch.autograd.grad(call(x).sum(), list(plain.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert not draws.recomputes
