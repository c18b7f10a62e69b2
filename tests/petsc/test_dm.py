"""Law: PETSc's multigrid on our hierarchy makes the iterates that `run` makes, to rounding."""

import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from mgnet import (
    Backtracking,
    Direct,
    Hierarchy,
    Jacobi,
    Level,
    Smoother,
    Solver,
    Transfer,
    gallery,
)


def linearly(hierarchy):
    """Nested iteration with the prolongation, as PETSc's: ours interpolates cubically."""
    levels = []
    for level in hierarchy:
        transfer = level.transfer and replace(level.transfer, interpolation=None)
        levels.append(replace(level, transfer=transfer))
    return Hierarchy(levels)


@dataclass(frozen=True)
class Richardson(Smoother):
    """What PETSc calls nrichardson, with a basic line search."""

    step: float

    def smooth(self, level, u, f, sweeps, memory):
        for _ in range(sweeps):
            u = u + self.step * level.residual_at(u, f)
        return u, memory


@pytest.fixture
def solve(petsc, options):
    from mgnet.petsc import dmshell

    def solve(kind, hierarchy, f, line, cycles=None, like=None):
        """Solve with these options; so many cycles, or until PETSc is content."""
        solver = (petsc.KSP if kind == "ksp" else petsc.SNES)().create(petsc.COMM_SELF)
        options(line)
        solver.setDM(dmshell(hierarchy, like))
        if cycles and kind == "ksp":
            solver.setTolerances(rtol=1e-300, atol=0.0, max_it=cycles)
            solver.setType("richardson")
        elif cycles:
            solver.setTolerances(rtol=0.0, atol=0.0, stol=0.0, max_it=cycles)
        solver.setFromOptions()
        x = solver.getDM().createGlobalVec()
        b = x.duplicate()
        b.setArray(f)
        solver.solve(b, x)
        return x.array.copy(), solver

    return solve


def close(theirs, ours, tolerance=1e-12):
    return np.linalg.norm(theirs - ours) <= tolerance * np.linalg.norm(ours)


MG = (
    "-pc_type mg -pc_mg_levels {} -mg_levels_ksp_type richardson -mg_levels_ksp_max_it 1"
    " -mg_levels_ksp_richardson_scale 0.6666666666666666 -mg_levels_pc_type jacobi"
    " -mg_coarse_pc_type lu {}"
)


@pytest.mark.parametrize("shape", [127, (31, 31)])
@pytest.mark.parametrize(
    ("more", "cycle", "cycles"),
    [
        ("", "V(1,1)", 1),
        ("", "V(1,1)", 4),
        ("-pc_mg_cycle_type w", "W(1,1)", 3),
        ("-mg_levels_ksp_max_it 2", "V(2,2)", 2),
        ("-pc_mg_type full", "nested V(1,1)", 1),
    ],
)
def test_pcmg_with_petsc_s_smoother(solve, shape, more, cycle, cycles):
    hierarchy = linearly(gallery.poisson(shape))
    f = np.sin(np.arange(hierarchy[0].unknowns))
    ours = Solver(hierarchy, cycle, rtol=0.0, max_cycles=cycles).solve(f).value
    theirs, _ = solve("ksp", hierarchy, f, MG.format(len(hierarchy), more), cycles)
    assert close(theirs, ours)


FAS = (
    "-snes_type fas -snes_fas_levels {} -fas_levels_snes_type nrichardson"
    " -fas_levels_snes_max_it 1 -fas_levels_snes_linesearch_type basic"
    " -fas_levels_snes_linesearch_damping {} -fas_coarse_snes_type newtonls"
    " -fas_coarse_snes_linesearch_type basic -fas_coarse_snes_max_it 1"
    " -fas_coarse_ksp_type preonly -fas_coarse_pc_type lu {}"
)
MODELS = {
    "poisson": lambda s: gallery.poisson(7, smoother=s),
    "poisson 2": lambda s: gallery.poisson((15, 15), smoother=s),
    "reaction": lambda s: gallery.reaction(7, 100.0, smoother=s),
    "reaction 2": lambda s: gallery.reaction((15, 15), 100.0, smoother=s),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("more", "cycle", "cycles"),
    [
        ("", "V(1,1)", 1),
        ("", "V(1,1)", 4),
        ("-snes_fas_cycles 2", "W(1,1,2)", 2),  # PETSc's goes to the coarsest level twice
        ("-snes_fas_type full", "nested V(1,1)", 1),
    ],
)
def test_fas_with_petsc_s_smoother(solve, model, more, cycle, cycles):
    step = 0.2 if "2" in model else 0.05
    hierarchy = linearly(MODELS[model](Richardson(step)))
    f = np.full(hierarchy[0].unknowns, 1.0 / hierarchy[0].unknowns)
    ours = Solver(hierarchy, cycle, rtol=0.0, max_cycles=cycles).solve(f).value
    theirs, _ = solve("snes", hierarchy, f, FAS.format(len(hierarchy), step, more), cycles)
    assert close(theirs, ours)


