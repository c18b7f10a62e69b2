"""Law: a cycle on PETSc's matrices and vectors leaves their entries where PETSc has them.

A vector on a GPU stays there while only PETSc's own operations touch it. No PETSc with a GPU is
needed: the calls that would bring entries to the host are counted, as Python's profiler sees them.
"""

import sys
from contextlib import contextmanager

import numpy as np
import pytest
import scipy.sparse as sp

from mgnet import (
    CG,
    GMRES,
    Anderson,
    Chebyshev,
    Hierarchy,
    Jacobi,
    Level,
    MatrixTransfer,
    Solver,
    cycle,
    gallery,
    run,
    vector,
)

HOST = {"getArray", "setArray", "toDLPack", "getBuffer", "getValues", "setValues", "getValue"}
HOST |= {"getValuesCSR", "setValuesCSR", "createWithArray", "getDenseArray", "placeArray"}


@contextmanager
def host_calls():
    """The names of the methods that were called and have entries on the host."""
    found = []

    def told(frame, event, function):
        if event == "c_call" and function.__name__ in HOST:
            found.append(function.__name__)

    before = sys.getprofile()
    sys.setprofile(told)
    try:
        yield found
    finally:
        sys.setprofile(before)


def on_mats(smoother, coarse):
    """Poisson's equation on Mats, and a right-hand side; what it is made of, for comparison."""
    pytest.importorskip("petsc4py")
    from mgnet.petsc.matrices import aij

    given = gallery.poisson((31, 15))
    mats = [aij(sp.csr_matrix(level.matrix)) for level in given]
    levels = [
        Level(mat, smoother, MatrixTransfer(aij(sp.csr_matrix(level.transfer.P))))
        for mat, level in zip(mats, list(given)[:-1], strict=False)
    ]
    f = mats[0].createVecRight()
    f.setArray(np.random.default_rng(0).standard_normal(f.getSize()))
    return Hierarchy([*levels, Level(mats[-1], coarse)]), f


SMOOTHERS = [Jacobi(0.8), *(Chebyshev(2, kind=kind) for kind in ("first", "fourth", "opt_fourth"))]


@pytest.mark.parametrize("smoother", SMOOTHERS, ids=str)
def test_a_cycle_calls_for_no_entries(petsc, smoother):
    hierarchy, f = on_mats(smoother, Jacobi(0.8))
    _, memory = run(cycle(len(hierarchy)), hierarchy, None, f)  # the set-up draws random numbers
    with host_calls() as found:
        u, _ = run(cycle(len(hierarchy)), hierarchy, None, f, memory)
    assert found == [] and 0.0 < u.norm() < np.inf


@pytest.mark.parametrize("acceleration", [None, CG(), GMRES(5), Anderson()], ids=str)
def test_a_solve_calls_for_no_entries(petsc, acceleration):
    hierarchy, f = on_mats(Jacobi(0.8), Jacobi(0.8))
    solver = Solver(hierarchy, acceleration=acceleration, rtol=1e-4)
    with host_calls() as found:
        solution = solver.solve(f)
    assert found == [] and solution.reason.name == "RTOL"


def test_solvers_of_petsc_call_for_no_entries(petsc):
    from mgnet.petsc import KSPSmoother

    sor = {"ksp_type": "richardson", "ksp_max_it": 1, "pc_type": "sor"}
    exact = {"ksp_type": "preonly", "pc_type": "lu"}
    hierarchy, f = on_mats(KSPSmoother("sor_", sor), KSPSmoother("exact_", exact))
    with host_calls() as found:
        solution = Solver(hierarchy, rtol=1e-4).solve(f)
    assert found == [] and solution.reason.name == "RTOL"


def test_what_would_bring_entries_to_the_host_is_seen(petsc):
    hierarchy, f = on_mats(Jacobi(0.8), Jacobi(0.8))
    with host_calls() as found:
        run(cycle(len(hierarchy)), hierarchy, None, f, record=lambda *_: vector.as_numpy(f))
    assert len(found) > 3 and set(found) == {"getArray"}
    with host_calls() as found:
        vector.like(np.zeros(f.getSize()), f)
    assert found == ["setArray"]
