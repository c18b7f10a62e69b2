"""First order, minibatches: one step on all levels of a spline, beside steps on the finest alone.

    OMP_NUM_THREADS=1 python benchmarks/multilevel_gradient.py [--rows 0 1 5 6] [--seeds 1 2 3 4 5]
        [--intervals 256] [--hidden 8] [--samples 20000] [--noise 0] [--seconds 8]
        [--rates RATE ...] [--weights WEIGHT ...] [--save]

The target is that of benchmarks/rough_targets.py with two sums of rough functions of four inputs
and bumps of width 0.01; 20000 samples, batches of 1000, a KAN [4, 8, 1] in float32, or another
number of hidden values and of samples. Seconds are processor seconds of one thread, without those
of evaluation; rates fall like a cosine over them. A cascade begins with 4 intervals and doubles
them; half of its seconds belong to the finest level, the others are shared equally, and the rate
falls again on each level. "Carried" has the state of the optimizer refined with the network, "anew"
begins with none on each level. "Roughness" adds the integral of the squared second derivatives of
all edges to the loss, with a weight.

Every row has the best of five rates, and of five weights where there are any, by the held-out error
on seed 0, where nothing else is reported: the table uses the other seeds. Column "tried" says
where fewer were tried. Errors are root mean squares of deviations from held-out values, whose
deviation from their mean is 1.

With --save every run is appended to results/multilevel_gradient.jsonl; runs that are there are not
repeated, and the table uses all of them.
"""

import argparse
import math
import os
import statistics
import time
from functools import cache
from typing import Any, NamedTuple

import saved
import torch
from rough_targets import Rows, composed

from mgnet.knots import KAN, refine_optimizer, roughness
from mgnet.training import MultilevelGradient

SETTING = (
    "error: root mean square of held-out deviations, medians over seeds; the rate (and weight) of "
    "each row is the best of those tried on seed 0, which is not among them"
)
BATCH, FIRST = 1000, 4  # samples of a step; intervals of the coarsest level of a cascade
SEEN = 20000  # samples, at most, for the training error
ADAM = (0.1, 0.03, 0.01, 0.003, 0.001)
SGD = (3.0, 1.0, 0.3, 0.1, 0.03)
WEIGHTS = (1e-9, 1e-8, 1e-7, 1e-6, 1e-5)


FORMER = {"hidden": 8, "samples": 20000}  # where a kept run does not say


class Setting(NamedTuple):
    """A row: the optimizer, whether on all levels, and how the finest network is reached."""

    name: str
    kind: type[torch.optim.Optimizer] = torch.optim.Adam
    multilevel: bool = False
    cascade: str = ""  # "carried" or "anew"
    rough: bool = False

    @property
    def rates(self) -> tuple[float, ...]:
        return SGD if self.kind is torch.optim.SGD else ADAM

    @property
    def options(self) -> dict[str, Any]:
        return {"momentum": 0.9} if self.kind is torch.optim.SGD else {}


ROWS = (
    Setting("Adam"),
    Setting("Adam, roughness", rough=True),
    Setting("Adam, cascade, carried", cascade="carried"),
    Setting("Adam, cascade, anew", cascade="anew"),
    Setting("Adam, cascade, carried, roughness", cascade="carried", rough=True),
    Setting("multilevel Adam", multilevel=True),
    Setting("multilevel Adam, cascade, carried", multilevel=True, cascade="carried"),
    Setting("multilevel Adam, cascade, anew", multilevel=True, cascade="anew"),
    Setting("AdamW", torch.optim.AdamW),
    Setting("multilevel AdamW", torch.optim.AdamW, multilevel=True),
    Setting("SGD, momentum", torch.optim.SGD),
    Setting("multilevel SGD, momentum", torch.optim.SGD, multilevel=True),
)


@cache
def rows_of_target(seed: int, noise: float, samples: int) -> Rows:
    data = composed(4, seed, pairs=2, bump=0.01, rows=samples, noise=noise)
    return Rows(*(part.float() for part in data))


class Roughness:
    """The gradient of the penalty, by one sparse product."""

    def __init__(self, kan: KAN, weight: float):
        R = roughness(kan, weight).detach().double().to_sparse_coo().coalesce()
        R = R.to_sparse_csr()  # torch multiplies sparse matrices in this form alone
        self.parameters = list(kan.parameters())
        dtype = self.parameters[0].dtype
        self.hessian = (2.0 * (R.transpose(0, 1).to_sparse_csr() @ R)).to(dtype)

    def add_gradient(self) -> None:
        with torch.no_grad():
            flat = torch.nn.utils.parameters_to_vector(self.parameters)
            parts = (self.hessian @ flat).split([p.numel() for p in self.parameters])
            for p, part in zip(self.parameters, parts, strict=True):
                p.grad += part.view(p.shape)  # type: ignore[operator]