@pytest.mark.parametrize(
    ("line", "most"),
    [
        ("-snes_type newtonls -pc_type mg -pc_mg_levels 5 -ksp_rtol 1e-8", 6),
        (
            "-snes_type ngmres -npc_snes_type fas -npc_snes_fas_levels 5 -npc_snes_max_it 1"
            " -npc_fas_levels_snes_type python"
            " -npc_fas_levels_snes_python_type mgnet.petsc.Sweeps"
            " -npc_fas_levels_snes_max_it 1 -npc_fas_coarse_pc_type lu",
            15,
        ),
        ("-snes_type ncg -npc_snes_type python -npc_snes_python_type mgnet.petsc.Cycle", 40),
    ],
    ids=["Newton + PCMG", "NGMRES over FAS", "NCG over our cycle"],
)
def test_compositions(solve, line, most):
    hierarchy = gallery.reaction((31, 31), 1000.0)
    f = np.full(961, 32.0**-2)
    exact = Solver(hierarchy, "F(2,2)", rtol=1e-13).solve(f).value
    theirs, snes = solve("snes", hierarchy, f, f"{line} -snes_rtol 1e-9")
    assert snes.getConvergedReason() > 0
    assert snes.getIterationNumber() <= most
    assert close(theirs, exact, 1e-6)


class Pairs(Transfer):
    """A coarse value stands for two fine ones: no matrix to be seen."""

    def prolong(self, correction):
        return correction.repeat(2) if isinstance(correction, np.ndarray) else both(correction)

    def restrict(self, residual):
        return residual[::2] + residual[1::2]

    def inject(self, state):
        return 0.5 * self.restrict(state)


def both(u):
    return torch.stack([u, u], 1).reshape(-1, *u.shape[1:])


def test_transfers_without_a_matrix(solve):
    P = np.repeat(np.eye(8), 2, axis=0)
    A = gallery.poisson(16, levels=1)[0].matrix.toarray()
    levels = [Level(A, Jacobi(), Pairs()), Level(P.T @ A @ P, Direct())]
    for inject in (None, Pairs.inject):
        levels[0].transfer.__class__.inject = inject
        f = np.sin(np.arange(16.0))
        ours = Solver(Hierarchy(levels), rtol=0.0, max_cycles=3).solve(f).value
        theirs, _ = solve("ksp", Hierarchy(levels), f, MG.format(2, ""), 3)
        assert close(theirs, ours)


def test_tensors_in_single_precision_of_any_shape(solve):
    """Two equations u + u^3 = f side by side in float32; PETSc's own vectors are double."""

    def level(transfer):
        return Level(
            lambda u: u + u**3, Richardson(0.3), transfer, size=0 if transfer is None else 16
        )

    hierarchy = Hierarchy([level(Pairs()), level(None)])
    like = torch.zeros(8, 2)
    line = "-snes_type fas -snes_fas_levels 2 -fas_levels_snes_type nrichardson"
    line += " -fas_coarse_snes_type nrichardson -fas_coarse_snes_max_it 20 -snes_rtol 1e-5"
    x, snes = solve("snes", hierarchy, np.full(16, 2.0), line, like=like)
    assert snes.getConvergedReason() > 0
    np.testing.assert_allclose(x, 1.0, rtol=1e-4)


