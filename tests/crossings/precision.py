"""Rows on precision: automatic mixed precision, and modules of other formats."""

import torch
from crossings.networks import (
    Network,
    WrongNumberError,
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
from torch import Tensor

SECTION = "Precision"


def _under_autocast(network: Network, dtype: torch.dtype, rtol: float) -> None:
    module = network.make().float()
    x, y = data(torch.float32)
    weights = weights_of(module)
    with torch.autocast("cpu", dtype=dtype):
        outputs = module(x)
    close(outputs, network.plain(weights, x.double()), "outputs", rtol)
    loss_of(outputs, y).backward()  # outside, as PyTorch advises
    right = plain_gradients(network, weights, lambda f: loss_of(f(x.double()), y.double()))
    close(gradients(module), right, "gradients", 3 * rtol)


@row(SECTION, "`torch.autocast`, bfloat16, backward outside")
def autocast_bfloat16(network: Network) -> None:
    _under_autocast(network, torch.bfloat16, 2e-2)


@row(SECTION, "`torch.autocast`, float16, backward outside")
def autocast_float16(network: Network) -> None:
    _under_autocast(network, torch.float16, 3e-3)


@row(SECTION, "`torch.autocast` after a layer that gives bfloat16")
def after_a_layer(network: Network) -> None:
    module = network.make().float()
    first = torch.nn.Linear(2, 2)
    x, _ = data(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = module(first(x))
    close(outputs, network.plain(weights_of(module), first(x).double()), "outputs", 3e-2)
    outputs.float().sum().backward()


@row(SECTION, "`torch.autocast`, float16, with `torch.amp.GradScaler`: ten steps of SGD")
def grad_scaler(network: Network) -> None:
    module = network.make().float()
    steps = batches(10, torch.float32)

    def sgd(values: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(values, 0.05)

    start = weights_of(module)
    right = plainly_trained(network, weights_of(module), sgd, steps)
    optimizer, scaler = sgd([*module.parameters()]), torch.amp.GradScaler("cpu", init_scale=64.0)
    for x, y in steps:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = loss_of(module(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    if scaler.get_scale() != 64.0:
        raise WrongNumberError(f"the scale went to {scaler.get_scale()}")
    change = {name: value - start[name] for name, value in right.items()}
    got = {name: value - start[name] for name, value in weights_of(module).items()}
    close(got, change, "change of the weights", 2e-2)


@row(SECTION, "`module.float()`")
def single(network: Network) -> None:
    same_step(network, network.make().float(), rtol=1e-5)


@row(SECTION, "`module.bfloat16()`")
def bfloat16(network: Network) -> None:
    module = network.make().bfloat16()
    x, _ = data(torch.bfloat16)
    outputs = module(x)
    close(outputs, network.plain(weights_of(module), x.double()), "outputs", 5e-2)
    outputs.sum().backward()
    gradients(module)
