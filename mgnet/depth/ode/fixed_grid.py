"""Time grids with a given step size: ends of the steps, and interpolation to requested times."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mgnet.limits import shown

__all__ = ["TimeGrid", "check_count"]


@dataclass(frozen=True, eq=False)
class TimeGrid:
    """The points of a time grid, and the times at which states are requested.

    Attributes
    ----------
    points : Tensor of shape (N + 1,)
        Points, increasing or decreasing; differentiable functions of the requested times.
    right : Tensor of int of shape (K,)
        Number of the first point at or after each requested time.
    share : Tensor of shape (K,), optional
        Position of each requested time between the previous point (0) and the point `right` (1); by
        default, all requested times are points of the grid.

    Examples
    --------
    >>> t = torch.tensor([0.0, 0.3, 1.0])
    >>> TimeGrid.at_most(t, 0.5, 100).points
    tensor([0.0000, 0.3000, 0.6500, 1.0000])
    >>> grid = TimeGrid.interpolated(t, 0.5, 100)
    >>> grid.points, grid.right
    (tensor([0.0000, 0.5000, 1.0000]), tensor([0, 1, 2]))
    """

    points: Tensor
    right: Tensor
    share: Tensor | None = None

    @classmethod
    def of_times(cls, t: Tensor) -> TimeGrid:
        """Create a grid with one step from each time to the next."""
        return cls(t, torch.arange(len(t)))

    @classmethod
    def cut(cls, t: Tensor, parts: Tensor) -> TimeGrid:
        """Divide each interval of t into the given numbers (K - 1,) of equal steps."""
        right = torch.cat([parts.new_zeros(1), parts.cumsum(0)])
        left = torch.repeat_interleave(torch.arange(len(parts)), parts)
        inside = torch.arange(len(left)) - right[left]
        share = (inside.double() / parts[left]).to(t)
        start = t[left.to(t.device)]
        points = start + share * (t[1:] - t[:-1])[left.to(t.device)]
        return cls(torch.cat([points, t[-1:]]), right)

    @classmethod
    def at_most(cls, t: Tensor, step_size: float, max_steps: int) -> TimeGrid:
        """Create steps of at most this length (up to rounding) that lead to all requested times."""
        ratio = (t.detach()[1:] - t.detach()[:-1]).abs().double().cpu() / step_size
        parts = (ratio - _slack(t, step_size)).ceil().clamp_min(1.0)
        check_count(float(parts.sum()), max_steps)
        return cls.cut(t, parts.long())

    @classmethod
    def interpolated(cls, t: Tensor, step_size: float, max_steps: int) -> TimeGrid:
        """Create torchdiffeq's grid: steps of this length from t[0]; the last one ends at t[-1].

        States at other times are linear interpolants. Source: torchdiffeq 0.2.5,
        `FixedGridODESolver`.
        """
        length = (t[-1] - t[0]).detach().abs()
        # In the precision of t, as in torchdiffeq, because rounding may decide about one more step.
        count = float(torch.ceil(length / step_size + 1)) - 1.0 if len(t) > 1 else 0.0
        check_count(count, max_steps)
        sign = 1.0 if len(t) < 2 or bool(t[1] > t[0]) else -1.0
        numbers = torch.arange(int(count), dtype=t.dtype, device=t.device)
        points = torch.cat([numbers * (sign * step_size) + t[0], t[-1:]])
        ahead, asked = (sign * points.detach()).contiguous(), (sign * t.detach()).contiguous()
        right = torch.searchsorted(ahead, asked).clamp_max(len(points) - 1)
        left = (right - 1).clamp_min(0)
        there = ahead[right] == asked
        length = torch.where(there, torch.ones_like(t), points[right] - points[left])
        share = torch.where(there, torch.ones_like(t), (t - points[left]) / length)
        return cls(points, right.cpu(), share)

    def at_asked(self, states: Tensor) -> Tensor:
        """The states at the requested times from those at all points, (N + 1, ...)."""
        right = self.right.to(states.device)
        found = states[right]
        if self.share is None:
            return found
        before = states[(right - 1).clamp_min(0)]
        share = self.share.to(states).reshape(-1, *(1,) * (states.dim() - 1))
        return torch.where(share == 1.0, found, before + share * (found - before))


def check_count(steps: float, max_steps: int) -> None:
    """Raise an error if there are more steps than allowed.

    Raises
    ------
    ValueError
        If the number exceeds `max_steps`.

    Examples
    --------
    >>> check_count(11, 10)
    Traceback (most recent call last):
    ValueError: odeint got a grid of 11 steps, more than max_steps = 10; give a larger step_size, \
or a larger max_steps
    """
    if not steps <= max_steps:
        raise ValueError(
            f"odeint got a grid of {steps:.10g} steps, more than max_steps = {shown(max_steps)}; "
            "give a larger step_size, or a larger max_steps"
        )


def _slack(t: Tensor, step_size: float) -> float:
    """The amount by which rounding of the times may increase the number of steps in an interval."""
    return 8.0 * torch.finfo(t.dtype).eps * (float(t.detach().abs().max()) / step_size + 1.0)
