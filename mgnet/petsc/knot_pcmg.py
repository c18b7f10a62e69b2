"""PETSc's multigrid over knots for Gauss-Newton systems with samples distributed over ranks.

Each rank stores the rows of J for its samples as rows of an AIJ matrix. `J^T J` is another AIJ
matrix, with the parameters distributed over the ranks, and PCMG forms Galerkin products with the
knot insertion matrices. PETSc's sums depend on the number of ranks, so results on different numbers
of ranks agree up to rounding, not bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from petsc4py import PETSc
from torch import Tensor

from mgnet import vector
from mgnet.knots.jacobian import KANJacobian
from mgnet.petsc.distributed_least_squares import DistributedJacobian
from mgnet.petsc.ksp_smoother import with_options
from mgnet.petsc.petsc_errors import original_errors
from mgnet.training.least_squares.jacobian import Jacobian, StackedJacobian
from mgnet.training.least_squares.newton_krylov import Product

__all__ = ["KnotPCMG", "rows_mat"]

KASKADE = PETSc.PC.MGType.KASKADE
OPTIONS = {
    "pc_type": "mg",
    "pc_mg_galerkin": "both",
    "mg_levels_ksp_type": "chebyshev",
    "mg_levels_pc_type": "jacobi",
    "mg_levels_ksp_max_it": 2,
}


@dataclass(frozen=True)
class KnotPCMG:
    """A preconditioner for `(J^T J + shift I) d = b` of a KAN: one cycle of PETSc's PCMG.

    It is used as `LevenbergMarquardt(linear_solver=NewtonKrylov(KnotPCMG(...)))` on a problem from
    `distribute_samples(...)`.

    Parameters
    ----------
    prolongations : sequence of csr_matrix
        Prolongations between the levels, finest first, as made by `mgnet.knots.kronecker_matrix`.
    prefix : str
        Prefix of the options: `-knots_mg_levels_pc_type sor`, `-knots_pc_mg_cycle_type w`.
    options : mapping, optional
        Options set by the script, without the prefix; the command line takes precedence. The
        defaults are two steps of Chebyshev with Jacobi on each level, and PETSc's LU on the
        coarsest.

    Examples
    --------
    >>> from mgnet.knots import KAN, kronecker_matrix
    >>> from mgnet.petsc.distributed_least_squares import distribute_samples
    >>> from mgnet.training import LeastSquares
    >>> coarse = KAN([1, 3, 1], intervals=4)
    >>> x = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(1)
    >>> problem = distribute_samples(LeastSquares(coarse.refine(), (x, torch.sin(8 * x))))
    >>> r, J = problem.linearize(problem.start())
    >>> prepared = KnotPCMG([kronecker_matrix(coarse)]).prepare(J)
    >>> product, precondition = prepared.shifted(0.1 * prepared.scale)
    >>> precondition(J.rmatvec(r)).shape
    torch.Size([66])
    """

    prolongations: Sequence[sp.csr_matrix]
    prefix: str = "knots_"
    options: Mapping[str, Any] = field(default_factory=dict)

    def prepare(self, J: Jacobian) -> DistributedSystem:
        """Assemble `J^T J` over the ranks.

        Parameters
        ----------
        J : DistributedJacobian
            The Jacobian of a problem from `distribute_samples(...)`.

        Returns
        -------
        DistributedSystem
            The matrix and the settings of this preconditioner.

        Raises
        ------
        TypeError
            If J is not the Jacobian of a problem from `distribute_samples(...)`.
        ValueError
            If the shapes of the prolongations do not match each other and the columns of J.
        """
        if not isinstance(J, DistributedJacobian):
            raise TypeError(
                f"KnotPCMG got a {type(J).__name__}; it needs the Jacobian of "
                "distribute_samples(...)"
            )
        shapes = [vector.shape_of(P) for P in self.prolongations]
        sizes = [J.columns, *(coarse for _, coarse in shapes)]
        if not shapes or sizes[:-1] != [fine for fine, _ in shapes]:
            raise ValueError(
                f"KnotPCMG got prolongations of shapes {shapes} for "
                f"{J.columns} parameters; give one or more, finest first"
            )
        mat = rows_mat(J)
        return DistributedSystem(mat.transposeMatMult(mat), self)


@dataclass(frozen=True, eq=False)
class DistributedSystem:
    """`J^T J` of one Jacobian, with its rows distributed over the ranks."""

    gram: PETSc.Mat
    made_by: KnotPCMG

    @property
    def scale(self) -> float:
        """The mean of the matrix's diagonal."""
        return self.gram.getDiagonal().sum() / self.gram.getSize()[0]

    def shifted(self, shift: float) -> tuple[Product, Product]:
        """The product with `J^T J + shift I` and one cycle for it; every rank has whole vectors."""
        mat = self.gram.copy()
        # A spline without samples has no diagonal entry.
        mat.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
        mat.shift(shift)
        ksp = self._solver(mat)
        b, x = mat.createVecs()

        def product(d: Tensor) -> Tensor:
            _put(b, d)
            mat.mult(b, x)
            return _whole(x)

        def precondition(r: Tensor) -> Tensor:
            _put(b, r)
            with original_errors(ksp):
                ksp.getPC().apply(b, x)
            return _whole(x)

        return product, precondition

    def _solver(self, mat: PETSc.Mat) -> PETSc.KSP:
        comm, chosen = mat.getComm(), self.made_by
        ksp = PETSc.KSP().create(comm)
        ksp.setOptionsPrefix(chosen.prefix)
        ksp.setOperators(mat)
        pc = ksp.getPC()
        pc.setType("mg")
        levels = len(chosen.prolongations) + 1
        pc.setMGLevels(levels)
        for number, P in enumerate(chosen.prolongations):
            pc.setMGInterpolation(levels - 1 - number, _spread(P, comm))
        with with_options(chosen.prefix, OPTIONS | dict(chosen.options)), original_errors(ksp):
            ksp.setFromOptions()
            ksp.setUp()
        if pc.getType() == "mg" and pc.getMGType() in (PETSc.PC.MGType.FULL, KASKADE):
            raise ValueError(
                f"KnotPCMG got -{chosen.prefix}pc_mg_type full or kaskade, which is not symmetric, "
                "as conjugate gradients need; take multiplicative or additive"
            )
        return ksp


