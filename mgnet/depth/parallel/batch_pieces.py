"""Division of a batch into pieces of rows, and checks of the loss of a piece."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["checked_loss", "fingerprint", "pieces_of"]


def checked_loss(owner: str, value: Any) -> Tensor:
    """Return the value of a loss function after checking that it is a scalar tensor with a graph.

    Raises
    ------
    TypeError
        If the value is anything else.

    Examples
    --------
    >>> checked_loss("train_in_depth", 0.5)
    Traceback (most recent call last):
    TypeError: train_in_depth got a loss of type float; give a tensor without axes that requires a \
gradient
    """
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        kind = f"type {type(value).__name__}"
        if isinstance(value, Tensor):
            without = "" if value.requires_grad else " without a gradient"
            kind = f"shape {tuple(value.shape)}{without}"
        raise TypeError(
            f"{owner} got a loss of {kind}; give a tensor without axes that requires a gradient"
        )
    return value.reshape(())


def fingerprint(batch: Any) -> int:
    """A number computed from the shapes and the first and last rows only, because this is fast.

    Examples
    --------
    >>> x = torch.arange(6.0).reshape(3, 2)
    >>> fingerprint({"x": x}) == fingerprint([x.clone()]), fingerprint(x) == fingerprint(x + 1.0)
    (True, False)
    """
    found = hashlib.blake2b(digest_size=7)
    for each in _tensors(batch):
        found.update(f"{each.shape} {each.dtype}".encode())
        if each.layout == torch.strided and not each.is_meta and each.numel():
            ends = torch.cat([each[:1], each[-1:]]) if each.dim() else each
            found.update(ends.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return int.from_bytes(found.digest(), "big")


def pieces_of(batch: Any, count: int) -> list[tuple[Any, float]]:
    """Return the microbatches, and the weight of each in the mean.

    Raises
    ------
    ValueError
        If the tensors have different numbers of rows, or fewer rows than there are microbatches.

    Examples
    --------
    >>> [(piece.tolist(), share) for piece, share in pieces_of(torch.arange(4), 2)]
    [([0, 1], 0.5), ([2, 3], 0.5)]
    """
    if count == 1:
        return [(batch, 1.0)]
    sizes = {len(each) for each in _tensors(batch) if each.dim()}
    if len(sizes) != 1:
        got = f"tensors of {sorted(sizes)} rows" if sizes else "no tensor with rows"
        raise ValueError(
            f"accumulate_gradients got a batch with {got}; give tensors with the same number of "
            "rows on axis 0, and use others inside the loss"
        )
    (rows,) = sizes
    if rows < count:
        raise ValueError(
            f"accumulate_gradients got {rows} rows for {count} microbatches; give at least as many"
        )
    each, more = divmod(rows, count)
    ends = [(n + 1) * each + min(n + 1, more) for n in range(count)]
    cuts = [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    return [(_taken(batch, cut), (cut.stop - cut.start) / rows) for cut in cuts]


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping | tuple | list):
        for part in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors(part)


def _taken(batch: Any, cut: slice) -> Any:
    """Some rows of each tensor, in containers of the same type."""
    if isinstance(batch, Tensor):
        return batch[cut] if batch.dim() else batch
    if isinstance(batch, Mapping):
        taken = {key: _taken(value, cut) for key, value in batch.items()}
        if type(batch) is dict or not isinstance(batch, MutableMapping):
            return taken
        kept: Any = copy.copy(batch)  # has a class of its own, such as a tokenizer's
        for key, value in taken.items():
            kept[key] = value
        return kept
    if isinstance(batch, tuple | list):
        parts = [_taken(part, cut) for part in batch]
        make: Any = type(batch)
        return make(*parts) if hasattr(batch, "_fields") else make(parts)
    return batch
