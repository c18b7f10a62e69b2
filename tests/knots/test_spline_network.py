"""The map of hidden values into the domain; KAN is a spline network."""

import math

import pytest
import torch

from mgnet.knots import KAN
from mgnet.knots.spline_network import SplineNetwork, into_domain


@pytest.mark.parametrize("domain", [(-1.0, 1.0), (0.5, 4.0)])
def test_tanh_is_scaled_to_the_domain(domain):
    a, b = domain
    hidden = [-50.0, -0.3, 0.0, 1.2, 50.0]
    expected = [a + (b - a) * (1.0 + math.tanh(h)) / 2.0 for h in hidden]
    mapped = into_domain(torch.tensor(hidden, dtype=torch.float64), "tanh", domain)
    assert mapped.tolist() == pytest.approx(expected, rel=1e-15)


def test_identity_leaves_values_alone():
    hidden = torch.tensor([-9.0, 9.0])
    assert into_domain(hidden, "identity", (0.0, 1.0)) is hidden


def test_a_kan_has_what_a_spline_network_has():
    kan = KAN([2, 3, 1])
    wanted = {*SplineNetwork.__annotations__, "check_inputs", "into_domain"}
    assert all(hasattr(kan, name) for name in wanted)