def test_petsc_s_galerkin_products(solve):
    hierarchy = gallery.poisson((31, 31))
    wrong = [replace(level, operator=2.0 * level.operator) for level in hierarchy[1:]]
    line = "-ksp_type cg -pc_type mg -pc_mg_levels 5 -pc_mg_galerkin both"
    _, ksp = solve("ksp", Hierarchy([hierarchy[0], *wrong]), np.ones(961), line)
    assert ksp.getIterationNumber() <= 6


@dataclass
class Failing:
    """Another operator as long as u is zero; after the first sweep everything is NaN."""

    operator: object

    def __call__(self, u):
        return self.operator(u) * (np.nan if u.any() else 1.0)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (
            "snes",
            "-snes_type fas -snes_fas_levels 2 -fas_levels_snes_type nrichardson"
            " -fas_coarse_pc_type lu",
        ),
        ("snes", "-snes_type newtonls"),
        ("snes", "-snes_type python -snes_python_type mgnet.petsc.Cycle"),
        ("ksp", "-ksp_type cg -pc_type mg -pc_mg_levels 2"),
        ("ksp", "-ksp_type richardson -pc_type python -pc_python_type mgnet.petsc.Cycle"),
    ],
)
def test_a_nan_is_a_reason(solve, kind, line):
    f = np.ones(15)
    if kind == "snes":
        levels = gallery.reaction(15, levels=2)
        levels = [replace(level, operator=Failing(level.operator)) for level in levels]
        hierarchy = Hierarchy(levels)
    else:
        hierarchy = gallery.poisson(15, levels=2)
        f[3] = np.nan
    x, solver = solve(kind, hierarchy, f, line)
    assert solver.getConvergedReason() < 0
    if "Cycle" in line and kind == "snes":
        assert not x.any(), "the last finite state"


def test_refusals(solve, petsc):
    from mgnet.petsc import dmshell
    from mgnet.petsc.dm import place_of

    f = np.ones(7)
    with pytest.raises((ValueError, petsc.Error)) as caught:
        solve("ksp", gallery.poisson(7), f, "-pc_type mg -pc_mg_levels 4")
    assert "below the 3 of this hierarchy" in str(caught.value.__cause__ or caught.value)
    levels = [replace(level, line_search=Backtracking()) for level in gallery.reaction(7)]
    with pytest.raises((ValueError, petsc.Error)) as caught:
        solve("snes", Hierarchy(levels), f, "-snes_type fas -snes_fas_levels 2")
    assert "mgnet.petsc.Cycle" in str(caught.value.__cause__ or caught.value)
    with pytest.raises(ValueError, match="dmshell needs a state u"):
        dmshell(Hierarchy([Level(np.sin, Jacobi())]))
    with pytest.raises(ValueError, match="DM has none; call setDM"):
        place_of(petsc.DMShell().create(petsc.COMM_SELF))


SCRIPT = """
from mgnet import gallery
from mgnet.petsc import dmshell
from petsc4py import PETSc
ksp, dm = PETSc.KSP().create(PETSc.COMM_SELF), dmshell(gallery.poisson(31))
ksp.setDM(dm)
ksp.getPC().setType("mg")
ksp.getPC().setMGLevels(3)
x = dm.createGlobalVec()
b = x.duplicate()
b.set(1.0)
ksp.solve(b, x)
view = x.array
"""


HOLDERS = {
    "the script": "",
    "a module": "import json; json.solver = ksp; del ksp",
    "a list": "held = [[ksp]]; del ksp",
    "a function": "keep = (lambda kept: lambda: kept)(ksp); del ksp",
    "a callback of its own": "ksp.setMonitor(lambda own, *_, kept=ksp: None); del ksp",
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_script_may_end_with_its_solver_alive(petsc, holder):
    script = f"{SCRIPT}\n{HOLDERS[holder]}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


BROKEN = """
class Broken:
    def apply(self, pc, x, y):
        raise KeyError("mine")
smoother = ksp.getPC().getMGSmoother(1)
smoother.getPC().setType("python")
smoother.getPC().setPythonContext(Broken())
def inside(held):
    held.solve(b, x)
inside(ksp)
"""


def test_a_script_may_end_with_an_error_in_a_callback(petsc):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + BROKEN],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "KeyError: 'mine'" in done.stderr
    assert "SEGV" not in done.stderr
