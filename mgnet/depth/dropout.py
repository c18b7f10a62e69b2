"""Dropout with fixed masks.

A layer is evaluated several times within one call (relaxation, residual, closing sweep), so its
dropout masks must be the same each time, however the layers are batched or spread over ranks. They
are drawn beforehand, from a counter-based generator whose counter is (call, layer, use), and go
with the layers as buffers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Use", "draw_masks", "masked", "watched"]

SPATIAL = {nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}
ALPHA = nn.AlphaDropout, nn.FeatureAlphaDropout
# The value of SELU at minus infinity, negated (Klambauer et al. 2017, section 2).
SATURATION = 1.7580993408473766


class Use(NamedTuple):
    """One use of a dropout module in a block: what its mask must be like."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    keep: float
    scale: float


@contextmanager
def watched(template: nn.Module) -> Iterator[list[Use]]:
    """Dropouts drop nothing, and their uses are listed."""
    uses: list[Use] = []

    def watch(module: Any, x: Tensor) -> Tensor:
        keep = 1.0 - module.p
        scale = 1.0 if isinstance(module, ALPHA) or not keep else 1.0 / keep
        uses.append(Use(_shape(module, x), x.dtype, x.device, keep, scale))
        return x

    with _replaced(template, watch):
        yield uses


@contextmanager
def masked(template: nn.Module, masks: Iterable[Tensor]) -> Iterator[None]:
    """Dropouts use masks, in the order of their uses; without masks they are what they are."""
    masks = list(masks)
    if not masks:
        yield
        return
    with _replaced(template, partial(_drop, iter(masks))):
        yield


def draw_masks(
    uses: Sequence[Use], numbers: Sequence[int], seed: int, call: int
) -> tuple[Tensor, ...]:
    """Draw the masks of some layers, by one generator for each (seed, call, layer, use).

    Parameters
    ----------
    uses : sequence of Use
        From `watched`.
    numbers : sequence of int
        The layers, numbered through the whole net.
    seed, call : int
        Not negative: the seed of the net, and the number of the call.

    Returns
    -------
    tuple of Tensor
        For each use the masks `(layers, ...)`: `1 / (1 - p)` or 0, which is what PyTorch's dropout
        multiplies by (1 or 0 for alpha dropout).
    """
    masks = []
    for k, use in enumerate(uses):
        kept = np.empty((len(numbers), *use.shape), dtype=bool)
        for row, layer in zip(kept, numbers, strict=True):
            generator = np.random.Generator(np.random.Philox(counter=[0, k, layer, call], key=seed))
            row[...] = generator.random(use.shape, dtype=np.float32) < use.keep
        masks.append(torch.from_numpy(kept).to(use.device, use.dtype) * use.scale)
    return tuple(masks)


@contextmanager
def _replaced(template: nn.Module, forward: Any) -> Iterator[None]:
    kinds = nn.Dropout, *SPATIAL, *ALPHA
    found = [m for m in template.modules() if isinstance(m, kinds) and m.training and m.p > 0]
    for module in found:
        module.forward = partial(forward, module)
    try:
        yield
    finally:
        for module in found:
            del module.forward


def _shape(module: nn.Module, x: Tensor) -> tuple[int, ...]:
    """The shape of a mask: whole channels are dropped, or single numbers."""
    axes = SPATIAL.get(type(module))
    if axes is None and not isinstance(module, nn.FeatureAlphaDropout):
        return tuple(x.shape)
    # PyTorch takes an input of 3 axes of Dropout2d for (batch, channels, length).
    kept = 1 if axes in (1, 3) and x.dim() == axes + 1 else 2
    return *x.shape[:kept], *[1] * (x.dim() - kept)


def _drop(masks: Iterator[Tensor], module: Any, x: Tensor) -> Tensor:
    mask = next(masks)
    if not isinstance(module, ALPHA):
        return x * mask
    p = module.p
    a = 1.0 / math.sqrt((SATURATION**2 * p + 1.0) * (1.0 - p)) if p < 1 else 0.0
    return x * mask * a + ((mask - 1.0) * (SATURATION * a) + SATURATION * a * p)
