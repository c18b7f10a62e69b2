"""Solvers inside solvers: least squares in a cascade of knots, MGRIT in MG/OPT over the depth.

python demos/solver_composition.py [folder for the picture]
"""

import math
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from cycler import cycler
from torch.nn.functional import cross_entropy

from mgnet import gallery, run
from mgnet.depth import CyclesToTolerance, LayerParallel, ODENet, depth_hierarchy
from mgnet.knots import KAN, knot_hierarchy
from mgnet.options import init, solver_from_options
from mgnet.training import LBFGS, AdaptiveBasis, LeastSquares, LevenbergMarquardt, Objective, Record

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/solver_composition")
out.mkdir(parents=True, exist_ok=True)
torch.set_default_dtype(torch.float64)
plt.rc("axes", prop_cycle=cycler(color=("#0072B2", "#D55E00", "#009E73", "#000000")))
figure, axes = plt.subplots(1, 2, figsize=(11, 3.75), layout="constrained")


def begin(panel, title, unit, quantity):
    print(f"{title:<60} {unit:>10} {quantity:>20}")
    axes[panel].set(title=title, xlabel=unit, ylabel=quantity)
    axes[panel].xaxis.get_major_locator().set_params(integer=True)


def show(panel, name, steps, values, line="-"):
    print(f"  {name:<58} {steps[-1]:>10.0f} {values[-1]:>20.2e}")
    axes[panel].semilogy(steps, values, line, marker=".", label=name)
    axes[panel].legend(frameon=False, fontsize="small")


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
    return ODENet(block, layers, 3.0, learnable_steps=True, before=before, after=after)


def serial(net):
    return cross_entropy(net(x), y)


def mgrit(net):
    return serial(LayerParallel(net, levels=2, coarsening=4, control=CyclesToTolerance(1e-6)))


begin(1, "MGRIT over the layers in MG/OPT over the depth", "gradients", "loss")
x, y = (torch.from_numpy(part) for part in gallery.peaks(300))  # points in the plane, 5 classes
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

axes[1].set_yscale("linear")
figure.savefig(out / "composition.png", dpi=120)
print(f"\nwrote {out / 'composition.png'}")
