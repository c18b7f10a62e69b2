"""Law: a state takes the place of another one only where it can."""

import math
from collections import Counter

import pytest
import torch

from mgnet.petsc.saved_states import _alike, check_network, check_scheduler, first_difference
from mgnet.training.extra_state import encode


@pytest.mark.parametrize(
    ("saved", "own", "answer"),
    [
        (1, 0.5, True),
        (torch.tensor(0.1), 0.1, True),
        (torch.ones(2), 0.1, False),
        (True, 0.1, False),
        (1, True, False),
        (None, True, True),
        (3, None, True),
        ("x", None, False),
        ({}, None, False),
        ((0.9, 0.9), (0.9, 0.99), True),
        ((0.9,), (0.9, 0.99), False),
        ((0.9, "x"), (0.9, 0.99), False),
        ([1, 2, 3], [1], True),
        (["x"], [1], False),
        ([1], (1,), False),
        (Counter(), {}, False),
        ("min", "max", True),
    ],
)
def test_kinds_of_options(saved, own, answer):
    assert _alike(saved, own) is answer


def extra(**told):
    return {"x_extra_state": encode(told)}


@pytest.mark.parametrize(
    ("saved", "now", "path"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, ""),
        ({"a": 1, "b": 2}, {"a": 1}, "b"),
        ({"a": [1, {"b": -0.0}]}, {"a": [1, {"b": 0.0}]}, "a.1.b"),
        ({"a": math.nan}, {"a": math.nan}, ""),
        ({"a": [1]}, {"a": [1, 2]}, "a"),
        ({"a": (1,)}, {"a": [1]}, "a"),
        ({"a": 1}, {"a": True}, "a"),
        ({"a": torch.tensor([math.nan, -0.0])}, {"a": torch.tensor([math.nan, -0.0])}, ""),
        ({"a": torch.tensor([0.0])}, {"a": torch.tensor([-0.0])}, "a"),
        ({"a": torch.ones(2)}, {"a": torch.ones(2).double()}, "a"),
        ({"a": torch.ones(2)}, {"a": torch.ones(1, 2)}, "a"),
        ({"a": torch.ones(2)}, {"a": 1.0}, "a"),
        ({"x_extra_state": torch.ones(2)}, {}, "x_extra_state"),
        ({"x_extra_state": torch.ones(2)}, {"x_extra_state": torch.ones(2)}, ""),
        ({"x_extra_state": b"1"}, {"x_extra_state": b"2"}, "x_extra_state"),
        (extra(seed=3), extra(seed=3, more=1), ""),
        (extra(seed=3), extra(seed=4), "x_extra_state"),
        (extra(sued=3), extra(seed=0), "x_extra_state"),
        (extra(options={"t": 0.3}), extra(options={"t": 0.1 + 0.2, "more": 1}), ""),
        (extra(options={"t": 0.3}), extra(options={"t": 0.31}), "x_extra_state"),
        (extra(options=3), extra(options={}), "x_extra_state"),
    ],
)
def test_the_first_difference(saved, now, path):
    assert first_difference(saved, now) == path


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.complex64, torch.float8_e5m2]
)
def test_weights_of_any_precision_must_be_finite(dtype):
    good, bad = (torch.tensor([1.0, value]).to(dtype) for value in (2.0, math.inf))
    check_network({"a": good}, {"a": good}, set(), 4)
    with pytest.raises(ValueError, match="its weights 'a' are not finite"):
        check_network({"a": bad}, {"a": good}, set(), 4)


def test_a_scheduler_of_ones_own_takes_what_it_gave():
    class Own:
        def state_dict(self):
            return {}

    check_scheduler({"history": [1, 2]}, Own())
    with pytest.raises(ValueError, match="the state of a scheduler, and none is given"):
        check_scheduler({}, None)
