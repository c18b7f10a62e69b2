"""A single layer as a module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from mgnet.depth.batched.scheme import advance, check_scheme, takes_time

__all__ = ["ResidualBlock"]


class ResidualBlock(torch.nn.Module):
    """A single layer: `u + s F(u)` or `u + s F(t, u)`, or a step of another Runge-Kutta scheme.

    Parameters
    ----------
    block : torch.nn.Module
        The function F.
    step : float or torch.nn.Parameter
        The step s; if it is a parameter, it is trained.
    time : float
        The time t.
    scheme : "euler", "midpoint", "heun", "heun3", "rk4" or "rk4_38"
        The Runge-Kutta scheme, as in `ODENet`.

    Raises
    ------
    TypeError
        If `block` is not a module.
    ValueError
        If `scheme` is unknown.

    Examples
    --------
    >>> layer = ResidualBlock(torch.nn.Identity(), 0.5)
    >>> layer(torch.tensor([2.0])).tolist()
    [3.0]
    """

    __call__: Callable[..., torch.Tensor]

    def __init__(
        self,
        block: torch.nn.Module,
        step: float | torch.nn.Parameter = 1.0,
        time: float = 0.0,
        scheme: str = "euler",
    ):
        super().__init__()
        check_scheme(scheme)
        if not isinstance(block, torch.nn.Module):
            raise TypeError(f"ResidualBlock got a {type(block).__name__}; give a torch.nn.Module")
        self.block = block
        self.step = step if isinstance(step, torch.nn.Parameter) else float(step)
        self.time = float(time)
        self.scheme = scheme
        self.timed = takes_time(block)

    def forward(self, u: torch.Tensor, **side: Any) -> torch.Tensor:
        """Compute the state after the layer; `side` are keyword arguments of the block."""
        block = partial(self.block, **side) if side else self.block
        if not self.timed:
            return advance(self.scheme, lambda t, u: block(u), self.time, u, self.step)
        # A tensor, as passed by an ODENet, so the block may call tensor functions on it.
        t = torch.full((), self.time, dtype=u.dtype, device=u.device)
        return advance(self.scheme, block, t, u, self.step)

    @property
    def number(self) -> float:
        """The step as a Python number."""
        return float(self.step.detach() if isinstance(self.step, torch.Tensor) else self.step)

    def extra_repr(self) -> str:
        return f"step={self.number:.6g}, time={self.time:.6g}, scheme={self.scheme!r}"
