"""Oracle: `mgnet.Anderson` is PETSc's SNES of type anderson, with our cycle as its preconditioner.

Equal where the preconditioner is on the left: PETSc then combines cycles so that the change by a
cycle is least, as we do. On the right, which is PETSc's default, it is the residual that becomes
least, so there, and with NGMRES, which may also keep the plain cycle, only the counts are alike.
"""

import numpy as np
import pytest

from mgnet import Anderson, Solver, gallery

F = np.full(45, 0.05)
CYCLE = (
    " -snes_rtol 0 -snes_atol 4e-10 -snes_stol 0 -npc_snes_type python -npc_snes_max_it 1"
    " -npc_snes_python_type mgnet.petsc.Cycle -npc_snes_convergence_test skip"
)


@pytest.fixture
def hierarchy():
    return gallery.reaction((15, 3), strength=50.0)  # cells of 1 : 4, and not linear


def theirs(petsc, hierarchy, cycles):
    from mgnet.petsc import dmshell

    snes = petsc.SNES().create(petsc.COMM_SELF)
    snes.setDM(dmshell(hierarchy))
    snes.setFromOptions()
    snes.setTolerances(max_it=cycles)
    x = snes.getDM().createGlobalVec()
    b = x.duplicate()
    b.setArray(F)
    snes.solve(b, x)
    return x.array.copy(), snes.getIterationNumber()


@pytest.mark.parametrize("damping", [1.0, 0.6])
@pytest.mark.parametrize("memory", [1, 3, 5])
def test_the_iterates_are_equal(petsc, options, hierarchy, memory, damping):
    options(f"-snes_type anderson -snes_anderson_m {memory} -snes_anderson_beta {damping}{CYCLE}")
    options("-snes_npc_side left")
    ours = []
    Solver(
        hierarchy,
        rtol=0.0,
        max_cycles=8,
        acceleration=Anderson(memory, damping),
        monitor=lambda _, u: ours.append(u),
    ).solve(F, np.zeros(45))
    for cycles in (1, 2, 4, 8):
        x, _ = theirs(petsc, hierarchy, cycles)
        np.testing.assert_allclose(ours[cycles], x, rtol=0.0, atol=1e-10 * abs(x).max())


@pytest.mark.parametrize(("kind", "memory"), [("ngmres", 5), ("ngmres", 10), ("anderson", 10)])
def test_other_forms_take_as_many_cycles(petsc, options, hierarchy, kind, memory):
    """The plain cycle needs more than 200."""
    options(f"-snes_type {kind} -snes_{kind}_m {memory}{CYCLE}")
    x, cycles = theirs(petsc, hierarchy, 100)
    acceleration = Anderson(memory)
    ours = Solver(hierarchy, rtol=0.0, atol=4e-10, max_cycles=100, acceleration=acceleration)
    solution = ours.solve(F, np.zeros(45)).require()
    assert abs(solution.cycles - cycles) <= 2
    np.testing.assert_allclose(solution.value, x, rtol=0.0, atol=1e-7)