def made(setting: Setting, kan: KAN, rate: float) -> torch.optim.Optimizer:
    options = {"lr": rate, **setting.options}
    if setting.multilevel:
        return MultilevelGradient(setting.kind, kan, options)
    kind: Any = setting.kind
    return kind(kan.parameters(), **options)


def error(kan: KAN, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return float((kan(x) - y).square().mean().sqrt())


def run(setting: Setting, about: dict[str, Any]) -> dict[str, Any]:
    intervals, rate, seed = about["intervals"], about["rate"], about["seed"]
    data = rows_of_target(seed, about["noise"], about["samples"])
    doublings = round(math.log2(intervals / FIRST)) if setting.cascade else 0
    generator = torch.Generator().manual_seed(seed)
    widths = [4, about["hidden"], 1]
    kan = KAN(widths, intervals >> doublings, dtype=torch.float32, generator=generator)
    optimizer = made(setting, kan, rate)
    shares = [0.5 / doublings] * doublings + [0.5] if doublings else [1.0]
    steps, order, at = [], torch.randperm(len(data.x), generator=generator), 0
    for number, share in enumerate(shares):
        if number:
            fine = kan.refine()
            carried = setting.cascade == "carried"
            optimizer = refine_optimizer(optimizer, kan, fine) if carried else None  # type: ignore
            kan = fine
            optimizer = optimizer or made(setting, kan, rate)
        penalty = Roughness(kan, about["weight"]) if setting.rough else None
        began, count = time.process_time(), 0
        given = share * about["asked"]
        while (done := (time.process_time() - began) / given) < 1.0:
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5 * (1.0 + math.cos(math.pi * done))
            if at + BATCH > len(order):
                order, at = torch.randperm(len(order), generator=generator), 0
            batch = order[at : at + BATCH]
            at += BATCH
            optimizer.zero_grad()
            (kan(data.x[batch]) - data.y[batch]).square().mean().backward()
            if penalty is not None:
                penalty.add_gradient()
            optimizer.step()
            count += 1
        steps.append(count)
    return {
        "error": error(kan, data.x_held, data.y_held),
        "training": error(kan, data.x[:SEEN], data.y[:SEEN]),
        "steps": sum(steps),
        "fine_steps": steps[-1],
    }


def best(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run with the lowest held-out error; one that is not finite is none."""
    return min(runs, key=lambda each: each["error"] if math.isfinite(each["error"]) else math.inf)


# What makes a group of runs; the method is last.
ABOUT = ("hidden", "samples", "intervals", "noise", "asked", "row")


def table_rows(runs: list[dict[str, Any]]) -> list[saved.Row]:
    """Runs of each row: the seeds after the first, at the rate that was best on that."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for each in runs:
        groups.setdefault(tuple(each[key] for key in ABOUT), []).append(each)
    rows = []
    for about, own in groups.items():
        tuned = [each for each in own if each["seed"] == 0]
        if not tuned:
            continue
        chosen = best(tuned)
        kept = [
            each
            for each in own
            if each["seed"] != 0 and all(each[k] == chosen[k] for k in ("rate", "weight"))
        ]
        if not kept:
            continue
        errors = [each["error"] for each in kept]
        row = dict(zip(ABOUT, about, strict=True))
        row |= {"method": row.pop("row"), "rate": chosen["rate"], "weight": chosen["weight"]}
        row |= {"tried": len(tuned), "seeds": len(kept)}
        row |= {"error_median": statistics.median(errors)}
        row |= {"error_least": min(errors), "error_largest": max(errors)}
        for key in ("training", "steps", "fine_steps"):
            row[f"{key}_median"] = statistics.median(each[key] for each in kept)
        rows.append(row)
    names = [setting.name for setting in ROWS]
    rows.sort(key=lambda r: (*[r[key] for key in ABOUT[:-1]], names.index(r["method"])))
    return rows


def targets_of(rows: list[saved.Row]) -> list[saved.Row]:
    """At 256 intervals without noise: how many times lower than the best Adam, at once and nested.

    Rivals have no levels of the optimizer; they may have a penalty, and be nested.
    """
    own = {
        row["method"]: row
        for row in rows
        if (row["intervals"], row["noise"]) == (256, 0.0) and "Adam" in row["method"]
    }
    groups: dict[tuple[bool, bool], list[saved.Row]] = {}
    for name, row in own.items():
        if "AdamW" not in name:
            groups.setdefault(("multilevel" in name, "cascade" in name), []).append(row)
    least = {key: min(group, key=lambda row: row["error_median"]) for key, group in groups.items()}
    told = []
    for nested, goal in ((False, 2.5), (True, 1.4)):
        ours, best = least.get((True, True)), least.get((False, nested))
        if ours is None or best is None:
            continue
        ratio = best["error_median"] / ours["error_median"]
        measured = f"{ratio:.2g} times lower than {best['method']}"
        about = "below the best " + ("cascade without levels" if nested else "Adam at once")
        told.append(saved.target(about, f"{goal:g} times", measured, ratio >= goal))
    if "Adam" in own and "multilevel Adam" in own:
        ratio = own["Adam"]["steps_median"] / own["multilevel Adam"]["steps_median"]
        told.append(saved.target("a step", "at most 1.2 of Adam's", f"{ratio:.2f}", ratio <= 1.2))
    return told


def table(rows: list[saved.Row]) -> str:
    lines = [
        f"{'hidden':>6}{'samples':>9}{'intervals':>10}{'noise':>6}{'s':>4}  "
        f"{'method':<36}{'rate':>7}{'weight':>8}{'tried':>6}"
        f"{'seeds':>6}{'error, median':>15} {'least':>8} {'largest':>8}{'training':>10}{'steps':>7}"
    ]
    lines += [
        f"{row['hidden']:>6}{row['samples']:>9}{row['intervals']:>10}{row['noise']:>6g}"
        f"{row['asked']:>4g}  {row['method']:<36}"
        f"{row['rate']:>7g}{row['weight']:>8g}{row['tried']:>6}{row['seeds']:>6}"
        f"{row['error_median']:>15.2e} "
        f"{row['error_least']:>8.1e} {row['error_largest']:>8.1e}{row['training_median']:>10.1e}"
        f"{row['steps_median']:>7g}"
        for row in rows
    ]
    return "\n".join(lines)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs="+", type=int, help="numbers of rows, from 0")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--intervals", nargs="+", type=int, default=[256])
    parser.add_argument("--hidden", type=int, default=8, help="values between the two layers")
    parser.add_argument("--samples", type=int, default=20000, help="for training")
    parser.add_argument("--noise", type=float, default=0.0, help="deviation of training values")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a processor, per run")
    parser.add_argument("--rates", nargs="+", type=float, help="in place of the five")
    parser.add_argument("--weights", nargs="+", type=float, default=list(WEIGHTS))
    parser.add_argument("--save", action="store_true", help="keep the runs, and the table")
    told = parser.parse_args()
    for n in told.intervals:
        if n < FIRST or 2 ** round(math.log2(n / FIRST)) * FIRST != n:
            parser.error(f"--intervals got {n}; give 4 times a power of two")
    return told


def main() -> None:
    told = options()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    kept = saved.RESULTS / "multilevel_gradient.jsonl"
    runs: list[dict[str, Any]] = (
        [FORMER | each for each in saved.kept_runs(kept)] if told.save else []
    )
    machine = saved.place()

    def ensure(setting: Setting, about: dict[str, Any]) -> dict[str, Any]:
        known = saved.found_run(runs, about)
        if known:
            return known
        runs.append(about | {"machine": machine} | run(setting, about))
        print(*runs[-1].values(), flush=True)
        if told.save:
            saved.keep_run(kept, runs[-1])
        return runs[-1]

    for n in told.intervals:
        for setting in ROWS if told.rows is None else [ROWS[number] for number in told.rows]:
            about = {"row": setting.name, "hidden": told.hidden, "samples": told.samples}
            about |= {"intervals": n, "noise": told.noise}
            tuned = []
            for rate in told.rates or setting.rates:
                for weight in told.weights if setting.rough else [0.0]:
                    settled = {"rate": rate, "weight": weight, "asked": told.seconds}
                    tuned.append(ensure(setting, about | settled | {"seed": 0}))
            settled = {key: best(tuned)[key] for key in ("rate", "weight", "asked")}
            for seed in told.seeds:
                ensure(setting, about | settled | {"seed": seed})
    rows = table_rows(runs)
    text = "\n".join([*dict.fromkeys(each["machine"] for each in runs), "", table(rows)])
    print(text)
    if told.save:
        result = {"setting": SETTING, "machine": machine, "versions": {}}
        result |= {"rows": rows, "targets": targets_of(rows)}
        saved.save_table("multilevel_gradient", result, text)


if __name__ == "__main__":
    main()
