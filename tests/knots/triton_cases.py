"""What Triton's kernels must do; `test_triton_kernels.py` runs this file in a process of its own.

Triton decides when it is loaded whether it compiles kernels or interprets them. Interpreted, under
TRITON_INTERPRET=1, they take tensors of the CPU; compiled, those of a GPU.
"""

import numpy as np
import pytest
import torch
from torch.func import jacrev, vmap

from mgnet.knots import layer, products, triton_kernels
from mgnet.knots.layer import spline_layer

INTERPRETED = triton_kernels.triton.knobs.runtime.interpret
DEVICE = "cpu" if INTERPRETED else "cuda"
DOMAIN = (-1.0, 2.0)
GPU_DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def drawn(seed, *shape, dtype=torch.float64):
    numbers = np.random.default_rng(seed).standard_normal(shape)
    return torch.from_numpy(numbers).to(DEVICE, dtype)


def problem(samples, inputs, intervals, degree, outputs, dtype=torch.float64):
    """Samples on both sides of the ends too, coefficients, cotangents, weights."""
    x = drawn(1, samples, inputs, dtype=dtype) * 1.3 + 0.5
    U = drawn(2, inputs, intervals + degree, outputs, dtype=dtype)
    return x, U, drawn(3, samples, outputs, dtype=dtype), drawn(4, samples, inputs, dtype=dtype)


def ours(x, U, g, h, intervals, degree, order):
    here, above = (
        triton_kernels.pieces(x, intervals, degree, DOMAIN, k) for k in (order, order + 1)
    )
    y = triton_kernels.layer(x, U, h, intervals, DOMAIN, here)
    return y, *triton_kernels.adjoint(x, U, g, h, intervals, DOMAIN, above, here)


def plain(x, U, g, h, intervals, degree, order):
    spline = intervals, degree, DOMAIN
    first, values = products.local_values(x, *spline, order, h)
    _, slopes = products.local_values(x, *spline, order + 1)
    return (
        products.layer(first, values, U),
        products.pull(first, slopes, U, g),
        products.scatter(first, values, g, U.shape[1]),
    )


def agree(mine, others, tolerance):
    for a, b in zip(mine, others, strict=True):
        scale = float(b.abs().max()) if b.numel() else 0.0
        torch.testing.assert_close(a.to(b.dtype), b, rtol=0, atol=tolerance * scale + 1e-300)


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_the_sums_are_those_of_plain_torch(degree, order):
    rng = np.random.default_rng([degree, order])
    weighted = (degree + order) % 2 == 0
    samples, inputs, intervals, outputs = rng.integers((1, 1, 1, 1), (71, 4, 11, 12)).tolist()
    x, U, g, h = problem(samples, inputs, intervals, degree, outputs)
    arguments = x, U, g, h if weighted else None, intervals, degree, order
    agree(ours(*arguments), plain(*arguments), 1e-13)


@pytest.mark.parametrize(
    ("samples", "inputs", "intervals", "outputs"),
    [(1, 1, 1, 1), (33, 1, 2, 65), (2, 2, 30, 130), (65, 2, 3, 64)],
)
def test_blocks_of_every_fill(samples, inputs, intervals, outputs):
    x, U, g, h = problem(samples, inputs, intervals, 3, outputs)
    arguments = x, U, g, h, intervals, 3, 0
    agree(ours(*arguments), plain(*arguments), 1e-13)


