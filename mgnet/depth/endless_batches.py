"""Minibatches for training loops that are limited by a budget instead of epochs."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch

__all__ = ["EndlessBatches"]


class EndlessBatches:
    """An endless sequence of batches that can be rewound to a mark.

    Parameters
    ----------
    batches : iterable
        A collection that starts over each time an iterator is requested, such as a DataLoader.

    Raises
    ------
    TypeError
        If `batches` is not iterable.

    Examples
    --------
    >>> batches = EndlessBatches(["a", "b"])
    >>> batches.mark()
    >>> [batches.next() for _ in range(3)]
    ['a', 'b', 'a']
    >>> batches.rewind()
    >>> [batches.next() for _ in range(4)]
    ['a', 'b', 'a', 'b']
    """

    def __init__(self, batches: Iterable[Any]):
        if not isinstance(batches, Iterable) and not hasattr(batches, "__getitem__"):
            raise TypeError(
                f"train_in_depth got batches of type {type(batches).__name__}; give an iterable, "
                "such as a list or a DataLoader"
            )
        self.batches, self.kept = batches, None
        self.ahead: list[Any] = []
        self.source = self._endless()

    def _endless(self) -> Iterator[Any]:
        for count in itertools.count():
            empty = True
            for batch in self.batches:
                empty = False
                yield batch
            if empty:
                raise ValueError(
                    f"train_in_depth got batches that {'ended' if count else 'are empty'}; give an "
                    "iterable that starts over each time, as a list or a DataLoader does"
                )

    def next(self) -> Any:
        """Return the next batch."""
        batch = self.ahead.pop(0) if self.ahead else next(self.source)
        if self.kept is not None:
            # A loss may remove entries from a dictionary: `batch.pop("labels")`.
            whole = isinstance(batch, torch.Tensor)
            self.kept.append(batch if whole else copy.copy(batch))
        return batch

    def mark(self) -> None:
        """Set the mark here, and store the batches that follow."""
        self.kept = []

    def rewind(self) -> None:
        """Return to the mark: the stored batches are returned again, in order."""
        self.ahead, self.kept = [*(self.kept or ()), *self.ahead], None
