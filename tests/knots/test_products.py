"""The three sums of a spline layer are those with SciPy's splines, in every form."""

import numpy as np
import pytest
import torch

from mgnet.knots import products

DOMAIN = (-1.0, 2.0)
FORMS = [4, products.DENSE + 5]  # intervals: with all splines, and with few of them


def random(*shape):
    return torch.from_numpy(np.random.default_rng(sum(shape)).standard_normal(shape))


@pytest.mark.parametrize("intervals", FORMS)
@pytest.mark.parametrize("degree", [1, 3, 5])
@pytest.mark.parametrize("order", [0, 1, 2, 6])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_over_scipys_splines(scipy_basis, intervals, degree, order, weighted):
    x = random(30, 3) + 0.5  # some beyond the ends
    U, g = random(3, intervals + degree, 2), random(30, 2)
    h = random(30, 3) if weighted else None
    basis = torch.from_numpy(scipy_basis(x.numpy(), intervals, degree, DOMAIN, order))
    weights = torch.ones_like(x) if h is None else h
    first, plain = products.local_values(x, intervals, degree, DOMAIN, order)
    first, values = products.local_values(x, intervals, degree, DOMAIN, order, h)
    sums = {
        "nq": products.layer(first, values, U),
        "np": products.pull(first, plain, U, g),
        "piq": products.scatter(first, values, g, intervals + degree),
    }
    expected = {
        "nq": torch.einsum("npi,np,piq->nq", basis, weights, U),
        "np": torch.einsum("npi,piq,nq->np", basis, U, g),
        "piq": torch.einsum("npi,np,nq->piq", basis, weights, g),
    }
    for name, value in expected.items():
        scale = 1.0 + float(value.abs().max())
        torch.testing.assert_close(sums[name], value, rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("intervals", FORMS)
def test_blocks_of_samples_change_nothing(intervals, monkeypatch):
    x, U, g = random(50, 3), random(3, intervals + 3, 2), random(50, 2)
    first, values = products.local_values(x, intervals, 3, DOMAIN, 0)
    whole = products.pull(first, values, U, g), products.scatter(first, values, g, U.shape[1])
    monkeypatch.setattr(products, "BUDGET", 300)
    parts = products.pull(first, values, U, g), products.scatter(first, values, g, U.shape[1])
    for part, all_at_once in zip(parts, whole, strict=True):
        torch.testing.assert_close(part, all_at_once)


@pytest.mark.parametrize("intervals", FORMS)
def test_no_samples(intervals):
    x, U = torch.empty(0, 2), torch.ones(2, intervals + 3, 4)
    first, values = products.local_values(x, intervals, 3, DOMAIN, 0)
    assert products.layer(first, values, U).shape == (0, 4)
    assert products.pull(first, values, U, torch.empty(0, 4)).shape == (0, 2)
    assert not products.scatter(first, values, torch.empty(0, 4), intervals + 3).any()
