"""Control of the number of cycles: `FixedCycles`, `CyclesToTolerance`, `AdaptiveCycles`."""

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
    """Limit of a propagation, which ends after `cycles`, or at an estimate of at most `stop`."""

    cycles: int
    stop: float = 0.0


class PassReport(NamedTuple):
    """A report on one propagation, forward or backward.

    Attributes
    ----------
    cycles : int
        Number of full cycles after the opening; 0 for serial propagation.
    factor : float
        Ratio of the norms of the last two residuals, dimensionless; NaN if there are fewer than
        two.
    estimate : float
        A posteriori estimate of the relative error of the output (in a backward pass, of the
        gradient with respect to the first state): `|u_N^k - u_N^(k-1)| / |u_N^k| * factor / (1 -
        factor)`. If there is only one residual, the factor is assumed to be 1/2. The estimate is
        NaN without cycles and 0 for serial propagation.
    estimates : tuple of float
        The estimate after each cycle.

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
    """Summarize cycles that changed the output by `changes`, relative to its norm.

    `norms` contains the norms of the residuals before each cycle, followed by that after the last
    cycle if a closing sweep computes it. Ratios of rounding errors are meaningless, so a change of
    at most `rounding` is used as its own estimate.
    """
    pairs = zip(norms[:-1], norms[1:], strict=True)
    # After a residual that is not finite, nothing is known about the next error.
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
    """A fixed number of cycles, as in published layer-parallel training runs.

    Parameters
    ----------
    cycles : int
        Number of full forward cycles after the opening; 0 means the opening alone.
    backward : int, optional
        Number of full cycles of the adjoint; by default, as many as in the forward pass. The error
        of the adjoint is usually larger, so a second cycle is more useful there.
    tolerance : float
        Accepted relative error of the output, dimensionless. If it is exceeded, training warns
        once.

    Raises
    ------
    ValueError
        If a number of cycles or the tolerance is invalid.

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
        """The limit of a propagation in the direction "forward" or "backward".

        Parameters
        ----------
        direction : str
            "forward" or "backward".
        call : int
            Number of the call in training, from 1; 0 outside training.

        Returns
        -------
        CycleLimit
            The number of cycles, and the error estimate at which to stop.
        """
        return CycleLimit(
            self.cycles if direction == "forward" or self.backward is None else self.backward
        )

    def follow(self, direction: str, made: PassReport) -> Control | None:
        """The control for later calls; None means serial propagation from now on."""
        return self


@dataclass(frozen=True)
class CyclesToTolerance:
    """As many cycles as needed until the a posteriori error estimate is small enough.

    In measurements on peaks with 64 layers, an estimate of 0.1 made the serial network as accurate
    as the layer-parallel one, with about 3 cycles in each direction.

    Parameters
    ----------
    tolerance : float
        Relative error of the output, dimensionless.
    backward : float, optional
        Accepted relative error of the adjoint; `tolerance` by default.
    max_cycles : int
        Largest number of cycles; if they do not suffice, training warns once.

    Raises
    ------
    ValueError
        If a tolerance is not positive, or `max_cycles` is invalid.

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
        """The limit of a propagation; see `FixedCycles.limit`."""
        stop = self.tolerance if direction == "forward" or self.backward is None else self.backward
        return CycleLimit(self.max_cycles, stop)

    def follow(self, direction: str, made: PassReport) -> Control | None:
        """The control for subsequent calls; see `FixedCycles.follow`."""
        return self


@dataclass(frozen=True)
class AdaptiveCycles:
    """A fixed number of cycles that is checked periodically and increased if necessary.

    Once in `every` calls, a propagation makes twice its usual number of cycles. If the error
    after the usual number exceeded the tolerance, the number is increased until it suffices; if
    that takes more than `max_cycles`, propagation is serial from then on. Source: Jiang et al.
    (arXiv 2601.09026), whose indicator is the residual factor alone. In our measurements, that
    indicator never triggered although gradients were wrong by 100 %, so here the error estimate
    decides.

    Parameters
    ----------
    forward, backward : int
        Current numbers of cycles.
    tolerance : float
        Relative error of the output, dimensionless.
    every : int
        Number of calls from one check to the next.
    max_cycles : int
        Largest number of cycles; more would cost more than serial propagation.

    Raises
    ------
    ValueError
        If a number of cycles or calls, or the tolerance, is invalid.

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
        """The limit of a propagation; a check has twice the number of cycles."""
        cycles = self.forward if direction == "forward" else self.backward
        return CycleLimit(max(2 * cycles, 1) if call and call % self.every == 0 else cycles)

    def follow(self, direction: str, made: PassReport) -> Control | None:
        """Like `FixedCycles.follow`; the number of cycles grows if a check found too few."""
        usual = self.forward if direction == "forward" else self.backward
        if made.cycles <= usual:  # no check, or a check in a call that began with fewer cycles
            return self
        if usual and made.estimates[usual - 1] <= self.tolerance:
            return self
        # More than usual: fewer cycles may look better only if estimates rise again later.
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
    """The warning for a pass with an error above the tolerance.

    Parameters
    ----------
    direction : str
        "forward" or "backward".
    made : PassReport
        The report on the pass.
    control : Control
        The control with the tolerance.
    forecast : str
        Additional text about the growth of errors along the layers.

    Examples
    --------
    >>> print(too_inexact("forward", PassReport(1, 0.5, 0.3, (0.3,)), FixedCycles()))
    LayerParallel continues training with an estimated relative error of 0.3 in the forward pass
    after 1 cycles, above the tolerance 0.1: take more cycles, a smaller coarsening factor, or
    control=CyclesToTolerance()
    """
    return (
        f"LayerParallel continues training with an estimated relative error of {made.estimate:.1g} "
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
