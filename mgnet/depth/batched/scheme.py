"""The Runge-Kutta schemes that define a layer of a block, for one layer or for many at once."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "STAGES",
    "advance",
    "at_times",
    "check_scheme",
    "needed_arguments",
    "of_its_shape",
    "slope",
    "takes_time",
    "version_of",
]

# Numbers of evaluations of F per step; "rk4" is the classic method, "rk4_38" Kutta's 3/8 rule.
STAGES = {"euler": 1, "midpoint": 2, "heun": 2, "heun3": 3, "rk4": 4, "rk4_38": 4}


def slope(scheme: str, F: Callable[[Any, Tensor], Tensor], t: Any, u: Tensor, s: Any) -> Tensor:
    """The increment of a step of size s, divided by s; see Hairer, Norsett, Wanner, ODEs I, II.1.

    Parameters
    ----------
    scheme : "euler", "midpoint", "heun", "heun3", "rk4" or "rk4_38"
        The scheme.
    F : callable
        The function F(t, u), whose values have the shape of u; see `of_its_shape`.
    t, s : float or tensor without axes
        Start time and length of the step.
    u : Tensor
        The state.

    Returns
    -------
    Tensor
        The slope.

    Raises
    ------
    TypeError, ValueError
        If F edits u, or returns a different shape.

    Examples
    --------
    >>> slope("heun", lambda t, u: u, 0.0, torch.ones(1), 1.0).tolist()
    [1.5]
    """
    version = version_of(u)
    k = F(t, u)
    if version_of(u) != version:
        raise ValueError(
            "the block edits its state in place; it must not change it: return u + 1 for u += "
            "1, and use ReLU() for ReLU(inplace=True) at its beginning"
        )
    k = of_its_shape(k, u)
    if scheme == "midpoint":
        return of_its_shape(F(t + 0.5 * s, u + 0.5 * s * k), u)
    if scheme == "heun":
        return 0.5 * (k + of_its_shape(F(t + s, u + s * k), u))
    if scheme in ("heun3", "rk4_38"):
        return _in_thirds(scheme, F, t, u, s, k)
    if scheme == "rk4":
        second = of_its_shape(F(t + 0.5 * s, u + 0.5 * s * k), u)
        third = of_its_shape(F(t + 0.5 * s, u + 0.5 * s * second), u)
        last = of_its_shape(F(t + s, u + s * third), u)
        return (k + 2.0 * (second + third) + last) / 6.0
    return k


def _in_thirds(
    scheme: str, F: Callable[[Any, Tensor], Tensor], t: Any, u: Tensor, s: Any, k: Tensor
) -> Tensor:
    """Methods with stages at one and two thirds of the step; k is the slope at the start."""
    third = s / 3.0
    second = of_its_shape(F(t + third, u + third * k), u)
    if scheme == "heun3":
        last = of_its_shape(F(t + 2.0 * third, u + 2.0 * third * second), u)
        return 0.25 * k + 0.75 * last
    middle = of_its_shape(F(t + 2.0 * third, u + s * second - third * k), u)
    last = of_its_shape(F(t + s, u + s * (k - second + middle)), u)
    return (k + 3.0 * (second + middle) + last) / 8.0


def of_its_shape(value: Any, u: Tensor) -> Tensor:
    """Check a block's value for the state u: a tensor shaped like u, or a tuple starting with one.

    Layers of Hugging Face return tuples. The entries after the tensor must be None or empty.

    Parameters
    ----------
    value : Tensor or tuple
        The value of the block.
    u : Tensor
        The state.

    Returns
    -------
    Tensor
        The tensor.

    Raises
    ------
    TypeError, ValueError
        If the value has a different form or shape.

    Examples
    --------
    >>> of_its_shape((torch.ones(2), None), torch.zeros(2))
    tensor([1., 1.])
    """
    if isinstance(value, tuple) and value:
        if not all(each is None or _is_empty(each) for each in value[1:]):
            raise TypeError(
                f"the block gave a tuple of {', '.join(map(_named, value))}; only the first, the "
                "new state, would be used, and the others must be None: have the block give the "
                "state alone (in Hugging Face layers output_attentions=False, use_cache=False)"
            )
        value = value[0]
    if not isinstance(value, Tensor):
        raise TypeError(
            f"the block gave {type(value).__name__} for a state of shape {tuple(u.shape)}; it must "
            "give a tensor of that shape"
        )
    if value.shape != u.shape:
        raise ValueError(
            f"the block gave a tensor of shape {tuple(value.shape)} for a state of shape "
            f"{tuple(u.shape)}; it must keep the shape: change sizes in `before` and `after`"
        )
    return value


def _is_empty(value: Any) -> bool:
    return isinstance(value, (tuple, list, dict)) and not value


def _named(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return "None" if value is None else type(value).__name__


def advance(scheme: str, F: Callable[[Any, Tensor], Tensor], t: Any, u: Tensor, s: Any) -> Tensor:
    """Compute one step of a scheme; the arguments are those of `slope`.

    Examples
    --------
    >>> advance("heun", lambda t, u: u, 0.0, torch.ones(1), 1.0).tolist()
    [2.5]
    """
    k = slope(scheme, F, t, u, s)
    return u + s * k if isinstance(s, Tensor) else torch.add(u, k, alpha=s)


def version_of(u: Tensor) -> int:
    """How often a tensor was edited; 0 if edits are not counted (inference, compiled code)."""
    return 0 if torch.compiler.is_compiling() or u.is_inference() else u._version


def at_times(states: Tensor, asked: Tensor, final_time: float) -> Tensor:
    """States at times in [0, T], by linear interpolation between N + 1 equidistant states.

    Raises
    ------
    ValueError
        If a time is outside the interval.

    Examples
    --------
    >>> at_times(torch.tensor([0.0, 1.0, 4.0]), torch.tensor([0.25, 2.0]), 2.0).tolist()
    [0.25, 4.0]
    """
    outside = asked[(asked < 0.0) | (asked > final_time)].tolist()
    if outside:
        raise ValueError(
            f"ODENet.trajectory got the time {outside[0]:g}; all must lie in [0, {final_time:g}]"
        )
    steps = len(states) - 1
    position = asked * (steps / final_time)
    nearest = position.round()  # rounding must not mix two states if one is requested
    position = torch.where((position - nearest).abs() < 1e-9, nearest, position)
    left = position.floor().clamp(max=steps - 1).long()
    share = (position - left).to(states).view(-1, *[1] * (states.dim() - 1))
    return torch.lerp(states[left], states[left + 1], share)


def check_scheme(scheme: str) -> None:
    """Raise an error with the nearest name unless this is a scheme.

    Raises
    ------
    ValueError
        If the scheme is unknown.

    Examples
    --------
    >>> check_scheme("rk5")
    Traceback (most recent call last):
    ValueError: got scheme 'rk5'; it must be one of euler, midpoint, heun, heun3, rk4, rk4_38
    (did you mean rk4?)
    """
    if scheme not in STAGES:
        near = difflib.get_close_matches(str(scheme), STAGES, 1, 0.0)[0]
        raise ValueError(
            f"got scheme {scheme!r}; it must be one of {', '.join(STAGES)} (did you mean {near}?)"
        )


def takes_time(block: torch.nn.Module) -> bool:
    """Whether a block is F(t, u), not F(u), according to the arguments of its `forward`.

    Two required arguments mean F(t, u) if the first one is called t or time, possibly with
    underscores around it, or `_`.

    Raises
    ------
    TypeError
        If there are neither one nor two required arguments, if the first of two has a different
        name, or if a required argument is keyword-only.

    Examples
    --------
    >>> takes_time(torch.nn.Linear(2, 2))
    False
    >>> takes_time(torch.nn.Bilinear(2, 2, 2))
    Traceback (most recent call last):
    TypeError: Bilinear.forward takes (input1: torch.Tensor, input2: torch.Tensor) -> \
