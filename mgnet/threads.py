"""Threads of our own for compiled loops: numba's ignore how many PyTorch may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

__all__ = ["forked", "share"]

_pools: dict[int, ThreadPoolExecutor] = {}
_forks: list[int] = []


def _forget() -> None:
    """Threads do not survive a fork."""
    _pools.clear()
    _forks.append(os.getpid())


os.register_at_fork(after_in_child=_forget)


def forked() -> bool:
    """Whether this process was forked since this file was imported.

    The threads of libraries, such as PyTorch's, stayed with its parent, and nobody told them.

    Examples
    --------
    >>> forked()
    False
    """
    return bool(_forks)


def share(work: Callable[[int, int], None], size: int, threads: int) -> None:
    """Call `work(start, stop)` for parts of range(size), as many as threads.

    Parameters
    ----------
    work : callable
        Lets go of Python's lock, so that parts run side by side.
    size : int
    threads : int

    Examples
    --------
    >>> found = []
    >>> share(lambda start, stop: found.append((start, stop)), 5, threads=2)
    >>> sorted(found)
    [(0, 2), (2, 5)]
    """
    threads = min(threads, size)
    if threads <= 1:
        work(0, size)
        return
    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(threads - 1, "mgnet")
    ends = [size * part // threads for part in range(threads + 1)]
    others = [_pools[threads].submit(work, *ends[k : k + 2]) for k in range(1, threads)]
    work(*ends[:2])
    wait(others)
    for other in others:
        other.result()
