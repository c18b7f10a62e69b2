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
    assert told.reason.converged or "use FGMRES" in told.message


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
    with pytest.raises(ValueError, match="match each other"):
        Solver(odd, acceleration=GMRES()).solve(np.ones(7))
    assert Solver(gallery.poisson(7), acceleration=Anderson()).acceleration == Anderson()


def drawn(seed, n=12):
    """A symmetric positive definite matrix of condition 3, and a right-hand side."""
    generator = np.random.default_rng(seed)
    Q = la.qr(generator.standard_normal((n, n)))[0]
    return Q @ np.diag(np.linspace(1.0, 3.0, n)) @ Q.T, generator.standard_normal(n)


class FailsAt(Smoother):
    """Richardson's sweep, until one is not finite."""

    def __init__(self, count):
        self.left = count

    def smooth(self, level, u, f, sweeps, memory):
        self.left -= 1
        return (u + level.residual_at(u, f)) * (np.nan if self.left <= 0 else 1.0), memory


class OneArray(Smoother):
    """Richardson's sweep into the same array each time."""

    def __init__(self, n):
        self.array = np.empty(n)

    def smooth(self, level, u, f, sweeps, memory):
        self.array[:] = u + level.residual_at(u, f)
        return self.array, memory


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("count", range(1, 12))
def test_a_cycle_that_is_not_finite_ends_a_solve_with_a_finite_state(method, count):
    A, f = drawn(count)
    hierarchy = Hierarchy([Level(A, FailsAt(count))])
    solution = Solver(hierarchy, "V(0,0)", rtol=1e-13, acceleration=method).solve(f)
    assert solution.reason.name == "NOT_FINITE" and "not finite" in solution.message
    true = la.norm(f - A @ solution.value)
    assert abs(solution.residual_norms[-1] - true) <= 1e-12 * la.norm(f)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_smoother_may_give_the_same_array_each_time(method):
    A, f = drawn(1)
    for matrix in (A, spla.aslinearoperator(A)):
        solver = Solver(Hierarchy([Level(matrix, OneArray(12))]), "V(0,0)", acceleration=method)
        assert la.norm(A @ solver.solve(f).require().value - f) <= 1e-8 * la.norm(f)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("ends", ["tolerance", "cycles", "monitor", "floor"])
def test_the_last_norm_is_that_of_the_residual(method, ends):
    """Also past rounding, where recurrences fall on to 1e-160 and the residual does not."""
    A, f = drawn(2)
    asked = {
        "tolerance": {"rtol": 1e-9},
        "cycles": {"rtol": 1e-14, "max_cycles": 7},
        "monitor": {"monitor": lambda entry, u: entry.cycle == 6},
        "floor": {"rtol": 0.0, "max_cycles": 400},
    }[ends]
    hierarchy = Hierarchy([Level(A, Richardson())])
    solution = Solver(hierarchy, "V(0,0)", acceleration=method, **asked).solve(f)
    true = la.norm(f - A @ solution.value)
    assert abs(solution.residual_norms[-1] - true) <= 1e-3 * true
    if ends == "floor":
        assert solution.reason.name in ("ROUNDING", "ATOL")
        assert true <= 1e-14 * la.norm(f)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize(("kind", "least"), [(float, -305), (np.float32, -36)])
def test_right_hand_sides_at_the_end_of_the_range(method, kind, least):
    """Restarts begin from residuals whose reciprocals are out of range."""
    A, f = drawn(3)
    single = kind is np.float32
    hierarchy = Hierarchy([Level(A.astype(kind), Richardson())])
    solver = Solver(hierarchy, "V(0,0)", 1e-4 if single else 1e-7, acceleration=method)
    small = (f * 10.0**least).astype(kind)
    value = solver.solve(small).require().value.astype(float)
    wide = value * 10.0**-least
    assert la.norm(A @ wide - f) <= (1e-3 if single else 1e-6) * la.norm(f)


