"""Started on several ranks by test_start.py: prints one line of JSON on rank 0."""

import json
import sys

import petsc4py

petsc4py.init(sys.argv)

from mpi4py import MPI  # noqa: E402
from petsc4py import PETSc  # noqa: E402

vector = PETSc.Vec().createMPI((3, None), comm=MPI.COMM_WORLD)
vector.set(1.0)
total = vector.sum()
if MPI.COMM_WORLD.rank == 0:
    print(json.dumps({"ranks": MPI.COMM_WORLD.size, "total": total}))
