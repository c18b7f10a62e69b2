"""A transformer that gets its layers while it trains, beside every fixed depth, in equal time.

    OMP_NUM_THREADS=1 python benchmarks/nested_gpt.py [--tasks text carry] [--seeds 1 2 3 4 5]
        [--budgets 8 32 128] [--settings 12] [--save]

Tasks: "text", the next byte of Python's standard library (width 64, 4 heads, 32 bytes, batches of
8); "carry", where depth pays: which of 16 values came last, in rows of 64 tokens in which values
stand 24 to 33 tokens apart. There a layer of width 32 attends to a token and the one before it, so
that a network of n layers sees n tokens back and has to guess beyond.

Nets are ODE nets with learnable steps, AdamW (0.9, 0.95; decay 0.1 of matrices), largest norm of
gradients 1, rates that rise over 5 % of the time and fall linearly over the last 30 %. Nested rows
train 2, 4, 8, 16 and then 32 layers, a fifth of the time each unless shares are given, moments
carried. Each layer is followed by a copy of it: with step 0, which changes nothing at first, or,
"half steps", on carry only, both with half of its step. The last row is `train_in_depth` with its
own trials, for the better of both; it may stay shallow.

Time is processor time. A unit is a training step of 32 layers; what a step of fewer layers costs
is measured alternately at the beginning (medians), and every row gets as many steps as fit, so that
other load does not decide. Rate and T are the best of 12 (text) or 8 (carry) settings for each row,
at the middle budget with seed 0, which is not used again; the row with other shares has those of
the one with equal shares.

Loss: cross entropy held out, nats per token; median, least, largest over the seeds. Times less: by
how much sooner a row reaches what 32 layers from the start reach with that budget, interpolated
between budgets (0: not within the largest; at most by the ratio to the smallest budget).
"""

import argparse
import itertools
import math
import statistics
from typing import Any

import nested_runs
import saved
import torch
from nested_runs import DEEPEST, DEPTHS, Plan, Result, Setting, Task

DEEP, TRIALS = f"{DEEPEST} layers from the start", "2 to 32, train_in_depth"
EQUAL, HALVES = "2-4-8-16-32", "2-4-8-16-32, half steps"
EARLY = "2-4-8-16-32, shares 6:1:1:1:1"
SHARES = (0.2,) * 5
PLANS = {f"{layers} layers": Plan((layers,), (1.0,)) for layers in DEPTHS[:-1]}
PLANS |= {DEEP: Plan((DEEPEST,), (1.0,))}
PLANS |= {EQUAL: Plan(DEPTHS, SHARES), HALVES: Plan(DEPTHS, SHARES, "constant")}
PLANS |= {EARLY: Plan(DEPTHS, (0.6, 0.1, 0.1, 0.1, 0.1))}
FIXED, NESTED = [*PLANS][:-3], [*PLANS][-3:]
Runs = dict[tuple[str, float], list[Result]]


def plans(task: Task) -> dict[str, Plan]:
    return {name: plan for name, plan in PLANS.items() if plan.how in task.how}


def tuned(
    task: Task, grid: list[Setting], budget: float, cost: dict[int, float]
) -> tuple[dict[str, Setting], str]:
    """The best setting of each row, with seed 0, and how layers are best inserted."""
    losses: dict[str, dict[Setting, float]] = {}
    for name in [name for name in plans(task) if name != EARLY]:
        losses[name] = {}
        for setting in grid:
            loss = nested_runs.train(task, PLANS[name], setting, budget, 0, cost).loss
            losses[name][setting] = loss if math.isfinite(loss) else math.inf
            print(f"  {name}, {setting.rate:g}, T {setting.final_time:g}: {loss:.3f}", flush=True)
    found = {name: min(each, key=lambda setting: each[setting]) for name, each in losses.items()}
    nested = [name for name in NESTED if name in losses]
    better = min(nested, key=lambda name: min(losses[name].values()))
    return found | {EARLY: found[EQUAL], TRIALS: found[better]}, PLANS[better].how


def trained(
    task: Task, settings: dict[str, Setting], how: str, budgets: list[float], seeds: list[int],
    cost: dict[int, float],
) -> Runs:  # fmt: skip
    runs: Runs = {}
    for seed, budget in itertools.product(seeds, budgets):
        for name, plan in plans(task).items():
            told = nested_runs.train(task, plan, settings[name], budget, seed, cost)
            runs.setdefault((name, budget), []).append(told)
        told = nested_runs.train_with_trials(task, how, settings[TRIALS], budget, seed, cost)
        runs.setdefault((TRIALS, budget), []).append(told)
        losses = [f"{runs[name, budget][-1].loss:.3f}" for name in (*plans(task), TRIALS)]
        print(f"  seed {seed}, {budget:g} units: {' '.join(losses)}", flush=True)
    return runs


def times_less(wanted: float, budget: float, curve: list[tuple[float, float]]) -> float:
    """`curve`: losses after times; between them the loss is linear in the logarithm of time."""
    for number, (when, loss) in enumerate(curve):
        if loss <= wanted:
            if number:
                before, above = curve[number - 1]
                part = (above - wanted) / (above - loss)
                when = before * (when / before) ** part
            return budget / when
    return 0.0


