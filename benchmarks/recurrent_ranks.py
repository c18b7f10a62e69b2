"""Time steps of a GRU over MPI ranks beside torch.nn.GRU on one core, and the plan for many ranks.

    OMP_NUM_THREADS=1 mpiexec -n 2 python benchmarks/recurrent_ranks.py [--seeds 5]
        [--steps 1000 10000] [--widths 16 64] [--save]

One layer, as many inputs as its width, batch 16, weights as PyTorch draws them, normal inputs,
float32; forward and backward with all gradients, cycles to a tolerance of 1e-6.

1. Seconds of one forward and backward pass, medians of the seeds: on the clock, and of the
   processor, on the rank that took most. The latter leave out what a rank waits asleep, for
   another one or for a core that somebody else uses. All ways take turns with every seed while
   ranks that have nothing to do sleep: nn.GRU, `mode="serial"` (a compiled loop where that takes
   part) and the cycles on one core; `distribute_time` on all ranks. "pieces" is `distribute_time`
   on one rank: what the fixed pieces cost that make the bits the same.
2. The plan for more ranks, as many pieces as ranks: with the seconds measured here, the least of
   200, of a step of one interval in one call, of its product with the Jacobian, and of a message;
   with the cycles that were taken. The number is the speedup over nn.GRU on one core (processor
   seconds), of the fastest among 2 and 3 levels and factors of 8 to 256. That all ranks get
   the whole output, and their gradients are added up, is not in it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import petsc4py  # noqa: E402

petsc4py.init([])

import saved  # noqa: E402
import torch  # noqa: E402
from mpi4py import MPI  # noqa: E402
from petsc4py import PETSc  # noqa: E402
from rank_turns import WORLD, timed  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mgnet.depth import CyclesToTolerance, TimeParallel  # noqa: E402
from mgnet.depth.mgrit.plan import Cost, plan  # noqa: E402
from mgnet.depth.recurrent.propagation import TimeAdjoint, TimeSteps  # noqa: E402
from mgnet.depth.recurrent.recurrence import recurrence_of  # noqa: E402
from mgnet.petsc import distribute_time  # noqa: E402

RANKS, FIRST = WORLD.size, WORLD.rank == 0
BATCH, TOLERANCE = 16, 1e-6
MANY = 8, 32, 128, 512, 1024
FACTORS = 8, 16, 32, 64, 128, 256
Say = Callable[[str], None]


def work_of(way: Callable[[Tensor], Any], x: Tensor) -> Callable[[], None]:
    def work() -> None:
        way(x)[0].square().mean().backward()

    return work


def ways(module: nn.GRU, x: Tensor) -> dict[str, Callable[[], None] | None]:
    """What this rank does when it is the turn of a way, if anything."""
    control = CyclesToTolerance(TOLERANCE)
    one = distribute_time(TimeParallel(module, control=control), comm=PETSc.COMM_SELF)
    all_ranks = distribute_time(TimeParallel(module, control=control))
    alone = {
        "torch": module,
        "serial": TimeParallel(module, mode="serial"),
        "cycles": TimeParallel(module, control=control),
        "pieces": one,
    }
    made: dict[str, Callable[[], None] | None] = dict.fromkeys(alone)
    if FIRST:
        made = {name: work_of(way, x) for name, way in alone.items()}
    return {**made, "ranks": work_of(all_ranks, x)}


def cycles_of(module: nn.GRU, x: Tensor) -> tuple[int, int]:
    parallel = TimeParallel(module, control=CyclesToTolerance(TOLERANCE))
    parallel(x)[0].square().mean().backward()
    return parallel.last_forward.cycles, parallel.last_backward.cycles


def seconds_of(work: Callable[[], None] | None) -> tuple[float, float]:
    """On the clock, and of the processor; of the rank that took most."""
    taken = [0.0]

    def both() -> None:
        began = time.process_time()
        if work is not None:
            work()
        taken[0] = time.process_time() - began

    seconds = timed(None if work is None else both)[0]
    return WORLD.allreduce(seconds, MPI.MAX), WORLD.allreduce(taken[0], MPI.MAX)


def measure(steps: int, width: int, seeds: int) -> saved.Row:
    seconds: dict[str, list[tuple[float, float]]] = {}
    taken = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        module, x = nn.GRU(width, width), torch.randn(steps, BATCH, width).requires_grad_()
        if not seed:  # compiles
            for work in ways(module, x).values():
                timed(work)
        for name, work in ways(module, x).items():
            seconds.setdefault(name, []).append(seconds_of(work))
        taken.append(cycles_of(module, x))
    row: saved.Row = {"part": 1, "steps": steps, "width": width, "ranks": RANKS}
    row |= {"cycles_forward_median": statistics.median(each[0] for each in taken)}
    row |= {"cycles_backward_median": statistics.median(each[1] for each in taken)}
    for kind, kept in (("seconds", 0), ("processor", 1)):
        told = {name: [each[kept] for each in found] for name, found in seconds.items()}
        for name, found in told.items():
            row[f"{kind}_{name}_median"] = statistics.median(found)
        for name in ("torch", "cycles", "pieces"):
            ratios = sorted(a / b for a, b in zip(told[name], told["ranks"], strict=True))
            row |= {f"{kind}_gain_{name}_median": statistics.median(ratios)}
            row |= {f"{kind}_gain_{name}_least": ratios[0]}
            row |= {f"{kind}_gain_{name}_largest": ratios[-1]}
    return row


def lines_of(row: saved.Row) -> str:
    cycles = f"{row['cycles_forward_median']:g}, {row['cycles_backward_median']:g}"
    found = []
    for kind, told in (("seconds", "clock"), ("processor", "processor")):
        text = f"{row['steps']:>8}{row['width']:>7}{cycles:>8}  {told:<10}"
        for name in ("torch", "serial", "cycles", "pieces", "ranks"):
            text += f"{row[f'{kind}_{name}_median']:>9.3f}"
        gains = [row[f"{kind}_gain_{name}_median"] for name in ("torch", "cycles", "pieces")]
        found.append(text + "".join(f"{gain:>9.2f}" for gain in gains))
    return "\n".join(found)


def machine_of(width: int, turns: int = 200) -> saved.Row:
    """Seconds of a step of one interval forward, of its product backward, and of a message."""
    torch.manual_seed(0)
    recurrence = recurrence_of(nn.GRUCell(width, width), None, (width,))
    weights = [None if w is None else w.detach() for w in recurrence.weights]
    inputs, states = torch.randn(2, BATCH, 3 * width), torch.randn(3, BATCH, width)
    steps = TimeSteps(recurrence.steps(*weights), inputs, ())
    adjoint, one, state = TimeAdjoint(steps, states), slice(0, 1), states[:1]
    found = []
    for propagator in (steps, adjoint):
        times = []
        for _ in range(turns):
            began = time.process_time()
            propagator.advance(0, one, state)
            times.append(time.process_time() - began)
        found.append(min(times))
    ranks = distribute_time(TimeParallel(nn.GRU(width, width))).shares
    assert ranks is not None
    ends, times = ranks(64, 2).communicator, []
    for _ in range(turns):
        WORLD.Barrier()
        began = time.perf_counter()
        if ends.rank == 0:
            ends.send(state, False)
            ends.receive(state, True)
        elif ends.rank == 1:
            ends.send(ends.receive(state, False), True)
        times.append((time.perf_counter() - began) / 2)
    step, product, message = WORLD.bcast((*found, min(times)))
    return {"step_us": 1e6 * step, "product_us": 1e6 * product, "message_us": 1e6 * message}


@cache
def cost(
    steps: int, ranks: int, levels: int, factor: int, forward: int, backward: int
) -> tuple[Cost, Cost]:
    """Forward and backward."""
    given = {"levels": levels, "relaxation": ("FCF",), "record": True}
    ahead = plan(steps, ranks, factor, "cascade + V", cycles=(forward,), **given).forward
    back = plan(steps, ranks, factor, "V", cycles=(forward, backward), **given).backward
    assert back is not None
    return ahead, back


def planned(row: saved.Row, machine: saved.Row, ranks: int) -> saved.Row:
    """The fastest plan for so many ranks."""
    steps, found = row["steps"], []
    cycles = [int(row[f"cycles_{way}_median"]) for way in ("forward", "backward")]
    for levels in (2, 3):
        for factor in FACTORS:
            if steps < 2 * factor ** (levels - 1):
                continue
            ahead, back = cost(steps, ranks, levels, factor, *cycles)
            seconds = machine["step_us"] * ahead.critical + machine["product_us"] * back.critical
            messages = ahead.critical_messages + back.critical_messages
            found.append((1e-6 * (seconds + machine["message_us"] * messages), levels, factor))
    seconds, levels, factor = min(found)
    told = {"part": 2, "steps": steps, "width": row["width"], "ranks": ranks, **machine}
    told |= {"seconds": seconds, "levels": levels, "factor": factor}
    return told | {"speedup": row["processor_torch_median"] / seconds}


def plans(rows: list[saved.Row], say: Say) -> list[saved.Row]:
    say("\n2. Speedup over nn.GRU on one core that the plan says (levels, factor)")
    say(f"{'steps':>8}{'width':>7}" + "".join(f"{f'{n} ranks':>16}" for n in MANY))
    machines, found = {w: machine_of(w) for w in sorted({row["width"] for row in rows})}, []
    for row in rows if FIRST else ():
        told = [planned(row, machines[row["width"]], ranks) for ranks in MANY]
        cells = [f"{each['speedup']:.1f} ({each['levels']}, {each['factor']})" for each in told]
        say(f"{row['steps']:>8}{row['width']:>7}" + "".join(f"{cell:>16}" for cell in cells))
        found += told
    for width, each in machines.items():
        told = f"{each['step_us']:.0f} us, its product {each['product_us']:.0f} us"
        say(f"width {width}: a step {told}, a message {each['message_us']:.1f} us")
    return found


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    """Of cycles on all ranks over those on one, for the longest sequences."""
    found, longest = [], max(row["steps"] for row in rows)
    for row in rows:
        if row["steps"] == longest:
            gain = row["processor_gain_cycles_median"]
            name = (
                f"GRU, width {row['width']}, {longest} steps: cycles on one core over {RANKS} ranks"
            )
            name += ", processor seconds"
            found.append(saved.target(name, "at least 1.3", f"{gain:.2f}", gain >= 1.3))
    return found


def main(options: argparse.Namespace) -> None:
    if RANKS < 2:
        raise SystemExit("start it on ranks: mpiexec -n 2 python benchmarks/recurrent_ranks.py")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        if FIRST:
            print(text, flush=True)

    setting = f"{options.seeds} seeds, batch {BATCH}, tolerance {TOLERANCE:g}, float32"
    say(f"{setting}\n{saved.heading()}")
    say(f"\n1. Seconds; ratios over those on {RANKS} ranks")
    names = ["nn.GRU", "serial", "cycles", "pieces", f"{RANKS} ranks"]
    names += ["nn.GRU/", "cycles/", "pieces/"]
    head = f"{'steps':>8}{'width':>7}{'cycles':>8}  {'':<10}"
    say(head + "".join(f"{name:>9}" for name in names))
    rows = []
    for steps in options.steps:
        for width in options.widths:
            rows.append(measure(steps, width, options.seeds))
            say(lines_of(rows[-1]))
    told = targets(rows)
    rows += plans(rows, say)
    for each in told:
        met = "met" if each["met"] else "NOT met"
        say(f"{each['name']}: {each['measured']} (target {each['target']}, {met})")
    if options.save and FIRST:
        saved.save(options.save, "recurrent_ranks", setting, rows, told, "\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64])
    saved.add_option(parser)
    main(parser.parse_args())
