"""Change between the spline basis and the truncated-power (ReLU^k) basis on one knot vector.

The channels `psi_j(x) = max(0, x - t_j)^degree` span the splines with the knots t on their domain:
`splines = A channels`. Weights are therefore transformed by the transpose, `w = A^T u`, and
gradients by the matrix, `grad_u = A grad_w`. Up to scaling, A is a difference of order degree + 1:

    A = (I - S) D_r^-1 (I - S) D_{r-1}^-1 ... D_2^-1 (I - S),    r = degree + 1,

with the shift `(S x)_i = x_{i+1}` and `D_k = diag(t_{i+k-1} - t_i)`. A product with A or its
transpose therefore consists of r differences, and a solve consists of r cumulative sums, for any
knots; no inverse and no dense matrix is formed. The ratio of the extreme eigenvalues of `A^T A`
grows like n^(2 r). Source: Southworth et al., arXiv 2603.04827; the product form and the explicit
form are derived here.
"""

from __future__ import annotations

from math import comb, factorial
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

__all__ = [
    "change_of_basis",
    "channel_gradient",
    "from_channels",
    "spline_gradient",
    "to_channels",
]


def change_of_basis(knots: Any, degree: int, form: str = "recursion") -> sp.csr_matrix:
    """Compute the matrix A with `splines = A channels` on the domain of the knots.

    The splines are normalized, and the channels are `max(0, x - t_j)^degree`; `w = A^T u` are the
    channel weights of the spline with coefficients u. Multiplications and solves with A do not need
    the matrix: see `to_channels` and `from_channels`. Source: Southworth et al., arXiv 2603.04827,
    the recursion and the Toeplitz form of the change of basis.

    Parameters
    ----------
    knots : array of n + 2 degree + 1 numbers
        Knots, strictly increasing; the domain is `[knots[degree], knots[-degree - 1]]`.
    degree : int
        Degree of the splines, 0 to 5.
    form : "recursion", "explicit" or "toeplitz"
        Method of computation: by recursion on the degree; entry by entry, from the knots of one
        spline; or from binomial coefficients, for equidistant knots only.

    Returns
    -------
    csr_matrix of shape (n + degree, n + degree)
        The matrix, upper triangular with degree + 2 diagonals; rows are splines, columns channels.

    Raises
    ------
    ValueError
        If the knots do not increase, are too few, or are not uniform for "toeplitz", or if `degree`
        or `form` is invalid.

    Examples
    --------
    >>> change_of_basis([-1.0, 0.0, 1.0, 2.0, 3.0], degree=1).toarray()  # hats from ReLUs
    array([[ 1., -2.,  1.],
           [ 0.,  1., -2.],
           [ 0.,  0.,  1.]])
    """
    knots = _checked(np.asarray(knots, dtype=float), degree)
    if form == "recursion":
        return _by_recursion(knots, degree)
    if form == "explicit":
        return _by_divided_differences(knots, degree)
    if form == "toeplitz":
        return _by_binomials(knots, degree)
    raise ValueError(
        f"change_of_basis got form {form!r}; it must be 'recursion', 'explicit' or 'toeplitz'"
    )


def _checked(knots: np.ndarray, degree: int) -> np.ndarray:
    if not 0 <= degree <= 5:
        raise ValueError(f"change_of_basis got degree {degree}; it must be 0 to 5")
    if knots.ndim != 1 or len(knots) < 2 * degree + 2 or not np.all(np.diff(knots) > 0.0):
        raise ValueError(
            f"change_of_basis got knots of shape {knots.shape}; it needs a strictly increasing "
            f"vector of n + {2 * degree + 1} of them for n intervals and degree {degree}"
        )
    return knots


def _by_recursion(knots: np.ndarray, degree: int) -> sp.csr_matrix:
    size = len(knots) - degree - 1
    difference = sp.eye(size, format="csr") - sp.eye(size, k=1, format="csr")
    A = difference
    for k in range(1, degree + 1):
        A = difference @ sp.diags(1.0 / (knots[k : k + size] - knots[:size])) @ A
    return sp.csr_matrix(A)


def _by_divided_differences(knots: np.ndarray, degree: int) -> sp.csr_matrix:
    order, size = degree + 1, len(knots) - degree - 1
    own = np.arange(size)[:, None] + np.arange(order + 1)  # numbers of the knots of each spline
    t = knots[own]
    distance = t[:, :, None] - t[:, None, :] + np.eye(order + 1)  # 1 on the diagonal
    entries = (-1) ** order * (t[:, -1:] - t[:, :1]) / distance.prod(axis=2)
    return _banded(entries, size)


def _by_binomials(knots: np.ndarray, degree: int) -> sp.csr_matrix:
    order, size = degree + 1, len(knots) - degree - 1
    steps = np.diff(knots)
    h = (knots[-1] - knots[0]) / len(steps)
    if np.ptp(steps) > 1e-10 * h:
        raise ValueError(
            f"change_of_basis got form 'toeplitz' and distances from {steps.min():g} to "
            f"{steps.max():g}; they must be equal: use 'recursion' or 'explicit'"
        )
    row = [(-1) ** s * comb(order, s) / (factorial(degree) * h**degree) for s in range(order + 1)]
    return _banded(np.tile(row, (size, 1)), size)


