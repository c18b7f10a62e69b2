"""Prolongations of knot hierarchies as PETSc matrices: assembled, or multiplied block by block."""

from __future__ import annotations

import scipy.sparse as sp
from petsc4py import PETSc

from mgnet import vector

__all__ = ["aij", "kronecker"]


def aij(matrix: sp.csr_matrix) -> PETSc.Mat:
    """A SciPy matrix as an assembled PETSc one, on this rank.

    Parameters
    ----------
    matrix : csr_matrix
        `mgnet.knots.kronecker_matrix(kan)`, say.

    Examples
    --------
    >>> from mgnet.knots import KAN, kronecker_matrix
    >>> aij(kronecker_matrix(KAN([2, 3, 1], intervals=4))).getSize()
    (99, 63)
    """
    matrix = sp.csr_matrix(matrix)
    rows = (matrix.indptr, matrix.indices, matrix.data)
    return PETSc.Mat().createAIJ(matrix.shape, csr=rows, comm=PETSc.COMM_SELF)


def kronecker(P: sp.csr_matrix, dof: int) -> PETSc.Mat:
    """`P (x) I_dof` without the product, on this rank: P on each of `dof` interleaved unknowns.

    What PETSc calls MAIJ; petsc4py has no way to make one from a matrix, so Python multiplies.

    Parameters
    ----------
    P : csr_matrix of shape (fine, coarse)
    dof : int
        Unknowns per row of P: the outputs of a layer.

    Examples
    --------
    >>> from mgnet.knots.refinement import refinement_matrix
    >>> P = kronecker(refinement_matrix(1, 1), 2)
    >>> u, v = P.createVecs()
    >>> u.setArray([0.0, 1.0, 2.0, 5.0])
    >>> P.mult(u, v)
    >>> v.array
    array([0., 1., 1., 3., 2., 5.])
    """
    if dof < 1:
        raise ValueError(f"kronecker got {dof} unknowns per row; it needs at least 1")
    shape = tuple(dof * length for length in vector.shape_of(P))
    made = PETSc.Mat().createPython(shape, _Kronecker(P, dof), comm=PETSc.COMM_SELF)
    made.setUp()
    return made


class _Kronecker:
    """The context that PETSc calls: `mult` and `multTranspose` of a python-type Mat."""

    def __init__(self, P: sp.csr_matrix, dof: int):
        self.P = sp.csr_matrix(P)
        self.transpose = self.P.T.tocsr()
        self.dof = dof

    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        y.setArray(self.P @ x.getArray(readonly=True).reshape(-1, self.dof))

    def multTranspose(  # noqa: N802, PETSc's name
        self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec
    ) -> None:
        y.setArray(self.transpose @ x.getArray(readonly=True).reshape(-1, self.dof))
