"""Comparison of states read from a file with the states that they will replace."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mgnet.training.extra_state import check_options, decode

__all__ = ["check_groups", "check_network", "check_scheduler", "first_difference"]

EXTRA = "_extra_state"


def check_network(saved: Any, own: Mapping[str, Any], layered: Collection[str], depth: int) -> None:
    """Refuse weights that are not finite or that do not match this network.

    Parameters
    ----------
    saved : object
        The value from the file, which should be the `state_dict` of the whole network.
    own : mapping
        The `state_dict` of this rank.
    layered : collection of str
        Names of the tensors whose axis 0 runs over the layers.
    depth : int
        Total number of layers.

    Raises
    ------
    RuntimeError, ValueError
        If the weights do not match or are not finite.

    Examples
    --------
    >>> check_network({"a": torch.ones(2)}, {"a": torch.ones(3)}, set(), 4)
    Traceback (most recent call last):
    ValueError: it has 'a' of shape [2], and the network [3]
    """
    if not isinstance(saved, dict) or not all(
        isinstance(name, str) and (isinstance(each, Tensor) or name.endswith(EXTRA))
        for name, each in saved.items()
    ):
        raise ValueError("its network is not a state_dict of tensors")
    for name in own:
        if name.endswith(EXTRA) and name in saved:
            theirs, ours = (_decoded(state[name]).get("options") for state in (saved, own))
            if isinstance(theirs, dict) and isinstance(ours, dict):
                check_options("the network", theirs, ours)
    for name in dict.fromkeys([*own, *saved]):
        if name.endswith(EXTRA):
            continue
        shapes = [list(state[name].shape) if name in state else None for state in (saved, own)]
        if name in own and name in layered:
            shapes[1] = [depth, *own[name].shape[1:]]
        if shapes[0] != shapes[1]:
            raise ValueError(f"it has '{name}' of shape {shapes[0]}, and the network {shapes[1]}")
        if saved[name].dtype != own[name].dtype:
            kinds = [str(state[name].dtype).removeprefix("torch.") for state in (saved, own)]
            raise ValueError(f"it has '{name}' in {kinds[0]}, and the network in {kinds[1]}")
        if not _is_finite(saved[name]):
            raise ValueError(f"its weights '{name}' are not finite")


def check_groups(
    saved: Any, own: Mapping[str, Any], shapes: Sequence[tuple[int, ...] | None]
) -> None:
    """Refuse the state of an optimizer with different groups or different kinds of options.

    Parameters
    ----------
    saved : object
        The value from the file, which should be the `state_dict` of an optimizer.
    own : mapping
        The `state_dict` of this optimizer.
    shapes : sequence of (tuple of int or None)
        For each parameter, the shape that the optimizer's moments must have if the parameter
        belongs to the layers, or None.

    Raises
    ------
    ValueError
        If the state does not match or is not finite.

    Examples
    --------
    >>> one, two = ({"state": {}, "param_groups": [{"lr": lr, "params": [0]}]} for lr in (0.1, "x"))
    >>> check_groups(two, one, [None])
    Traceback (most recent call last):
    ValueError: the option 'lr' of its optimizer is 'x', in the place of 0.1
    """
    if not isinstance(saved, dict) or set(saved) != {"state", "param_groups"}:
        raise ValueError("its optimizer has no state and groups of parameters")
    groups, state = saved["param_groups"], saved["state"]
    if not isinstance(groups, list) or len(groups) != len(own["param_groups"]):
        raise ValueError("its optimizer has another number of groups of parameters")
    for group, ours in zip(groups, own["param_groups"], strict=True):
        if not isinstance(group, dict) or group.get("params") != ours["params"]:
            raise ValueError("the groups of its optimizer have other parameters")
        if not all(isinstance(key, str) for key in group):
            raise ValueError("options of its optimizer have no names")
        _check_options("its optimizer", group, ours)
    numbers = [number for group in own["param_groups"] for number in group["params"]]
    wanted = dict(zip(numbers, shapes, strict=True))
    if not isinstance(state, dict) or not all(type(n) is int and n in wanted for n in state):
        raise ValueError("its optimizer keeps something of other parameters")
    for number, kept in state.items():
        if not isinstance(kept, dict) or not all(isinstance(key, str) for key in kept):
            raise ValueError(f"what its optimizer keeps of parameter {number} has no names")
        for key, value in kept.items():
            shape = wanted[number]
            whole = isinstance(value, Tensor) and (value.dim() == 0 or value.shape == shape)
            if shape is not None and not (whole or isinstance(value, bool | int | float | None)):
                raise ValueError(
                    f"its optimizer keeps '{key}' of parameter {number}, which is neither a number "
                    f"nor of shape {list(shape)}"
                )
            if isinstance(value, Tensor) and not _is_finite(value):
                raise ValueError(f"'{key}' of parameter {number}, of its optimizer, is not finite")


def check_scheduler(saved: Any, scheduler: Any) -> None:
    """Refuse the state of one of PyTorch's schedulers that has different entries.

    Parameters
    ----------
    saved : object
        The value from the file.
    scheduler : object or None
        The scheduler to restore.

    Raises
    ------
    ValueError
        If the state does not match the scheduler.

    Examples
    --------
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])
    >>> check_scheduler({"step": 3}, torch.optim.lr_scheduler.StepLR(optimizer, 2))
    Traceback (most recent call last):
    ValueError: its scheduler has an option 'step' that this one does not have
    """
    if scheduler is None and saved is not None:
        raise ValueError("it has the state of a scheduler, and none is given")
    if isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler):
        own = scheduler.state_dict()
        if not isinstance(saved, dict):
            raise ValueError("its scheduler has no state")
        for key in saved:
            if key not in own:
                raise ValueError(f"its scheduler has an option {key!r} that this one does not have")
        _check_options("its scheduler", saved, own)


def first_difference(saved: Any, now: Any, path: str = "") -> str:
    """The place at which a value differs from the saved one in any bit; "" if there is none.

    Dicts may have more entries than were saved, for example with a newer version.

    Parameters
    ----------
    saved, now : object
        The values to compare.
    path : str
        Path of the value in the whole state.

    Returns
    -------
    str
        Path of the first difference.

    Examples
    --------
    >>> first_difference({"lr": 0.1, "betas": (0.9, 1.0)}, {"lr": 0.1, "betas": (0.9, 1)})
    'betas.1'
    """
    if isinstance(saved, Tensor) and isinstance(now, Tensor):
        alike = (saved.dtype, saved.shape) == (now.dtype, now.shape)
        return "" if alike and torch.equal(_bits(saved), _bits(now)) else path
    if type(saved) is not type(now) and not (isinstance(saved, dict) and isinstance(now, dict)):
        return path
    if isinstance(saved, dict):
        absent = [key for key in saved if key not in now]
        if absent:
            return f"{path}.{absent[0]}".removeprefix(".")
        extra = [key for key in saved if str(key).endswith(EXTRA)]
        for key in extra:
            if not _is_same_extra(saved[key], now[key]):
                return f"{path}.{key}".removeprefix(".")
        pairs = [(key, saved[key], now[key]) for key in saved if key not in extra]
    elif isinstance(saved, list | tuple):
        if len(saved) != len(now):
            return path
        pairs = [(number, *each) for number, each in enumerate(zip(saved, now, strict=True))]
    else:
        return "" if repr(saved) == repr(now) else path
    found = (first_difference(a, b, f"{path}.{key}".removeprefix(".")) for key, a, b in pairs)
    return next(filter(None, found), "")


def _decoded(value: Any) -> dict[str, Any]:
    """The entries of a network's state besides weights; empty if mgnet did not write it."""
    try:
        return decode(value)
    except ValueError:
        return {}


