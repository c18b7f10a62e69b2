"""DDP and FSDP2 on 1 and 2 processes train as the plain network does, and save states with options.

FSDP2 resizes the storages of parameters between passes, so that nothing may have forbidden it.
"""

import copy

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from mgnet.knots import KAN, FreeKnotKAN

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")
X = 2.0 * torch.rand(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1.0
Y = torch.sin(3.0 * X[:, :1])
KINDS = {"KAN": KAN, "FreeKnotKAN": FreeKnotKAN}


def steps(network, x, y, parameters):
    """Five steps of Adam; the losses."""
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = (network(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def train_all(rank, size, file):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=size)
    for way in ("fsdp", "ddp"):
        for kind, linear in (("KAN", False), ("KAN", True), ("FreeKnotKAN", False)):
            train(rank, size, way, kind, linear)
    dist.destroy_process_group()


def train(rank, size, way, kind, linear):
    make = lambda: KINDS[kind]([2, 4, 3, 1], linear=linear)  # noqa: E731
    plain, kan = make(), make()
    kan(X).sum().backward()  # so that it is not quite fresh
    kan.zero_grad()
    part = slice(rank * len(X) // size, (rank + 1) * len(X) // size)
    wrapped = fully_shard(kan) if way == "fsdp" else DistributedDataParallel(kan)
    losses = steps(wrapped, X[part], Y[part], wrapped.parameters())
    dist.all_reduce(losses)
    expected = steps(plain, X, Y, plain.parameters())
    torch.testing.assert_close(losses / size, expected)
    torch.testing.assert_close(wrapped(X), plain(X))
    if way == "fsdp":
        assert isinstance(wrapped, KINDS[kind])
        state = get_model_state_dict(wrapped, options=StateDictOptions(full_state_dict=True))
        fresh = fully_shard(make())
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=False)
        set_model_state_dict(fresh, copy.deepcopy(plain.state_dict()), options=options)
        torch.testing.assert_close(fresh(X), plain(X))
    else:
        state = {name.removeprefix("module."): t for name, t in wrapped.state_dict().items()}
    if rank == 0:
        whole = make()
        whole.load_state_dict(state)
        torch.testing.assert_close(whole(X), plain(X))
        with pytest.raises(RuntimeError, match="hidden='tanh', but this one has hidden='identity'"):
            KINDS[kind]([2, 4, 3, 1], linear=linear, hidden="identity").load_state_dict(state)


@pytest.mark.filterwarnings("ignore")  # those of other processes
@pytest.mark.parametrize("size", [1, 2])
def test_training_is_that_of_the_plain_network(size, tmp_path):
    spawn(train_all, (size, str(tmp_path / "init")), nprocs=size)
