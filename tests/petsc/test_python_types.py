"""Law: our parts do under PETSc what they do in `run`: smoothers in its multigrid, whole cycles."""

from dataclasses import replace

import numpy as np
import pytest

from mgnet import Chebyshev, GaussSeidel, Hierarchy, Jacobi, Solver, gallery
from mgnet.options.reader import _helped


def solver_on(petsc, kind, hierarchy, prefix=""):
    from mgnet.petsc import dmshell

    solver = (petsc.KSP if kind == "ksp" else petsc.SNES)().create(petsc.COMM_SELF)
    solver.setOptionsPrefix(prefix)
    solver.setDM(dmshell(hierarchy))
    return solver


def solve(solver, f, cycles=None):
    x = solver.getDM().createGlobalVec()
    b = x.duplicate()
    b.setArray(f)
    norms = []
    solver.setMonitor(lambda _, number, norm: norms.append(norm))
    solver.solve(b, x)
    return x.array.copy(), norms


def close(theirs, ours):
    return np.linalg.norm(theirs - ours) <= 1e-12 * np.linalg.norm(ours)


MG = (
    "-ksp_type richardson -ksp_norm_type unpreconditioned -ksp_max_it 3 -ksp_rtol 1e-300"
    " -pc_type mg -pc_mg_levels 5 -mg_levels_ksp_type richardson -mg_levels_ksp_max_it 1"
    " -mg_levels_pc_type python -mg_levels_pc_python_type mgnet.petsc.Sweeps"
    " -mg_coarse_pc_type lu "
)
UP = (
    "-pc_mg_distinct_smoothup -mg_levels_up_ksp_type richardson -mg_levels_up_ksp_max_it 1"
    " -mg_levels_up_pc_type python -mg_levels_up_pc_python_type mgnet.petsc.Sweeps"
)

# With two smoothers PETSc's W begins the second visit of a level from zero, unless told not to.
TWICE = "-pc_mg_cycle_type w -mg_levels_ksp_initial_guess_nonzero"


@pytest.mark.parametrize(
    ("pair", "more", "cycle"),
    [
        ((GaussSeidel(), None), "", "V(1,1)"),
        ((GaussSeidel("forward"), GaussSeidel("backward")), UP, "V(1,1)"),
        ((Jacobi(0.3), Jacobi(0.9)), f"{UP} {TWICE}", "W(1,1)"),
        ((Jacobi(), None), "-mg_levels_mgnet_smoother GaussSeidel('backward')", None),
        ((Jacobi(), None), "-mg_levels_3_mgnet_smoother Chebyshev(2)", None),
        ((Jacobi(), None), "-mg_levels_2_mgnet_sweeps 3", None),
    ],
)
def test_our_smoothers_under_pcmg(petsc, options, pair, more, cycle):
    hierarchy = gallery.poisson((31, 31), smoother=pair[0], post_smoother=pair[1])
    options(MG + more.replace("'", "\\'"))
    f = np.sin(np.arange(961.0))
    ksp = solver_on(petsc, "ksp", hierarchy)
    ksp.setFromOptions()
    theirs, norms = solve(ksp, f)
    if "backward" in more:
        hierarchy = gallery.poisson((31, 31), smoother=GaussSeidel("backward"))
    if "Chebyshev" in more:  # PETSc's level 3 of 0 to 4 is our level 1
        levels = list(hierarchy)
        hierarchy = Hierarchy([levels[0], replace(levels[1], smoother=Chebyshev(2)), *levels[2:]])
    if "sweeps" in more:
        cycle = "pre, down, pre, down, pre 3, down, pre, down, solve, up, post, up, post 3, "
        cycle += "up, post, up, post"
    ours = Solver(hierarchy, cycle or "V(1,1)", rtol=0.0, max_cycles=3).solve(f)
    assert close(theirs, ours.value)
    np.testing.assert_allclose(norms, ours.residual_norms, rtol=1e-9)


FAS = (
    "-snes_type fas -snes_fas_levels 6 -snes_max_it 4 -snes_rtol 0 -snes_stol 0 -snes_atol 0"
    " -fas_levels_snes_type python -fas_levels_snes_python_type mgnet.petsc.Sweeps"
    " -fas_levels_snes_max_it 1 -fas_coarse_snes_linesearch_type basic"
    " -fas_coarse_snes_max_it 1 -fas_coarse_ksp_type preonly -fas_coarse_pc_type lu "
)
FAS_UP = "-fas_up_levels_snes_type python -fas_up_levels_snes_python_type mgnet.petsc.Sweeps"


