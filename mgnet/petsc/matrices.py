"""Matrices for PETSc: assembled ones, Kronecker products, or any linear operator on states."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from petsc4py import PETSc

from mgnet import vector
from mgnet.petsc.vectors import assign, vec_like, view

__all__ = ["Operator", "aij", "as_mat", "fill", "kronecker", "python_mat"]

State = Any


def aij(matrix: sp.csr_matrix) -> PETSc.Mat:
    """Convert a SciPy matrix to an assembled PETSc matrix on this rank.

    Parameters
    ----------
    matrix : csr_matrix
        The matrix, such as `mgnet.knots.kronecker_matrix(kan)`.

    Returns
    -------
    PETSc.Mat
        A matrix of type AIJ.

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
    """`P (x) I_dof` on this rank, unassembled: P acts on each of `dof` interleaved unknowns.

    This corresponds to PETSc's MAIJ; petsc4py cannot create a MAIJ matrix, so Python multiplies.

    Parameters
    ----------
    P : csr_matrix of shape (fine, coarse)
        The scalar matrix.
    dof : int
        Number of unknowns per row of P, such as the outputs of a layer.

    Returns
    -------
    PETSc.Mat
        A matrix of python type.

    Raises
    ------
    ValueError
        If `dof` is less than 1.

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
    """The context of a python-type Mat, with the callbacks `mult` and `multTranspose`."""

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


def as_mat(matrix: Any, like: State, comm: Any = PETSc.COMM_SELF) -> PETSc.Mat:
    """Convert any matrix or linear operator between states of one kind to a Mat.

    Matrices with entries are assembled; other operators and blocks on several ranks remain
    functions.

    Parameters
    ----------
    matrix : Mat, SciPy sparse matrix, NumPy array, torch tensor or LinearOperator
        The matrix or operator.
    like : state
        A state of the kind that the matrix multiplies.
    comm : communicator
        The communicator of the ranks that hold blocks of a state.

    Returns
    -------
    PETSc.Mat
        The matrix.

    Examples
    --------
    >>> as_mat(sp.eye(3), np.zeros(3)).getType()
    'seqaij'
    """
    if vector.is_mat(matrix):
        return matrix
    if comm.getSize() == 1 and (sp.issparse(matrix) or _has_entries(matrix)):
        entries: Any = vector.as_scipy(matrix)
        if sp.issparse(entries):
            made = aij(entries)
            made.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
            return made
        shape = np.shape(entries)
        return PETSc.Mat().createDense(shape, array=np.array(entries, float), comm=comm)
    return python_mat(Operator(matrix, like, like), comm)


def fill(mat: PETSc.Mat, matrix: Any) -> None:
    """Replace the entries, or the operator, of a matrix made by `as_mat`.

    Examples
    --------
    >>> mat = as_mat(sp.eye(2), np.zeros(2))
    >>> fill(mat, 3.0 * sp.eye(2))
    >>> mat.getDiagonal().array
    array([3., 3.])
    """
    if vector.is_mat(matrix):
        if matrix != mat:
            matrix.copy(mat)
    elif mat.getType() == "python":
        mat.getPythonContext().operator = matrix
    else:
        entries: Any = vector.as_scipy(matrix)
        if sp.issparse(entries):
            mat.zeroEntries()
            mat.setValuesCSR(entries.indptr, entries.indices, entries.data)
        else:
            rows, columns = (np.arange(n, dtype=PETSc.IntType) for n in np.shape(entries))
            mat.setValues(rows, columns, entries)
    mat.assemble()


def _has_entries(matrix: Any) -> bool:
    return isinstance(matrix, np.ndarray) or vector.is_tensor(matrix)


def python_mat(context: Any, comm: Any) -> PETSc.Mat:
    """Create a Mat whose products are computed by an `Operator`.

    Examples
    --------
    >>> mat = python_mat(Operator(2.0 * np.eye(2), np.zeros(2), np.zeros(2)), PETSc.COMM_SELF)
    >>> x, y = mat.createVecs()
    >>> x.set(1.0)
    >>> mat.mult(x, y)
    >>> y.array
    array([2., 2.])
    """
    sizes = [vec_like(like, comm).getSizes() for like in (context.result, context.argument)]
    made = PETSc.Mat().createPython(sizes, context, comm=comm)
    made.setUp()
    return made


class Operator:
    """The context of a python-type Mat: a linear function of states, and its transpose.

    Parameters
    ----------
    operator : callable or anything with `@`
        The linear function or matrix.
    argument, result : state
        States with the kinds and shapes of the argument and of the result.
    transpose : callable, optional
        The transposed function; by default, products with `operator.T`.

    Examples
    --------
    >>> Operator(np.eye(2), np.zeros(2), np.zeros(2)).operator.shape
    (2, 2)
    """

    def __init__(self, operator: Any, argument: State, result: State, transpose: Any = None):
        self.operator = operator
        self.argument = argument
        self.result = result
        self.transpose = transpose

    def mult(self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec) -> None:
        """Compute y = A x."""
        assign(y, vector.apply(self.operator, view(x, self.argument)))

    def multTranspose(  # noqa: N802, PETSc's name
        self, mat: PETSc.Mat, x: PETSc.Vec, y: PETSc.Vec
    ) -> None:
        """Compute y = A^T x."""
        transpose = self.operator.T if self.transpose is None else self.transpose
        assign(y, vector.apply(transpose, view(x, self.result)))

    def multAdd(  # noqa: N802, PETSc's name
        self, mat: PETSc.Mat, x: PETSc.Vec, v: PETSc.Vec, y: PETSc.Vec
    ) -> None:
        """Compute y = v + A x, where y may be v."""
        assign(y, vector.apply(self.operator, view(x, self.argument)) + view(v, self.result))
