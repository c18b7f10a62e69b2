"""Blocks are those of the dense matrix, the smoother is Chebyshev on the sum of their inverses."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
import torch

from mgnet import Level
from mgnet.knots import KAN, Patches, kronecker_matrix
from mgnet.knots.local_jacobian import linearize_residual
from mgnet.knots.patches import GaussNewtonMatrix, block_solve, cholesky

GENERATOR = torch.Generator().manual_seed(0)
X = 2.0 * torch.rand(200, 2, generator=GENERATOR, dtype=torch.float64) - 1.0
WIDTHS, N = [2, 3, 2, 1], 5


def matrix(shift=1e-2, intervals=N, gram=False):
    _, J = linearize_residual(KAN(WIDTHS, intervals), lambda kan: torch.sin(kan(X)))
    identity = [sp.eye_array(intervals + 3).tocsr()] * len(J.inputs)
    return GaussNewtonMatrix(J, shift, identity, J.gram() if gram else None)


def expected_unknowns(kind):
    """Of each block, from the shape (inputs, splines, outputs) of the coefficients alone."""
    start = 0
    for p, q in zip(WIDTHS[:-1], WIDTHS[1:], strict=True):
        numbers = start + np.arange(p * (N + 3) * q).reshape(p, N + 3, q)
        start += numbers.size
        for one in numbers:
            if kind == "patch":
                yield from (one[i : i + 4].ravel() for i in range(N))
            elif kind == "edge":
                yield from one.T
            else:
                yield from one.T.reshape(-1, 1)


@pytest.mark.parametrize("kind", ["patch", "edge", "point"])
def test_blocks_are_those_of_the_matrix(kind):
    M = matrix()
    dense = M.J.dense().T @ M.J.dense() + 1e-2 * torch.eye(M.shape[0], dtype=torch.float64)
    made = [
        (own.numpy(), block)
        for index, blocks in M.blocks(kind)
        for own, block in zip(index, blocks, strict=True)
    ]
    unknowns = list(expected_unknowns(kind))
    assert len(made) == len(unknowns)
    for (own, block), theirs in zip(made, unknowns, strict=True):
        np.testing.assert_array_equal(own, theirs)
        np.testing.assert_allclose(block, dense[np.ix_(own, own)], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["patch", "edge", "point"])
@pytest.mark.parametrize(("few", "degree"), [(1, 3), (2, 3), (2, 5), (4, 5)])
def test_a_layer_may_have_fewer_intervals_than_splines_meet(kind, few, degree):
    kan = KAN([2, 2, 1], (9, few), degree)
    _, J = linearize_residual(kan, lambda kan: torch.sin(kan(X)))
    identities = [sp.eye_array(part.splines).tocsr() for part in J.inputs]
    M = GaussNewtonMatrix(J, 1e-2, identities)
    dense = J.dense().T @ J.dense() + 1e-2 * torch.eye(M.shape[0], dtype=torch.float64)
    covered = torch.zeros(M.shape[0])
    for index, blocks in M.blocks(kind):
        for own, block in zip(index, blocks, strict=True):
            torch.testing.assert_close(block, dense[own[:, None], own])
            covered[own] = 1.0
    assert bool(covered.all())


def test_blocks_of_a_coarse_level_have_the_coarse_identity():
    coarse = KAN(WIDTHS, N)
    P = torch.from_numpy(kronecker_matrix(coarse).toarray())
    fine = matrix(shift=0.3, intervals=2 * N)
    one = sp.csr_array(coarse.refinement_matrices()[0])
    M = GaussNewtonMatrix(fine.J.coarsened(), 0.3, [one.T @ one] * len(fine.J.inputs))
    dense = P.T @ fine.dense() @ P
    d = torch.randn(len(dense), generator=GENERATOR, dtype=torch.float64)
    torch.testing.assert_close(M.dense(), dense)
    torch.testing.assert_close(M @ d, dense @ d)
    for kind in ("patch", "edge", "point"):
        for index, blocks in M.blocks(kind):
            for own, block in zip(index, blocks, strict=True):
                torch.testing.assert_close(block, dense[own[:, None], own])


def test_inputs_with_as_many_intervals_may_differ_in_their_identity():
    """The first layer was coarsened, the others have as many intervals from the start."""
    coarse = KAN(WIDTHS, N)
    P = torch.from_numpy(kronecker_matrix(coarse, layers=[0]).toarray())
    _, J = linearize_residual(coarse.refine(layers=[0]), lambda kan: torch.sin(kan(X)))
    chosen = [True] * 2 + [False] * 5
    one, unit = sp.csr_array(coarse.refinement_matrices()[0]), sp.eye_array(N + 3).tocsr()
    identities = [one.T @ one] * 2 + [unit] * 5
    M = GaussNewtonMatrix(J.coarsened(chosen=chosen), 3.0, identities)
    dense = P.T @ (J.gram() + 3.0 * torch.eye(J.shape[1])) @ P
    d = torch.randn(len(dense), generator=GENERATOR, dtype=torch.float64)
    torch.testing.assert_close(M.dense(), dense)
    torch.testing.assert_close(M @ d, dense @ d)
    for kind in ("patch", "edge", "point"):
        for index, blocks in M.blocks(kind):
            for own, block in zip(index, blocks, strict=True):
                torch.testing.assert_close(block, dense[own[:, None], own])


@pytest.mark.parametrize("gram", [True, False])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_a_sweep_is_the_chebyshev_polynomial(gram, degree):
    M = matrix(gram=gram)
    dense = M.dense().numpy()
    B = np.zeros_like(dense)
    for own in expected_unknowns("patch"):
        B[np.ix_(own, own)] += np.linalg.inv(dense[np.ix_(own, own)])
    smoother = Patches(degree=degree, steps=40)
    level = Level(M, smoother)
    b = torch.randn(len(dense), generator=GENERATOR, dtype=torch.float64)
    inverses, largest = smoother.start(level, b)
    torch.testing.assert_close(block_solve(inverses, b), torch.from_numpy(B @ b.numpy()))
    values, vectors = scipy.linalg.eigh(dense, np.linalg.inv(B))
    assert largest == pytest.approx(values[-1], rel=1e-3)
    # The error is multiplied by T_k((c - x) / r) / T_k(c / r), eigenvector by eigenvector.
    centre, radius = 0.6 * largest, 0.5 * largest
    polynomial = np.polynomial.Chebyshev.basis(degree)
    damping = polynomial((centre - values) / radius) / polynomial(centre / radius)
    start = torch.randn(len(dense), generator=GENERATOR, dtype=torch.float64)
    solution = np.linalg.solve(dense, b.numpy())
    error = vectors.T @ np.linalg.inv(B) @ (start.numpy() - solution)
    u, _ = smoother.smooth(level, start, b, 1, (inverses, largest))
    np.testing.assert_allclose(u, solution + vectors @ (damping * error), rtol=1e-6, atol=1e-7)
    from_zero, _ = smoother.smooth(level, 0.0 * b, b, 1, (inverses, largest))
    before = level.tally[0]
    smoother.smooth(level, 0.0 * b, b, 1, (inverses, largest))
    assert level.tally[0] - before == degree - 1  # the first residual is b
    error = -vectors.T @ np.linalg.inv(B) @ solution
    np.testing.assert_allclose(
        from_zero, solution + vectors @ (damping * error), rtol=1e-6, atol=1e-7
    )


def test_a_singular_matrix_still_has_factors():
    M = matrix(shift=0.0, intervals=40)  # 200 samples leave many coefficients alone
    b = M.J.rmatvec(torch.ones(200, dtype=torch.float64))
    level = Level(M, Patches())
    u, _ = level.smoother.smooth(level, 0.0 * b, b, 3, level.smoother.start(level, b))
    assert bool(torch.isfinite(u).all())
    assert float(u @ (M @ u) - 2.0 * (b @ u)) < 0.0
    with pytest.raises(ValueError, match="far from positive definite"):
        cholesky(torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64))


def test_refusals():
    for options in ({"degree": 0}, {"lower": 2.0}, {"steps": 0}):
        with pytest.raises(ValueError, match="needs degree and steps"):
            Patches(**options)
    with pytest.raises(ValueError, match="got blocks 'line'"):
        Patches(blocks="line")
    with pytest.raises(TypeError, match="operator of type function; Patches needs"):
        Patches().start(Level(lambda u: u, Patches()), X)
