"""One layer on its own, and the schemes that make a step of it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import torch

from mgnet.depth.block import STAGES
from mgnet.depth.layer_stack import takes_time

__all__ = ["ResidualBlock", "advance", "check_scheme"]

SCHEMES = tuple(STAGES)


class ResidualBlock(torch.nn.Module):
    """One layer on its own: `u + s F(u)`, or `u + s F(t, u)`, or a step of Heun or RK4.

    Parameters
    ----------
    block : torch.nn.Module
        F.
    step : float or torch.nn.Parameter
        s; a parameter is an output gate and is trained.
    time : float
        t.
    scheme : "euler", "heun" or "rk4"

    Examples
    --------
    >>> layer = ResidualBlock(torch.nn.Identity(), 0.5)
    >>> layer(torch.tensor([2.0])).tolist()
    [3.0]
    """

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

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """The state after the layer."""
        F = self.block if self.timed else lambda t, u: self.block(u)
        return advance(self.scheme, F, self.time, u, self.step)

    @property
    def number(self) -> float:
        """The step as a number."""
        return float(self.step.detach() if isinstance(self.step, torch.Tensor) else self.step)

    def extra_repr(self) -> str:
        return f"step={self.number:.6g}, time={self.time:.6g}, scheme={self.scheme!r}"


def advance(scheme: str, F: Callable, t: Any, u: torch.Tensor, s: Any) -> torch.Tensor:
    """One step of a scheme; s is a number or a tensor without axes.

    Examples
    --------
    >>> advance("heun", lambda t, u: u, 0.0, torch.ones(1), 1.0).tolist()
    [2.5]
    """
    k = F(t, u)
    if k.shape != u.shape:
        raise ValueError(
            f"the block gave a tensor of shape {tuple(k.shape)} for a state of shape "
            f"{tuple(u.shape)}; it must keep the shape: change sizes in `before` and `after`"
        )
    if scheme == "heun":
        k = 0.5 * (k + F(t + s, u + s * k))
    elif scheme == "rk4":
        second = F(t + 0.5 * s, u + 0.5 * s * k)
        third = F(t + 0.5 * s, u + 0.5 * s * second)
        k = (k + 2.0 * (second + third) + F(t + s, u + s * third)) / 6.0
    return u + s * k if isinstance(s, torch.Tensor) else torch.add(u, k, alpha=s)


def check_scheme(scheme: str) -> None:
    """Raise a ValueError with the nearest name, unless there is such a scheme.

    Examples
    --------
    >>> check_scheme("rk5")
    Traceback (most recent call last):
    ValueError: got scheme 'rk5'; it must be one of euler, heun, rk4 (did you mean rk4?)
    """
    if scheme not in SCHEMES:
        near = difflib.get_close_matches(str(scheme), SCHEMES, 1, 0.0)[0]
        raise ValueError(
            f"got scheme {scheme!r}; it must be one of {', '.join(SCHEMES)} (did you mean {near}?)"
        )