@pytest.mark.parametrize("linear", [False, True], ids=["reaction", "poisson"])
@pytest.mark.parametrize("post", [None, Jacobi(0.5)], ids=["same", "other after"])
def test_our_smoothers_under_fas(petsc, options, linear, post):
    from mgnet.petsc import separate_smoothers

    model = gallery.poisson(63) if linear else gallery.reaction(63, 100.0)
    levels = [replace(level, post_smoother=level.transfer and post) for level in model]
    options(FAS + FAS_UP)
    snes = solver_on(petsc, "snes", Hierarchy(levels))
    snes.setFromOptions()
    if post is not None:
        separate_smoothers(snes)
    f = np.full(63, 1.0 / 64)
    theirs, norms = solve(snes, f)
    ours = Solver(Hierarchy(levels), rtol=0.0, max_cycles=4).solve(f)
    assert close(theirs, ours.value)
    np.testing.assert_allclose(norms, ours.residual_norms, rtol=1e-9)


def test_our_cycle_as_a_snes(petsc, options, capfd):
    hierarchy = gallery.reaction(63, 100.0)
    f = np.full(63, 1.0 / 64)
    options(
        "-own_snes_type python -own_snes_python_type mgnet.petsc.Cycle -own_snes_monitor"
        " -own_mgnet_cycle F(1,1) -own_snes_rtol 1e-6 -own_snes_converged_reason -own_snes_view"
    )
    snes = solver_on(petsc, "snes", hierarchy, "own_")
    snes.setFromOptions()
    theirs, norms = solve(snes, f)
    cycles = len(norms) - 1
    ours = Solver(hierarchy, "F(1,1)", rtol=0.0, max_cycles=cycles).solve(f)
    assert (theirs == ours.value).all()
    np.testing.assert_allclose(norms, ours.residual_norms, rtol=1e-12)
    reasons = petsc.SNES.ConvergedReason
    assert snes.getConvergedReason() == reasons.CONVERGED_FNORM_RELATIVE
    assert snes.getIterationNumber() == cycles
    assert norms[-1] <= 1e-6 * norms[0] < norms[-2]
    out = capfd.readouterr().out
    assert f"  0 SNES Function norm {norms[0]:.12e}" in out
    assert f"converged due to CONVERGED_FNORM_RELATIVE iterations {cycles}" in out
    assert "mgnet cycle: F(1,1)" in out
    snes.setTolerances(max_it=2)
    solve(snes, f)
    assert snes.getConvergedReason() == reasons.DIVERGED_MAX_IT


def test_our_cycle_as_a_pc(petsc, options):
    hierarchy = gallery.poisson((31, 31))
    f = np.sin(np.arange(961.0))
    options("-ksp_type richardson -pc_type python -pc_python_type mgnet.petsc.Cycle")
    options("-mgnet_cycle W(2,1) -ksp_max_it 4 -ksp_rtol 1e-300")
    ksp = solver_on(petsc, "ksp", hierarchy)
    ksp.setFromOptions()
    theirs, _ = solve(ksp, f)
    ours = Solver(hierarchy, "W(2,1)", rtol=0.0, max_cycles=4).solve(f).value
    assert close(theirs, ours)


def test_help_of_the_python_types(petsc, options, capfd):
    options("-help -py_pc_type python -py_pc_python_type mgnet.petsc.Sweeps -py_mgnet_sweeps 2")
    _helped.discard(("py_", "solver"))
    ksp = solver_on(petsc, "ksp", gallery.poisson(7), "py_")
    ksp.setFromOptions()
    assert "-py_mgnet_sweeps <now 2 : formerly 1>" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("-mgnet_cycle V", "cycle 'V', character 2"),
        ("-mgnet_cycel V(1,1)", "nearest is -mgnet_cycle"),
    ],
)
def test_bad_options(petsc, options, line, complaint):
    options(f"-snes_type python -snes_python_type mgnet.petsc.Cycle {line}")
    snes = solver_on(petsc, "snes", gallery.reaction(7))
    with pytest.raises((ValueError, petsc.Error)) as caught:
        snes.setFromOptions()
        solve(snes, np.ones(7))
    assert complaint in str(caught.value.__cause__ or caught.value)


def test_refusals(petsc):
    from mgnet.petsc import Cycle, separate_smoothers
    from mgnet.petsc.dm import place_of

    snes = solver_on(petsc, "snes", gallery.reaction(7))
    snes.setType("newtonls")
    with pytest.raises(ValueError, match="got a SNES of type newtonls"):
        separate_smoothers(snes)
    pc = petsc.PC().create(petsc.COMM_SELF)
    pc.setDM(snes.getDM())
    x = snes.getDM().createGlobalVec()
    with pytest.raises(ValueError, match="preconditioner for linear levels"):
        Cycle().apply(pc, x, x)
    place = replace(place_of(snes.getDM()), number=2)
    with pytest.raises(ValueError, match="on the level 0 of PETSc; .*Sweeps"):
        Cycle()._schedule(place)
