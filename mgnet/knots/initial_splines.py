"""Random initial splines of a KAN: a seed gives the same function for any number of intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mgnet.knots.spline import polynomial_coefficients

__all__ = ["draw", "draw_linear_", "owned"]


def draw(
    inputs: int, outputs: int, intervals: int, degree: int, generator: torch.Generator
) -> torch.Tensor:
    """Draw random polynomials of degree at most 3, with variance about 1 / inputs on the domain.

    Returns
    -------
    float64 tensor of shape (inputs, intervals + degree, outputs)
        The coefficients, on the CPU regardless of torch's default device.

    Examples
    --------
    >>> draw(2, 3, 4, 1, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 5, 3])
    """
    top = min(degree, 3)
    drawn = _normal((inputs, outputs, top + 1), generator)
    # Chebyshev polynomials with decreasing coefficients, in powers of the centered variable z.
    size = np.array([0.1, 1.0, 0.4, 0.2])[: top + 1] / np.sqrt(inputs)
    centred = _powers(drawn.numpy() * size)
    if centred.shape[-1] < degree + 1:
        pad = [(0, 0)] * 2 + [(0, degree + 1 - centred.shape[-1])]
        centred = np.pad(centred, pad)
    # In the variable z in [-1, 1], to avoid powers of large numbers.
    values = polynomial_coefficients(centred, intervals, degree, (-1.0, 1.0))
    return owned(values.swapaxes(1, 2))


def _powers(chebyshev: np.ndarray) -> np.ndarray:
    """Convert coefficients of Chebyshev polynomials (degree at most 3, last axis) to powers.

    All are converted at once, with the operations of NumPy's `cheb2poly` in their order.
    """
    c = [*np.moveaxis(chebyshev, -1, 0), *[None] * (4 - chebyshev.shape[-1])]
    if c[2] is None:
        return chebyshev
    if c[3] is None:
        return np.stack([c[0] - c[2], c[1], c[2] * 2], -1)
    linear = (c[1] - c[3]) - c[3] * 2
    return np.stack([c[0] - c[2], linear, c[2] * 2, c[3] * 2 * 2], -1)


def draw_linear_(layer: torch.nn.Linear, generator: torch.Generator) -> None:
    """Draw weights with variance 1 / inputs, and set the bias to 0, in place.

    Examples
    --------
    >>> layer = torch.nn.Linear(1, 1)
    >>> draw_linear_(layer, torch.Generator().manual_seed(0))
    >>> layer.bias.item()
    0.0
    """
    with torch.no_grad():
        layer.weight.copy_(_normal(layer.weight.shape, generator) / layer.in_features**0.5)
        layer.bias.zero_()


def owned(values: np.ndarray) -> torch.Tensor:
    """Copy an array to torch's own memory, because FSDP resizes tensors but cannot resize NumPy's.

    Examples
    --------
    >>> owned(np.ones(2)).untyped_storage().resizable()
    True
    """
    return torch.from_numpy(values).clone(memory_format=torch.contiguous_format)


def _normal(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Draw on the generator's device, so a seed gives the same bits for any default device."""
    device = generator.device
    return torch.randn(*shape, generator=generator, dtype=torch.float64, device=device).cpu()
