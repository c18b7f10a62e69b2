"""Who evaluates a block puts the tensors of a layer into its modules: one thread at a time."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

__all__ = ["lending"]

_locks = [threading.RLock()]


def lending() -> AbstractContextManager[Any]:
    """A context in which no other thread puts tensors into a block, reads its own or traces it.

    One lock for all blocks: traces change the methods of `torch.nn.Module` for the whole process,
    and blocks may hold networks. `torch.compile` meets none, and needs none: it runs no block.

    Examples
    --------
    >>> with lending(), lending():
    ...     pass
    """
    return nullcontext() if torch.compiler.is_compiling() else _locks[0]


def _renew() -> None:
    _locks[0] = threading.RLock()  # a thread that held it does not exist in the child


os.register_at_fork(after_in_child=_renew)
