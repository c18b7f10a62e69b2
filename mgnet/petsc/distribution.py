"""Networks distributed over MPI ranks: `distribute`, `distribute_layers`, `distribute_time`.

If there is only one process, these functions also work without petsc4py, so the same script runs
alone and under `mpiexec`.
"""

from __future__ import annotations

import hashlib
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from mgnet.depth import LayerParallel, TimeParallel
from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR
from mgnet.depth.parallel.whole_state import gather_state, load_state
from mgnet.depth.recurrent.time_share import Alone
from mgnet.limits import is_count, shown
from mgnet.petsc.layer_layout import LayerLayout

if TYPE_CHECKING:
    from petsc4py import PETSc

__all__ = ["distribute", "distribute_layers", "distribute_time", "gather_state", "load_state"]

SIZES = "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS"  # set by launchers


def distribute(
    parallel: LayerParallel,
    layers: int | None = None,
    batches: int | None = None,
    comm: PETSc.Comm | None = None,
) -> LayerParallel:
    """Distribute both layers and batches over a grid of MPI ranks.

    Consecutive groups of ranks hold `batches` copies of the network, each with its layers
    distributed over `layers` ranks. Call `mgnet.depth.accumulate_gradients(parallel, loss, batch)`
    instead of `loss.backward()`: every rank passes the same batch, each copy processes its part of
    the batch, and all copies get the gradient of the whole batch. If the number of microbatches is
    given explicitly, results are identical, bit for bit, on any grid (dense blocks, one thread per
    rank). Otherwise the notes on `distribute_layers` apply.

    Parameters
    ----------
    parallel : LayerParallel
        The module, changed in place: its parameters become new objects, so create the optimizer
        afterwards. `parallel.communicator.rank` is 0 on exactly one rank: print there.
    layers : int, optional
        Number of ranks that hold one copy of the network; by default all ranks divided by
        `batches`.
    batches : int, optional
        Number of copies of the network; by default all ranks divided by `layers`, or 1 if neither
        is given.
    comm : PETSc.Comm, optional
        The communicator; `PETSC_COMM_WORLD` by default.

    Returns
    -------
    LayerParallel
        The module `parallel` itself.

    Raises
    ------
    TypeError
        If `parallel` is not a `LayerParallel` module.
    ValueError
        If the product of `layers` and `batches` differs from the number of ranks, or if the weights
        differ between ranks.
    ModuleNotFoundError
        If a launcher started several processes but petsc4py is not installed.

    Examples
    --------
    >>> import torch
    >>> from mgnet.depth import ODENet, accumulate_gradients
    >>> net = ODENet(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()), layers=16)
    >>> parallel = distribute(LayerParallel(net), layers=1, batches=1)
    >>> def loss(module, batch):
    ...     return module(batch).square().mean()
    >>> value = accumulate_gradients(parallel, loss, torch.ones(8, 4), microbatches=4)
    >>> net.block[0].weight.grad.shape  # of the layers of this rank: here there is only one
    torch.Size([16, 4, 4])
    """
    if not isinstance(parallel, LayerParallel):
        raise TypeError(
            f"distribute got a module of type {type(parallel).__name__}; give LayerParallel(net)"
        )
    if not _has_ranks("distribute"):
        _grid(layers, batches, 1)
        return parallel
    from petsc4py import PETSc

    from mgnet.petsc.ranks import Ranks
    from mgnet.petsc.watch import rows_and_columns

    world: Any = comm or PETSc.COMM_WORLD
    _end_on_error(world)
    columns, rows = _grid(layers, batches, world.getSize())
    _check_same("distribute", parallel, world)
    beside = None
    if rows > 1:
        row, column = map(PETSc.Comm, rows_and_columns(world.tompi4py(), rows))
        world, beside = row, Ranks(column, LayerLayout(rows, 1, rows))
    layout = LayerLayout(parallel.net.depth, parallel.method.strides[-1], columns)
    ranks = Ranks(world, layout, beside)
    parallel.take_part(layout.of(ranks.place), ranks)
    return parallel


def distribute_layers(parallel: LayerParallel, comm: PETSc.Comm | None = None) -> LayerParallel:
    """Distribute the layers of a module over MPI ranks; each rank calls it as before.

    A script that builds the same module on every rank (with the same seed) and trains it in a plain
    loop then runs under `mpiexec -n P` with identical results, bit for bit, on any number of ranks
    (dense blocks, one thread per rank: set OMP_NUM_THREADS=1). All ranks must make the same calls
    with the same batches. Modules before and after the layers, shared weights and control points
    are on all ranks; the parameters of a layer, and an optimizer's state for them, are on one rank.
    An exception on any rank ends all of them.

    Parameters
    ----------
    parallel : LayerParallel
        The module, changed in place: its parameters become new objects, so create the optimizer
        afterwards. Operations that couple parameters need a sum over the ranks, which a plain loop
        does not compute: use `mgnet.depth.clip_grad_norm_` to clip by the norm of all gradients;
        L-BFGS does not work. `parallel.communicator.rank` is 0 on exactly one rank: print there.
    comm : PETSc.Comm, optional
        The communicator; `PETSC_COMM_WORLD` by default.

    Returns
    -------
    LayerParallel
        The module `parallel` itself.

    Raises
    ------
    TypeError
        If `parallel` is not a `LayerParallel` module.
    ValueError
        If the weights differ between ranks.
    ModuleNotFoundError
        If a launcher started several processes but petsc4py is not installed.

    Examples
    --------
    >>> import torch
    >>> from mgnet.depth import ODENet
    >>> net = ODENet(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()), layers=16)
    >>> parallel = distribute_layers(LayerParallel(net))
    >>> parallel(torch.ones(3, 4)).sum().backward()
    >>> net.block[0].weight.grad.shape  # of the layers of this rank: here there is only one
    torch.Size([16, 4, 4])
    """
    return distribute(parallel, batches=1, comm=comm)


