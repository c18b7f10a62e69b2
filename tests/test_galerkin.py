"""Galerkin products beside dense ones, for every library, and what does not fit together."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mgnet import CG, Hierarchy, Jacobi, Solver, gallery, interpolation_matrix
from mgnet.galerkin import galerkin_products

KINDS = ["csr", "coo", "dense", "torch", "complex", "csr tensor", "complex csr tensor", "mat"]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_those_of_dense_matrices(kind, seed):
    generator = np.random.default_rng(seed)
    sizes = [9, 5, int(generator.integers(1, 4))]
    A = generator.standard_normal((9, 9)) * (generator.random((9, 9)) < 0.4)
    steps_up = [generator.standard_normal((a, b)) for a, b in zip(sizes, sizes[1:], strict=False)]
    steps_down = [generator.standard_normal(P.T.shape) for P in steps_up] if seed % 2 else None
    if "complex" in kind:
        steps_down = steps_down and [R + 1j * np.roll(R, 1) for R in steps_down]
        A, steps_up = A + 1j * np.roll(A, 1), [P + 1j * np.roll(P, 1) for P in steps_up]
    wanted = [A]
    for number, P in enumerate(steps_up):
        wanted.append((P.conj().T if steps_down is None else steps_down[number]) @ wanted[-1] @ P)
    make = {"dense": np.array, "torch": torch.tensor, "coo": sp.coo_matrix}.get(kind, sp.csr_matrix)
    make = {"mat": _mat}.get(kind, _csr_tensor if kind.endswith("csr tensor") else make)
    rest = None if steps_down is None else [make(R) for R in steps_down]
    found = galerkin_products(make(A), [make(P) for P in steps_up], rest)
    for A, B in zip(found, wanted, strict=True):
        if kind == "mat":
            A = A.convert("dense").getDenseArray()
        if kind.endswith("csr tensor"):
            assert A.is_sparse_csr
            A = A.to_dense()
        assert np.allclose(A.toarray() if sp.issparse(A) else A, B)
        assert not sp.issparse(A) or A.has_sorted_indices


def _csr_tensor(matrix):
    return torch.tensor(matrix).to_sparse_csr()


def _mat(matrix):
    aij = pytest.importorskip("mgnet.petsc.matrices").aij
    return aij(sp.csr_matrix(matrix))


def test_the_hierarchy_solves_and_is_nested():
    A = gallery.poisson((15, 15))[0].matrix
    steps_up = [sp.kron(P, P) for P in map(interpolation_matrix, (7, 3, 1))]
    hierarchy = Hierarchy.galerkin(A, steps_up)
    assert hierarchy.nested and "nesting" in hierarchy.check(np.zeros(225))
    assert Solver(hierarchy).solve(np.ones(225)).reason.converged


@pytest.mark.parametrize(
    ("A", "P", "R", "told"),
    [
        (np.eye(4), np.ones((3, 2)), None, r"level 0 a matrix of shape \(4, 4\)"),
        (np.ones((4, 3)), np.ones((4, 2)), None, "square"),
        (np.eye(4), np.ones((4, 2)), np.ones((4, 2)), "restriction of shape"),
        (torch.eye(4), np.ones((4, 2)), None, "of one library"),
    ],
)
def test_what_does_not_fit(A, P, R, told):
    with pytest.raises((TypeError, ValueError), match=told):
        galerkin_products(A, [P], None if R is None else [R])


def test_a_single_matrix_is_no_list():
    with pytest.raises(TypeError, match="give a list"):
        galerkin_products(np.eye(2), np.ones((2, 1)))
    with pytest.raises(ValueError, match="one of each"):
        galerkin_products(np.eye(2), [np.ones((2, 1))], [])
    with pytest.raises(TypeError, match="restrictions of type Jacobi"):
        Hierarchy.galerkin(np.eye(2), [np.ones((2, 1))], Jacobi())


def test_complex_prolongations_restrict_by_their_conjugates():
    """A gauge transform of Poisson's equation: the same numbers of cycles, and CG works."""
    A = gallery.poisson(31)[0].matrix
    phase, coarse = sp.diags(np.exp(0.7j * np.arange(31))), sp.diags(np.exp(1.4j * np.arange(15)))
    turned = phase @ A @ phase.conj()
    P = sp.csr_matrix(phase @ interpolation_matrix(15) @ coarse.conj())
    f = np.random.default_rng(0).standard_normal(31) + 0j
    plain = Hierarchy.galerkin(A, [interpolation_matrix(15)])
    ours = Hierarchy.galerkin(turned, [P])
    for acceleration in (None, CG()):
        norms = Solver(plain, acceleration=acceleration).solve(f).residual_norms
        found = Solver(ours, acceleration=acceleration).solve(phase @ f).residual_norms
        assert np.allclose(found, norms, rtol=1e-6, atol=1e-10)
