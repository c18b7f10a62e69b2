"""Galerkin products beside dense ones, for every library, and what does not fit together."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mgnet import Hierarchy, Jacobi, Solver, gallery, interpolation_matrix
from mgnet.galerkin import galerkin_products


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["csr", "coo", "dense", "torch", "complex", "mat"])
def test_products_are_those_of_dense_matrices(kind, seed):
    generator = np.random.default_rng(seed)
    sizes = [9, 5, int(generator.integers(1, 4))]
    A = generator.standard_normal((9, 9)) * (generator.random((9, 9)) < 0.4)
    steps_up = [generator.standard_normal((a, b)) for a, b in zip(sizes, sizes[1:], strict=False)]
    steps_down = [generator.standard_normal(P.T.shape) for P in steps_up] if seed % 2 else None
    if kind == "complex":
        A, steps_up = A + 1j * np.roll(A, 1), [P + 1j * np.roll(P, 1) for P in steps_up]
    wanted = [A]
    for number, P in enumerate(steps_up):
        wanted.append((P.conj().T if steps_down is None else steps_down[number]) @ wanted[-1] @ P)
    make = {"dense": np.array, "torch": torch.tensor, "coo": sp.coo_matrix}.get(kind, sp.csr_matrix)
    if kind == "mat":
        make = _mat
    rest = None if steps_down is None else [make(R) for R in steps_down]
    found = galerkin_products(make(A), [make(P) for P in steps_up], rest)
    for A, B in zip(found, wanted, strict=True):
        if kind == "mat":
            A = A.convert("dense").getDenseArray()
        assert np.allclose(A.toarray() if sp.issparse(A) else A, B)
        assert not sp.issparse(A) or A.has_sorted_indices


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
