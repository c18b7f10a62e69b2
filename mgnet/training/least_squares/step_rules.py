"""Step lengths of Levenberg-Marquardt: rules that choose the damping and judge steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch

from mgnet.training.least_squares.units import Proportion

__all__ = ["Damping", "Nielsen", "StepRule", "Trial", "TrustRegion"]

ACCEPTED = 1e-4  # the smallest ratio of actual to predicted reduction


class Damping(NamedTuple):
    """Memory of Levenberg-Marquardt between steps.

    Attributes
    ----------
    mu : float
        Damping of the last step, relative to the mean diagonal of `J^T J` in the unknowns' units.
    growth : float
        Factor by which the next rejected step raises the damping.
    gradient, tolerance : float
        Gradient norm and tolerance of the last step, for inexact linear solves.
    radius : float
        Radius of the trust region; 0 before the first step.
    gain : float
        Ratio of actual to predicted reduction of the last step.
    bend : float
        Twice the geodesic acceleration of the last step, relative to the step.
    proportion : Proportion, optional
        Sizes of the parameters of a network relative to each other; None if unknown.
    norms : tensor, optional
        The largest column norms so far, for unknowns with units of their own.
    lowest, since : float, int
        The smallest damping of an accepted step, and the number of accepted steps since then.
    pace : float
        Exponent of the decrease of the damping relative to the growth of the step length.
    rows : bool
        On a device: whether the last Cholesky factor had too few digits, so that QR is tried first.
    """

    mu: float
    growth: float
    gradient: float = 0.0
    tolerance: float = 0.0
    radius: float = 0.0
    gain: float = 0.0
    bend: float = 1.0
    proportion: Proportion | None = None
    norms: torch.Tensor | None = None
    lowest: float = math.inf
    since: int = 0
    pace: float = 2.0
    rows: bool = False


class Trial(NamedTuple):
    """A step that was tried.

    Attributes
    ----------
    actual, predicted : float
        Reductions of the objective; `actual` is minus infinity if the new value is not finite.
    size : float
        Length `|D d|`.
    slope : float
        `|J d|^2 + mu s |D d|^2`, the slope of the objective along -d.
    """

    actual: float
    predicted: float
    size: float
    slope: float

    @property
    def gain(self) -> float:
        """Ratio of actual to predicted reduction."""
        return self.actual / self.predicted if self.predicted > 0.0 else -math.inf

    @property
    def accepted(self) -> bool:
        """Whether the step is accepted."""
        return self.gain > ACCEPTED


class StepRule(ABC):
    """Chooses the damping before a step, and updates it afterwards."""

    #: Largest number of trial steps per Jacobian.
    trials: int
    #: Whether it needs the singular values of J.
    singular: ClassVar[bool] = False

    @abstractmethod
    def begin(self, mu: float) -> Damping:
        """The memory before the first step; mu is the user's initial damping."""

    @abstractmethod
    def propose(self, memory: Damping, system: Any, size: float) -> Damping:
        """The memory with the damping of the next trial; `size` is `|D u|`."""

    @abstractmethod
    def judge(self, memory: Damping, trial: Trial) -> Damping:
        """The memory after a trial, accepted or not."""

    def look(
        self, memory: Damping, system: Any, size: float, attempt: Callable[[Damping], Trial]
    ) -> Damping:
        """Like `propose`, for a rule that tries steps first; `attempt` tries one with a damping."""
        return self.propose(memory, system, size)

    def reaching(self, before: Damping, memory: Damping, trial: Trial) -> Damping | None:
        """The memory for trying a longer step after an accepted one; None to try none."""
        return None

    def accelerates(self, memory: Damping) -> bool:
        """Whether geodesic acceleration is now worth a residual evaluation."""
        return True


@dataclass(frozen=True)
class Nielsen(StepRule):
    """The rule for networks: the damping changes by a smooth function of the gain ratio.

    Source: Nielsen, "Damping parameter in Marquardt's method" (1999).

    Parameters
    ----------
    trials : int
        Largest number of trial steps per Jacobian.

    Examples
    --------
    >>> rule = Nielsen()
    >>> rule.judge(rule.begin(1.0), Trial(1.0, 1.0, 1.0, 2.0)).mu  # a perfect step
    0.3333333333333333
    """

    trials: int = 12

    def begin(self, mu: float) -> Damping:
        return Damping(mu, 2.0)

    def propose(self, memory: Damping, system: Any, size: float) -> Damping:
        return memory

    def judge(self, memory: Damping, trial: Trial) -> Damping:
        if not trial.accepted:
            mu = min(memory.mu * memory.growth, 1e15)
            return memory._replace(mu=mu, growth=2.0 * memory.growth, gain=trial.gain)
        shrink = max(1.0 / 3.0, 1.0 - (2.0 * min(trial.gain, 1.0) - 1.0) ** 3)
        # The lower bound is the square of the rounding of J, which QR factorizations still resolve.
        mu = max(memory.mu * shrink, 1e-30)
        return memory._replace(mu=mu, growth=2.0, gain=trial.gain)


@dataclass(frozen=True)
class TrustRegion(StepRule):
    """MINPACK's rule, for parameters with different units: a radius limits the steps.

    A full Gauss-Newton step is taken if it lies within the radius. The rule needs the singular
    values of J, so it suits at most a few hundred unknowns. Source: Moré (1978), sections 4 and 5.

    Parameters
    ----------
    factor : float
        The initial radius, relative to `|D u|`; the first step may become longer if the model is
        accurate.
    trials : int
        Largest number of trial steps per Jacobian.

    Examples
    --------
    >>> rule, damping = TrustRegion(), TrustRegion().begin(0.0)._replace(radius=1.0)
    >>> rule.judge(damping, Trial(-1.0, 1.0, 1.0, 2.0)).radius < 1.0  # the objective rose
    True
    """

    factor: float = 1.0
    trials: int = 40
    singular: ClassVar[bool] = True

    def begin(self, mu: float) -> Damping:
        return Damping(0.0, 2.0)

    def propose(self, memory: Damping, system: Any, size: float) -> Damping:
        radius = memory.radius
        if not radius:
            longest = system.length(0.0)[0]
            radius = min(self.factor * (size or longest), longest)
        return memory._replace(radius=radius, mu=system.damping_at(radius, memory.mu))

    def judge(self, memory: Damping, trial: Trial) -> Damping:
        gain, radius, mu = trial.gain, memory.radius, memory.mu
        if not gain > 0.25:
            # Use the minimum of the parabola through both values and the slope, within limits.
            part = 0.5
            if trial.actual < 0.0:
                part = max(0.1, 0.5 * trial.slope / (trial.slope - trial.actual))
            radius, mu = part * min(radius, 10.0 * trial.size), mu / part
        elif mu == 0.0 or gain >= 0.75:
            radius, mu = 2.0 * trial.size, 0.5 * mu
        return memory._replace(radius=radius, mu=mu, gain=gain)

    def reaching(self, before: Damping, memory: Damping, trial: Trial) -> Damping | None:
        """A step ten times as long, at the first step only and while the model is accurate."""
        if before.radius or not trial.gain >= 0.75 or not memory.mu:
            return None
        return memory._replace(radius=10.0 * trial.size)

    def accelerates(self, memory: Damping) -> bool:
        """False: on standard problems it doubled the evaluations and found no more minima."""
        return False
