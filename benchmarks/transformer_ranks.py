"""Steps of a GPT of many layers: threads, layers over ranks, batches over ranks; a plan for more.

    mpiexec -n 2 python benchmarks/transformer_ranks.py [--layers 64] [--rounds 5] [--steps 8]
        [--save]

The byte-level GPT of transformer_layers.py with width 128, 4 heads, 64 bytes, batches of 8, T = 1,
float32, layers that begin identically; AdamW with rate 2e-3, largest norm of gradients 1.

1. Training steps. All rows begin with the same weights and see the same batches, alternating in
   runs of `steps` steps; who has no turn sleeps. "c + k": two levels, factor 16, the cascade and k
   cycles, both ways. Seconds are wall time of a step, its optimizer included; the held-out loss is
   that of the serial network, whatever trained it.
2. The plan for more ranks with what a layer, its backward pass and a message between two ranks take
   here; the fastest number of levels and factor. It knows nothing of what several layers in one
   call gain, and less of networks: between machines a message takes longer.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import warnings
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"

import petsc4py  # noqa: E402

petsc4py.init([])

import numpy as np  # noqa: E402
import saved  # noqa: E402
import torch  # noqa: E402
from layer_ranks import Way as Turn  # noqa: E402
from layer_ranks import best, message_seconds, turn  # noqa: E402
from rank_turns import WORLD, timed  # noqa: E402
from torch import nn  # noqa: E402
from transformer_layers import BATCH, Block, Embedding, loss_of, texts, windows  # noqa: E402

from mgnet.depth import (  # noqa: E402
    FixedCycles,
    LayerParallel,
    ODENet,
    accumulate_gradients,
    clip_grad_norm_,
    parameter_groups,
)
from mgnet.petsc import distribute, gather_state  # noqa: E402

RANKS, FIRST = WORLD.size, WORLD.rank == 0
WIDTH, CONTEXT, FACTOR = 128, 64, 16
MANY = (8, 16, 32, 64, 128, 256)
Say = Callable[[str], None]


def network(layers: int) -> ODENet:
    torch.manual_seed(0)
    before = Embedding(WIDTH, CONTEXT)
    after = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256))
    return ODENet(Block(WIDTH), layers, start="identical", before=before, after=after)


class Way:
    """A row of the table: a module, its optimizer, and what a step is."""

    def __init__(
        self,
        name: str,
        layers: int,
        threads: int = 1,
        grid: tuple[int, int] = (1, 1),
        cycles: int = 0,
    ):
        self.name, self.threads = name, threads
        self.seconds: list[float] = []
        self.here = FIRST or grid != (1, 1)
        self.net = network(layers)
        self.module: nn.Module = self.net
        self.spread: LayerParallel | None = None
        if grid != (1, 1):
            control = FixedCycles(cycles, tolerance=math.inf)
            mode = "serial" if grid[0] == 1 else "mgrit"
            parallel = LayerParallel(self.net, 2, FACTOR, control=control, mode=mode)
            self.module = self.spread = distribute(parallel, *grid)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.module, 0.1), lr=2e-3)
        self.rng = np.random.default_rng(0)

    def train(self, text: np.ndarray, steps: int, cores: set[int]) -> None:
        """Steps in turn with the other ways; seconds of one on the rank that took longest."""

        def work() -> None:
            self.optimizer.zero_grad()
            accumulate_gradients(self.module, loss_of, windows(text, BATCH, self.rng, CONTEXT))
            clip_grad_norm_(self.module, 1.0)
            self.optimizer.step()

        taken, _ = turn(Turn(work if self.here else None, self.threads), steps, cores)
        self.seconds.append(taken)

    def held_out(self, rows: torch.Tensor, layers: int) -> float:
        """The loss of the serial network, on rank 0."""
        whole = network(layers)
        state = self.net.state_dict() if self.spread is None else gather_state(self.spread)
        if not FIRST or state is None:
            return math.nan
        whole.load_state_dict({name.removeprefix("net."): x for name, x in state.items()
                               if self.spread is None or name.startswith("net.")})  # fmt: skip
        with torch.no_grad():
            return float(loss_of(whole, rows))


def training(layers: int, rounds: int, steps: int, cores: set[int], say: Say) -> list[saved.Row]:
    text = texts()
    ways = [
        Way("serial, 1 thread", layers),
        Way(f"serial, {RANKS} threads", layers, threads=RANKS),
        Way(f"layers over {RANKS} ranks, c + 0", layers, grid=(RANKS, 1)),
        Way(f"layers over {RANKS} ranks, c + 1", layers, grid=(RANKS, 1), cycles=1),
        Way(f"batches over {RANKS} ranks", layers, grid=(1, RANKS)),
    ]
    rows = windows(text[1], 64, np.random.default_rng(1), CONTEXT)
    for way in ways:  # traces, first calls
        way.train(text[0], 1, cores)
        way.seconds.clear()
    for n in range(rounds):
        for way in ways[:: 1 if n % 2 else -1]:
            way.train(text[0], steps, cores)
    base, told = statistics.median(ways[0].seconds), []
    say(f"\n1. Training, {layers} layers, {rounds} turns of {steps} steps")
    say(f"  {'':<30}{'s a step':>10}{'least':>8}{'largest':>9}{'speedup':>9}{'held out':>10}")
    for way in ways:
        median = statistics.median(way.seconds)
        row = {"part": "training", "method": way.name, "seconds_median": median}
        row |= {"seconds_least": min(way.seconds), "seconds_largest": max(way.seconds)}
        row |= {"speedup": base / median, "held_out": way.held_out(rows, layers)}
        told.append(row)
        say(f"  {way.name:<30}{median:>10.3f}{row['seconds_least']:>8.3f}"
            f"{row['seconds_largest']:>9.3f}{row['speedup']:>9.2f}"
            f"{row['held_out']:>10.3f}")  # fmt: skip
    return told


def machine_of(layers: int, rounds: int) -> saved.Row:
    """What a layer and a message take."""
    net = network(layers)
    u = net.encode(windows(texts()[0], BATCH, np.random.default_rng(0), CONTEXT)[:, :-1]).detach()

    def ahead() -> torch.Tensor:
        with torch.no_grad():
            return net.propagate(u)

    def both() -> None:
        net.propagate(u).sum().backward()

    times = [
        [WORLD.allreduce(timed(work if FIRST else None)[0], max) for _ in range(rounds + 1)]
        for work in (ahead, both)
    ]
    forward, both_ways = (statistics.median(each) for each in times)
    ranks = distribute(LayerParallel(net, 2, FACTOR)).communicator
    few, many = (
        statistics.median(message_seconds(ranks, state) for _ in range(rounds))
        for state in (torch.zeros(2), u)
    )
    weights = sum(p.nbytes for p in Block(WIDTH).parameters())
    return {
        "part": "machine",
        "layer_us": 1e6 * forward / layers,
        "backward_ratio": both_ways / forward - 1.0,
        "state_kib": u.nbytes / 1024,
        "layer_bytes": weights + u.nbytes,
        "latency_us": 1e6 * few,
        "gb_per_second": 1e-9 * u.nbytes / max(many - few, 1e-9),
    }


def planned(layers: int, rounds: int, say: Say) -> list[saved.Row]:
    machine = machine_of(layers, rounds)
    rows = [machine]
    layer = f"{machine['layer_us']:.0f} us forward, {machine['backward_ratio']:.2f} times backward"
    message = f"{machine['latency_us']:.0f} us and {machine['gb_per_second']:.1f} GB/s"
    say(f"\n2. The plan: a layer {layer}; messages of {machine['state_kib']:.0f} KiB, {message}")
    say("  speedup over serial propagation, levels and factor")
    say(f"  {'':<22}" + "".join(f"{f'{ranks} ranks':>16}" for ranks in MANY))
    for count in (layers, 4 * layers):
        for cycles in (0, 1, 2):
            line = f"  {f'{count} layers, c + {cycles}':<22}"
            row = {"part": "plan", "layers": count, "cycles": cycles}
            for ranks in MANY:
                speedup, levels, factor = best(machine, count, ranks, cycles)
                line += f"{f'{speedup:.1f} ({levels}, {factor})':>16}"
                row[f"ranks_{ranks}"] = speedup
            rows.append(row)
            say(line)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each row")
    parser.add_argument("--steps", type=int, default=8, help="of a turn")
    saved.add_option(parser)
    told = parser.parse_args()
    if RANKS < 2:
        raise SystemExit(
            "start it on two ranks: mpiexec -n 2 python benchmarks/transformer_ranks.py"
        )
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        if FIRST:
            print(text, flush=True)

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of estimated errors: few cycles are meant
    cores = set().union(*WORLD.allgather(os.sched_getaffinity(0)))
    say(saved.heading())
    rows = training(told.layers, told.rounds, told.steps, cores, say)
    rows += planned(told.layers, told.rounds, say)
    if told.save and FIRST:
        setting = f"float32, one thread per rank, {told.rounds} turns of {told.steps} steps"
        saved.save(told.save, "transformer_ranks", setting, rows, [], "\n".join(lines))


if __name__ == "__main__":
    main()
