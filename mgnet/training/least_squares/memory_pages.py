"""Reduce the cost of memory pages by using large pages and keeping freed ones.

The system clears a memory page when it is first written, with a system call for each page. A matrix
of 45 MB takes 18 ms in pages of 4 KB and 3 ms in pages of 2 MB, which NumPy requests and PyTorch
does not; the products that fill the matrix take about as long as that.
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
        Shape of the matrix.
    like : tensor
        Tensor that gives precision and device.

    Returns
    -------
    tensor of shape (rows, columns)
        The matrix.

    Examples
    --------
    >>> zeros(2, 3, torch.ones(1)).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if like.device.type != "cpu" or like.dtype not in (torch.float32, torch.float64):
        return like.new_zeros(rows, columns)
    # Not `np.zeros`: that memory is cleared already, in small pages.
    memory = np.empty((rows, columns), np.float32 if like.dtype == torch.float32 else np.float64)
    return torch.from_numpy(memory).zero_()


@cache
def keep_freed_memory() -> None:
    """Let the process keep up to 50 MB of freed memory for the next tensors.

    Otherwise every tensor of 100 KB in a loop over blocks gets new pages, and the loop takes twice
    the time. The C library of Linux returns a freed block to the system at once only if it is
    larger than the largest block freed so far, up to 32 MB (see M_MMAP_THRESHOLD in the manual of
    mallopt). The block here is never written, so it takes no memory. On other systems this has no
    effect.

    Examples
    --------
    >>> keep_freed_memory()
    """
    torch.empty(24 * 2**20, dtype=torch.uint8)
