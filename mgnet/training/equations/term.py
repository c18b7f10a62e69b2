"""One kind of residual of a differential equation, and the points where it is evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from mgnet.training.equations.derivatives import Derivatives

__all__ = ["Term"]


@dataclass(frozen=True, eq=False)
class Term:
    """One kind of residual: in the interior, at the boundary, for initial values or for data.

    Parameters
    ----------
    residual : callable
        `u -> tensor` of shape (samples,) or (samples, components). Row i is computed from `u` at
        point i. A residual may use `u.points`, `u.value`, the derivatives `u.d(0)` and `u.d(0, 0)`,
        each of shape (samples, outputs), and `u.coefficients[name]`. See `Derivatives`.
    points : tensor of shape (samples, inputs), or a tuple of such
        Points of evaluation. With a tuple of points, the residual is a function `(u, v, ...) ->
        tensor`, where u belongs to the first points, v to the second points, and so on, such as the
        two sides of an interface or the two ends of a period.
    weight : float
        Weight of the mean of squares of this term in the loss, not negative.
    attention : tensor of shape (samples,), optional
        Factors of the residuals, 1 by default; see `Collocation.attended`.

    Raises
    ------
    TypeError, ValueError
        If the residual is not a function, or points, weight and attention do not fit.

    Examples
    --------
    >>> Term(lambda u: u.value, torch.zeros(5, 2)).samples
    5
    """

    residual: Callable[..., torch.Tensor]
    points: torch.Tensor | tuple[torch.Tensor, ...]
    weight: float = 1.0
    attention: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if not callable(self.residual):
            raise TypeError(
                f"Term got a residual of type {type(self.residual).__name__}; give a function of "
                "u, such as lambda u: u.d(0, 0)"
            )
        for points in self.places:
            if not isinstance(points, torch.Tensor) or points.dim() != 2 or not len(points):
                shape = tuple(points.shape) if isinstance(points, torch.Tensor) else type(points)
                raise ValueError(
                    f"Term got points of {shape}; give a tensor of shape (samples, inputs), with "
                    "at least one sample, such as x.unsqueeze(1)"
                )
            if len(points) != self.samples:
                raise ValueError(
                    f"Term got {self.samples} and {len(points)} points; give equal numbers of both"
                )
        if not 0.0 <= self.weight < math.inf:
            raise ValueError(f"Term got weight {self.weight}; it must be finite and not negative")
        if self.attention is not None and self.attention.shape != (self.samples,):
            raise ValueError(
                f"Term got attention of shape {tuple(self.attention.shape)} for {self.samples} "
                f"points; it must be ({self.samples},)"
            )

    @property
    def places(self) -> tuple[torch.Tensor, ...]:
        """The points as a tuple."""
        return self.points if isinstance(self.points, tuple) else (self.points,)

    @property
    def samples(self) -> int:
        """Number of points, or of pairs of them."""
        return len(self.places[0])

    def at(self, *functions: Derivatives) -> torch.Tensor:
        """The residuals without weight and attention, of shape (samples, components).

        Raises
        ------
        TypeError, ValueError
            If the function returns something else.
        """
        r = self.residual(*functions)
        if not isinstance(r, torch.Tensor):
            raise TypeError(
                f"the residual of a term gave {type(r).__name__}; it must give a tensor of shape "
                "(samples,) or (samples, components)"
            )
        if (
            not r.dim()
            or len(r) != self.samples
            or r.dim() > 2
            or (r.dim() == 2 and r.shape[1] == len(r) > 1)
        ):
            raise ValueError(
                f"the residual of a term gave shape {tuple(r.shape)} for {self.samples} points; it "
                "must give (samples,) or (samples, components): values have shape (samples, "
                "outputs), so write columns of points as u.points[:, :1]"
            )
        return r.unflatten(0, (-1, 1)) if r.dim() == 1 else r

    def scaled(self, r: torch.Tensor) -> torch.Tensor:
        """Scale residuals so that their sum of squares is the weighted mean of squares."""
        r = r * (self.weight / self.samples) ** 0.5
        return r if self.attention is None else r * self.attention.unsqueeze(1)

    def part(self, begin: int, end: int) -> Term:
        """The same term at some of its points, with their residuals."""
        places = tuple(part[begin:end] for part in self.places)
        points = places if isinstance(self.points, tuple) else places[0]
        attention = None if self.attention is None else self.attention[begin:end]
        weight = self.weight * len(places[0]) / self.samples
        return replace(self, points=points, attention=attention, weight=weight)

    def subsampled(self, fraction: float) -> Term:
        """The same term at a subset of its points, evenly spaced in their order."""
        count = max(1, round(fraction * self.samples))
        if count >= self.samples:
            return self
        return self.at_points(torch.arange(count) * self.samples // count)

    def at_points(self, kept: torch.Tensor) -> Term:
        """The same term at some of its points, with the full weight."""
        places = tuple(part[kept] for part in self.places)
        points = places if isinstance(self.points, tuple) else places[0]
        attention = None if self.attention is None else self.attention[kept]
        return replace(self, points=points, attention=attention)
