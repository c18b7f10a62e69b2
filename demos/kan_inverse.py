"""An inverse problem: the viscosity of Burgers' equation from noisy samples of its solution.

python demos/kan_inverse.py [folder for the picture] [share of the steps]
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from mgnet import run
from mgnet.knots import KAN, knot_hierarchy
from mgnet.options import init, solver_from_options
from mgnet.training import Ansatz, Collocation, LevenbergMarquardt, Term

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/kan_inverse")
share = float(arguments[2]) if len(arguments) > 2 else 1.0
out.mkdir(parents=True, exist_ok=True)
NU, SAMPLES, WEIGHT = 0.1, 300, 100.0  # the true viscosity, which the fit does not use


def burgers(x, t):
    """u_t + u u_x = nu u_xx, u(x, 0) = -sin(pi x): Cole and Hopf's exact solution."""
    z, weight = np.polynomial.hermite.hermgauss(100)
    past = x[:, None] - np.sqrt(4 * NU * t)[:, None] * z
    weight = weight * np.exp(-(1 + np.cos(np.pi * past)) / (2 * np.pi * NU))
    return torch.from_numpy(-(np.sin(np.pi * past) * weight).sum(1) / weight.sum(1)).unsqueeze(1)


generator = torch.Generator().manual_seed(0)
points = torch.rand(1500, 2, generator=generator, dtype=torch.float64)
points[:, 0] = 2.0 * points[:, 0] - 1.0
where, noise = points[:SAMPLES], torch.randn(SAMPLES, 1, generator=generator, dtype=torch.float64)
exact = burgers(*where.T.numpy())
law = Term(lambda u: u.d(1) + u.value * u.d(0) - u.coefficients["nu"] * u.d(0, 0), points)
print(f"Viscosity of Burgers' equation from {SAMPLES} noisy samples of u; true {NU}, start 0.3\n")
print(f"{'noise':>5} {'viscosity':>10} {'error':>9} {'standard error':>15} {'error of u':>11}")
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for shift, (level, color) in enumerate([(0.01, "#0072B2"), (0.03, "#D55E00"), (0.1, "#009E73")]):
    samples = exact + level * noise
    measured = Term(lambda u, samples=samples: u.value - samples, where, weight=WEIGHT)
    network = Ansatz(KAN([2, 4, 4, 1], 3, 4, linear=True), coefficients={"nu": 0.3})
    problem = Collocation(network, [measured, law])
    hierarchy, course = knot_hierarchy(network, problem, 2, LevenbergMarquardt()), []
    steps = [max(1, round(share * steps)) for steps in (20, 10)]
    solver = solver_from_options(hierarchy, cycle="cascade {},{}".format(*steps))
    start = hierarchy[0].operator.start()
    tell = lambda step, told, course=course: course.append(float(told.state[-1]))  # noqa: E731
    u, _ = run(solver.schedule.split(), solver.hierarchy, start, None, record=tell)
    found = hierarchy.network(0, u)
    nu = found.coefficients["nu"].item()
    deviation = hierarchy[0].operator.standard_errors(u, [level, None])["nu"]
    error = float((found(where) - exact).detach().norm() / exact.norm())
    print(f"{level:>5.0%} {nu:>10.4f} {nu - NU:>9.4f} {deviation:>15.4f} {error:>11.1%}")
    right.plot(course, color=color, label=f"noise {level:.0%}")
    right.errorbar(len(course) + shift, nu, 2 * deviation, color=color, marker=".", capsize=4)

line = torch.linspace(-1, 1, 101, dtype=torch.float64)
grid = torch.cartesian_prod(line, line[50:])
colors = {"vmin": -1, "vmax": 1, "cmap": "viridis"}
image = left.pcolormesh(
    line[50:], line, found(grid).detach().reshape(101, 51), shading="gouraud", **colors
)
left.scatter(*where.flip(1).T, c=samples, s=30, edgecolors="white", linewidths=0.4, **colors)
left.set(xlabel="time t", ylabel="place x", title="u found, and the samples (dots) with 10% noise")
figure.colorbar(image)
right.axhline(NU, color="0.5", linestyle="--", label="true")
right.set(xlabel="steps of Levenberg-Marquardt", ylabel="viscosity (bars: 2 standard errors)")
right.legend(frameon=False)
figure.savefig(out / "viscosity.png", dpi=120)
print(f"\nwrote {out / 'viscosity.png'}")
