"""A spline layer is SciPy's sum, and every derivative and transform of torch goes through it."""

import numpy as np
import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from mgnet.knots import layer
from mgnet.knots.layer import spline_layer

DOMAIN = (-1.0, 2.0)
N, DEGREE = 6, 3


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def form(request, monkeypatch):
    if request.param == "compiled" and not layer.compiled:
        pytest.skip("needs numba")
    monkeypatch.setattr(layer, "compiled", request.param == "compiled")


def problem(samples=7, inputs=2, outputs=3):
    rng = np.random.default_rng(0)
    x = torch.from_numpy(4.0 * rng.random((samples, inputs)) - 1.5)
    return x, torch.from_numpy(rng.standard_normal((inputs, N + DEGREE, outputs)))


def apply(x, U):
    return spline_layer(x, U, N, DEGREE, DOMAIN)


@pytest.mark.parametrize("shape", [(7,), (3, 4), ()])
def test_a_layer_is_the_sum_of_its_edges(scipy_basis, shape):
    x, U = problem(samples=int(np.prod(shape)))
    basis = torch.from_numpy(scipy_basis(x.numpy(), N, DEGREE, DOMAIN))
    expected = torch.einsum("npi,piq->nq", basis, U)
    y = apply(x.reshape(*shape, 2), U)
    torch.testing.assert_close(y, expected.reshape(*shape, 3), rtol=0, atol=1e-11)


def test_derivatives_of_first_and_second_order():
    x, U = (tensor.requires_grad_() for tensor in problem())
    assert torch.autograd.gradcheck(apply, (x, U))
    assert torch.autograd.gradgradcheck(apply, (x, U))


def test_the_third_derivative_of_a_cubic_and_the_gradient_of_the_second(scipy_basis):
    x, U = problem(inputs=1, outputs=1)
    x, U = x.requires_grad_(), U.requires_grad_()
    value = apply(x, U)
    for order in range(1, 4):
        (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        basis = torch.from_numpy(scipy_basis(x.detach().numpy(), N, DEGREE, DOMAIN, order))
        torch.testing.assert_close(value, (basis @ U[0]).squeeze(-1), rtol=0, atol=1e-9)
        (by_U,) = torch.autograd.grad(value.square().sum(), U, retain_graph=True)
        expected = 2.0 * basis[:, 0].T @ value.detach()
        torch.testing.assert_close(by_U[0], expected, rtol=0, atol=1e-9)


def test_transforms_of_torch_func():
    x, U = problem()
    by_x, by_U = torch.autograd.functional.jacobian(lambda x, U: apply(x, U).sum(0), (x, U))
    by_x = by_x.transpose(0, 1)  # (samples, outputs, inputs)

    def one(x, U):
        return apply(x.unsqueeze(0), U)[0]

    for jacobian in (jacrev, jacfwd):
        torch.testing.assert_close(vmap(jacobian(one), (0, None))(x, U), by_x)
        each = vmap(jacobian(one, argnums=1), (0, None))(x, U)
        torch.testing.assert_close(each.sum(0), by_U)
        torch.testing.assert_close(jacobian(lambda U: apply(x, U).sum(0))(U), by_U)
    along = jvp(lambda x: apply(x, U), (x,), (torch.ones_like(x),))[1]
    torch.testing.assert_close(along, by_x.sum(-1))
    torch.testing.assert_close(grad(lambda U: apply(x, U).sum())(U), by_U.sum(0))


def test_hessians_and_batches_of_coefficients():
    x, U = problem(outputs=1)

    def scalar(x):
        return apply(x.unsqueeze(0), U)[0, 0]

    expected = torch.stack([torch.autograd.functional.hessian(scalar, row) for row in x])
    torch.testing.assert_close(vmap(hessian(scalar))(x), expected)
    torch.testing.assert_close(vmap(jacrev(jacrev(scalar)))(x), expected)
    two = torch.stack([U, 2.0 * U])
    torch.testing.assert_close(vmap(lambda U: apply(x, U))(two)[1], 2.0 * apply(x, U))


def test_compiled_in_one_graph():
    x, U = (tensor.requires_grad_() for tensor in problem())
    torch._dynamo.reset()
    whole = torch.compile(apply, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(whole(x, U), apply(x, U))
    ours = torch.autograd.grad(whole(x, U).square().sum(), (x, U))
    plain = torch.autograd.grad(apply(x, U).square().sum(), (x, U))
    for mine, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, other)


def test_the_operators_keep_torchs_rules():
    x, U = (tensor.requires_grad_() for tensor in problem())
    g = torch.ones(7, 3, dtype=torch.float64)
    spline = N, DEGREE, *DOMAIN
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(layer._layer_op, (x, U, None, *spline, 0), test_utils=tests)
    torch.library.opcheck(layer._adjoint_op, (x, U, g, x, *spline, 1, 0), test_utils=tests)


def test_precision_and_empty_batches():
    x, U = problem()
    assert apply(x.float(), U.float()).dtype == torch.float32
    assert apply(x[:0], U).shape == (0, 3)


def test_refusals():
    x, U = problem()
    for wrong in ((x[:, :1], U), (x, U[:, 1:])):
        with pytest.raises(ValueError, match="spline_layer got x of shape"):
            apply(*wrong)
    with pytest.raises(TypeError, match=r"convert one of them, as with x.to\(torch.float32\)"):
        apply(x, U.float())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda():
    x, U = (tensor.requires_grad_() for tensor in problem())
    far = [tensor.detach().cuda().requires_grad_() for tensor in (x, U)]
    torch.testing.assert_close(apply(*far).cpu(), apply(x, U))
    ours = torch.autograd.grad(apply(*far).square().sum(), far)
    near = torch.autograd.grad(apply(x, U).square().sum(), (x, U))
    for mine, other in zip(ours, near, strict=True):
        torch.testing.assert_close(mine.cpu(), other)
