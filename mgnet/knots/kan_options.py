"""Checks of a KAN's arguments, made before memory for the network is allocated."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch

from mgnet.limits import check_memory, is_count, is_whole, shown, written

__all__ = [
    "KANOptions",
    "check_coefficients",
    "check_layers",
    "checked_factor",
    "checked_options",
    "layer_factors",
    "layers_together",
    "told_intervals",
]

DEGREES = range(1, 6)
# A coefficient is drawn in double precision and copied to torch's memory.
BYTES = 16
LAYER = 1000  # bytes that a layer needs besides its numbers


class KANOptions(NamedTuple):
    """The arguments of a KAN, converted and complete."""

    widths: tuple[int, ...]
    intervals: tuple[int, ...]
    degree: int
    domain: tuple[float, float]
    hidden: str
    dtype: torch.dtype
    device: torch.device
    generator: torch.Generator


def checked_options(
    widths: Any,
    intervals: Any,
    degree: Any,
    linear: Any,
    domain: Any,
    hidden: Any,
    dtype: Any,
    device: Any,
    generator: Any,
) -> KANOptions:
    """Check the arguments of the constructor, and convert them.

    Raises
    ------
    ValueError
        If a number is out of range, or the network does not fit into memory.
    TypeError
        If `dtype` or `generator` has the wrong type.

    Examples
    --------
    >>> rest = False, (-1, 1), "tanh", None, None, None
    >>> checked_options([2, 5, 1], 4, 3, *rest).intervals
    (4, 4)
    >>> checked_options([2, 5, 1], 10**30, 3, *rest)
    Traceback (most recent call last):
    ValueError: KAN got widths [2, 5, 1] and intervals about 1e30, about 1e31 coefficients, which \
