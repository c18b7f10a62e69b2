"""A `TimeParallel` whose levels, cycles and control come from PETSc's options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mgnet.options.layer_options import control_from_options, factors_from_options, named
from mgnet.options.reader import OptionReader, check_names

if TYPE_CHECKING:
    from mgnet.depth import CyclesToTolerance, FixedCycles, TimeParallel

__all__ = ["time_parallel_from_options"]


def time_parallel_from_options(
    cell: Any,
    *,
    prefix: str = "",
    levels: int = 2,
    coarsening: int | Sequence[int] | None = None,
    relaxation: str | Sequence[str] = ("FCF",),
    control: FixedCycles | CyclesToTolerance | None = None,
    mode: str = "mgrit",
    coarse: Callable[..., Any] | None = None,
    cycle: str = "V",
    batch_first: bool = False,
    warm_start: bool = False,
) -> TimeParallel:
    """Build the time-parallel network that the script specifies, modified by the options.

    The options are those of `layer_parallel_from_options`, except that one option, `-mgnet_cycle`,
    applies to both directions and there is no `-mgnet_coarse`. Call `init(sys.argv)` first.

    Parameters
    ----------
    cell : GRU, LSTM, cell or callable
        The recurrent network or cell, as in `TimeParallel`.
    prefix : str
        Prefix of the option names: with "rnn_", the options are `-rnn_mgnet_cycle` and so on.
    levels, coarsening, relaxation, control, mode, coarse, cycle, batch_first, warm_start
        The settings of `TimeParallel`. For `levels`, `coarsening`, `relaxation`, `control`, `mode`
        and `cycle`, an option takes precedence.

    Returns
    -------
    TimeParallel
        The module with the settings of the script and of the options.

    Raises
    ------
    ValueError
        If an `mgnet` option is unknown or has an invalid value.

    Examples
    --------
    >>> import torch
    >>> time_parallel_from_options(torch.nn.GRU(2, 3), cycle="F").cycles.cycle
    'F'
    """
    from mgnet.depth import AdaptiveCycles, CyclesToTolerance, TimeParallel  # loads torch

    check_names()
    values = OptionReader(prefix, "time")
    factors = factors_from_options(coarsening, values)
    words = (relaxation,) if isinstance(relaxation, str) else tuple(relaxation)
    words, levels = values.get("relaxation", words), values.get("levels", levels)
    control = control_from_options(CyclesToTolerance(1e-6) if control is None else control, values)
    if isinstance(control, AdaptiveCycles):
        raise ValueError(
            f"option {values.shown('control')}: TimeParallel has no adaptive cycles; give fixed or "
            "tolerance"
        )
    mode, cycle = values.get("mode", mode), values.get("cycle", cycle)
    values.help()
    try:
        return TimeParallel(
            cell,
            levels,
            factors,
            words,
            control,
            mode=mode,
            coarse=coarse,
            cycle=cycle,
            batch_first=batch_first,
            warm_start=warm_start,
        )
    except ValueError as error:
        raise named(error, values, ("levels", "coarsening", "relaxation", "cycle")) from None
