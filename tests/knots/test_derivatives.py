"""Derivatives of a KAN by its inputs, and of residuals by its parameters, against autograd."""

import math

import pytest
import torch

from mgnet.knots import KAN
from mgnet.training.equations.derivatives import Ansatz, derivatives_of

AXES = [(), (0,), (1,), (0, 0), (1, 0), (1, 1)]


def by_autograd(network, x, axes):
    """Output by output, from torch alone."""
    x = x.detach().requires_grad_()
    columns = []
    for column in network(x).unbind(1):
        for axis in axes:
            (gradient,) = torch.autograd.grad(column.sum(), x, create_graph=True)
            column = gradient[:, axis]
        columns.append(column)
    return torch.stack(columns, 1)


def networks():
    made = torch.Generator().manual_seed(3)
    plain = KAN([2, 3, 2], 4, 3, generator=made)
    deep = KAN([2, 3, 3, 1], 5, 5, linear=True, domain=(-2.0, 3.0), generator=made)
    untouched = KAN([2, 3, 1], 3, 4, hidden="identity", generator=made)
    inner = KAN([3, 3, 1], 4, 4, generator=made)
    wrapped = Ansatz(
        inner,
        output=lambda x, y: torch.exp(y * x[:, :1]) + torch.sin(x[:, 1:]) * y**2,
        features=lambda x: torch.cat(
            [torch.cos(math.pi * x[:, :1]), x[:, 1:], x[:, :1] * x[:, 1:]], 1
        ),
        coefficients={"nu": 0.3, "c": -1.0},
    )
    return {"plain": plain, "deep": deep, "identity": untouched, "ansatz": wrapped}


@pytest.mark.parametrize("name", networks())
def test_derivatives_are_those_of_autograd(name):
    network = networks()[name]
    x = 2.4 * torch.rand(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x - 1.2  # some lie beyond the domain, where splines go on linearly
    u = derivatives_of(network, x)
    for axes in AXES:
        torch.testing.assert_close(u.d(*axes), by_autograd(network, x, axes), rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("name", networks())
def test_rows_of_the_jacobian_are_those_of_autograd(name):
    network = networks()[name]
    x = 1.8 * torch.rand(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = x - 0.9
    parameters = list(network.parameters())

    def residual(value, d):
        nu = network.coefficients["nu"] if name == "ansatz" else 1.0
        return (value * d[0] + d[1] ** 2 - nu * d[0, 0] + d[0, 1] * d[1, 1]).sum(1)

    u = derivatives_of(network, x)
    d = {(axes if len(axes) == 2 else axes[0]): u.d(*axes) for axes in AXES[1:]}
    d[0, 1] = d[1, 0]
    if name == "ansatz":
        nu = u.coefficients["nu"]
        r = (u.value * d[0] + d[1] ** 2 - nu * d[0, 0] + d[0, 1] * d[1, 1]).sum(1)
    else:
        r = residual(u.value, d)
    J = torch.zeros(len(x), sum(p.numel() for p in parameters), dtype=torch.float64)
    u.add_jacobian(r, J)

    oracle = {
        (axes if len(axes) == 2 else axes[0]): by_autograd(network, x, axes) for axes in AXES[1:]
    }
    oracle[0, 1] = oracle[1, 0]
    expected = residual(network(x), oracle)
    torch.testing.assert_close(r, expected, rtol=1e-10, atol=1e-10)
    for row, entry in zip(J, expected, strict=True):
        gradients = torch.autograd.grad(
            entry, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        whole = torch.cat([g.flatten() for g in gradients])
        torch.testing.assert_close(row, whole, rtol=1e-9, atol=1e-9 * float(whole.abs().max()))


def test_evaluation_without_gradients():
    network = networks()["ansatz"]
    x = torch.rand(4, 2, dtype=torch.float64)
    with torch.no_grad():
        inside = derivatives_of(network, x).d(0, 1)
    torch.testing.assert_close(inside, by_autograd(network, x, (0, 1)))