def table_rows(
    settings: dict[str, Setting], budgets: list[float], runs: Runs, cost: dict[int, float]
) -> list[saved.Row]:
    rows: list[saved.Row] = []
    names = [name for name in (*PLANS, TRIALS) if (name, budgets[0]) in runs]
    for budget, name in itertools.product(budgets, names):
        own = runs[name, budget]
        row: saved.Row = {"units": budget, "seconds": round(budget * cost[DEEPEST], 1)}
        row |= {"method": name, "rate": settings[name].rate, "T": settings[name].final_time}
        row["kind"] = "fixed" if name in FIXED else "nested" if name in NESTED else "trials"
        row["seeds"] = len(own)
        gains = []
        for seed in range(len(own)):
            wanted = runs[DEEP, budget][seed].loss
            curve = [(each, runs[name, each][seed].loss) for each in budgets]
            gains.append(times_less(wanted, budget, curve))
        measured = {"loss": [run.loss for run in own], "times_less": gains}
        for key, values in measured.items():
            row[f"{key}_median"] = statistics.median(values)
            row |= {f"{key}_least": min(values), f"{key}_largest": max(values)}
        row["layers"] = " ".join(map(str, sorted({run.layers for run in own})))
        rows.append(row | {"used": statistics.median(run.used for run in own) / budget})
    return rows


def targets(task: str, rows: list[saved.Row]) -> list[saved.Row]:
    """4 times less time on the text; on the other task, ahead of every fixed depth."""
    told = []
    for units in sorted({row["units"] for row in rows})[1:]:
        own = {row["method"]: row for row in rows if row["units"] == units}
        if task == "text":
            for name in [name for name in NESTED if name in own]:
                gain = own[name]["times_less_median"]
                what = f"{name}, times less to the loss of {DEEPEST} layers after {units:g} units"
                told.append(saved.target(what, "at least 4", f"{gain:.1f}", gain >= 4.0))
        else:
            best = min(FIXED, key=lambda name: own[name]["loss_median"])
            nested = min([n for n in NESTED if n in own], key=lambda name: own[name]["loss_median"])
            losses = own[nested]["loss_median"], own[best]["loss_median"]
            what = f"{units:g} units, the better nested row against the best fixed depth"
            measured = f"{losses[0]:.3f} ({nested}) against {losses[1]:.3f} ({best})"
            told.append(saved.target(what, "lower", measured, losses[0] < losses[1]))
    return told


def table(rows: list[saved.Row]) -> str:
    lines = []
    for units in dict.fromkeys(row["units"] for row in rows):
        own = [row for row in rows if row["units"] == units]
        lines.append(f"\n{units:g} units, {own[0]['seconds']:g} s")
        lines.append(f"  {'':<30}{'rate':>7}{'T':>4}{'loss':>9}{'least, largest':>18}"
                     f"{'times less':>12}{'least, largest':>16}{'used':>6}  layers")  # fmt: skip
        for row in own:
            spreads = [f"{row[f'{key}_least']:.{d}f} {row[f'{key}_largest']:.{d}f}"
                       for key, d in (("loss", 3), ("times_less", 1))]  # fmt: skip
            lines.append(
                f"  {row['method']:<30}{row['rate']:>7g}{row['T']:>4g}{row['loss_median']:>9.3f}"
                f"{spreads[0]:>18}{row['times_less_median']:>12.1f}{spreads[1]:>16}"
                f"{row['used']:>6.2f}  {row['layers']}"
            )
    return "\n".join(lines)


def measured(task: Task, told: Any) -> None:
    cost = nested_runs.costs(task)
    steps = ", ".join(f"{layers}: {1e3 * cost[layers]:.1f}" for layers in DEPTHS)
    begin = [f"Task {task.name!r}", saved.heading(), "", f"ms of a step by layers: {steps}"]
    print("\n".join(begin), flush=True)
    grid = task.grid[-told.settings :]
    budgets = sorted(told.budgets or task.budgets)
    settings, how = tuned(task, grid, budgets[len(budgets) // 2], cost)
    runs = trained(task, settings, how, budgets, told.seeds, cost)
    rows = table_rows(settings, budgets, runs, cost)
    goals = targets(task.name, rows)
    lines = [f"{t['name']}, {t['target']}: {t['measured']}{'' if t['met'] else ', missed'}"
             for t in goals]  # fmt: skip
    print("\n".join([table(rows), "", *lines, ""]))
    if told.save:
        setting = f"{len(told.seeds)} seeds; a unit is a step of {DEEPEST} layers; the best of "
        setting += f"{len(grid)} settings for each row"
        text = "\n".join([*begin, table(rows), "", *lines])
        saved.save(told.save, f"nested_{task.name}", setting, rows, goals, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    tasks = {"text": nested_runs.text, "carry": nested_runs.carry}
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=list(tasks))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--budgets", nargs="+", type=float)
    parser.add_argument("--settings", type=int, default=12, help="no more of each grid")
    saved.add_option(parser)
    told = parser.parse_args()
    torch.set_num_threads(1)
    for name in told.tasks:
        measured(tasks[name](), told)


if __name__ == "__main__":
    main()