def distribute_time(
    parallel: TimeParallel, pieces: int = 8, comm: PETSc.Comm | None = None
) -> TimeParallel:
    """Distribute a recurrent network's time steps over MPI ranks; each rank calls it as before.

    A script that builds the same module on every rank (with the same seed) and trains it in a plain
    loop then runs under `mpiexec -n P`. All ranks must make the same calls with the same batches.
    In every cycle, each rank computes its own time steps and stores what the cycles need of them,
    on all levels. Weights, inputs, outputs and gradients are complete on every rank, so each rank
    can have its own optimizer. An exception on any rank ends all of them.

    Parameters
    ----------
    parallel : TimeParallel
        The module, changed in place. With `mode="serial"`, every rank computes all steps, which
        does not save time. `parallel.communicator.rank` is 0 on exactly one rank: print there.
    pieces : int
        Number of pieces into which the time steps are divided; a rank computes its pieces one after
        another. Rounding depends on this number but not on the number of ranks, which may not
        exceed it (one thread per rank: set OMP_NUM_THREADS=1).
    comm : PETSc.Comm, optional
        The communicator; `PETSC_COMM_WORLD` by default.

    Returns
    -------
    TimeParallel
        The module `parallel` itself.

    Raises
    ------
    TypeError
        If `parallel` is not a `TimeParallel` module.
    ValueError
        If there are more ranks than pieces, or if weights or settings differ between ranks.
    ModuleNotFoundError
        If a launcher started several processes but petsc4py is not installed.

    Examples
    --------
    >>> import torch
    >>> gru = torch.nn.GRU(3, 8)
    >>> parallel, x = distribute_time(TimeParallel(gru)), torch.randn(500, 2, 3)
    >>> torch.allclose(parallel(x)[0], gru(x)[0], atol=1e-4)
    True
    """
    if not isinstance(parallel, TimeParallel):
        raise TypeError(
            f"distribute_time got a module of type {type(parallel).__name__}; give "
            "TimeParallel(gru)"
        )
    if not is_count(pieces, 1):
        raise ValueError(
            f"distribute_time got pieces {shown(pieces)}; give an integer of at least 1"
        )
    if not _has_ranks("distribute_time"):
        parallel.take_part(Alone(pieces), SERIAL_COMMUNICATOR)
        return parallel
    from petsc4py import PETSc

    from mgnet.petsc.time_ranks import TimeRanks

    world: Any = comm or PETSc.COMM_WORLD
    _end_on_error(world)
    if world.getSize() > pieces:
        raise ValueError(
            f"distribute_time got {world.getSize()} ranks for {pieces} pieces of time; give "
            f"pieces={world.getSize()}, which changes the rounding of the results"
        )
    _check_same("distribute_time", parallel, world)
    ranks = TimeRanks(world, pieces)
    parallel.take_part(ranks, ranks.communicator(1, 1))
    return parallel


def _has_ranks(name: str) -> bool:
    """Whether petsc4py is installed; if not, there must be only one process."""
    if find_spec("petsc4py") and find_spec("mpi4py"):
        return True
    if any(os.environ.get(each, "1") != "1" for each in SIZES):
        raise ModuleNotFoundError(
            f"{name} got several processes from a launcher, but petsc4py or mpi4py is not "
            "installed; install them, or start one process"
        )
    return False


def _end_on_error(world: PETSc.Comm) -> None:
    from mgnet.petsc.hooks import end_all_ranks_on_error

    if world.getSize() > 1:
        end_all_ranks_on_error(world)


def _fingerprint(parallel: torch.nn.Module) -> str:
    """A digest of all weights, buffers and settings."""
    found = hashlib.blake2b()
    for name, value in parallel.state_dict().items():
        found.update(name.encode())
        if isinstance(value, torch.Tensor):
            found.update(f"{value.shape} {value.dtype}".encode())
            if not value.is_meta:
                flat = value.cpu().contiguous().reshape(-1)
                found.update(flat.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _check_same(name: str, parallel: torch.nn.Module, world: PETSc.Comm) -> None:
    """Raise an error if the weights on a rank differ from those on the first rank."""
    from mgnet.petsc.watch import watch_of

    if world.getSize() < 2:
        return
    fingerprints = watch_of(world.tompi4py()).allgather(_fingerprint(parallel))
    other = [rank for rank, each in enumerate(fingerprints) if each != fingerprints[0]]
    if other:
        raise ValueError(
            f"{name} got a module on rank {other[0]} with other weights or settings than on "
            "rank 0; call torch.manual_seed with the same seed on all ranks before it is made"
        )


def _grid(layers: Any, batches: Any, size: int) -> tuple[int, int]:
    """The number of ranks per network, and the number of networks."""
    for name, number in (("layers", layers), ("batches", batches)):
        if number is not None and not is_count(number, 1):
            raise ValueError(
                f"distribute got {name} {shown(number)}; give a number of ranks, at least 1"
            )
    if layers is None:
        batches = 1 if batches is None else batches
        layers = max(size // batches, 1)
    elif batches is None:
        batches = max(size // layers, 1)
    if layers * batches != size:
        raise ValueError(
            f"distribute got layers {layers} and batches {batches} on {size} "
            f"{'rank' if size == 1 else 'ranks'}; start layers times batches ranks, with "
            f"mpiexec -n {layers * batches}, or give numbers with the product {size}"
        )
    return layers, batches
