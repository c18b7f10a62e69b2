"""Derivatives of any module, and of networks within an ansatz."""

import math

import pytest
import torch

from mgnet.training.equations.derivatives import Ansatz, Composed, Points, carries, derivatives_of


def tanh_network(inputs=2, outputs=2):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(inputs, 5), torch.nn.Tanh(), torch.nn.Linear(5, outputs)
    ).double()


def test_any_module_against_torch_func():
    network, x = tanh_network(), torch.rand(6, 2, dtype=torch.float64)
    u = derivatives_of(network, x)
    first = torch.func.vmap(torch.func.jacfwd(network))(x)
    second = torch.func.vmap(torch.func.hessian(network))(x)
    torch.testing.assert_close(u.d(1), first[:, :, 1])
    torch.testing.assert_close(u.d(0, 1), second[:, :, 0, 1])
    torch.testing.assert_close(u.d(1, 1), second[:, :, 1, 1])
    assert not carries(network)


def test_composition_by_hand():
    x = torch.rand(5, 2, dtype=torch.float64)
    a, b = x[:, :1], x[:, 1:]
    product = Composed(lambda p, _: p[:, :1] ** 2 * p[:, 1:], Points(x))
    whole = Composed(lambda p, y: torch.sin(y) * p[:, 1:], product)
    inner, cosine, sine = a**2 * b, torch.cos(a**2 * b), torch.sin(a**2 * b)
    torch.testing.assert_close(whole.value, sine * b)
    torch.testing.assert_close(whole.d(0), cosine * 2.0 * a * b * b)
    torch.testing.assert_close(whole.d(0, 0), 2.0 * b**2 * cosine - 4.0 * inner * b**2 * sine)
    mixed = 4.0 * a * b * cosine - sine * a**2 * 2.0 * a * b**2
    torch.testing.assert_close(whole.d(1, 0), mixed)
    torch.testing.assert_close(whole.d(0, 1), mixed)


def test_points_are_the_identity():
    assert Points(torch.zeros(2, 3)).d(1).tolist() == [[0.0, 1.0, 0.0]] * 2
    assert not Points(torch.zeros(2, 3)).d(0, 0).any()


def test_hard_constraint_and_coefficients():
    network = Ansatz(
        tanh_network(3, 1),
        output=lambda x, y: torch.sin(math.pi * x[:, :1]) + x[:, 1:] * y,
        features=lambda x: torch.cat([x, x[:, :1] ** 2], 1),
        coefficients={"nu": 0.25},
    )
    x = torch.stack([torch.linspace(-1, 1, 9), torch.zeros(9)], 1).double()
    torch.testing.assert_close(network(x), torch.sin(math.pi * x[:, :1]))
    assert [name for name, _ in network.named_parameters()][-1] == "coefficients.nu"
    assert network.coefficients["nu"].item() == 0.25
    torch.testing.assert_close(
        derivatives_of(network, x).d(0), math.pi * torch.cos(math.pi * x[:, :1])
    )


@pytest.mark.parametrize("axes", [(0,), (0, 1)])
def test_derivatives_go_on_to_the_parameters(axes):
    network = tanh_network()
    u = derivatives_of(network, torch.rand(4, 2, dtype=torch.float64))
    assert torch.autograd.grad(u.d(*axes).sum(), network[0].weight)[0].abs().sum() > 0
