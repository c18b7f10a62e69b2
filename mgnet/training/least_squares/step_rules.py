"""How long a step of Levenberg-Marquardt may be: rules that choose the damping and judge steps."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch

from mgnet.training.least_squares.units import Proportion

__all__ = ["Damping", "Nielsen", "StepRule", "Trial", "TrustRegion"]

ACCEPTED = 1e-4  # the least ratio of actual to predicted reduction


class Damping(NamedTuple):
    """What Levenberg-Marquardt remembers between steps.

    Attributes
    ----------
    mu : float
        Of the last step, relative to the mean diagonal of `J^T J` in the units of the unknowns.
    growth : float
        Of the damping at the next refusal.
    gradient, tolerance : float
        With inexact linear solves: the gradient norm and the tolerance of the last step.
    radius : float
        Of the trust region; 0 before the first step.
    gain : float
        The ratio of actual to predicted reduction of the last step.
    bend : float
        Twice the geodesic acceleration of the last step, relative to the step.
    proportion : Proportion, optional
        Of the parameters of a network, relative to each other; None where that is not known.
    norms : tensor, optional
        The largest column norms so far, of unknowns with units of their own.
    lowest, since : float, int
        The smallest damping of a step that was taken, and how many steps ago that was.
    pace : float
        How much faster than the length of a step grows the damping falls.
    rows : bool
        On a device: whether Cholesky left too few digits last, so that QR comes first.
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
        Reductions of the objective; `actual` is minus infinity where it is not finite.
    size : float
        `|D d|`.
    slope : float
        `|J d|^2 + mu s |D d|^2`, the slope of the objective along -d.
    """

    actual: float
    predicted: float
    size: float
    slope: float

    @property
    def gain(self) -> float:
        """Actual over predicted reduction."""
        return self.actual / self.predicted if self.predicted > 0.0 else -math.inf

    @property
    def accepted(self) -> bool:
        """Whether the step is taken."""
        return self.gain > ACCEPTED


class StepRule(ABC):
    """Chooses the damping before a step, and changes it after."""

    #: Steps tried per Jacobian.
    trials: int
    #: Whether it needs the singular values of J.
    singular: ClassVar[bool] = False

    @abstractmethod
    def begin(self, mu: float) -> Damping:
        """Before the first step; mu is the initial damping that a user gave."""

    @abstractmethod
    def propose(self, memory: Damping, system: Any, size: float) -> Damping:
        """With the damping of the next trial; `size` is `|D u|`."""

    @abstractmethod
    def judge(self, memory: Damping, trial: Trial) -> Damping:
        """After a trial, taken or not."""

    def look(
        self, memory: Damping, system: Any, size: float, attempt: Callable[[Damping], Trial]
    ) -> Damping:
        """As `propose`, of a rule that tries steps first: `attempt` does, with a damping."""
        return self.propose(memory, system, size)

    def reaching(self, before: Damping, memory: Damping, trial: Trial) -> Damping | None:
        """After a step that is taken: with that of a longer one to try; None for none."""
        return None

    def accelerates(self, memory: Damping) -> bool:
        """Whether geodesic acceleration is worth a residual evaluation now."""
        return True


@dataclass(frozen=True)
class Nielsen(StepRule):
    """The damping follows the gain ratio smoothly: the rule for networks.

    Source: Nielsen, "Damping parameter in Marquardt's method" (1999).

    Parameters
    ----------
    trials : int
        Steps tried per Jacobian.

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
        # Down to the square of the rounding of J: QR factorizations still see it.
        mu = max(memory.mu * shrink, 1e-30)
        return memory._replace(mu=mu, growth=2.0, gain=trial.gain)


@dataclass(frozen=True)
class TrustRegion(StepRule):
    """Steps no longer than a radius: MINPACK's rule, for parameters with units of their own.

    Where Gauss-Newton steps are good they are taken whole. Needs the singular values of J, so at
    most a few hundred unknowns. Source: Moré (1978), sections 4 and 5.

    Parameters
    ----------
    factor : float
        The first radius, relative to `|D u|`; the first step may become longer while the model
        holds.
    trials : int
        Steps tried per Jacobian.

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
            # The minimum of the parabola through both values and the slope, within limits.
            part = 0.5
            if trial.actual < 0.0:
                part = max(0.1, 0.5 * trial.slope / (trial.slope - trial.actual))
            radius, mu = part * min(radius, 10.0 * trial.size), mu / part
        elif mu == 0.0 or gain >= 0.75:
            radius, mu = 2.0 * trial.size, 0.5 * mu
        return memory._replace(radius=radius, mu=mu, gain=gain)

    def reaching(self, before: Damping, memory: Damping, trial: Trial) -> Damping | None:
        """Ten times as far as long as the model holds, at the first step: nothing is known yet."""
        if before.radius or not trial.gain >= 0.75 or not memory.mu:
            return None
        return memory._replace(radius=10.0 * trial.size)

    def accelerates(self, memory: Damping) -> bool:
        """Never: on standard problems it took twice the evaluations and found no more minima."""
        return False
