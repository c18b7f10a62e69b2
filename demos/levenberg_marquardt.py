"""Any PyTorch module in three lines: Levenberg-Marquardt against Adam and L-BFGS.

python demos/levenberg_marquardt.py [folder for the picture] [seconds per training]
"""

import sys
import time
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from mgnet.options import init
from mgnet.training import levenberg_marquardt

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/levenberg_marquardt")
seconds = float(arguments[2]) if len(arguments) > 2 else 3.0
out.mkdir(parents=True, exist_ok=True)
torch.set_default_dtype(torch.float64)
x = 2.0 * torch.rand(1500, 2, generator=torch.Generator().manual_seed(0)) - 1.0
y = torch.sin(4.0 * x[:, :1] * x[:, 1:]) + torch.tanh(5.0 * (x[:, :1] + x[:, 1:]))
x, x_held, y, y_held = x[:1000], x[1000:], y[:1000], y[1000:]


def by_optimizer(make, module, note):
    def closure():
        optimizer.zero_grad()
        loss = 0.5 * (module(x) - y).square().sum()
        loss.backward()
        note(loss.item())
        return loss

    optimizer, began = make(module.parameters()), time.perf_counter()
    while time.perf_counter() - began < seconds:
        optimizer.step(closure)


def ours(module, note):
    residual = lambda module: module(x) - y  # noqa: E731
    monitor = lambda entry, state: note(entry.value)  # noqa: E731
    levenberg_marquardt(residual, module, max_cycles=10**6, seconds=seconds, monitor=monitor)


lbfgs = partial(torch.optim.LBFGS, max_iter=5, history_size=100, line_search_fn="strong_wolfe")
ways = {"Adam": partial(by_optimizer, partial(torch.optim.Adam, lr=1e-2))}
ways |= {"L-BFGS": partial(by_optimizer, lbfgs), "Levenberg-Marquardt": ours}
for name, train in ways.items():
    torch.manual_seed(0)
    layers = torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 16), torch.nn.Tanh()
    module, times, errors = torch.nn.Sequential(*layers, torch.nn.Linear(16, 1)), [], []

    def note(loss, times=times, errors=errors):
        times.append(time.time())
        errors.append(loss / 500)

    train(module, note)
    held = float((module(x_held) - y_held).detach().square().mean())
    print(f"{name:<20} held-out mean squared error {held:.1e} after {seconds:g} s")
    plt.semilogy([when - times[0] for when in times], errors, label=name)
plt.gca().set(xlabel="seconds", ylabel="mean squared error of training")
plt.legend()
plt.savefig(out / "convergence.png", dpi=150)
print(f"wrote {out / 'convergence.png'}")
