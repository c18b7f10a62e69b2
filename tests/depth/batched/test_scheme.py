"""One step by the formulas of its scheme; states between the layers; blocks of time."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from mgnet.depth.batched.scheme import advance, at_times, needed_arguments, slope, takes_time

# The order: so many terms of the exponential series.
POWERS = {"euler": 1, "midpoint": 2, "heun": 2, "heun3": 3, "rk4": 4, "rk4_38": 4}


@pytest.mark.parametrize(("scheme", "power"), [*POWERS.items()])
@pytest.mark.parametrize("tensor", [False, True])
def test_the_exponential_series(scheme, power, tensor):
    """For u' = u a step multiplies by the first terms of exp(s)."""
    s = torch.tensor(0.3, dtype=torch.float64)
    u = torch.ones(2, dtype=torch.float64)
    term, expected = 1.0, 1.0
    for n in range(1, power + 1):
        term *= 0.3 / n
        expected += term
    got = advance(scheme, lambda t, u: u, 0.0, u, s if tensor else 0.3)
    torch.testing.assert_close(got, expected * u)


@pytest.mark.parametrize(
    ("scheme", "power"), [("midpoint", 1), ("heun", 1), ("heun3", 2), ("rk4", 3), ("rk4_38", 3)]
)
def test_stages_know_their_time(scheme, power):
    """A slope t^p is integrated exactly up to the degree of the quadrature."""
    got = advance(scheme, lambda t, u: u * 0.0 + t**power, 1.0, torch.zeros(1), 0.5)
    torch.testing.assert_close(got, torch.tensor([(1.5 ** (power + 1) - 1.0) / (power + 1)]))


@pytest.mark.parametrize("scheme", POWERS)
def test_a_slope_keeps_the_shape(scheme):
    with pytest.raises(ValueError, match=r"of shape \(2, 3\) for a state of shape \(3,\)"):
        slope(scheme, lambda t, u: u.expand(2, 3), 0.0, torch.ones(3), 1.0)


def test_states_between_layers():
    """A straight line is met everywhere, and a given state to the last bit."""
    states = torch.linspace(0.0, 1.0, 8, dtype=torch.float64)[:, None] ** 2
    exact = torch.arange(8, dtype=torch.float64) * 0.7 / 7
    assert torch.equal(at_times(states, exact, 0.7), states)
    halves = at_times(states, exact[:-1] + 0.05, 0.7)
    torch.testing.assert_close(halves, (states[1:] + states[:-1]) / 2)


def module(forward):
    return type("Block", (torch.nn.Module,), {"forward": forward})()


def test_functions_of_time():
    class Both(torch.nn.Module):
        def forward(self, t, u, gain=1.0):
            return gain * t * u

    assert takes_time(Both())
    assert not takes_time(torch.nn.Sequential(Both()))
    assert not takes_time(module(lambda self, u, *rest, **named: u))
    for forward, told in (
        (lambda self, a, b, c: a, r"\(a, b, c\)"),
        (lambda self, u, *, gain: u, r"\(u, \*, gain\)"),
        (lambda self, *states: states[0], r"\(\*states\)"),
    ):
        with pytest.raises(TypeError, match=f"Block.forward takes {told}; a block must take"):
            takes_time(module(forward))


@pytest.mark.parametrize("name", ["t", "T", "time", "_t", "t_", "_time", "_"])
def test_names_of_time(name):
    scope = {}
    exec(f"def forward(self, {name}, u): return u", scope)
    assert takes_time(module(scope["forward"]))


@pytest.mark.parametrize("names", ["u, mask", "u, t", "x, time", "tau, u", "times, u", "state, _"])
def test_another_second_argument_is_no_time(names):
    """Such a block was once given the time as its state."""
    scope = {}
    exec(f"def forward(self, {names}): return u", scope)
    with pytest.raises(
        TypeError, match=rf"Block.forward takes \({names}\); a block F\(t, u\) must"
    ):
        takes_time(module(scope["forward"]))


def test_needed_arguments():
    block = module(lambda self, a, b, c=1, *rest, d, e=2, **named: a)
    assert [each.name for each in needed_arguments(block)] == ["a", "b", "d"]


