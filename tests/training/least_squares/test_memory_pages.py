"""Matrices of zeros, in whatever pages."""

import pytest
import torch

from mgnet.training.least_squares.memory_pages import keep_freed_memory, zeros


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 2), (0, 4), (1100, 1000)])
def test_zeros(dtype, shape):
    full = torch.full(shape, 3.0, dtype=dtype)
    del full  # memory that is not clear
    made = zeros(*shape, torch.ones(1, dtype=dtype))
    assert made.dtype == dtype and made.shape == shape and not made.any()
    made.add_(1.0)


def test_keeping_memory_changes_no_numbers():
    keep_freed_memory()
    assert torch.zeros(2**12).sum() == 0.0
