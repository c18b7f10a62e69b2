"""A stiff oscillator on a time grid that is refined where the errors arise.

python demos/adaptive_time.py [folder for the picture]
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.integrate import solve_ivp

from mgnet.depth import adaptive, van_der_pol
from mgnet.options import init

MU, FIRST = 1000.0, 64
arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/adaptive_time")
out.mkdir(parents=True, exist_ok=True)

problem = van_der_pol(MU, FIRST, final_time=2.0 * MU)
print("x'' = 1000 (1 - x^2) x' - x, t = 0 .. 2000, ROS2, 64 steps to begin with, rtol = 1e-3\n")
solution = adaptive(problem, rtol=1e-3, atol=1e-4, order=2, levels=3).require()
print(solution)

exact = solve_ivp(
    lambda t, u: [u[1], MU * (1.0 - u[0] ** 2) * u[1] - u[0]],
    (0.0, 2.0 * MU),
    [2.0, 0.0],
    "Radau",
    problem.times,
    rtol=1e-12,
    atol=1e-12,
    jac=lambda t, u: [[0.0, 1.0], [-2.0 * MU * u[0] * u[1] - 1.0, MU * (1.0 - u[0] ** 2)]],
)
steps = len(solution.problem.steps)
at = [np.argmin(abs(solution.times - t)) for t in problem.times]
rows = [("adaptive", steps, abs(solution.states[at, 0] - exact.y[0]).max())]
for times in (3, 100):
    factor = -(-times * steps // FIRST)
    u = van_der_pol(MU, FIRST * factor, 2.0 * MU).serial()[::factor, 0]
    rows.append((f"{times} times as many, uniform", FIRST * factor, abs(u - exact.y[0]).max()))
print(f"\n{'grid':<28} {'steps':>7}  largest error of x at the 65 points of the first grid")
for name, count, error in rows:
    print(f"{name:<28} {count:>7}  {error:.1e}")

figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(7, 5), layout="constrained")
top.plot(solution.times, solution.states[:, 0], color="#0072B2", linewidth=1.0)
top.plot(problem.times, exact.y[0], ".", color="#000000", markersize=4)
top.set(ylabel="x", title=f"Van der Pol, mu = 1000: {steps} steps")
bottom.semilogy(
    solution.times[:-1], solution.problem.steps, drawstyle="steps-post", color="#E69F00"
)
bottom.set(xlabel="t", ylabel="dt")
figure.savefig(out / "grid.png", dpi=150)
print(f"\nwrote {out / 'grid.png'}")
