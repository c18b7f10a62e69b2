"""The settings of a `TimeParallel` module in its `state_dict`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from mgnet.depth.parallel.control import Control
from mgnet.depth.parallel.saved_settings import CONTROLS
from mgnet.depth.recurrent.cycles import TimeCycles
from mgnet.training.extra_state import check_options, decode, encode

__all__ = ["TimeSettings", "settings_from_state", "settings_to_state"]

TimeSettings = tuple[TimeCycles, Control, str, bool]


def settings_to_state(
    cycles: TimeCycles, control: Control, mode: str, warm_start: bool, batch_first: bool
) -> Tensor:
    """Encode the settings as one tensor.

    Parameters
    ----------
    cycles : TimeCycles
        Levels and cycles.
    control : FixedCycles or CyclesToTolerance
        The control of the cycles.
    mode : str
        The mode.
    warm_start, batch_first : bool
        The flags of the module.

    Examples
    --------
    >>> from mgnet.depth import FixedCycles
    >>> state = settings_to_state(TimeCycles(3, (8, 4)), FixedCycles(2), "auto", False, True)
    >>> settings_from_state(state, batch_first=True)
    (TimeCycles(levels=3, coarsening=(8, 4), relaxation=('FCF',), cycle='V'), \
FixedCycles(cycles=2, backward=None, tolerance=0.1), 'auto', False)
    """
    told = {"mode": mode, "warm_start": warm_start}
    how = [type(control).__name__, asdict(control)]
    options = {"batch_first": batch_first}
    return encode({"time": asdict(cycles), "control": how, "options": options, **told})


def settings_from_state(state: Tensor | Mapping[str, Any], batch_first: bool) -> TimeSettings:
    """Decode cycles, control, mode and warm start from such a tensor.

    Parameters
    ----------
    state : Tensor
        The saved settings.
    batch_first : bool
        The value of `batch_first` in the module that loads the settings.

    Raises
    ------
    RuntimeError
        If the saved module has a different `batch_first` and thus computes another function.
    ValueError
        If the state does not have the expected form.
    """
    told = state if isinstance(state, Mapping) else decode(state)
    try:
        (kind, values), saved = told["control"], told["time"].items()
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved}
        cycles = TimeCycles(**given)
        settings = cycles, CONTROLS[kind](**values), str(told["mode"]), bool(told["warm_start"])
        options = dict(told["options"])
    except (AttributeError, KeyError, TypeError):
        raise ValueError(
            f"TimeParallel got the extra state of another module, with {', '.join(told)}; "
            "load the state_dict of a TimeParallel module"
        ) from None
    check_options("TimeParallel", options, {"batch_first": batch_first})
    return settings
