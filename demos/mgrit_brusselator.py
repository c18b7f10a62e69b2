"""A limit cycle, parallel in time: MGRIT on the Brusselator, for users of PyMGRIT.

python demos/mgrit_brusselator.py [folder for the picture]
"""

import sys
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import solve_ivp

from mgnet.depth import OneStep
from mgnet.options import init, solver_from_options
from mgnet.plot import plot_convergence

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/mgrit_brusselator")
out.mkdir(parents=True, exist_ok=True)


def slope(u):
    x, y = u.T
    return np.stack([1 + x**2 * y - 4 * x, 3 * x - x**2 * y], axis=-1)


def rk4(t, dt, u):  # many steps at once: dt of shape (k,), u of shape (k, 2)
    dt, k1 = dt[:, None], slope(u)
    k2 = slope(u + dt / 2 * k1)
    k3 = slope(u + dt / 2 * k2)
    return u + dt / 6 * (k1 + 2 * k2 + 2 * k3 + slope(u + dt * k3))


problem = OneStep(rk4, initial=np.array([0.0, 1.0]), steps=np.full(640, 12 / 640))
serial, times = problem.serial(), problem.times
exact = solve_ivp(
    lambda t, u: slope(u), (0, 12), serial[0], "DOP853", times, rtol=1e-12, atol=1e-12
)
print("x' = 1 + x^2 y - 4 x, y' = 3 x - x^2 y, 640 steps of RK4, all steps at once\n")
print(problem.hierarchy(3, (4, 5), relaxation=("FCF",)), "\n")
print(f"Error of the 640 steps: {abs(serial - exact.y.T).max():.1e}\n")
print(f"{'factors  cycle          relaxation':<34} {'cycles':>6} {'steps taken':>12}", end="  ")
print("distance from the serial orbit, cycle by cycle")
runs = [("20", "V(1,1)", "F"), ("20", "V(1,1)", "FCF"), ("4, 5", "V(1,1)", "F")]
runs += [("4, 5", "V(1,1)", "FCF"), ("4, 5", "F(1,1)", "F"), ("4, 5", "F(1,1)", "FCF")]
solutions, iterates = {}, {}
for factors, cycle, relaxation in [*runs, ("4, 5", "nested F(1,1)", "FCF")]:
    coarsening = [int(factor) for factor in factors.split(",")]
    hierarchy = problem.hierarchy(len(coarsening) + 1, coarsening, (relaxation,))
    states: list[np.ndarray] = []  # before the first cycle and after each
    monitor = partial(lambda kept, entry, state: kept.append(state), states)
    solver = solver_from_options(hierarchy, cycle=cycle, rtol=1e-9, monitor=monitor)
    s = solver.solve(u=problem.guess()).require()
    name = f"{cycle} by {factors}, {relaxation}"
    solutions[name], iterates[name] = s, states
    distances = " ".join(f"{abs(u - serial).max():.0e}" for u in states[1:])
    row = f"{factors:<8} {cycle:<14} {relaxation:<10} {s.cycles:>6} {s.work:>10.1f} N"
    print(f"{row}  {distances}")
print("\nSteps taken: by all ranks together; N is what the serial solution takes on one rank.")

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
left.plot(*serial.T, color="0.8", linewidth=6, label="serial")
name, states = next(iter(iterates.items()))
for cycle, color in zip((1, 3, 5), ("#E69F00", "#0072B2", "#000000"), strict=True):
    left.plot(*states[cycle].T, color=color, linewidth=1.2, label=f"after cycle {cycle}")
left.set(xlabel="x (concentration)", ylabel="y (concentration)", title=name)
left.legend(frameon=False)
plot_convergence(solutions, right, over="cycles").legend().remove()
figure.legend(*right.get_legend_handles_labels(), loc="outside right center", frameon=False)
figure.savefig(out / "orbit.png", dpi=150)
print(f"\nwrote {out / 'orbit.png'}")