torch.Tensor; a block F(t, u) must call its first argument t or time, and F(u) has only one: \
give the other arguments defaults, or keep the corresponding tensors as buffers
    """
    needed = needed_arguments(block)
    if len(needed) not in (1, 2) or any(each.kind is each.KEYWORD_ONLY for each in needed):
        raise TypeError(
            f"{type(block).__name__}.forward takes {inspect.signature(block.forward)}; a block "
            "must take (u) or (t, u), one state tensor u, everything else with a default"
        )
    if len(needed) == 2 and needed[0].name.strip("_").lower() not in ("", "t", "time"):
        raise TypeError(
            f"{type(block).__name__}.forward takes {inspect.signature(block.forward)}; a block "
            "F(t, u) must call its first argument t or time, and F(u) has only one: give the "
            "other arguments defaults, or keep the corresponding tensors as buffers"
        )
    return len(needed) == 2


def needed_arguments(block: torch.nn.Module) -> list[inspect.Parameter]:
    """The arguments without a default of a block's `forward`.

    Examples
    --------
    >>> [each.name for each in needed_arguments(torch.nn.Bilinear(2, 2, 2))]
    ['input1', 'input2']
    """
    optional = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    arguments = inspect.signature(block.forward).parameters.values()
    return [each for each in arguments if each.default is each.empty and each.kind not in optional]
