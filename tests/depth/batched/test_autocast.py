"""Law: a backward pass has the autocast of its forward pass, wherever it is called."""

import pytest
import torch

from mgnet.depth.batched.autocast import cast_of, same_cast


def test_nothing_is_cast_without_autocast():
    assert cast_of("cpu") is None
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        assert cast_of("cpu") is None


@pytest.mark.parametrize("inside", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("later", [None, torch.bfloat16, torch.float16])
def test_it_comes_back_whatever_there_is_later(inside, later):
    with torch.autocast("cpu", inside or torch.bfloat16, enabled=inside is not None):
        again = same_cast("cpu")
        wanted = torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype
    with torch.autocast("cpu", later or torch.bfloat16, enabled=later is not None):
        with again():
            assert cast_of("cpu") == inside
            assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == wanted
        assert cast_of("cpu") == later
