"""Checks of an ODE net's arguments before anything of the requested size is built."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mgnet.depth.batched.scheme import check_scheme
from mgnet.depth.network.spline_weights import DepthSpline
from mgnet.limits import check_memory, is_count, is_number, shown, written

__all__ = ["check_layer_count", "check_net_options", "check_refined", "drawn_layer"]

MODULE = 2000  # lower bound for the bytes of a module besides its numbers


def check_net_options(
    layers: Any,
    final_time: Any,
    scheme: Any,
    weights: Any,
    boundary_layers: Any,
    start: Any = "independent",
) -> None:
    """Raise an error unless these are valid options of an ODE net.

    Raises
    ------
    ValueError
        If an option is invalid.

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
    """Raise an error unless this number of layers fits into memory.

    Parameters
    ----------
    block : torch.nn.Module or None
        One of the layers, or None if none has been built yet.
    count : int
        Number of layers.

    Raises
    ------
    ValueError
        If the layers would need more memory than the machine has.

    Examples
    --------
    >>> check_layer_count(torch.nn.Linear(8, 8), 1000)
    """
    one, what = MODULE, f"ODENet got {written(count)} layers"
    if block is not None:
        numbers = [p.numel() * p.element_size() for p in block.parameters()]
        one = MODULE * len(list(block.modules())) + 2 * sum(numbers)  # also stacked
        size = sum(p.numel() for p in block.parameters())
        what += f" of {size} parameters, {written(size * count)} in all"
    check_memory(one * int(count), what, "use fewer layers or a smaller block")


def drawn_layer(block: Callable[[int], Any], n: int, count: int) -> torch.nn.Module:
    """Call the function for layer n; the first time, check the memory for all layers.

    Raises
    ------
    TypeError
        If the function does not return a module.
    ValueError
        If the layers would need more memory than the machine has.

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
    """Raise an error unless the matrices of a refinement and the refined net fit into memory.

    Parameters
    ----------
    owner : str
        Name of the caller, for the message.
    factor : int
        Refinement factor.
    rows : int
        Number of coarse layers or control points.
    parameters : int
        Total number of parameters in the block of the coarse net.

    Raises
    ------
    ValueError
        If the refined net would need more memory than the machine has.

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
