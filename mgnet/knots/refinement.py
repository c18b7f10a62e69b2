"""Transfers between spline spaces on nested knots: matrices that act on the spline axis.

As prolongation, knot insertion preserves the function. As restriction, the L2 projection with the
mass matrix of the splines gives the closest function, and injection by least squares the closest
coefficients; both are left inverses of an insertion. A knot vector contains n + 2 degree + 1
strictly increasing knots for n intervals; its domain is `[knots[degree], knots[-degree - 1]]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from mgnet.knots.spline_operator import BandedInverse, SplineOperator, is_long
from mgnet.limits import check_memory, is_count, shown, written
from mgnet.training.optimizers.generating_system import coarser_sizes

ENTRY = 36  # bytes of a sparse entry in coordinate format and compressed format together

__all__ = [
    "coarser_matrices",
    "coarsening_matrices",
    "injection_matrix",
    "knot_insertion",
    "mass_matrix",
    "projection_matrix",
    "refinement_matrices",
    "refinement_matrix",
    "uniform_knots",
]


def uniform_knots(intervals: int, degree: int, domain: tuple[float, float]) -> np.ndarray:
    """The knots of n equal intervals, continued beyond the domain with the same spacing.

    Examples
    --------
    >>> uniform_knots(2, 1, (0.0, 1.0))
    array([-0.5,  0. ,  0.5,  1. ,  1.5])
    """
    a, b = domain
    steps = np.arange(-degree, intervals + degree + 1) / intervals
    return a * (1.0 - steps) + b * steps  # exact at both ends


def refinement_matrix(intervals: int, degree: int, factor: int = 2) -> sp.csr_matrix:
    """The matrix P that preserves a spline when each of n equal intervals is divided into `factor`.

    Two-scale relation of splines of order r = degree + 1: `P[J, I] = factor^(1-r) c_s` with
    `J = factor I + s - (factor - 1) degree`, where c are the coefficients of
    `(1 + z + ... + z^(factor-1))^r`; these are binomials for factor 2. (The printed 2^(-r) of
    Southworth et al., arXiv 2603.04827, would halve the function.)

    Parameters
    ----------
    intervals : int
        Number of intervals on the coarse level.
    degree : int
        Degree of the splines.
    factor : int
        Refinement factor, at least 2.

    Returns
    -------
    csr_matrix of shape (factor intervals + degree, intervals + degree)
        The prolongation; it has no negative entries, and its rows sum to 1.

    Raises
    ------
    ValueError
        If an argument is out of range, or the matrix does not fit into memory.

    Examples
    --------
    >>> refinement_matrix(1, 1).toarray()
    array([[1. , 0. ],
           [0.5, 0.5],
           [0. , 1. ]])
    """
    if not (is_count(intervals) and is_count(degree) and is_count(factor, 2)):
        raise ValueError(
            f"refinement_matrix got {shown(intervals)} intervals, degree {shown(degree)}, factor "
            f"{shown(factor)}; it needs integers: at least one interval, degree 1 and factor 2"
        )
    count = (int(intervals) + int(degree)) * ((int(factor) - 1) * (int(degree) + 1) + 1)
    what = f"refinement_matrix got {written(intervals)} intervals and factor {written(factor)}"
    remedy = "use fewer intervals or a smaller factor"
    check_memory(ENTRY * count, f"{what}, {written(count)} entries", remedy)
    mask = reduce(np.convolve, [np.ones(factor)] * (degree + 1)) / float(factor) ** degree
    fine, coarse = factor * intervals + degree, intervals + degree
    columns = np.repeat(np.arange(coarse), len(mask))
    rows = factor * columns + np.tile(np.arange(len(mask)), coarse) - (factor - 1) * degree
    inside = (rows >= 0) & (rows < fine)
    entries = np.tile(mask, coarse)[inside]
    return sp.csr_matrix((entries, (rows[inside], columns[inside])), shape=(fine, coarse))


def coarser_matrices(intervals: int, degree: int, levels: int | None) -> list[sp.csr_matrix]:
    """The matrices of the successive refinements that end at `intervals`, finest first.

    Parameters
    ----------
    intervals, degree : int
        Number of intervals on the finest level, and degree of the splines.
    levels : int, optional
        Maximal number of levels, as in `coarser_sizes`.

    Examples
    --------
    >>> [P.shape for P in coarser_matrices(16, 3, None)]
    [(19, 11), (11, 7)]
    """
    sizes = coarser_sizes(intervals, levels)
    pairs = zip(sizes[:-1], sizes[1:], strict=True)
    return [refinement_matrix(n, degree, fine // n) for fine, n in pairs]


def knot_insertion(coarse_knots: np.ndarray, fine_knots: np.ndarray, degree: int) -> sp.csr_matrix:
    """The matrix P that preserves a spline when knots are inserted, for any number and position.

    The coefficient of fine spline j is the polar form, at its degree inner knots, of a polynomial
    piece of the coarse spline below it (the Oslo algorithm: Cohen, Lyche and Riesenfeld, Comput.
    Graph. Image Process. 14 (1980) 87-111). Only the knots inside the domain must therefore be
    nested; those beyond it may differ, as they do if a uniform continuation uses the finer spacing.

    Parameters
    ----------
    coarse_knots, fine_knots : array of n + 2 degree + 1 knots
        Knots with the same domain; the coarse knots inside it must be among the fine ones, up to
        rounding.
    degree : int
        Degree of the splines.

    Returns
    -------
    csr_matrix of shape (fine splines, coarse splines)
        The matrix, with at most degree + 1 entries per row; each row sums to 1. Entries are not
        negative if the knots beyond the domain are the same, or continued uniformly on both levels.

    Raises
    ------
    ValueError
        If the knots are not strictly increasing or not nested.

    Examples
    --------
    >>> knot_insertion([-1.0, 0.0, 1.0, 2.0], [-1.0, 0.0, 0.25, 1.0, 2.0], 1).toarray()
    array([[1.  , 0.  ],
           [0.75, 0.25],
           [0.  , 1.  ]])
    """
    coarse, fine = _checked(coarse_knots, degree), _checked(fine_knots, degree)
    _check_nested(coarse, fine, degree)
    splines = np.arange(len(fine) - degree - 1)
    # The middle one of the fine intervals of a spline inside the domain. All of them give the same
    # result, but extrapolation is least near the middle.
    first = np.maximum(splines, degree)
    last = np.minimum(splines + degree, len(fine) - degree - 2)
    middle = (first + last) // 2
    centre = 0.5 * (fine[middle] + fine[middle + 1])
    pieces = np.searchsorted(coarse, centre) - 1
    arguments = np.stack([fine[splines + k] for k in range(1, degree + 1)], -1)
    entries = _polar(coarse, pieces, arguments)
    # Zeros become rounding errors of either sign; as weights of second moments, they must be zero.
    entries[abs(entries) < 1e-13 * abs(entries).max(-1, keepdims=True)] = 0.0
    columns = pieces[:, None] + np.arange(-degree, 1)
    rows = np.repeat(splines, degree + 1)
    shape = (len(splines), len(coarse) - degree - 1)
    P = sp.csr_matrix((entries.ravel(), (rows, columns.ravel())), shape=shape)
    P.eliminate_zeros()
    return P


def mass_matrix(knots: np.ndarray, degree: int) -> sp.csr_matrix:
    """The integrals of all products of two splines over the domain, exact by Gauss quadrature.

    Parameters
    ----------
    knots : array of n + 2 degree + 1 knots
        The knots, strictly increasing.
    degree : int
        Degree of the splines.

    Returns
    -------
    csr_matrix of shape (n + degree, n + degree)
        The mass matrix.

    Examples
    --------
    >>> mass_matrix([-1.0, 0.0, 1.0, 2.0], 1).toarray().round(3)
    array([[0.333, 0.167],
           [0.167, 0.333]])
    """
    knots = _checked(knots, degree)
    nodes, weights = np.polynomial.legendre.leggauss(degree + 1)
    pieces = np.arange(degree, len(knots) - degree - 1)
    length = np.diff(knots)[pieces, None]
    x = knots[pieces, None] + length * (0.5 * (nodes + 1.0))
    arguments = np.repeat(x.reshape(-1, 1), degree, 1)
    values = _polar(knots, np.repeat(pieces, degree + 1), arguments)
    values = values.reshape(len(pieces), degree + 1, degree + 1)  # (interval, node, spline)
    local = np.einsum("enj,en,enk->ejk", values, 0.5 * length * weights, values)
    number = pieces[:, None] + np.arange(-degree, 1)
    rows, columns = np.broadcast_arrays(number[:, :, None], number[:, None, :])
    size = len(knots) - degree - 1
    return sp.csr_matrix((local.ravel(), (rows.ravel(), columns.ravel())), shape=(size, size))


def projection_matrix(P: sp.csr_matrix, mass: sp.csr_matrix) -> np.ndarray | SplineOperator:
    """The L2 projection from fine to coarse, `(P^T M P)^-1 P^T M`, a left inverse of P.

    Parameters
    ----------
    P : csr_matrix of shape (fine, coarse)
        The prolongation.
    mass : csr_matrix of shape (fine, fine)
        The mass matrix of the fine splines.

    Returns
    -------
    array of shape (coarse, fine)
        The projection; a `SplineOperator` if there are many splines.

    Examples
    --------
    >>> P = refinement_matrix(2, 1)
    >>> R = projection_matrix(P, mass_matrix(uniform_knots(4, 1, (0.0, 1.0)), 1))
    >>> bool(np.allclose(R @ P, np.eye(3)))
    True
    """
    if is_long(P):
        return _left_inverse(P, P.T @ mass)
    weighted = P.toarray().T @ mass
    return scipy.linalg.solve(weighted @ P, weighted, assume_a="pos")


def injection_matrix(P: sp.csr_matrix) -> np.ndarray | SplineOperator:
    """The pseudo-inverse of P, which gives the closest coefficients on the coarse level.

    It is a `SplineOperator` if there are many splines.

    Examples
    --------
    >>> injection_matrix(refinement_matrix(1, 1)).round(3)
    array([[ 0.833,  0.333, -0.167],
           [-0.167,  0.333,  0.833]])
    """
    if is_long(P):
        return _left_inverse(P, P.T)
    return np.linalg.pinv(P.toarray())


def refinement_matrices(
    intervals: Sequence[int], degree: int, factors: Sequence[int]
) -> list[sp.csr_matrix]:
    """The `refinement_matrix` of each layer, or the unit matrix if the factor is 1.

    Parameters
    ----------
    intervals, factors : sequence of int
        For each layer, the number of coarse intervals, and the number of parts of each.
    degree : int
        Degree of the splines.

    Examples
    --------
    >>> [P.shape for P in refinement_matrices((4, 8), 3, (2, 1))]
    [(11, 7), (11, 11)]
    """
    return [
        refinement_matrix(n, degree, factor) if factor != 1 else _unit(n + degree)
        for n, factor in zip(intervals, factors, strict=True)
    ]


def coarsening_matrices(
    intervals: Sequence[int], degree: int, factors: Sequence[int], by: str = "projection"
) -> list[np.ndarray | SplineOperator]:
    """A left inverse of the matrix in `refinement_matrices`, for each layer.

    Parameters
    ----------
    intervals, factors : sequence of int
        For each layer, the number of coarse intervals, and the refinement factor.
    degree : int
        Degree of the splines.
    by : "projection" or "injection"
        See `projection_matrix` and `injection_matrix`.

    Raises
    ------
    ValueError
        If `by` is unknown.

    Examples
    --------
    >>> [R.shape for R in coarsening_matrices((4, 8), 3, (2, 1))]
    [(7, 11), (11, 11)]
    """
    if by not in ("projection", "injection"):
        raise ValueError(f"KAN.coarsen got by={by!r}; it must be 'projection' or 'injection'")
    made: dict[tuple[int, int], np.ndarray | SplineOperator] = {}
    pairs = list(zip(intervals, factors, strict=True))
    for n, factor in set(pairs):
        if factor == 1:
            unit = _unit(n + degree)
            made[n, factor] = SplineOperator((unit,)) if is_long(unit) else unit.toarray()
            continue
        P = refinement_matrix(n, degree, factor)
        if by == "injection":
            made[n, factor] = injection_matrix(P)
        else:  # for any domain, because its length cancels
            knots = uniform_knots(factor * n, degree, (0.0, 1.0))
            made[n, factor] = projection_matrix(P, mass_matrix(knots, degree))
    return [made[pair] for pair in pairs]


def _unit(size: int) -> sp.csr_matrix:
    return sp.csr_matrix(sp.eye(size))


def _left_inverse(P: sp.csr_matrix, weighted: Any) -> SplineOperator:
    """The matrix `(W P)^-1 W`, where W P is symmetric."""
    return SplineOperator((BandedInverse.of(weighted @ P), weighted.tocsr()))


def _checked(knots: np.ndarray, degree: int) -> np.ndarray:
    knots = np.asarray(knots, dtype=np.float64)
    if degree < 1 or knots.ndim != 1 or len(knots) < 2 * degree + 2:
        raise ValueError(
            f"knot vector got shape {knots.shape} for degree {degree}; "
            "n intervals need n + 2 degree + 1 knots in one dimension, degree at least 1"
        )
    if not (np.diff(knots) > 0.0).all():
        worst = int(np.argmin(np.diff(knots)))
        raise ValueError(
            f"knot vector got {knots[worst]:.6g} before {knots[worst + 1]:.6g}; "
            "knots must increase strictly"
        )
    return knots


def _check_nested(coarse: np.ndarray, fine: np.ndarray, degree: int) -> None:
    inner, among = coarse[degree:-degree], fine[degree:-degree]
    rounding = 1e-12 * max(abs(inner[0]), abs(inner[-1]))
    if max(abs(inner[0] - among[0]), abs(inner[-1] - among[-1])) > rounding:
        raise ValueError(
            f"knot_insertion got the domain [{inner[0]:.6g}, {inner[-1]:.6g}] on the coarse level "
            f"and [{among[0]:.6g}, {among[-1]:.6g}] on the fine one; they must be the same"
        )
    distance = abs(inner[:, None] - among[_nearest(inner, among)][:, None])[:, 0]
    if distance.max() > rounding:
        missing = inner[int(np.argmax(distance))]
        raise ValueError(
            f"knot_insertion got the coarse knot {missing:.6g}, which is not a fine one; "
            "the fine knots must contain all coarse knots of the domain"
        )


def _nearest(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    right = np.searchsorted(among, values).clip(1, len(among) - 1)
    return np.where(values - among[right - 1] < among[right] - values, right - 1, right)


def _polar(knots: np.ndarray, pieces: np.ndarray, arguments: np.ndarray) -> np.ndarray:
    """Polar forms of the splines on one polynomial piece each, by recursion over the order.

    If all arguments are equal to x, these are the values of the splines at x.

    Parameters
    ----------
    knots : array of knots
        A knot vector.
    pieces : int array of shape (m,)
        Numbers of the pieces between `knots[piece]` and `knots[piece + 1]`.
    arguments : array of shape (m, degree)
        The arguments of each polar form.

    Returns
    -------
    array of shape (m, degree + 1)
        Values for the splines `piece - degree` to `piece`.
    """
    values = np.ones((len(pieces), 1))
    for k, x in enumerate(arguments.T, 1):
        left = knots[pieces[:, None] + np.arange(1 - k, 1)]
        right = knots[pieces[:, None] + np.arange(1, k + 1)]
        share = values / (right - left)
        lower, upper = share * (right - x[:, None]), share * (x[:, None] - left)
        values = np.pad(lower, [(0, 0), (0, 1)]) + np.pad(upper, [(0, 0), (1, 0)])
    return values
