"""A GRU that forecasts a noisy signal: PyTorch's, step by step, and with all steps at once.

python demos/gru_in_time.py [folder for the picture] [steps of training, 30]
"""

import copy
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import nn

from mgnet.depth import TimeParallel
from mgnet.options import init

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/gru_in_time")
TRAINING = int(arguments[2]) if len(arguments) > 2 else 30
out.mkdir(parents=True, exist_ok=True)
STEPS, BATCH, WIDTH = 2000, 16, 4
torch.set_num_threads(1)
torch.manual_seed(0)

t = torch.arange(STEPS + 1)[:, None]
phases, drifts = 6.28 * torch.rand(2, BATCH), 1.0 + 0.1 * torch.randn(2, BATCH)
signal = torch.sin(0.1 * drifts[0] * t + phases[0]) + 0.5 * torch.sin(
    0.033 * drifts[1] * t + phases[1]
)
x = (signal[:-1] + 0.3 * torch.randn(STEPS, BATCH))[..., None]  # the input, with noise
target = signal[1:, :, None]  # the next value, without noise

gru, head = nn.GRU(1, WIDTH), nn.Linear(WIDTH, 1)


def trained(mode):
    """Losses, seconds and the network of one training, from the same initial network."""
    network = TimeParallel(gru, mode=mode) if mode else gru
    parallel, last = copy.deepcopy((network, head))
    parallel(x)  # the first call compiles
    optimizer = torch.optim.Adam([*parallel.parameters(), *last.parameters()], lr=0.03)
    losses, cycles, began = [], (0, 0), time.perf_counter()
    for _ in range(TRAINING):
        optimizer.zero_grad()
        loss = (last(parallel(x)[0]) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if isinstance(parallel, TimeParallel):
            now = parallel.last_forward.cycles, parallel.last_backward.cycles
            cycles = max(cycles[0], now[0]), max(cycles[1], now[1])
    return losses, cycles, time.perf_counter() - began, parallel, last


print(f"A GRU of width {WIDTH}, {BATCH} series of {STEPS} steps, {TRAINING} steps of Adam\n")
print(f"{'time steps':<16}{'most cycles':>12}{'first loss':>12}{'last loss':>12}{'seconds':>9}")
runs = {}
for mode, name in (("", "torch.nn.GRU"), ("serial", "one by one"), ("mgrit", "all at once")):
    losses, cycles, seconds, *network = runs[mode] = trained(mode)
    told = "{}, {}".format(*cycles) if mode == "mgrit" else "-"
    print(f"{name:<16}{told:>12}{losses[0]:>12.6f}{losses[-1]:>12.6f}{seconds:>9.1f}")
one, exact, other = (torch.tensor(runs[mode][0]) for mode in runs)
apart = max(float(((one - each) / one).abs().max()) for each in (exact, other))
print(f"\nLargest relative difference of a loss: {apart:.1e}")
print(f"Variance of the signal {target.var():.2f}, of the noise {0.3**2:.2f}")

parallel, last = runs["mgrit"][3:]
with torch.no_grad():
    forecast = last(parallel(x)[0])
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
left.semilogy(one, label="torch.nn.GRU")
left.semilogy(other, "--", label="all at once")
left.set(xlabel="step of training", ylabel="mean squared error")
right.plot(x[-200:, 0, 0], ".", markersize=3, color="0.7", label="seen")
right.plot(target[-200:, 0, 0], label="next value")
right.plot(forecast[-200:, 0, 0], label="forecast")
right.set(xlabel="time step")
for ax in (left, right):
    ax.legend(frameon=False)
figure.savefig(out / "gru_in_time.png", dpi=150)
print(f"wrote {out}/gru_in_time.png")
