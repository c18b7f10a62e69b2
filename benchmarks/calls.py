"""The cost of one call: processor seconds, and memory, which only Linux reports."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def seconds(work: Callable[[], Any], calls: int = 3) -> float:
    """Of the fastest of some calls, on the processor."""
    times = []
    for _ in range(calls):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def growth(work: Callable[[], Any]) -> float:
    """By how many MiB the process grows at most while this is called, which has been called before.

    What the allocator holds back is given to the system before. NaN where there is no /proc.
    """
    if not CLEAR.exists():
        return float("nan")
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")  # reset the peak
    before = _resident("VmRSS")
    found = work()
    del found
    return (_resident("VmHWM") - before) / 1024.0


def _resident(name: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return float(line.split()[1])
