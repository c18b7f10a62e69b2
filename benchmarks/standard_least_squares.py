"""`levenberg_marquardt` beside SciPy's `least_squares` on the standard problems of the field.

    OMP_NUM_THREADS=1 python benchmarks/standard_least_squares.py [--save [FOLDER]]
        [--collections MGH NIST] [--names WORDS ...] [--options key=value ...] [--recorded]

35 problems of Moré, Garbow and Hillstrom in 47 sizes from x0, 10 x0 and 100 x0, and NIST's 27 from
both starts, from `tests/training/least_squares/standard`. SciPy's `lm` (MINPACK), `trf` and
`dogbox` have the exact Jacobian, default tolerances and 1000 evaluations, with x_scale 1 and "jac",
of which the better outcome counts; mgnet has its defaults and 1000 steps, or what --options gives.

An outcome is the (G)lobal minimum or a (L)ocal one of the list, both solved: the value agrees to
1e-6, a zero to 1e-16. Else it is a value that the problem has at (I)nfinity, (F)lat, so that
Newton's step promises no decrease, or missed (-). Lower case: the solver did not say that it
converged. "!" is wrong: the solver reports convergence although the value still falls. Counts are
those of `lm` with "jac", MINPACK's own choice; a call of the residual with a gradient counts as a
Jacobian. --recorded takes SciPy's outcomes from a file, --record writes it.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import saved
import torch
from scipy.optimize import least_squares

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.training.least_squares.standard.fit import Fit, fit  # noqa: E402
from tests.training.least_squares.standard.problem import Standard  # noqa: E402
from tests.training.least_squares.standard.problems import problems  # noqa: E402
from tests.training.least_squares.standard.verdict import (  # noqa: E402
    FLAT,
    GLOBAL,
    INFINITY,
    LOCAL,
    MISSED,
    digits,
    parameter_digits,
    verdict,
)

RECORD = ROOT / "tests" / "training" / "least_squares" / "standard" / "scipy.json"
METHODS = ["lm", "trf", "dogbox"]
EVALUATIONS = 1000
LETTERS = "GgLlIiFf-!"  # from best to worst


class Outcome(NamedTuple):
    """What is kept of a fit; digits are of the worst parameter and of the sum of squares."""

    letter: str
    value: float
    evaluations: int
    jacobians: int
    parameter_digits: float | None = None
    value_digits: float | None = None
    reason: str = ""

    @property
    def solved(self) -> bool:
        return self.letter in "GgLl"

    @property
    def rank(self) -> tuple[int, int]:
        """Less is better."""
        return LETTERS.index(self.letter), self.evaluations


Outcomes = dict[str, dict[str, dict[str, Outcome]]]  # problem -> start -> method


def outcome(problem: Standard, ended: Fit) -> Outcome:
    letter = {GLOBAL: "G", LOCAL: "L", INFINITY: "I", FLAT: "F", MISSED: "!"}[ended.verdict]
    if not ended.converged:
        letter = "-" if ended.verdict == MISSED else letter.lower()
    value = float(f"{ended.value:.9g}")
    found = Outcome(letter, value, ended.evaluations, ended.jacobians, reason=ended.reason)
    if problem.certified is None:
        return found
    return found._replace(
        parameter_digits=round(parameter_digits(problem, ended.x), 1),
        value_digits=round(digits(ended.value, problem.minima[0]), 1),
    )


def scipy_fit(problem: Standard, start: torch.Tensor, method: str, scale: Any) -> Fit:
    jacobian = torch.func.jacrev(problem.residual)

    def r(x: np.ndarray) -> np.ndarray:
        return problem.residual(torch.from_numpy(np.array(x))).numpy()

    def J(x: np.ndarray) -> np.ndarray:
        return jacobian(torch.from_numpy(np.array(x))).numpy()

    options: dict[str, Any] = {"jac": J, "method": method, "x_scale": scale}
    try:
        told = least_squares(r, start.numpy(), max_nfev=EVALUATIONS, **options)
    except (ValueError, np.linalg.LinAlgError) as error:
        return Fit(start, math.inf, MISSED, f"refused: {error}", False, 0, 0, 0)
    x = torch.from_numpy(told.x)
    value = problem.value(x)
    judged = verdict(problem, x, value)
    counts = told.njev, told.nfev, told.njev
    return Fit(x, value, judged, f"status {told.status}", told.status > 0, *counts)


def by_scipy(problem: Standard, start: torch.Tensor) -> dict[str, Outcome]:
    """The better outcome of each method, and that of `lm` with "jac" under the name "minpack"."""
    found = {}
    for method in METHODS:
        pair = [outcome(problem, scipy_fit(problem, start, method, s)) for s in (1.0, "jac")]
        found[method] = min(pair, key=lambda end: end.rank)
        if method == "lm":
            found["minpack"] = pair[1]
    return found


def measured(chosen: list[Standard], known: Outcomes | None, options: dict[str, Any]) -> Outcomes:
    found: Outcomes = {}
    for problem in chosen:
        found[problem.name] = {}
        for label, start in problem.starts.items():
            theirs = by_scipy(problem, start) if known is None else known[problem.name][label]
            own = outcome(problem, fit(problem, start, **options))
            found[problem.name][label] = {**theirs, "mgnet": own}
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def record(found: Outcomes) -> None:
    """Keep SciPy's outcomes for --recorded and for the tests; one start a line."""
    lines = []
    for name, starts in found.items():
        inside = []
        for label, told in starts.items():
            kept = {method: told[method][:-1] for method in [*METHODS, "minpack"]}
            inside.append(f"    {json.dumps(label)}: {json.dumps(kept)}")
        lines.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(inside) + "\n  }")
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def recorded() -> Outcomes:
    return {
        name: {
            label: {method: Outcome(*numbers) for method, numbers in told.items()}
            for label, told in starts.items()
        }
        for name, starts in json.loads(RECORD.read_text()).items()
    }


