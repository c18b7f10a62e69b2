"""Large matrices in memory of large pages, as NumPy asks for and PyTorch does not.

The system clears a page when it is first written, and each costs a call: a matrix of 45 MB takes
18 ms in pages of 4 KB and 3 ms in pages of 2 MB, as much as all products that fill it.
"""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["zeros"]


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
