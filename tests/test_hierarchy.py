"""A hierarchy checks its parts when it is made, naming the level, and prints as a table."""

from dataclasses import replace

import numpy as np
import pyamg
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from mgnet import (
    AxisTransfer,
    Chebyshev,
    Direct,
    GaussSeidel,
    Hierarchy,
    Jacobi,
    Level,
    MatrixTransfer,
    PackedTransfer,
    Solver,
    gallery,
    interpolation_matrix,
    vector,
)

A = gallery.poisson(7)[0].matrix
P = interpolation_matrix(3)


# Refusals ------------------------------------------------------------------------------------


def changed(number, **changes):
    def make():
        levels = list(gallery.poisson(7))
        levels[number] = replace(levels[number], **changes)
        return levels

    return make


@pytest.mark.parametrize(
    ("make", "error", "why"),
    [
        (lambda: [], ValueError, "Hierarchy got no levels; give at least one Level"),
        (lambda: [Level(A, Jacobi(), MatrixTransfer(P)), A], TypeError, "level 1 is a csr_matrix"),
        (changed(1, operator=3.0), TypeError, "level 1 has an operator of type float; give a cal"),
        (changed(1, smoother=Jacobi), TypeError, "level 1 has the class Jacobi as a smoother"),
        (changed(0, post_smoother="GS"), TypeError, "level 0 has a smoother of type str"),
        (changed(2, smoother=None), TypeError, "level 2 has a smoother of type NoneType"),
        (changed(2, transfer=MatrixTransfer(P)), ValueError, "level 2 is the coarsest but has a"),
        (changed(1, transfer=None), TypeError, "level 1 has a transfer of type NoneType; every"),
        (changed(1, transfer=P), TypeError, "level 1 has a transfer of type csr_matrix"),
        (
            changed(0, transfer=MatrixTransfer(interpolation_matrix(2))),
            ValueError,
            r"level 0 has a matrix of prolongation of shape \(5, 2\);.*must be \(7, 3\)",
        ),
        (
            changed(1, transfer=MatrixTransfer(interpolation_matrix(1).T)),
            ValueError,
            r"level 1 has a matrix of prolongation of shape \(1, 3\);.*must be \(3, 1\)",
        ),
    ],
)
def test_a_part_that_does_not_fit_is_named_with_its_level(make, error, why):
    with pytest.raises(error, match=f"^{why}"):
        Hierarchy(make())


@pytest.mark.parametrize("counts", [(2, 0, None), (2, 2, None), (0, 0, None), (2, 1, 2)])
def test_from_matrices_counts_its_matrices(counts):
    matrices, prolongations, restrictions = counts
    with pytest.raises(ValueError, match="L levels need L matrices and L - 1 of the others"):
        Hierarchy.from_matrices(
            [A] * matrices, [P] * prolongations, restrictions and [P.T] * restrictions
        )


# Sequence and table --------------------------------------------------------------------------


def test_a_hierarchy_is_a_sequence():
    hierarchy = gallery.poisson(15)
    levels = list(hierarchy)
    assert len(hierarchy) == len(levels) == 4
    assert hierarchy[0] is levels[0] and hierarchy[-1] is levels[3]
    assert hierarchy[1:3] == tuple(levels[1:3])
    assert levels[2] in hierarchy and hierarchy.index(levels[2]) == 2
    assert repr(hierarchy) == "<Hierarchy of 4 levels, 15 unknowns>"


def test_the_table_has_a_row_per_level():
    hierarchy = gallery.poisson(7, smoother=GaussSeidel(), post_smoother=Chebyshev(2))
    head, names, *rows = str(hierarchy).split("\n")
    assert head == "Hierarchy of 3 levels, 11 unknowns in all (1.57 times the finest)"
    assert names.split() == ["level", "unknowns", "cost", "smoother", "transfer"]
    assert [row.split()[:3] for row in rows] == [
        ["0", "7", "1"],
        ["1", "3", "0.429"],
        ["2", "1", "0.143"],
    ]
    both = "GaussSeidel('forward') / Chebyshev(degree=2)"
    assert [both in row for row in rows] == [True, True, False]
    assert [row.split("  ")[-1].strip() for row in rows] == [
        "MatrixTransfer",
        "MatrixTransfer",
        "-",
    ]


