"""A cycle written by hand, as a list of steps and as text, and a smoother of your own.

python demos/custom_cycle.py [folder for the pictures]
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from mgnet import GaussSeidel, Schedule, Smoother, Step, gallery, parse
from mgnet.options import init, solver_from_options
from mgnet.plot import plot_convergence, plot_schedule

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/custom_cycle")
out.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class RedBlack(Smoother):
    """Gauss-Seidel, first on every second point, then on the others; each half is one product."""

    def start(self, level, u):
        diagonal = level.matrix.diagonal()
        halves = (slice(0, None, 2), slice(1, None, 2))
        return [(half, level.matrix[half], diagonal[half]) for half in halves]

    def smooth(self, level, u, f, sweeps, memory):
        u, f = u.copy(), 0.0 * u if f is None else f
        for _ in range(sweeps):
            for half, rows, diagonal in memory:
                u[half] += (f[half] - rows @ u) / diagonal
            level.charge(1.0)  # two halves cost one product
        return u, memory


# Sweeps are cheap on coarse levels, so use one on level 0, two on level 1 and four on level 2.
by_hand = Schedule(
    [
        Step("pre", 0, 1),
        Step("down", 0),
        Step("pre", 1, 2),
        Step("down", 1),
        Step("pre", 2, 4),
        Step("down", 2),
        Step("solve", 3),
        Step("up", 2),
        Step("post", 2, 4),
        Step("up", 1),
        Step("post", 1, 2),
        Step("up", 0),
        Step("post", 0, 1),
    ]
)
text = "pre, down, pre 2, down, pre 4, down, solve, up, post 4, up, post 2, up, post"
assert parse(text, levels=4) == by_hand  # the same cycle

SHAPE = (127, 127)
red_black = gallery.poisson(SHAPE, levels=4, smoother=RedBlack())
row_by_row = gallery.poisson(SHAPE, levels=4, smoother=GaussSeidel())
f = np.random.default_rng(0).standard_normal(127 * 127) / 128**2  # all frequencies
runs = {
    "V(1,1)": (red_black, parse("V(1,1)", 4)),
    "F(1,1)": (red_black, parse("F(1,1)", 4)),
    "by hand": (red_black, by_hand),
    "by hand, row by row": (row_by_row, by_hand),
}

print(f"The cycle by hand:\n{by_hand.text}\n\n{by_hand}\n")
print("Poisson, 127 x 127, 4 levels, red-black Gauss-Seidel, residual down by 1e-10\n")
print(f"{'cycle':<20} {'cycles':>6} {'factor':>7} {'work per cycle':>15} {'work units':>11}")
solutions = {}
for name, (hierarchy, schedule) in runs.items():
    solver = solver_from_options(hierarchy, cycle=schedule.text, rtol=1e-10)
    solutions[name] = s = solver.solve(f).require()
    per_cycle = solver.schedule.work(solver.hierarchy).units  # computed before anything runs
    print(f"{name:<20} {s.cycles:>6} {s.factor:>7.3f} {per_cycle:>15.2f} {s.work:>11.1f}")
print("\nBy hand needs as few cycles as F, at less work; V(1,1) is the cheapest in the end.")

print()
figures = {"cycle": plot_schedule(by_hand), "convergence": plot_convergence(solutions)}
for name, ax in figures.items():
    plt.sca(ax)
    plt.savefig(out / f"{name}.png", dpi=150)
    print(f"wrote {out / name}.png")
