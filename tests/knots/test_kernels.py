"""The compiled loops give what plain torch gives, for every width of the vectors."""

import os

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from mgnet.knots import kernels, products  # noqa: E402

DOMAIN = (-1.0, 2.0)


def pieces(x, intervals, degree, order):
    return kernels.pieces(x, intervals, degree, DOMAIN, order)


def problem(samples, inputs, intervals, degree, outputs, dtype=torch.float64):
    rng = np.random.default_rng(outputs)
    shapes = (samples, inputs), (inputs, intervals + degree, outputs), (samples, outputs)
    x, U, g = (torch.from_numpy(rng.standard_normal(shape)).to(dtype) for shape in shapes)
    return x + 0.5, U, g, torch.from_numpy(rng.standard_normal(shapes[0])).to(dtype)


@pytest.mark.parametrize("outputs", [1, 8, 37, 96])  # scalars, one vector, both, blocks of four
@pytest.mark.parametrize(("degree", "intervals"), [(3, 5), (3, 200), (1, 4), (5, 1)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("order", [0, 2])
def test_the_sums(outputs, degree, intervals, weighted, order):
    x, U, g, h = problem(170, 18, intervals, degree, outputs)
    h = h if weighted else None
    spline = intervals, degree, DOMAIN
    here = pieces(x, intervals, degree, order)
    above = pieces(x, intervals, degree, order + 1)
    first, values = products.local_values(x, *spline, order, h)
    _, slopes = products.local_values(x, *spline, order + 1)
    v, V = kernels.adjoint(x, U, g, h, intervals, DOMAIN, above, here)
    for mine, other in (
        (kernels.layer(x, U, h, intervals, DOMAIN, here), products.layer(first, values, U)),
        (v, products.pull(first, slopes, U, g)),
        (V, products.scatter(first, values, g, U.shape[1])),
    ):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11 * float(other.abs().max()))


def test_only_what_is_asked_for():
    x, U, g, _ = problem(40, 2, 6, 3, 16)
    one = pieces(x, 6, 3, 0)
    both = kernels.adjoint(x, U, g, None, 6, DOMAIN, one, one)
    v, none = kernels.adjoint(x, U, g, None, 6, DOMAIN, one, None)
    empty, V = kernels.adjoint(x, U, g, None, 6, DOMAIN, None, one)
    assert torch.equal(v, both[0]) and torch.equal(V, both[1])
    assert not none.numel() and not empty.numel()


def test_single_precision():
    x, U, g, _ = problem(300, 4, 7, 3, 40, torch.float32)
    wide = [tensor.double() for tensor in (x, U, g)]
    y = kernels.layer(x, U, None, 7, DOMAIN, pieces(x, 7, 3, 0))
    exact = kernels.layer(*wide[:2], None, 7, DOMAIN, pieces(wide[0], 7, 3, 0))
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [2, 3, 64])  # of more threads than there are inputs, few work
@pytest.mark.parametrize("found", [True, False], ids=["torch's threads", "threads of ours"])
@pytest.mark.parametrize("intervals", [5, 40, 90])  # dealt to buckets, four or one; sorted
def test_bits_do_not_depend_on_the_threads(threads, found, intervals, monkeypatch):
    monkeypatch.setattr(kernels, "WORTH", 0)
    monkeypatch.setattr(kernels, "WORTH_OF_OURS", 0)
    if not found:
        monkeypatch.setattr(kernels, "openmp", lambda: (0, 0, 0))
    x, U, g, h = problem(1500, 35, intervals, 3, 40)
    one = pieces(x, intervals, 3, 0)
    before = torch.get_num_threads()
    results = []
    for count in (1, threads):
        torch.set_num_threads(count)
        y = kernels.layer(x, U, h, intervals, DOMAIN, one)
        results.append((y, *kernels.adjoint(x, U, g, h, intervals, DOMAIN, one, one)))
    torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_layouts_and_bad_numbers():
    x, U, _, _ = problem(20, 3, 5, 3, 8)
    one = pieces(x, 5, 3, 0)
    turned = kernels.layer(x.T.contiguous().T, U, None, 5, DOMAIN, one)
    assert torch.equal(turned, kernels.layer(x, U, None, 5, DOMAIN, one))
    x[4, 1] = float("nan")
    x[5, 1] = float("inf")
    y = kernels.layer(x, U, None, 5, DOMAIN, one)
    assert y[4].isnan().all() and not y[5].isfinite().any()
    y[4:6] = 0.0
    assert y.isfinite().all()
    for order in (1, 2):
        y = kernels.layer(x, U, None, 5, DOMAIN, pieces(x, 5, 3, order))
        assert y[4].isnan().all() and y[5].isfinite().all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_makes_its_own_threads(monkeypatch):
    monkeypatch.setattr(kernels, "WORTH", 0)
    monkeypatch.setattr(kernels, "WORTH_OF_OURS", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    x, U, g, _ = problem(300, 5, 9, 3, 40)
    one = pieces(x, 9, 3, 0)
    kernels.layer(x, U, None, 9, DOMAIN, one)  # the threads of this process are there
    parts = []
    loop = lambda start, stop: parts.append((start, stop))  # noqa: E731
    child = os.fork()
    if child == 0:  # no torch in here: its own threads do not survive
        kernels._share(loop, None, (), 4, 1)
        kernels._share(loop, None, (), 4, 1)
        os._exit(0 if sorted(parts) == [(0, 2), (0, 2), (2, 4), (2, 4)] else 1)
    assert os.waitpid(child, 0)[1] == 0
