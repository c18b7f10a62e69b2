"""Krylov methods around cycles beside SciPy's, over kinds and scales; where they break down."""

import numpy as np
import pytest
import scipy.linalg as la
import scipy.sparse as sp
import scipy.sparse.linalg as spla
import torch

from mgnet import (
    CG,
    FGMRES,
    GMRES,
    Anderson,
    Direct,
    GaussSeidel,
    Hierarchy,
    Jacobi,
    Krylov,
    Level,
    Smoother,
    Solver,
    gallery,
    interpolation_matrix,
)


class Richardson(Smoother):
    def smooth(self, level, u, f, sweeps, memory):
        return u + level.residual_at(u, f), memory


METHODS = [CG(), GMRES(), FGMRES(), GMRES(4), FGMRES(4)]


def convection(n=15, peclet=40.0):
    """Upwind convection-diffusion on n^2 points, with Galerkin levels."""
    one = sp.diags([-1.0 - peclet / n, 2.0 + peclet / n, -1.0], [-1, 0, 1], shape=(n, n))
    A = sp.csr_matrix(sp.kron(one, sp.identity(n)) + sp.kron(sp.identity(n), one))
    P = interpolation_matrix((n - 1) // 2)
    return Hierarchy.galerkin(A, [sp.csr_matrix(sp.kron(P, P))], smoother=GaussSeidel())


def symmetric(shape, kind=float):
    levels = gallery.poisson(shape, smoother=Jacobi())
    prolongations = [sp.csr_matrix(level.transfer.P, dtype=kind) for level in levels[:-1]]
    return Hierarchy.galerkin(
        sp.csr_matrix(levels[0].matrix, dtype=kind), prolongations, smoother=Jacobi()
    )


def states(hierarchy, f, acceleration, cycles, u=None):
    seen = []
    Solver(
        hierarchy,
        rtol=0.0,
        max_cycles=cycles,
        acceleration=acceleration,
        monitor=lambda _, u: seen.append(np.array(u)),
    ).solve(f, u)
    return seen


def test_cg_is_that_of_scipy():
    hierarchy, f = symmetric((15, 7)), np.random.default_rng(0).standard_normal(105)
    M, theirs = Solver(hierarchy).as_preconditioner(), []
    spla.cg(
        hierarchy[0].matrix, f, M=M, maxiter=8, rtol=0.0, callback=lambda u: theirs.append(u.copy())
    )
    ours = states(hierarchy, f, CG(), 8)[1:]
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert np.linalg.norm(a - b) <= 1e-9 * np.linalg.norm(b), k


@pytest.mark.parametrize("method", [GMRES(), FGMRES()], ids=str)
def test_gmres_minimises_the_residual_over_the_krylov_space(method):
    """By dense least squares over M f, M A M f, ..., in place of Arnoldi's process."""
    hierarchy, f = convection(), np.random.default_rng(1).standard_normal(225)
    A, M = hierarchy[0].matrix, Solver(hierarchy).as_preconditioner()
    start = np.random.default_rng(2).standard_normal(225)
    r = f - A @ start
    ours, space, v = states(hierarchy, f, method, 6, start), [], r
    for k in range(6):
        space.append(M @ v)
        v = A @ space[-1]
        Q = la.orth(np.array(space).T)
        best = start + Q @ la.lstsq(A @ Q, r)[0]
        assert np.linalg.norm(ours[k + 1] - best) <= 1e-7 * np.linalg.norm(best), k


def test_restarted_gmres_is_gmres_from_where_it_stood():
    hierarchy, f = convection(), np.ones(225)
    whole, start = states(hierarchy, f, GMRES(3), 9), None
    for k in range(3):
        part = states(hierarchy, f, GMRES(), 3, start)
        assert np.allclose(part, whole[3 * k : 3 * k + 4], rtol=1e-9, atol=1e-12)
        start = part[-1]


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("size", [1.0, 1e-170, 1e150])
def test_all_sizes_of_right_hand_sides(method, size):
    hierarchy, f = symmetric((15, 15)), np.ones(225)
    solution = Solver(hierarchy, acceleration=method).solve(size * f).require()
    wanted = size * Solver(hierarchy, acceleration=method).solve(f).value
    assert np.allclose(solution.value / size, wanted / size, rtol=1e-7)
    assert solution.cycles < Solver(hierarchy).solve(f).cycles
    left = np.linalg.norm((size * f - hierarchy[0].matrix @ solution.value) / size)
    assert left <= 1e-8 * np.linalg.norm(f)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("kind", [np.float32, np.complex64, np.complex128])
def test_precisions(method, kind):
    hierarchy = symmetric((15, 15), kind)
    generator = np.random.default_rng(0)
    f = generator.standard_normal(225).astype(kind)
    if f.dtype.kind == "c":
        f = f + 1j * generator.standard_normal(225).astype(f.real.dtype)
    rtol = 1e-8 if kind == np.complex128 else 1e-4
    solution = Solver(hierarchy, rtol=rtol, acceleration=method).solve(f).require()
    assert solution.value.dtype == kind
    left = np.linalg.norm(f - hierarchy[0].matrix @ solution.value)
    assert left <= 2 * rtol * np.linalg.norm(f)


@pytest.mark.parametrize("method", [GMRES(), FGMRES(), FGMRES(5)], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_complex_matrices_that_are_not_hermitian(method, seed):
    generator = np.random.default_rng(seed)
    A, B, f = (generator.standard_normal((20, 20)) for _ in range(3))
    A = A + 1j * B + 12.0 * np.diag(generator.choice([1.0, 1j], 20))
    f = f[0] + 1j * f[1]
    hierarchy = Hierarchy([Level(A, Jacobi(1.0))])
    solution = Solver(hierarchy, "V(0,0)", max_cycles=200, acceleration=method).solve(f).require()
    assert np.allclose(solution.value, la.solve(A, f), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_tensors(method):
    A = gallery.poisson(15)[0].matrix.toarray()
    f = np.random.default_rng(0).standard_normal(15)
    ours = Hierarchy([Level(torch.tensor(A), Jacobi())])
    numpy = Hierarchy([Level(A, Jacobi())])
    how = {"cycle": "V(0,0)", "rtol": 1e-10, "max_cycles": 60, "acceleration": method}
    told = [Solver(numpy, **how).solve(f), Solver(ours, **how).solve(torch.tensor(f))]
    assert np.allclose(told[0].residual_norms[:10], told[1].residual_norms[:10], rtol=1e-6)
    assert np.allclose(told[0].value, told[1].value.numpy())


def test_flexible_gmres_bears_cycles_that_vary_and_gmres_says_so():
    hierarchy = gallery.poisson((31, 7), smoother=Krylov("gmres", iterations=2))
    f = np.random.default_rng(0).standard_normal(217)
    assert Solver(hierarchy, acceleration=FGMRES()).solve(f).reason.converged
    told = Solver(hierarchy, acceleration=GMRES(), max_cycles=12, rtol=1e-6).solve(f)
    assert told.reason.converged or "take FGMRES" in told.message


def test_an_indefinite_matrix_is_told():
    A = gallery.poisson(15)[0].matrix - 60.0 * sp.identity(15)
    hierarchy = Hierarchy([Level(sp.csr_matrix(A), GaussSeidel())])
    solution = Solver(hierarchy, "V(0,0)", acceleration=CG()).solve(np.ones(15))
    assert solution.reason.name == "BREAKDOWN" and "positive definite" in str(solution)
    assert np.isfinite(solution.value).all()


@pytest.mark.parametrize("seed", range(8))
def test_a_matrix_that_is_not_symmetric_is_told_at_any_size(seed):
    generator = np.random.default_rng(seed)
    A = np.diag(generator.uniform(1.0, 2.0, 12)) + 0.2 * np.triu(generator.random((12, 12)), 1)
    A = A * 10.0 ** generator.uniform(-12, 12)
    if seed % 2:
        A = A.astype(np.float32)
    solution = Solver(
        Hierarchy([Level(A, Jacobi(1.0))]), "V(0,0)", rtol=1e-5, acceleration=CG()
    ).solve(generator.standard_normal(12).astype(A.dtype))
    assert solution.reason.name == "BREAKDOWN" and "symmetric matrix" in solution.message


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.complex128])
def test_symmetric_matrices_are_never_accused(seed, kind):
    generator = np.random.default_rng(seed)
    q = la.qr(generator.standard_normal((30, 30)))[0].astype(kind)
    if kind == np.complex128:
        q = la.qr(q + 1j * generator.standard_normal((30, 30)))[0]
    limit = 3.0 if kind == np.float32 else 8.0
    A = (q * np.logspace(0, limit, 30)) @ q.conj().T
    A = ((A + A.conj().T) / 2).astype(kind)
    f = generator.standard_normal(30).astype(kind)
    hierarchy = Hierarchy([Level(A, Jacobi(1.0))])
    solution = Solver(hierarchy, "V(0,0)", max_cycles=90, acceleration=CG()).solve(f)
    assert solution.reason.name != "BREAKDOWN", solution.message
    assert not solution.message


def test_a_cycle_that_is_not_symmetric_is_told():
    hierarchy = gallery.poisson((63, 3), smoother=GaussSeidel("forward"))
    solver = Solver(hierarchy, acceleration=CG(), max_cycles=4)
    solution = solver.solve(np.random.default_rng(0).standard_normal(189))
    assert "symmetric cycle" in solution.message and "symmetric cycle" in solution.explain()
    mirrored = gallery.poisson(
        (63, 3), smoother=GaussSeidel("forward"), post_smoother=GaussSeidel("backward")
    )
    solution = Solver(mirrored, acceleration=CG(), max_cycles=4).solve(np.ones(189))
    assert not solution.message


@pytest.mark.parametrize("method", [GMRES(), FGMRES()], ids=str)
def test_a_singular_matrix_without_a_solution_is_told(method):
    level = Level(np.diag([1.0, 2.0, 0.0]), Richardson())
    solution = Solver(Hierarchy([level]), "V(0,0)", acceleration=method).solve(np.ones(3))
    assert not solution.reason.converged
    assert solution.reason.name == "BREAKDOWN" and "singular" in solution.message
    assert np.isfinite(solution.value).all()


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_an_exact_start_and_an_exact_cycle(method):
    A = np.diag([1.0, 2.0, 4.0])
    hierarchy, f = Hierarchy([Level(A, Direct())]), np.ones(3)
    solver = Solver(hierarchy, "V(0,0)", acceleration=method, rtol=0.0, max_cycles=5)
    assert solver.solve(f).value.tolist() == [1.0, 0.5, 0.25]
    assert solver.solve(f, la.solve(A, f)).value.tolist() == [1.0, 0.5, 0.25]
    assert Solver(hierarchy, "V(0,0)", acceleration=method).solve(f).cycles == 1
    zero = solver.solve(np.zeros(3))
    assert zero.reason.converged and not zero.value.any()


def test_what_is_refused():
    reaction = gallery.reaction(7)
    with pytest.raises(TypeError, match="level 0 has no matrix"):
        Solver(reaction, acceleration=CG())
    with pytest.raises(TypeError, match=r"CG\(\), GMRES\(\)"):
        Solver(gallery.poisson(7), acceleration="cg")
    with pytest.raises(ValueError, match="at least 1"):
        GMRES(0)
    with pytest.raises(ValueError, match="at least 1"):
        FGMRES(2.5)
    odd = Hierarchy(gallery.poisson(7).levels, norm=lambda u: 7.0 * np.linalg.norm(u))
    with pytest.raises(ValueError, match="belong together"):
        Solver(odd, acceleration=GMRES()).solve(np.ones(7))
    assert Solver(gallery.poisson(7), acceleration=Anderson()).acceleration == Anderson()


@pytest.mark.parametrize("method", [CG(), GMRES(4), FGMRES(4)], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_the_last_norm_is_that_of_the_residual_however_a_solve_ends(seed, method):
    generator = np.random.default_rng(seed)
    c = 10.0 ** generator.uniform(-2.0, 2.0, 300)
    hierarchy = Hierarchy.geometric(300, coefficients=c)
    f = generator.standard_normal(300)
    count = int(generator.integers(40, 90))  # the norms of the recurrences fall far below rounding
    for how in (
        {"max_cycles": count},
        {"monitor": lambda record, u: record.cycle == count},
        {"seconds": 1e-3, "max_cycles": 10**6},
    ):
        solver = Solver(hierarchy, rtol=0.0, acceleration=method, **how)
        solution = solver.solve(f)
        assert not solution.reason.converged
        exact = np.linalg.norm(f - hierarchy[0].matrix @ solution.value)
        assert 0.2 * exact < solution.residual_norms[-1] < 5.0 * exact
