"""The Poisson equation on the unit square: multigrid cycles compared.

python demos/poisson.py [folder for the pictures]
"""

import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse.linalg as spla

from mgnet import GaussSeidel, Solver, gallery, parse
from mgnet.options import init, solver_from_options
from mgnet.plot import plot_convergence, plot_schedule

SHAPE = (255, 255)
arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/poisson")
out.mkdir(parents=True, exist_ok=True)

hierarchy = gallery.poisson(SHAPE, smoother=GaussSeidel(), post_smoother=GaussSeidel("backward"))
A, (exact, f) = hierarchy[0].matrix, gallery.sine(SHAPE)
discrete = spla.spsolve(A.tocsc(), f)  # the limit of every method below
discretisation_error = abs(discrete - exact).max()
Solver(hierarchy).solve(f)  # the first use may compile kernels, which should not be timed

print("-Laplacian u = 2 pi^2 sin(pi x) sin(pi y), u = 0 on the boundary\n")
print(hierarchy)
print("\nThe cycle 'F(1,1)': o sweeps, # coarse solve\n")
print(parse("F(1,1)", 4))
print("\n(drawn for 4 levels)")
print(
    f"\nDiscretisation error {discretisation_error:.2e}: further than that no cycle needs to go.\n"
)
error = "algebraic / discretisation error"
print(f"{'method':<21} {'cycles':>6} {'work units':>10} {'seconds':>8}  {error}")


def show(name: str, cycles: int, work: float, seconds: float, u: np.ndarray) -> None:
    ratio = abs(u - discrete).max() / discretisation_error
    print(f"{name:<21} {cycles:>6} {work:>10.1f} {seconds:>8.2f}  {ratio:.1e}")


solutions = {}
for cycle in ("V(1,1)", "F(1,1)", "W(1,1)", "nested F(1,1)"):
    solutions[cycle] = s = solver_from_options(hierarchy, cycle=cycle).solve(f).require()
    show(cycle, s.cycles, s.work, s.seconds, s.value)

V = Solver(hierarchy, "V(1,1)")
iterates, began = [np.zeros_like(f)], time.perf_counter()
u, _ = spla.cg(
    A, f, M=V.as_preconditioner(), rtol=1e-8, callback=lambda u: iterates.append(u.copy())
)
seconds, per_iteration = time.perf_counter() - began, 1.0 + V.schedule.work(hierarchy).units
show("CG with a V(1,1)", len(iterates) - 1, per_iteration * (len(iterates) - 1), seconds, u)

once = Solver(hierarchy, "nested F(1,1)", max_cycles=1).solve(f)
show("nested F(1,1), once", once.cycles, once.work, once.seconds, once.value)
print("\nThe last row is all that the equation asks for; the others reduce the residual by 1e-8.")

ax = plot_convergence(solutions)
norms = [np.linalg.norm(f - A @ u) / np.linalg.norm(f) for u in iterates]
work = per_iteration * np.arange(len(norms))
ax.semilogy(work, norms, "--", color="black", marker="v", markersize=5, label="CG with a V(1,1)")
ax.legend(frameon=False)
ax.set_title("Poisson, 255 x 255, Gauss-Seidel", fontsize=11)

figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
fields = {"solution": once.value, "discretisation error": abs(discrete - exact)}
fields["algebraic error, nested F(1,1) once"] = abs(once.value - discrete)
for panel, (title, field) in zip(axes, fields.items(), strict=True):
    image = panel.imshow(field.reshape(SHAPE), origin="lower", extent=(0, 1, 0, 1), cmap="viridis")
    panel.set_title(title, fontsize=10)
    panel.set(xlabel="x", ylabel="y", xticks=[0, 1], yticks=[0, 1])
    figure.colorbar(image, ax=panel, shrink=0.9)

figures = {"solution": figure, "convergence": ax.figure}
figures["cycle"] = plot_schedule(parse("nested F(1,1)", 4)).figure
print()
for name, figure in figures.items():
    figure.savefig(out / f"{name}.png", dpi=150)
    print(f"wrote {out / name}.png")
