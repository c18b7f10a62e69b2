"""The hidden layers as a basis: box initialization, and a last layer that is always solved.

python demos/adaptive_basis.py [folder for the pictures] [seconds per training]
"""

import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from mgnet import Level
from mgnet.options import init
from mgnet.training import LBFGS, AdaptiveBasis, LastLayer, LeastSquares, TorchOptimizer, box_init_

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/adaptive_basis")
seconds = float(arguments[2]) if len(arguments) > 2 else 3.0
out.mkdir(parents=True, exist_ok=True)

x = torch.linspace(0, 1, 256, dtype=torch.float64).unsqueeze(1)
y = torch.sin(2 * torch.pi * x) + 0.5 * torch.sin(16 * torch.pi * x)


def network(box):
    torch.manual_seed(0)
    hidden = [torch.nn.Linear(1, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU()]
    net = torch.nn.Sequential(*hidden, torch.nn.Linear(32, 1)).double()
    return box_init_(net, (0.0, 1.0)) if box else net


adam = TorchOptimizer(torch.optim.Adam, {"lr": 3e-3})
smoothers = {"Adam": adam, "LS + Adam": AdaptiveBasis(adam), "LS + L-BFGS": AdaptiveBasis(LBFGS())}
print(f"sin(2 pi x) + sin(16 pi x) / 2, ReLU 1-32-32-1, {seconds:g} s each, mean squared error\n")
print("start    smoother       before one solve    after  sweeps")
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
for box in (False, True):
    problem = LeastSquares(network(box), (x, y))
    solved = LastLayer().smooth(Level(problem, LastLayer()), problem.start(), None, 1, ())[0]
    for name, smoother in smoothers.items():
        level = Level(problem, smoother, objective=problem.value)
        u, history = problem.start(), []
        memory = smoother.start(level, u)
        # The first use of Adam loads a large part of PyTorch.
        smoother.smooth(level, u, None, 1, memory)
        begin = time.perf_counter()
        while not history or time.perf_counter() - begin < seconds:
            u, memory = smoother.smooth(level, u, None, 10, memory)
            history.append(problem.mean_square(u))
        label, sweeps = f"{'box' if box else 'default':<8} {name:<12}", 10 * len(history)
        errors = [f"{problem.mean_square(v):9.1e}" for v in (problem.start(), solved, u)]
        print(label, *errors, f"{sweeps:>6}")
        right.loglog(range(10, sweeps + 1, 10), history, "-" if box else ":", label=label)
left.plot(x, network(True)[:-1](x).detach()[:, ::2], lw=1)
left.set(title="every second basis function of the box start", xlabel="x")
right.set(title="mean squared error", xlabel="sweeps")
right.legend(loc="center left", prop={"family": "monospace", "size": 7})
figure.savefig(out / "adaptive_basis.png", dpi=150, bbox_inches="tight")
print(f"\nwrote {out / 'adaptive_basis.png'}")