def _banded(entries: np.ndarray, size: int) -> sp.csr_matrix:
    """Row i contains its entries from the diagonal on; those beyond the last column are dropped."""
    rows, offsets = np.indices(entries.shape)
    columns = rows + offsets
    keep = columns < size
    return sp.csr_matrix((entries[keep], (rows[keep], columns[keep])), shape=(size, size))


def to_channels(u: torch.Tensor, knots: Any, degree: int, axis: int = 0) -> torch.Tensor:
    """Compute channel weights `w = A^T u` of spline coefficients u, by degree + 1 differences.

    The result can be differentiated with respect to u and, if they are a tensor, to the knots.

    Parameters
    ----------
    u : tensor
        The coefficients.
    knots : array or tensor of n + 2 degree + 1 numbers
        Strictly increasing knots.
    degree : int
        Degree of the splines.
    axis : int
        The axis of the n + degree splines: 1 for the coefficients (inputs, splines, outputs).

    Returns
    -------
    tensor of the shape of u
        The channel weights.

    Examples
    --------
    >>> hat = torch.tensor([0.0, 1.0, 0.0])
    >>> to_channels(hat, [-1.0, 0.0, 1.0, 2.0, 3.0], degree=1).tolist()
    [0.0, 1.0, -2.0]
    """
    gaps = _gaps(u, knots, degree, axis)
    for gap in reversed(gaps):
        u = _difference(u, axis) / gap
    return _difference(u, axis)


def from_channels(w: torch.Tensor, knots: Any, degree: int, axis: int = 0) -> torch.Tensor:
    """Compute spline coefficients `u = A^-T w` from channel weights, by degree + 1 cumulative sums.

    The parameters are those of `to_channels`, of which this is the inverse.

    Examples
    --------
    >>> from_channels(torch.tensor([0.0, 1.0, -2.0]), [-1.0, 0.0, 1.0, 2.0, 3.0], 1).tolist()
    [0.0, 1.0, 0.0]
    """
    w = w.cumsum(axis)
    for gap in _gaps(w, knots, degree, axis):
        w = (gap * w).cumsum(axis)
    return w


def spline_gradient(gradient: torch.Tensor, knots: Any, degree: int, axis: int = 0) -> torch.Tensor:
    """Compute the gradient `A g` with respect to coefficients from g with respect to channels.

    The parameters are those of `to_channels`.

    Examples
    --------
    >>> spline_gradient(torch.tensor([0.0, 0.0, 1.0]), [-1.0, 0.0, 1.0, 2.0, 3.0], 1).tolist()
    [1.0, -2.0, 1.0]
    """
    gradient = _difference_from_the_end(gradient, axis)
    for gap in _gaps(gradient, knots, degree, axis):
        gradient = _difference_from_the_end(gradient / gap, axis)
    return gradient


def channel_gradient(
    gradient: torch.Tensor, knots: Any, degree: int, axis: int = 0
) -> torch.Tensor:
    """Compute the gradient `A^-1 g` with respect to channels from g with respect to coefficients.

    The parameters are those of `to_channels`.

    Examples
    --------
    >>> channel_gradient(torch.tensor([1.0, -2.0, 1.0]), [-1.0, 0.0, 1.0, 2.0, 3.0], 1).tolist()
    [0.0, 0.0, 1.0]
    """
    gaps = _gaps(gradient, knots, degree, axis)
    for gap in reversed(gaps):
        gradient = gap * _sum_from_the_end(gradient, axis)
    return _sum_from_the_end(gradient, axis)


def _gaps(x: torch.Tensor, knots: Any, degree: int, axis: int) -> list[torch.Tensor]:
    """The diagonals of D_2, ..., D_r, shaped to multiply x along the axis."""
    t = knots if isinstance(knots, torch.Tensor) else torch.from_numpy(np.asarray(knots, float))
    size = len(t) - degree - 1
    if x.shape[axis] != size:
        raise ValueError(
            f"change of basis got a tensor of shape {tuple(x.shape)}; axis {axis} must have length "
            f"{size}, the number of splines of {len(t)} knots and degree {degree}"
        )
    if not bool((t.diff() > 0.0).all()):
        raise ValueError("change of basis got knots that do not increase strictly; sort them")
    shape = [1] * x.dim()
    shape[axis] = size
    # Subtracted in the precision of the knots, because in float32 short distances lose digits.
    return [(t[k : k + size] - t[:size]).to(x).reshape(shape) for k in range(1, degree + 1)]


def _difference(x: torch.Tensor, axis: int) -> torch.Tensor:
    """x_i - x_{i-1}, with zero before the first entry: (I - S)^T x."""
    return x.diff(dim=axis, prepend=torch.zeros_like(x.narrow(axis, 0, 1)))


def _difference_from_the_end(x: torch.Tensor, axis: int) -> torch.Tensor:
    """x_i - x_{i+1}, with zero after the last entry: (I - S) x."""
    return -x.diff(dim=axis, append=torch.zeros_like(x.narrow(axis, 0, 1)))


def _sum_from_the_end(x: torch.Tensor, axis: int) -> torch.Tensor:
    return x.flip(axis).cumsum(axis).flip(axis)
