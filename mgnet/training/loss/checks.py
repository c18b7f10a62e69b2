"""What training refuses at its border: data and losses that are not what they must be."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["check_data", "check_loss"]


def check_data(owner: str, data: Any) -> None:
    """Raise unless data are (inputs, targets), tensors of the same samples.

    Raises
    ------
    TypeError, ValueError

    Examples
    --------
    >>> check_data("Objective", (torch.zeros(3, 1), torch.zeros(2, 1)))
    Traceback (most recent call last):
    ValueError: Objective got 3 inputs and 2 targets; axis 0 must hold the same samples in both
    """
    pair = isinstance(data, tuple | list) and len(data) == 2
    if not pair or not all(isinstance(part, torch.Tensor) for part in data):
        parts = ", ".join(type(part).__name__ for part in data) if pair else type(data).__name__
        raise TypeError(
            f"{owner} got data of {parts}; give two tensors with the samples on axis 0, such as "
            "(inputs, targets)"
        )
    if len(data[0]) != len(data[1]):
        raise ValueError(
            f"{owner} got {len(data[0])} inputs and {len(data[1])} targets; "
            "axis 0 must hold the same samples in both"
        )
    if not len(data[0]):
        raise ValueError(f"{owner} got data without samples; give at least one")


def check_loss(loss: Any) -> torch.Tensor:
    """What a loss function gave, if it is a tensor with one number.

    Raises
    ------
    TypeError

    Examples
    --------
    >>> check_loss(torch.tensor(2.0)).item()
    2.0
    """
    if isinstance(loss, torch.Tensor) and loss.numel() == 1:
        return loss
    got = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else f"{loss!r}"
    raise TypeError(
        f"the loss of an Objective gave {got}; it must give a tensor with one number, as a mean "
        "over the samples (for vectors of residuals: LeastSquares)"
    )
