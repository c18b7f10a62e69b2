"""The settings of a `LayerParallel` module in its `state_dict`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from mgnet.depth.parallel.control import AdaptiveCycles, Control, CyclesToTolerance, FixedCycles
from mgnet.training.extra_state import decode, encode

__all__ = ["settings_from_state", "settings_to_state"]

FORMER = {"coarse": "mean", "memory": "states"}  # for states saved before these settings existed
CONTROLS = {kind.__name__: kind for kind in (FixedCycles, CyclesToTolerance, AdaptiveCycles)}


def settings_to_state(settings: Mapping[str, Any], control: Control | None, calls: int) -> Tensor:
    """Encode the settings as one tensor.

    Parameters
    ----------
    settings : mapping
        The settings by name.
    control : Control or None
        The control of the cycles.
    calls : int
        Number of calls in training.

    Examples
    --------
    >>> state = settings_to_state({"factors": (4,)}, FixedCycles(2), 7)
    >>> settings, control, calls = settings_from_state(state)
    >>> settings
    {'factors': (4,), 'coarse': 'mean', 'memory': 'states'}
    >>> control, calls
    (FixedCycles(cycles=2, backward=None, tolerance=0.1), 7)
    """
    told = None if control is None else [type(control).__name__, asdict(control)]
    return encode({"settings": dict(settings), "control": told, "calls": calls})


def settings_from_state(
    state: Tensor | Mapping[str, Any],
) -> tuple[dict[str, Any], Control | None, int]:
    """Decode settings, control and calls from such a tensor, or from the dict of older versions.

    Raises
    ------
    ValueError
        If the state is in neither of these forms.
    """
    told = state if isinstance(state, Mapping) else decode(state)
    try:
        saved, kind = told["settings"], told["control"]
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
        for name, value in FORMER.items():
            settings.setdefault(name, value)
        control = None if kind is None else CONTROLS[kind[0]](**kind[1])
        return settings, control, int(told["calls"])
    except (AttributeError, KeyError, TypeError):
        raise ValueError(
            f"LayerParallel got the extra state of another module, with {', '.join(told)}; "
            "load the state_dict of a LayerParallel module, or that of an ODENet into its net"
        ) from None
