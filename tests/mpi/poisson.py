"""Started on several ranks by test_run.py: a cycle of distributed Vecs; prints JSON on rank 0."""

import json
import sys
from typing import Any

import petsc4py

petsc4py.init(sys.argv[:1])  # PETSc 3.26 prints unused options to stdout

import numpy as np  # noqa: E402
from petsc4py import PETSc  # noqa: E402

from mgnet import Hierarchy, Jacobi, Level, MatrixTransfer, Smoother, Solver, gallery  # noqa: E402


def spread(matrix):
    """The rows of a SciPy matrix over the ranks, in PETSc's default blocks."""
    matrix = matrix.tocsr()
    mat = PETSc.Mat().createAIJ(matrix.shape, nnz=10, comm=PETSc.COMM_WORLD)
    for row in range(*mat.getOwnershipRange()):
        begin, end = matrix.indptr[row : row + 2]
        mat.setValues(row, matrix.indices[begin:end], matrix.data[begin:end])
    mat.assemble()
    return mat


class Redundant(Smoother):
    """PETSc's LU, the coarse system gathered on every rank."""

    def start(self, level, u):
        ksp = PETSc.KSP().create(PETSc.COMM_WORLD)
        ksp.setOperators(level.matrix)
        ksp.setType("preonly")
        ksp.getPC().setType("redundant")
        return ksp

    def smooth(self, level, u, f, sweeps, memory):
        solution = u.duplicate()
        memory.solve(f, solution)
        return solution, memory


levels = []
model: Any = gallery.poisson((31, 31), levels=4)
for level in model:
    A = spread(level.matrix)
    if level.transfer is None:
        levels.append(Level(A, Redundant()))
    else:
        P = level.transfer.P
        transfer = MatrixTransfer(spread(P), spread(P.T))
        levels.append(Level(A, Jacobi(), transfer))
f = levels[0].matrix.createVecLeft()
first, last = f.getOwnershipRange()
f.setArray(np.sin(np.arange(31.0**2))[first:last])
solver = Solver(Hierarchy(levels), "F(2,1)", rtol=0.0, max_cycles=5)
if "--poison" in sys.argv and PETSc.COMM_WORLD.getRank() == PETSc.COMM_WORLD.getSize() - 1:
    f.array[-1] = np.nan
f.assemble()
solution = solver.solve(f)
if PETSc.COMM_WORLD.getRank() == 0:
    print(json.dumps({"reason": solution.reason.name, "norms": solution.residual_norms}))
