"""A hierarchy of PyAMG under our cycles gives PyAMG's own residual histories."""

import numpy as np
import pyamg
import pytest

from mgnet import Direct, GaussSeidel, Hierarchy, Jacobi, Solver

SMOOTHERS = [
    "gauss_seidel",
    ("gauss_seidel", {"sweep": "symmetric"}),
    ("gauss_seidel", {"sweep": "backward", "iterations": 2}),
    "jacobi",
    ("jacobi", {"omega": 0.7, "withrho": False}),
    ("jacobi", {"iterations": 3}),
    "richardson",
    "sor",
    "chebyshev",
    "block_jacobi",
    "block_gauss_seidel",
    "jacobi_ne",
    "gauss_seidel_ne",
    "gauss_seidel_nr",
    "cf_jacobi",
    "fc_jacobi",
    "schwarz",
    "gmres",
    "cg",
    None,
]
BUILD = {
    "ruge_stuben": pyamg.ruge_stuben_solver,
    "smoothed_aggregation": pyamg.smoothed_aggregation_solver,
}


def histories(ml, f, cycles=6):
    theirs: list[float] = []
    ml.solve(f, tol=1e-300, maxiter=cycles, residuals=theirs)
    solver = Solver(Hierarchy.from_pyamg(ml), "V(1,1)", rtol=0.0, max_cycles=cycles)
    return np.array(solver.solve(f).residual_norms), np.array(theirs)


@pytest.mark.parametrize("build", BUILD)
@pytest.mark.parametrize("smoother", SMOOTHERS, ids=str)
def test_every_smoother_is_taken_over(build, smoother):
    if build == "smoothed_aggregation" and smoother in ("cf_jacobi", "fc_jacobi"):
        pytest.skip("these need a splitting, which aggregates do not have")
    A = pyamg.gallery.poisson((24, 17), format="csr")
    post = smoother if smoother is not None else "gauss_seidel"
    ml = BUILD[build](A, presmoother=smoother, postsmoother=post, max_coarse=10)
    ours, theirs = histories(ml, np.random.default_rng(0).standard_normal(408))
    krylov = smoother in ("gmres", "cg")
    assert np.allclose(ours, theirs[: len(ours)], rtol=1e-4 if krylov else 1e-8, atol=1e-12)


@pytest.mark.parametrize(
    "coarse", ["pinv", "splu", "lu", "cg", "gauss_seidel", ("jacobi", {"iterations": 10}), None]
)
def test_every_coarse_solver_is_taken_over(coarse):
    A = pyamg.gallery.poisson((24, 17), format="csr")
    ml = pyamg.ruge_stuben_solver(A, coarse_solver=coarse, max_levels=3)
    ours, theirs = histories(ml, np.random.default_rng(0).standard_normal(408))
    assert np.allclose(ours, theirs[: len(ours)], rtol=1e-6, atol=1e-12)


def test_elasticity_in_blocks_and_complex_matrices():
    A, B = pyamg.gallery.linear_elasticity((12, 12))
    ml = pyamg.smoothed_aggregation_solver(A, B=B)
    ours, theirs = histories(ml, np.random.default_rng(0).standard_normal(A.shape[0]))
    assert np.allclose(ours, theirs, rtol=1e-8)
    A = (pyamg.gallery.poisson((20, 20), format="csr") * (1 + 0.1j)).tocsr()
    ml = pyamg.smoothed_aggregation_solver(A, symmetry="symmetric")
    ours, theirs = histories(ml, np.random.default_rng(0).standard_normal(400) + 0j)
    assert np.allclose(ours, theirs, rtol=1e-8)


def test_air_for_a_matrix_that_is_not_symmetric():
    A = pyamg.gallery.advection_2d((20, 20))[0]
    ml = pyamg.air_solver(A)
    ours, theirs = histories(ml, np.random.default_rng(0).standard_normal(A.shape[0]))
    assert np.allclose(ours, theirs[: len(ours)], rtol=1e-8, atol=1e-12)


def test_given_smoothers_replace_those_of_pyamg():
    ml = pyamg.ruge_stuben_solver(pyamg.gallery.poisson((20, 20), format="csr"))
    hierarchy = Hierarchy.from_pyamg(ml, Jacobi(0.5), coarse_solver=Direct())
    assert (hierarchy[0].smoother, hierarchy[0].post_smoother) == (Jacobi(0.5), None)
    assert hierarchy[-1].smoother == Direct()
    assert Hierarchy.from_pyamg(ml)[0].smoother == GaussSeidel("symmetric")
    assert "PyAMG" not in str(Hierarchy.from_pyamg(ml))


@pytest.mark.parametrize("smoother", ["gauss_seidel", "jacobi", "block_gauss_seidel"])
def test_rows_with_zero_diagonals_are_passed_over_as_in_pyamg(smoother):
    """Aggregates of an advection have such rows on coarse levels."""
    A = pyamg.gallery.advection_2d((20, 20))[0].tocsr()
    ml = pyamg.smoothed_aggregation_solver(A, presmoother=smoother, postsmoother=smoother)
    assert any((level.A.diagonal() == 0.0).any() for level in ml.levels)
    ours, theirs = histories(ml, np.random.default_rng(0).standard_normal(A.shape[0]), cycles=2)
    assert np.allclose(ours, theirs[: len(ours)], rtol=1e-8)


def test_what_pyamg_does_not_compile_is_one_sentence():
    A = pyamg.gallery.poisson((20, 20), format="csr").astype(np.float32)
    both = {"presmoother": "gauss_seidel_ne", "postsmoother": "gauss_seidel_ne"}
    hierarchy = Hierarchy.from_pyamg(pyamg.ruge_stuben_solver(A, **both))
    with pytest.raises(TypeError, match="PyAMG gauss_seidel_ne on level 0 does not") as told:
        Solver(hierarchy).solve(np.ones(400, np.float32))
    assert "\n" not in str(told.value)
