"""The options of an ODE net are checked, and its layers counted, before any is made."""

import math

import pytest
import torch

from mgnet.depth.network.net_options import (
    check_layer_count,
    check_net_options,
    check_refined,
    drawn_layer,
)
from mgnet.depth.network.spline_weights import DepthSpline


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((True, 1.0, "euler", "per layer", (0, 0)), "got True layers"),
        ((2, math.inf, "euler", "per layer", (0, 0)), "final_time inf; it must be positive"),
        ((2, 10**400, "euler", "per layer", (0, 0)), "final_time about 1e400"),
        ((2, 1.0, "euler", ["shared"], (0, 0)), r"weights \['shared'\]; give"),
        ((2, 1.0, "euler", "shared", (0, 1.5)), "two numbers, of layers before and after"),
        ((2, 1.0, "euler", DepthSpline(10**15), (0, 0)), "control points .* GiB of memory"),
        ((2, 1.0, "euler", "shared", (0, 0), "equal"), "start 'equal'; give 'independent' or"),
        ((2, 1.0, "euler", "shared", (0, 0), [1]), r"start \[1\]; give 'independent' or"),
    ],
)
def test_what_cannot_be_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        check_net_options(*given)


def test_layers_are_counted_against_the_memory(monkeypatch):
    monkeypatch.setattr("mgnet.limits.machine_memory", lambda: 2**30)
    block = torch.nn.Linear(100, 100)
    check_layer_count(block, 10_000)
    with pytest.raises(ValueError, match="20000 layers of 10100 parameters, 202000000 in all"):
        check_layer_count(block, 20_000)
    made = []
    with pytest.raises(ValueError, match="ODENet got 20000 layers"):
        drawn_layer(lambda n: made.append(n) or block, 0, 20_000)
    assert made == [0]
    check_refined("refinement", 2, 1000, 10**6)
    with pytest.raises(ValueError, match="factor 200: 200000 layers or control points"):
        check_refined("refinement", 200, 1000, 10**6)
