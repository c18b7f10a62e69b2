"""PyAMG builds an algebraic hierarchy; the cycles of mgnet run on it.

python demos/amg.py [folder for the pictures]
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from mgnet import GaussSeidel, Hierarchy, Solver
from mgnet.options import init, solver_from_options
from mgnet.plot import plot_convergence, plot_schedule

try:
    import pyamg
except ImportError:
    print("Skipped: this demo needs PyAMG (pip install pyamg).")
    raise SystemExit from None

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/amg")
out.mkdir(parents=True, exist_ok=True)

# Diffusion that is a hundred times stronger along a diagonal, which is hard for geometric
# coarsening.
stencil = pyamg.gallery.diffusion_stencil_2d(epsilon=0.01, theta=np.pi / 6, type="FE")
A = pyamg.gallery.stencil_grid(stencil, (150, 150), format="csr")
f = A @ np.random.default_rng(0).standard_normal(150 * 150)

amg = pyamg.ruge_stuben_solver(A)
smoothers = GaussSeidel("forward"), GaussSeidel("backward")
hierarchy = Hierarchy.from_pyamg(amg, *smoothers)
Solver(hierarchy).solve(f)  # the first use may compile kernels, which should not be timed
print("Anisotropic diffusion, 150 x 150, coarsened by PyAMG (Ruge-Stueben)\n")
print(hierarchy)
print(f"\n{'cycle':<14} {'cycles':>6} {'factor':>7} {'work units':>11} {'seconds':>8}  reason")
solutions = {}
for cycle in ("V(1,1)", "V(2,2)", "F(1,1)", "W(1,1)", "nested F(1,1)"):
    solver = solver_from_options(hierarchy, cycle=cycle, max_cycles=100)
    solutions[cycle] = s = solver.solve(f)
    name = s.reason.name
    print(f"{cycle:<14} {s.cycles:>6} {s.factor:>7.3f} {s.work:>11.1f} {s.seconds:>8.2f}  {name}")

print()
cycle = Solver(hierarchy, "V(1,1)").schedule
figures = {"cycle": plot_schedule(cycle), "convergence": plot_convergence(solutions)}
for name, ax in figures.items():
    plt.sca(ax)
    plt.savefig(out / f"{name}.png", dpi=150)
    print(f"wrote {out / name}.png")
