"""Recurrent networks in parallel over time, beside torch.nn.GRU and LSTM, on one core.

    OMP_NUM_THREADS=1 python benchmarks/recurrent.py [--seeds 5] [--steps 1000 10000]
        [--widths 2 4 16 64 128] [--kinds GRU LSTM]
        [--parts seconds iterations refusals] [--save]

One layer, as many inputs as its width, batch 16, weights as PyTorch draws them, normal inputs,
float32; forward and backward with all gradients. "Long memory" adds 3 to the bias of the update
(forget) gate, so that a state stays for some twenty steps. Cycles are those to a tolerance of 1e-6
forward and backward, counted in float64. Every seed takes a turn of each way; a row tells medians
of the seconds, and of the ratio, seconds of PyTorch over those of mgnet, with its smallest and
largest. "exact" is `mode="serial"`, a compiled loop where that takes part and PyTorch's own where
not; "auto" the ratio of `mode="auto"` after its first call, of five turns with the first seed;
"loop" a Python loop over the cell.

The part "iterations", `recurrent_iterations.py`, counts what MGRIT and Newton's method take to
1e-6, forward and backward, in float64 with batch 1, widths from 4 on; and the largest relative
error of the output and of all gradients against PyTorch at a tolerance of 1e-11. Dense Jacobians of
more than 0.4 GB are not tried. Long memory is for up to 1000 steps there.

The part "refusals", `recurrent_refusals.py`, draws cells with recurrent weights of several sizes, 2
widths for each seed, 500 steps, and counts which `TimeParallel` refuses as chaotic. Which are, says
`lyapunov`: stable, where an error grows at most a thousandfold along exact states; chaotic, with
an exponent above 0.05; weakly chaotic between. A refusal is timed, in processor seconds,
beside the same steps taken one by one and beside the call without a look at the exponent.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import recurrent_iterations
import recurrent_refusals
import saved
import torch
from torch import Tensor, nn

from mgnet.depth import CyclesToTolerance, TimeParallel

BATCH, TOLERANCE = 16, 1e-6
KINDS = {"GRU": (nn.GRU, nn.GRUCell), "LSTM": (nn.LSTM, nn.LSTMCell)}
MEMORIES = {"as drawn": 0.0, "long memory": 3.0}
LARGEST = 160_000  # steps times width; more take minutes a row
LOOPED = 2  # the width for which there is a loop, too


def network(kind: str, width: int, memory: float) -> nn.RNNBase:
    module = KINDS[kind][0](width, width)
    with torch.no_grad():
        module.bias_hh_l0[width : 2 * width] += memory
    return module


def seconds_of(call: Callable[[Tensor], Tensor], x: Tensor) -> float:
    began = time.perf_counter()
    call(x).square().mean().backward()
    return time.perf_counter() - began


def looped(kind: str, module: nn.RNNBase) -> Callable[[Tensor], Tensor]:
    cell = KINDS[kind][1](module.input_size, module.hidden_size)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in module.state_dict().items()})

    def loop(x: Tensor) -> Tensor:
        state: Any = None
        outputs = []
        for row in x.unbind():
            state = cell(row, state)
            outputs.append(state[0] if kind == "LSTM" else state)
        return torch.stack(outputs)

    return loop


def cycles_of(module: nn.RNNBase, x: Tensor) -> tuple[int, int]:
    exact = copy.deepcopy(module).double()
    parallel = TimeParallel(exact, control=CyclesToTolerance(TOLERANCE, max_cycles=50))
    parallel(x.double())[0].square().mean().backward()
    return parallel.last_forward.cycles, parallel.last_backward.cycles


def measure(kind: str, steps: int, width: int, memory: str, seeds: int) -> saved.Row:
    found, gain_auto = [], 0.0
    for seed in range(seeds):
        torch.manual_seed(seed)
        module = network(kind, width, MEMORIES[memory])
        x = torch.randn(steps, BATCH, width).requires_grad_()
        control = CyclesToTolerance(TOLERANCE)
        parallel, exact, auto = (
            TimeParallel(module, control=control, mode=m) for m in ("mgrit", "serial", "auto")
        )
        ways = {
            "torch": lambda x, module=module: module(x)[0],
            "mgrit": lambda x, parallel=parallel: parallel(x)[0],
            "exact": lambda x, exact=exact: exact(x)[0],
            "auto": lambda x, auto=auto: auto(x)[0],
        }
        if not seed:
            auto(x)  # measures six calls, and compiles
            turns = [(seconds_of(ways["torch"], x), seconds_of(ways["auto"], x)) for _ in range(5)]
            gain_auto = statistics.median(one / other for one, other in turns)
        del ways["auto"]
        if width == LOOPED:
            ways["loop"] = looped(kind, module)
        seconds = {name: seconds_of(way, x) for name, way in ways.items()}
        forward, backward = cycles_of(module, x)
        found.append(seconds | {"forward": forward, "backward": backward})
    ratios = sorted(run["torch"] / run["mgrit"] for run in found)
    row: saved.Row = {"kind": kind, "steps": steps, "width": width, "memory": memory}
    row |= {"method": "mgrit"}
    for name in ("forward", "backward"):
        row[f"cycles_{name}_median"] = statistics.median(run[name] for run in found)
    for name in found[0]:
        if name not in ("forward", "backward"):
            row[f"seconds_{name}_median"] = statistics.median(run[name] for run in found)
    row |= {"gain_median": statistics.median(ratios)}
    row |= {"gain_least": ratios[0], "gain_largest": ratios[-1]}
    row["gain_exact_median"] = statistics.median(run["torch"] / run["exact"] for run in found)
    row["gain_auto"] = gain_auto
    if "loop" in found[0]:
        row["gain_loop_median"] = statistics.median(run["loop"] / run["exact"] for run in found)
    return row


def line(row: saved.Row) -> str:
    loop = row.get("seconds_loop_median")
    cycles = f"{row['cycles_forward_median']:g}, {row['cycles_backward_median']:g}"
    spread = f"{row['gain_least']:.2f} to {row['gain_largest']:.2f}"
    return (
        f"{row['kind']:<6}{row['steps']:>6}{row['width']:>7}  {row['memory']:<13}{cycles:>8}"
        f"{row['seconds_mgrit_median']:>9.3f}{row['seconds_torch_median']:>9.3f}"
        f"{'-' if loop is None else f'{loop:.3f}':>9}"
        f"{row['gain_median']:>8.2f}{spread:>17}{row['gain_exact_median']:>8.2f}"
        f"{row['gain_auto']:>8.2f}"
    )


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    """Targets for width 2 and 10 000 steps, and for "auto" in all cases."""
    found = []
    for row in rows:
        if row["kind"] == "GRU" and row["width"] == LOOPED and row["steps"] == 10_000:
            gain = row["gain_loop_median"]
            name = f"GRU, width 2, 10 000 steps, {row['memory']}: seconds of a loop over mgnet's"
            found.append(saved.target(name, "at least 5", f"{gain:.1f}", gain >= 5.0))
    least = min(row["gain_auto"] for row in rows)
    name = 'least of seconds of PyTorch over those of mode="auto"'
    return [*found, saved.target(name, "at least 0.95", f"{least:.2f}", least >= 0.95)]


def count_iterations(options: argparse.Namespace) -> None:
    part = recurrent_iterations
    setting = f"{options.seeds} seeds, batch 1, to 1e-6 forward and backward, float64"
    lines, rows = [setting, saved.heading(), "", part.heads()], []
    print("\n".join(lines), flush=True)
    for kind in options.kinds:
        for steps in options.steps:
            for width in options.widths:
                for memory, added in MEMORIES.items():
                    if width == LOOPED or (steps > 1000 and added):
                        continue
                    torch.manual_seed(0)
                    modules = [network(kind, width, added) for _ in range(options.seeds)]
                    row: saved.Row = {"kind": kind, "steps": steps, "width": width}
                    row |= {"memory": memory} | part.measure(modules, kind, steps, width)
                    rows.append(row)
                    lines.append(part.line(row))
                    print(lines[-1], flush=True)
    if options.save:
        name, text = "recurrent_iterations", "\n".join(lines)
        saved.save(options.save, name, setting, rows, part.targets(rows), text)


def count_refusals(options: argparse.Namespace) -> None:
    part = recurrent_refusals
    setting = f"{options.seeds} seeds, {part.STEPS} steps, batch 1, tolerance 1e-6, float64"
    lines, rows = [setting, saved.heading(), "", part.heads()], []
    print("\n".join(lines), flush=True)
    for kind in part.KINDS:
        for scale in part.SCALES:
            rows.append(part.measure(kind, scale, options.seeds))
            lines.append(part.line(rows[-1]))
            print(lines[-1], flush=True)
    if options.save:
        name, text = "recurrent_refusals", "\n".join(lines)
        saved.save(options.save, name, setting, rows, part.targets(rows), text)


def main(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    if "iterations" in options.parts:
        count_iterations(options)
    if "refusals" in options.parts:
        count_refusals(options)
    if "seconds" in options.parts:
        measure_seconds(options)


def measure_seconds(options: argparse.Namespace) -> None:
    warnings.simplefilter("ignore")
    setting = f"{options.seeds} seeds, batch {BATCH}, tolerance {TOLERANCE:g}, float32"
    heads = (
        f"{'':<6}{'steps':>6}{'width':>7}  {'memory':<13}{'cycles':>8}{'s mgrit':>9}{'s torch':>9}"
        f"{'s loop':>9}{'ratio':>8}{'of the seeds':>17}{'exact':>8}{'auto':>8}"
    )
    lines, rows = [setting, saved.heading(), "", heads], []
    print("\n".join(lines), flush=True)
    for kind in options.kinds:
        for steps in options.steps:
            for width in options.widths:
                if steps * width > LARGEST:
                    continue
                for memory in MEMORIES:
                    rows.append(measure(kind, steps, width, memory, options.seeds))
                    lines.append(line(rows[-1]))
                    print(lines[-1], flush=True)
    if options.save:
        text = "\n".join(lines)
        saved.save(options.save, "recurrent", setting, rows, targets(rows), text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--widths", type=int, nargs="+", default=[2, 4, 16, 64, 128])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parts = "seconds", "iterations", "refusals"
    parser.add_argument("--parts", nargs="+", choices=parts, default=[*parts])
    saved.add_option(parser)
    main(parser.parse_args())
