"""A smooth function of a sum of rough ones, which a KAN finds by multigrid and others miss.

python demos/rough_composition.py [folder for the picture] [part of the seconds, as 0.1]
"""

import math
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not spin

import sys
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from mgnet.options import init

arguments = init(sys.argv)
try:
    from sklearn.ensemble import HistGradientBoostingRegressor
except ImportError:
    sys.exit(print("skipped: this demo needs scikit-learn"))
from mgnet.estimators import KANRegressor  # noqa: E402  (needs it, too)

out = Path(arguments[1] if len(arguments) > 1 else "out/rough_composition")
SECONDS = 20.0 * float(arguments[2] if len(arguments) > 2 else 1.0)
out.mkdir(parents=True, exist_ok=True)

INPUTS, ROWS, WIDTH = 6, 40_000, 0.01
rng = np.random.default_rng(1)
k = np.arange(1, 33)
waves = rng.standard_normal((INPUTS, 32)) / k
phases = rng.uniform(0.0, 2.0 * math.pi, (INPUTS, 32))
bumps = rng.choice([-1.0, 1.0], (INPUTS, 3)) * rng.uniform(0.5, 1.0, (INPUTS, 3))
places = rng.uniform(-0.9, 0.9, (INPUTS, 3))


def rough(x):
    """For each input 32 waves and three narrow bumps, (rows, inputs) -> (rows, inputs)."""
    values = np.zeros_like(x)
    for n in range(32):
        values += waves[:, n] * np.sin(math.pi * (n + 1) * x + phases[:, n])
    for n in range(3):
        values += bumps[:, n] * np.exp(-(((x - places[:, n]) / WIDTH) ** 2) / 2.0)
    return values


deviations = rough(np.tile(np.linspace(-1.0, 1.0, 5001)[:, None], INPUTS)).std(0)


def target(x):
    return np.sin((rough(x) / deviations).sum(1) / INPUTS**0.5)


def features(x):
    """Cosines and sines of every input, up to frequency 128."""
    x = torch.from_numpy(x).float()[:, :, None]
    turns = math.pi * torch.arange(1, 129) * x
    size = torch.arange(1, 129) ** -1.0
    return torch.cat([turns.cos() * size, turns.sin() * size], 2).flatten(1)


def network(prepare: Callable, width: int, rate: float) -> Callable:
    """A tanh network, trained by Adam with minibatches and a cosine schedule of the rate."""
    torch.manual_seed(0)
    inputs, outputs = prepare(x), torch.from_numpy(y).float()[:, None]
    sizes, layers = [inputs.shape[1], width, width, 1], []
    for before, after in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [torch.nn.Linear(before, after), torch.nn.Tanh()]
    net = torch.nn.Sequential(*layers[:-1])
    optimizer, began = torch.optim.Adam(net.parameters()), time.perf_counter()
    while (part := (time.perf_counter() - began) / SECONDS) < 1.0:
        optimizer.param_groups[0]["lr"] = rate * (1.0 + math.cos(math.pi * part)) / 2.0
        rows = torch.randint(ROWS, (500,))
        loss = (net(inputs[rows]) - outputs[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return lambda x: net(prepare(x)).detach().numpy()[:, 0]


x, held_out = rng.uniform(-1.0, 1.0, (ROWS, INPUTS)), rng.uniform(-1.0, 1.0, (10_000, INPUTS))
y = target(x)
kan = KANRegressor(
    hidden=2,
    ensemble=1,
    intervals=8,
    levels=6,
    most_intervals=(None, 16),  # rough functions first, then a smooth one
    roughness=0.0,
    max_iter=10**6,
    seconds=SECONDS,
)
boosting = HistGradientBoostingRegressor(max_iter=2000, random_state=0)
fits = {
    "boosting": lambda: boosting.fit(x, y).predict,
    "tanh network": lambda: network(lambda x: torch.from_numpy(x).float(), 64, 5e-3),
    "waves of each input, network": lambda: network(features, 16, 3e-3),
    "KAN by multigrid": lambda: kan.fit(x, y).predict,
}
print(f"sin of the sum of {INPUTS} rough functions of one input, {ROWS} rows\n")
print(f"{'method':<30} {'held-out RMSE':>13} {'seconds':>8}")
methods, errors = {}, {}
for name, fit in fits.items():
    began = time.perf_counter()
    methods[name] = fit()
    seconds = time.perf_counter() - began
    errors[name] = float(np.sqrt(np.mean((methods[name](held_out) - target(held_out)) ** 2)))
    print(f"{name:<30} {errors[name]:>13.1e} {seconds:>8.1f}", flush=True)

colors = dict(zip(fits, ("#999999", "#0072B2", "#009E73", "#D55E00"), strict=True))
figure, (left, right) = plt.subplots(
    1, 2, figsize=(11, 3.6), layout="constrained", width_ratios=[2.4, 1.0]
)
middle = places[0, 0]
line = np.tile(held_out[0], (1500, 1))
line[:, 0] = np.linspace(max(middle - 0.2, -1.0), min(middle + 0.2, 1.0), 1500)
left.plot(line[:, 0], target(line), color="0.85", linewidth=7, label="function")
for name, predict in methods.items():
    style = "--" if name == "KAN by multigrid" else "-"  # it would hide another curve
    left.plot(line[:, 0], predict(line), style, color=colors[name], linewidth=1.5, label=name)
left.set(xlabel="first input, the others fixed", ylabel="value")
left.legend(frameon=False, fontsize=8, ncols=2)
right.scatter(list(errors.values()), list(errors), color=list(colors.values()), s=60, zorder=2)
right.set(xscale="log", xlabel="held-out RMSE", title=f"{SECONDS:g} s each", xlim=(1e-4, 1.0))
right.grid(color="0.9")
right.spines[["top", "right"]].set_visible(False)
figure.savefig(out / "functions.png", dpi=150)
print(f"\nwrote {out / 'functions.png'}")
