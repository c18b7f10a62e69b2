"""Dense least squares with triangular factors, and singular values for nearly dependent columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
import torch

from mgnet.training.least_squares.device_reads import is_far
from mgnet.training.loss.parameters import HALF

__all__ = [
    "check_numbers",
    "check_rows",
    "minimum_norm",
    "range_basis",
    "singular_values",
    "triangle",
    "written_rcond",
]


def triangle(*rows: torch.Tensor) -> torch.Tensor:
    """The upper triangular factor T of the stacked rows, with `T^T T` = the sum of `rows^T rows`.

    The operation is associative, so blocks of rows can be reduced in sequence or in a tree.

    Parameters
    ----------
    *rows : tensors of shape (any, columns)
        `[Phi Y]` of some samples, or triangles from this function.

    Returns
    -------
    tensor of shape (min(all rows, columns), columns)
        The triangle.

    Examples
    --------
    >>> triangle(torch.tensor([[3.0, 0.0]]), torch.tensor([[4.0, 1.0]])).abs()
    tensor([[5.0000, 0.8000],
            [0.0000, 0.6000]])
    """
    return torch.linalg.qr(torch.cat(rows), mode="r").R


def minimum_norm(
    A: torch.Tensor,
    b: torch.Tensor,
    ridge: float = 0.0,
    rcond: float | None = None,
    f: torch.Tensor | None = None,
) -> torch.Tensor:
    """The minimizer of least norm of `1/2 |A W - b|^2 + ridge/2 |W|^2 - <f, W>`.

    Parameters
    ----------
    A : tensor of shape (rows, features)
        Matrix of features.
    b : tensor of shape (rows, outputs)
        Targets.
    ridge : float
        Weight of the squared norm of W.
    rcond : float, optional
        Singular values below `rcond` times the largest count as zero, and the part of f in their
        directions is omitted; the default is the machine epsilon times the number of columns of A.
    f : tensor of shape (features, outputs), optional
        Linear term; zero by default.
    """
    if ridge:
        A = torch.cat([A, ridge**0.5 * torch.eye(A.shape[1], dtype=A.dtype, device=A.device)])
        b = torch.cat([b, b.new_zeros(A.shape[1], b.shape[1])])
    if f is None and A.device.type == "cpu":  # a pivoted QR gives the same in a third of the time
        rcond = A.shape[1] * torch.finfo(A.dtype).eps if rcond is None else rcond
        # SciPy's, since torch.linalg.lstsq gives LAPACK an uninitialized order of columns.
        solved: Any = scipy.linalg.lstsq(
            A.numpy(), b.numpy(), cond=rcond, lapack_driver="gelsy", check_finite=False
        )
        return torch.from_numpy(np.ascontiguousarray(solved[0]))
    if is_far(A):  # the rank stays there: what counts as zero is left out by a factor of zero
        U, s, rows = torch.linalg.svd(A, full_matrices=False)
        rcond = A.shape[1] * torch.finfo(A.dtype).eps if rcond is None else rcond
        kept = s > rcond * s[:1]
        inverse = torch.where(kept, 1.0 / torch.where(kept, s, 1.0), 0.0).unsqueeze(1)
        W = rows.T @ (inverse * (U.T @ b))
        return W if f is None else W + rows.T @ (inverse.square() * (rows @ f))
    U, s, V = singular_values(A, rcond)
    W = V @ ((U.T @ b) / s)
    return W if f is None else W + V @ ((V.T @ f) / (s * s))


def range_basis(A: torch.Tensor, rcond: float | None = None) -> torch.Tensor:
    """Orthonormal columns that span the range of A, in the sense of `minimum_norm`."""
    Q, R = torch.linalg.qr(A)
    return Q @ singular_values(R, rcond)[0]


def singular_values(
    A: torch.Tensor, rcond: float | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U, s and V of `A = U diag(s) V^T` without negligible singular values; s is a column."""
    U, s, V = torch.linalg.svd(A, full_matrices=False)
    if rcond is None:
        rcond = A.shape[1] * torch.finfo(A.dtype).eps
    rank = int((s > rcond * s[:1]).sum())  # the first one is the largest, if there is one
    return U[:, :rank], s[:rank].unsqueeze(1), V[:rank].T


def written_rcond(network: torch.nn.Module) -> float | None:
    """Tolerance for a last layer that is stored in half precision and thus has few digits."""
    kind = list(network.parameters())[-1].dtype
    return torch.finfo(kind).eps if kind in HALF else None


def check_rows(T: torch.Tensor) -> None:
    """Check that the triangle of features and targets is finite.

    Raises
    ------
    ValueError
        If the triangle is not finite.
    """
    if not bool(torch.isfinite(T).all()):
        raise ValueError(
            "solve_last_layer_ got features or targets that are not finite (NaN or Inf); leave "
            "such samples out, or fill them in, and check the parameters of the hidden layers"
        )


def check_numbers(name: str, ridge: float, rcond: float | None) -> None:
    """Check that ridge and rcond are in range.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    if ridge < 0.0 or (rcond is not None and not 0.0 <= rcond < 1.0):
        raise ValueError(
            f"{name} got ridge {ridge} and rcond {rcond}; "
            "ridge must not be negative, rcond must be in [0, 1)"
        )
