"""mgnet's own threads for compiled loops; numba's threads ignore PyTorch's limit."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

__all__ = ["forked", "share"]

_pools: dict[int, ThreadPoolExecutor] = {}
_forks: list[int] = []


def _forget() -> None:
    """Forget the threads, which do not survive a fork."""
    _pools.clear()
    _forks.append(os.getpid())


os.register_at_fork(after_in_child=_forget)


def forked() -> bool:
    """Whether this process was forked after this file was imported.

    The threads of libraries such as PyTorch remain in the parent, and the libraries are not
    notified.

    Examples
    --------
    >>> forked()
    False
    """
    return bool(_forks)


def share(work: Callable[[int, int], None], size: int, threads: int) -> None:
    """Call `work(start, stop)` for parts of range(size), one per thread.

    Parameters
    ----------
    work : callable
        Function that releases Python's lock, so that parts run in parallel.
    size : int
        Number of items.
    threads : int
        Number of threads.

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
