"""Fixed inputs with their derivatives, and what residuals of plain networks are given."""

import pytest
import torch

from mgnet.training.equations.carried import FixedInputs, carried_derivatives, check_only_carried
from mgnet.training.equations.derivatives import Ansatz, Composed
from mgnet.training.equations.mlp_derivatives import MLPDerivatives, NotCarriedError


def features(x):
    return torch.cat([x[:, :1] ** 2 * x[:, 1:], torch.sin(x)], 1)


def drawn(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(5, 2, dtype=torch.float64, generator=generator)


def test_features_and_their_derivatives():
    x = drawn()
    inputs = FixedInputs(x, features)
    a, b = x[:, :1], x[:, 1:]
    none = torch.zeros_like(a)
    expected = {
        (): torch.cat([a**2 * b, a.sin(), b.sin()], 1),
        (1,): torch.cat([a**2, none, b.cos()], 1),
        (0, 0): torch.cat([2.0 * b, -a.sin(), none], 1),
        (0, 1): torch.cat([2.0 * a, none, none], 1),
    }
    for axes, value in expected.items():
        torch.testing.assert_close(inputs.d(*axes), value)
        assert not inputs.d(*axes).requires_grad
    assert inputs.value is inputs.d()
    assert FixedInputs(x).d(1).tolist() == [[0.0, 1.0]] * 5


def test_they_hold_for_the_same_points_and_features():
    x = drawn()
    inputs = FixedInputs(x, features)
    assert inputs.hold(x, features) and not inputs.hold(x, torch.sin)
    assert not inputs.hold(x, None) and FixedInputs(x).hold(x, None)
    assert not inputs.hold(x.clone(), features) and not FixedInputs(x).hold(x.clone(), None)
    x.add_(1.0)
    assert not inputs.hold(x, features)


def test_what_was_made_is_kept():
    network, x, known = Ansatz(torch.nn.Linear(3, 1).double(), features=features), drawn(), {}
    first = carried_derivatives(network, x, known)
    first.d(0)
    kept = known[id(x)]
    second = carried_derivatives(network, x, known)
    assert isinstance(second, Composed) and second.inner.inputs is kept  # type: ignore
    assert kept.asked == {(0,)}
    plain = carried_derivatives(torch.nn.Linear(2, 1).double(), x, known)
    assert isinstance(plain, MLPDerivatives) and known[id(x)] is not kept


def test_refusals():
    x, network = drawn(), torch.nn.Linear(2, 1).double()
    with pytest.raises(NotCarriedError, match="features that depend on parameters"):
        carried_derivatives(Ansatz(network, features=lambda x: x * network.bias), x, {})
    with pytest.raises(NotCarriedError, match="does more"):
        carried_derivatives(Ansatz(network, features=torch.nn.Linear(2, 2).double()), x, {})
    u = carried_derivatives(network, x, {})
    check_only_carried(network, [u.value], [[u]])
    with pytest.raises(NotCarriedError, match="call the network"):
        check_only_carried(network, [u.value, u.d(0) + network(x)], [[u]])
    u.points.requires_grad_()
    with pytest.raises(NotCarriedError, match="by the points"):
        check_only_carried(network, [u.value], [[u]])
