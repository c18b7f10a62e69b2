"""Times on a device, and the time below which no program could be: for benchmarks/gpu.py.

A floor is the larger of bytes over bandwidth and operations over rate, both measured on the device
at hand: of one copy of a large array, and of one large product in the same precision. Bytes are
those of the arguments and results, each once, whatever a program reads again.
"""

import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch

Row = dict[str, Any]
ROUNDS, LONGEST = 21, 3.0  # timed calls of one work, and seconds for them, at most


class Machine(NamedTuple):
    """Where the works run, and whether they are tiny ones that try the script out."""

    device: torch.device
    tiny: bool

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.is_gpu else "CPU"

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize(self.device)


def milliseconds(machine: Machine, work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The median over calls, each between two events of the device."""
    work()
    machine.wait()
    began, times = time.perf_counter(), []
    while len(times) < (2 if machine.tiny else rounds):
        times.append(_one(machine, work))
        if len(times) > 2 and time.perf_counter() - began > LONGEST:
            break
    return statistics.median(times)


def _one(machine: Machine, work: Callable[[], object]) -> float:
    if not machine.is_gpu:
        began = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - began)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


@cache
def bandwidth(machine: Machine) -> float:
    """Bytes per second of a copy: read and written."""
    a = torch.zeros(2**14 if machine.tiny else 2**28, device=machine.device)
    b = torch.empty_like(a)
    return 2e3 * a.numel() * a.element_size() / milliseconds(machine, lambda: b.copy_(a))


@cache
def rate(machine: Machine, dtype: torch.dtype) -> float:
    """Operations per second of a product, in full precision."""
    torch.backends.cuda.matmul.allow_tf32 = False
    n = 64 if machine.tiny else 4096
    a = torch.ones(n, n, dtype=dtype, device=machine.device)
    return 2e3 * n**3 / milliseconds(machine, lambda: a @ a)


def floor(machine: Machine, count: float, operations: float, dtype: torch.dtype) -> Row:
    """Bytes, operations, and the milliseconds that they take at least."""
    least = max(count / bandwidth(machine), operations / rate(machine, dtype))
    return {"bytes": float(count), "operations": float(operations), "floor_ms": 1e3 * least}


def poison(machine: Machine) -> None:
    """Leave NaN in the memory that the next results are likely to get."""
    sizes = [2**k for k in range(8, 14 if machine.tiny else 27, 2)]
    for dtype in (torch.float32, torch.float64):
        kept = [
            torch.full((n,), float("nan"), dtype=dtype, device=machine.device) for n in sizes * 2
        ]
        del kept


def error(found: Any, expected: Any) -> float:
    """The largest difference over the largest entry, as float64 on the host."""
    found, expected = (x.detach().cpu().double() for x in (found, expected))
    return float((found - expected).abs().max() / expected.abs().max())


def checked(what: str, errors: dict[str, float], tolerance: float) -> float:
    """The largest of the errors; no time is taken of what is wrong."""
    worst = max(errors, key=lambda name: errors[name])
    if not all(value <= tolerance for value in errors.values()):  # also NaN
        told = ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
        raise ArithmeticError(f"{what}: errors {told}, above {tolerance:.0e}")
    return errors[worst]