@pytest.mark.parametrize("degree", [1, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sums_are_those_of_the_compiled_loops(degree, dtype):
    pytest.importorskip("numba")
    from mgnet.knots import kernels

    x, U, g, h = problem(41, 3, 6, degree, 7, dtype)
    near = [tensor.cpu() for tensor in (x, U, g, h)]
    here, above = (kernels.pieces(near[0], 6, degree, DOMAIN, k) for k in (0, 1))
    theirs = (
        kernels.layer(near[0], near[1], near[3], 6, DOMAIN, here),
        *kernels.adjoint(*near, 6, DOMAIN, above, here),
    )
    mine = [tensor.cpu() for tensor in ours(x, U, g, h, 6, degree, 0)]
    agree(mine, theirs, 1e-13 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize("dtype", GPU_DTYPES[1:])
def test_results_are_rounded_once_to_16_bits(dtype):
    x, U, g, h = problem(50, 3, 5, 3, 9, dtype)
    mine = ours(x, U, g, h, 5, 3, 0)
    assert all(tensor.dtype == dtype for tensor in mine)
    wide = plain(*(tensor.double() for tensor in (x, U, g, h)), 5, 3, 0)
    rounding = max(torch.finfo(dtype).eps, 1e-5)
    agree(mine, wide, rounding)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_of_16_bits_are_made_in_single_precision(dtype):
    """In 8 bits, 1 + ... + 1 ends at 256."""
    one = triton_kernels.pieces(torch.ones(1, dtype=dtype, device=DEVICE), 2, 1, DOMAIN, 0)
    x = torch.full((600, 1), -1.0, dtype=dtype, device=DEVICE)
    nothing = x.new_zeros(1, 3, 1)
    _, V = triton_kernels.adjoint(x, nothing, x.new_ones(600, 1), None, 2, DOMAIN, None, one)
    assert V.flatten().tolist() == [600.0, 0.0, 0.0]
    ones = x.new_ones(600, 3, 1)
    assert triton_kernels.layer(x.view(1, 600), ones, None, 2, DOMAIN, one).item() == 600.0


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (4, 2, 0)])
def test_sums_of_nothing(shape):
    samples, inputs, outputs = shape
    x, U, g, h = problem(samples, inputs, 5, 3, outputs)
    for mine, expected in zip(
        ours(x, U, g, h, 5, 3, 0), ((samples, outputs), x.shape, U.shape), strict=True
    ):
        assert mine.shape == expected and not mine.any()


def test_only_what_is_asked_for():
    x, U, g, h = problem(9, 2, 5, 3, 4)
    one = triton_kernels.pieces(x, 5, 3, DOMAIN, 0)
    both = triton_kernels.adjoint(x, U, g, h, 5, DOMAIN, one, one)
    v, none = triton_kernels.adjoint(x, U, g, h, 5, DOMAIN, one, None)
    empty, V = triton_kernels.adjoint(x, U, g, h, 5, DOMAIN, None, one)
    assert torch.equal(v, both[0]) and torch.equal(V, both[1])
    assert none.shape == empty.shape == (0,)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_ends_and_bad_numbers(order):
    x, U, g, h = problem(20, 2, 5, 3, 4)
    ends = [-1.0, 2.0, -9.0, 9.0, 0.2, 1e6, -1e6, -1.0 - 1e-15]
    x[:8, 0] = torch.tensor(ends, dtype=torch.float64)
    arguments = x, U, g, h, 5, 3, order
    for mine, other in zip(ours(*arguments), plain(*arguments), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)
    x[:3, 1] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    y, v, _ = ours(*arguments)
    assert y[0].isnan().all() and v[0, 1].isnan() and v[:, 0].isfinite().all()
    assert y[3:].isfinite().all() and not (order == 0 and y[1:3].isfinite().any())
    assert order == 0 or y[1:3].isfinite().all()


def test_layouts():
    x, U, g, h = problem(20, 3, 5, 3, 4)
    turned = [tensor.mT.contiguous().mT for tensor in (x, U, g, h)]
    assert not any(tensor.is_contiguous() for tensor in turned)
    for mine, other in zip(ours(*turned, 5, 3, 0), ours(x, U, g, h, 5, 3, 0), strict=True):
        assert torch.equal(mine, other)
    one = g[:1, :1].expand(20, 4)
    pairs = zip(ours(x, U, one, h, 5, 3, 0), ours(x, U, one.clone(), h, 5, 3, 0), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("run", [1, 7, 1000])
def test_runs_in_parts(run, monkeypatch):
    """All samples in one interval, in two, and in all; each cut into parts, some of them empty."""
    monkeypatch.setattr(triton_kernels, "RUN", run)
    x, U, g, h = problem(43, 3, 5, 3, 4)
    x[:, 0] = 0.1
    x[:, 1] = torch.where(x[:, 1] > 0.0, 1.9, -0.9)
    arguments = x, U, g, h, 5, 3, 0
    agree(ours(*arguments), plain(*arguments), 1e-13)


def test_bits_are_the_same_again_and_anywhere_in_the_batch():
    x, U, g, h = problem(70, 2, 3, 3, 9, torch.float32)
    once, again = (ours(x, U, g, h, 3, 3, 0) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(once, again, strict=True))
    order = torch.randperm(70, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    y, v, _ = ours(x[order], U, g[order], h[order], 3, 3, 0)
    assert torch.equal(y, once[0][order]) and torch.equal(v, once[1][order])


# Through the layer: the rules of `mgnet.knots.layer` with these kernels


def through(kernels, function, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(layer, "_kernels", lambda x: kernels)
        return function()


def derivatives(degree, dtype):
    """The layer, and every derivative of it up to the third in x and the second in both."""
    x, U, _, _ = problem(5, 2, 2, degree, 2, dtype)
    x, U = x.requires_grad_(), U.requires_grad_()
    value = spline_layer(x, U, 2, degree, DOMAIN)
    values = [value]
    for _ in range(3):
        value, by_U = torch.autograd.grad(value.square().sum(), (x, U), create_graph=True)
        values += [value, by_U]
    return [value.detach() for value in values]


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
def test_derivatives_of_every_order(degree, monkeypatch):
    mine, others = (
        through(kernels, lambda: derivatives(degree, torch.float64), monkeypatch)
        for kernels in (triton_kernels, None)
    )
    agree(mine, others, 1e-11)


def test_finite_differences(monkeypatch):
    monkeypatch.setattr(layer, "_kernels", lambda x: triton_kernels)
    x, U, _, _ = (tensor.requires_grad_() for tensor in problem(4, 2, 2, 3, 2))

    def apply(x, U):
        return spline_layer(x, U, 2, 3, DOMAIN)

    assert torch.autograd.gradcheck(apply, (x, U), fast_mode=True)
    assert torch.autograd.gradgradcheck(apply, (x, U), fast_mode=True)


def test_transforms_and_the_operators_themselves(monkeypatch):
    x, U, _, _ = problem(4, 2, 4, 3, 1)

    def transformed():
        def scalar(x):
            return spline_layer(x.unsqueeze(0), U, 4, 3, DOMAIN)[0, 0]

        by_operators = layer._layer_op(x, U, x, 4, 3, *DOMAIN, 1)
        return vmap(jacrev(scalar))(x), vmap(jacrev(jacrev(scalar)))(x), by_operators

    mine, others = (
        through(kernels, transformed, monkeypatch) for kernels in (triton_kernels, None)
    )
    agree(mine, others, 1e-12)


# Which devices take the kernels


@pytest.fixture
def asked_afresh():
    triton_kernels.runs_on.cache_clear()
    yield
    triton_kernels.runs_on.cache_clear()


def test_devices_that_triton_does_not_support(asked_afresh, monkeypatch):
    device = torch.device(DEVICE)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not triton_kernels.runs_on(device)
    triton_kernels.runs_on.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert triton_kernels.runs_on(device)


def test_a_device_on_which_no_kernel_starts(asked_afresh, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(triton_kernels, "layer", fails)
    with pytest.warns(RuntimeWarning, match="plain torch, .* Failed to find C compiler"):
        assert not triton_kernels.runs_on(torch.device(DEVICE))
