"""Model problems."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import scipy.sparse as sp

from mgnet.coarse_solver import Direct
from mgnet.hierarchy import Hierarchy
from mgnet.interpolation import interpolation_matrix
from mgnet.level import Level
from mgnet.limits import MOST_UNKNOWNS, is_number, is_whole, shown
from mgnet.smoother import Jacobi, Smoother
from mgnet.transfer import MatrixTransfer

__all__ = ["peaks", "poisson", "reaction", "sine"]

MOST_SAMPLES = 10**7  # of `peaks`, which draws twenty points per sample


def _grids(shape: int | tuple[int, ...], levels: int | None) -> list[tuple[int, ...]]:
    """Interior points per direction on each level, halved as long as all are odd and above 1."""
    shape = _checked(shape)
    grids = [shape]
    while all(n % 2 == 1 and n > 1 for n in grids[-1]):
        grids.append(tuple((n - 1) // 2 for n in grids[-1]))
    if levels is None:
        if len(grids) == 1 and max(shape) > 2:
            raise ValueError(
                f"gallery got shape {shape}, which has no coarser grid; n = 2 m + 1 points are "
                "halved to m, best is 2^k - 1 (or ask for levels=1)"
            )
        return grids
    if not is_whole(levels, 1, len(grids)):
        raise ValueError(
            f"gallery got {shown(levels)} levels for shape {shape}; "
            f"the largest possible number is {len(grids)} (halve n = 2 m + 1 to m)"
        )
    return grids[:levels]


def _checked(shape: Any) -> tuple[int, ...]:
    """Number of interior points per direction."""
    points = tuple(islice(shape, 4)) if isinstance(shape, Iterable) else (shape,)
    if not 1 <= len(points) <= 3 or not all(is_whole(n, 1, math.inf) for n in points):
        raise ValueError(
            f"gallery got shape {shown(points)}; give 1 to 3 positive integers, the interior "
            "points per direction"
        )
    unknowns = math.prod(int(n) for n in points)
    if unknowns > MOST_UNKNOWNS:
        raise ValueError(
            f"gallery got shape {shown(points)}, which is {shown(unknowns)} unknowns; at most "
            f"{MOST_UNKNOWNS} are allowed"
        )
    return tuple(int(n) for n in points)


def _laplacian(grid: tuple[int, ...]) -> sp.csr_matrix:
    """-Laplacian on the unit cube by second differences, times the volume of a cell."""
    volume = float(np.prod([1.0 / (n + 1) for n in grid]))
    total: Any = sp.csr_matrix((int(np.prod(grid)),) * 2)
    for axis, n in enumerate(grid):
        second = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n)) * (volume * (n + 1) ** 2)  # type: ignore[list-item]
        before, after = int(np.prod(grid[:axis])), int(np.prod(grid[axis + 1 :]))
        total = total + sp.kron(sp.kron(sp.eye(before), second), sp.eye(after))
    return sp.csr_matrix(total)


def _interpolation(coarse: tuple[int, ...], degree: int) -> sp.csr_matrix:
    P: Any = sp.eye(1)
    for n in coarse:
        P = sp.kron(P, interpolation_matrix(n, degree=min(degree, n + 1)))
    return sp.csr_matrix(P)


class _Interpolation:
    """Cubic interpolation for nested iteration; its matrix is built on first use.

    On the finest level, this matrix needs more memory than the rest of the hierarchy.
    """

    def __init__(self, coarse: tuple[int, ...]):
        self.coarse = coarse
        self.shape = math.prod(2 * n + 1 for n in coarse), math.prod(coarse)

    @cached_property
    def matrix(self) -> sp.csr_matrix:
        return _interpolation(self.coarse, 3)

    def __matmul__(self, u: Any) -> Any:
        return self.matrix @ u


def poisson(
    shape: int | tuple[int, ...],
    levels: int | None = None,
    smoother: Smoother | None = None,
    post_smoother: Smoother | None = None,
    coarse_solver: Smoother | None = None,
) -> Hierarchy:
    """The Poisson equation on the unit interval, square or cube, with zero boundary values.

    The differences are of second order and scaled like finite elements: row i of `A u = f` is the
    equation times the volume h^d of a cell, so the restriction is the transpose of (multi)linear
    interpolation, and `f = h^d * source`. Nested iteration interpolates solutions with cubic
    polynomials.

    Parameters
    ----------
    shape : int or tuple of 1 to 3 int
        Interior points per direction, in C order; the mesh width is 1 / (n + 1). A value of
        2^k - 1 allows k levels.
    levels : int, optional
        Number of levels; the largest possible number by default.
    smoother, post_smoother, coarse_solver : Smoother, optional
        By default, `Jacobi()` with omega = 2/3 before and after the coarse correction, and
        `Direct()` on the coarsest level.

    Examples
    --------
    >>> hierarchy = poisson((7, 7))
    >>> len(hierarchy), hierarchy[0].unknowns
    (3, 49)
    """
    grids = _grids(shape, levels)
    smoother = smoother or Jacobi()
    built = []
    for number, (fine, coarse) in enumerate(zip(grids[:-1], grids[1:], strict=True)):
        transfer = MatrixTransfer(_interpolation(coarse, 1), interpolation=_Interpolation(coarse))
        name = f"level {number}"
        A = _laplacian(fine)
        built.append(Level(A, smoother, transfer, post_smoother, name=name, shape=fine))
    A, name = _laplacian(grids[-1]), f"level {len(built)}"
    built.append(Level(A, coarse_solver or Direct(), name=name, shape=grids[-1]))
    # In 1-D linear finite elements give this very matrix, and their spaces are nested.
    return Hierarchy(built, nested=len(grids[0]) == 1)


def sine(shape: int | tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The exact solution `sin(pi x) sin(pi y) ...` of `poisson(shape)` and its right-hand side.

    Returns
    -------
    (u, f)
        Flat arrays. u has the values of the solution of the differential equation, so the discrete
        solution differs from it by the discretization error, O(h^2).

    Examples
    --------
    >>> from mgnet import Solver
    >>> u, f = sine((31, 31))
    >>> bool(abs(Solver(poisson((31, 31))).solve(f).value - u).max() < 1e-3)
    True
    """
    shape = _checked(shape)
    axes = np.meshgrid(*(np.arange(1, n + 1) / (n + 1) for n in shape), indexing="ij")
    u = np.prod([np.sin(np.pi * x) for x in axes], axis=0).ravel()
    volume = float(np.prod([1.0 / (n + 1) for n in shape]))
    return u, volume * len(shape) * np.pi**2 * u


