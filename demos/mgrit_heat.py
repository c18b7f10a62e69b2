"""The heat equation, parallel in time: MGRIT with two levels, and with V- and F-cycles.

python demos/mgrit_heat.py [folder for the pictures]
"""

import sys
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from mgnet.depth import heat, plan
from mgnet.options import init, solver_from_options

POINTS, STEPS, RANKS, FCF = 127, 1024, 16, ("FCF",)
arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/mgrit_heat")
out.mkdir(parents=True, exist_ok=True)

problem = heat(POINTS, STEPS, final_time=0.5)  # a decaying hat function, backward Euler
serial = problem.serial()
finer = heat(POINTS, 8 * STEPS, final_time=0.5).serial()[::8]
discretisation_error = abs(serial - finer).max()
runs = {  # name: levels, factor, cycle
    "2 levels, factor 64": (2, 64, "V"),
    "2 levels, factor 16": (2, 16, "V"),
    "4 levels, V": (4, 4, "V"),
    "4 levels, F": (4, 4, "F"),
}

print(f"u_t = u_xx, {POINTS} points, {STEPS} steps of backward Euler, all steps at once\n")
print(problem.hierarchy(4, relaxation=FCF), "\n")
print(f"Error of {STEPS} steps against {8 * STEPS}: {discretisation_error:.1e}\n")
head = f"{'method':<22} {'cycles':>6} {'factor':>7} {'steps taken':>12}"
print(f"{head} {'error':>9}  speedup on {RANKS} ranks")
figure, ax = plt.subplots(figsize=(5.5, 4), layout="constrained")
for name, (levels, factor, cycle) in runs.items():
    hierarchy = problem.hierarchy(levels, factor, FCF)
    states: list[np.ndarray] = []  # before the first cycle and after each
    monitor = partial(lambda kept, entry, state: kept.append(state), states)
    cycle_text = f"{cycle}(1,1)"
    solver = solver_from_options(hierarchy, cycle=cycle_text, rtol=1e-10, monitor=monitor)
    s = solver.solve(u=problem.guess()).require()
    errors = [abs(u - serial).max() for u in states]
    enough = next(k for k, error in enumerate(errors) if error < discretisation_error)
    ranks = plan(STEPS, RANKS, factor, cycle, levels=levels, relaxation=FCF, cycles=(enough,))
    row = f"{name:<22} {s.cycles:>6} {s.factor:>7.3f} {s.work:>9.1f} N {errors[-1]:>9.1e}"
    print(f"{row}  {ranks.speedup:.1f} ({enough} cycles)")
    relative = np.array(s.residual_norms) / s.residual_norms[0]
    ax.semilogy(relative, marker="o", markersize=4, label=name)
ax.set(xlabel="cycle", ylabel="residual norm, relative", title=f"Heat equation, {STEPS} time steps")
ax.legend(frameon=False)
print("\nSteps taken: by all ranks together; N is what the serial solution takes on one rank.")
print("Speedup: for the cycles that reach the error of the time steps; see mgnet.depth.plan.")

figure.savefig(out / "convergence.png", dpi=150)
print(f"\nwrote {out / 'convergence.png'}")
