"""The part `refusals` of recurrent.py: stable and chaotic cells, and what a refusal costs."""

import statistics
import time
import warnings
from collections.abc import Callable

import saved
import torch
from torch import Tensor, nn

from mgnet.depth import CyclesToTolerance, TimeParallel, lyapunov
from mgnet.depth.recurrent import cycles

KINDS = {"GRU": nn.GRUCell, "LSTM": nn.LSTMCell, "RNN": nn.RNNCell}
SCALES = 1.0, 3.0, 6.0, 10.0, 20.0  # of recurrent weights as PyTorch draws them
STEPS, WIDTHS = 500, (8, 32)
CLEAR = 0.05  # an exponent above it is chaotic; below it, where errors grow, weakly so
GROUPS = "stable", "weak", "chaotic"


def seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def run(cell: nn.Module, x: Tensor) -> tuple[bool, int]:
    """Whether it is refused; the cycles."""
    parallel = TimeParallel(cell, control=CyclesToTolerance(1e-6))
    try:
        parallel(x)
    except RuntimeError:
        return True, 0
    return False, parallel.last_forward.cycles


def unguarded(cell: nn.Module, x: Tensor) -> int:
    """The cycles that are taken where nobody looks at the exponent."""
    kept = cycles.falls
    cycles.falls = lambda norms: True
    try:
        return run(cell, x)[1]
    finally:
        cycles.falls = kept


def one(kind: str, scale: float, width: int) -> dict[str, float]:
    cell = KINDS[kind](width, width).double()
    with torch.no_grad():
        cell.weight_hh *= scale
    x = 0.5 * torch.randn(STEPS, 1, width).double()
    found = lyapunov(cell, x, directions=1)
    group = 0 if found.converges else 1 + (found.exponent > CLEAR)
    told: dict[str, float] = {"exponent": found.exponent, "group": group}
    told["seconds"] = seconds(lambda: told.update(refused=run(cell, x)[0]))
    told["unguarded"] = seconds(lambda: told.update(cycles=unguarded(cell, x)))
    exact = TimeParallel(cell, mode="serial")
    told["serial"] = seconds(lambda: exact(x))
    return told


def measure(kind: str, scale: float, seeds: int) -> saved.Row:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        found = []
        for seed in range(seeds):
            for width in WIDTHS:
                torch.manual_seed(seed)
                found.append(one(kind, scale, width))
    row: saved.Row = {"kind": kind, "scale": scale, "draws": len(found)}
    row["exponent_median"] = statistics.median(each["exponent"] for each in found)
    row["exponent_least"] = min(each["exponent"] for each in found)
    row["exponent_largest"] = max(each["exponent"] for each in found)
    for number, name in enumerate(GROUPS):
        own = [each for each in found if each["group"] == number]
        row[name], row[f"{name}_refused"] = len(own), sum(each["refused"] for each in own)
        row[f"{name}_cycles"] = max((each["cycles"] for each in own), default=0)
    refused = [each for each in found if each["refused"]]
    for name in ("serial", "unguarded"):
        ratios = [each["seconds"] / each[name] for each in refused]
        if ratios:
            row[f"over_{name}_median"] = statistics.median(ratios)
    return row


def heads() -> str:
    told = f"{'':<5}{'scale':>6}{'exponent (range)':>26}"
    told += "".join(f"{name:>9}{'refused':>9}" for name in GROUPS)
    return f"{told}{'refusal / serial':>18}{'/ all cycles':>14}"


def line(row: saved.Row) -> str:
    spread = f"({row['exponent_least']:.2f} to {row['exponent_largest']:.2f})"
    told = f"{row['kind']:<5}{row['scale']:>6g}{row['exponent_median']:>9.3f} {spread:>16}"
    told += "".join(f"{row[name]:>9}{row[f'{name}_refused']:>9}" for name in GROUPS)
    for name, size in (("serial", 18), ("unguarded", 14)):
        ratio = row.get(f"over_{name}_median")
        told += f"{'-' if ratio is None else f'{ratio:.2f}':>{size}}"
    return told


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    wrong, draws = (sum(row[key] for row in rows) for key in ("stable_refused", "stable"))
    caught, chaotic = (sum(row[key] for row in rows) for key in ("chaotic_refused", "chaotic"))
    return [
        saved.target(f"stable cells that are refused, of {draws}", "none", f"{wrong}", not wrong),
        saved.target(
            f"chaotic cells that are refused, of {chaotic}",
            "at least 90 %",
            f"{caught}",
            caught >= 0.9 * chaotic,
        ),
    ]
