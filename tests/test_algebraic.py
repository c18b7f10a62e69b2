"""`solve(A, b)`: the residual is as small as asked for, or an error says what was tried."""

import sys
import warnings

import numpy as np
import pyamg
import pytest
import scipy.linalg as la
import scipy.sparse as sp
import scipy.sparse.linalg as spla
import torch

import mgnet
from mgnet import NullSpace, gallery
from mgnet.algebraic import solve

DIFFUSION = pyamg.gallery.diffusion_stencil_2d(epsilon=1e-2, theta=0.6)


def neumann(n):
    one = sp.lil_matrix(sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n)))  # type: ignore
    one[0, 0] = one[-1, -1] = 1.0
    return sp.csr_matrix(sp.kron(one, sp.identity(n)) + sp.kron(sp.identity(n), one))


MATRICES = {
    "Poisson": lambda: gallery.poisson((31, 31))[0].matrix,
    "rotated anisotropy": lambda: pyamg.gallery.stencil_grid(DIFFUSION, (40, 40), format="csr"),
    "elasticity": lambda: pyamg.gallery.linear_elasticity((16, 16))[0],
    "advection": lambda: pyamg.gallery.advection_2d((30, 30))[0],
    "indefinite": lambda: gallery.poisson((30, 31), levels=1)[0].matrix - 0.2 * sp.identity(930),
    "complex": lambda: gallery.poisson((30, 31), levels=1)[0].matrix * (1 + 0.3j),
    "negative": lambda: -1.0 * gallery.poisson((31, 31))[0].matrix,
    "float32": lambda: gallery.poisson((31, 31))[0].matrix.astype(np.float32),
    "dense": lambda: gallery.poisson((25, 25))[0].matrix.toarray(),
    "no structure": lambda: sp.random(700, 700, 0.01, random_state=0) + 0.01 * sp.identity(700),
    "small": lambda: np.diag([1, 2, 3]),
}


@pytest.mark.parametrize("name", MATRICES)
def test_the_residual_is_what_was_asked_for(name, capsys):
    A = MATRICES[name]()
    generator = np.random.default_rng(0)
    b = generator.standard_normal((A.shape[0], 2))
    if name == "complex":
        b = b + 1j * generator.standard_normal(b.shape)
    x = solve(A, b)
    wide = A.astype(complex if name == "complex" else float)
    assert x.shape == b.shape
    assert (la.norm(wide @ x - b, axis=0) <= 1.001e-8 * la.norm(b, axis=0)).all()
    assert capsys.readouterr().out.startswith(f"mgnet.solve: {A.shape[0]} unknowns")


@pytest.mark.parametrize("seed", range(12))
def test_drawn_matrices_are_solved_or_refused(seed):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(501, 900))
    A = sp.random(n, n, 4.0 / n, random_state=seed, data_rvs=generator.standard_normal)
    if seed % 3 == 0:
        A = A + A.T
    A = sp.csr_matrix(A + generator.choice([0.0, 1.0, 5.0]) * sp.identity(n))
    A = A * 10.0 ** generator.integers(-8, 8)
    b = generator.standard_normal(n)
    try:
        x = solve(A, b, verbose=False)
    except RuntimeError as error:
        assert "Tried: " in str(error) and np.linalg.cond(A.toarray()) > 1e6
    else:
        assert la.norm(A @ x - b) <= 1.001e-8 * la.norm(b)


def test_the_printed_lines_are_the_code_that_does_it(capsys):
    A, b = MATRICES["Poisson"](), np.random.default_rng(1).standard_normal(961)
    x = solve(A, b)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    code = [line for line in lines if line.startswith(("hierarchy =", "solver ="))]
    scope = {**vars(mgnet), "pyamg": pyamg, "A": A}
    exec("\n".join(code), scope)
    assert la.norm(scope["solver"].solve(b).value - x) <= 1e-7 * la.norm(x)


def test_constants_are_found_out_and_given_null_spaces_are_taken():
    A, b = neumann(30), np.random.default_rng(0).standard_normal(900) + 1.0
    with pytest.warns(UserWarning, match="no x solves"):
        x = solve(A, b, verbose=False)
    assert abs(x.mean()) <= 1e-12 * abs(x).max()
    assert la.norm(A @ x - (b - b.mean())) <= 1e-8 * la.norm(b)
    scale = sp.diags(np.linspace(1.0, 2.0, 900))
    scaled = sp.csr_matrix(scale @ A @ scale)
    v = 1.0 / np.linspace(1.0, 2.0, 900)
    with pytest.warns(UserWarning, match="no x solves"):
        x = solve(scaled, b, nullspace=v, verbose=False)
    v = v / la.norm(v)
    assert abs(v @ x) <= 1e-10 * la.norm(x)
    assert la.norm(scaled @ x - (b - v * (v @ b))) <= 1e-8 * la.norm(b)


