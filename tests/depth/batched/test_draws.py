"""Masks that functions draw are those of a key, with PyTorch's statistics; all else is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mgnet.depth.batched.draws import Draws, FusedAttentionError, KeyedDraws, mixed


def keyed(function, key=0, **options):
    with KeyedDraws(torch.tensor(key), Draws(), **options):
        return function()


def ones(*shape):
    return torch.ones(*shape, dtype=torch.float64)


# Each gives entries that are 0 with the probability in its name, drawn one by one.
ENTRIES = {
    "dropout 0.3": lambda n: F.dropout(ones(n), 0.3) != 0,
    "dropout in place 0.3": lambda n: F.dropout(ones(n), 0.3, inplace=True) != 0,
    "native 0.3": lambda n: torch.native_dropout(ones(n), 0.3, True)[1],
    "fill 0.6": lambda n: torch.empty(n).bernoulli_(0.4) != 0,
    "probability 0.6": lambda n: torch.bernoulli(torch.zeros(n), 0.4) != 0,
    "tensor 0.6": lambda n: torch.bernoulli(torch.full((n,), 0.4)) != 0,
    "fill by tensor 0.6": lambda n: torch.empty(n).bernoulli_(torch.full((), 0.4)) != 0,
    "module 0.1": lambda n: nn.Dropout(0.1)(ones(n)) != 0,
    "channels 0.5": lambda n: F.dropout2d(ones(n, 1, 2, 2), 0.5)[:, 0, 1, 1] != 0,
    "alpha 0.3": lambda n: F.alpha_dropout(ones(n), 0.3, True) > 0,
}


@pytest.mark.parametrize("name", ENTRIES)
def test_masks_have_their_share_of_zeros_and_no_memory(name):
    p, n = float(name.split()[-1]), 40_000
    draw = ENTRIES[name]
    one, again, other = (keyed(lambda: draw(n), key).double() for key in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    deviation = (p * (1 - p) / n) ** 0.5
    assert abs(1 - one.mean() - p) < 5 * deviation
    scale = p * (1 - p)
    for a, b in ((one, other), (one[1:], one[:-1])):  # keys, and neighbours
        assert abs(((a - 1 + p) * (b - 1 + p)).mean()) < 5 * scale / n**0.5


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_sure_probabilities_are_exact(p):
    n = 10**6
    assert (keyed(lambda: torch.empty(n).bernoulli_(p)) == p).all()
    assert (keyed(lambda: torch.bernoulli(torch.full((n,), p))) == p).all()
    with pytest.raises(ValueError, match=r"probability 1.5; it must be in \[0, 1\]"):
        keyed(lambda: torch.empty(3).bernoulli_(1.5))


def test_draws_of_one_call_are_independent_and_numbered_anew_in_the_next():
    def twice():
        return F.dropout(ones(20_000), 0.5), F.dropout(ones(20_000), 0.5)

    (a, b), (c, d) = keyed(twice), keyed(twice)
    assert torch.equal(a, c) and torch.equal(b, d)
    assert abs(((a - 1) * (b - 1)).mean()) < 5 / 20_000**0.5


def test_the_gradient_is_that_of_the_mask():
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)
    for drop in (F.dropout, lambda x, p: torch.native_dropout(x, p, True)[0]):
        out = keyed(lambda drop=drop: drop(x, 0.4))
        (gradient,) = torch.autograd.grad(out.sum(), x)
        torch.testing.assert_close(gradient * x, out)
        assert set((gradient * 0.6).round().int().tolist()) == {0, 1}


def test_attention_has_the_mean_and_variance_of_pytorchs():
    """Over many samples, of which all have the same queries, keys and values."""
    torch.manual_seed(0)
    samples, p = 20_000, 0.3
    q, k, v = torch.randn(3, 1, 1, 4, 2, dtype=torch.float64).expand(3, samples, 1, 4, 2)
    torch.manual_seed(1)
    ours = keyed(lambda: F.scaled_dot_product_attention(q, k, v, dropout_p=p))
    weights = torch.softmax(q[0] @ k[0].mT / 2**0.5, -1)
    mean = weights @ v[0]
    variance = p / (1 - p) * (weights.square() @ v[0].square())
    assert ((ours.mean(0) - mean).abs() < 5 * (variance / samples).sqrt()).all()
    torch.testing.assert_close(ours.var(0), variance, rtol=0.1, atol=0.0)
    torch.testing.assert_close(
        F.scaled_dot_product_attention(q, k, v, dropout_p=p).var(0), variance, rtol=0.1, atol=0.0
    )
    all_dropped = (ours == 0).all(-1).double().mean()  # each of 4 weights of a row
    assert abs(all_dropped - p**4) < 5 * (p**4 / samples / 4) ** 0.5


REFUSED = {
    "rand": lambda: torch.rand(2),
    "randn_like": lambda: torch.randn_like(torch.ones(2)),
    "multinomial": lambda: torch.multinomial(torch.ones(3), 1),
    "rrelu": lambda: F.rrelu(torch.ones(2), training=True),
    "exponential": lambda: torch.empty(2).exponential_(),
    "generator": lambda: torch.empty(2).bernoulli_(0.5, generator=torch.Generator()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_random_numbers_are_refused_or_left_to_pytorch(name):
    draw = REFUSED[name]
    with pytest.raises(ValueError, match=r"draws random numbers by aten.*: use these, or draw bef"):
        keyed(draw)
    keyed(draw, strict=False)


def test_masks_without_a_key():
    def drop():
        return F.dropout(torch.ones(2))

    for training, sentence in ((True, "use nn.Dropout modules"), (False, "training=self.training")):
        with pytest.raises(ValueError, match=sentence), KeyedDraws(None, Draws(), training):
            drop()
    with KeyedDraws(None, Draws(), strict=False):
        drop()


def test_what_may_draw_but_does_not():
    draws, lstm = Draws(), nn.LSTM(2, 2, 2).eval()
    q = torch.ones(1, 1, 2, 2)
    with KeyedDraws(torch.tensor(0), draws):
        F.dropout(q, 0.5, training=False)
        F.dropout(q, 0.0)
        F.scaled_dot_product_attention(q, q, q)
        F.rrelu(q)
        lstm(q[0])
    assert not draws.seen and not draws.calls


def test_attention_in_one_operation_is_noticed():
    """Its own mask could not be another one; so it does on GPUs."""
    operation = torch.ops.aten._scaled_dot_product_flash_attention
    q = torch.ones(1, 1, 2, 2, device="meta")
    with pytest.raises(FusedAttentionError):
        keyed(lambda: operation(q, q, q, 0.1))


def test_a_pass_is_counted_once_whenever_its_masks_are_noticed():
    draws = Draws()
    draws.begin(sure=False)
    assert draws.calls == 0
    with KeyedDraws(torch.tensor(0), draws):
        F.dropout(torch.ones(2))
        F.dropout(torch.ones(2))
    assert draws.calls == 1 and draws.seen
    draws.begin(sure=True)
    with KeyedDraws(torch.tensor(0), draws):
        F.dropout(torch.ones(2))
    assert draws.calls == 2


def test_numbers_in_the_generator_are_those_of_a_count_and_leave_it_as_it_was():
    def some():
        return [F.dropout(ones(30)) for _ in range(3)]

    torch.manual_seed(7)
    state = torch.get_rng_state()
    for a, b in zip(keyed(some), keyed(some, repeats=True), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_hash_spreads_its_bits():
    bits = (mixed(torch.arange(50_000))[:, None] >> torch.arange(31)) & 1
    assert ((bits.double().mean(0) - 0.5).abs() < 5 * 0.5 / 50_000**0.5).all()
