"""The longest step whose reduction is close enough to the predicted one, found by a search.

`Nielsen` adapts the damping with one step per Jacobian; if the Jacobian dominates the cost, it pays
to try several steps with each. Source: the code of arXiv 2607.02194 (DSGNAR, 2026), which tries 24
radii at once. In mgnet, a search finds the radius, and `Nielsen` takes over at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mgnet.training.least_squares.step_rules import Damping, Nielsen, StepRule, Trial

__all__ = ["ProbedRadius"]

CLOSE = 1.1  # ratio of two lengths at which the search between them ends
BISECTIONS = 5
SLOWEST = 20.0  # exponent: the damping decreases by this power of the requested growth of the step
LEAST, MOST = 1e-12, 1e15  # dampings; below the first, Cholesky factorizations lose all digits


class Probe(NamedTuple):
    """A step that was tried.

    Attributes
    ----------
    place : float
        Position in the search.
    mu : float
        Damping.
    size : float
        Length `|D d|`.
    holds : bool
        Whether the reduction is large enough.
    """

    place: float
    mu: float
    size: float
    holds: bool


@dataclass(frozen=True)
class ProbedRadius(StepRule):
    """The largest radius at which the actual reduction is at least `ratio` times the predicted one.

    At each Jacobian the objective is evaluated for steps of several lengths, from the last radius
    outward or inward until the actual ratio crosses `ratio`, and then between the last two radii.
    Once the damping has passed its minimum, `Nielsen` with geodesic acceleration takes over. The
    rule is meant for networks trained to many digits. It needs fewer cycles, each of which takes
    one and a half to three times as long.

    Parameters
    ----------
    ratio : float
        Required ratio, between 0 and 1; a small value allows bold steps.
    reach : float
        Largest factor by which one search changes the radius, up or down.
    passed : int
        Number of steps without a new minimum of the damping after which `Nielsen` takes over.
    trials : int
        Largest number of trial steps per Jacobian.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> import torch
    >>> from mgnet.training import levenberg_marquardt
    >>> module = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> module, x = module.double(), torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1)
    >>> found = levenberg_marquardt(
    ...     lambda module: module(x) - torch.sin(3 * x), module, rule=ProbedRadius(), max_cycles=40
    ... )
    >>> found.values[-1] < 1e-4
    True
    """

    ratio: float = 0.15
    reach: float = 3.0
    passed: int = 30
    trials: int = 12
    after: Nielsen = field(default_factory=Nielsen, init=False, repr=False)

    def __post_init__(self) -> None:
        if not (0.0 < self.ratio < 1.0 and 1.0 < self.reach < math.inf):
            raise ValueError(f"{self} needs a ratio between 0 and 1 and a reach above 1")
        if self.passed < 1 or self.trials < 1:
            raise ValueError(f"{self} needs positive numbers of steps")

    def begin(self, mu: float) -> Damping:
        return Damping(mu, 2.0)

    def propose(self, memory: Damping, system: Any, size: float) -> Damping:
        return memory

    def probes(self, memory: Damping) -> bool:
        """Whether the search is still on: the damping has not yet passed its minimum."""
        return memory.since < self.passed

    def look(
        self, memory: Damping, system: Any, size: float, attempt: Callable[[Damping], Trial]
    ) -> Damping:
        if not self.probes(memory):
            return memory
        path = _Path(memory, attempt, self.ratio)
        furthest, place, pace = math.log(self.reach), 0.0, math.log(CLOSE)
        probe = path.at(place)
        inner, outer = (probe, None) if probe.holds else (None, probe)
        while (inner is None or outer is None) and abs(place) < furthest:
            place = max(min(place + (pace if outer is None else -pace), furthest), -furthest)
            pace *= 2.0
            probe = path.at(place)
            inner, outer = (probe, outer) if probe.holds else (inner, probe)
        for _ in range(BISECTIONS):
            if inner is None or outer is None or outer.size <= CLOSE * inner.size:
                break
            probe = path.at(0.5 * (inner.place + outer.place))
            inner, outer = (probe, outer) if probe.holds else (inner, probe)
        found = inner or probe
        return memory._replace(mu=found.mu, radius=found.size, pace=path.pace)

    def judge(self, memory: Damping, trial: Trial) -> Damping:
        if not self.probes(memory):
            return self.after.judge(memory, trial)
        if not trial.accepted:
            radius = memory.radius / self.reach
            mu = min(memory.mu * self.reach**memory.pace, MOST)
            return memory._replace(mu=mu, radius=radius, gain=trial.gain)
        lower = memory.mu <= memory.lowest  # equality counts too
        known = memory._replace(
            gain=trial.gain,
            lowest=min(memory.mu, memory.lowest),
            since=0 if lower else memory.since + 1,
        )
        return known if self.probes(known) else known._replace(radius=0.0)

    def accelerates(self, memory: Damping) -> bool:
        """False during the search: accelerated steps are longer, but reach fewer digits."""
        return not self.probes(memory)


class _Path:
    """Steps of approximately given lengths, with one factorization for each.

    An eigendecomposition would give all of them, but takes as long as 13 to 25 Cholesky
    factorizations. The decrease of the damping that makes a step longer is estimated from one
    search to the next; it lies between no decrease and one proportional to the growth of the
    length.
    """

    def __init__(self, memory: Damping, attempt: Callable[[Damping], Trial], ratio: float):
        self.memory, self.attempt, self.ratio = memory, attempt, ratio
        self.pace = memory.pace
        self.size = 0.0  # length of the step with the last damping

    def at(self, place: float) -> Probe:
        """The step whose logarithmic length exceeds that of the first by about `place`."""
        before = self.memory.mu
        mu = min(max(before * math.exp(-self.memory.pace * place), LEAST), MOST)
        trial = self.attempt(self.memory._replace(mu=mu))
        self.size = self.size or trial.size
        if mu != before and trial.size > 0.0 < self.size:
            grown = abs(math.log(trial.size / self.size))
            self.pace = min(max(abs(math.log(mu / before)) / max(grown, 1e-9), 1.0), SLOWEST)
        return Probe(place, mu, trial.size, trial.gain >= self.ratio)