def test_the_table_of_levels_of_unknown_size():
    axis = AxisTransfer(P, 0)
    packed = PackedTransfer((((3,), axis),))
    levels = [
        Level(abs, Jacobi(), MatrixTransfer(abs, abs), cost=4.0),
        Level(abs, Jacobi(), axis, cost=2.0),
        Level(abs, Jacobi(), packed, cost=1.0),
        Level(abs, Jacobi()),
    ]
    head, _, *rows = str(Hierarchy(levels)).split("\n")
    assert head == "Hierarchy of 4 levels"
    assert [row.split()[1:3] for row in rows] == [["?", "1"], ["?", "0.5"]] + [["?", "0.25"]] * 2
    assert [row.split("  ")[-1].strip() for row in rows] == [
        "MatrixTransfer",
        str(axis),
        str(packed),
        "-",
    ]
    assert repr(Hierarchy(levels)) == "<Hierarchy of 4 levels, ? unknowns>"


# Batches and norms ---------------------------------------------------------------------------


def test_a_batch_is_bound_to_all_levels():
    def bind(scale):
        levels = gallery.poisson(7)
        return [replace(level, operator=scale * level.matrix) for level in levels]

    def norm(u):
        return 2.0 * vector.norm(u)

    hierarchy = Hierarchy(bind(1.0), norm=norm, dot=np.vdot, bind=bind, nested=True)
    bound = hierarchy.with_data(3.0)
    for level, other in zip(hierarchy, bound, strict=True):
        np.testing.assert_allclose(other.matrix.toarray(), 3.0 * level.matrix.toarray())
    assert (bound.norm, bound.dot) == (hierarchy.norm, hierarchy.dot)
    assert (bound.bind, bound.nested) == (bind, True)
    assert (bound.norm(np.ones(4)), bound.dot(np.ones(4), np.ones(4))) == (4.0, 4.0)
    np.testing.assert_allclose(bound.with_data(1.0)[0].matrix.toarray(), A.toarray())
    with pytest.raises(TypeError, match="first give Hierarchy"):
        gallery.poisson(7).with_data(3.0)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_is_finite_uses_the_norm_of_the_hierarchy():
    plain = gallery.poisson(7)
    ranks = Hierarchy(plain.levels, norm=lambda u: np.inf)  # another rank has an Inf
    assert plain.is_finite(np.ones(7)) and not plain.is_finite(np.array([np.nan]))
    assert not ranks.is_finite(np.ones(7))


# Other levels --------------------------------------------------------------------------------


def parts_of(hierarchy):
    return {name: getattr(hierarchy, name) for name in ("norm", "dot", "bind", "nested", "network")}


def scaled(factor):
    """Levels of a batch: the matrices times a number."""
    return [replace(l, operator=factor * l.matrix) for l in gallery.poisson(15)]


@pytest.mark.parametrize("seed", range(8))
def test_a_hierarchy_of_other_levels_loses_no_part(seed):
    draw = np.random.default_rng(seed)
    given = {
        "norm": lambda u: 2.0 * vector.norm(u),
        "dot": lambda u, v: 4.0 * vector.dot(u, v),
        "bind": scaled,
        "nested": True,
        "network": lambda level, u: f"network {level} of {u}",
    }
    given = {name: part for name, part in given.items() if draw.random() < 0.7}
    hierarchy = Hierarchy(scaled(1.0), **given)
    parts = parts_of(hierarchy)
    first, last = int(draw.integers(0, 3)), int(draw.integers(3, 5))

    def cut(levels):
        kept = list(levels[first:last])
        return [*kept[:-1], replace(kept[-1], transfer=None)]

    for levels in (cut(hierarchy), cut):
        other = hierarchy.with_levels(levels, first=first)
        assert [level.unknowns for level in other] == [15, 7, 3, 1][first:last]
        told = parts_of(other)
        assert all(told[name] is parts[name] for name in ("norm", "dot", "nested"))
        if "network" in given:
            assert other.network(1, "u") == f"network {first + 1} of u"
        else:
            with pytest.raises(TypeError, match="hold no network"):
                other.network(1, "u")
        if "bind" not in given:
            assert other.bind is None
            continue
        bound = other.with_data(3.0)
        expected = cut(scaled(3.0)) if callable(levels) else scaled(3.0)
        assert [level.unknowns for level in bound] == [level.unknowns for level in expected]
        assert abs(bound[0].matrix - expected[0].matrix).max() == 0.0
        assert parts_of(bound) == told
    assert parts_of(hierarchy) == parts and len(hierarchy) == 4


