"""Read numbers from a device on the host: as few as possible, and together.

If a decision in Python depends on a number on the device, the host must wait for all work that was
started there. Therefore a step of Levenberg-Marquardt on a device reads all its numbers at once;
see `device_steps`. The results of checks that nearly always hold are read with them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

__all__ = ["deferred", "holds", "is_far", "read"]


class _Waiting(threading.local):
    """The checks that this thread has deferred; None outside `deferred`."""

    checks: list[torch.Tensor] | None = None


_waiting = _Waiting()


def is_far(u: torch.Tensor) -> bool:
    """Whether the host has to wait before it can read entries of this tensor.

    Examples
    --------
    >>> is_far(torch.ones(1))
    False
    """
    return u.device.type != "cpu"


def holds(check: torch.Tensor) -> bool:
    """Whether a check holds; inside `deferred` the answer is True, and the check is made later.

    Parameters
    ----------
    check : tensor of bool, of shape ()
        The check.

    Examples
    --------
    >>> holds(torch.tensor(1.0) < 0.0)
    False
    """
    if _waiting.checks is None:
        return bool(check)
    _waiting.checks.append(check)
    return True


@contextmanager
def deferred() -> Iterator[list[torch.Tensor]]:
    """Assume that checks hold, and yield their list, to be read with other numbers.

    If a check turns out to have failed, the caller must start again without `deferred`.

    Examples
    --------
    >>> with deferred() as checks:
    ...     holds(torch.tensor(1.0) < 0.0)
    True
    >>> checks
    [tensor(False)]
    """
    before, checks = _waiting.checks, list[torch.Tensor]()
    _waiting.checks = checks
    try:
        yield checks
    finally:
        _waiting.checks = before


def read(numbers: Sequence[torch.Tensor]) -> list[float]:
    """Read numbers from a device in one transfer, as float64.

    Parameters
    ----------
    numbers : sequence of tensors of shape ()

    Examples
    --------
    >>> read([torch.tensor(2.0), torch.tensor(True)])
    [2.0, 1.0]
    """
    return torch.stack([number.double() for number in numbers]).cpu().tolist()
