"""A neural ODE is fitted to a spiral: torchdiffeq's example, with only the solver replaced.

python demos/neural_ode.py [folder for the picture] [sweeps of training]
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from mgnet.depth import odeint
from mgnet.options import init

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/neural_ode")
sweeps = int(arguments[2]) if len(arguments) > 2 else 600
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

WINDOW, BATCH = 10, 20


class Spiral(torch.nn.Module):
    """The true equation: dy/dt = y^3 A."""

    def __init__(self):
        super().__init__()
        self.register_buffer("A", torch.tensor([[-0.1, 2.0], [-2.0, -0.1]]))

    def forward(self, t, y):
        return y**3 @ self.A


class Network(torch.nn.Module):
    """The network that approximates the spiral."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(2, 50), torch.nn.Tanh(), torch.nn.Linear(50, 2)
        )

    def forward(self, t, y):
        return self.net(y**3)


t, start = torch.linspace(0.0, 10.0, 400), torch.tensor([[2.0, 0.0]])
truth = odeint(Spiral(), start, t, rtol=1e-5, atol=1e-6)
func = Network()
optimizer = torch.optim.RMSprop(func.parameters(), lr=2e-3)
print(f"a spiral at {len(t)} times; training on windows of {WINDOW} of them, {BATCH} at once\n")
print("sweep   mean error along the whole spiral")
first = None
for sweep in range(sweeps + 1):
    if sweep % max(sweeps // 6, 1) == 0:
        with torch.no_grad():
            error = float((odeint(func, start, t) - truth).abs().mean())
        first = error if first is None else first
        print(f"{sweep:>5}   {error:.3f}")
    begins = torch.randint(len(t) - WINDOW, (BATCH,))
    target = torch.stack([truth[begins + k, 0] for k in range(WINDOW)])
    states = odeint(func, target[0], t[:WINDOW])
    optimizer.zero_grad()
    (states - target).abs().mean().backward()
    optimizer.step()

with torch.no_grad():
    learned = odeint(func, start, t)
    fitted = odeint(func, start, t[[0, -1]], rtol=1e-4, atol=1e-5)
    together = odeint(func, start, t, mode="mgrit")
print(f"\nlast state, one step for each time           {learned[-1, 0].tolist()}")
print(f"the same, by steps that fit rtol = 1e-4      {fitted[-1, 0].tolist()}")
print(f"the same, all 399 steps at once (MGRIT)      {together[-1, 0].tolist()}")

figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
axes.plot(*truth[:, 0].T, ".", color="#000000", markersize=3, label="data")
axes.plot(*learned[:, 0].T, color="#0072B2", linewidth=1.5, label="neural ODE")
axes.set(title="A spiral, and what was learned", xlabel="$y_1$", ylabel="$y_2$")
axes.legend()
figure.savefig(out / "spiral.png", dpi=150)
print(f"\nwrote {out / 'spiral.png'}")
