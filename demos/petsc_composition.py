"""PETSc inside mgnet's cycles, and mgnet's levels inside PETSc's solvers.

python demos/petsc_composition.py [folder for the picture]
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler

from mgnet import GaussSeidel, gallery
from mgnet.options import init, solver_from_options
from mgnet.petsc import KSPSmoother, dmshell

if not find_spec("petsc4py"):
    print("Skipped: this demo needs petsc4py (python tools/setup_petsc.py).")
    raise SystemExit

FAS = (
    "-{0}snes_type fas -{0}snes_fas_levels 6 -{0}fas_levels_snes_type python "
    "-{0}fas_levels_snes_python_type mgnet.petsc.Sweeps "
)
OPTIONS = FAS.format("plain_") + "-ngmres_snes_type ngmres " + FAS.format("ngmres_npc_")
OPTIONS += "-coarse_ksp_type cg -coarse_pc_type icc -coarse_ksp_rtol 0.1"
arguments = init(sys.argv, OPTIONS)  # the command line overrides these
from petsc4py import PETSc  # noqa: E402  (after init)

out = Path(arguments[1] if len(arguments) > 1 else "out/petsc_composition")
out.mkdir(parents=True, exist_ok=True)
plt.rc("axes", prop_cycle=cycler(color=("#0072B2", "#D55E00")))
figure, axes = plt.subplots(1, 2, figsize=(11, 3.75), layout="constrained")


def begin(ax, title, unit):
    print(f"{title:<60} {unit:>10} {'residual, relative':>20}")
    ax.set(title=title, xlabel=unit, ylabel="residual, relative")
    ax.xaxis.get_major_locator().set_params(integer=True)


def show(ax, name, norms):
    print(f"  {name:<58} {len(norms) - 1:>10} {norms[-1] / norms[0]:>20.2e}")
    ax.semilogy(np.array(norms) / norms[0], marker=".", label=name)
    ax.legend(frameon=False, fontsize="small")


begin(axes[0], "A KSP of PETSc as coarse solver of a V-cycle", "cycles")
f = np.random.default_rng(0).standard_normal(255 * 255) / 256**2  # all frequencies
for name, cycle, coarse in (
    ("Gauss-Seidel on 63 x 63, 10 sweeps", "V(1,1,10)", GaussSeidel()),
    ("cg with icc on 63 x 63, to a tenth of the residual", "V(1,1)", KSPSmoother("coarse_")),
):
    hierarchy = gallery.poisson((255, 255), 3, GaussSeidel(), GaussSeidel("backward"), coarse)
    solver = solver_from_options(hierarchy, prefix="poisson_", cycle=cycle, max_cycles=20)
    show(axes[0], name, solver.solve(f).residual_norms)

begin(axes[1], "Nonlinear GMRES over FAS", "iterations")
for prefix, name in (("plain_", "FAS, 6 levels"), ("ngmres_", "NGMRES over it")):
    snes, norms = PETSc.SNES().create(PETSc.COMM_SELF), []
    snes.setDM(dmshell(gallery.reaction((63, 63), strength=1000.0)))
    snes.setOptionsPrefix(prefix)
    snes.setMonitor(lambda snes, iteration, norm, norms=norms: norms.append(norm))
    snes.setFromOptions()
    u, b = snes.getDM().createGlobalVec(), snes.getDM().createGlobalVec()
    b.set(200.0 / 64**2)
    snes.solve(b, u)
    show(axes[1], name, norms)

figure.savefig(out / "composition.png", dpi=120)
print(f"\nwrote {out / 'composition.png'}")
