"""An ODE net trains with 4, 8, 16, 32 layers; with learnable steps refinement changes nothing.

python demos/depth_refinement.py [folder for the pictures] [work, in gradients of 32 layers]
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from mgnet import gallery, run
from mgnet.depth.hierarchy import depth_hierarchy
from mgnet.depth.network.ode_net import ODENet
from mgnet.options import init, solver_from_options
from mgnet.training import Objective, Record, TorchOptimizer

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/depth_refinement")
work = float(arguments[2]) if len(arguments) > 2 else 200.0
out.mkdir(parents=True, exist_ok=True)

x, y = map(torch.from_numpy, gallery.peaks(400))  # points in the plane in 5 classes
held_out = tuple(map(torch.from_numpy, gallery.peaks(2000, 5, np.random.default_rng(1))))


def network(layers, learnable):
    torch.manual_seed(0)
    block = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh())
    before = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh())
    after = torch.nn.Linear(8, 5)
    return ODENet(
        block, layers, 5.0, learnable_steps=learnable, before=before, after=after
    ).double()


adam = TorchOptimizer(torch.optim.Adam, {"lr": 1e-2})
runs = {"4 to 32 layers, learnable steps": (4, True), "4 to 32 layers, copies": (4, False)}
runs |= {"32 layers, learnable steps": (32, True), "32 layers": (32, False)}
print(f"peaks, 5 classes, width 8, Adam, work of {work:g} gradients of 32 layers each\n")
print(f"{'network':<23} {'jumps at refinements':>21} {'loss':>8} {'held-out accuracy':>18}")
ax = plt.figure(figsize=(7, 4), layout="constrained").subplots()
for name, (layers, learnable) in runs.items():
    net, levels = network(layers, learnable), 4 if layers == 4 else 1
    problem = Objective(net, torch.nn.functional.cross_entropy, (x, y))
    hierarchy = depth_hierarchy(net, problem, levels, adam)
    counts = [str(round(work / levels * 2 ** (levels - 1 - n))) for n in range(levels)]
    solver = solver_from_options(hierarchy, cycle="cascade " + ",".join(counts))
    start, record = hierarchy[0].operator.start(), Record()
    u, _ = run(solver.schedule.split(), solver.hierarchy, start, None, record=record)
    table = record.table()
    seams = np.flatnonzero(table["action"] == "interpolate")
    jumps = ", ".join(f"{table['loss'][k] - table['loss'][k - 1]:.1g}" for k in seams) or "-"
    outputs = hierarchy.network(0, u)(held_out[0])
    accuracy = (outputs.argmax(1) == held_out[1]).double().mean()
    print(f"{name:<23} {jumps:>21} {table['loss'][-1]:>8.1e} {accuracy:>18.3f}")
    ax.semilogy(table["work"], table["loss"], "-" if levels > 1 else ":", label=name)
ax.set(xlabel="work (gradients of 32 layers)", ylabel="training loss")
plt.legend()
plt.savefig(out / "loss.png", dpi=150)
print(f"\nwrote {out / 'loss.png'}")
