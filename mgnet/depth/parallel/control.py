"""How many cycles a propagation takes: `FixedCycles`, `CyclesToTolerance`, `AdaptiveCycles`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mgnet.limits import is_number, is_whole, shown

__all__ = [
    "AdaptiveCycles",
    "CycleLimit",
    "Control",
    "FixedCycles",
    "PassReport",
    "CyclesToTolerance",
    "too_inexact",
]


class CycleLimit(NamedTuple):
    """Of one propagation: it ends after `cycles`, or when the error estimate is at most `stop`."""

    cycles: int
    stop: float = 0.0


class PassReport(NamedTuple):
    """What one propagation did, forward or backward.

    Attributes
    ----------
    cycles : int
        Full cycles after the opening; 0 for a serial propagation.
    factor : float
        Last ratio of the norms of two successive residuals, dimensionless; NaN before there are
        two.
    estimate : float
        A-posteriori estimate of the relative error of the output (of the gradient with respect to
        the first state, backward), `|u_N^k - u_N^(k-1)| / |u_N^k| * factor / (1 - factor)`. With
        one residual only the factor is taken as 1/2. NaN without cycles, 0 for a serial
        propagation.
    estimates : tuple of float
        After each cycle.

    Examples
    --------
    >>> PassReport(1, 0.1, 0.02, (0.02,)).estimate
    0.02
    """

    cycles: int
    factor: float
    estimate: float
    estimates: tuple[float, ...] = ()


SERIAL = PassReport(0, 0.0, 0.0)


def summarize(
    changes: Sequence[float], norms: Sequence[float], rounding: float = 0.0
) -> PassReport:
    """What cycles did that changed the output by `changes`, relative to its norm.

    `norms` are those of the residuals that they met, and that of the last one's result where a
    closing sweep knows it. Factors of residuals that are rounding errors mean nothing: a change of
    at most `rounding` is its own estimate.
    """
    pairs = zip(norms[:-1], norms[1:], strict=True)
    # After a residual that is not finite nothing is known of the next one's error.
    factors = [math.inf if a == math.inf else b / a if a else 0.0 for a, b in pairs]
    estimates = []
    for number, change in enumerate(changes):
        factor = factors[min(number, len(factors) - 1)] if factors else math.nan
        if math.isnan(factor) or change <= rounding:
            estimates.append(change)
        else:
            estimates.append(change * factor / (1.0 - factor) if factor < 1.0 else math.inf)
    return PassReport(
        len(changes),
        factors[-1] if factors and changes else math.nan,
        estimates[-1] if estimates else math.nan,
        tuple(estimates),
    )


@dataclass(frozen=True)
class FixedCycles:
    """Always the same number of cycles, as in the published layer-parallel trainings.

    Parameters
    ----------
    cycles : int
        Full cycles forward, after the opening; 0 is the opening alone.
    backward : int, optional
        Of the adjoint; as many as forward by default. The adjoint's error is usually the larger
        one, so the second cycle is better spent here.
    tolerance : float
        Relative error of the output, dimensionless, above which training warns, once.

    Examples
    --------
    >>> FixedCycles(2).limit("backward")
    CycleLimit(cycles=2, stop=0.0)
    """

    cycles: int = 1
    backward: int | None = None
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        _check_counts(self, {"cycles": self.cycles, "backward": self.backward})
        _check_tolerance(self, self.tolerance)

    def limit(self, direction: str, call: int = 0) -> CycleLimit:
        """How far a propagation `forward` or `backward` goes.

        Parameters
        ----------
        direction : str
        call : int
            Number of the call in training, from 1; 0 outside of training.
        """
        return CycleLimit(
            self.cycles if direction == "forward" or self.backward is None else self.backward
        )

    def follow(self, direction: str, made: PassReport) -> Control | None:
        """The control for the calls after this one; None: serial from now on."""
        return self


@dataclass(frozen=True)
class CyclesToTolerance:
    """Cycles until the a-posteriori estimate of the output's error is small enough.

    Measured on peaks with 64 layers: an estimate of 0.1 makes the serial network as good as the
    layer-parallel one, with about 3 cycles each way.

    Parameters
    ----------
    tolerance : float
        Relative error of the output, dimensionless.
    backward : float, optional
        Of the adjoint; the same by default.
    max_cycles : int
        No more than these; training warns, once, when they did not suffice.

    Examples
    --------
    >>> CyclesToTolerance(1e-2).limit("forward")
    CycleLimit(cycles=20, stop=0.01)
    """

    tolerance: float = 0.1
    backward: float | None = None
    max_cycles: int = 20

    def __post_init__(self) -> None:
        _check_counts(self, {"max_cycles": self.max_cycles})
        given = (self.tolerance, *([] if self.backward is None else [self.backward]))
        if not all(is_number(each, 0.0, math.inf) and each > 0.0 for each in given):
            raise ValueError(
                f"CyclesToTolerance got {shown(vars(self), 200)}; it needs tolerances above 0, as "
                "numbers"
            )

    def limit(self, direction: str, call: int = 0) -> CycleLimit:
        """As `FixedCycles.limit`."""
        stop = self.tolerance if direction == "forward" or self.backward is None else self.backward
        return CycleLimit(self.max_cycles, stop)

    def follow(self, direction: str, made: PassReport) -> Control | None:
        """As `FixedCycles.follow`."""
        return self


@dataclass(frozen=True)
class AdaptiveCycles:
    """A fixed number of cycles that is looked at every so often, and grows when it must.

    Every `every` calls a propagation makes twice its cycles. If the error that its usual cycles
    would have left is above the tolerance, the count becomes what would have sufficed, and with
    more than `max_cycles` the propagation is serial from then on. Source: Jiang et al.
    (arXiv 2601.09026), whose indicator is the residual factor alone; that one never fired in our
    measurements while gradients were wrong by 100 %, so the error estimate decides.

    Parameters
    ----------
    forward, backward : int
        Cycles now.
    tolerance : float
        Relative error of the output, dimensionless.
    every : int
        Calls between two looks.
    max_cycles : int
        Above it serial propagation is cheaper than more cycles.

    Examples
    --------
    >>> control = AdaptiveCycles(every=100)
    >>> control.limit("forward", call=99).cycles, control.limit("forward", call=100).cycles
    (1, 2)
    >>> control.follow("forward", PassReport(2, 0.2, 0.01, (0.3, 0.01))).forward
    2
    """

    forward: int = 1
    backward: int = 1
    tolerance: float = 0.1
    every: int = 100
    max_cycles: int = 4

    def __post_init__(self) -> None:
        counts = {"forward": self.forward, "backward": self.backward}
        _check_counts(self, {**counts, "every": self.every, "max_cycles": self.max_cycles})
        _check_tolerance(self, self.tolerance)

    def limit(self, direction: str, call: int = 0) -> CycleLimit:
        """As `FixedCycles.limit`; twice the cycles in every `every`-th call in training."""
        cycles = self.forward if direction == "forward" else self.backward
        return CycleLimit(max(2 * cycles, 1) if call and call % self.every == 0 else cycles)

    def follow(self, direction: str, made: PassReport) -> Control | None:
        """As `FixedCycles.follow`: with more cycles, where a check found that they were too few."""
        usual = self.forward if direction == "forward" else self.backward
        if made.cycles <= usual:  # no check, or one of fewer cycles, whose call began before
            return self
        if usual and made.estimates[usual - 1] <= self.tolerance:
            return self
        # More than the usual ones: fewer may look better only where estimates rise again.
        tried = enumerate(made.estimates, 1)
        enough = [k for k, now in tried if k > usual and now <= self.tolerance]
        cycles = enough[0] if enough else made.cycles + 1
        if cycles > self.max_cycles:
            return None
        forward, backward = (
            (cycles, self.backward) if direction == "forward" else (self.forward, cycles)
        )
        return AdaptiveCycles(forward, backward, self.tolerance, self.every, self.max_cycles)


Control = FixedCycles | CyclesToTolerance | AdaptiveCycles


def too_inexact(direction: str, made: PassReport, control: Control, forecast: str = "") -> str:
    """The warning of a pass whose error is above the tolerance.

    Parameters
    ----------
    direction : str
    made : PassReport
    control : Control
    forecast : str
        Further words: how errors grow along the layers.

    Examples
    --------
    >>> print(too_inexact("forward", PassReport(1, 0.5, 0.3, (0.3,)), FixedCycles()))
    LayerParallel goes on training with an estimated relative error of 0.3 in the forward pass after
    1 cycles, above the tolerance 0.1: take more cycles, a smaller coarsening factor, or
    control=CyclesToTolerance()
    """
    return (
        f"LayerParallel goes on training with an estimated relative error of {made.estimate:.1g} "
        f"in the {direction} pass after {made.cycles} cycles, above the tolerance "
        f"{control.tolerance:g}: take more cycles, a smaller coarsening factor, or "
        f"control=CyclesToTolerance(){'; ' * bool(forecast)}{forecast}"
    )


def _check_tolerance(control: object, tolerance: float) -> None:
    if not is_number(tolerance, 0.0):
        raise ValueError(
            f"{type(control).__name__} got tolerance = {shown(tolerance)}; it must be a number "
            "that is not negative"
        )


def _check_counts(control: object, counts: dict[str, int | None]) -> None:
    for name, count in counts.items():
        least = 0 if name in ("cycles", "backward", "forward") else 1
        if count is not None and not is_whole(count, least):
            raise ValueError(
                f"{type(control).__name__} got {name} = {shown(count)}; it must be an integer "
                f"of at least {least}"
            )
