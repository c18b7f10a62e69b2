"""Weights of samples: factors of their squares in the sum."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["weighted_samples"]


def weighted_samples(
    owner: str, data: Any, sample_weight: Any
) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The samples with nonzero weight, and their weights in float64.

    Data of samples with zero weight, even NaN, therefore have no effect.

    Parameters
    ----------
    owner : str
        Name of the caller in errors.
    data : (inputs, targets)
        Tensors with the samples on axis 0; None is refused.
    sample_weight : tensor or array of shape (samples,)
        Weight of each sample.

    Raises
    ------
    ValueError
        Unless there is one weight for each sample, and all are finite and nonnegative, and at least
        one is positive.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0]])
    >>> (kept, _), weights = weighted_samples("LeastSquares", (x, x), [0.0, 2.0])
    >>> kept.tolist(), weights.tolist()
    ([[1.0]], [2.0])
    """
    if data is None:
        raise ValueError(
            f"{owner} got a sample_weight for a residual function; multiply its rows by the roots "
            "of their weights instead, such as weights.sqrt() * (module(x) - y)"
        )
    try:
        given = torch.as_tensor(sample_weight, device=data[0].device).detach()
    except (TypeError, ValueError, RuntimeError):
        given = None
    if given is None or given.is_complex():
        raise TypeError(f"{owner} got a sample_weight that is not an array of real numbers")
    weights = given.double()
    if weights.shape != (len(data[0]),):
        raise ValueError(
            f"{owner} got a sample_weight of shape {tuple(weights.shape)} for {len(data[0])} "
            f"samples; it must be ({len(data[0])},)"
        )
    bad = ~(weights >= 0.0) | ~torch.isfinite(weights)
    if bool(bad.any()):
        raise ValueError(
            f"{owner} got a sample_weight that is negative, NaN or Inf for {int(bad.sum())} of "
            f"{len(bad)} samples, the first at index {int(bad.nonzero()[0])}; weights must be "
            "finite and at least 0"
        )
    kept = weights > 0.0
    if not 0.0 < float(weights.sum()) < float("inf"):
        raise ValueError(
            f"{owner} got a sample_weight with the sum {float(weights.sum())}; one weight must be "
            "positive, and their sum finite"
        )
    if bool(kept.all()):
        return data, weights
    return (data[0][kept], data[1][kept]), weights[kept]
