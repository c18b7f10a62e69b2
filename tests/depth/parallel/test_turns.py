"""Laws: a march one by one has the points of the steps, rows added after each."""

import torch

from mgnet.depth.parallel.turns import in_turn, summed


def test_points_of_steps():
    slopes, scales = [torch.sin, torch.cos], [torch.tensor(0.5), torch.tensor(2.0)]
    start, rows = torch.tensor([1.0]), [torch.tensor([3.0]), torch.tensor([-1.0])]
    one = start + 0.5 * start.sin()
    torch.testing.assert_close(in_turn(slopes, scales, start, None)[1], one)
    points = in_turn(slopes, scales, start, rows)
    torch.testing.assert_close(points[1], one + 3.0)
    torch.testing.assert_close(points[2], points[1] + 2.0 * points[1].cos() - 1.0)


def test_sums_of_rows():
    start, rows = torch.tensor([1.0]), [torch.tensor([3.0]), torch.tensor([-1.0])]
    assert torch.cat(summed(2, start, rows)).tolist() == [1.0, 4.0, 3.0]
    assert torch.cat(summed(2, start, None)).tolist() == [1.0, 1.0, 1.0]