@pytest.mark.parametrize("method", [GMRES(), FGMRES(), GMRES(5)], ids=str)
@pytest.mark.parametrize("kind", [float, np.float32])
@pytest.mark.parametrize("seed", range(4))
def test_a_singular_matrix_does_not_make_the_residual_larger(method, kind, seed):
    A, f = drawn(seed)
    B = (A - np.outer(f, f) @ A / (f @ f)).astype(kind)
    hierarchy = Hierarchy([Level(B, Richardson())])
    solution = Solver(hierarchy, "V(0,0)", acceleration=method).solve(f.astype(kind))
    assert not solution.reason.converged
    assert solution.residual_norms[-1] <= 1.001 * solution.residual_norms[0]


class Applies(Smoother):
    """A cycle that adds a given matrix times the residual."""

    def __init__(self, B):
        self.B = B

    def smooth(self, level, u, f, sweeps, memory):
        return u + self.B @ level.residual_at(u, f), memory


@pytest.mark.parametrize("seed", range(4))
def test_directions_of_cg_stay_conjugate_where_the_cycle_is_not_symmetric(seed):
    """Beside the recurrence written with products by A, as Notay has it."""
    A, f = drawn(seed)
    B = np.eye(12) + 0.02 * np.random.default_rng(seed).standard_normal((12, 12))
    ours = states(Hierarchy([Level(A, Applies(B))]), f, CG(), 5)
    u, r, p = np.zeros(12), f, None
    for k in range(5):
        z = B @ r
        p = z if p is None else z - (z @ A @ p) / (p @ A @ p) * p
        u = u + (z @ r) / (p @ A @ p) * p
        r = f - A @ u
        assert la.norm(ours[k + 1] - u) <= 1e-10 * la.norm(u), k


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("kind", [float, complex])
@pytest.mark.parametrize("seed", range(3))
def test_norms_of_the_recurrence_are_those_of_the_states(method, kind, seed):
    A, f = drawn(seed)
    generator = np.random.default_rng(seed)
    skew = 0.3 * generator.standard_normal((12, 12))
    if kind is complex:
        skew, f = skew + 0.3j * generator.standard_normal((12, 12)), f + 1j * np.roll(f, 1)
    A = A + (skew - skew.conj().T if not isinstance(method, CG) else 0.1 * (skew + skew.conj().T))
    said, seen = [], []

    def see(entry, u):
        said.append(entry.residual_norm)
        seen.append(la.norm(f - A @ u))

    hierarchy = Hierarchy([Level(A, Applies(np.eye(12)))])
    how = {"rtol": 1e-10, "max_cycles": 200, "monitor": see, "acceleration": method}
    Solver(hierarchy, "V(0,0)", **how).solve(f).require()
    assert np.allclose(said, seen, rtol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_breakdowns_are_told_by_what_is_wrong(seed):
    A, f = drawn(seed)
    cases = [
        (A * (1 + 0.3j), np.eye(12), CG(), "CG needs a symmetric matrix"),
        (A - 2.0 * np.eye(12), np.eye(12), CG(), "CG needs a positive definite matrix"),
        (A, -np.eye(12), CG(), "CG needs a positive definite cycle"),
        (A - np.eye(12) * la.eigvalsh(A)[5], np.eye(12), GMRES(), "matrix or cycle is singular"),
        (A - np.eye(12) * la.eigvalsh(A)[5], np.eye(12), FGMRES(), "matrix or cycle is singular"),
    ]
    for matrix, B, method, words in cases:
        hierarchy = Hierarchy([Level(matrix, Applies(B))])
        solution = Solver(hierarchy, "V(0,0)", acceleration=method).solve(f)
        assert solution.reason.name == "BREAKDOWN" and words in solution.message
        if method != CG():  # whose residual norms may grow on the way
            assert solution.residual_norms[-1] <= 1.001 * solution.residual_norms[0]


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
