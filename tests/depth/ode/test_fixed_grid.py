"""Laws: grids meet the times, with no step too many; states between points lie on lines."""

import pytest
import torch

from mgnet.depth.ode.fixed_grid import TimeGrid, check_count


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_equal_steps_in_every_interval(dtype, sign):
    torch.manual_seed(0)
    t = sign * (torch.rand(9, dtype=dtype) + 0.01).cumsum(0)
    grid = TimeGrid.at_most(t, 0.17, 1000)
    assert torch.equal(grid.points[grid.right], t)
    for k in range(8):
        steps = grid.points[grid.right[k] : grid.right[k + 1] + 1].diff()
        torch.testing.assert_close(steps, steps.mean().expand(len(steps)), rtol=1e-3, atol=1e-6)
        assert len(steps) == int(torch.ceil((t[k + 1] - t[k]).abs() / 0.17))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [3, 7, 10, 49, 1000])
def test_rounding_makes_no_further_step(dtype, count):
    """Times that are multiples of the step, but for rounding."""
    t = torch.linspace(0.0, 1.0, count + 1, dtype=dtype)
    assert len(TimeGrid.at_most(t, 1.0 / count, 10**4).points) == count + 1
    assert len(TimeGrid.at_most(t[[0, -1]], 1.0 / count, 10**4).points) == count + 1


def test_lines_between_the_points():
    t = torch.tensor([0.0, 0.5, 0.7, 2.2], dtype=torch.float64)
    for sign in (1.0, -1.0):
        grid = TimeGrid.interpolated(sign * t, 0.5, 100)
        expected = sign * torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 2.2], dtype=torch.float64)
        torch.testing.assert_close(grid.points, expected)
        states = torch.stack([grid.points**2, grid.points], 1)
        found = grid.at_asked(states)
        torch.testing.assert_close(found[:, 1], sign * t)
        torch.testing.assert_close(found[2, 0], torch.tensor(0.25 + 0.4 * 0.75).double())


@pytest.mark.parametrize("make", [TimeGrid.at_most, TimeGrid.interpolated])
def test_gradients_by_the_times(make):
    t = torch.tensor([0.1, 0.55, 1.7], dtype=torch.float64, requires_grad=True)

    def sampled(t):
        grid = make(t, 0.25, 100)
        return grid.at_asked(torch.sin(grid.points)[:, None])

    assert torch.autograd.gradcheck(sampled, (t,))


def test_too_many_steps():
    t = torch.tensor([0.0, 1.0])
    for make in (TimeGrid.at_most, TimeGrid.interpolated):
        with pytest.raises(ValueError, match="steps, more than max_steps = 10; give a larger"):
            make(t, 1e-3, 10)
        with pytest.raises(ValueError, match="more than max_steps"):
            make(t, 1e-300, 10)
    check_count(10, 10)
