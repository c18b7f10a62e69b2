"""A shock forms: Burgers' equation with a KAN from coarse to fine knots, and the exact solution.

python demos/kan_pinn.py [folder for the picture] [share of the steps]
"""

import math
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from mgnet.knots import KAN, knot_hierarchy
from mgnet.options import init, solver_from_options
from mgnet.training import Ansatz, Collocation, LevenbergMarquardt, Term

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/kan_pinn")
share = float(arguments[2]) if len(arguments) > 2 else 1.0
out.mkdir(parents=True, exist_ok=True)
nu = 0.02
# u_t + u u_x = nu u_xx; u(x, 0) = -sin(pi x) and u = 0 at the ends x = -1 and 1 are built in.
within = lambda x, y: x[:, 1:] * (1 - x[:, :1] ** 2) * y - torch.sin(math.pi * x[:, :1])  # noqa: E731
network = Ansatz(KAN([2, 8, 8, 1], intervals=3, degree=5, linear=True), output=within)
points = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
points[:, 0] = 2.0 * points[:, 0] - 1.0
equation = Term(lambda u: u.d(1) + u.value * u.d(0) - nu * u.d(0, 0), points)
hierarchy = knot_hierarchy(network, Collocation(network, [equation]), 3, LevenbergMarquardt())

x, t = (part.ravel() for part in np.meshgrid(np.linspace(-1, 1, 201), np.linspace(0, 1, 101)))
z, weight = np.polynomial.hermite.hermgauss(100)
past = x[:, None] - np.sqrt(4 * nu * t)[:, None] * z  # Cole-Hopf
weight = weight * np.exp(-(1 + np.cos(np.pi * past)) / (2 * np.pi * nu))
exact = -(np.sin(np.pi * past) * weight).sum(1) / weight.sum(1)
grid = torch.from_numpy(np.stack([x, t], 1))
print(f"{'intervals':>9} {'weights':>8} {'loss':>8} {'relative error of u':>20} {'seconds':>8}")


def tell(step, told):
    global solved
    if step.action in ("solve", "post"):
        loss = hierarchy[step.level].operator.mean_square(told.state)
        solved = hierarchy.network(step.level, told.state)(grid).detach().numpy().ravel()
        error = np.linalg.norm(solved - exact) / np.linalg.norm(exact)
        row = f"{12 >> step.level:>9} {len(told.state):>8} {loss:>8.1e} {error:>20.1e}"
        print(f"{row} {told.seconds:>8.1f}")


cycle = "cascade " + ",".join(str(max(1, round(share * steps))) for steps in (25, 15, 10))
solver = solver_from_options(hierarchy, cycle=cycle, max_cycles=1, record=tell)
solver.solve(u=hierarchy[0].operator.start())
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for axis, values, title in zip(axes, (solved, solved - exact), ("u", "error of u"), strict=True):
    image = axis.pcolormesh(values.reshape(101, 201).T, shading="auto", rasterized=True)
    axis.set(title=title, xlabel="t (0 to 1)", ylabel="x (-1 to 1)", xticks=[], yticks=[])
    figure.colorbar(image)
figure.savefig(out / "solution.png", dpi=100)
print(f"wrote {out / 'solution.png'}")