class _Cubic:
    """`A u + volume * strength * u^3` and its derivative."""

    def __init__(self, matrix: sp.csr_matrix, weight: float):
        self.matrix = matrix
        self.weight = weight

    def __call__(self, u: np.ndarray) -> np.ndarray:
        return self.matrix @ u + self.weight * u**3

    def derivative(self, u: np.ndarray) -> sp.csr_matrix:
        return sp.csr_matrix(self.matrix + sp.diags(3.0 * self.weight * u**2))

    def energy(self, u: np.ndarray) -> float:
        return 0.5 * float(u @ (self.matrix @ u)) + 0.25 * self.weight * float((u**4).sum())


def reaction(
    shape: int | tuple[int, ...],
    strength: float = 10.0,
    levels: int | None = None,
    smoother: Smoother | None = None,
    coarse_solver: Smoother | None = None,
) -> Hierarchy:
    """The nonlinear equation `-Laplacian u + strength u^3 = source`.

    This is a test problem for the full approximation scheme. It is discretized and scaled like
    `poisson`; levels have `linearize` and `objective`, and transfers inject point values.

    Parameters
    ----------
    shape, levels, smoother
        The same as for `poisson`.
    strength : float
        Coefficient of the cubic term, not negative.
    coarse_solver : Smoother, optional
        `Direct()` by default: one Newton step per sweep.

    Raises
    ------
    ValueError
        If the shape or the number of levels is impossible, or the strength is negative.

    Examples
    --------
    >>> from mgnet import Solver
    >>> solution = Solver(reaction((15, 15)), "F(2,1)").solve(np.full(225, 16.0**-2))
    >>> solution.reason.name
    'RTOL'
    """
    if not is_number(strength, 0.0, 1e300):
        raise ValueError(
            f"reaction got strength {shown(strength)}; it must not be negative, otherwise "
            "solutions need not exist"
        )
    grids = _grids(shape, levels)
    built = []
    for number, grid in enumerate(grids):
        operator = _Cubic(
            _laplacian(grid), strength * float(np.prod([1.0 / (n + 1) for n in grid]))
        )
        transfer = None
        if number + 1 < len(grids):
            P = _interpolation(grids[number + 1], 1)
            pick: Any = P == 1.0  # weight 1: a fine point that is also a coarse point
            injection = sp.csr_matrix(pick.T, dtype=float)
            transfer = MatrixTransfer(
                P, injection=injection, interpolation=_interpolation(grids[number + 1], 3)
            )
        last = transfer is None
        part = (coarse_solver or Direct()) if last else (smoother or Jacobi())
        built.append(
            Level(
                operator,
                part,
                transfer,
                linearize=operator.derivative,
                objective=operator.energy,
                size=int(np.prod(grid)),
                name=f"level {number}",
                shape=grid,
            )
        )
    return Hierarchy(built)