def test_states_at_any_time_are_those_of_numpy():
    states = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    asked = torch.tensor([0.0, 0.01, 0.09, 0.1 + 1e-4, 0.27, 0.31, 0.55, 0.699, 0.7]).double()
    given = np.arange(8) * 0.1
    expected = np.stack([np.interp(asked, given, column) for column in states.T.numpy()], 1)
    np.testing.assert_allclose(at_times(states, asked, 0.7), expected, rtol=1e-12, atol=1e-13)


def relu_first(u):
    return torch.nn.functional.relu(u, inplace=True).tanh()


@pytest.mark.parametrize("scheme", POWERS)
@pytest.mark.parametrize(
    "edit",
    [relu_first, lambda u: u.add_(1.0), lambda u: u[:, :1].mul_(2.0) * u, lambda u: u.T.neg_().T],
)
@pytest.mark.parametrize("grad", [True, False])
def test_a_block_that_edits_its_state_is_refused(scheme, edit, grad):
    """`u + s F(u)` would add to the edited state, and the caller's tensor would be edited."""
    u = torch.ones(2, 3, requires_grad=grad) * 1.0
    with pytest.raises(
        ValueError, match="the block edits its state in place; it must not change it"
    ):
        advance(scheme, lambda t, u: edit(u), 0.0, u, 0.5)


@pytest.mark.parametrize("given", [None, 1.0, [1.0], np.ones((2, 3))])
def test_a_block_gives_a_tensor(given):
    with pytest.raises(TypeError, match="the block gave .*; it must give a tensor"):
        advance("euler", lambda t, u: given, 0.0, torch.ones(2, 3), 0.5)


def test_edits_of_what_a_block_made_itself_are_fine():
    def block(t, u):
        return torch.nn.functional.relu(2.0 * u, inplace=True).add_(1.0)

    assert advance("euler", block, 0.0, torch.ones(2), 1.0).tolist() == [4.0, 4.0]
    with torch.inference_mode():
        assert advance("euler", block, 0.0, torch.ones(2), 1.0).tolist() == [4.0, 4.0]


class Output(NamedTuple):
    state: torch.Tensor
    attentions: None = None


@pytest.mark.parametrize("scheme", POWERS)
@pytest.mark.parametrize(
    "wrap", [lambda u: (u,), lambda u: (u, None), lambda u: (u, None, (), [], {}), Output]
)
def test_a_tuple_with_a_state_alone_is_the_state(scheme, wrap):
    u = torch.rand(2, 3)
    expected = advance(scheme, lambda t, u: u.sin(), 0.0, u, 0.5)
    assert torch.equal(advance(scheme, lambda t, u: wrap(u.sin()), 0.0, u, 0.5), expected)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            lambda u: (u, u[:, :1]),
            r"of a tensor of shape \(2, 3\), a tensor of shape \(2, 1\); only",
        ),
        (lambda u: (u, None, (u,)), r"of a tensor of shape \(2, 3\), None, tuple; only the first"),
        (lambda u: (u, 0.0), r"a tensor of shape \(2, 3\), float; only the first"),
        (lambda u: (None, None), "gave NoneType for a state of shape"),
        (lambda u: (), "gave tuple for a state of shape"),
        (lambda u: [u], "gave list for a state of shape"),
    ],
)
@pytest.mark.parametrize(
    ("scheme", "late"),
    [
        ("euler", 0),
        ("heun", 1),
        ("midpoint", 1),
        ("heun3", 2),
        ("rk4", 1),
        ("rk4", 3),
        ("rk4_38", 2),
    ],
)
def test_a_tuple_with_more_is_refused_at_every_stage(given, words, scheme, late):
    calls = iter(range(4))

    def block(t, u):
        return given(u) if next(calls) == late else (u,)

    with pytest.raises(TypeError, match=words):
        advance(scheme, block, 0.0, torch.ones(2, 3), 0.5)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_every_stage_keeps_the_shape(stage):
    calls = iter(range(4))

    def block(t, u):
        return u[:1] if next(calls) == stage else u

    with pytest.raises(
        ValueError, match=r"a tensor of shape \(1, 3\) for a state of shape \(2, 3\)"
    ):
        advance("rk4", block, 0.0, torch.ones(2, 3), 0.5)
