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
# # Train an ODE net on all layers at once
#
# A deep residual network is a time-stepping method for an ordinary differential equation: layer
# $n$ computes $u_{n+1} = u_n + h F(t_n, u_n; \theta_n)$. Multigrid reduction in time (MGRIT)
# solves the equations of all layers at once, forward and backward, so that the layers can be
# spread over processes. This notebook needs mgnet and matplotlib.

# %%
import matplotlib.pyplot as plt
import torch
from torch.nn.functional import cross_entropy

from mgnet import gallery
from mgnet.depth import CyclesToTolerance, FixedCycles, LayerParallel, ODENet

# %% [markdown]
# The data are points of the plane in five classes. The network has 64 layers; its blocks have the
# same form but weights of their own.

# %%
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
x, y = (torch.from_numpy(part) for part in gallery.peaks(200))
net = ODENet(
    torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh()),
    layers=64,
    final_time=2.0,
    before=torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh()),
    after=torch.nn.Linear(8, 5),
)


# %% [markdown]
# ## Each cycle reduces the error
#
# Two levels with a coarsening factor of 8 make 8 intervals of 8 layers. The output and the
# gradient approach those of the serial network. After 8 cycles, one for each interval, they are
# equal up to rounding errors.


# %%
def output_and_gradient(module):
    output = module(x)
    gradient = torch.autograd.grad(cross_entropy(output, y), list(net.parameters()))
    return output.detach(), torch.cat([part.flatten() for part in gradient])


exact = output_and_gradient(net)
errors = []
for cycles in range(1, 9):
    control = FixedCycles(cycles, tolerance=float("inf"))  # accept any error, without a warning
    found = output_and_gradient(LayerParallel(net, levels=2, coarsening=8, control=control))
    errors.append([float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)])
    print(f"{cycles} cycles: error of the output {errors[-1][0]:.0e}, gradient {errors[-1][1]:.0e}")

# %%
figure, ax = plt.subplots(figsize=(5, 3.5), layout="constrained")
ax.semilogy(range(1, 9), errors, "o-", label=["output", "gradient"])
ax.set(xlabel="cycles", ylabel="relative error")
ax.legend()

# %% [markdown]
# ## Training
#
# `LayerParallel` is an ordinary module that shares the weights of `net`, so the training loop is
# the usual one. Here the cycles end when the estimated relative error is below 1 %.

# %%
parallel = LayerParallel(net, levels=2, coarsening=8, control=CyclesToTolerance(1e-2))
optimizer = torch.optim.Adam(parallel.parameters(), lr=2e-2)
losses = []
for _ in range(40):
    optimizer.zero_grad()
    loss = cross_entropy(parallel(x), y)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
serial = cross_entropy(net(x), y).item()  # the trained network, layer after layer
accuracy = (net(x).argmax(1) == y).double().mean().item()
print(f"loss {losses[0]:.3f} -> {serial:.3f}, accuracy {accuracy:.0%}")

# %% [markdown]
# `mgnet.petsc.distribute_layers(parallel)` spreads the layers over MPI ranks; the digits of the
# result stay the same.