def peaks(
    samples: int = 1000, classes: int = 5, generator: np.random.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw points in the plane, labeled by the level set of MATLAB's `peaks` in which they lie.

    The range of the function on [-3, 3]^2 is divided into equal intervals, one per class. The
    points are uniformly distributed in each class, and class sizes differ by at most one. Source:
    Haber and Ruthotto, Inverse Problems 34 (2018) 014004, section 6.

    Parameters
    ----------
    samples, classes : int
        Number of samples, at least one per class, and number of classes, 2 to 20.
    generator : numpy.random.Generator, optional
        Source of random numbers; seed 0 by default.

    Returns
    -------
    (x, labels)
        Points of shape (samples, 2), divided by 3 so that they lie in [-1, 1]^2, and classes
        counted from 0, of type int64, in random order.

    Raises
    ------
    ValueError
        If the number of samples or classes is out of its range.

    Examples
    --------
    >>> x, labels = peaks(10)
    >>> x.shape, np.bincount(labels).tolist()
    ((10, 2), [2, 2, 2, 2, 2])
    """
    if not is_whole(classes, 2, 20) or not is_whole(samples, classes, MOST_SAMPLES):
        raise ValueError(
            f"peaks got {shown(samples)} samples of {shown(classes)} classes; it needs 2 to 20 "
            f"classes and at least one sample of each, at most {MOST_SAMPLES}"
        )
    generator = np.random.default_rng(0) if generator is None else generator
    least, largest = -6.551133332835841, 8.106213589442833  # of the function, on [-3, 3]^2
    wanted = [samples // classes + (k < samples % classes) for k in range(classes)]
    found: list[np.ndarray] = [np.empty((0, 2)) for _ in wanted]
    while any(len(points) < count for points, count in zip(found, wanted, strict=True)):
        x = generator.uniform(-1.0, 1.0, (20 * samples, 2))
        a, b = 3.0 * x.T
        value = 3.0 * (1.0 - a) ** 2 * np.exp(-(a**2) - (b + 1.0) ** 2)
        value -= 10.0 * (a / 5.0 - a**3 - b**5) * np.exp(-(a**2) - b**2)
        value -= np.exp(-((a + 1.0) ** 2) - b**2) / 3.0
        label = ((value - least) * (classes / (largest - least))).astype(int)
        for k, count in enumerate(wanted):
            found[k] = np.concatenate([found[k], x[label == k]])[:count]
    labels = np.repeat(np.arange(classes, dtype=np.int64), wanted)
    order = generator.permutation(samples)
    return np.concatenate(found)[order], labels[order]
