"""Laws: what users give is solved as NumPy promotes it, with the shape kept, or refused."""

from dataclasses import replace

import numpy as np
import pyamg
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
import torch

from mgnet import (
    Anderson,
    Chebyshev,
    Direct,
    GaussSeidel,
    Hierarchy,
    Jacobi,
    Krylov,
    Level,
    MatrixTransfer,
    Solver,
    gallery,
    run,
)
from mgnet.cycles import cycle
from mgnet.operands import operands

SMOOTHERS = [Jacobi(), GaussSeidel("symmetric"), Chebyshev(), Krylov("gmres", 3)]
COARSE = [Direct(), Direct("pinv"), GaussSeidel("symmetric"), Krylov("gmres", 10)]

KINDS = {  # of the matrix and of vectors
    "real": ["f4", "f8", "i4", "i8", "u1", "?"],
    "any": ["f4", "f8", "i4", "i8", "u1", "?", "f2", "g", ">f8", ">f4", ">i4", "c8", "c16", ">c16"],
}


def matrix_of(draw, dtype, n):
    """A diagonally dominant matrix, also where it holds integers."""
    A = sp.diags_array(
        [np.full(n - 1, -1.0), np.full(n, 4.0), np.full(n - 1, -1.0)], offsets=[-1, 0, 1]
    )
    if np.dtype(dtype).kind == "c":
        A = sp.csr_array(A) + 1j * sp.csr_array(sp.diags_array(draw.uniform(0.0, 1.0, n)))
    return sp.csr_array(A).astype(dtype)


def vector_of(draw, dtype, n):
    values = draw.integers(0, 2 if dtype == "?" else 9, n)
    if np.dtype(dtype).kind in "fc":
        values = values + draw.standard_normal(n)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * draw.standard_normal(n)
    return values.astype(dtype)


def strided(x):
    return np.repeat(x, 2)[::2]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def unaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)
    view = memory[1:].view(x.dtype)
    view[:] = x
    return view


