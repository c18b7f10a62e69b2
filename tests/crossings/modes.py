"""Rows on modes of PyTorch: checkpoints of activations, inference, devices without memory."""

import threading

import torch
from crossings.networks import Network, close, data, same_step, weights_of
from crossings.rows import row
from torch import Tensor
from torch.utils.checkpoint import checkpoint

SECTION = "Modes of PyTorch"


@row(SECTION, "`torch.utils.checkpoint`, `use_reentrant=False`")
def checkpointed(network: Network) -> None:
    module = network.make()
    same_step(network, module, lambda x: checkpoint(module, x, use_reentrant=False))


@row(SECTION, "`torch.utils.checkpoint`, `use_reentrant=True`")
def checkpointed_reentrant(network: Network) -> None:
    module = network.make()

    def call(x: Tensor) -> Tensor:
        return checkpoint(module, x.requires_grad_(), use_reentrant=True)

    same_step(network, module, call)


@row(SECTION, "`torch.inference_mode` before the first training step")
def inference_first(network: Network) -> None:
    module = network.make()
    x, _ = data()
    right = network.plain(weights_of(module), x)
    for _ in range(2):
        with torch.inference_mode():
            outputs = module(x)
        close(outputs.clone(), right, "outputs")
        same_step(network, module)
        with torch.inference_mode():
            x = x.clone()  # a tensor of inference mode


@row(SECTION, "`torch.no_grad` and `eval()` before the first training step")
def evaluation_first(network: Network) -> None:
    module = network.make().eval()
    with torch.no_grad():
        module(data()[0])
    same_step(network, module.train())


@row(SECTION, "frozen weights, `requires_grad_(False)`, then thawed")
def frozen(network: Network) -> None:
    module = network.make()
    holder, name = network.heart(module)
    value = getattr(holder, name).requires_grad_(False)
    x, y = data()
    module(x).sum().backward()
    assert value.grad is None
    value.requires_grad_(True)
    same_step(network, module)


@row(SECTION, '`torch.device("meta")`, then `load_state_dict(assign=True)`')
def from_meta(network: Network) -> None:
    with torch.device("meta"):
        module = network.make()
    assert all(value.is_meta for value in module.parameters())
    module.load_state_dict(network.make().state_dict(), assign=True)
    same_step(network, module)


@row(SECTION, '`torch.device("meta")`, then `to_empty` and `load_state_dict`')
def to_empty(network: Network) -> None:
    with torch.device("meta"):
        module = network.make()
    module.to_empty(device="cpu")
    module.load_state_dict(network.make().state_dict())
    same_step(network, module)


@row(SECTION, '`module.to("meta")`, shapes of outputs')
def on_meta(network: Network) -> None:
    module = network.make().to("meta")
    assert module(data()[0].to("meta")).shape == (12, 1)


@row(SECTION, "an empty batch, a batch of one")
def odd_batches(network: Network) -> None:
    module = network.make()
    same_step(network, module, samples=1)
    assert module(data(samples=0)[0]).shape == (0, 1)


@row(SECTION, "two threads that call one new module", quick=False)
def two_threads(network: Network) -> None:
    module = network.make()
    x, _ = data()
    found: list[Tensor] = []

    def work() -> None:
        for _ in range(5):
            found.append(module(x))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(found) < 10:
        raise RuntimeError("a thread ended with an error")
    for outputs in found:
        close(outputs, network.plain(weights_of(module), x), "outputs")
