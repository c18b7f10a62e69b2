"""One BLAS thread for products of small matrices, even if several fits run at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]


class _Shared:
    """Number of running fits, and the thread pools as they were before the first fit."""

    lock = Lock()
    users = 0
    before: dict[str, tuple[Any, int]] = {}


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """A context in which BLAS uses one thread; when no thread is inside, it uses as many as before.

    BLAS threads would wait for one another over small matrices, and sums depend on their number.
    `threadpoolctl.threadpool_limits` alone, with two fits at once, would restore all threads when
    the first fit ends, while the second still runs, and would finally leave the process with one
    thread.

    Examples
    --------
    >>> from threadpoolctl import threadpool_info
    >>> with one_blas_thread():
    ...     max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
    1
    """
    own: list[tuple[Any, int]] = []  # pools that each thread has of its own
    with _Shared.lock:
        for pool in ThreadpoolController().select(user_api="blas").lib_controllers:
            threads = pool.num_threads
            if getattr(pool, "threading_layer", "") == "openmp":
                own.append((pool, threads))
            else:
                _Shared.before.setdefault(pool.filepath, (pool, threads))
            _set(pool, 1)
        _Shared.users += 1
    try:
        yield
    finally:
        with _Shared.lock:
            _Shared.users -= 1
            if not _Shared.users:
                own += _Shared.before.values()
                _Shared.before = {}
            for pool, threads in own:
                _set(pool, threads)


def _set(pool: Any, threads: int) -> None:
    """Set the threads of a pool, even if threadpoolctl 3.8 reserves it for another thread."""
    release = getattr(pool, "clear_controlling_thread", lambda force: None)
    release(force=True)
    pool.set_num_threads(threads)
    release(force=True)