def _is_same_extra(saved: Any, now: Any) -> bool:
    """Whether options agree; they may differ by rounding, and a newer version may have more."""
    theirs, ours = _decoded(saved), _decoded(now)
    if not theirs or not ours:
        return not first_difference({"x": saved}, {"x": now})
    for told in (theirs, ours):
        options = told.pop("options", {})
        told |= options if isinstance(options, dict) else {"options": options}
    try:
        check_options("", theirs, ours)
    except RuntimeError:
        return False
    return True


def _check_options(whose: str, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    for key, value in saved.items():
        if key in own and not _alike(value, own[key]):
            raise ValueError(
                f"the option '{key}' of {whose} is {_short(value)}, in the place of "
                f"{_short(own[key])}"
            )


def _alike(saved: Any, own: Any) -> bool:
    """Whether a value may replace another one."""
    if own is None or saved is None:
        return not isinstance(saved, str | list | tuple | dict)
    if isinstance(own, bool) or isinstance(saved, bool):
        return type(saved) is type(own)
    if isinstance(own, int | float | Tensor):
        return isinstance(saved, int | float) or (isinstance(saved, Tensor) and saved.dim() == 0)
    if isinstance(own, list | tuple):
        if type(saved) is not type(own):
            return False
        whole = len(saved) != len(own) or all(map(_alike, saved, own))
        return whole and (isinstance(own, list) or len(saved) == len(own))
    return type(saved) is type(own)


def _is_finite(value: Tensor) -> bool:
    if not (value.is_floating_point() or value.is_complex()):
        return True
    wide = value.float() if value.itemsize == 1 else value  # PyTorch cannot check 8-bit floats
    return bool(wide.isfinite().all())


def _bits(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:80]}..."
