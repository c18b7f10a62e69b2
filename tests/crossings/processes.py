"""Rows on several processes, two with gloo."""

import tempfile

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
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh

SECTION = "Two processes (gloo)"


def adam(values) -> torch.optim.Optimizer:
    return torch.optim.Adam([*values], 0.01)


def _train(module: nn.Module, optimizer: torch.optim.Optimizer, steps) -> None:
    """Each process has every other sample of each batch."""
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    for x, y in steps:
        optimizer.zero_grad()
        loss_of(module(x[rank::ranks]), y[rank::ranks]).backward()
        optimizer.step()


def _ddp(network: Network, **options) -> None:
    module, steps = network.make(), batches(4)
    right = plainly_trained(network, weights_of(module), adam, steps)
    wrapped = nn.parallel.DistributedDataParallel(module, **options)
    _train(wrapped, adam(wrapped.parameters()), steps)
    close(weights_of(wrapped), right, "weights", 1e-7)


@row(SECTION, "`DistributedDataParallel` (DDP)", ranks=2, quick=False)
def ddp(network: Network) -> None:
    _ddp(network)


@row(
    SECTION, "DDP with `static_graph=True` and `gradient_as_bucket_view=True`", ranks=2, quick=False
)
def ddp_static(network: Network) -> None:
    _ddp(network, static_graph=True, gradient_as_bucket_view=True)


@row(SECTION, "DDP with `no_sync` and `find_unused_parameters=True`", ranks=2, quick=False)
def ddp_no_sync(network: Network) -> None:
    module, (x, y) = network.make(), data()
    wrapped = nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)
    rank = torch.distributed.get_rank()
    with wrapped.no_sync():
        loss_of(wrapped(x[rank::2]), y[rank::2]).backward()
    loss_of(wrapped(x[rank::2]), y[rank::2]).backward()
    right = plain_gradients(network, weights_of(module), lambda f: loss_of(f(x), y))
    close(gradients(wrapped), {name: 2.0 * value for name, value in right.items()}, "gradients")


def _whole(module: nn.Module) -> dict[str, Tensor]:
    from torch.distributed.tensor import DTensor

    return {
        name.removeprefix("net."): value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in module.named_parameters()
    }


def _sharded(network: Network) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    return fully_shard(network.make(), mesh=mesh)


@row(SECTION, "FSDP2, `fully_shard` of the module", ranks=2, quick=False)
def fsdp2(network: Network) -> None:
    steps = batches(4)
    right = plainly_trained(network, weights_of(network.make()), adam, steps)
    module = _sharded(network)
    _train(module, adam(module.parameters()), steps)
    close(_whole(module), right, "weights", 1e-7)


@row(SECTION, "FSDP2 of its parts, then of the whole", ranks=2, quick=False)
def fsdp2_parts(network: Network) -> None:
    from torch.distributed.fsdp import fully_shard

    steps = batches(4)
    module = network.make()
    right = plainly_trained(network, weights_of(module), adam, steps)
    mesh = init_device_mesh("cpu", (2,))
    inside = getattr(module, "net", module)
    for part in (getattr(inside, name, None) for name in ("linear", "before", "after")):
        if part is not None:
            fully_shard(part, mesh=mesh)
    fully_shard(module, mesh=mesh)
    _train(module, adam(module.parameters()), steps)
    close(_whole(module), right, "weights", 1e-7)


@row(SECTION, "FSDP2 with `MixedPrecisionPolicy(param_dtype=torch.bfloat16)`", ranks=2, quick=False)
def fsdp2_mixed(network: Network) -> None:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    module, (x, _) = network.make().float(), data(torch.float32)
    weights = weights_of(module)
    mesh = init_device_mesh("cpu", (2,))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, output_dtype=torch.float32)
    outputs = fully_shard(module, mesh=mesh, mp_policy=policy)(x)
    close(outputs, network.plain(weights, x.double()), "outputs", 5e-2)
    outputs.sum().backward()


@row(SECTION, "DCP of an FSDP2 module and Adam, then one whole state", ranks=2, quick=False)
def sharded_checkpoint(network: Network) -> None:
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
        get_state_dict,
        set_state_dict,
    )

    steps = batches(4)
    right = plainly_trained(network, weights_of(network.make()), adam, steps)
    module = _sharded(network)
    optimizer = adam(module.parameters())
    _train(module, optimizer, steps[:2])
    folder = [tempfile.mkdtemp()]
    torch.distributed.broadcast_object_list(folder)
    weights, moments = get_state_dict(module, optimizer)
    save({"model": weights, "optimizer": moments}, checkpoint_id=folder[0])
    other = _sharded(network)
    stepper = adam(other.parameters())
    weights, moments = get_state_dict(other, stepper)
    state = {"model": weights, "optimizer": moments}
    load(state, checkpoint_id=folder[0])
    set_state_dict(
        other, stepper, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
    )
    _train(other, stepper, steps[2:])
    close(_whole(other), right, "weights", 1e-7)
    whole = get_model_state_dict(other, options=StateDictOptions(full_state_dict=True))
    alone = network.make()
    if torch.distributed.get_rank() == 0:
        alone.load_state_dict(whole)
        close(weights_of(alone), right, "weights of the whole state", 1e-7)
        same_step(network, alone)


@row(SECTION, '`torch.compile(backend="eager")` of a DDP module', ranks=2, quick=False)
def ddp_compiled(network: Network) -> None:
    module, steps = network.make(), batches(2)
    right = plainly_trained(network, weights_of(module), adam, steps)
    wrapped = nn.parallel.DistributedDataParallel(module)
    _train(torch.compile(wrapped, backend="eager"), adam(wrapped.parameters()), steps)
    close(weights_of(wrapped), right, "weights", 1e-7)


@row(SECTION, "`ZeroRedundancyOptimizer`", ranks=2, quick=False)
def zero_redundancy(network: Network) -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    module, steps = network.make(), batches(4)
    right = plainly_trained(network, weights_of(module), adam, steps)
    wrapped = nn.parallel.DistributedDataParallel(module)
    optimizer = ZeroRedundancyOptimizer(wrapped.parameters(), torch.optim.Adam, lr=0.01)
    _train(wrapped, optimizer, steps)
    close(weights_of(wrapped), right, "weights", 1e-7)
    if torch.distributed.get_world_size() != 2:
        raise WrongNumberError("not two processes")
