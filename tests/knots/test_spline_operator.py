"""Sparse factors are the dense matrices to rounding, on both sides of the size where they begin."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from mgnet.knots import KAN, knot_transfer, refine_optimizer
from mgnet.knots.refinement import (
    injection_matrix,
    mass_matrix,
    projection_matrix,
    refinement_matrix,
    uniform_knots,
)
from mgnet.knots.spline_operator import LONG, SplineOperator

DEGREES = [1, 2, 3, 4, 5]


def drawn(degree, seed):
    """Intervals of the coarse side and a factor, so that the fine side is near the limit."""
    rng = np.random.default_rng([degree, seed])
    factor = int(rng.choice([2, 3, 5]))
    return (LONG - degree) // factor + seed % 2, factor, rng


def designs(n, degree, factor):
    """Values of all coarse and all fine splines at Gauss points, by SciPy, and root weights."""
    nodes, weights = np.polynomial.legendre.leggauss(degree + 1)
    edges = np.linspace(0.0, 1.0, factor * n + 1)
    half = 0.5 * np.diff(edges)
    x = (0.5 * (edges[1:] + edges[:-1])[:, None] + half[:, None] * nodes).ravel()
    coarse, fine = (
        BSpline.design_matrix(x, uniform_knots(m, degree, (0.0, 1.0)), degree).toarray()
        for m in (n, factor * n)
    )
    return coarse, fine, np.sqrt(half[:, None] * weights).reshape(-1, 1)


@pytest.mark.parametrize("degree", DEGREES)
def test_both_sides_of_the_limit_are_what_scipy_s_splines_say(degree):
    seen = set()
    for seed in range(4):
        n, factor, rng = drawn(degree, seed)
        P = refinement_matrix(n, degree, factor)
        coarse, fine, roots = designs(n, degree, factor)
        u, f = rng.standard_normal((n + degree, 2)), rng.standard_normal((P.shape[0], 2))
        np.testing.assert_allclose(fine @ (P @ u), coarse @ u, rtol=0, atol=1e-12)
        R = projection_matrix(P, mass_matrix(uniform_knots(factor * n, degree, (0.0, 1.0)), degree))
        seen.add(type(R))
        closest = np.linalg.lstsq(roots * coarse, roots * (fine @ f), rcond=None)[0]
        np.testing.assert_allclose(coarse @ (R @ f), coarse @ closest, rtol=0, atol=1e-11)
        J = injection_matrix(P)
        assert type(J) is type(R)
        nearest = np.linalg.lstsq(P.toarray(), f, rcond=None)[0]
        np.testing.assert_allclose(J @ f, nearest, rtol=0, atol=1e-10)
    assert seen == {np.ndarray, SplineOperator}


def test_a_long_transfer_is_the_dense_one_forward_adjoint_and_under_transforms():
    kan = KAN([2, 3, 1], LONG, degree=2, dtype=torch.float32)
    rng = torch.Generator().manual_seed(1)
    long = knot_transfer(kan).parts[0][1]
    assert isinstance(long.P, SplineOperator) and isinstance(long.injection, SplineOperator)
    for matrix, columns in ((long.P, 258), (long.injection, 514), (long._restriction, 514)):
        dense = torch.from_numpy(matrix.toarray())
        u = torch.randn(2, columns, 3, generator=rng)
        out = torch.einsum("ij,pjq->piq", dense, u.double())
        apply = {id(long.P): long.prolong, id(long.injection): long.inject}
        apply = apply.get(id(matrix), long.restrict)
        assert apply(u).dtype == torch.float32
        torch.testing.assert_close(apply(u).double(), out, rtol=0, atol=1e-5)
        several = torch.func.vmap(apply)(torch.stack([u, 2.0 * u]))
        torch.testing.assert_close(several[1], 2.0 * apply(u))
        g = torch.randn(out.shape, generator=rng)
        back = torch.einsum("ij,piq->pjq", dense, g.double())
        vjp = torch.func.vjp(apply, u)[1](g)[0]
        torch.testing.assert_close(vjp.double(), back, rtol=0, atol=1e-5)
        watched = u.clone().requires_grad_()
        apply(watched).backward(g)
        torch.testing.assert_close(watched.grad, vjp)


def test_a_long_network_refines_coarsens_and_carries_its_optimizer_in_linear_memory():
    kan = KAN([1, 2, 1], 20_000)  # dense, a transfer has 6.4 GB
    x = torch.linspace(-1.0, 1.0, 101, dtype=torch.float64).unsqueeze(1)
    optimizer = torch.optim.Adam(kan.parameters())
    kan(x).square().mean().backward()
    optimizer.step()
    fine = kan.refine()
    carried = refine_optimizer(optimizer, kan, fine)
    assert kan.nesting_defect(x) < 1e-13
    back = fine.coarsen()
    with torch.no_grad():
        torch.testing.assert_close(back(x), kan(x), rtol=0, atol=1e-12)
    moments = carried.state[fine.coefficients[0]]
    assert moments["exp_avg"].shape == fine.coefficients[0].shape
    assert float(moments["exp_avg_sq"].min()) >= 0.0


def test_what_is_not_finite_stays_so():
    P = refinement_matrix(LONG, 3)
    R = injection_matrix(P)
    assert not np.isfinite(R @ np.full(P.shape[0], np.nan)).any()


def test_forward_mode():
    generator = np.random.default_rng(3)
    transfer = knot_transfer(KAN([1, 1], 200))
    u, v = torch.from_numpy(generator.normal(size=(2, 203)))
    value, slope = torch.func.jvp(transfer.prolong, (u,), (v,))[:2]
    assert torch.equal(value, transfer.prolong(u)) and torch.equal(slope, transfer.prolong(v))
