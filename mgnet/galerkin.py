"""Coarse matrices as products R A P."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from mgnet import mats, vector
from mgnet.mats import refuse_layout

__all__ = ["conjugated", "galerkin_products", "transposed"]


def galerkin_products(
    matrix: Any, prolongations: Sequence[Any], restrictions: Sequence[Any] | None = None
) -> list[Any]:
    """Compute the matrices of all levels: A, and R A P from each level to the next.

    Parameters
    ----------
    matrix : matrix of shape (n, n)
        SciPy sparse matrix, NumPy array, torch tensor or PETSc Mat.
    prolongations : sequence of matrices of shape (fine, coarse), finest first
        Interpolation matrices.
    restrictions : sequence of matrices of shape (coarse, fine), optional
        Restriction matrices; the (conjugate) transposes of the prolongations by default.

    Returns
    -------
    list of matrices
        SciPy's matrices are in CSR format with sorted columns.

    Raises
    ------
    TypeError, ValueError
        If matrices do not fit together; the message names the level.

    Examples
    --------
    >>> from mgnet import interpolation_matrix
    >>> A = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(3, 3))
    >>> [A.toarray().tolist() for A in galerkin_products(A, [interpolation_matrix(1)])][1]
    [[1.0]]
    """
    if isinstance(prolongations, np.ndarray) or not isinstance(prolongations, Sequence):
        raise TypeError(
            f"galerkin got prolongations of type {type(prolongations).__name__}; give a list of "
            "matrices, finest first"
        )
    if restrictions is not None and not isinstance(restrictions, Sequence):
        raise TypeError(
            f"galerkin got restrictions of type {type(restrictions).__name__}; give a list of "
            "matrices, finest first, or None for the transposes of the prolongations"
        )
    if restrictions is None:
        restrictions = [None] * len(prolongations)
    if len(restrictions) != len(prolongations):
        raise ValueError(
            f"galerkin got {len(prolongations)} prolongations and {len(restrictions)} "
            "restrictions; give one of each for every coarse level"
        )
    matrices = [sp.csr_matrix(matrix) if sp.issparse(matrix) else matrix]
    for number, (P, R) in enumerate(zip(prolongations, restrictions, strict=True)):
        A = matrices[-1]
        _check(number, A, P, R)
        try:
            matrices.append(_product(A, P, R))
        except (TypeError, RuntimeError, AttributeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise TypeError(
                f"galerkin got on level {number} a matrix of type {type(A).__name__} and a "
                f"prolongation of type {type(P).__name__}, which do not multiply ({reason}); give "
                "all matrices in the format of one library: SciPy, NumPy, torch or PETSc"
            ) from None
    return matrices


def conjugated(prolongations: Sequence[Any]) -> list[Any] | None:
    """The conjugate transposes of complex prolongations; None if all are real.

    Examples
    --------
    >>> conjugated([np.ones((2, 1))]), conjugated([np.array([[1.0], [1j]])])[0].tolist()
    (None, [[(1-0j), -1j]])
    """
    if not any(_is_complex(P) for P in prolongations):
        return None
    return [_conjugate_transpose(P) for P in prolongations]


def _conjugate_transpose(P: Any) -> Any:
    return transposed(P.conj() if _is_complex(P) else P)


def transposed(matrix: Any) -> Any:
    """The transpose of a matrix, in the format in which products with it are fast.

    Raises
    ------
    TypeError
        If the matrix has no transpose.

    Examples
    --------
    >>> transposed(sp.csr_matrix(np.ones((2, 1)))).format
    'csr'
    """
    # A product with SciPy's lazy transpose scatters; CSR gathers and is about twice as fast.
    if sp.issparse(matrix):
        return matrix.T.tocsr()
    if vector.is_mat(matrix):
        return mats.transposed(matrix)
    if vector.is_tensor(matrix) and matrix.is_sparse_csr:
        return matrix.transpose(0, 1).to_sparse_csr()  # `.T` fails
    try:
        return matrix.T
    except AttributeError:
        raise TypeError(
            f"transfer got a prolongation of type {type(matrix).__name__}, which has no transpose "
            "`.T`; give the restriction `R` too"
        ) from None


def _is_complex(matrix: Any) -> bool:
    if vector.is_tensor(matrix):
        return matrix.is_complex()
    return getattr(getattr(matrix, "dtype", None), "kind", "") == "c"


def _check(number: int, A: Any, P: Any, R: Any) -> None:
    n = vector.shape_of(A)[0]
    shape, down = vector.shape_of(P), None if R is None else vector.shape_of(R)
    if vector.shape_of(A) != (n, n) or shape[0] != n or down not in (None, shape[::-1]):
        told = f"galerkin got on level {number} a matrix of shape {vector.shape_of(A)}, a "
        told += f"prolongation of shape {shape}"
        told += "" if R is None else f" and a restriction of shape {down}"
        told += "; A must be square with n rows, P of shape (n, coarse), R of shape (coarse, n)"
        raise ValueError(told)
    refuse_layout(A, P, f"galerkin got a prolongation {number}")
    if R is not None:
        refuse_layout(R, A, f"galerkin got a matrix {number}")


def _product(A: Any, P: Any, R: Any) -> Any:
    if vector.is_mat(A):
        return A.ptap(P) if R is None else R.matMult(A.matMult(P))
    coarse = A @ P
    coarse = (_conjugate_transpose(P) if R is None else R) @ coarse
    if not sp.issparse(coarse):
        return coarse
    coarse = sp.csr_matrix(coarse)
    coarse.sort_indices()  # as sweeps from zero need them
    return coarse
