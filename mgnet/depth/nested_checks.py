"""Checks of `train_in_depth`: its arguments, and the values that its functions return."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch

from mgnet.depth.network.net_options import check_refined
from mgnet.depth.network.ode_net import ODENet
from mgnet.depth.network.refinement import kind_of
from mgnet.limits import check_limits, is_count, is_number, shown

__all__ = [
    "check_budget",
    "check_optimizer",
    "checked_factor",
    "checked_module",
    "checked_value",
    "parts_of",
]


def parts_of(net: Any, depth: Any, factor: int, how: str | None) -> int:
    """The number of depths in the training, from `net.depth` to `depth`.

    Raises
    ------
    TypeError
        If `net` is not an `ODENet`.
    ValueError
        If `depth` is not the depth of the net times a power of `factor`, or `how` is "knots".

    Examples
    --------
    >>> parts_of(ODENet(torch.nn.Linear(2, 2), 2), 8, 2, None)
    3
    """
    if not isinstance(net, ODENet):
        raise TypeError(f"train_in_depth got a {type(net).__name__}; give an ODENet")
    net.check_whole()
    net.check_derived("train_in_depth")
    if kind_of(net, factor, how) == "knots":
        raise ValueError("train_in_depth refines layers; how='knots' does not change their number")
    parts, layers = 1, net.depth
    while is_count(depth) and layers < depth:
        parts, layers = parts + 1, layers * factor
    if layers != depth:
        raise ValueError(
            f"train_in_depth got depth {shown(depth)} for a net of {net.depth} layers; give "
            f"{net.depth} times a power of {factor}"
        )
    numbers = sum(p.numel() for p in net.block.parameters())
    check_refined("train_in_depth", depth // net.depth, net.depth, numbers)
    return parts


def check_budget(work: Any, seconds: Any, trial: Any, clip: Any) -> None:
    """Raise an error unless the budget is finite and all numbers are within their ranges.

    Raises
    ------
    ValueError
        If a number is invalid.

    Examples
    --------
    >>> check_budget(100, math.inf, 0.75, None)
    Traceback (most recent call last):
    ValueError: train_in_depth got trial 0.75; give a part of up to 0.5, since two nets share it, \
or None
    """
    check_limits("train_in_depth", seconds=seconds)
    if not is_number(work) or not work > 0.0 or not seconds > 0.0 or min(work, seconds) == math.inf:
        raise ValueError(
            f"train_in_depth got work {shown(work)} and seconds {shown(seconds)}; give a positive "
            "budget, such as work=1000 steps of the deepest net"
        )
    if trial is not None and not (is_number(trial) and 0.0 < trial <= 0.5):
        raise ValueError(
            f"train_in_depth got trial {shown(trial)}; give a part of up to 0.5, since two nets "
            "share it, or None"
        )
    if clip is not None and not is_number(clip, 0.0, open=True):
        raise ValueError(
            f"train_in_depth got clip {shown(clip)}; give the largest norm of all gradients, such "
            "as 1.0, or None"
        )


def check_optimizer(net: ODENet, given: Any, made: Any) -> None:
    """Raise an error unless `made` is an optimizer of this net that needs only gradients.

    Raises
    ------
    TypeError
        If `made` is not an optimizer, or evaluates the loss itself.
    ValueError
        If the optimizer contains no parameter of the net.

    Examples
    --------
    >>> net = ODENet(torch.nn.Linear(2, 2), 2)
    >>> check_optimizer(net, None, torch.optim.LBFGS(net.parameters()))
    Traceback (most recent call last):
    TypeError: train_in_depth got LBFGS, which evaluates the loss itself; give one that steps by the
    gradient of a batch, such as torch.optim.AdamW, or fit all the data at once with your own loop
    and refine_optimizer
    """
    if not isinstance(made, torch.optim.Optimizer) or made is given:
        raise TypeError(
            f"train_in_depth got an optimizer of type {type(made).__name__}; give a function "
            "net -> optimizer"
        )
    # Schedulers set a `step` with another signature in the instance.
    _, *arguments = inspect.signature(type(made).step).parameters.values()
    optional = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    if any(each.default is each.empty and each.kind not in optional for each in arguments):
        raise TypeError(
            f"train_in_depth got {type(made).__name__}, which evaluates the loss itself; give one "
            "that steps by the gradient of a batch, such as torch.optim.AdamW, or fit all the data "
            "at once with your own loop and refine_optimizer"
        )
    own = set(net.parameters())
    if not any(p in own for group in made.param_groups for p in group["params"]):
        raise ValueError(
            f"train_in_depth got {type(made).__name__} without any parameter of the net; give a "
            "function that creates it for the net passed to it"
        )


def checked_factor(factor: Any, part: float) -> float:
    """Return the value of a schedule, at least 0 and finite.

    Raises
    ------
    ValueError
        If the value is not such a number.

    Examples
    --------
    >>> checked_factor(-1.0, 0.25)
    Traceback (most recent call last):
    ValueError: train_in_depth got the factor -1.0 from schedule(0.25); give a finite number of at \
least 0
    """
    if not is_number(factor, 0.0) or factor == math.inf:
        raise ValueError(
            f"train_in_depth got the factor {shown(factor)} from schedule({part:.4g}); give a "
            "finite number of at least 0"
        )
    return float(factor)


def checked_module(module: Any) -> torch.nn.Module:
    """Return the result of `wrap`.

    Raises
    ------
    TypeError
        If the result is not a module.

    Examples
    --------
    >>> checked_module(None)
    Traceback (most recent call last):
    TypeError: train_in_depth got NoneType from wrap; give a module around the net
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"train_in_depth got {type(module).__name__} from wrap; give a module around the net"
        )
    return module


def checked_value(value: Any) -> float:
    """Return the result of `validate` as a number.

    Raises
    ------
    TypeError
        If the result is not one real number.

    Examples
    --------
    >>> checked_value(torch.tensor(0.5)), checked_value(2)
    (0.5, 2.0)
    >>> checked_value(None)
    Traceback (most recent call last):
    TypeError: train_in_depth got NoneType from validate; give a number, the lower the better
    """
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"train_in_depth got {type(value).__name__} from validate; give a number, the lower "
            "the better"
        ) from None
