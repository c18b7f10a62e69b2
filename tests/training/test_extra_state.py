"""Law: options of a network survive a state_dict as a tensor, and another value is refused."""

import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from mgnet.training.extra_state import allow_without_extra_state, check_options, decode, encode

CONVERSIONS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64]


def drawn(rng, depth=2):
    """Whatever JSON can hold."""
    leaves = [
        lambda: rng.choice([None, True, False]),
        lambda: rng.randint(-(10**12), 10**12),
        lambda: rng.uniform(-1, 1) * 10.0 ** rng.randint(-300, 300),
        lambda: "".join(rng.choice('ab "\\é漢\n') for _ in range(rng.randint(0, 400))),
    ]
    if depth and rng.random() < 0.5:
        return [drawn(rng, depth - 1) for _ in range(rng.randint(0, 4))]
    return rng.choice(leaves)()


@pytest.mark.parametrize("seed", range(20))
def test_what_was_encoded_comes_back_after_every_conversion(seed):
    rng = random.Random(seed)
    told = {f"option{n}": drawn(rng) for n in range(rng.randint(0, 8))}
    state = encode(told)
    assert state.dtype == torch.uint8 and len(state) % 1024 == 0
    for dtype in CONVERSIONS:
        assert decode(state.to(dtype)) == told


def test_an_encoded_state_is_on_the_cpu_whatever_the_default_device():
    with torch.device("meta"):
        assert decode(encode({"a": 1})) == {"a": 1}


@pytest.mark.parametrize(
    "state", [torch.zeros(0), torch.zeros(2), torch.tensor([91, 93]), torch.full((5,), 300.5)]
)
def test_another_tensor_is_no_extra_state(state):
    with pytest.raises(ValueError, match="holds no options"):
        decode(state)


@pytest.mark.parametrize("seed", range(10))
def test_every_option_that_differs_is_named_with_both_values(seed):
    rng = random.Random(seed)
    own = {f"option{n}": drawn(rng) for n in range(5)}
    saved = json.loads(json.dumps(own))
    check_options("Network", saved, own)
    changed = rng.sample(sorted(own), rng.randint(1, 3))
    for name in changed:
        saved[name] = ["changed", name]
    with pytest.raises(RuntimeError) as caught:
        check_options("Network", saved, own)
    for name in own:
        both = f"{name}=['changed', '{name}']", f"{name}={own[name]!r}"
        assert [text in str(caught.value) for text in both] == [name in changed] * 2


def test_tuples_are_lists_and_older_states_say_less():
    check_options("Network", {"domain": [0.0, 1.0]}, {"domain": (0.0, 1.0), "later": 1})


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (0.3, 0.1 + 0.2, True),
        ([0.0, 0.3], [0.0, 0.1 + 0.2], True),
        (1.0, 1, True),
        (1.0, 1.0 + 1e-9, False),
        ([0.0], [0.0, 0.0], False),
        (0.0, 1e-300, False),
        ("1", 1, False),
        (None, 0.0, False),
    ],
)
def test_numbers_may_differ_by_rounding_only(a, b, same):
    if same:
        check_options("Network", {"x": a}, {"x": b})
    else:
        with pytest.raises(RuntimeError, match="with x="):
            check_options("Network", {"x": a}, {"x": b})


@pytest.mark.parametrize("weight", [0.5, 0.9, 0.999, 1.0 / 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mean_of_equal_states_is_that_state(weight, dtype):
    """As averages of weights are often made: over all entries of a state_dict."""
    state = encode({"domain": [-1.0, 2.5], "hidden": "tanh"})
    mean = weight * state.to(dtype) + (1.0 - weight) * state.to(dtype)
    assert decode(mean) == decode(state)


def test_numbers_of_numpy_and_of_no_value():
    options = {"degree": np.int64(3), "steps": (np.float32(0.5), np.float64(2.0)), "x": np.nan}
    told = decode(encode(options))
    check_options("Network", told, options)
    with pytest.raises(RuntimeError, match="with x=1.0, but this one has x=nan"):
        check_options("Network", {"x": 1.0}, options)


@pytest.mark.parametrize("state", [{"degree": 3}, b"degree", np.zeros(1024, np.uint8)])
def test_what_is_no_tensor(state):
    with pytest.raises(ValueError, match=f"is of type {type(state).__name__}; it must be the tens"):
        decode(state)


def test_an_option_that_the_network_does_not_know_is_refused():
    with pytest.raises(RuntimeError, match="with later=2, but this one has no such option"):
        check_options("Network", {"later": 2}, {"degree": 3})


class Saved(nn.Linear):
    """A module that uses all four functions."""

    loaded = None

    def get_extra_state(self):
        return encode({"size": self.in_features})

    def set_extra_state(self, state):
        self.loaded = decode(state)

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, *rest):
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, *rest)
        allow_without_extra_state(prefix, missing)


@pytest.mark.parametrize("strict", [True, False])
def test_states_without_options_load(strict):
    net, other = (nn.Sequential(Saved(2, 2), Saved(2, 2)) for _ in range(2))
    state = other.state_dict()
    del state["1._extra_state"]
    assert not any(net.load_state_dict(state, strict=strict))
    assert net[0].loaded == {"size": 2} and net[1].loaded is None
    del state["0.bias"]
    assert net.load_state_dict(state, strict=False).missing_keys == ["0.bias"]
