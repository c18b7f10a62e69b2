"""Knots that move: a spline finds the kink and the steep layer of a function.

python demos/free_knots.py [folder for the picture] [steps per training]
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from mgnet.knots import KAN, FreeKnotKAN
from mgnet.options import init
from mgnet.training import levenberg_marquardt

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/free_knots")
steps = int(arguments[2]) if len(arguments) > 2 else 100
out.mkdir(parents=True, exist_ok=True)
torch.set_default_dtype(torch.float64)


def target(x):
    return torch.tanh(40 * (x - 0.3)) + 2 * (x + 0.4).abs()  # a layer at 0.3, a kink at -0.4


x, held_out = (torch.linspace(-1, 1, n).unsqueeze(1) for n in (1000, 4001))
errors: dict[str, dict[int, float]] = {"even": {}, "free": {}}
networks: dict[str, torch.nn.Module] = {}
print("tanh(40 (x - 0.3)) + 2 |x + 0.4| by one cubic spline\n")
print(f"{'knots':<12} {'intervals':>9} {'parameters':>11} {'steps':>6} {'RMSE':>8}")


def fit(kind, network, most):
    solution = levenberg_marquardt(lambda network: network(x) - target(x), network, max_cycles=most)
    with torch.no_grad():
        error = float((network(held_out) - target(held_out)).square().mean().sqrt())
    intervals, size = network.intervals[0], sum(p.numel() for p in network.parameters())
    errors[kind][intervals], networks[f"{kind} {intervals}"] = error, network
    row = f"{kind:<12} {intervals:>9} {size:>11} {solution.cycles:>6}"
    print(f"{row} {error:>8.1e}")


for intervals in (8, 16, 32, 64, 128, 256):
    fit("even", KAN([1, 1], intervals), 20)
for intervals in (8, 16):
    fit("free", FreeKnotKAN([1, 1], intervals), steps)
fit("free", networks["free 16"].refine(), steps)  # type: ignore[operator]
free_16 = networks["free 16"].free_knots[0]().detach()[0]  # type: ignore[index, operator]
near = ", ".join(f"{knot:.4f}" for knot in free_16 if abs(knot + 0.4) < 0.01)
print(f"\nA kink at -0.4 takes three knots of a cubic spline; free 16 has put them at {near}.")

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
left.plot(held_out, target(held_out), color="0.8", linewidth=6, label="function")
for name, knots, color in (
    ("even 16", torch.linspace(-1, 1, 17), "#0072B2"),
    ("free 16", free_16, "#D55E00"),
):
    left.plot(held_out, networks[name](held_out).detach(), color=color, linewidth=1.3, label=name)
    height = torch.full_like(knots, -1.3 if name == "even 16" else -1.6)
    left.plot(knots, height, "|", color=color, markersize=12)
left.set(xlabel="x", ylabel="value; knots below", title="16 intervals")
left.legend(frameon=False)
for (kind, found), color, marker in zip(errors.items(), ("#0072B2", "#D55E00"), "os", strict=True):
    right.loglog(*zip(*found.items(), strict=True), color=color, marker=marker, label=kind)
right.set(xlabel="intervals", ylabel="root mean squared error")
right.set_xticks(list(errors["even"]), list(errors["even"]), minor=False)
right.minorticks_off()
right.legend(frameon=False)
figure.savefig(out / "knots.png", dpi=150)
print(f"\nwrote {out / 'knots.png'}")
