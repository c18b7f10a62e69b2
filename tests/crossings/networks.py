"""The networks of the table, and the same functions in a few lines of plain PyTorch.

The plain functions are the oracle: nothing of mgnet is called in them, and autograd differentiates
them. They take the weights by the names that the networks give them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mgnet.depth import CyclesToTolerance, LayerParallel, ODENet
from mgnet.knots import KAN

Weights = Mapping[str, Tensor]
INTERVALS, DEGREE = 5, 3
LAYERS, FINAL_TIME = 16, 2.0
WRAPPERS = ("_orig_mod.", "module.", "net.")  # of torch.compile, DDP, LayerParallel


class WrongNumberError(AssertionError):
    """A number that is not the right one."""


def splines(x: Tensor) -> Tensor:
    """(...,) -> (..., splines), the cubic B-splines on [-1, 1], by Cox and de Boor."""
    h = 2.0 / INTERVALS
    knots = -1.0 + h * torch.arange(-DEGREE, INTERVALS + DEGREE + 1, dtype=x.dtype)
    x = x.unsqueeze(-1)
    values = ((knots[:-1] <= x) & (x < knots[1:])).to(x.dtype)
    for p in range(1, DEGREE + 1):
        rising = (x - knots[: -p - 1]) / (p * h) * values[..., :-1]
        falling = (knots[p + 1 :] - x) / (p * h) * values[..., 1:]
        values = rising + falling
    return values


def plain_kan(weights: Weights, x: Tensor) -> Tensor:
    """Two spline layers after a linear one."""
    u = x @ weights["linear.weight"].T + weights["linear.bias"]
    for number in range(2):
        u = torch.einsum("...ip,ipo->...o", splines(u.tanh()), weights[f"coefficients.{number}"])
    return u


def plain_ode_net(weights: Weights, x: Tensor) -> Tensor:
    """Euler steps, one after another."""
    u = x @ weights["before.weight"].T + weights["before.bias"]
    for W, b in zip(weights["block.0.weight"], weights["block.0.bias"], strict=True):
        u = u + FINAL_TIME / LAYERS * torch.tanh(u @ W.T + b)
    return u @ weights["after.weight"].T + weights["after.bias"]


def kan() -> KAN:
    """A KAN after a linear layer."""
    generator = torch.Generator().manual_seed(0)
    return KAN([2, 4, 3, 1], INTERVALS, DEGREE, linear=True, generator=generator)


def ode_net() -> ODENet:
    """An ODE net with parts before and after its layers."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    before, after = nn.Linear(2, 4), nn.Linear(4, 1)
    return ODENet(block, LAYERS, FINAL_TIME, before=before, after=after).double()


def layer_parallel() -> LayerParallel:
    """Solved by MGRIT, far below what is asked of the numbers."""
    return LayerParallel(ode_net(), 2, 4, control=CyclesToTolerance(1e-13))


def layer_parallel_serial() -> LayerParallel:
    """One layer after another, by the programs of LayerParallel."""
    return LayerParallel(ode_net(), 2, 4, mode="serial")


class Network(NamedTuple):
    """A column of the table.

    Attributes
    ----------
    title : str
    make : callable
        A new module in float64, with the same weights every time.
    plain : callable
        `(weights, x) -> outputs`.
    heart : callable
        From the module to the submodule and the name of its most important weight.
    """

    title: str
    make: Callable[[], Any]
    plain: Callable[[Weights, Tensor], Tensor]
    heart: Callable[[Any], tuple[nn.Module, str]]


NETWORKS = [
    Network("KAN", kan, plain_kan, lambda m: (m.coefficients, "0")),
    Network("ODENet", ode_net, plain_ode_net, lambda m: (m.block[0], "weight")),
    Network("LayerParallel", layer_parallel, plain_ode_net, lambda m: (m.net.block[0], "weight")),
    Network(
        "LayerParallel, serial",
        layer_parallel_serial,
        plain_ode_net,
        lambda m: (m.net.block[0], "weight"),
    ),
]


def data(dtype: torch.dtype = torch.float64, samples: int = 12) -> tuple[Tensor, Tensor]:
    """Inputs in [-1, 1] and targets."""
    x = 2.0 * torch.rand(samples, 2, generator=torch.Generator().manual_seed(1), dtype=dtype) - 1.0
    return x, (3.0 * x[:, :1]).sin() + x[:, 1:].square()


def bare(name: str) -> str:
    """The name of a weight without the wrappers around the network."""
    while name.startswith(WRAPPERS):
        name = name[name.index(".") + 1 :]
    return name


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all weights in float64, for the plain function, as leaves of their own."""
    return {
        bare(name): value.detach().double().clone().requires_grad_()
        for name, value in module.named_parameters()
    }


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Of all weights; one that is missing is an error."""
    found = {bare(name): value.grad for name, value in module.named_parameters()}
    for name, value in found.items():
        if value is None:
            raise WrongNumberError(f"{name} has no gradient")
    return {name: value for name, value in found.items() if value is not None}


def close(got: Any, right: Any, what: str, rtol: float = 1e-9) -> None:
    """Raise unless tensors, or dictionaries of them, agree, relative to the norm of the right."""
    if isinstance(right, Mapping):
        if set(got) != set(right):
            raise WrongNumberError(f"{what} of {sorted(got)}; right: {sorted(right)}")
        for name, value in right.items():
            close(got[name], value, f"{what} of {name}", rtol)
        return
    if tuple(got.shape) != tuple(right.shape):
        raise WrongNumberError(f"{what} of shape {tuple(got.shape)}; right: {tuple(right.shape)}")
    got, right = torch.as_tensor(got).detach().double(), torch.as_tensor(right).detach().double()
    error = float((got - right).norm() / right.norm())
    if not error <= rtol:
        raise WrongNumberError(f"{what} wrong by {error:.1e}")


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error, in the precision of the targets."""
    return (outputs.to(targets.dtype) - targets).square().mean()


def plain_gradients(
    network: Network, weights: dict[str, Tensor], loss: Callable[..., Tensor]
) -> dict[str, Tensor]:
    """Of `loss(function)`, with the plain function of these weights."""
    value = loss(lambda x: network.plain(weights, x))
    found = torch.autograd.grad(value, [*weights.values()])
    return dict(zip(weights, found, strict=True))


def same_step(
    network: Network,
    module: nn.Module,
    call: Callable[[Tensor], Tensor] | None = None,
    rtol: float = 1e-9,
    samples: int = 12,
) -> None:
    """Compare outputs, and gradients of a loss, with those of the plain function."""
    x, y = data(next(module.parameters()).dtype, samples)
    weights = weights_of(module)
    module.zero_grad()
    outputs = (module if call is None else call)(x)  # a compiled module has no truth value
    close(outputs, network.plain(weights, x.double()), "outputs", rtol)
    loss_of(outputs, y).backward()
    right = plain_gradients(network, weights, lambda f: loss_of(f(x.double()), y.double()))
    close(gradients(module), right, "gradients", rtol)


def batches(count: int, dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    """Of four samples each."""
    x, y = data(dtype, 4 * count)
    return [*zip(x.split(4), y.split(4), strict=True)]


def plainly_trained(
    network: Network,
    weights: dict[str, Tensor],
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    steps: list[tuple[Tensor, Tensor]],
) -> dict[str, Tensor]:
    """The weights after a step of the optimizer on each batch, by the plain function."""
    stepper = optimizer([*weights.values()])
    for x, y in steps:

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            stepper.zero_grad()
            loss = loss_of(network.plain(weights, x.double()), y.double())
            loss.backward()
            return loss

        stepper.step(closure)
    return weights
