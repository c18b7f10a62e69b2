"""Selection of the layers of a KAN that need more knots, by trial refinements and held-out data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from mgnet.knots.hierarchy import held_kan, refined
from mgnet.knots.kan_options import checked_factor, layers_together
from mgnet.limits import is_number, shown

__all__ = ["TrialRefinement", "refine_where_needed"]

NEAR = 0.8  # fraction of the best trial's gain that a smaller network must reach to be preferred


class TrialRefinement(NamedTuple):
    """The result of `refine_where_needed`.

    Attributes
    ----------
    network : torch.nn.Module
        The trained network.
    layers : tuple of int
        Numbers of the refined layers; empty if no refinement lowers the error enough.
    error : float
        Held-out error of the network.
    errors : dict of tuple of int to float
        Errors of all trials, keyed by the layers refined; `()` is the trial without refinement.

    Examples
    --------
    >>> network, layers, error, errors = TrialRefinement(torch.nn.Identity(), (), 0.1, {(): 0.1})
    >>> error == errors[layers]
    True
    """

    network: torch.nn.Module
    layers: tuple[int, ...]
    error: float
    errors: dict[tuple[int, ...], float]


def refine_where_needed(
    network: torch.nn.Module,
    fit: Callable[[Any], Any],
    error: Callable[[Any], Any],
    *,
    factor: int = 2,
    gain: float = 0.1,
) -> TrialRefinement:
    """Refine the layers that need more knots, as measured on held-out data.

    Each spline layer is refined in a trial of its own, and all layers together in one more trial,
    unless exactly one of the single-layer trials lowered the error enough. Every trial network is
    fitted, as is a copy without refinement. Among the networks that reach four fifths of the best
    gain, measured in decimal digits, the smallest one is selected and returned as trained. The
    trials that are not selected are the extra cost of this method; trials of layers with few
    coefficients cost little.

    The method was tested on compositions with rough inner functions, with a steep outer function,
    and with smooth functions only. An alternative indicator, the change of the outputs caused by
    the part of a layer that its next coarser splines cannot represent ("detail"), was also largest
    in the right layer but did not show when to stop: it stayed far above the error of a smooth
    composition that already had all knots it needed.

    Parameters
    ----------
    network : torch.nn.Module
        A KAN, or a module that contains one; it is not changed.
    fit : callable
        A function `network -> None` that trains the network in place, for as long as each level
        should be trained.
    error : callable
        A function `network -> float` that returns the error on data that `fit` does not use; finite
        and not negative.
    factor : int
        Refinement factor, at least 2.
    gain : float
        The fraction by which a refinement must lower the error, relative to fitting without
        refinement; between 0 and 1.

    Returns
    -------
    TrialRefinement
        The network and all errors. If no refinement is useful, the network is the given one or the
        fitted copy, whichever has the smaller error.

    Raises
    ------
    TypeError
        If the network contains no KAN, or `fit` or `error` is not a function.
    ValueError
        If `factor` or `gain` is out of range, or an error is not finite.

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> from mgnet.training import LeastSquares, levenberg_marquardt
    >>> x = 2 * torch.rand(600, 2, generator=torch.Generator().manual_seed(0)).double() - 1
    >>> s = (torch.sin(12 * x[:, :1]) + torch.sin(2 * x[:, 1:])) / 2
    >>> def fit(kan):
    ...     levenberg_marquardt(LeastSquares(kan, (x[:400], torch.sin(s[:400]))), max_cycles=10)
    >>> def error(kan):
    ...     with torch.no_grad():
    ...         return (kan(x[400:]) - torch.sin(s[400:])).square().mean().sqrt()
    >>> kan = KAN([2, 1, 1], 8)
    >>> fit(kan)
    >>> found = refine_where_needed(kan, fit, error)
    >>> found.layers, found.network.intervals
    ((0,), (16, 8))
    """
    factor = checked_factor("refine_where_needed", factor)
    if not is_number(gain, 0.0, 1.0, open=True):
        raise ValueError(
            f"refine_where_needed got gain {shown(gain)}; it must be a number between 0 and 1"
        )
    for name, given in (("fit", fit), ("error", error)):
        if not callable(given):
            raise TypeError(
                f"refine_where_needed got {name} of type {type(given).__name__}; give a function "
                "of a network"
            )
    kan = held_kan(network)
    before = _measured(error, network, ())
    best: dict[tuple[int, ...], torch.nn.Module] = {(): copy.deepcopy(network)}
    fit(best[()])
    errors: dict[tuple[int, ...], float] = {(): _measured(error, best[()], ())}
    if before < errors[()]:
        best[()], errors[()] = network, before

    def attempt(layers: tuple[int, ...]) -> None:
        best[layers] = refined(network, factor, layers)
        fit(best[layers])
        errors[layers] = _measured(error, best[layers], layers)

    groups = layers_together(kan.coefficients)
    for group in groups:
        attempt(group)
    enough = (1.0 - gain) * errors[()]
    if len(groups) > 1 and sum(errors[group] < enough for group in groups) != 1:
        attempt(tuple(range(len(kan.coefficients))))
    layers = _chosen(errors, enough, {layers: _size(made) for layers, made in best.items()})
    return TrialRefinement(best[layers], layers, errors[layers], errors)


def _chosen(
    errors: dict[tuple[int, ...], float], enough: float, sizes: dict[tuple[int, ...], int]
) -> tuple[int, ...]:
    """The layers of the selected trial."""
    useful = [layers for layers in errors if layers and errors[layers] < enough]
    if not useful:
        return ()
    least = min(errors[layers] for layers in useful)
    if least == 0.0:
        near = [layers for layers in useful if errors[layers] == 0.0]
    else:
        most = math.log(errors[()] / least)
        near = [n for n in useful if math.log(errors[()] / errors[n]) >= NEAR * most]
    return min(near, key=lambda layers: (sizes[layers], errors[layers]))


def _measured(
    error: Callable[[Any], Any], network: torch.nn.Module, layers: tuple[int, ...]
) -> float:
    told = error(network)
    try:
        value = float(told.detach() if isinstance(told, torch.Tensor) else told)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"refine_where_needed got the error {shown(told)}; it must be a number"
        ) from None
    if not 0.0 <= value < math.inf:
        where = f"with layers {shown(layers)} refined" if layers else "without refinement"
        raise ValueError(
            f"refine_where_needed got the error {value:g} of the network {where}; errors must be "
            "finite and not negative: check what fit does to the network"
        )
    return value


def _size(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
