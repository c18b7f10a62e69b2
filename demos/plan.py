"""The gain from more ranks, before anything runs on them: plans from one measured layer time.

python demos/plan.py [folder for the picture]
"""

import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from cycler import cycler

from mgnet.depth import Machine, ODENet, best_plan, plan
from mgnet.options import init

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/plan")
out.mkdir(parents=True, exist_ok=True)

WIDTH, BATCH, LAYERS = 64, 256, 1024
FACTORS = (8, 16, 32, 64)
LATENCY, BANDWIDTH = 2e-6, 1e10  # seconds per message, bytes per second: a fast network, assumed
block = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh())
net, x = ODENet(block, layers=128), torch.randn(BATCH, WIDTH)
forward, backward = [], []
for _ in range(10):
    began = time.perf_counter()
    loss = net(x).square().mean()
    between = time.perf_counter()
    loss.backward()
    forward.append((between - began) / net.depth)
    backward.append((time.perf_counter() - between) / net.depth)
machine = Machine(
    layer_seconds=min(forward),
    backward_ratio=min(backward) / min(forward),
    latency=LATENCY,
    bandwidth=BANDWIDTH,
    state_bytes=4.0 * BATCH * WIDTH,
    layer_bytes=16.0 * WIDTH * (WIDTH + 1),  # weights, gradients and the two moments of Adam
)
# A step of training: forward and backward, one cycle each.
known = {"machine": machine, "record": True}
print(
    f"A dense layer of width {WIDTH}, batch {BATCH}, takes {1e6 * min(forward):.0f} us forward ",
    end="",
)
print(f"and {machine.backward_ratio:.1f} times that backward (measured);")
print(f"a message takes {1e6 * LATENCY:.0f} us and {BANDWIDTH / 1e9:.0f} GB/s (assumed)\n")
print(f"The best plan for {LAYERS} layers, a step of training:\n")
print("ranks  levels  factor  critical path  messages on it  seconds  speedup  MiB per rank")
ranks = [2**k for k in range(11)]
speedups = []
for count in ranks:
    best = best_plan(LAYERS, count, coarsenings=FACTORS, **known)
    messages = sum(cost.critical_messages for cost in (best.forward, best.backward) if cost)
    row = f"{count:>5}  {best.levels:>6}  {best.coarsening if best.levels > 1 else '-':>6}"
    row += f"  {best.critical_path:>13.0f}  {messages:>14}  {best.seconds:>7.3f}"
    print(f"{row}  {best.speedup:>7.2f}  {best.memory / 2**20:>12.1f}")
    speedups.append(best.speedup)
print("\nCritical path: in forward layers, one after the other. A smaller factor would employ more")
print("ranks, but its coarse level, solved layer by layer, is longer. Deeper networks gain more.")

colors = cycler(color=["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"])
plt.rc("axes", prop_cycle=colors)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
for factors in ((4,), (16,), (32,), (8, 4), (4, 4, 4, 4)):
    levels, name = len(factors) + 1, ", ".join(map(str, factors))
    found = [plan(LAYERS, n, factors, levels=levels, **known).speedup for n in ranks]
    left.loglog(ranks, found, label=f"{levels} levels, factor {name}")
left.loglog(ranks, speedups, "k--", label="best plan")
for layers in (4096, LAYERS, 256, 64):
    found = [best_plan(layers, n, coarsenings=FACTORS, **known).speedup for n in ranks[::2]]
    style = {"color": "black", "linestyle": "--"} if layers == LAYERS else {}
    right.loglog(ranks[::2], found, label=f"{layers} layers", **style)
for axis, title in ((left, f"{LAYERS} layers"), (right, "best plans")):
    axis.set(xlabel="ranks", title=title, xticks=ranks[::2], xticklabels=ranks[::2])
    axis.set(yticks=(0.25, 0.5, 1, 2, 4, 8, 16), yticklabels=("1/4", "1/2", 1, 2, 4, 8, 16))
    axis.minorticks_off()
    axis.grid(color="0.9")
    axis.legend(frameon=False, fontsize="small")
left.set(ylabel="speedup over one rank, serial")
figure.savefig(out / "speedup.png", dpi=150)
print(f"\nwrote {out / 'speedup.png'}")
