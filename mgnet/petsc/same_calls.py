"""Checks that all ranks make the same call: `check_same_calls`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from mgnet.petsc.watch import Watch

__all__ = ["check_same_calls"]


def check_same_calls(watch: Watch, owner: str, told: Mapping[str, Any]) -> None:
    """Raise a ValueError on all ranks unless a call has the same properties on all of them.

    Otherwise the messages of ranks with different calls would not match: results would be wrong, or
    a rank would wait forever.

    Parameters
    ----------
    watch : Watch
        The `Watch` of the communicator.
    owner : str
        Name of the caller, for the message.
    told : mapping
        The properties that must be the same, by name: plain values, tensors, or trees of them. For
        a tensor, shape, precision, values, and whether it requires a gradient are compared.

    Raises
    ------
    ValueError
        If a property differs, or if the ranks are in different calls.

    Examples
    --------
    >>> from mpi4py import MPI
    >>> from mgnet.petsc.watch import watch_of
    >>> check_same_calls(watch_of(MPI.COMM_SELF), "odeint", {"y0": torch.ones(2)})
    """
    if not watch.several:
        return
    own = {name: repr(tree_map_only(Tensor, _digest, each)) for name, each in told.items()}
    first, *others = watch.allgather((owner, own))
    for rank, (name, other) in enumerate(others, 1):
        if (name, list(other)) != (first[0], list(first[1])):
            raise ValueError(
                f"rank 0 is in a call of {first[0]}, and rank {rank} in one of {name}; all ranks "
                "must make the same calls in the same order"
            )
        what = next((what for what, each in other.items() if each != first[1][what]), None)
        if what:
            raise ValueError(
                f"{owner}: the {what} of rank 0 and of rank {rank} are not the same; all ranks "
                "must make the same calls, so draw weights and data with one seed, and load them "
                "on all ranks"
            )


def _digest(x: Tensor) -> str:
    numbers = x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    found = hashlib.blake2b(numbers.tobytes(), digest_size=16).hexdigest()
    return f"{tuple(x.shape)} {x.dtype} {x.requires_grad} {found}"
