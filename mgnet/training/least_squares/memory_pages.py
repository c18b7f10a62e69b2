"""Memory whose pages cost little: large ones, and ones that are kept.

The system clears a page when it is first written, and each costs a call. A matrix of 45 MB takes
18 ms in pages of 4 KB and 3 ms in pages of 2 MB, which NumPy asks for and PyTorch does not; as
much as all products that fill it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

__all__ = ["keep_freed_memory", "zeros"]


def zeros(rows: int, columns: int, like: torch.Tensor) -> torch.Tensor:
    """A matrix of zeros with the precision and on the device of another tensor.

    Parameters
    ----------
    rows, columns : int
    like : tensor

    Returns
    -------
    tensor of shape (rows, columns)

    Examples
    --------
    >>> zeros(2, 3, torch.ones(1)).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if like.device.type != "cpu" or like.dtype not in (torch.float32, torch.float64):
        return like.new_zeros(rows, columns)
    # Not `np.zeros`: that memory comes cleared, in small pages.
    memory = np.empty((rows, columns), np.float32 if like.dtype == torch.float32 else np.float64)
    return torch.from_numpy(memory).zero_()


@cache
def keep_freed_memory() -> None:
    """Let the process keep up to 50 MB that it freed, for the next tensors.

    Else a loop over blocks gets every tensor of 100 KB in fresh pages: twice the time. The C
    library of Linux takes the largest block that was ever freed, up to 32 MB, for the size from
    which memory goes back at once (mallopt, M_MMAP_THRESHOLD). This one is never written, so it
    takes no memory; elsewhere it does nothing.

    Examples
    --------
    >>> keep_freed_memory()
    """
    torch.empty(24 * 2**20, dtype=torch.uint8)
