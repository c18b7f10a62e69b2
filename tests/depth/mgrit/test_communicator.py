"""Law: one process alone is its own neighbour; norms do not depend on how points are shared."""

from typing import Any

import pytest
import torch

from mgnet.depth.mgrit.communicator import (
    SERIAL_COMMUNICATOR,
    SerialCommunicator,
    gathered_norm,
    own_points,
    squares,
)
from mgnet.depth.mgrit.layer_hierarchy import layer_hierarchy


class Third(SerialCommunicator):
    """One of three processes that have the points of `whole` but the first, one after the other."""

    def __init__(self, whole, place):
        self.whole, self.place = whole, place

    def is_first(self, reverse):
        return self.place == (2 if reverse else 0)

    def gather(self, values):
        found = squares(self.whole)[None]
        assert any(torch.equal(values, found[:, i : i + values.shape[1]]) for i in range(7))
        return found


@pytest.mark.parametrize("reverse", [False, True])
def test_the_norm_is_the_same_bits_on_all(reverse):
    whole = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(0))
    bounds = [0, 3, 5, 6]
    norms = set()
    for place in range(3):
        part = whole[bounds[place] : bounds[place + 1] + 1]
        norms.add(gathered_norm(Third(whole, place), part, reverse))
    assert len(norms) == 1
    assert norms.pop() == pytest.approx(float(whole.double().norm()), rel=1e-14)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_hierarchy_with_neighbours_has_the_norm_of_all(reverse):
    whole = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(0))
    others: Any = Third(whole, 1)
    none: Any = None
    hierarchy = layer_hierarchy(none, 2, whole[0], levels=1, reverse=reverse, communicator=others)
    assert hierarchy.norm(whole[3:6]) == pytest.approx(float(whole.double().norm()), rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 7, 64, 1000, 4099])
def test_squares_do_not_depend_on_how_many_points_there_are(dtype, size):
    points = torch.randn(9, size, generator=torch.Generator().manual_seed(size)).to(dtype)
    together = squares(points)
    for first, last in ((0, 1), (3, 4), (1, 8)):
        assert torch.equal(squares(points[first:last].clone()), together[first:last])
    torch.testing.assert_close(together, points.double().norm(dim=1) ** 2, rtol=1e-13, atol=0.0)


def test_no_points_have_no_squares():
    assert squares(torch.ones(1, 4)[1:]).shape == (0,)


def test_own_points_leave_out_the_copy():
    points = torch.arange(4)
    assert own_points(points, reverse=False).tolist() == [1, 2, 3]
    assert own_points(points, reverse=True).tolist() == [0, 1, 2]


def test_alone_gives_everything_back():
    points = torch.randn(3, 2)
    for reverse in (False, True):
        assert SERIAL_COMMUNICATOR.receive(points, reverse) is points
        assert SERIAL_COMMUNICATOR.shift(points, reverse) is points
        assert SERIAL_COMMUNICATOR.broadcast_from_last(points, reverse) is points
    assert SERIAL_COMMUNICATOR.gathered(0) is None and SERIAL_COMMUNICATOR.allgather(points) == [
        points
    ]
    assert SERIAL_COMMUNICATOR.scatter_layers(SERIAL_COMMUNICATOR.gather_layers(points)) is points
    assert SERIAL_COMMUNICATOR.allgather_layers(points) is points
    assert torch.equal(SERIAL_COMMUNICATOR.gather(points), points)
