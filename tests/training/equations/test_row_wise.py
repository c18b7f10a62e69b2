"""Rows and columns of Jacobians by few backward passes, against torch.autograd.functional."""

import torch

from mgnet.training.equations.row_wise import columns_by, is_row_wise


def row_wise(function, *arguments):
    values = function(*arguments)
    gradients = torch.autograd.grad(values.sum(), arguments, retain_graph=True, allow_unused=True)
    return is_row_wise(values, arguments, gradients)


def test_functions_of_rows():
    x = torch.rand(9, 3, dtype=torch.float64, requires_grad=True)
    y = torch.rand(9, 1, dtype=torch.float64, requires_grad=True)
    assert row_wise(lambda x, y: (x * y).sum(1), x, y)
    assert row_wise(lambda x, y: x.square().sum(1), x, y)  # y is not used
    assert not row_wise(lambda x, y: (x * y).sum(1) - 1e-3 * y.mean(), x, y)
    assert not row_wise(lambda x, y: x.sum(1).flip(0) + y.squeeze(1), x, y)
    assert row_wise(lambda x, y: x.log().sum(1) + (y - 2.0).sqrt().squeeze(1), x, y)  # NaN


def test_functions_of_entries():
    x = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    assert row_wise(torch.sin, x)
    assert not row_wise(lambda x: x * x.sum(1, keepdim=True), x)


def test_columns():
    x = torch.rand(6, dtype=torch.float64)
    numbers = [torch.tensor(c, dtype=torch.float64, requires_grad=True) for c in (0.5, -1.0, 3.0)]

    def values(a, b, unused):
        return torch.sin(a * x) * b**2

    expected = torch.autograd.functional.jacobian(values, tuple(numbers))
    torch.testing.assert_close(columns_by(numbers, values(*numbers)), torch.stack(expected, 1))
