"""A lock that lets one thread at a time place the tensors of a layer in the modules of a block."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

__all__ = ["aliases", "lending"]

_locks = [threading.RLock()]


def lending() -> AbstractContextManager[Any]:
    """A context in which no other thread places tensors in a block, reads its tensors or traces it.

    There is one lock for all blocks, because tracing changes methods of `torch.nn.Module` for the
    whole process, and blocks may contain networks. While `torch.compile` compiles code, no lock is
    needed, because blocks are not run.

    Examples
    --------
    >>> with lending(), lending():
    ...     pass
    """
    return nullcontext() if torch.compiler.is_compiling() else _locks[0]


def aliases(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors, with each parameter replaced by a view, which operations use in its place.

    PyTorch 2.13 may deadlock if several threads concurrently create graph nodes for one parameter:
    they acquire the tensor's lock and Python's global lock in different orders. Views are therefore
    created one after another.

    Examples
    --------
    >>> parameter = torch.nn.Parameter(torch.ones(2))
    >>> (view,) = aliases([parameter])
    >>> view is parameter, view.data_ptr() == parameter.data_ptr(), view.requires_grad
    (False, True, True)
    """
    if not torch.is_grad_enabled():
        return list(tensors)
    with lending():
        return [x.view_as(x) if x.requires_grad and x.is_leaf else x for x in tensors]


def _renew() -> None:
    _locks[0] = threading.RLock()  # a thread that held the lock does not exist in the child


os.register_at_fork(after_in_child=_renew)