def row(problem: Standard, told: dict[str, dict[str, Outcome]]) -> saved.Row:
    """One problem: a letter for each start."""
    start = next(iter(problem.starts.values()))
    found: saved.Row = {
        "problem": problem.name,
        "collection": problem.collection,
        "n": len(start),
        "m": len(problem.residual(start)),
    }
    for method in [*METHODS, "minpack", "mgnet"]:
        found[method] = "".join(told[label][method].letter for label in told)
    for name in "minpack", "mgnet":
        ends = [told[label][name] for label in told]
        found[f"{name}_evaluations"] = " ".join(str(end.evaluations) for end in ends)
        found[f"{name}_jacobians"] = " ".join(str(end.jacobians) for end in ends)
        if problem.certified is not None:
            found[f"{name}_digits"] = " ".join(f"{end.parameter_digits:.1f}" for end in ends)
    found["mgnet_values"] = " ".join(f"{told[label]['mgnet'].value:.6g}" for label in told)
    found["mgnet_ends"] = " ".join(told[label]["mgnet"].reason.split(":")[0] for label in told)
    return found


def counts(ends: list[Outcome]) -> str:
    tally = "".join(end.letter for end in ends).upper()
    names = {"G": "global", "L": "local", "I": "infinity", "F": "flat", "-": "missed", "!": "wrong"}
    kinds = ", ".join(f"{tally.count(letter)} {name}" for letter, name in names.items())
    return f"{sum(end.solved for end in ends)} of {len(ends)} solved: {kinds}"


def ratio(pairs: list[dict[str, Outcome]], name: str) -> float:
    """The median of mgnet's counts over MINPACK's, where both come to the same minimum."""
    both = [
        getattr(told["mgnet"], name) / getattr(told["minpack"], name)
        for told in pairs
        if told["mgnet"].solved
        and told["minpack"].solved
        and math.isclose(told["mgnet"].value, told["minpack"].value, rel_tol=1e-5, abs_tol=1e-15)
    ]
    return statistics.median(both) if both else math.nan


def median_digits(pairs: list[dict[str, Outcome]], method: str, name: str) -> float:
    found = [getattr(told[method], name) for told in pairs]
    kept = [number for number in found if number is not None]
    return statistics.median(kept) if kept else math.nan