def test_the_left_null_space_is_asked_for():
    A = sp.csr_matrix(sp.diags(np.linspace(1.0, 2.0, 900)) @ neumann(30))
    b = np.random.default_rng(0).standard_normal(900)
    with pytest.raises(ValueError, match="left="):
        solve(A, b, verbose=False)
    left = 1.0 / np.linspace(1.0, 2.0, 900)
    with pytest.warns(UserWarning, match="no x solves"):
        x = solve(A, b, nullspace=NullSpace("constant", left=left), verbose=False)
    left = left / la.norm(left)
    assert la.norm(A @ x - (b - left * (left @ b))) <= 1e-8 * la.norm(b)


def test_rigid_body_modes_help():
    A, B = pyamg.gallery.linear_elasticity((40, 40))
    b = np.random.default_rng(0).standard_normal(A.shape[0])
    x = solve(A, b, near_nullspace=B, verbose=False)
    assert np.allclose(x, spla.spsolve(A.tocsc(), b), rtol=1e-5, atol=1e-6 * abs(x).max())


def test_it_is_reproducible_and_leaves_the_global_generator_alone():
    A, b = MATRICES["rotated anisotropy"](), np.ones(1600)
    np.random.seed(3)
    first = solve(A, b, verbose=False)
    drawn = np.random.rand()
    np.random.seed(7)
    assert np.array_equal(first, solve(A, b, verbose=False))
    np.random.seed(3)
    assert np.random.rand() == drawn


@pytest.mark.parametrize(
    ("A", "b", "told"),
    [
        (np.ones((2, 3)), np.ones(2), "square and have at least one row"),
        (np.ones((0, 0)), np.ones(0), "square"),
        (np.eye(2) * np.nan, np.ones(2), "not finite"),
        (np.eye(2), np.array([1.0, np.inf]), "not finite"),
        (np.eye(2), np.ones(3), r"shape \(2,\)"),
        (np.eye(2), np.ones((2, 0)), "with no columns"),
        (np.array([["a"]]), np.ones(1), "numbers"),
        (np.zeros((3, 3)), np.ones(3) + np.arange(3), "did not reach"),
        (np.array([[1.0, 1.0], [1.0, 1.0]]), np.ones(2), "did not reach"),
    ],
)
def test_what_is_refused(A, b, told):
    with pytest.raises((TypeError, ValueError, RuntimeError), match=told):
        solve(A, b, verbose=False)


