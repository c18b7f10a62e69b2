"""Texts of cycles, smoothers and accelerations, and the command `mgnet schedule`.

What `parse` reads must print back to a text of the same schedule, and its work must be that of a
count that is independent of schedules: it walks the cycle by its definition.
"""

from __future__ import annotations

import io
import math
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np

from mgnet import Schedule, parse
from mgnet.app.cli import main
from mgnet.app.cost_model import cost_model
from mgnet.limits import MOST_STEPS
from mgnet.options.smoother_text import parse_acceleration, parse_smoother

LEVELS = 1, 2, 3, 4, 5, 6, 8, 9, 10**6, 10**18
SHARES = 0.1, 0.2, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.03, 0.02
NUMBERS = ("0", "1", "2", "3", "10", "999999999", "1000000000", "-1", "+1", "1.5", "1e3", "1_0",
           "٣", "²", "007", "9" * 30, "9" * 5000, "nan", "inf", "0x10", "", " ", "True", "१",
)  # fmt: skip
SMOOTHERS = (
    "Jacobi(0.8)", "Jacobi(omega=0.5)", "GaussSeidel('backward')", "Chebyshev(2)", "Direct('pinv')",
    "LineRelaxation((1, 0), 'jacobi', omega=0.8)", "BlockGaussSeidel((2, 1), 'symmetric')",
    "AdditiveSchwarz([[0, 1], [1, 2]], 'none', 0.5)", "MultiplicativeSchwarz(omega=0.7)",
    "ILU(1e-3, fill_factor=5)", "Chebyshev(4, kind='opt_fourth')",
    "Chebyshev(degree=3, lower=0.1, upper=1.2)", "Krylov('cg', iterations=3, rtol=1e-3)",
    "mgnet.training.LBFGS(history=3)", "LBFGS", "LevenbergMarquardt", "Broyden(4)", "Patches",
    "KSPSmoother('relax_')", "Relaxation('FCF', 1.3)", "SerialSweep()", "GradientDescent(0.1)",
    "AdaptiveBasis", "LastLayer()", "mgnet.depth.Relaxation", "EarlyStop", "TorchOptimizer",
)  # fmt: skip
ACCELERATIONS = ("Anderson(5)", "Anderson(memory=3, damping=0.5)", "none", "Anderson")
VALUES = (
    "0", "1", "-1", "1e999", "-0.0", "1" + "0" * 400, "None", "True", "'F'", "''", "'\\n'", "b'x'",
    "[]", "{}", "()", "{[]: 1}", "{{}}", "[" * 300, "(" * 50 + ")" * 50, "-" * 200 + "1", "1+2j",
    "open('x')", "__import__('os')", "*[1]", "**{}", "'a'*10**9", "lambda: 1", "...",
    "1e-320", "0.5", "2", "'" + "x" * 500 + "'", "nan", "[1] * 3", "not 1", "0x7f", "1_000",
    "\\", "9**9", "1;2", "f'{1}'",
)  # fmt: skip
ODD = ("\0", "\n", "\t", "\u2028", "\u00a0", "\u202e", "\ud800", "é", "(", ")", ",", "'", '"', "#",
       " ", "a", "V", "nested ", "cascade ", ".", "_", "=", "-", "\\", "W", "K3", "{", "]", ";",
)  # fmt: skip


class Fuzzer:
    """One text and how it is read; see `Target`."""

    refusals = (ValueError, TypeError)

    def prepare(self, folder: Path) -> None:
        """Import what smoothers need, outside of the timed part."""
        for text in SMOOTHERS:
            try:
                parse_smoother(text)
            except ValueError:
                pass

    def draw(self, rng: np.random.Generator, folder: Path) -> str:
        """A text of the grammar, edited no, once or several times."""
        self.kind = str(
            rng.choice(["cycle", "command", "smoother", "acceleration"], p=[0.45, 0.15, 0.3, 0.1])
        )
        if self.kind in ("cycle", "command"):
            self.levels = int(rng.choice(LEVELS, p=SHARES))
            self.text = _cycle(rng, min(self.levels, 40))
        elif self.kind == "smoother":
            self.text = _call(rng, SMOOTHERS)
        else:
            self.text = _call(rng, ACCELERATIONS)
        for _ in range(int(rng.choice([0, 1, 2, 5], p=[0.4, 0.35, 0.15, 0.1]))):
            self.text = _edited(rng, self.text)
        shown = self.text if len(self.text) < 150 else f"{self.text[:150]}... of {len(self.text)}"
        return f"{self.kind} {shown!r} {getattr(self, 'levels', '')}"

    def use(self, folder: Path) -> bool:
        """Whether what is read is right."""
        if self.kind == "cycle":
            return _is_right(parse(self.text, self.levels), self.text, self.levels)
        if self.kind == "command":
            return _command(self.text, self.levels)
        if self.kind == "smoother":
            made = parse_smoother(self.text)
            name = re.match(r"\s*(?:\w+\.)*(\w+)", self.text)
            return name is not None and name[1] == type(made).__name__
        made = parse_acceleration(self.text)
        return made is None or parse_acceleration(repr(made)) == made


