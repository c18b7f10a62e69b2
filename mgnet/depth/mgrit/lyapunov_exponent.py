"""Growth of errors along layers or steps, and its consequences for parallel methods.

Source: Gonzalez et al., "Predictability enables parallelization of nonlinear state space models"
(arXiv 2508.16817): the condition number of the problem that such methods solve grows exponentially
with the product of the largest Lyapunov exponent and the number of steps, and is bounded if the
exponent is negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgnet import vector

__all__ = ["HARMLESS", "MOST_LAYERS", "Lyapunov", "exponents_along"]

State = Any
HARMLESS = math.log(1e3)  # growth over all layers that a few more cycles can compensate
MOST_LAYERS = 4096  # largest number of layers examined for a message


@dataclass(frozen=True)
class Lyapunov:
    """The largest Lyapunov exponent of layers or steps along given states.

    Attributes
    ----------
    exponents : tuple of float
        Exponent of each sample: the mean increase in the logarithm of a small error, per layer or
        step.
    layers : int
        Number of layers or steps.
    unit : str
        "layer" or "step".
    time : float or None
        Total time of all steps if they are steps in time.

    Examples
    --------
    >>> print(Lyapunov((-0.5, -0.3), 64, "layer"))
    exponent -0.4 per layer: errors shrink along the layers, so parallel methods can converge in
    few iterations
    """

    exponents: tuple[float, ...]
    layers: int
    unit: str = "step"
    time: float | None = None

    @property
    def exponent(self) -> float:
        """The mean exponent over the samples, per layer or step."""
        return math.fsum(self.exponents) / len(self.exponents)

    @property
    def per_time(self) -> float:
        """The exponent per unit of time; NaN for layers and cells."""
        return math.nan if self.time is None else self.exponent * self.layers / self.time

    @property
    def log_growth(self) -> float:
        """Natural logarithm of the growth of an error over all layers."""
        return self.exponent * self.layers

    @property
    def converges(self) -> bool:
        """Whether methods that are parallel in the layers should converge in few iterations.

        This is the case if errors shrink, or grow at most by a factor of 1000 over all layers.
        """
        return self.log_growth <= HARMLESS

    @property
    def verdict(self) -> str:
        """The conclusion in one sentence."""
        per = f"exponent {self.exponent:.2g} per {self.unit}"
        if math.isnan(self.exponent):
            return f"{per}: states are not finite along the {self.unit}s, one by one, too"
        if self.exponent < 0.0:
            return (
                f"{per}: errors shrink along the {self.unit}s, so parallel methods can converge in "
                "few iterations"
            )
        grown = f"{per}, errors grow {_power(self.log_growth)} times over all {self.layers}"
        if self.converges:
            return f"{grown}: little enough for parallel methods to converge, in more iterations"
        return (
            f"{grown}: expect no parallel method to converge in few iterations; propagate "
            f"serially, or in shorter parts of about {max(1, int(HARMLESS / self.exponent))} "
            f"{self.unit}s"
        )

    def __str__(self) -> str:
        return self.verdict


def exponents_along(
    propagator: Any, points: State, samples: bool, directions: int = 2, level: int = 0
) -> list[float]:
    """Compute the exponents of each sample from products of Jacobians with renormalized vectors.

    A product is a central difference of a single layer, which takes two evaluations.

    Parameters
    ----------
    propagator : Propagator
        The forward propagator.
    points : states of shape (n + 1, ...)
        States at which the layers are linearized.
    samples : bool
        Whether axis 1 contains samples, each with an exponent; otherwise there is one exponent.
    directions : int
        Number of random vectors; the largest growth counts. Until the vectors have turned to the
        fastest-growing direction, part of the logarithm of its growth is missed: in total, at most
        half the logarithm of the number of unknowns.
    level : int
        Number of the level.

    Returns
    -------
    list of float
        The exponents; NaN if states are not finite, minus infinity if errors vanish.

    Examples
    --------
    >>> class Double:
    ...     def advance(self, level, which, states):
    ...         return states * np.array([2.0, 0.5])
    >>> round(exponents_along(Double(), np.ones((101, 2)), samples=False)[0] / np.log(2), 2)
    1.0
    """
    generator, count = np.random.default_rng(0), len(points) - 1
    lengths = [float(_sizes(points[i : i + 1], samples).max(initial=0.0)) for i in range(count)]
    least = 1e-3 * max(lengths, default=0.0) or 1.0
    width = vector.precision_of(points) ** (1 / 3)
    best: list[float] = []
    for _ in range(directions):
        w, logs = _unit(vector.random_like(points[:1], generator), samples)
        total = np.zeros_like(logs)
        for i in range(count):
            u, step = points[i : i + 1], width * max(lengths[i], least)
            w, logs = _unit(_product(propagator, level, i, u, w, step), samples)
            total += logs
        found = (total / max(count, 1)).tolist()
        best = [max(pair) for pair in zip(best, found, strict=True)] if best else found
    return best


def _product(propagator: Any, level: int, i: int, u: State, w: State, step: float) -> State:
    """The product of the Jacobian of layer i with w."""
    which = slice(i, i + 1)
    ahead = propagator.advance(level, which, u + step * w)
    behind = propagator.advance(level, which, u - step * w)
    return (ahead - behind) * (0.5 / step)


def _sizes(u: State, samples: bool) -> np.ndarray:
    """Norms of the samples, or of the whole state."""
    numbers = vector.as_numpy(u)
    flat = numbers.reshape(numbers.shape[1] if samples else 1, -1)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.linalg.norm(flat.astype(np.result_type(flat.dtype, float)), axis=1)


def _unit(w: State, samples: bool) -> tuple[State, np.ndarray]:
    """Every sample divided by its norm, and the logarithms of the norms."""
    norms = _sizes(w, samples)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(norms)
        factors = np.where(norms > 0.0, 1.0 / norms, 0.0)
    ones = (1,) * (w.ndim - 2)
    shaped = factors.reshape(1, -1, *ones) if samples else factors.reshape(-1, *(1,) * (w.ndim - 1))
    scale = vector.zeros_like(w, shaped.shape)
    return w * vector.like(shaped, scale), logs


def _power(logarithm: float) -> str:
    """A power of e as text, even if it overflows.

    Examples
    --------
    >>> _power(1.0), _power(1e4)
    ('2.7', '1e4342')
    """
    if logarithm < 700.0:
        return f"{math.exp(logarithm):.2g}"
    return f"1e{int(logarithm / math.log(10.0)):d}"
