"""Checks of the arguments of `odeint` before anything is computed."""

from __future__ import annotations

import difflib
import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mgnet.depth.ode.right_hand_side import METHODS
from mgnet.depth.parallel.control import Control
from mgnet.limits import is_number, is_whole, shown

__all__ = ["MODES", "check_options", "check_times", "scheme_of"]

MODES = "serial", "mgrit", "auto"
ADAPTIVE = "dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"  # torchdiffeq's names
PRECISION = 8.0  # least relative tolerance, in units of rounding


def scheme_of(method: Any) -> str:
    """The name that `ODENet` uses for a method.

    Raises
    ------
    ValueError
        If the method is unknown, or chooses its steps one after another.

    Examples
    --------
    >>> scheme_of("rk4"), scheme_of("rk4_classic")
    ('rk4_38', 'rk4')
    """
    if isinstance(method, str) and method in METHODS:
        return METHODS[method]
    names = ", ".join(METHODS)
    if isinstance(method, str) and method in ADAPTIVE:
        raise ValueError(
            f"odeint got method {method!r}, which chooses its steps one after another; give one of "
            f"{names} with rtol and atol, which chooses all of them at once"
        )
    near = difflib.get_close_matches(str(method), METHODS, 1, 0.0)[0]
    raise ValueError(
        f"odeint got method {shown(method)}; it must be one of {names} (did you mean {near}?)"
    )


def check_times(t: Any, u: Tensor) -> Tensor:
    """Return the times on the device of the state.

    Raises
    ------
    TypeError, ValueError
        If they are not floating-point numbers that increase or decrease.

    Examples
    --------
    >>> check_times(torch.tensor([0.0, 1.0, 1.0]), torch.ones(1))
    Traceback (most recent call last):
    ValueError: odeint got t with 1 after 1; times must increase, or decrease, from each to the next
    """
    if not isinstance(t, Tensor) or not t.dtype.is_floating_point:
        raise TypeError(
            f"odeint got t = {shown(t)}; give a tensor of floating-point times, such as "
            "torch.linspace(0.0, 1.0, 11)"
        )
    if t.dim() != 1 or not len(t):
        raise ValueError(
            f"odeint got t of shape {tuple(t.shape)}; give it one axis, with at least one time"
        )
    times = t.detach().to(torch.float64)
    if not times.isfinite().all():
        raise ValueError("odeint got t with a time that is not finite; give finite times")
    change = times[1:] - times[:-1]
    wrong = ~((change > 0) if len(t) > 1 and change[0] > 0 else (change < 0))
    if wrong.any():
        n = int(wrong.nonzero()[0, 0])
        raise ValueError(
            f"odeint got t with {times[n + 1]:.10g} after {times[n]:.10g}; times must increase, or "
            "decrease, from each to the next"
        )
    narrow = times.to(u.dtype)
    if (narrow[1:] == narrow[:-1]).any():
        n = int((narrow[1:] == narrow[:-1]).nonzero()[0, 0])
        raise ValueError(
            f"odeint got the times {times[n]:.17g} and {times[n + 1]:.17g}, which are the same in "
            f"the {u.dtype} of y0; give y0 in float64, or measure time from another origin"
        )
    return t if t.device == u.device else t.to(u.device)


def check_options(
    func: Any,
    step_size: Any,
    interp: Any,
    rtol: Any,
    atol: Any,
    max_steps: Any,
    mode: Any,
    control: Any,
    u: Tensor,
) -> None:
    """Raise an error unless the options of `odeint` are valid and compatible.

    Raises
    ------
    TypeError, ValueError
        If an option is invalid, or two options exclude each other.

    Examples
    --------
    >>> check_options(torch.sin, -1.0, None, None, None, 10, "serial", None, torch.ones(1))
    Traceback (most recent call last):
    ValueError: odeint got step_size = -1.0; give a positive number, also for times that decrease
    """
    if not isinstance(func, Callable):  # type: ignore[arg-type]
        raise TypeError(f"odeint got func = {shown(func)}; give a module or a function of (t, y)")
    _check_signature(func)
    if step_size is not None and not (is_number(step_size, 0.0, sys.float_info.max) and step_size):
        raise ValueError(
            f"odeint got step_size = {shown(step_size)}; give a positive number, also for times "
            "that decrease"
        )
    if interp is not None and (interp != "linear" or step_size is None):
        raise ValueError(
            f"odeint got interp = {shown(interp)} with step_size = {shown(step_size)}; give "
            "interp='linear' with a step_size, or leave it out: steps then end at all times of t"
        )
    if not is_whole(max_steps, 1):
        raise ValueError(f"odeint got max_steps = {shown(max_steps)}; give an integer, at least 1")
    if mode not in MODES:
        raise ValueError(f"odeint got mode {shown(mode)}; use one of {', '.join(MODES)}")
    if control is not None and not isinstance(control, Control):
        raise TypeError(
            f"odeint got control {shown(control)}; give CyclesToTolerance(1e-8), FixedCycles(2) or "
            "AdaptiveCycles()"
        )
    _check_tolerances(rtol, atol, step_size, u)
    _check_precision(func, u)


def _check_precision(func: Any, u: Tensor) -> None:
    """Raise a TypeError if the slopes cannot be computed, or not in the precision of the state."""
    if not isinstance(func, nn.Module) or torch.is_autocast_enabled(u.device.type):
        return
    for name, x in func.named_parameters():
        if x.dtype.is_floating_point and x.dim() and x.dtype != u.dtype:
            raise TypeError(
                f"odeint got y0 of {u.dtype}, but func has {name} of {x.dtype}; convert one of "
                f"them, as with y0.to({x.dtype})"
            )


def _check_signature(func: Any) -> None:
    """Raise a TypeError unless `func` can be called as func(t, y)."""
    try:
        signature = inspect.signature(getattr(func, "forward", func))
    except (TypeError, ValueError):  # some functions written in C have no signature
        return
    try:
        signature.bind(None, None)
    except TypeError:
        name = getattr(func, "__name__", type(func).__name__)
        raise TypeError(
            f"odeint got func {name} with the arguments {signature}; it must take two, the time t "
            "first and then the state y"
        ) from None


def _check_tolerances(rtol: Any, atol: Any, step_size: Any, u: Tensor) -> None:
    given = {"rtol": rtol, "atol": atol}
    for name, value in given.items():
        if value is not None and not (is_number(value, 0.0, math.inf) and value < math.inf):
            raise ValueError(
                f"odeint got {name} = {shown(value)}; give a number, at least 0, for all of y"
            )
    if rtol is None and atol is None:
        return
    if not rtol and not atol:
        raise ValueError("odeint got rtol and atol that are both 0; one must be positive")
    if step_size is not None:
        raise ValueError(
            "odeint got a step_size and tolerances, which both determine the steps; leave out "
            "the step_size, or rtol and atol"
        )
    least = PRECISION * torch.finfo(u.dtype).eps
    if rtol is not None and not atol and rtol < least:
        raise ValueError(
            f"odeint got rtol = {rtol:g} for states of {u.dtype}, whose rounding is as large; "
            f"give at least {least:.1g}{', or y0 in float64' * (u.dtype == torch.float32)}"
        )