class Series:
    """A column of a table, as pandas has it: it knows how to become an array."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


class Subclass(np.ndarray):
    pass


FORMS = {
    "as it is": (lambda x: x, 1),
    "column": (lambda x: x[:, None], 2),
    "Fortran column": (lambda x: np.asfortranarray(x[:, None]), 2),
    "strided column": (lambda x: strided(x)[:, None], 2),
    "matrix": (lambda x: np.asmatrix(x).T, 2),
    "list": (lambda x: x.tolist(), 1),
    "tuple": (lambda x: tuple(x.tolist()), 1),
    "list of rows": (lambda x: [[value] for value in x.tolist()], 2),
    "strided": (strided, 1),
    "reversed": (lambda x: x[::-1].copy()[::-1], 1),
    "read-only": (read_only, 1),
    "unaligned": (unaligned, 1),
    "subclass": (lambda x: x.view(Subclass), 1),
    "masked, nothing": (lambda x: np.ma.array(x), 1),
    "Series": (lambda x: Series(x), 1),
}


def drawn(seed):
    """A hierarchy of one to three levels, whose parts are of any precision."""
    draw = np.random.default_rng(seed)
    n = int(draw.choice([7, 15]))
    levels = [
        Level(
            matrix_of(draw, draw.choice(["f4", "f8", "i8", "c8", "c16", "g"]), n),
            SMOOTHERS[seed % 4],
        )
    ]
    P = gallery.poisson(15)[0].transfer.P
    while n > 3 and draw.integers(3):
        A, kind = levels[-1].matrix, draw.choice(["f4", "f8", "c16"])
        P = gallery.poisson(n)[0].transfer.P
        real = A.dtype.kind != "c" and kind == "c16" and draw.integers(2)
        P = P.astype("f8" if real else draw.choice(["f4", "f8"]))
        levels[-1] = replace(levels[-1], transfer=MatrixTransfer(P))
        n = P.shape[1]
        coarse = sp.csr_matrix(P.T @ A @ P)
        coarse = coarse.astype(np.promote_types(kind, "c8" if coarse.dtype.kind == "c" else "f4"))
        levels.append(Level(coarse, SMOOTHERS[draw.integers(4)]))
    levels[-1] = replace(levels[-1], smoother=COARSE[draw.integers(4)])
    return draw, Hierarchy(levels)


@pytest.mark.parametrize("seed", range(120))
def test_any_mix_is_solved_as_numpy_promotes_it(seed):
    draw, hierarchy = drawn(seed)
    A = hierarchy[0].matrix
    n = A.shape[0]
    kind = draw.choice(KINDS["any"])
    plain = vector_of(draw, kind, n)
    form, axes = FORMS[draw.choice(list(FORMS))]
    f = form(plain)
    start = None if draw.integers(2) else vector_of(draw, draw.choice(KINDS["any"]), n)
    if start is not None and axes == 2:
        start = start[:, None]
    solver = Solver(
        hierarchy,
        ("V(1,1)", "F(1,2,2)", "nested V(2,1)")[draw.integers(3)],
        rtol=2e-6,
        max_cycles=300,
        acceleration=(None, Anderson(2))[draw.integers(2)],
    )
    solution = solver.solve(f, start)
    own = np.asarray(f).dtype
    given = [x for x in (own, None if start is None else start.dtype) if x is not None]
    given = [np.dtype(float) if x.kind in "iub" else x for x in given]
    expected = np.result_type(A.dtype, *given)
    if any(level.matrix.dtype.kind == "c" for level in hierarchy):
        expected = np.result_type(expected, "c8")
    assert solution.value.dtype == expected
    assert type(solution.value) is np.ndarray
    assert solution.value.shape == ((n,) if axes == 1 else (n, 1))
    solution.require()
    wide = np.result_type(expected, "f8") if expected.char not in "gG" else "c16"
    exact = spla.spsolve(sp.csc_matrix(A.astype(wide)), plain.astype(wide))
    error = abs(solution.value.ravel() - exact).max() / max(abs(exact).max(), 1e-30)
    assert error < 1e-4
    assert solution.explain() and str(solution)
    states = []
    again = Solver(hierarchy, rtol=2e-6, max_cycles=300, monitor=lambda _, u: states.append(u))
    again.solve(f)
    assert states[-1].shape == (n,)


@pytest.mark.parametrize("smoother", SMOOTHERS, ids=str)
def test_other_forms_have_the_bits_of_the_plain_one(smoother):
    hierarchy = gallery.poisson((7, 7), smoother=smoother)
    f = np.random.default_rng(0).standard_normal(49)
    plain = Solver(hierarchy).solve(f)
    for name, (form, _) in FORMS.items():
        other = Solver(hierarchy).solve(form(f))
        assert np.array_equal(other.value.ravel(), plain.value), name
        assert other.residual_norms == plain.residual_norms, name
    swapped = Solver(hierarchy).solve(f.astype(">f8"))
    assert np.array_equal(swapped.value, plain.value) and swapped.value.dtype.isnative


def test_what_fits_is_not_copied():
    hierarchy, f = gallery.poisson(7), np.ones(7)
    assert operands("solve", hierarchy, f, None)[0] is f
    tensor = torch.ones(7, dtype=torch.float64)
    level = Level(torch.eye(7, dtype=torch.float64), Jacobi())
    assert operands("solve", Hierarchy([level]), tensor, None)[0] is tensor


@pytest.mark.parametrize("seed", range(8))
def test_pyamg_hierarchies_of_mixed_precision(seed):
    draw = np.random.default_rng(seed)
    A = pyamg.gallery.poisson((15, 15), format="csr")
    if seed % 2:
        A = (A + 0.1j * sp.eye_array(225)).tocsr()
    A = A.astype(("f4", "f8", "c8", "c16")[draw.integers(2) + 2 * (seed % 2)])
    make = (pyamg.ruge_stuben_solver, pyamg.smoothed_aggregation_solver)[
        1 if seed % 2 else seed // 2 % 2
    ]
    hierarchy = Hierarchy.from_pyamg(make(A, max_coarse=10), SMOOTHERS[draw.integers(4)])
    f = vector_of(draw, draw.choice(["f4", "f8", "i8", "c16"]), 225)
    solution = Solver(hierarchy, rtol=1e-4, max_cycles=100).solve(f[:, None]).require()
    assert solution.value.dtype == np.result_type(A, float if f.dtype.kind == "i" else f)
    exact = spla.spsolve(A.astype(complex).tocsc(), f.astype(complex))
    assert abs(solution.value.ravel() - exact).max() < 1e-2 * abs(exact).max()


@pytest.mark.parametrize("smoother", SMOOTHERS[:3], ids=str)
@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("kind", ["f4", ">f8", "c16", "g"])
def test_run_with_any_array_meets_no_error_of_numba(smoother, form, kind):
    hierarchy = gallery.poisson(7, levels=1, smoother=smoother)
    hierarchy = hierarchy.with_levels([replace(hierarchy[0], smoother=smoother)])
    f = FORMS[form][0](np.arange(7.0).astype(kind))
    if not isinstance(f, np.ndarray):
        pytest.skip("run takes states")
    if isinstance(f, np.matrix):
        pytest.skip("* is another product for np.matrix")
    u = run(cycle(1), hierarchy, None, f)[0]
    plain = run(cycle(1), hierarchy, None, np.arange(7.0))[0]
    np.testing.assert_allclose(np.asarray(u).ravel().astype(complex), plain, rtol=1e-5)


def test_a_complex_matrix_and_a_real_state_in_run():
    A = sp.csr_matrix(np.diag([2.0, 2.0j, 1.0 + 1.0j]))
    for smoother in (Jacobi(1.0), GaussSeidel(), Direct(), Direct("pinv")):
        for kind in (A, A.toarray()):
            hierarchy = Hierarchy([Level(kind, smoother)])
            u = run(cycle(1), hierarchy, None, np.ones(3))[0]
            np.testing.assert_allclose(A @ u, np.ones(3), atol=1e-14)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_tensors(kind):
    A = torch.diag(torch.tensor([2.0, 4.0], dtype=torch.complex128))
    b = torch.tensor([2.0 + 1j, 4.0], dtype=torch.complex128)
    for smoother in (Jacobi(1.0), Direct(), Chebyshev()):
        solver = Solver(Hierarchy([Level(A, smoother)]), rtol=1e-12)
        value = solver.solve(b.conj()).require().value
        torch.testing.assert_close(value, torch.tensor([1 - 0.5j, 1.0], dtype=torch.complex128))
        column = solver.solve(b.conj()[:, None]).require().value
        assert tuple(column.shape) == (2, 1)
    other = Level(
        lambda u: 2.0 * u, Jacobi(), linearize=lambda u: 2.0 * torch.eye(2, dtype=u.dtype)
    )
    mixed = Solver(Hierarchy([other])).solve(torch.ones(2, dtype=kind), torch.ones(2).double())
    assert mixed.value.dtype == torch.float64


MASKED = np.ma.array(np.ones(7), mask=[0, 0, 1, 0, 0, 0, 0])
REFUSED = [
    (MASKED, ValueError, "masked entries"),
    (sp.csr_array(np.ones((7, 1))), TypeError, r"sparse csr_array of shape \(7, 1\); give a dense"),
    (np.ones((1, 7)), ValueError, r"shape \(1, 7\).*ravel"),
    (np.asmatrix(np.ones(7)), ValueError, r"shape \(1, 7\).*ravel"),
    (np.ones((7, 2)), ValueError, "14 entries"),
    (np.ones((7, 1, 1)), ValueError, r"shape \(7, 1, 1\)"),
    (np.array(["1"] * 7), TypeError, "give float64"),
    (np.array([1.0] * 7, dtype=object), TypeError, "give float64"),
    (np.ones(7, dtype="m8[s]"), TypeError, "give float64"),
    ([1.0, [2.0, 3.0]], TypeError, "not an array of numbers"),
    ([], ValueError, "0 entries"),
    (np.float64(1.0), ValueError, "single number"),
    (1.0, TypeError, "a state must be"),
    ({"f": 1.0}, TypeError, "a state must be"),
    ("1234567", TypeError, "a state must be"),
    (torch.ones(7), TypeError, "one kind and precision"),
    (Series(np.array([1.0, None, "x"])), TypeError, "give float64"),
]


@pytest.mark.parametrize(("f", "kind", "words"), REFUSED)
@pytest.mark.parametrize("name", ["f", "u"])
def test_what_is_no_state_is_refused_in_one_sentence(name, f, kind, words):
    with pytest.raises(kind, match=f"Solver.solve got {name}.*{words}|a state must be") as error:
        Solver(gallery.poisson(7)).solve(**{name: f})
    assert "\n" not in str(error.value)


def test_shapes_without_a_matrix_are_the_users():
    level = Level(lambda u: 2.0 * u, Krylov("cg"), linearize=lambda u: lambda x: 2.0 * x)
    value = Solver(Hierarchy([level])).solve(np.ones((2, 3, 1))).value
    assert value.shape == (2, 3, 1)
    with pytest.raises(TypeError, match="f of float16; give float64"):
        Solver(Hierarchy([level])).solve(np.ones(3, np.float16))


@pytest.mark.parametrize("f", [[1.0, 2.0], np.array([1.0, 2.0], np.float16), np.array([1j, 2.0])])
def test_direct_takes_what_numpy_can_promote(f):
    solution = Solver(Hierarchy([Level(np.diag([2.0, 4.0]), Direct())])).solve(f).require()
    np.testing.assert_allclose(solution.value, np.asarray(f) / [2.0, 4.0])