def summary(found: Outcomes) -> tuple[list[str], list[saved.Row]]:
    """Lines below the table, and the targets."""
    named = [(f"{name}, {label}", t) for name, s in found.items() for label, t in s.items()]
    pairs = [told for _, told in named]
    best = [(name, any(told[m].solved for m in METHODS), told["mgnet"]) for name, told in named]
    lines = [f"{m:<7} {counts([told[m] for told in pairs])}" for m in [*METHODS, "mgnet"]]
    union, own = sum(solved for _, solved, _ in best), sum(end.solved for *_, end in best)
    single = max(sum(told[m].solved for told in pairs) for m in METHODS)
    lines.append(f"some method of SciPy: {union} of {len(pairs)} solved")
    for title, names in {
        "SciPy only": [name for name, solved, end in best if solved and not end.solved],
        "mgnet only": [name for name, solved, end in best if end.solved and not solved],
        "mgnet wrong": [f"{name} ({end.value:.6g})" for name, _, end in best if end.letter == "!"],
        "mgnet refused": [name for name, _, end in best if end.reason.startswith("refused")],
    }.items():
        lines.append(f"{title}: {len(names)}: {'; '.join(names)}")
    calls, jacobians = ratio(pairs, "evaluations"), ratio(pairs, "jacobians")
    lines.append(f"counts over those of lm: evaluations {calls:.2f}, Jacobians {jacobians:.2f}")
    of = {m: median_digits(pairs, m, "parameter_digits") for m in ("minpack", "mgnet")}
    sums = {m: median_digits(pairs, m, "value_digits") for m in ("minpack", "mgnet")}
    lines.append(
        f"NIST digits, median: parameters {of['mgnet']:.1f} (lm {of['minpack']:.1f}), "
        f"sum of squares {sums['mgnet']:.1f} (lm {sums['minpack']:.1f})"
    )
    wrong = sum(end.letter == "!" for *_, end in best)
    targets = [
        saved.target("solved, best method", f"at least {single}", f"{own}", own >= single),
        saved.target("solved, any method", f"at least {union}", f"{own}", own >= union),
        saved.target("wrongly converged", "0", f"{wrong}", wrong == 0),
        saved.target("evaluations over lm's", "at most 1.5", f"{calls:.2f}", calls <= 1.5),
    ]
    if not math.isnan(of["mgnet"]):
        digits = of["mgnet"]
        targets.append(saved.target("NIST digits", "at least 6", f"{digits:.1f}", digits >= 6.0))
    return lines, targets


def table(rows: list[saved.Row], lines: list[str], targets: list[saved.Row]) -> str:
    text = [saved.heading(), ""]
    titles = ["problem", "n", "m", *METHODS, "mgnet"]
    titles += ["evaluations, lm", "mgnet", "Jacobians, lm", "mgnet", "digits, lm", "mgnet", "ends"]
    text.append(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}")
    for found in rows:
        cells = [str(found[key]) for key in ("problem", "n", "m", *METHODS, "mgnet")]
        for key in "evaluations", "jacobians", "digits":
            cells += [str(found.get(f"{name}_{key}", "")) for name in ("minpack", "mgnet")]
        text.append(f"| {' | '.join([*cells, found['mgnet_ends']])} |")
    return "\n".join([*text, "", *lines, "", *saved.verdicts(targets)])


def option(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    try:
        return key, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return key, value


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--collections", nargs="+", choices=["MGH", "NIST"])
    parser.add_argument("--names", nargs="+", metavar="WORDS", help="problems with these words")
    parser.add_argument("--options", nargs="+", type=option, default=[], metavar="KEY=VALUE")
    parser.add_argument("--recorded", action="store_true", help="SciPy's outcomes from a file")
    parser.add_argument("--record", action="store_true", help="write that file")
    saved.add_option(parser)
    told = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", RuntimeWarning)  # overflows far from the solution
    chosen = [
        problem
        for problem in problems()
        if problem.collection in (told.collections or ["MGH", "NIST"])
        and (not told.names or any(word in problem.name for word in told.names))
    ]
    options = {"max_cycles": EVALUATIONS, **dict(told.options)}
    began = time.process_time()
    found = measured(chosen, recorded() if told.recorded else None, options)
    if told.record:
        record(found)
    rows = [row(problem, found[problem.name]) for problem in chosen]
    lines, targets = summary(found)
    text = table(rows, lines, targets)
    print(f"{text}\n{time.process_time() - began:.0f} s")
    if told.save:
        setting = f"{len(chosen)} problems, mgnet with {options}"
        saved.save(told.save, "standard_least_squares", setting, rows, targets, text)


if __name__ == "__main__":
    main()
