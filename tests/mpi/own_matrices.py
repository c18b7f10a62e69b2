"""Started on several ranks by test_own_matrices.py: Mats over ranks; prints JSON on rank 0."""

import json
import sys
import warnings
from typing import Any

import mgnet.petsc

mgnet.petsc.init(sys.argv)

import numpy as np  # noqa: E402
import scipy.sparse as sp  # noqa: E402
from petsc4py import PETSc  # noqa: E402

from mgnet import (  # noqa: E402
    CG,
    FGMRES,
    GMRES,
    ILU,
    Anderson,
    BlockJacobi,
    Chebyshev,
    Direct,
    GaussSeidel,
    Hierarchy,
    Jacobi,
    Krylov,
    LineRelaxation,
    MultiplicativeSchwarz,
    Solver,
    gallery,
    vector,
)
from mgnet.petsc import KSPSmoother  # noqa: E402

WORLD = PETSc.COMM_WORLD


def spread(matrix):
    """The rows of a SciPy matrix over the ranks, in PETSc's default blocks."""
    matrix = matrix.tocsr()
    matrix.sort_indices()
    rows, columns = (PETSc.Vec().createMPI(n, comm=WORLD) for n in matrix.shape)
    own = matrix[slice(*rows.getOwnershipRange())]
    csr = (own.indptr, own.indices, own.data)
    return PETSc.Mat().createAIJ((rows.getSizes(), columns.getSizes()), csr=csr, comm=WORLD)


model: Any = gallery.poisson((15, 15), levels=2)
A = [spread(level.matrix) for level in model]
P = [spread(model[0].transfer.P)]
f = A[0].createVecLeft()
f.setArray(np.sin(np.arange(225.0))[slice(*f.getOwnershipRange())])
redundant = KSPSmoother("coarse_", {"ksp_type": "preonly", "pc_type": "redundant"})
sor = KSPSmoother("relax_", {"ksp_type": "richardson", "ksp_max_it": 1, "pc_type": "sor"})
told: dict[str, Any] = {"refused": {}}


JACOBI = Jacobi(0.8)


def solve(smoother=JACOBI, coarse_solver=redundant, **how):
    shapes = [(15, 15), (7, 7)]
    parts = {"smoother": smoother, "coarse_solver": coarse_solver, "shapes": shapes}
    return Solver(Hierarchy.from_matrices(A, P, **parts), **how).solve(f)


for name, how in {
    "jacobi": {},
    "chebyshev": {"smoother": Chebyshev(2)},
    "optimal": {"smoother": Chebyshev(3, kind="opt_fourth")},
    "lu": {"smoother": Chebyshev(2), "coarse_solver": KSPSmoother("many_", {"ksp_rtol": 1e-12})},
    "sor": {"smoother": sor},
    "anderson": {"acceleration": Anderson()},
    "cg": {"acceleration": CG()},
    "gmres": {"smoother": Chebyshev(2), "acceleration": GMRES(restart=5)},
    "fgmres": {"smoother": sor, "acceleration": FGMRES(restart=5)},
    "nested": {"cycle": "nested F(1,1)"},
}.items():
    solution = solve(**how)
    told[name] = [solution.reason.name, *solution.residual_norms]
for smoother in (GaussSeidel(), LineRelaxation(axes=0), BlockJacobi(3), ILU(),
                 MultiplicativeSchwarz([np.arange(225)])):  # fmt: skip
    name = type(smoother).__name__
    try:
        told["refused"][name] = "" if solve(smoother).reason.converged else "no"
    except TypeError as error:
        told["refused"][name] = f"TypeError: {error}"
for coarse in (Direct(), Krylov("cg", 30)):
    name = type(coarse).__name__
    try:
        told["refused"][name] = "" if solve(coarse_solver=coarse).reason.converged else "no"
    except TypeError as error:
        told["refused"][name] = f"TypeError: {error}"
parts = {"smoother": Chebyshev(2), "coarse_solver": redundant}
galerkin = Solver(Hierarchy.galerkin(A[0], P, **parts)).solve(f)
told["galerkin"] = [galerkin.reason.name, *galerkin.residual_norms]
line = 2.0 * np.eye(15) - np.eye(15, k=1) - np.eye(15, k=-1)
line[0, 0] = line[-1, -1] = 1.0
singular = sp.csr_matrix(sp.kron(line, np.eye(15)) + sp.kron(np.eye(15), line))
for name, space in (("constant", "constant"), ("given", np.ones(225))):
    jacobi = {"smoother": JACOBI, "coarse_solver": Chebyshev(8)}
    levels = Hierarchy.galerkin(spread(singular), P, nullspace=space, **jacobi)
    solution = Solver(levels, "V(1,1,2)", rtol=0.0, max_cycles=10).solve(f)
    told[name] = [solution.reason.name, *solution.residual_norms]
hierarchy = Hierarchy.from_matrices(A, P, **parts)
told["checked"] = hierarchy.check(f).splitlines()
told["explained"] = str(Solver(hierarchy).solve(f).explain())
drawn = vector.random_like(f, np.random.default_rng(3))
told["random"] = [drawn.max()[1], drawn.min()[1], drawn.getSize()]
with warnings.catch_warnings(record=True) as hints:
    warnings.simplefilter("always")
    for _ in range(2):
        Solver(hierarchy).solve(f)
        Solver(model).solve(np.ones(225))
told["hints"] = [str(each.message)[:27] for each in hints]
# On four ranks the first two see no difference: PETSc would raise on the others alone.
last, parts = WORLD.getSize() - 1, np.diff(f.getOwnershipRanges())
parts[last] += 1
parts[last - 1] -= 1
told["layouts"] = []
if last:
    other = PETSc.Vec().createMPI((parts[WORLD.getRank()], 225), comm=WORLD)
    for attempt in (
        lambda: Solver(hierarchy).solve(other),
        lambda: Solver(hierarchy).solve(np.ones(225)),
    ):
        try:
            attempt()
        except (TypeError, ValueError) as error:
            told["layouts"].append(str(error))
if WORLD.getRank() == 0:
    sys.stdout.write(json.dumps(told) + "\n")
elif hints:
    sys.exit("a hint on another rank than 0")
