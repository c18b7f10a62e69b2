"""Refinement of knots pays only in the spline geometry: a KAN solves Poisson's equation.

python demos/basis_preconditioning.py [folder for the pictures]
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from mgnet.knots import KAN, GradientDescent, knot_hierarchy
from mgnet.options import init, solver_from_options
from mgnet.training import Objective

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/basis_preconditioning")
out.mkdir(parents=True, exist_ok=True)

SIDE, BLOCKS = 25, 32  # points per direction; blocks of 5 sweeps in every run
line = torch.linspace(-1, 1, SIDE, dtype=torch.float64)
x = torch.cartesian_prod(line, line)
solution = torch.sin(torch.pi * x[:, :1]) * torch.sin(2 * torch.pi * x[:, 1:])


def energy(u, target):
    """The energy of Poisson's equation minus its minimum: the squared slopes of the error."""
    e, h = (u - target).reshape(SIDE, SIDE), 2 / (SIDE - 1)
    ends = torch.cat([e[0], e[-1], e[:, 0], e[:, -1]])
    slopes = sum((e.diff(dim=k) / h).square().mean() for k in (0, 1))
    return slopes + 10 * ends.square().mean()  # a penalty fixes the ends


runs = {"4 intervals": (4, 1), "32 intervals": (32, 1), "4 to 32 by levels": (4, 4)}
fig, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
print(f"Poisson, KAN [2, 5, 1], cubic, {5 * BLOCKS} sweeps of gradient descent in every run\n")
print(f"{'geometry':<9} {'knots':<18} {'evaluations':>11} {'energy':>8} {'error':>6}")
for ax, geometry in zip(axes, ("spline", "relu"), strict=True):
    for name, (intervals, levels) in runs.items():
        kan = KAN([2, 5, 1], intervals)  # starts as the same function for any number of intervals
        problem = Objective(kan, energy, (x, solution))
        hierarchy = knot_hierarchy(kan, problem, levels, GradientDescent(geometry))
        sweeps = [", ".join(BLOCKS // levels * [f"{kind} 5"]) for kind in ["solve"] + 3 * ["post"]]
        cycle = "start, " + ", interpolate, ".join(sweeps[:levels])
        fine, seen = hierarchy[0].operator, []
        tell = lambda *told, seen=seen: seen.append(told)  # noqa: E731
        solver = solver_from_options(hierarchy, cycle=cycle, max_cycles=1, record=tell)
        u = solver.solve(u=fine.start()).value
        work = torch.tensor([data.work for _, data in seen]).cumsum(0)
        values = [data.level.operator.value(data.state) for _, data in seen]
        error = float((fine.outputs(u) - solution).norm() / solution.norm())
        print(f"{geometry:<9} {name:<18} {work[-1]:>11.0f} {values[-1]:>8.4f} {error:>6.3f}")
        ax.semilogy(work, values, label=name)
    ax.set(title=f"{geometry} geometry", xlabel="evaluations", ylabel="energy above the minimum")
axes[0].legend()
print("\nIn the spline geometry every new level pays at once, in the ReLU geometry none does.\n")
fig.savefig(out / "convergence.png", dpi=150)
print(f"wrote {out / 'convergence.png'}")
