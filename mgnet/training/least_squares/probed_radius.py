"""The longest step that still keeps a fair part of what it promises, found by looking.

`Nielsen` learns from one step per Jacobian; where the Jacobian costs most, several are worth their
time. Source: arXiv 2607.02194 (DSGNAR, 2026), as its authors' code has it, with 24 radii at once;
here a search finds the radius, and `Nielsen` takes over at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from mgnet.training.least_squares.step_rules import Damping, Nielsen, StepRule, Trial

__all__ = ["ProbedRadius"]

CLOSE = 1.1  # the ratio of two lengths between which the search ends
BISECTIONS = 5
SLOWEST = 20.0  # a damping falls by this power of the factor by which steps are to grow
LEAST, MOST = 1e-15, 1e15  # dampings


class Probe(NamedTuple):
    """A step that could be tried.

    Attributes
    ----------
    mu : float
    d : tensor of shape (unknowns,)
    size : float
        `|D d|`.
    predicted : float
        The reduction of the objective.
    """

    mu: float
    d: torch.Tensor
    size: float
    predicted: float


@dataclass(frozen=True)
class ProbedRadius(StepRule):
    """The largest radius at which the actual reduction is at least `ratio` times the predicted one.

    At each Jacobian the objective is evaluated at steps of several lengths, from the last radius
    outward, or inward, until the answer changes, and then between the last two. When the damping
    has passed its minimum, `Nielsen` with geodesic acceleration goes on. For networks trained to
    many digits: fewer Jacobians, which take two to three times as long.

    Parameters
    ----------
    ratio : float
        Between 0 and 1; a small one means bold steps.
    reach : float
        The most by which one search changes the radius, up or down.
    passed : int
        Steps since the smallest damping after which that is a minimum.
    trials : int
        Searches per Jacobian.

    Examples
    --------
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
        """Whether the minimum of the damping is still to come."""
        return memory.since < self.passed

    def look(
        self, memory: Damping, system: Any, size: float, reduction: Callable[[torch.Tensor], float]
    ) -> Damping:
        if not self.probes(memory):
            return memory
        path = _Path(system, memory)

        def holds(probe: Probe) -> bool:
            return reduction(probe.d) >= self.ratio * probe.predicted > 0.0

        probe = self._farthest(path, holds)
        return memory._replace(mu=probe.mu, radius=probe.size, pace=path.pace)

    def _farthest(self, path: _Path, holds: Callable[[Probe], bool]) -> Probe:
        """The longest step that holds, nearly; the shortest that was tried where none does."""
        furthest, place, pace = math.log(self.reach), 0.0, math.log(CLOSE)
        probe = path.step(place)
        outward = holds(probe)
        inner, outer = (probe, None) if outward else (None, probe)
        within = without = place
        while (inner is None or outer is None) and abs(place) < furthest:
            place = max(min(place + (pace if outward else -pace), furthest), -furthest)
            pace *= 2.0
            probe = path.step(place)
            if holds(probe):
                inner, within = probe, place
            else:
                outer, without = probe, place
        if inner is None or outer is None:
            return probe
        for _ in range(BISECTIONS):
            if outer.size <= CLOSE * inner.size:
                break
            place = 0.5 * (within + without)
            probe = path.step(place)
            if holds(probe):
                inner, within = probe, place
            else:
                outer, without = probe, place
        return inner

    def judge(self, memory: Damping, trial: Trial) -> Damping:
        if not self.probes(memory):
            return self.after.judge(memory, trial)
        if not trial.accepted:
            radius = memory.radius / self.reach
            mu = min(memory.mu * self.reach**memory.pace, MOST)
            return memory._replace(mu=mu, radius=radius, gain=trial.gain)
        lower = memory.mu < memory.lowest
        known = memory._replace(
            gain=trial.gain,
            lowest=min(memory.mu, memory.lowest),
            since=0 if lower else memory.since + 1,
        )
        return known if self.probes(known) else known._replace(radius=0.0)

    def accelerates(self, memory: Damping) -> bool:
        """Only where nothing is probed: it costs a look at another radius."""
        return not self.probes(memory)


class _Path:
    """Steps of about given lengths, by a factorization each.

    An eigendecomposition gives all of them, and takes as long as 13 to 25 Cholesky factorizations.

    How much the damping has to fall for a longer step is learnt from one search for the next:
    between as much as the length grows, and not at all.
    """

    def __init__(self, system: Any, memory: Damping):
        self.system, self.mu, self.guess, self.pace = system, memory.mu, memory.pace, memory.pace
        self.size = 0.0  # of the step with the last damping

    def step(self, place: float) -> Probe:
        """That with a length whose logarithm is about so much above that of the last damping."""
        mu = min(max(self.mu * math.exp(-self.guess * place), LEAST), MOST)
        d = self.system.damped(mu)(None)
        size = float((d if self.system.unit is None else d / self.system.unit).norm())
        self.size = self.size or size
        if mu != self.mu and size > 0.0 < self.size:
            grown = abs(math.log(size / self.size))
            self.pace = min(max(abs(math.log(mu / self.mu)) / max(grown, 1e-9), 1.0), SLOWEST)
        shift = mu * self.system.scale
        predicted = 0.5 * (shift * size**2 + float(d @ self.system.descent))
        return Probe(mu, d, size, predicted)