needs about 1e23 GiB of memory at least, and this machine has ...; use fewer intervals or widths
    """
    known = isinstance(widths, Sequence) and all(map(is_count, widths))
    if not known or len(widths) < 2 + bool(linear):
        raise ValueError(
            f"KAN got widths {shown(widths)}; it needs positive integers, one spline layer apart: "
            f"{'[2, 5, 1]' if linear else '[2, 1]'} is the least"
        )
    layers = len(widths) - 1 - bool(linear)
    if not is_count(degree) or degree not in DEGREES:
        raise ValueError(f"KAN got degree {shown(degree)}; it must be 1, 2, 3, 4 or 5")
    per_layer = list(intervals) if isinstance(intervals, Sequence) else [intervals] * layers
    if len(per_layer) != layers or not all(map(is_count, per_layer)):
        raise ValueError(
            f"KAN got intervals {shown(intervals)} for {layers} spline layers; "
            "give one positive integer, or one per layer"
        )
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"KAN got dtype {shown(dtype)}; give torch.float64 or torch.float32")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"KAN got generator {shown(generator)}; give, for example, "
            "torch.Generator().manual_seed(0)"
        )
    if not isinstance(hidden, str) or hidden not in ("tanh", "identity"):
        raise ValueError(f"KAN got hidden {shown(hidden)}; it must be 'tanh' or 'identity'")
    what = f"KAN got widths {shown(widths)} and intervals {shown(intervals)}"
    first = int(widths[0]) * int(widths[1]) if linear else 0
    check_coefficients(what, widths[bool(linear) :], per_layer, degree, first)
    _check_domain(domain, max(per_layer))
    return KANOptions(
        tuple(int(n) for n in widths),
        tuple(int(n) for n in per_layer),
        int(degree),
        (float(domain[0]), float(domain[1])),
        hidden,
        dtype or torch.float64,
        _device(device),
        generator or torch.Generator("cpu").manual_seed(0),
    )


def _check_domain(domain: Any, intervals: int) -> None:
    fits = isinstance(domain, Sequence) and len(domain) == 2
    if not fits or not all(isinstance(end, Real) for end in domain) or not domain[0] < domain[1]:
        raise ValueError(f"KAN got domain {shown(domain)}; give two numbers in increasing order")
    try:
        length = float(domain[1]) - float(domain[0])
        steps = intervals / length if length else math.inf
    except OverflowError:
        length = steps = math.inf
    if not math.isfinite(length) or not math.isfinite(steps):
        raise ValueError(
            f"KAN got domain {shown(domain)}; its length, and the number of intervals over it, "
            "must be finite numbers: scale the inputs"
        )


def _device(device: Any) -> torch.device:
    if device is None:
        return torch.get_default_device()
    try:
        return torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"KAN got device {shown(device)}, which torch does not know; give 'cpu' or 'cuda', say"
        ) from None


def check_coefficients(
    what: str, widths: Sequence[int], intervals: Sequence[int], degree: int, more: int = 0
) -> None:
    """Raise an error unless the coefficients of spline layers with these widths fit into memory.

    Parameters
    ----------
    what : str
        Beginning of the message: the caller and its argument.
    widths, intervals : sequence of int
        Widths and intervals of the spline layers.
    degree : int
        Degree of the splines.
    more : int
        Number of other parameters.

    Raises
    ------
    ValueError
        If the coefficients need more memory than the machine has.

    Examples
    --------
    >>> check_coefficients("KAN got a lot", [2, 5, 1], [4, 4], 3)
    """
    count = more
    for inputs, outputs, n in zip(widths[:-1], widths[1:], intervals, strict=True):
        count += int(inputs) * int(outputs) * (int(n) + int(degree))
    told = f"{what}, {written(count)} coefficients"
    check_memory(BYTES * count + LAYER * len(intervals), told, "use fewer intervals or widths")


def checked_factor(method: str, factor: Any) -> int:
    """Return the factor of a refinement as an integer of at least 2.

    Raises
    ------
    ValueError
        If the factor is not such an integer.

    Examples
    --------
    >>> checked_factor("KAN.refine", 2)
    2
    """
    if not is_count(factor, 2):
        raise ValueError(
            f"{method} got factor {shown(factor)}; it must be an integer of at least 2"
        )
    return int(factor)


def layer_factors(method: str, factor: Any, layers: Any, coefficients: Any) -> tuple[int, ...]:
    """The refinement factor of each spline layer: `factor`, or 1 if it is not refined.

    Parameters
    ----------
    method : str
        Name of the caller, for the message.
    factor : int
        Refinement factor, at least 2.
    layers : sequence of int or None
        Numbers of layers, where -1 is the last one; None for all.
    coefficients : sequence of Parameter
        The coefficients of all spline layers.

    Returns
    -------
    tuple of int
        One factor per layer.

    Raises
    ------
    ValueError
        If `layers` contains invalid numbers or repetitions, or only some of the layers that share
        coefficients.

    Examples
    --------
    >>> layer_factors("KAN.refine", 2, [-1], [object(), object()])
    (1, 2)
    """
    factor, count = checked_factor(method, factor), len(coefficients)
    if layers is None:
        return (factor,) * count
    several = isinstance(layers, Sequence | np.ndarray) and not isinstance(layers, str)
    if not several or not len(layers) or not all(is_whole(n, -count, count - 1) for n in layers):
        raise ValueError(
            f"{method} got layers {shown(layers)}; give a sequence of some of the numbers "
            f"{-count} to {count - 1} (the network has {count} spline layers), or None for all"
        )
    chosen = {int(n) % count for n in layers}
    if len(chosen) < len(layers):
        raise ValueError(f"{method} got layers {shown(layers)}; give each layer once")
    check_layers(f"{method} got layers {shown(layers)}", chosen, coefficients)
    return tuple(factor if n in chosen else 1 for n in range(count))


def check_layers(what: str, chosen: Collection[int], coefficients: Any) -> None:
    """Raise an error unless layers that share coefficients are chosen together or not at all.

    Raises
    ------
    ValueError
        If only some of the layers that share coefficients are chosen.

    Examples
    --------
    >>> shared = object()
    >>> check_layers("KAN.refine got layers [0]", [0], [shared, shared])
    Traceback (most recent call last):
    ValueError: KAN.refine got layers [0], but layer 1 shares its coefficients with layer 0; \
choose both or neither
    """
    numbers = {id(coefficients[n]): n for n in chosen}
    for number, own in enumerate(coefficients):
        if number not in chosen and id(own) in numbers:
            raise ValueError(
                f"{what}, but layer {number} shares its coefficients with layer "
                f"{numbers[id(own)]}; choose both or neither"
            )


def layers_together(coefficients: Any) -> list[tuple[int, ...]]:
    """The numbers of all layers; layers that share their coefficients are in the same tuple.

    Examples
    --------
    >>> shared = object()
    >>> layers_together([shared, object(), shared])
    [(0, 2), (1,)]
    """
    groups: dict[int, list[int]] = {}
    for number, own in enumerate(coefficients):
        groups.setdefault(id(own), []).append(number)
    return [tuple(group) for group in groups.values()]


def told_intervals(intervals: Sequence[int]) -> str:
    """Describe the intervals in words; one number is enough if all layers have the same.

    Examples
    --------
    >>> told_intervals((8, 8)), told_intervals((256, 16))
    ('8 intervals', '256, 16 intervals')
    """
    numbers = intervals[:1] if len(set(intervals)) == 1 else intervals
    return f"{', '.join(map(str, numbers))} intervals"
