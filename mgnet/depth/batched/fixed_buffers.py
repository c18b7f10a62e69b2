"""Buffers that no layer may change because all layers share them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mgnet.depth.batched import devices
from mgnet.depth.batched.scheme import version_of
from mgnet.depth.batched.surroundings import innermost

__all__ = ["FixedBuffers"]

Before = tuple[int, "Tensor | None"]


class FixedBuffers:
    """Some buffers of a block, which are checked after calls.

    Parameters
    ----------
    block : nn.Module
        The block, for messages.
    names : sequence of str
        Names of all buffers of the block.
    fixed : sequence of str
        Names of the buffers that must not change.

    Examples
    --------
    >>> mask = torch.ones(2)
    >>> fixed = FixedBuffers(nn.Tanh(), ["mask"], ["mask"])
    >>> before = fixed.before([mask])
    >>> fixed.check([mask], [mask], before)
    >>> fixed.check([mask], [mask.add_(1.0)], before)
    Traceback (most recent call last):
    ValueError: Tanh changes its buffer mask, of which all layers have one; leave mask out of \
shared_buffers
    """

    def __init__(self, block: nn.Module, names: Sequence[str], fixed: Sequence[str]):
        self.block = block
        self.numbers = {k: name for k, name in enumerate(names) if name in fixed}
        self.remedy = ""  # "leave it out of shared_buffers"
        self._seen: list[tuple[str, Tensor]] = []  # on a device: whether other values were there

    def before(self, buffers: Sequence[Tensor], values: bool = True) -> list[Before]:
        """The number of edits of each buffer so far and, if requested and possible, the values.

        The values are needed because batch norm edits its statistics without counting an edit.
        """
        values = values and not torch.compiler.is_compiling()
        fixed = [buffers[k] for k in self.numbers]
        return [(version_of(x), x.clone() if values and _has_values(x) else None) for x in fixed]

    def check(
        self, buffers: Sequence[Tensor], new: Sequence[Tensor], before: Sequence[Before]
    ) -> None:
        """Raise a ValueError if a buffer has since been edited or replaced.

        Values on a device are compared there; if they differ, `settle` raises the error later.
        """
        if not self.numbers:
            return
        for (k, name), (version, value) in zip(self.numbers.items(), before, strict=True):
            now, other = buffers[k], False
            if value is not None and devices.waits(value):
                self._seen.append((name, (now != value).any()))
            elif value is not None:
                other = not torch.equal(now, value)
            if other or new[k] is not now or version_of(now) != version:
                self._refuse(name)

    def settle(self) -> None:
        """At the end of a pass, raise a ValueError if values on a device were seen to change."""
        if self._seen:
            seen, self._seen = self._seen, []
            changed = torch.stack([each for _, each in seen]).tolist()
            for (name, _), other in zip(seen, changed, strict=True):
                if other:
                    self._refuse(name)

    def check_numbers(self, changed: Sequence[int]) -> None:
        """Raise a ValueError if a fixed buffer is among the buffers that are known to change."""
        for k in changed:
            if k in self.numbers:
                self._refuse(self.numbers[k])

    def _refuse(self, name: str) -> None:
        raise ValueError(
            f"{type(self.block).__name__} changes its buffer {name}, of which all layers have one; "
            f"{self.remedy or f'leave {name} out of shared_buffers'}"
        )


def _has_values(x: Tensor) -> bool:
    """Whether values can be compared, which is impossible during tracing or under `vmap`."""
    return type(x) is Tensor and not x.is_meta and innermost(x) is x and not devices.captured(x)
