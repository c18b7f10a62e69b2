"""Law: pieces are those of `torch.tensor_split`, and their shares are those of their rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgnet.depth.parallel.batch_pieces import fingerprint, pieces_of


@given(st.integers(1, 30), st.data())
def test_pieces_are_those_of_a_split(rows, data):
    count = data.draw(st.integers(1, rows))
    x = torch.arange(2.0 * rows).reshape(rows, 2)
    pieces = pieces_of({"x": x, "about": "words"}, count)
    wanted = x.tensor_split(count)
    assert len(pieces) == len(wanted)
    for (piece, share), part in zip(pieces, wanted, strict=True):
        assert torch.equal(piece["x"], part) and piece["about"] == "words"
        assert share == pytest.approx(len(part) / rows)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_other_ends_shapes_and_types_have_another_fingerprint(dtype):
    x = (torch.arange(12).reshape(4, 3) % 5).to(dtype)
    others = [x.flip(0), x[:3], x.reshape(2, 6), x.to(torch.float32), [x, x]]
    assert fingerprint(x) == fingerprint((x.clone(),))
    assert all(fingerprint(x) != fingerprint(other) for other in others)
