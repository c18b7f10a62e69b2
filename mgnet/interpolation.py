"""Interpolation matrices on uniform grids."""

import math

import numpy as np
import scipy.sparse as sp

from mgnet.limits import MOST_UNKNOWNS, is_one_of, is_whole, shown

__all__ = ["interpolation_matrix"]


def interpolation_matrix(
    coarse: int, factor: int = 2, degree: int = 1, boundary: str = "zero"
) -> sp.csr_matrix:
    """Polynomial interpolation on a uniform 1-D grid that contains its coarse grid.

    Kronecker products of these matrices, or an `AxisTransfer`, interpolate on 2-D and 3-D grids.

    Parameters
    ----------
    coarse : int
        Number of coarse points.
    factor : int
        Ratio of the mesh widths, at least 2.
    degree : int
        Degree of the polynomials: 1 is linear (for corrections), 3 cubic (for solutions in nested
        iteration).
    boundary : "zero" or "open"
        "zero": the end points of the grid are not among the unknowns and have the value 0, so the
        fine grid has `factor (coarse + 1) - 1` points. "open": they are unknowns, so there are
        `factor (coarse - 1) + 1` fine points.

    Returns
    -------
    csr_matrix of shape (fine, coarse)

    Raises
    ------
    ValueError
        If a number is too small, or the grid has fewer points than a polynomial of this degree
        needs.

    Examples
    --------
    >>> interpolation_matrix(3, boundary="open").toarray()
    array([[1. , 0. , 0. ],
           [0.5, 0.5, 0. ],
           [0. , 1. , 0. ],
           [0. , 0.5, 0.5],
           [0. , 0. , 1. ]])
    """
    if not is_one_of(boundary, ("zero", "open")):
        raise ValueError(
            f"interpolation_matrix got boundary {shown(boundary)}; it must be 'zero' or 'open'"
        )
    if not all(is_whole(number, -math.inf, math.inf) for number in (coarse, factor, degree)):
        raise TypeError(
            f"interpolation_matrix got {shown(coarse)} coarse points, factor {shown(factor)}, "
            f"degree {shown(degree)}; all must be integers"
        )
    known = 1 if boundary == "zero" else 0
    points = coarse + 2 * known  # coarse points, the known end points included
    if coarse < 1 or factor < 2 or degree < 1 or points < degree + 1:
        raise ValueError(
            f"interpolation_matrix got {shown(coarse)} coarse points, factor {shown(factor)}, "
            f"degree {shown(degree)}; factor must be at least 2, degree at least 1, and "
            "degree + 1 points (the known ends included) must exist"
        )
    entries = factor * points * (degree + 1)
    if entries > MOST_UNKNOWNS:
        raise ValueError(
            f"interpolation_matrix got {shown(coarse)} coarse points, factor {shown(factor)}, "
            f"degree {shown(degree)}, which is a matrix of {shown(entries)} entries; at most "
            f"{MOST_UNKNOWNS} are allowed"
        )
    fine = np.arange(known, factor * (points - 1) + 1 - known)
    # The degree + 1 nearest coarse points of each fine point, shifted inward at the ends.
    first = np.clip(fine // factor - (degree - 1) // 2, 0, points - degree - 1)
    nodes = first[:, None] + np.arange(degree + 1)
    x = fine[:, None] / factor
    weights = np.ones(nodes.shape)
    for j in range(degree + 1):
        for k in range(degree + 1):
            if k != j:
                weights[:, j] *= (x[:, 0] - nodes[:, k]) / (nodes[:, j] - nodes[:, k])
    columns = nodes - known
    rows = np.broadcast_to(np.arange(len(fine))[:, None], columns.shape)
    keep = (columns >= 0) & (columns < coarse) & (weights != 0.0)
    entries = (weights[keep], (rows[keep], columns[keep]))
    return sp.csr_matrix(entries, shape=(len(fine), coarse))
