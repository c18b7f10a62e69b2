"""The multigrid method of a `LayerParallel` module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import Any

from mgnet.depth.mgrit.coarse_kinds import check_coarse
from mgnet.depth.mgrit.layer_hierarchy import mgrit
from mgnet.depth.mgrit.newton import NewtonSweep, newton_of
from mgnet.depth.parallel.control import Control
from mgnet.schedule import Schedule

__all__ = ["MODES", "SERIAL_METHOD", "MGRITMethod", "check_ways"]

MODES = ("mgrit", "serial", "auto")
MEMORIES = ("states", "checkpoints")


def check_ways(mode: str, memory: str, control: Any, cycles: bool) -> None:
    """Raise an error unless a `LayerParallel` module can have these settings and this control.

    Parameters
    ----------
    mode, memory : str
        The settings of the module.
    control : Control, optional
        The control of the cycles.
    cycles : bool
        Whether there are coarse levels, so that cycles are possible.

    Raises
    ------
    TypeError
        If `control` is not a control.
    ValueError
        If `mode` or `memory` is unknown, or the two cannot be combined.

    Examples
    --------
    >>> check_ways("serial", "checkpoints", None, True)
    >>> check_ways("auto", "checkpoints", None, True)
    Traceback (most recent call last):
    ValueError: LayerParallel got memory 'checkpoints' with mode 'auto', but cycles need all states;
    use mode='serial' or levels=1
    """
    if mode not in MODES:
        raise ValueError(f"LayerParallel got mode {mode!r}; use one of {', '.join(MODES)}")
    if control is not None and not isinstance(control, Control):
        raise TypeError(
            f"LayerParallel got control {control!r}; give FixedCycles(2), CyclesToTolerance(0.01) "
            "or AdaptiveCycles()"
        )
    if memory not in MEMORIES:
        raise ValueError(f"LayerParallel got memory {memory!r}; use {' or '.join(MEMORIES)}")
    if memory != "states" and cycles and mode != "serial":
        raise ValueError(
            f"LayerParallel got memory {memory!r} with mode {mode!r}, but cycles need all states; "
            "use mode='serial' or levels=1"
        )


@dataclass(frozen=True)
class MGRITMethod:
    """The multigrid method of a `LayerParallel` module: levels, and cycles per direction."""

    factors: tuple[int, ...]  # coarsening factors, one fewer than there are levels
    forward: tuple[Schedule | None, Schedule]  # opening, cycle
    backward: tuple[Schedule | None, Schedule]
    relaxation: tuple[str, ...]
    coarse: str = "mean"  # kind of coarse layers
    sweeps: tuple[NewtonSweep | None, NewtonSweep | None] = (None, None)  # instead of cycles

    @classmethod
    def from_texts(
        cls,
        factors: Sequence[int],
        forward: str,
        backward: str,
        relaxation: Sequence[str],
        coarse: str = "mean",
    ) -> MGRITMethod:
        """Create the method from cycles given as text; see `mgrit`."""
        levels, words = len(factors) + 1, tuple(relaxation)
        check_coarse("LayerParallel", coarse)
        cycles = mgrit(levels, forward), mgrit(levels, backward)
        sweeps = newton_of(forward), newton_of(backward)
        return cls(tuple(factors), *cycles, words, coarse, sweeps)

    def sweep(self, reverse: bool) -> NewtonSweep | None:
        """The Newton sweep for the states or for the adjoint; None if cycles are used instead."""
        return self.sweeps[reverse]

    def uses_coarse(self, reverse: bool, cycles: int, opens: bool) -> bool:
        """Whether a pass with this number of cycles, or its opening, visits coarse layers."""
        opening, _ = self.backward if reverse else self.forward
        return (opens and opening is not None) or (cycles > 0 and self.sweep(reverse) is None)

    @property
    def strides(self) -> list[int]:
        """For each level, the number of finest layers that one of its layers represents."""
        return list(accumulate(self.factors, mul, initial=1))


SERIAL_METHOD = MGRITMethod.from_texts((), "V", "V", ("F",))
