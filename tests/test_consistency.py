"""`Hierarchy.check` holds on right parts; a broken part is seen, its law and its level named."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mgnet import Direct, Hierarchy, Jacobi, Level, MatrixTransfer, gallery
from mgnet.consistency import check


def fas():
    return list(gallery.reaction(15, levels=3))


def recentred(levels, broken=None):
    """Make a level whose coarse equation is the fine one around the current state."""
    fine, coarse = levels[:2]
    transfer = MatrixTransfer(fine.transfer.P)

    def around(u):
        def operator(w):
            moved = fine.operator(u + transfer.prolong(w)) - fine.operator(u)
            result = transfer.restrict(moved)
            return {"offset": result + 1.0, "factor": 2.0 * result}.get(broken, result)

        return Level(operator, coarse.smoother, size=coarse.size)

    return [replace(fine, transfer=transfer, recenter=around), replace(coarse, transfer=None)]


def galerkin(nested=True):
    return Hierarchy(list(gallery.poisson(15, levels=3)), nested=nested)


RIGHT = {
    "linear": (galerkin, 15),
    "two dimensions": (lambda: gallery.poisson((7, 7)), 49),
    "FAS": (lambda: Hierarchy(fas()), 15),
    "recentred": (lambda: Hierarchy(recentred(fas())), 15),
    "functions": (
        lambda: Hierarchy([Level(np.sin, Direct(), linearize=lambda u: sp.diags(np.cos(u)))]),
        4,
    ),
    "LinearOperator": (
        lambda: Hierarchy(
            [
                Level(
                    np.sin,
                    Direct(),
                    linearize=lambda u: sp.linalg.LinearOperator(
                        (4, 4), matvec=lambda d: np.cos(u) * d, rmatvec=lambda d: np.cos(u) * d
                    ),
                )
            ]
        ),
        4,
    ),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("make", "size"), RIGHT.values(), ids=RIGHT)
def test_right_parts_pass(make, size, seed):
    u = np.random.default_rng(seed).standard_normal(size)
    before = u.copy()
    text = make().check(u, seed=seed)
    assert text and len(set(text.split("\n"))) == len(text.split("\n"))
    np.testing.assert_array_equal(u, before)


def test_the_laws_that_are_tested_are_listed():
    assert Hierarchy(fas()).check(np.ones(15)).split("\n") == [
        f"level {number}: {law}"
        for number in range(3)
        for law in [
            "the operator is the gradient of the objective",
            "linearize and its transpose match",
            *(["restrict is the transpose of prolong", "inject undoes prolong"] * (number < 2)),
        ]
    ]
    assert "recentering, A_1(w) = restrict(A_0(u + P w) - A_0(u))" in Hierarchy(
        recentred(fas())
    ).check(np.ones(15))
    assert "nesting, A_2(w) = restrict(A_1(prolong(w)))" in galerkin().check(np.ones(15))
    assert "nesting" not in galerkin(nested=False).check(np.ones(15))


def test_claims_that_are_not_made_are_not_tested():
    A, P = galerkin()[0].matrix, galerkin()[0].transfer.P
    hierarchy = Hierarchy.from_matrices([A, P.T @ A @ P], [P], [sp.csr_matrix(2 * P.T)])
    assert hierarchy.check(np.ones(15)) == ""


def broken(number, **changes):
    """Make a right nonlinear hierarchy in which one level has wrong parts."""

    def make():
        levels = fas()
        level = levels[number]
        parts = {name: change(level) for name, change in changes.items()}
        levels[number] = replace(level, **parts)
        return Hierarchy(levels)

    return make


def nested_with(number, factor):
    def make():
        levels = list(gallery.poisson(15, levels=3))
        levels[number] = replace(levels[number], operator=factor * levels[number].matrix)
        return Hierarchy(levels, nested=True)

    return make


def with_objectives(factor):
    def make():
        levels = [
            replace(level, objective=lambda u, A=level.matrix: 0.5 * float(u @ (A @ u)))
            for level in gallery.poisson(15, levels=2)
        ]
        A = levels[1].matrix
        # The gradient of the coarse objective stays right: only its constant is wrong.
        levels[1] = replace(levels[1], objective=lambda u: 0.5 * float(u @ (A @ u)) + factor)
        return Hierarchy(levels, nested=True)

    return make


def skewed(matrix):
    return sp.csr_matrix(matrix + sp.diags(np.ones(matrix.shape[0])))


def transfer_with(**changes):
    return lambda level: replace(level.transfer, **changes)


def wrong_injection(level):
    return replace(level.transfer, injection=0.9 * level.transfer.injection)


class Lopsided(sp.linalg.LinearOperator):
    """A Jacobian whose transpose is not its own."""

    def __init__(self, matrix):
        super().__init__(float, matrix.shape)
        self.matrix = matrix

    def _matvec(self, d):
        return self.matrix @ d

    def _rmatvec(self, d):
        return 1.1 * (self.matrix.T @ d)


def claimed_adjoint(level):
    class Claimed(type(level.transfer)):
        adjoint = True

    P = level.transfer.P
    return Claimed(P, R=sp.csr_matrix(0.9 * P.T), injection=level.transfer.injection)


BROKEN = {
    "gradient": (
        broken(1, objective=lambda level: lambda u: 1.1 * level.objective(u)),
        "level 1: the operator is not the gradient of the objective",
    ),
    "transpose of linearize": (
        broken(2, linearize=lambda level: lambda u: Lopsided(level.linearize(u))),
        "level 2: the transpose of `linearize` is not its adjoint",
    ),
    "derivative": (
        broken(
            1,
            objective=lambda level: None,
            linearize=lambda level: lambda u: skewed(level.linearize(u)),
        ),
        "level 1: `linearize` is not the derivative of the operator",
    ),
    "adjoint": (
        broken(1, transfer=claimed_adjoint),
        "level 1: restrict is not the transpose of prolong",
    ),
    "inject": (broken(1, transfer=wrong_injection), "level 1: inject does not undo prolong"),
    "nesting": (nested_with(2, 1.1), "level 1: the levels are not nested"),
    "nesting of objectives": (with_objectives(0.5), "level 0: the objectives are not nested"),
    "recentering at zero": (
        lambda: Hierarchy(recentred(fas(), "offset")),
        "level 0: the recentered operator does not vanish at 0",
    ),
    "recentering": (
        lambda: Hierarchy(recentred(fas(), "factor")),
        r"level 0: the recentered operator is not restrict\(A\(u \+ P w\) - A\(u\)\)",
    ),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("make", "law"), BROKEN.values(), ids=BROKEN)
def test_a_broken_part_is_named(make, law, seed):
    u = np.random.default_rng(seed).standard_normal(15)
    with pytest.raises(ValueError, match=rf"^{law}: .* are not equal"):
        make().check(u, seed=seed)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"restrict": lambda r: r[:4]}, "level 0: restrict returns 4 unknowns, but level 1 has 7"),
        (
            {"prolong": lambda w: np.ones(9)},
            r"level 0: prolong returns the shape \(9,\), but the st",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, why):
    fine, coarse = gallery.poisson(15, levels=2)
    P = fine.transfer.P
    parts = {"prolong": lambda w: P @ w, "restrict": lambda r: P.T @ r} | change
    transfer = MatrixTransfer(parts["prolong"], parts["restrict"])
    with pytest.raises(ValueError, match=why):
        Hierarchy([replace(fine, transfer=transfer), coarse]).check(np.ones(15))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_laws_of_tensors(dtype):
    A, P = galerkin()[0].matrix, galerkin()[0].transfer.P
    tensors = [torch.tensor(M.toarray(), dtype=dtype) for M in (A, P.T @ A @ P, P)]
    right = Hierarchy.from_matrices(tensors[:2], tensors[2:], nested=True)
    wrong = Hierarchy.from_matrices([tensors[0], 1.1 * tensors[1]], tensors[2:], nested=True)
    u = torch.ones(15, dtype=dtype)
    assert len(right.check(u).split("\n")) == 2
    with pytest.raises(ValueError, match="level 0: the levels are not nested"):
        wrong.check(u)


def test_the_inner_product_of_the_hierarchy_is_used():
    calls = []

    def dot(u, v):
        calls.append(1)
        return float(u @ v)

    fine, coarse = gallery.poisson(3)
    list(check(Hierarchy([fine, coarse], dot=dot), np.ones(3), np.random.default_rng(0)))
    assert calls


def test_the_first_fault_is_named():
    level = Level(
        np.eye(2), Jacobi(), objective=lambda u: 3.0 * float(u @ u), linearize=lambda u: np.ones(2)
    )
    with pytest.raises(ValueError, match="gradient"):
        Hierarchy([level]).check(np.ones(2))