def _cycle(rng: np.random.Generator, levels: int) -> str:
    kind = rng.choice(["cycle", "nested", "cascade", "steps"], p=[0.4, 0.2, 0.15, 0.25])
    if kind in ("cycle", "nested"):
        letter = str(rng.choice(["V", "F", "W", "K"]))
        if letter == "K":
            letter += str(rng.choice(["1", "2", "3", "5", "40", "999999999"]))
        counts = [str(k) for k in rng.integers(0, 4, int(rng.choice([2, 2, 3])))]
        return f"{'nested ' if kind == 'nested' else ''}{letter}({','.join(counts)})"
    if kind == "cascade":
        long = int(rng.choice([1, levels]))
        return "cascade " + ",".join(str(k) for k in rng.integers(0, 30, long))
    words: list[str] = []
    lifted, depth = bool(rng.integers(2)), 0
    position = levels - 1 if lifted else 0
    words += ["start"] if lifted else []
    for _ in range(int(rng.choice([3, 10, 40]))):
        able = ["pre", "post"] + (["solve"] if position == levels - 1 else ["down"])
        able += ["up"] if depth else ["interpolate"] if lifted and position else []
        word = str(rng.choice(able))
        position += {"down": 1, "up": -1, "interpolate": -1}.get(word, 0)
        depth += {"down": 1, "up": -1}.get(word, 0)
        count = (
            f" {rng.integers(1, 20)}"
            if word in ("pre", "post", "solve") and rng.integers(2)
            else ""
        )
        words.append(word + count)
    words += depth * ["up"]
    words += (position - depth) * ["interpolate"]
    return str(rng.choice([", ", ",", " , "])).join(words)


def _call(rng: np.random.Generator, texts: tuple[str, ...]) -> str:
    text = str(rng.choice(texts))
    if rng.random() < 0.5:
        name = text.partition("(")[0]
        given = [str(v) for v in rng.choice(VALUES, int(rng.integers(0, 4)))]
        names = (
            "omega=",
            "degree=",
            "memory=",
            "rtol=",
            "iterations=",
            "history=",
            "x=",
            "",
            "",
            "",
        )
        text = f"{name}({', '.join(str(rng.choice(names)) + v for v in given)})"
    if rng.random() < 0.15:
        text = (
            str(rng.choice(["os.", "mgnet.", "mgnet.app.", "tools.fuzz.damage.", "..", "a" * 300]))
            + text
        )
    return text


def _edited(rng: np.random.Generator, text: str) -> str:
    kind = rng.choice(["number", "odd", "drop", "double", "repeat", "nest", "value", "case"])
    a, b = sorted(int(k) for k in rng.integers(0, len(text) + 1, 2))
    if kind == "number":
        spans = [found.span() for found in re.finditer(r"\d+", text)]
        if spans:
            a, b = spans[int(rng.integers(len(spans)))]
            return text[:a] + str(rng.choice(NUMBERS)) + text[b:]
    if kind == "odd":
        return text[:a] + ODD[int(rng.integers(len(ODD)))] + text[a:]
    if kind == "drop":
        return text[:a] + text[b:]
    if kind == "double":
        return text[:b] + text[a:]
    if kind == "repeat" and len(text) < 1000:
        return text * int(rng.choice([2, 10, 1000]))
    if kind == "nest" and len(text) < 10**4:
        many = int(rng.choice([1, 100, 10**4]))
        return text[:a] + many * "(" + text[a:b] + many * ")" + text[b:]
    if kind == "value":
        return text[:a] + str(rng.choice(VALUES)) + text[b:]
    return text.swapcase() if kind == "case" else text + "\n"


def _is_right(schedule: Schedule, text: str, levels: int) -> bool:
    again = parse(schedule.text, levels) if len(schedule) < 10**4 else schedule
    picture = str(schedule)
    units = schedule.work(cost_model(levels)).units if levels < 500 else 0.0
    sweeps = sum(step.count for step in schedule)
    right = again == schedule and len(schedule) <= MOST_STEPS and len(picture) < 2 * 10**6
    if sweeps <= 10**4:
        single = schedule.split()
        right &= len(single) == sweeps and single.split() == single
    if levels < 500:
        right &= math.isclose(units, _work(text, levels, schedule), rel_tol=1e-9)
    return right


def _work(text: str, levels: int, schedule: Schedule) -> float:
    """The work in `cost_model(levels)`, where one evaluation on level l costs 2^-l."""
    found = re.fullmatch(
        r"\s*(nested\b)?\s*([VFW]|K\s*(\d+))\s*\(\s*(\d+)\s*,\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)\s*",
        text,
    )
    if found is None:
        cost = {"pre": 1, "post": 1, "solve": 1, "down": 1}
        return sum(0.5**step.level * cost.get(step.action, 0) * step.count for step in schedule)
    pre, post, solves = int(found[4]), int(found[5]), int(found[6] or 1)
    kappa = int(found[3]) if found[3] else {"V": 1, "F": 2, "W": levels}[found[2]]
    kappa = min(kappa, levels)
    # From the coarsest level upwards: the work of a call with each counter.
    last = levels - 1
    calls = dict.fromkeys(range(1, kappa + 1), solves * 0.5**last)
    total = solves * 0.5**last
    for level in range(last - 1, -1, -1):
        two = level + 1 < last
        own = (pre + post + 1) * 0.5**level
        calls = {k: own + calls[k] + (calls[k - 1] if two and k > 1 else 0.0) for k in calls}
        total += calls[kappa]
    return total if found[1] else calls[kappa]


def _command(text: str, levels: int) -> bool:
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        code = main(["schedule", "--levels", str(levels), "--", text])
    told = errors.getvalue()
    if code == 0:
        return "work: " in out.getvalue() and not told and len(out.getvalue()) < 2 * 10**6
    return code == 2 and told.startswith("mgnet: ") and told.count("\n") == 1 and len(told) < 1000