def rows_mat(J: DistributedJacobian) -> PETSc.Mat:
    """The Jacobian of a distributed problem as an AIJ matrix; each rank has its samples' rows.

    Parameters
    ----------
    J : DistributedJacobian
        The Jacobian; the rows of a penalty are put on rank 0.

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> from mgnet.petsc.distributed_least_squares import distribute_samples
    >>> from mgnet.training import LeastSquares
    >>> x = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(1)
    >>> problem = distribute_samples(LeastSquares(KAN([1, 1], intervals=40), (x, x)))
    >>> rows_mat(problem.linearize(problem.start())[1]).getSize()
    (200, 43)
    """
    comm = J.blocks.comm
    parts = [*J.parts] if J.penalty is None or comm.getRank() else [*J.parts, J.penalty]
    rows = sp.vstack([sp.csr_array((0, J.columns)), *map(_csr, parts)], format="csr")
    return _aij(rows, comm)


def _csr(J: Jacobian) -> Any:
    if isinstance(J, StackedJacobian):
        return sp.vstack([w * _csr(part) for w, part in J.parts], format="csr")
    return J.sparse() if isinstance(J, KANJacobian) else sp.csr_array(J.dense().numpy())


def _spread(P: sp.csr_matrix, comm: Any) -> PETSc.Mat:
    """A matrix that every rank has, with its rows in PETSc's default distribution."""
    first, last = PETSc.Vec().createMPI(vector.shape_of(P)[0], comm=comm).getOwnershipRange()
    return _aij(sp.csr_matrix(P)[first:last], comm)


def _aij(rows: Any, comm: Any) -> PETSc.Mat:
    """The matrix with these rows, in SciPy's format, on this rank."""
    rows.sort_indices()
    places = (part.astype(PETSc.IntType) for part in (rows.indptr, rows.indices))
    sizes = (rows.shape[0], None), (None, rows.shape[1])
    return PETSc.Mat().createAIJ(sizes, csr=(*places, rows.data), comm=comm)


def _put(vec: PETSc.Vec, whole: Tensor) -> None:
    """Set this rank's part of a vector from the whole vector, which every rank has."""
    vec.setArray(whole[slice(*vec.getOwnershipRange())].numpy())


def _whole(vec: PETSc.Vec) -> Tensor:
    """The whole vector, on every rank."""
    parts = vec.getComm().tompi4py().allgather(vec.getArray(readonly=True))
    return torch.from_numpy(np.concatenate(parts))
