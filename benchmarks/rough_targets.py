"""Targets of benchmarks/rough_compositions.py: functions to be learned from rows, drawn by a seed.

`composed` are sums of rough functions of one input in a smooth outer function: the form of a small
KAN, for one pair of outer functions. `no_composition` has no such form.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
MODES, BUMPS = 32, 3
FEATURES, LENGTH, SMOOTHNESS = 2000, 0.5, 1.5


class Rows(NamedTuple):
    """Float64: x of shape (rows, inputs), y of shape (rows, 1); held-out values have no noise."""

    x: torch.Tensor
    y: torch.Tensor
    x_held: torch.Tensor
    y_held: torch.Tensor


def rough(rng: np.random.Generator, x: Array, bump: float) -> Array:
    """One function of one input at `x`: sines of amplitudes like 1 / k, and narrow bumps.

    It has mean 0 and deviation 1 on [-1, 1].
    """
    grid = np.linspace(-1.0, 1.0, 20001)
    at = np.concatenate([x, grid])
    values = np.zeros_like(at)
    for k in range(1, MODES + 1):
        amplitude, phase = rng.normal() / k, rng.uniform(0.0, 2.0 * math.pi)
        values += amplitude * np.sin(math.pi * k * at + phase)
    for _ in range(BUMPS):
        height = rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.0)
        values += height * np.exp(-(((at - rng.uniform(-0.9, 0.9)) / bump) ** 2) / 2.0)
    on_grid = values[len(x) :]
    return (values[: len(x)] - on_grid.mean()) / on_grid.std()


def standardized(rng: np.random.Generator, x: Array, y: Array, rows: int, noise: float) -> Rows:
    """Mean 0, deviation 1 over all rows; `noise` is the deviation of what training values get."""
    y = ((y - y.mean()) / y.std())[:, None]
    noisy = y[:rows] + noise * rng.normal(size=(rows, 1))
    return Rows(*(torch.from_numpy(part.copy()) for part in (x[:rows], noisy, x[rows:], y[rows:])))


def composed(
    inputs: int,
    seed: int,
    pairs: int = 1,
    bump: float = 0.01,
    rows: int = 40000,
    held_out: int = 10000,
    noise: float = 0.0,
) -> Rows:
    """Rough functions of one input, summed, in one smooth function of the sums.

    y = sin(s_1) for one pair; sin(s_1) (1 + tanh(s_2) / 2) + 0.3 s_2 for two, where each s is the
    sum of `rough` functions of the inputs, over sqrt(inputs). Inputs are even in [-1, 1].

    >>> data = composed(6, seed=0, rows=500, held_out=100)
    >>> data.x.shape, data.y.shape, data.y_held.shape
    (torch.Size([500, 6]), torch.Size([500, 1]), torch.Size([100, 1]))
    """
    if pairs not in (1, 2):
        raise ValueError(f"composed got pairs={pairs}; it must be 1 or 2")
    rng = np.random.default_rng([seed, inputs, pairs])
    x = rng.uniform(-1.0, 1.0, (rows + held_out, inputs))
    sums = [
        np.sum([rough(rng, x[:, p], bump) for p in range(inputs)], 0) / math.sqrt(inputs)
        for _ in range(pairs)
    ]
    y = np.sin(sums[0])
    if pairs == 2:
        y = y * (1.0 + np.tanh(sums[1]) / 2.0) + 0.3 * sums[1]
    return standardized(rng, x, y, rows, noise)


def no_composition(
    inputs: int, seed: int, rows: int = 40000, held_out: int = 10000, noise: float = 0.0
) -> Rows:
    """A draw of an isotropic Gaussian random field: Matern, smoothness 3/2, length 0.5.

    No direction and no input is preferred, so that it is no composition of a few sums of functions
    of one input; and it is what Gaussian process regression takes for granted. Drawn as 2000 random
    cosines, whose frequencies have a Student distribution with 2 x 3/2 degrees of freedom.

    >>> no_composition(4, seed=0, rows=500, held_out=100).x.shape
    torch.Size([500, 4])
    """
    rng = np.random.default_rng([seed, inputs])
    x = rng.uniform(-1.0, 1.0, (rows + held_out, inputs))
    y = np.zeros(len(x))
    for _ in range(FEATURES // 100):  # some at a time, for memory
        chi = rng.chisquare(2.0 * SMOOTHNESS, 100) / (2.0 * SMOOTHNESS)
        frequencies = rng.normal(size=(inputs, 100)) / (LENGTH * np.sqrt(chi))
        y += np.cos(x @ frequencies + rng.uniform(0.0, 2.0 * math.pi, 100)).sum(1)
    return standardized(rng, x, y, rows, noise)
