"""Started on several ranks by test_drive.py: PETSc's solvers on a distributed hierarchy."""

import json
import sys
from typing import Any

from mgnet.petsc import init

arguments = init(sys.argv)

import numpy as np  # noqa: E402
from petsc4py import PETSc  # noqa: E402

from mgnet import Hierarchy, Jacobi, Level, MatrixTransfer, gallery  # noqa: E402
from mgnet.petsc import KSPSmoother, dmshell, solver_from_options  # noqa: E402

WORLD = PETSc.COMM_WORLD


def spread(matrix):
    """The rows of a SciPy matrix over the ranks, in PETSc's default blocks."""
    matrix = matrix.tocsr()
    mat = PETSc.Mat().createAIJ(matrix.shape, nnz=10, comm=WORLD)
    for row in range(*mat.getOwnershipRange()):
        begin, end = matrix.indptr[row : row + 2]
        mat.setValues(row, matrix.indices[begin:end], matrix.data[begin:end])
    mat.assemble()
    return mat


redundant = KSPSmoother("coarse_", {"ksp_type": "preonly", "pc_type": "redundant"})
levels = []
model: Any = gallery.poisson((31, 31), levels=4)
for level in model:
    A = spread(level.matrix)
    if level.transfer is None:
        levels.append(Level(A, redundant))
    else:
        P = level.transfer.P
        levels.append(Level(A, Jacobi(), MatrixTransfer(spread(P), spread(P.T))))
hierarchy = Hierarchy(levels)
f = hierarchy[0].matrix.createVecLeft()
first, last = f.getOwnershipRange()
f.setArray(np.sin(np.arange(31.0**2))[first:last])
if "nan" in arguments and WORLD.getRank() == WORLD.getSize() - 1:
    f.setArray(np.full(last - first, np.nan))
told: dict[str, Any] = {}
solution = solver_from_options(hierarchy, rtol=1e-7).solve(f)
told["mgnet"] = [solution.reason.name, *solution.residual_norms]
for name, solver in (("ksp", PETSc.KSP()), ("snes", PETSc.SNES())):
    solver.create(WORLD)
    solver.setOptionsPrefix(f"{name}_")
    solver.setDM(dmshell(hierarchy))
    solver.setFromOptions()
    x, norms = f.duplicate(), []
    x.set(0.0)
    solver.setMonitor(lambda _, number, norm, norms=norms: norms.append(norm))
    solver.solve(f, x)
    told[name] = [solver.getConvergedReason(), *norms]


class Cube:
    """`u + u^3`, on this rank's block alone."""

    def __call__(self, u):
        return u + u**3


def total(u):
    return float(np.sqrt(sum(WORLD.tompi4py().allgather(u @ u))))


block = np.zeros(3 + WORLD.getRank())  # ranks may hold blocks of different lengths
alone = Hierarchy([Level(Cube(), Jacobi(), linearize=lambda u: None)], norm=total)
snes = PETSc.SNES().create(WORLD)
snes.setDM(dmshell(alone, block, WORLD))
snes.setType("nrichardson")
x = snes.getDM().createGlobalVec()
b = x.duplicate()
b.set(2.0)
snes.setTolerances(rtol=1e-9, max_it=200)
snes.solve(b, x)
told["blocks"] = [snes.getConvergedReason(), x.getSize(), x.min()[1], x.max()[1]]
if WORLD.getRank() == 0:
    sys.stdout.write(json.dumps(told) + "\n")
