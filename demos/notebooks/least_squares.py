# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Solve a differential equation by least squares
#
# A network is trained on the residuals of a differential equation with the Levenberg-Marquardt
# method, first on few knots, then on twice as many. The same lines find an unknown coefficient
# from measurements. This notebook needs mgnet and matplotlib.

# %%
import math

import matplotlib.pyplot as plt
import torch

from mgnet import cascade, run
from mgnet.knots import KAN, knot_hierarchy
from mgnet.training import Ansatz, Collocation, LevenbergMarquardt, Term, levenberg_marquardt

torch.set_default_dtype(torch.float64)

# %% [markdown]
# ## Any module, any residual
#
# `levenberg_marquardt` minimizes half the sum of squares of what a function returns. Here a small
# perceptron learns a function of two inputs.

# %%
torch.manual_seed(0)
x = 2.0 * torch.rand(500, 2) - 1.0
y = torch.sin(4.0 * x[:, :1] * x[:, 1:])
module = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
print(levenberg_marquardt(lambda module: module(x) - y, module, max_cycles=60))
rms = float((module(x) - y).detach().square().mean().sqrt())
print(f"root mean square residual {rms:.0e}")

# %% [markdown]
# ## An oscillator with an unknown friction
#
# The equation is $u'' + c \, u' + 25 u = 0$ for $t$ in $[0, 2]$. Twenty noisy measurements of
# $u(t) = e^{-t/2} \cos(\omega t)$ are known, where $\omega^2 = 25 - 1/4$ and $c = 1$. The friction
# $c$ and the solution $u$ are unknown.

# %%
omega, noise = math.sqrt(25.0 - 0.25), 0.02
t = torch.linspace(0.0, 2.0, 200).unsqueeze(1)
times = torch.linspace(0.0, 2.0, 20).unsqueeze(1)


def true_solution(t):
    return torch.exp(-t / 2.0) * torch.cos(omega * t)


measured = true_solution(times) + noise * torch.randn(20, 1)
network = Ansatz(KAN([1, 1], 8, degree=5, domain=(0.0, 2.0)), coefficients={"c": 0.2})
law = Term(lambda u: u.d(0, 0) + u.coefficients["c"] * u.d(0) + 25.0 * u.value, t)
data = Term(lambda u: u.value - measured, times, weight=1e4)
problem = Collocation(network, [law, data])

# %% [markdown]
# The hierarchy has 8 and 16 knot intervals. A cascade takes 15 steps on each, and a refinement
# leaves the function as it is.

# %%
hierarchy = knot_hierarchy(network, problem, 2, LevenbergMarquardt())
state, _ = run(cascade([15, 15]), hierarchy, hierarchy[0].operator.start(), None)
found = hierarchy.network(0, state)
friction = found.coefficients["c"].item()
deviation = hierarchy[0].operator.standard_errors(state, [None, noise])["c"]
error = float((found(t) - true_solution(t)).detach().abs().max())
print(f"friction {friction:.3f}, standard error {deviation:.3f} (true value 1)")
print(f"largest error of u {error:.0e}")

# %%
figure, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
ax.plot(t, found(t).detach(), label="found")
ax.plot(t, true_solution(t), "--", label="true")
ax.plot(times, measured, "k.", label="measured")
ax.set(xlabel="t", ylabel="u")
ax.legend()
