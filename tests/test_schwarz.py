"""Schwarz relaxation is dense solves on each subdomain; Vanka's smooths a saddle point."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from pyamg.relaxation.relaxation import schwarz

from mgnet import (
    AdditiveSchwarz,
    BlockGaussSeidel,
    BlockJacobi,
    Direct,
    GaussSeidel,
    Hierarchy,
    Level,
    MatrixTransfer,
    MultiplicativeSchwarz,
    Solver,
    gallery,
    interpolation_matrix,
)
from mgnet.options import parse_smoother
from mgnet.schwarz import _colours, _concatenated
from tests import smoother_laws as laws
from tests.smoother_laws import check_laws, drawn, swept

SETS = [[0, 3, 5], [1, 2], [4, 6, 7, 8, 0], [9, 10, 11, 1], [2, 9]]
DIRECTIONS = ["forward", "backward", "symmetric"]


def neighbours(A):
    return [np.flatnonzero((row != 0) | (np.arange(len(A)) == i)) for i, row in enumerate(A)]


def additive(smoother):
    def sweep(A, u, f) -> Any:
        sets: Any = neighbours(A) if smoother.subdomains is None else smoother.subdomains
        count = np.bincount(np.concatenate(sets))
        r, d = f - A @ u, np.zeros_like(f - A @ u)
        for number, part in enumerate(sets):
            before, after = 1.0, 1.0
            if smoother.weights == "average":
                after = 1 / count[part]
            elif smoother.weights == "symmetric":
                before = after = count[part] ** -0.5
            elif not isinstance(smoother.weights, str):
                after = np.asarray(smoother.weights[number])
            inner = np.linalg.solve(A[np.ix_(part, part)], before * r[part])
            d[part] += (smoother.omega * after * inner).astype(d.dtype)
        return u + d

    return sweep


def by_colours(smoother):
    def sweep(A, u, f) -> Any:
        sets: Any = neighbours(A) if smoother.subdomains is None else smoother.subdomains
        given: Any = _concatenated("", sets)
        colours = _colours(sp.csr_matrix(A), *given)
        order = list(range(colours.max() + 1))
        ways = {"forward": order, "backward": order[::-1], "symmetric": order + order[::-1]}
        for colour in ways[smoother.direction]:
            for number in np.flatnonzero(colours == colour):
                part, u = sets[number], u.copy()
                inner = np.linalg.solve(A[np.ix_(part, part)], (f - A @ u)[part])
                u = (u + 0j if inner.dtype.kind == "c" else u).astype(np.result_type(u, inner))
                u[part] += (smoother.omega * inner).astype(u.dtype)
        return u

    return sweep


@pytest.mark.parametrize(
    "smoother",
    [
        AdditiveSchwarz(SETS),
        AdditiveSchwarz(SETS, "symmetric", 0.7),
        AdditiveSchwarz([np.array(part) for part in SETS], "none", 0.3),
        AdditiveSchwarz(SETS, [np.linspace(0, 1, len(part)) for part in SETS]),
        AdditiveSchwarz(),
    ],
    ids=str,
)
def test_additive_sweeps_are_dense_solves(smoother):
    check_laws(smoother, additive(smoother), 12)


@pytest.mark.parametrize(
    "smoother",
    [
        *(MultiplicativeSchwarz(SETS, direction=way) for way in DIRECTIONS),
        MultiplicativeSchwarz(SETS, 0.7),
        MultiplicativeSchwarz(),
    ],
    ids=str,
)
def test_multiplicative_sweeps_are_dense_solves(smoother, monkeypatch):
    every = laws.kinds_of_level
    only = "csr", "csc", "coo", "dense"  # others are refused
    monkeypatch.setattr(
        laws, "kinds_of_level", lambda *args: {k: v for k, v in every(*args).items() if k in only}
    )
    check_laws(smoother, by_colours(smoother), 12)


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_pyamg_gives_the_same_in_the_order_of_the_colours(dtype, direction):
    A, u, f = drawn(40, dtype, density=0.05)
    A.sort_indices()
    draw = np.random.default_rng(1)
    sets = [np.sort(draw.permutation(40)[:5]) for _ in range(12)]
    sets += [np.array([i]) for i in set(range(40)) - set(np.concatenate(sets))]
    given: Any = _concatenated("", sets)
    colours = _colours(A, *given)
    assert 1 < colours.max() + 1 < len(sets)
    ordered = [sets[k] for k in np.argsort(colours, kind="stable")]
    dense = A.toarray()
    inverses = np.concatenate([np.linalg.inv(dense[np.ix_(p, p)]).ravel() for p in ordered])
    expected = u.copy()
    schwarz(
        A,
        expected,
        f,
        iterations=2,
        subdomain=np.concatenate(ordered).astype(np.int32),
        subdomain_ptr=np.cumsum([0, *map(len, ordered)]).astype(np.int32),
        inv_subblock=inverses,
        inv_subblock_ptr=np.cumsum([0, *(len(p) ** 2 for p in ordered)]).astype(np.int32),
        sweep=direction,
    )
    smoother = MultiplicativeSchwarz(sets, direction=direction)
    np.testing.assert_allclose(swept(smoother, Level(A, smoother), u, f, 2), expected, rtol=1e-10)


def test_sets_of_one_colour_neither_overlap_nor_are_coupled():
    A, _, _ = drawn(50, density=0.04)
    draw = np.random.default_rng(0)
    sets = [draw.permutation(50)[:3] for _ in range(60)]
    given: Any = _concatenated("", sets)
    colours, dense = _colours(A, *given), A.toarray()
    for i in range(60):
        for j in range(i):
            if colours[i] == colours[j]:
                assert not set(sets[i]) & set(sets[j])
                assert not dense[np.ix_(sets[i], sets[j])].any()
                assert not dense[np.ix_(sets[j], sets[i])].any()


def test_sets_without_overlap_are_blocks():
    A, u, f = drawn(12)
    blocks = np.arange(12).reshape(4, 3)
    for one, other in (
        (AdditiveSchwarz(blocks, omega=0.7), BlockJacobi(3, 0.7)),
        (MultiplicativeSchwarz(blocks), BlockGaussSeidel(3)),  # a full matrix: a colour for each
    ):
        A = drawn(12, density=1.0)[0]
        level = Level(A, one)
        np.testing.assert_allclose(swept(one, level, u, f), swept(other, level, u, f), atol=1e-13)


def test_a_symmetric_smoother():
    A, eye = gallery.poisson((5, 5), levels=1)[0].matrix, np.eye(25)
    for smoother in (
        AdditiveSchwarz(weights="symmetric"),
        MultiplicativeSchwarz(direction="symmetric"),
    ):
        level = Level(A, smoother)
        M = np.array([swept(smoother, level, np.zeros(25), e) for e in eye])
        np.testing.assert_allclose(M, M.T, atol=1e-13)
        assert np.linalg.eigvalsh(M).min() > 0
    for smoother, most in ((AdditiveSchwarz(omega=0.9), 15), (MultiplicativeSchwarz(), 6)):
        levels = gallery.poisson((31, 31), smoother=smoother)
        assert Solver(levels, "V(1,1)").solve(np.ones(961)).require().cycles <= most


def stokes(n, compressibility=1e-3):
    """The Stokes equations on n x n cells, velocities on the edges, and Vanka's subdomains.

    Unknowns are the velocities between cells, first in x, then in y, and the pressures. An
    incompressible flow determines these up to a constant only.
    """
    D = sp.diags([1.0, -1.0], [0, -1], shape=(n, n - 1)).tocsr()
    second, free = D.T @ D, sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n))
    free = free + sp.diags([1.0] + [0.0] * (n - 2) + [1.0])  # no slip, half a cell away
    one, less = sp.eye(n), sp.eye(n - 1)
    viscous = sp.block_diag([sp.kron(second, one) + sp.kron(less, free),
                             sp.kron(one, second) + sp.kron(free, less)])  # fmt: skip
    divergence = sp.hstack([sp.kron(D, one), sp.kron(one, D)]).tocsr()
    corner = -compressibility * sp.eye(n * n) if compressibility else None
    A = sp.bmat([[viscous, divergence.T], [divergence, corner]], format="csr")
    count = viscous.shape[0]
    sets = [np.append(divergence[cell].indices, count + cell) for cell in range(n * n)]
    return A, sets


@pytest.mark.parametrize("compressibility", [1e-3, 0.0])
def test_vanka_on_a_saddle_point(compressibility):
    """A two-grid cycle runs away with a point smoother, or cannot begin; with Vanka's it solves."""
    n = 16
    A, sets = stokes(n, compressibility)
    assert np.linalg.eigvalsh(A.toarray()).min() < 0 < A.diagonal().max()
    edges = interpolation_matrix(n // 2 - 1, degree=1)  # along an edge's own axis
    halves = sp.kron(sp.eye(n // 2), np.ones((2, 1)))  # of cells
    cells = sp.kron(halves, halves)
    P = sp.block_diag([sp.kron(edges, halves), sp.kron(halves, edges), cells], format="csr")
    f = np.random.default_rng(0).standard_normal(A.shape[0])
    f[-n * n :] -= f[-n * n :].mean()  # what flows in flows out
    coarse = Level(sp.csr_matrix(P.T @ A @ P), Direct("pinv"))
    for smoother, most in (
        (MultiplicativeSchwarz(sets, omega=0.8), 15),
        (AdditiveSchwarz(sets, omega=0.7), 20),
        (GaussSeidel(), 0),
    ):
        levels = Hierarchy([Level(A, smoother, MatrixTransfer(P)), coarse])
        solver = Solver(levels, "V(2,2)", max_cycles=60, rtol=1e-8)
        if most:
            assert solver.solve(f).require().cycles <= most
        elif compressibility:
            assert not solver.solve(f).reason.converged
        else:
            with pytest.raises(ValueError, match="zeros on its diagonal; use .*Multiplicative"):
                solver.solve(f)


def test_text():
    for text in ("AdditiveSchwarz()", "MultiplicativeSchwarz()"):
        assert parse_smoother(text).subdomains is None
    given = parse_smoother("MultiplicativeSchwarz([[0, 1], [1, 2]], direction='backward')")
    assert given.subdomains == [[0, 1], [1, 2]] and given.direction == "backward"
    assert str(given) == repr(given) == "MultiplicativeSchwarz(2 subdomains, 'backward')"
    assert str(AdditiveSchwarz()) == "AdditiveSchwarz(neighbours, 'average')"


@pytest.mark.parametrize("kind", [AdditiveSchwarz, MultiplicativeSchwarz])
@pytest.mark.parametrize(
    ("subdomains", "why"),
    [
        ([], "no subdomains; give a sequence of index sets"),
        (3, "subdomains 3; give"),
        ([[0, 1], []], r"as subdomain 1; give"),
        ([[0, 1], [1.0, 2.0]], "as subdomain 1; give"),
        ([[0, -1]], "as subdomain 0; give .*, from 0"),
        ([[0], [1], [2, -1], [-1]], "as subdomain 2; give .*, from 0"),
        ([[0], np.array([2**63], np.uint64)], "as subdomain 1; give .*, from 0"),
        ([[[0, 1]]], "as subdomain 0; give"),
        ([[0, 2], [2, 1, 2]], "subdomain 1 with an unknown twice; name each once"),
        ("01", "as subdomain 0; give"),
    ],
)
def test_subdomains_that_are_none(kind, subdomains, why):
    with pytest.raises(ValueError, match=f"{kind.__name__} got .*{why}"):
        kind(subdomains)


@pytest.mark.parametrize("kind", [AdditiveSchwarz, MultiplicativeSchwarz])
@pytest.mark.parametrize(
    ("subdomains", "why"),
    [
        ([[0, 1], [3]], r"unknown 2 is in no subdomain \(1 of 4 are in none\)"),
        ([[0, 1, 2], [3, 4]], "unknown 4 is in a subdomain, but the level has 4 unknowns, 0 to 3"),
        ([[0, 1], [2, 3]], "the matrix of unknowns 2, 3 is singular"),
    ],
)
def test_subdomains_that_do_not_fit(kind, subdomains, why):
    A = sp.csr_matrix(np.kron(np.diag([1.0, 0.0]), np.eye(2)) + np.diag([0, 0, 1.0, 0]))
    smoother = kind(subdomains)
    with pytest.raises(ValueError, match=f"{kind.__name__}.* on level 5: {why}"):
        smoother.start(Level(A, smoother, name="level 5"), np.zeros(4))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: AdditiveSchwarz(omega=0.0), "omega 0.0; give a number above 0"),
        (lambda: MultiplicativeSchwarz(omega="1"), "omega '1'; give a number above 0"),
        (lambda: MultiplicativeSchwarz(direction="up"), "direction 'up'; it must be"),
        (lambda: AdditiveSchwarz(weights="half"), "weights 'half'; they must be 'average'"),
        (lambda: AdditiveSchwarz([[0, 1]], [[1.0]]), "weights .*, which do not fit"),
        (lambda: AdditiveSchwarz([[0, 1]], [[1.0, np.nan]]), "weights .*, which do not fit"),
        (lambda: AdditiveSchwarz([[0, 1]], 0.5), "weights 0.5, which do not fit"),
        (lambda: AdditiveSchwarz(None, [[1.0]]), "weights .*, which do not fit"),
    ],
)
def test_parameters_are_checked(make, why):
    with pytest.raises(ValueError, match=why):
        make()


def test_a_nonlinear_level():
    A, u, f = drawn(12)
    smoother = AdditiveSchwarz(SETS)
    level = Level(lambda u: A @ u + u**3, smoother, linearize=lambda u: A + sp.diags(3 * u**2))
    J = (A + sp.diags(3 * u**2)).toarray()
    expected = additive(smoother)(J, u, f + J @ u - (A @ u + u**3))
    np.testing.assert_allclose(swept(smoother, level, u, f), expected, rtol=1e-12)
    smoother = MultiplicativeSchwarz(SETS)
    for ask in (lambda: smoother.start(level, u), lambda: smoother.work(level, 1)):
        with pytest.raises(ValueError, match="residual of this level is a function; use Additive"):
            ask()
