"""Rows on copies and files."""

import copy
import io
import pickle
import tempfile
from pathlib import Path

import torch
from crossings.networks import Network, data, same_step
from crossings.rows import row
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

SECTION = "Copies and files"


def _used(network: Network) -> nn.Module:
    """A module after a step, with what it keeps between calls, and weights of its own."""
    module = network.make()
    same_step(network, module)
    module.zero_grad()
    with torch.no_grad():
        for value in module.parameters():
            value.mul_(0.9)
    return module


def _same(network: Network, module: nn.Module, loaded: nn.Module) -> None:
    for value, other in zip(module.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(value, other) and value is not other
    same_step(network, loaded)
    same_step(network, module)


@row(SECTION, "`copy.deepcopy`")
def deepcopy(network: Network) -> None:
    module = _used(network)
    _same(network, module, copy.deepcopy(module))


@row(SECTION, "`pickle`")
def pickled(network: Network) -> None:
    module = _used(network)
    _same(network, module, pickle.loads(pickle.dumps(module)))


@row(SECTION, "`torch.save` of the module, `torch.load(weights_only=False)`")
def saved_whole(network: Network) -> None:
    module, buffer = _used(network), io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    _same(network, module, torch.load(buffer, weights_only=False))


@row(SECTION, "`torch.save` of the `state_dict`, `torch.load(weights_only=True)`")
def saved_state(network: Network) -> None:
    module, buffer = _used(network), io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    loaded = network.make()
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    _same(network, module, loaded)


@row(SECTION, "`safetensors.torch.save_model`, `load_model`", "safetensors")
def safe_tensors(network: Network) -> None:
    import safetensors.torch

    module, loaded = _used(network), network.make()
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "model.safetensors")
        safetensors.torch.save_model(module, file)
        safetensors.torch.load_model(loaded, file)
    _same(network, module, loaded)


@row(SECTION, "`safetensors.torch.save_file` of the `state_dict`", "safetensors")
def safe_file(network: Network) -> None:
    import safetensors.torch

    module, loaded = _used(network), network.make()
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "model.safetensors")
        safetensors.torch.save_file(module.state_dict(), file)
        loaded.load_state_dict(safetensors.torch.load_file(file))
    _same(network, module, loaded)


@row(SECTION, "`torch.distributed.checkpoint` (DCP), module and Adam, in one process")
def distributed_checkpoint(network: Network) -> None:
    def adam(module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(module.parameters(), 0.01)

    module, loaded = _used(network), network.make()
    optimizer, other = adam(module), adam(loaded)
    for owner, stepper in ((module, optimizer), (loaded, other)):
        same_step(network, owner)
        stepper.step()
    with tempfile.TemporaryDirectory() as folder:
        weights, moments = get_state_dict(module, optimizer)
        save({"model": weights, "optimizer": moments}, checkpoint_id=folder)
        weights, moments = get_state_dict(loaded, other)
        state = {"model": weights, "optimizer": moments}
        load(state, checkpoint_id=folder)
        set_state_dict(
            loaded, other, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
        )
    _same(network, module, loaded)
    optimizer.step()
    other.step()
    _same(network, module, loaded)


@row(SECTION, "`load_state_dict(assign=True)` into a module that was used")
def assigned(network: Network) -> None:
    module, loaded = _used(network), network.make()
    loaded(data()[0])
    loaded.load_state_dict(copy.deepcopy(module.state_dict()), assign=True)
    _same(network, module, loaded)


@row(SECTION, "`module.share_memory()`")
def shared_memory(network: Network) -> None:
    same_step(network, _used(network).share_memory())
