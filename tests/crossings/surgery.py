"""Rows on optimizers, averages, and modules whose weights are replaced by something else."""

import copy
from collections.abc import Callable

import torch
from crossings.networks import (
    Network,
    batches,
    close,
    data,
    gradients,
    loss_of,
    plain_gradients,
    plainly_trained,
    same_step,
    weights_of,
)
from crossings.rows import row
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim import swa_utils

SECTION = "Optimizers and other hands on the weights"
Make = Callable[[list[Tensor]], torch.optim.Optimizer]


def trained(module: nn.Module, optimizer: Make, steps: list[tuple[Tensor, Tensor]]) -> None:
    stepper = optimizer([*module.parameters()])
    for x, y in steps:

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            stepper.zero_grad()
            loss = loss_of(module(x), y)
            loss.backward()
            return loss

        stepper.step(closure)


def _as_plain(network: Network, optimizer: Make, rtol: float = 1e-7, count: int = 4) -> None:
    module, steps = network.make(), batches(count)
    right = plainly_trained(network, weights_of(module), optimizer, steps)
    trained(module, optimizer, steps)
    close(weights_of(module), right, "weights", rtol)
    same_step(network, module)


@row(SECTION, "`Adam(foreach=True)`, `Adam(fused=True)`, `AdamW`, `SGD` with Nesterov's momentum")
def first_order(network: Network) -> None:
    _as_plain(network, lambda values: torch.optim.Adam(values, 0.01, foreach=True))
    _as_plain(network, lambda values: torch.optim.Adam(values, 0.01, fused=True))
    _as_plain(network, lambda values: torch.optim.AdamW(values, 0.01, weight_decay=0.1))
    _as_plain(network, lambda values: torch.optim.SGD(values, 0.01, 0.9, nesterov=True))


@row(SECTION, "`LBFGS` with the strong Wolfe line search")
def lbfgs(network: Network) -> None:
    steps = data()

    def optimizer(values: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(values, max_iter=8, line_search_fn="strong_wolfe")

    module = network.make()
    right = plainly_trained(network, weights_of(module), optimizer, [steps])
    trained(module, optimizer, [steps])
    close(weights_of(module), right, "weights", 1e-5)


@row(SECTION, "`clip_grad_norm_` and accumulated gradients")
def clipped(network: Network) -> None:
    module, parts = network.make(), batches(3)
    weights = weights_of(module)
    for x, y in parts:
        loss_of(module(x), y).backward()
        loss_of(network.plain(weights, x), y).backward()
    got = nn.utils.clip_grad_norm_(module.parameters(), 0.01)
    right = nn.utils.clip_grad_norm_([*weights.values()], 0.01)
    close(got, right, "norm")
    plain = {name: value.grad for name, value in weights.items()}
    close(gradients(module), plain, "gradients")


def _averaged(network: Network, multi_avg_fn, mean: Callable[[list[Tensor]], Tensor]) -> None:
    """PyTorch's mean has the factors 1 / n in single precision."""
    module = network.make()
    average = swa_utils.AveragedModel(module, multi_avg_fn=multi_avg_fn)
    seen: list[dict[str, Tensor]] = []
    for batch in batches(3):
        trained(module, lambda values: torch.optim.SGD(values, 0.05), [batch])
        average.update_parameters(module)
        seen.append(weights_of(module))
    right = {name: mean([weights[name].detach() for weights in seen]) for name in seen[0]}
    close(weights_of(average.module), right, "weights", 1e-7)
    x, _ = data()
    close(average(x), network.plain(right, x), "outputs", 1e-6)
    swa_utils.update_bn([x], average)


@row(SECTION, "`swa_utils.AveragedModel` (stochastic weight averaging)")
def averaged(network: Network) -> None:
    _averaged(network, swa_utils.get_swa_multi_avg_fn(), lambda each: torch.stack(each).mean(0))


@row(SECTION, "`swa_utils.AveragedModel` with an exponential mean")
def exponential(network: Network) -> None:
    def mean(each: list[Tensor]) -> Tensor:
        value = each[0]
        for other in each[1:]:
            value = 0.9 * value + 0.1 * other
        return value

    _averaged(network, swa_utils.get_ema_multi_avg_fn(0.9), mean)


class Doubled(nn.Module):
    """A parametrization whose original is half of the weight."""

    def forward(self, half: Tensor) -> Tensor:
        return 2.0 * half

    def right_inverse(self, whole: Tensor) -> Tensor:
        return 0.5 * whole


@row(SECTION, "`torch.nn.utils.parametrize` on the splines, or on the weights of all layers")
def parametrized(network: Network) -> None:
    module, (x, y) = network.make(), data()
    weights = weights_of(module)
    right = plain_gradients(network, weights, lambda f: loss_of(f(x), y))
    holder, name = network.heart(module)
    at = [n for n, value in module.named_parameters() if value is getattr(holder, name)][0]
    parametrize.register_parametrization(holder, name, Doubled())
    outputs = module(x)
    close(outputs, network.plain(weights, x), "outputs")
    loss_of(outputs, y).backward()
    original = getattr(holder.parametrizations, name).original
    assert original.grad is not None, "no gradient"
    close(original.grad, 2.0 * right[at.removeprefix("net.")], "gradient")


@row(SECTION, "`parametrizations.weight_norm` on the splines, or on the weights of all layers")
def weight_norm(network: Network) -> None:
    module, (x, _) = network.make(), data()
    weights = weights_of(module)
    holder, name = network.heart(module)
    parametrizations.weight_norm(holder, name, dim=0)
    close(module(x), network.plain(weights, x), "outputs")
    with torch.no_grad():
        for value in getattr(holder.parametrizations, name).parameters():
            value.mul_(1.5)  # the norms; the direction's length does not count
    at = [n for n, value in weights.items() if value.shape == getattr(holder, name).shape][0]
    close(module(x), network.plain({**weights, at: 1.5 * weights[at]}, x), "outputs of other norms")


@row(SECTION, "`torch.nn.utils.prune.l1_unstructured` on the same weights")
def pruned(network: Network) -> None:
    module, (x, y) = network.make(), data()
    weights = weights_of(module)
    holder, name = network.heart(module)
    at = [n for n, value in weights.items() if value.shape == getattr(holder, name).shape][0]
    prune.l1_unstructured(holder, name, amount=0.5)
    size = weights[at].abs().flatten().detach()
    mask = (weights[at].abs() > size.sort().values[len(size) // 2 - 1]).double()
    right = {**weights, at: (weights[at] * mask).detach().requires_grad_()}
    for _ in range(2):  # a mask is applied before each call
        outputs = module(x)
        close(outputs, network.plain(right, x), "outputs")
        module.zero_grad()
        loss_of(outputs, y).backward()
    plain = plain_gradients(network, right, lambda f: loss_of(f(x), y))
    close(getattr(holder, f"{name}_orig").grad, plain[at] * mask, "gradient")
    prune.remove(holder, name)
    close(module(x), network.plain(right, x), "outputs after prune.remove")


@row(SECTION, "`torch.ao.quantization.quantize_dynamic`, int8")
def quantized(network: Network) -> None:
    module = network.make().float().eval()
    x, _ = data(torch.float32)
    right = network.plain(weights_of(module), x.double())
    made = torch.ao.quantization.quantize_dynamic(copy.deepcopy(module), {nn.Linear}, torch.qint8)
    close(made(x), right, "outputs", 3e-2)
    close(module(x), right, "outputs of the original", 1e-5)