def test_without_pyamg(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyamg", None)
    with pytest.raises(ImportError, match="pip install pyamg"):
        solve(MATRICES["Poisson"](), np.ones(961), verbose=False)
    assert solve(np.diag([1.0, 2.0]), np.ones(2), verbose=False).tolist() == [1.0, 0.5]


def test_other_libraries():
    x = solve(torch.tensor([[2.0, 0.0], [0.0, 4.0]]), [2.0, 2.0], verbose=False)
    assert x.tolist() == [1.0, 0.5]
    assert mgnet.solve is solve


def disordered(A, generator):
    """The same matrix with every entry in two parts, explicit zeros, and columns in any order."""
    A = sp.coo_matrix(A)
    part = generator.uniform(0.2, 0.8, A.nnz)
    zeros = generator.integers(0, A.shape[0], (2, 50))
    rows, columns = (np.r_[ij, ij, z] for ij, z in zip((A.row, A.col), zeros, strict=True))
    data = np.r_[A.data * part, A.data * (1.0 - part), np.zeros(50)]
    order = generator.permutation(len(data))
    order = order[np.argsort(rows[order], kind="stable")]
    starts = np.r_[0, np.cumsum(np.bincount(rows, minlength=A.shape[0]))]
    return sp.csr_matrix((data[order], columns[order], starts), shape=A.shape)


@pytest.mark.parametrize("name", ["Poisson", "advection", "indefinite", "small"])
@pytest.mark.parametrize("seed", range(3))
def test_matrices_and_right_hand_sides_are_not_edited(name, seed):
    generator = np.random.default_rng(seed)
    plain = sp.csr_matrix(MATRICES[name]())
    A, b = disordered(plain, generator), generator.standard_normal(plain.shape[0])
    given = [array.copy() for array in (A.data, A.indices, A.indptr, b)]
    x = solve(A, b, verbose=False)
    for before, after in zip(given, (A.data, A.indices, A.indptr, b), strict=True):
        assert np.array_equal(before, after)
    assert la.norm(plain @ x - b) <= 1.001e-8 * la.norm(b)


@pytest.mark.parametrize("size", [1, 2, 30, 900])
@pytest.mark.parametrize("columns", [(), (3,)])
def test_what_no_solution_gives_is_warned_of(size, columns):
    """Also where the matrix is 0, or differs from a singular one by rounding alone."""
    one = np.zeros((1, 1))
    A = one if size == 1 else neumann(30) if size == 900 else np.eye(size) - 1.0 / size
    generator = np.random.default_rng(size)
    b = generator.standard_normal((size, *columns))
    with pytest.warns(UserWarning, match="no x solves A x = b"):
        x = solve(A, b, verbose=False)
    assert la.norm(A @ x - (b - b.mean(axis=0))) <= 1e-7 * la.norm(b)
    consistent = A @ b
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = solve(A, consistent, verbose=False)
    assert la.norm(A @ x - consistent) <= 1e-7 * la.norm(b)


@pytest.mark.parametrize("seed", range(6))
def test_blocks_with_a_null_space_of_their_own(seed):
    """A singular block beside a regular one, or an empty row: right where b has a solution."""
    generator = np.random.default_rng(seed)
    regular = gallery.poisson((31, 31))[0].matrix
    block = sp.csr_matrix((1, 1)) if seed % 2 else neumann(25)
    A = sp.block_diag([regular, block]).tocsr()
    b = A @ generator.standard_normal(A.shape[0])
    x = solve(A, b, verbose=False)
    assert la.norm(A @ x - b) <= 1.001e-8 * la.norm(b)
    with pytest.raises(RuntimeError, match="Tried: "):
        solve(A, b + 1.0, verbose=False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"b": ["a"] * 9}, "got b of type list and <U1"),
        ({"b": np.full(9, None)}, "got b of type ndarray and object"),
        ({"b": np.ma.masked_array(np.ones(9), np.arange(9) == 3)}, "got b of type MaskedArray"),
        ({"b": sp.csr_matrix(np.ones((9, 1)))}, "got b as a sparse matrix"),
        ({"matrix": [[1.0, 2.0], [3.0]]}, "got a matrix of type list"),
        ({"matrix": np.zeros((0, 0))}, "have at least one row"),
        ({"matrix": spla.aslinearoperator(np.eye(9))}, "got a matrix of type"),
        ({"near_nullspace": np.ones(5)}, "near_nullspace of shape"),
        ({"near_nullspace": np.full((9, 2), np.nan)}, "give finite numbers"),
        ({"near_nullspace": "constant"}, "near_nullspace of type str"),
        ({"nullspace": "constant"}, "does not map to zero"),
        ({"nullspace": np.ones(4)}, "vectors of 4 entries"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(given, words):
    with pytest.raises((TypeError, ValueError), match=words):
        solve(**{"matrix": np.diag(np.arange(1.0, 10.0)), "b": np.ones(9)} | given)


def test_an_error_tells_how_far_each_method_came():
    with pytest.raises(RuntimeError, match=r"given up at \d\.\de-1[4-6] of the norm of b"):
        solve(MATRICES["Poisson"](), np.ones(961), rtol=1e-18, verbose=False)


def test_the_lines_of_a_null_space_are_code_too(capsys):
    A, v = neumann(30), np.ones(900)
    solve(A, A @ np.arange(900.0), nullspace=v)
    assert ", nullspace=nullspace)" in capsys.readouterr().out
    solve(A, A @ np.arange(900.0))
    assert ", nullspace='constant')" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (1.0, ["Hermitian, diagonal positive", "acceleration=CG()"]),
        (1.0 + 0.1j, ["not Hermitian", "acceleration=FGMRES(restart=30)"]),
    ],
)
def test_the_method_fits_the_symmetry_of_complex_matrices(factor, words, capsys):
    """A Hermitian matrix need not be symmetric, nor a symmetric one Hermitian."""
    A = gallery.poisson((30, 31), levels=1)[0].matrix
    turn = sp.diags(np.exp(1j * np.random.default_rng(0).uniform(0.0, 6.0, 930)))
    A = sp.csr_matrix(turn @ A @ turn.conj() * factor)
    x = solve(A, np.ones(930))
    assert la.norm(A @ x - 1.0) <= 1.001e-8 * 930**0.5
    told = capsys.readouterr().out
    assert all(word in told for word in words)


def test_after_a_breakdown_of_cg_comes_fgmres(capsys):
    A = MATRICES["indefinite"]()
    solve(A, np.ones(930))
    told = capsys.readouterr().out
    assert told.index("acceleration=CG()") < told.index("BREAKDOWN")
    assert "acceleration=FGMRES(restart=30)" in told[told.index("BREAKDOWN") :]


def test_every_column_that_is_projected_is_warned_of():
    A, ones = neumann(30), np.ones(900)
    for b in (np.stack([ones, A @ np.arange(900.0)], 1), np.stack([A @ np.arange(900.0), ones], 1)):
        with pytest.warns(UserWarning, match="no x solves"):
            solve(A, b, verbose=False)
