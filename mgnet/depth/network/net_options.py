"""The arguments of an ODE net, checked before anything of their size is built."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mgnet.depth.batched.scheme import check_scheme
from mgnet.depth.network.spline_weights import DepthSpline
from mgnet.limits import check_memory, is_count, is_number, shown, written

__all__ = ["check_layer_count", "check_net_options", "check_refined", "drawn_layer"]

MODULE = 2000  # bytes that a module takes beside its numbers, at least


def check_net_options(
    layers: Any,
    final_time: Any,
    scheme: Any,
    weights: Any,
    boundary_layers: Any,
    start: Any = "independent",
) -> None:
    """Raise unless these can be the options of an ODE net.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> check_net_options(0, 1.0, "euler", "per layer", (0, 0))
    Traceback (most recent call last):
    ValueError: ODENet got 0 layers; it needs at least 1, an integer
    """
    if not is_count(layers):
        raise ValueError(f"ODENet got {shown(layers)} layers; it needs at least 1, an integer")
    if not is_number(final_time, 0.0, sys.float_info.max) or not final_time:
        raise ValueError(
            f"ODENet got final_time {shown(final_time)}; it must be positive, a finite number"
        )
    check_scheme(scheme)
    named = isinstance(weights, str) and weights in ("per layer", "shared")
    if not named and not isinstance(weights, DepthSpline):
        raise ValueError(
            f"ODENet got weights {shown(weights)}; give 'per layer', 'shared' or a DepthSpline"
        )
    if isinstance(weights, DepthSpline):
        weights.check_layers(int(layers))
    pair = isinstance(boundary_layers, Sequence) and len(boundary_layers) == 2
    if not pair or not all(is_count(each, 0) for each in boundary_layers):
        raise ValueError(
            f"ODENet got boundary_layers {shown(boundary_layers)}; give two numbers, of layers "
            "before and after, 0 or more"
        )
    if not isinstance(start, str) or start not in ("independent", "identical"):
        raise ValueError(f"ODENet got start {shown(start)}; give 'independent' or 'identical'")


def check_layer_count(block: torch.nn.Module | None, count: int) -> None:
    """Raise unless memory holds so many layers.

    Parameters
    ----------
    block : torch.nn.Module or None
        One of them, where there is one yet.
    count : int

    Raises
    ------
    ValueError

    Examples
    --------
    >>> check_layer_count(torch.nn.Linear(8, 8), 1000)
    """
    one, what = MODULE, f"ODENet got {written(count)} layers"
    if block is not None:
        numbers = [p.numel() * p.element_size() for p in block.parameters()]
        one = MODULE * len(list(block.modules())) + 2 * sum(numbers)  # and stacked
        size = sum(p.numel() for p in block.parameters())
        what += f" of {size} parameters, {written(size * count)} in all"
    check_memory(one * int(count), what, "use fewer layers or a smaller block")


def drawn_layer(block: Callable[[int], Any], n: int, count: int) -> torch.nn.Module:
    """What the function gives as layer n, the first time with a look at the memory for all.

    Raises
    ------
    TypeError
        If it gives no module.
    ValueError

    Examples
    --------
    >>> drawn_layer(lambda n: torch.nn.Tanh(), 0, 5)
    Tanh()
    """
    if not n:
        check_layer_count(None, count)
    module = block(n)
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"block({n}) gave a {type(module).__name__}; it must give a torch.nn.Module"
        )
    if not n:
        check_layer_count(module, count)
    return module


def check_refined(owner: str, factor: int, rows: int, parameters: int) -> None:
    """Raise unless memory holds the matrices of a refinement and what they make.

    Parameters
    ----------
    owner : str
    factor : int
    rows : int
        Coarse layers, or control points.
    parameters : int
        Of the coarse net, over these rows.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> check_refined("refinement", 2, 16, 1000)
    """
    factor = int(factor)
    check_memory(
        4 * factor * (4 * rows**2 + parameters),
        f"{owner} got factor {written(factor)}: {written(factor * rows)} layers or control points "
        f"and {written(factor * parameters)} parameters",
        "use a smaller factor or fewer levels",
    )