def test_other_levels_are_checked():
    hierarchy = gallery.poisson(7)
    with pytest.raises(TypeError, match="Hierarchy got a Level"):
        hierarchy.with_levels(hierarchy[0])
    with pytest.raises(ValueError, match="level 1 is the coarsest but has a transfer"):
        hierarchy.with_levels(lambda levels: levels[:2])
    for first in (-1, 3, 1.0):
        with pytest.raises(ValueError, match=f"first = {first}; .* from 0 to 2"):
            hierarchy.with_levels(hierarchy.levels, first=first)


# From matrices -------------------------------------------------------------------------------


def test_from_matrices_places_its_parts():
    coarse = sp.csr_matrix(P.T @ A @ P)
    R = sp.csr_matrix(0.5 * P.T)
    parts = GaussSeidel(), Chebyshev(), Direct("pinv")
    hierarchy = Hierarchy.from_matrices([A, coarse], [P], [R], *parts, nested=True)
    fine, last = hierarchy
    assert (fine.smoother, fine.post_smoother, last.smoother) == parts
    assert fine.matrix is A and last.matrix is coarse and fine.transfer.P is P
    np.testing.assert_allclose(fine.transfer.restrict(np.ones(7)), R @ np.ones(7))
    assert hierarchy.nested and fine.transfer.inject is None
    defaults = Hierarchy.from_matrices([A, coarse], [P])
    assert (defaults[0].smoother, defaults[1].smoother) == (Jacobi(), Direct())
    assert defaults[0].post_smoother is None and not defaults.nested
    np.testing.assert_allclose(defaults[0].transfer.restrict(np.ones(7)), P.T @ np.ones(7))


@pytest.mark.parametrize(
    "build",
    [pyamg.smoothed_aggregation_solver, pyamg.ruge_stuben_solver],
    ids=["smoothed aggregation", "Ruge and Stueben"],
)
def test_from_pyamg_has_its_matrices_and_solves(build):
    matrix = pyamg.gallery.poisson((20, 20), format="csr")
    theirs = build(matrix, max_coarse=10)
    ours = Hierarchy.from_pyamg(theirs, smoother=GaussSeidel("symmetric"))
    assert len(ours) == len(theirs.levels) >= 3
    for level, part in zip(ours, theirs.levels, strict=True):
        assert level.matrix is part.A or (level.matrix != part.A).nnz == 0
        if level.transfer is not None:
            r = np.arange(float(part.A.shape[0]))
            w = np.arange(float(part.P.shape[1]))
            np.testing.assert_allclose(level.transfer.restrict(r), part.R @ r)
            np.testing.assert_allclose(level.transfer.prolong(w), part.P @ w)
    assert ours[-1].smoother == Direct("pinv")
    f = np.ones(400)
    u = Solver(ours, rtol=1e-10).solve(f).require().value
    np.testing.assert_allclose(u, spla.spsolve(matrix.tocsc(), f), rtol=1e-8)


def test_a_restriction_that_does_not_fit_is_named_with_its_level():
    with pytest.raises(ValueError, match="level 0 has a matrix of restriction of shape"):
        Hierarchy.from_matrices([A, sp.csr_matrix(P.T @ A @ P)], [P], [np.ones((2, 7))])


def test_the_level_is_named_by_its_number_when_a_smoother_refuses():
    levels = list(gallery.poisson(7))
    levels[1] = replace(levels[1], operator=sp.csr_matrix(np.diag([1.0, 0.0, 1.0])))
    with pytest.raises(ValueError, match="level 1"):
        Solver(Hierarchy(levels)).solve(np.ones(7))


def test_a_network_of_levels_that_hold_none_is_refused():
    with pytest.raises(TypeError, match="level 0, but these levels hold no network; build"):
        gallery.poisson(7).network(0, np.zeros(7))


def test_jacobi_is_pyamg_s_without_its_spectral_radius():
    """The row of docs/coming-from.md."""
    A = pyamg.gallery.poisson((30, 30), format="csr")
    sweeps = [("jacobi", {"omega": 0.8, "iterations": n, "withrho": False}) for n in (2, 1)]
    ml = pyamg.ruge_stuben_solver(A, presmoother=sweeps[0], postsmoother=sweeps[1])
    theirs: list[float] = []
    ml.solve(np.ones(900), tol=0.0, maxiter=5, residuals=theirs)
    solver = Solver(Hierarchy.from_pyamg(ml, Jacobi(0.8)), "V(2,1)", rtol=0.0, max_cycles=5)
    np.testing.assert_allclose(solver.solve(np.ones(900)).residual_norms, theirs, rtol=1e-10)
