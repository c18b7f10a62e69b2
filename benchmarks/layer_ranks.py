"""Layers over MPI ranks beside serial PyTorch: critical path, times, and the plan for many ranks.

    mpiexec -n 2 python benchmarks/layer_ranks.py [--rounds 4] [--cases 0 1 2 3 4] [--save]

The nets of depth_vs_serial.py, float32, forward and backward, gradients of x and of all weights;
mgnet with two levels. "c + k": the cascade and k cycles, both ways.

1. Evaluations of layers and products with Jacobians that follow each other, counted in the blocks
   as `mgnet.depth.plan` counts: marches from rank to rank, else the most of any rank. "clocks" are
   both, a product counting two, as the messages let them follow: each carries how far its sender
   has come. There a rank may go on where the plan, in step, waits for the others.
2. Times: one thread per rank, as many threads as ranks for "serial" too, while the other ranks
   sleep. All take turns, of at least 0.1 s. Errors are of all gradients against a float64 loop,
   for weights of a few Fourier modes in depth and for those with which PyTorch begins; times are of
   both. "model" is the speedup of the plan, in evaluations of equal cost and without messages.
3. The plan for more ranks, with the times measured here of a layer, forward and backward, and of a
   message there and back between two ranks: the number of layers from which the best plan wins, and
   its speedup with 1024 layers. It knows nothing of what several intervals in one call gain. Small
   coarsest levels are gathered on four ranks and more, as `distribute_layers` does.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import petsc4py  # noqa: E402

petsc4py.init([])

import saved  # noqa: E402
import torch  # noqa: E402
from depth_rivals import Net, Problem, Result, by_autograd, eager, errors, problem  # noqa: E402
from depth_vs_serial import Case, network  # noqa: E402
from layer_clocks import Clocked, Marches  # noqa: E402
from mpi4py import MPI  # noqa: E402
from rank_turns import WORLD, timed  # noqa: E402
from torch import Tensor  # noqa: E402

from mgnet.depth import FixedCycles, LayerParallel  # noqa: E402
from mgnet.depth.mgrit.plan import Cost, plan  # noqa: E402
from mgnet.petsc import distribute_layers  # noqa: E402
from mgnet.petsc.ranks import FEWEST, SMALL  # noqa: E402

RANKS, FIRST = WORLD.size, WORLD.rank == 0
WIDE = Case(128, (512,), 256, (16,), ()), Case(64, (32, 28, 28), 32, (16,), ())
NARROW = tuple(Case(1024, (w,), 4096 // w, (32,), ()) for w in (16, 32, 64))
CASES = *WIDE, *NARROW
STARTS = "smooth", "default"
SIZES, MANY = [2**k for k in range(4, 13)], (4, 16, 64, 256, 1024)
FACTORS, COARSEST, SHOWN = (4, 8, 16, 32, 64), 8, 1024
Say = Callable[[str], None]


class Way(NamedTuple):
    """What this rank does when it is the turn of a way, if anything, and on how many threads."""

    work: Callable[[], Any] | None
    threads: int = 1


def ours(told: Problem, factor: int, cycles: int) -> LayerParallel:
    control = FixedCycles(cycles, tolerance=math.inf)  # the error is in the table: no warning
    return LayerParallel(network(told), 2, factor, control=control)


def passes(parallel: LayerParallel, told: Problem) -> Callable[[], Result]:
    """Forward and backward; gradients of the layers of this rank."""
    x, block = told.x.clone().requires_grad_(), parallel.net.block[0]  # type: ignore[index]

    def work() -> Result:
        y = parallel(x)
        return Result(y, *torch.autograd.grad(y, [x, block.weight, block.bias], told.toward))

    return work


def counted(layers: int, factor: int, cycles: int) -> saved.Row:
    """The critical path of both passes beside the plan."""
    told = problem(layers, (4,), 3, "default", 0)
    parallel = distribute_layers(ours(told, factor, cycles))
    kernel, clock = parallel.net.kernel, Clocked(parallel)
    parallel.communicator = clock  # type: ignore[assignment]
    with Marches(kernel) as marches:
        parallel(told.x).backward(told.toward)
    both = (cycles, cycles)
    promised = plan(layers, RANKS, factor, cycles=both, record=True, gathered=marches.everywhere)
    assert promised.backward is not None
    return {
        "part": 1,
        "case": f"{layers} layers, factor {factor}, c + {cycles}",
        "ranks": RANKS,
        "evaluations": marches.in_step(kernel.evaluations, marches.evaluations),
        "evaluations_plan": promised.forward.critical,
        "products": marches.in_step(kernel.vjps, marches.vjps),
        "products_plan": promised.backward.critical,
        "clocks": WORLD.allreduce(clock.now(), MPI.MAX),
        "clocks_plan": int(promised.critical_path),
    }


def critical_paths(say: Say) -> tuple[list[saved.Row], saved.Row]:
    rows = [counted(n, c, k) for n, c in ((128, 16), (128, 4), (1024, 32)) for k in (0, 1)]
    say("\n1. On the critical path: counted, planned")
    head = "".join(f"{name:>16}" for name in ("evaluations", "products", "clocks"))
    say(f"  {'':<30}{head}")
    for row in rows:
        pairs = (
            f"{row[key]} {row[key + '_plan']}" for key in ("evaluations", "products", "clocks")
        )
        say(f"  {row['case']:<30}" + "".join(f"{pair:>16}" for pair in pairs))
    pairs = [(row[key], row[f"{key}_plan"]) for row in rows for key in ("evaluations", "products")]
    equal = sum(found == promised for found, promised in pairs)
    told = f"{equal} of {len(pairs)} equal"
    return rows, saved.target("critical path of the plan", "equal", told, equal == len(pairs))


def ways(case: Case, told: Problem) -> dict[str, Way]:
    serially = eager(told) if FIRST else None
    found = {"serial, 1 thread": Way(serially), f"serial, {RANKS} threads": Way(serially, RANKS)}
    for cycles in (0, 1):
        alone = passes(ours(told, case.factors[0], cycles), told) if FIRST else None
        found[f"mgnet, 1 rank, c + {cycles}"] = Way(alone)
        spread = distribute_layers(ours(told, case.factors[0], cycles))
        found[f"mgnet, {RANKS} ranks, c + {cycles}"] = Way(passes(spread, told))
    return found


def turn(way: Way, calls: int, cores: set[int]) -> tuple[float, Any]:
    """Seconds of a call on the rank that took longest, and the result of this one."""
    own = os.sched_getaffinity(0)
    if way.threads > 1 and way.work is not None:  # a launcher binds every rank to a core
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(way.threads)
    seconds, result = timed(way.work, calls)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, own)
    return WORLD.allreduce(seconds, MPI.MAX), result


def whole(result: Result, layers: int) -> Result | None:
    """The gradients of all layers, on rank 0."""
    parts = list(result[2:])
    if len(parts[0]) < layers:
        gathered = [WORLD.gather(part) for part in parts]
        if not FIRST:
            return None
        parts = [torch.cat(each) for each in gathered if each is not None]
    return Result(result.output, result.x, *parts)


def measure(case: Case, rounds: int, cores: set[int]) -> list[saved.Row]:
    """A row for each way, on rank 0 with the errors."""
    seconds: dict[str, list[float]] = {}
    off: dict[str, list[float]] = {}
    for start in STARTS:
        told = problem(case.layers, case.shape, case.batch, start, 0)
        exact, all_ways, calls = by_autograd(told) if FIRST else None, ways(case, told), {}
        for name, way in all_ways.items():
            result = turn(way, 1, cores)[1]
            found = None if result is None else whole(result, case.layers)
            error = 0.0 if found is None or exact is None else errors(found, exact)[1]
            off.setdefault(name, []).append(error)
            calls[name] = math.ceil(0.1 / turn(way, 1, cores)[0])
        for n in range(rounds):
            for name in list(all_ways)[:: 1 if n % 2 else -1]:
                taken = turn(all_ways[name], calls[name], cores)[0]
                seconds.setdefault(name, []).append(taken)
    rows, base = [], seconds["serial, 1 thread"]
    for name in off:
        taken = seconds[name]
        rows.append(
            {"part": 2, "case": str(case), "factor": case.factors[0], "method": name}
            | {"ms_least": 1e3 * min(taken), "ms_median": 1e3 * statistics.median(taken)}
            | {"speedup_least": min(base) / min(taken)}
            | {"speedup_median": statistics.median(base) / statistics.median(taken)}
            | {"model": modelled(case, name)}
            | {f"error_{start}": off[name][i] for i, start in enumerate(STARTS)}
        )
    return rows


def modelled(case: Case, name: str) -> float:
    if name.startswith("serial"):
        return 1.0
    ranks, cycles = (RANKS if f" {RANKS} ranks" in name else 1), int(name[-1])
    factor, layer = case.factors[0], layer_bytes(problem(*case[:3], "default", 0))
    gathered = is_gathered(-(-case.layers // factor), ranks, layer)
    both = (cycles, cycles)
    return plan(case.layers, ranks, factor, cycles=both, record=True, gathered=gathered).speedup


def layer_bytes(told: Problem) -> int:
    """Of a layer and a state, which all ranks exchange where the coarsest level is gathered."""
    return told.weights[0].nbytes + told.biases[0].nbytes + told.x.nbytes


def is_gathered(intervals: int, ranks: int, layer: int) -> bool:
    """As `mgnet.petsc.distribute_layers` decides."""
    ranks = min(ranks, intervals)
    return ranks >= FEWEST and layer * intervals <= SMALL * ranks


def show(rows: list[saved.Row], say: Say) -> None:
    say(f"\n  {rows[0]['case']}, factor {rows[0]['factor']}")
    head = f"{'least ms':>10}{'median':>9}{'speedup':>9}{'median':>8}{'model':>7}"
    say(f"  {'':<25}{head}{'error, smooth':>15}{'default':>9}")
    for row in rows:
        line = f"  {row['method']:<25}{row['ms_least']:>10.2f}{row['ms_median']:>9.2f}"
        line += f"{row['speedup_least']:>9.2f}{row['speedup_median']:>8.2f}{row['model']:>7.2f}"
        say(f"{line}{row['error_smooth']:>15.0e}{row['error_default']:>9.0e}")


def goals(rows: list[saved.Row]) -> list[saved.Row]:
    """Targets: wide layers against serial PyTorch, narrow ones against one process of mgnet."""
    by_name = {row["method"]: row for row in rows}
    case, found = rows[0]["case"], []
    for cycles in (0, 1):
        spread = by_name[f"mgnet, {RANKS} ranks, c + {cycles}"]
        if case in map(str, WIDE):
            ratio, told = spread["speedup_median"], "serial PyTorch, 1 thread"
            if cycles:
                continue  # reported: the model says 0.63
            goal = 1.4
        else:
            alone = by_name[f"mgnet, 1 rank, c + {cycles}"]
            ratio, told, goal = alone["ms_median"] / spread["ms_median"], "our one process", 1.3
        name = f"{case}, c + {cycles}, {RANKS} ranks over {told}"
        found.append(saved.target(name, f">= {goal}", f"{ratio:.2f}", ratio >= goal))
    return found


def message_seconds(ranks: Any, state: Tensor, times: int = 300) -> float:
    """One way, between the first two ranks, as the passes send their states."""
    WORLD.Barrier()
    began = MPI.Wtime()
    for _ in range(times):
        if ranks.rank == 0:
            ranks.send(state, False)
            ranks.receive(state, True)
        elif ranks.rank == 1:
            ranks.send(ranks.receive(state, False), True)
    return (MPI.Wtime() - began) / (2 * times)


def machine_of(case: Case, rounds: int, cores: set[int]) -> saved.Row:
    """What a layer and a message take."""
    told = problem(case.layers, case.shape, case.batch, "default", 0)
    net, both = Net(told), eager(told) if FIRST else None
    ahead = Way((lambda: Result(net(told.x), *[told.x] * 3)) if FIRST else None)
    times = [[turn(way, 1, cores)[0] for _ in range(rounds + 1)] for way in (ahead, Way(both))]
    forward, both_ways = (statistics.median(each) for each in times)
    ranks = distribute_layers(ours(told, case.factors[0], 0)).communicator
    few, many = (
        statistics.median(message_seconds(ranks, state) for _ in range(rounds))
        for state in (torch.zeros(2), told.x)
    )
    return {
        "part": 3,
        "case": str(case).split(",")[0],
        "layer_us": 1e6 * forward / case.layers,
        "backward_ratio": both_ways / forward - 1.0,
        "state_kib": told.x.nbytes / 1024,
        "layer_bytes": layer_bytes(told),
        "latency_us": 1e6 * few,
        "gb_per_second": 1e-9 * told.x.nbytes / max(many - few, 1e-9),
    }


@cache
def cost(
    layers: int, ranks: int, levels: int, factor: int, cycles: int, gathered: bool
) -> tuple[Cost, Cost]:
    """Forward and backward."""
    both = (cycles, cycles)
    told = plan(layers, ranks, factor, levels=levels, cycles=both, record=True, gathered=gathered)
    assert told.backward is not None
    return told.forward, told.backward


def best(machine: saved.Row, layers: int, ranks: int, cycles: int) -> tuple[float, int, int]:
    """Speedup, levels and factor of the fastest plan, serial or not."""
    layer, ratio = 1e-6 * machine["layer_us"], machine["backward_ratio"]
    message = 1e-6 * machine["latency_us"]
    message += 1024 * machine["state_kib"] / (1e9 * machine["gb_per_second"])
    serial = (1.0 + ratio) * layers * layer
    found = [(1.0, 1, 1)]
    for factor in FACTORS:
        size, levels = -(-layers // factor), 2
        while size >= COARSEST:
            gathered = is_gathered(size, ranks, machine["layer_bytes"])
            forward, backward = cost(layers, ranks, levels, factor, cycles, gathered)
            seconds = layer * (forward.critical + ratio * backward.critical)
            seconds += message * (forward.critical_messages + backward.critical_messages)
            found.append((serial / seconds, levels, factor))
            size, levels = -(-size // factor), levels + 1
    return max(found)


def planned(rounds: int, cores: set[int], say: Say) -> list[saved.Row]:
    machines = [machine_of(case, rounds, cores) for case in CASES]
    say("\n3. What the plan says of more ranks")
    say("  a layer forward, backward over forward, a state, a message of 8 bytes, its bandwidth")
    for row in machines:
        line = f"  {row['case']:<24}{row['layer_us']:>9.1f} us{row['backward_ratio']:>7.2f}"
        line += f"{row['state_kib']:>8.0f} KiB{row['latency_us']:>8.1f} us"
        say(f"{line}{row['gb_per_second']:>7.2f} GB/s")
    rows = []
    for cycles in (0, 1):
        say(f"\n  c + {cycles}: layers from which layer-parallel wins; speedup with {SHOWN} layers")
        say(f"  {'':<20}" + "".join(f"{f'{ranks} ranks':>16}" for ranks in MANY))
        for machine in machines:
            line = f"  {machine['case']:<20}"
            for ranks in MANY:
                wins = [n for n in SIZES if best(machine, n, ranks, cycles)[0] > 1.0]
                speedup, levels, factor = best(machine, SHOWN, ranks, cycles)
                first = str(wins[0]) if wins else f"> {SIZES[-1]}"
                line += f"{first:>9}{speedup:>7.1f}"
                rows.append(
                    machine
                    | {"cycles": cycles, "ranks": ranks, "wins_from": wins[0] if wins else None}
                    | {"speedup_1024": speedup, "levels": levels, "factor": factor}
                )
            say(line)
    return rows


def main(options: argparse.Namespace) -> None:
    if RANKS < 2:
        raise SystemExit("start it on several ranks: mpiexec -n 2 python benchmarks/layer_ranks.py")
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        if FIRST:
            print(text, flush=True)

    torch.set_num_threads(1)
    cores = set().union(*WORLD.allgather(os.sched_getaffinity(0)))
    say(saved.heading())
    rows, target = critical_paths(say)
    targets = [target]
    say(f"\n2. Forward and backward, {2 * options.rounds} turns; speedups over serial on 1 thread")
    for case in [CASES[n] for n in options.cases]:
        found = measure(case, options.rounds, cores)
        show(found, say)
        rows += found
        targets += goals(found)
    rows += planned(options.rounds, cores, say)
    say("")
    for each in targets:
        met = "met" if each["met"] else "NOT met"
        say(f"{each['name']}: {each['measured']} (target {each['target']}, {met})")
    if options.save and FIRST:
        setting = f"float32, one thread per rank, {2 * options.rounds} turns of at least 0.1 s"
        saved.save(options.save, "layer_ranks", setting, rows, targets, "\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4, help="for each kind of weights")
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(CASES))))
    saved.add_option(parser)
    main(parser.parse_args())
