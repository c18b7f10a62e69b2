"""Solvers inside solvers: four compositions, each beside its plain form.

python demos/solver_composition.py [folder for the picture]    # the last two need petsc4py
"""

import math
import sys
from importlib.util import find_spec
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from torch.nn.functional import cross_entropy

from mgnet import GaussSeidel, gallery, run
from mgnet.depth import LayerParallel, ODENet, Tolerance, depth_hierarchy
from mgnet.knots import KAN, knot_hierarchy
from mgnet.petsc import init, solver_from_options
from mgnet.training import LBFGS, AdaptiveBasis, LeastSquares, LevenbergMarquardt, Objective, Record

FAS = (
    "-{0}snes_type fas -{0}snes_fas_levels 6 -{0}fas_levels_snes_type python "
    "-{0}fas_levels_snes_python_type mgnet.petsc.Sweeps "
)
OPTIONS = FAS.format("plain_") + "-ngmres_snes_type ngmres " + FAS.format("ngmres_npc_")
OPTIONS += "-coarse_ksp_type cg -coarse_pc_type icc -coarse_ksp_rtol 0.1"
petsc = find_spec("petsc4py") is not None
arguments = init(sys.argv, OPTIONS if petsc else "")  # the command line beats these
out = Path(arguments[1] if len(arguments) > 1 else "out/solver_composition")
out.mkdir(parents=True, exist_ok=True)
torch.set_default_dtype(torch.float64)
plt.rc("axes", prop_cycle=cycler(color=("#0072B2", "#D55E00", "#009E73", "#000000")))
rows = 2 if petsc else 1
figure, axes = plt.subplots(rows, 2, figsize=(11, 3.75 * rows), layout="constrained")


def begin(panel, title, unit, quantity):
    print(f"{title:<60} {unit:>10} {quantity:>20}")
    axes.flat[panel].set(title=title, xlabel=unit, ylabel=quantity)
    axes.flat[panel].xaxis.get_major_locator().set_params(integer=True)


def show(panel, name, steps, values, line="-"):
    print(f"  {name:<58} {steps[-1]:>10.0f} {values[-1]:>20.2e}")
    axes.flat[panel].semilogy(steps, values, line, marker=".", label=name)
    axes.flat[panel].legend(frameon=False, fontsize="small")


begin(0, "Least squares in Levenberg-Marquardt in a cascade of knots", "sweeps", "loss")
x = 2.0 * torch.rand(800, 2, generator=torch.Generator().manual_seed(0)) - 1.0
data = x, torch.exp(torch.sin(math.pi * x[:, :1]) + x[:, 1:] ** 2)
LM = LevenbergMarquardt()
for name, smoother, intervals, cycle in (
    ("Levenberg-Marquardt, 16 intervals", LM, [16], "cascade 15"),
    ("in a cascade from 4 to 16 intervals", LM, [4, 8, 16], "cascade 5,5,5"),
    ("the last layer by least squares", AdaptiveBasis(LM), [16], "cascade 15"),
    ("both", AdaptiveBasis(LM), [4, 8, 16], "cascade 5,5,5"),
):
    kan, record = KAN([2, 4, 4, 1], intervals[0]), Record()
    hierarchy = knot_hierarchy(kan, LeastSquares(kan, data), len(intervals), smoother)
    solver = solver_from_options(hierarchy, prefix="knots_", cycle=cycle)
    start = hierarchy[0].operator.start()
    run(solver.schedule.split(), solver.hierarchy, start, None, record=record)
    losses = [row.loss for row in record.rows if row.action in ("solve", "post")]
    show(0, name, range(1, len(losses) + 1), losses)


def network(layers):
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh())
    before, after = torch.nn.Linear(2, 8), torch.nn.Linear(8, 5)
    return ODENet(block, layers, 3.0, gates=True, before=before, after=after)


def serial(net):
    return cross_entropy(net(x), y)


def mgrit(net):
    return serial(LayerParallel(net, levels=2, coarsening=4, control=Tolerance(1e-6)))


begin(1, "MGRIT over the layers in MG/OPT over the depth", "gradients", "loss")
x, y = (torch.from_numpy(part) for part in gallery.peaks(300))  # points of the plane, 5 classes
for name, loss, layers, cycle in (
    ("L-BFGS, 32 layers", serial, [32], "V(0,0,10)"),
    ("L-BFGS in MG/OPT, 16 and 32 layers", serial, [16, 32], "V(2,2,4)"),
    ("the same, layers by MGRIT", mgrit, [16, 32], "V(2,2,4)"),
):
    net, record = network(layers[0]), Record()
    problem = Objective.from_torch(net, loss)
    hierarchy = depth_hierarchy(net, problem, len(layers), LBFGS(), form="injected")
    settings = {"prefix": "depth_", "max_cycles": 6, "record": record}
    solver_from_options(hierarchy, cycle=cycle, **settings).solve(u=hierarchy[0].operator.start())
    fine = [row for row in record.rows if row.level == 0 and row.action != "down"]
    line = ":" if loss is mgrit else "-"
    show(1, name, [row.work for row in fine], [row.loss for row in fine], line)


def with_petsc():
    from petsc4py import PETSc

    from mgnet.petsc import KSPSmoother, dmshell

    begin(2, "A KSP of PETSc as coarse solver of a V-cycle", "cycles", "residual, relative")
    f = np.random.default_rng(0).standard_normal(255 * 255) / 256**2  # every frequency
    for name, cycle, coarse in (
        ("Gauss-Seidel on 63 x 63, 10 sweeps", "V(1,1,10)", GaussSeidel()),
        ("cg with icc on 63 x 63, to a tenth of the residual", "V(1,1)", KSPSmoother("coarse_")),
    ):
        hierarchy = gallery.poisson((255, 255), 3, GaussSeidel(), GaussSeidel("backward"), coarse)
        solver = solver_from_options(hierarchy, prefix="poisson_", cycle=cycle, max_cycles=20)
        norms = np.array(solver.solve(f).residual_norms)
        show(2, name, range(len(norms)), norms / norms[0])

    begin(3, "Nonlinear GMRES over FAS", "iterations", "residual, relative")
    for prefix, name in (("plain_", "FAS, 6 levels"), ("ngmres_", "NGMRES over it")):
        snes, norms = PETSc.SNES().create(PETSc.COMM_SELF), []
        snes.setDM(dmshell(gallery.reaction((63, 63), strength=1000.0)))
        snes.setOptionsPrefix(prefix)
        snes.setMonitor(lambda snes, iteration, norm, norms=norms: norms.append(norm))
        snes.setFromOptions()
        u, b = snes.getDM().createGlobalVec(), snes.getDM().createGlobalVec()
        b.set(200.0 / 64**2)
        snes.solve(b, u)
        show(3, name, range(len(norms)), np.array(norms) / norms[0])


if petsc:
    with_petsc()
else:
    print("The other two compositions need petsc4py (python tools/setup_petsc.py).")
figure.savefig(out / "composition.png", dpi=120)
print(f"\nwrote {out / 'composition.png'}")
