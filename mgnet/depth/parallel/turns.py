"""Marches over layers one by one, with the same rounding as batched steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mgnet.depth.mgrit.communicator import Communicator, SerialCommunicator

__all__ = ["in_turn", "of_all_layers", "summed"]


def in_turn(
    slopes: Sequence[Callable[[Tensor], Tensor]],
    scales: Sequence[Tensor],
    now: Tensor,
    rows: Sequence[Tensor] | None,
) -> list[Tensor]:
    """The points of consecutive steps, with the same rounding as `advance`.

    Parameters
    ----------
    slopes : sequence of callable
        The function `state -> slope` of each step.
    scales : sequence of Tensor
        The step size of each step, shaped to multiply a state.
    now : Tensor
        The first point.
    rows : sequence of Tensor, optional
        Terms to be added after each step.

    Returns
    -------
    list of Tensor
        The points after each step.

    Examples
    --------
    >>> half = torch.tensor(0.5)
    >>> in_turn([torch.neg] * 2, [half] * 2, torch.tensor(8.0), None)
    [tensor(8.), tensor(4.), tensor(2.)]
    """
    points = [now]
    if rows is None:
        for slope, scale in zip(slopes, scales, strict=True):
            now = torch.addcmul(now, scale, slope(now))
            points.append(now)
    else:
        for slope, scale, row in zip(slopes, scales, rows, strict=True):
            now = torch.addcmul(now, scale, slope(now)).add_(row)
            points.append(now)
    return points


def summed(layers: int, now: Tensor, rows: Sequence[Tensor] | None) -> list[Tensor]:
    """The points of steps that have no slope and only add rows; see `in_turn`.

    Examples
    --------
    >>> summed(2, torch.tensor(8.0), [torch.tensor(1.0)] * 2)
    [tensor(8.), tensor(9.), tensor(10.)]
    """
    if rows is None:
        return [now] * (layers + 1)
    points = [now]
    for row in rows:
        points.append(points[-1] + row)
    return points


def of_all_layers(communicator: Communicator, own: Tensor) -> Tensor:
    """The rows of all processes, one per layer, on each process; all must call this together.

    Examples
    --------
    >>> from mgnet.depth.mgrit.communicator import SERIAL_COMMUNICATOR
    >>> of_all_layers(SERIAL_COMMUNICATOR, torch.ones(3, 1)).shape
    torch.Size([3, 1])
    """
    if isinstance(communicator, SerialCommunicator):
        return own
    return communicator.broadcast(communicator.gather_layers(own))
