"""Gradient descent on the coefficients of a KAN, in two geometries."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from mgnet.knots.change_of_basis import channel_gradient, from_channels
from mgnet.knots.kan import KAN
from mgnet.knots.refinement import uniform_knots
from mgnet.linesearch import Backtracking
from mgnet.smoother import Smoother
from mgnet.training.least_squares.recentred import Recentred
from mgnet.training.loss.checks import check_finite, check_range
from mgnet.training.loss.objective import Objective

if TYPE_CHECKING:
    from mgnet.level import Level
    from mgnet.transfer import Transfer

__all__ = ["GradientDescent"]

OWN = re.compile(r"linear\.(weight|bias)|coefficients\.\d+")  # names of parameters


@dataclass(frozen=True)
class GradientDescent(Smoother):
    """Steepest descent with a line search, in the spline geometry or in the ReLU geometry.

    In the spline geometry, a step gives `u - eta g`: it is local and reduces the error that a
    coarser level cannot represent. In the ReLU geometry, it gives `u - eta A^-T A^-1 g`: exactly
    the step of gradient descent on the weights `w = A^T u` of the `MultichannelMLP`. Such steps
    reduce smooth modes first, which the coarser level has already fitted. Source: Southworth et
    al., arXiv 2603.04827, the two preconditioned updates with D = I.

    The step length is kept between sweeps, doubled after a success, and halved until the objective
    decreases sufficiently (Armijo's rule), so no sweep raises the objective. A sweep costs a
    gradient, a value, and a value per trial.

    Parameters
    ----------
    geometry : "spline" or "relu"
        "relu" needs a level whose operator is the `Objective` of a KAN, with or without
        recentering; a leading linear layer takes plain gradient steps. "spline" is for any level
        with an objective.
    line_search : callable
        A function `(level, u, d, f, r)` that returns the fraction of the step d to take; 0 rejects
        it.

    Raises
    ------
    ValueError
        If `geometry` is unknown.
    TypeError
        In a sweep, if the level has no objective or, for "relu", no `Objective` of a plain KAN.

    Examples
    --------
    >>> from mgnet import Level
    >>> from mgnet.training import LeastSquares
    >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1)
    >>> problem = LeastSquares(KAN([1, 1], intervals=16), (x, torch.sin(8 * x)))
    >>> u = problem.start()
    >>> for smoother in (GradientDescent(), GradientDescent("relu")):
    ...     level = Level(problem, smoother, objective=problem.value)
    ...     v, _ = smoother.smooth(level, u, None, 50, smoother.start(level, u))
    ...     print(f"{problem.value(v):.0e}")
    8e-05
    3e-01
    """

    geometry: str = "spline"
    # Forty, because the first length is a guess, and the geometries have very different curvatures.
    line_search: Callable[..., float] = Backtracking(trials=40)
    fixed_work: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.geometry not in ("spline", "relu"):
            raise ValueError(
                f"GradientDescent got geometry {self.geometry!r}; it must be 'spline' or 'relu'"
            )

    def start(self, level: Level, u: torch.Tensor) -> float:
        """The initial trial step length."""
        return 1.0

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Any
    ) -> tuple[torch.Tensor, float]:
        if level.objective is None:
            raise TypeError(f"{self} on {level} needs an objective; give Level(objective=...)")
        length = memory
        for number in range(sweeps):
            r = level.residual_at(u, f)  # the negative gradient
            if number == 0:
                check_finite(self, level, u, r)
                if memory == 1.0:  # the initial value
                    check_range(self, level, r)
            d = length * (r if self.geometry == "spline" else _in_relu_geometry(level, r))
            fraction = self.line_search(level, u, d, f, r)
            if fraction == 0.0:
                break  # at rounding level; the next sweep would also be rejected
            u = u + fraction * d
            length *= 2.0 if fraction == 1.0 else fraction
        return u, length

    def carry(self, memory: Any, transfer: Transfer) -> Any:
        return memory

    def work(self, level: Level, sweeps: int) -> float:
        # A gradient, a value, and on average three trials per two sweeps: doubled, then halved.
        return 3.5 * sweeps

    def __str__(self) -> str:
        return f"GradientDescent({self.geometry!r})"


def _in_relu_geometry(level: Level, r: torch.Tensor) -> torch.Tensor:
    """The product A^-T A^-1 r, layer by layer."""
    operator: Any = level.operator
    if not isinstance(operator, Objective) or not isinstance(operator.network, KAN):
        raise TypeError(
            f"GradientDescent('relu') on {level} got an operator of type "
            f"{type(operator).__name__}; it needs an Objective of a KAN, or the geometry 'spline'"
        )
    kan, shapes = operator.network, list(operator.shapes.values())
    others = [name for name in operator.shapes if not OWN.fullmatch(name)]
    if others:
        raise TypeError(
            f"GradientDescent('relu') on {level} supports only the parameters of a KAN, but this "
            f"{type(kan).__name__} also has {others[0]}; take the geometry 'spline'"
        )
    if isinstance(operator, Recentred):  # its network is fine, and its unknowns are coarse
        shapes = [torch.Size(shape) for shape, _ in operator.transfer.parts]  # type: ignore
    parts = []
    for shape, part in zip(shapes, r.split([math.prod(shape) for shape in shapes]), strict=True):
        if len(shape) == 3:  # coefficients (inputs, splines, outputs), not a linear layer
            knots = uniform_knots(shape[1] - kan.degree, kan.degree, kan.domain)
            g = channel_gradient(part.reshape(shape), knots, kan.degree, axis=1)
            part = from_channels(g, knots, kan.degree, axis=1).flatten()
        parts.append(part)
    return torch.cat(parts)
