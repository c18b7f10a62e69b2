"""A KAN is fitted on coarse knots first; its edge functions before and after refinement.

python demos/kan_fit.py [folder for the pictures]
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads should not spin

import math
import sys
from pathlib import Path

import torch

from mgnet.knots import KAN, knot_hierarchy
from mgnet.options import init, solver_from_options
from mgnet.plot import plot_edges
from mgnet.training import LeastSquares, LevenbergMarquardt

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/kan_fit")
out.mkdir(parents=True, exist_ok=True)

generator = torch.Generator().manual_seed(0)
x = 2.0 * torch.rand(3000, 2, generator=generator, dtype=torch.float64) - 1.0
y = torch.exp(torch.sin(2 * math.pi * x[:, :1]) + (x[:, 1:] - 0.3).abs())  # a wave and a kink
train, held_out = (x[:2000], y[:2000]), (x[2000:], y[2000:])

kan = KAN([2, 2, 1], intervals=4, generator=torch.Generator().manual_seed(2))
kan(x[:1])  # loads the compiled loops, so that no time below includes it
hierarchy = knot_hierarchy(kan, LeastSquares(kan, train), 5, LevenbergMarquardt())
print("exp(sin(2 pi x) + |y - 0.3|), 2000 training points, 1000 held out\n")
print(f"{hierarchy}\n")
print(f"{'intervals':>9} {'steps':>6} {'training RMSE':>14} {'held-out RMSE':>14} {'seconds':>8}")
networks = []


def tell(step, told):
    if step.action in ("solve", "post"):
        network = hierarchy.network(step.level, told.state)
        networks.append(network)
        with torch.no_grad():
            errors = [(network(x) - y).square().mean().sqrt() for x, y in (train, held_out)]
        print(f"{network.intervals[0]:>9} {step.count:>6} {errors[0]:>14.1e} ", end="")
        print(f"{errors[1]:>14.1e} {told.seconds:>8.2f}")


cycle = "cascade 20"  # steps on every level
solver = solver_from_options(hierarchy, cycle=cycle, max_cycles=1, record=tell)
solver.solve(u=hierarchy[0].operator.start())
print(
    "\nRefinement loses nothing: every level starts with the error at which the last one ended.\n"
)
for name, network in (("before", networks[0]), ("after", networks[-1])):
    plot_edges(network, train[0]).savefig(out / f"{name}.png", dpi=100)
    print(f"wrote {out / name}.png")
