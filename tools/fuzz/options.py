"""Sets of options: from a command line, from a text of the script and from a file.

Each drawn option has an expected outcome: a value, or a refusal. Then either the solver (the
layer-parallel module) has exactly the drawn values, or it is refused because one is bad.
"""

from __future__ import annotations

import io
import math
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mgnet import Anderson, Direct, GaussSeidel, Jacobi, Krylov, Schedule, gallery, parse
from mgnet.depth import (
    AdaptiveCycles,
    CyclesToTolerance,
    FixedCycles,
    LayerParallel,
    ODENet,
    Relaxation,
)
from mgnet.options import init, layer_parallel_from_options, solver_from_options
from mgnet.training import LBFGS

BAD, UNKNOWN = object(), object()
INTEGERS: dict[str, Any] = {
    **{"1": 1, "2": 2, "+3": 3},
    **dict.fromkeys(("0", "-1", "x", "", "1.5", "1e3", "٣", "1_0", "9" * 50, "9" * 5000, " "), BAD),
}
REALS: dict[str, Any] = {
    **{"0": 0.0, "1e-5": 1e-5, "0.25": 0.25, "1": 1.0, "1e-320": 1e-320, "inf": math.inf},
    **dict.fromkeys(("-1", "nan", "x", "", "1_0", "1e", "0x1p3", "-inf", "٣", "1" * 10**4), BAD),
}
SMOOTHERS: dict[str, Any] = {
    "Jacobi(0.8)": Jacobi(0.8),
    "GaussSeidel('backward')": GaussSeidel("backward"),
    'GaussSeidel("symmetric")': GaussSeidel("symmetric"),
    "Krylov('cg', 3)": Krylov("cg", 3),
    'Krylov( "cg", 2)': Krylov("cg", 2),
    "Direct": Direct(),
    "mgnet.training.LBFGS(history=3)": LBFGS(history=3),
    "Relaxation('FCF')": Relaxation("FCF"),
    **dict.fromkeys(
        ("Jacoby", "os.system('x')", "tools.fuzz.damage.x", "Jacobi(-1)", "",
         "Jacobi({[]:1})", "(" * 500, "Jacobi(nan)", "x" * 10**4, "Smoother",
         "mgnet.Smoother", "Jacobi(omega=1,omega=2)"), BAD
    ),
}  # fmt: skip
FLAGS: dict[str, Any] = {
    **dict.fromkeys(("true", "1", "yes", "on", ""), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
    **dict.fromkeys(("True", "2", "nan", "maybe"), BAD),
}
CYCLES: dict[str, Any] = {
    **{text: text for text in ("V(1,1)", "F(2,1)", "nested W(1, 0)", "K3(1,1)", "cascade 3")},
    **dict.fromkeys(("V", "V(1,1", "", "X(1,1)", "V(1,1)#", "V(9999999999,1)", "K0(1,1)"), BAD),
}  # fmt: skip
SOLVER: dict[str, dict[str, Any]] = {
    "cycle": CYCLES,
    "levels": {**INTEGERS, "4": BAD, "999999999": BAD},
    "sweeps": {**INTEGERS, "999999999": 999999999, "1000000000": BAD},
    "smoother": SMOOTHERS,
    "post_smoother": SMOOTHERS,
    "coarse_solver": SMOOTHERS,
    "acceleration": {
        **{"none": None, "Anderson": Anderson(), "Anderson(3, 0.5)": Anderson(3, 0.5)},
        **dict.fromkeys(("anderson", "", "Anderson(0)", "Anderson(nan)", "Jacobi", "None"), BAD),
    },
    "rtol": REALS,
    "atol": REALS,
    "max_cycles": INTEGERS,
    "monitor": FLAGS,
    "view": {"": "table", "ascii": "ascii", "json": "json", "xml": BAD, "ASCII": BAD},
}
LAYERS: dict[str, dict[str, Any]] = {
    "levels": {
        **{"1": 1, "2": 2},
        **{k: v for k, v in INTEGERS.items() if v is BAD},
        "9" * 18: BAD,
    },
    "coarsening": {
        **{"2": (2,), "4": (4,), "3": (3,)},
        **dict.fromkeys(("1", "0", "", "x", "2,", "2,x", ",".join("2" * 5000), "-2", "2.0"), BAD),
    },
    "forward_cycle": {
        **{text: text for text in ("V", "F", "cascade + V", "cascade + W")},
        **dict.fromkeys(("V(1,1)", "", "cascade V", "K2", "v"), BAD),
    },
    "control": {**{k: k for k in ("fixed", "tolerance", "adaptive")}, "none": BAD, "Fixed": BAD},
    "tolerance": {k: v for k, v in REALS.items() if v != 0.0},
    "forward_max_cycles": {**INTEGERS, "0": 0},
    "relaxation": {
        **{"F": ("F",), "F,FCF": ("F", "FCF"), "FCFCF": ("FCFCF",)},
        **dict.fromkeys(("", "f", "FCX", "F,", "F,F,F", "FC" * 5000), BAD),
    },
    "mode": {**{k: k for k in ("mgrit", "serial", "auto")}, "MGRIT": BAD, "": "mgrit"},
}
LAYERS["backward_cycle"] = LAYERS["forward_cycle"]
LAYERS["backward_max_cycles"] = LAYERS["forward_max_cycles"]
SWEEPS = ("pre", "post", "solve")
WRONG = (
    "cycel",
    "levels_1_cycle",
    "levels_x_sweeps",
    "levels_01_sweeps",
    "smoothers",
    "Levels_1",
    "é",
)


class Fuzzer:
    """One set of options and one object; see `Target`."""

    refusals = (ValueError, TypeError, ImportError, OSError)

    def prepare(self, folder: Path) -> None:
        """Start PETSc, where it is, and make what is solved."""
        try:
            from petsc4py import PETSc

            self.database = PETSc.Options()
        except ImportError:
            self.database = None
        self.hierarchy = gallery.poisson(7)
        torch.manual_seed(0)
        self.net = ODENet(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh()), layers=16)

    def draw(self, rng: np.random.Generator, folder: Path) -> str:
        """Options with their values, and which way they come."""
        self.layers = bool(rng.random() < 0.35)
        table = LAYERS if self.layers else SOLVER
        self.prefix = str(rng.choice(["", "train_", "a_b_", "mgnet_", "Net_"]))
        self.without = self.database is None or rng.random() < 0.03
        self.bad = 0.0 if rng.random() < 0.4 else 0.3
        sources: list[list[tuple[str, str]]] = [[], [], []]  # weaker ones first
        self.expected: dict[str, Any] = {}
        self.unknown = False
        script, file, line = sources
        for source in sources:
            for _ in range(int(rng.choice([0, 1, 3, 6]))):
                name, value, comes_to = _option(rng, table, self.bad, self.layers)
                if value.isspace() or (source is file and ('"' in value or "#" in value)):
                    continue  # no file of PETSc can hold the latter
                source.append((name, value))
                self.unknown |= comes_to is UNKNOWN
                if comes_to is not UNKNOWN:
                    self.expected[name] = comes_to
        self.words = ["x", "--own", "3"]
        if file:
            path = folder / "some options"
            path.write_text("# some\n" + "\n".join(self._line(*pair) for pair in file), "utf-8")
            self.words += ["-options_file", str(path)]
        for name, value in line:
            self.words += [
                f"-{self.prefix}mgnet_{name}",
                *([value] if value or rng.integers(2) else []),
            ]
        self.script = " ".join(
            f"-{self.prefix}mgnet_{name} {shlex.quote(value)}" for name, value in script
        )
        drawn = f"{'layers' if self.layers else 'solver'} {self.words!r:.600}"
        return f"{drawn}, script {self.script!r:.300}, file {file!r:.300}"

    def _line(self, name: str, value: str) -> str:
        quoted = f'"{value}"' if not value or " " in value else value
        return f"-{self.prefix}mgnet_{name} {quoted if value else ''}"

    def use(self, folder: Path) -> bool:
        """Whether the object has the values, or is refused for a bad one."""
        before = set() if self.database is None else set(self.database.getAll())
        held = {k: sys.modules.get(k) for k in ("petsc4py", "petsc4py.PETSc")}
        try:
            if self.without:
                sys.modules.update({"petsc4py": None, "petsc4py.PETSc": None})  # type: ignore
            return self._made()
        finally:
            if self.without:
                sys.modules.update({k: v for k, v in held.items() if v is not None})
            if self.database is not None:
                for name in set(self.database.getAll()) - before:
                    self.database.delValue(name)

    def _made(self) -> bool:
        _leave_unread(self.expected, self.layers)
        bad = self.unknown or any(value is BAD for value in self.expected.values())
        given = bool(self.script) or len(self.words) > 3
        try:
            with redirect_stdout(io.StringIO()):
                assert init(self.words, self.script) == ["x", "--own", "3"]
                if self.layers:
                    made = layer_parallel_from_options(self.net, prefix=self.prefix)
                    right = _same_layers(made, self.net, self.expected)
                else:
                    solver = solver_from_options(self.hierarchy, prefix=self.prefix)
                    right = _same_solver(solver, self.hierarchy, self.expected)
        except self.refusals as refusal:
            if bad or (self.without and given) or _contradict(self.expected, self.layers):
                raise
            raise AssertionError(f"refused without a reason: {refusal}") from refusal
        return right and not bad


def _option(
    rng: np.random.Generator, table: dict[str, dict[str, Any]], bad: float, layers: bool
) -> tuple[str, str, Any]:
    """A name, a value and what it comes to."""
    name = str(rng.choice(list(table)))
    values = table[name]
    of_kind = [v for v in values if (values[v] is BAD) == (rng.random() < bad)] or list(values)
    value = of_kind[int(rng.integers(len(of_kind)))]
    if rng.random() < bad / 6:
        return str(rng.choice(WRONG)), value, UNKNOWN
    if name in ("sweeps", "smoother", "post_smoother") and not layers and rng.random() < 0.4:
        level = int(rng.choice([0, 1, 2, 3, 999999999], p=[0.35, 0.3, 0.25, 0.05, 0.05]))
        return f"levels_{level}_{name}", value, values[value]
    return name, value, values[value]


def _leave_unread(expected: dict[str, Any], layers: bool) -> None:
    """Take out what is not for the coarsest level, or gives way there; a warning names it."""
    levels = expected.get("levels", 3)
    if layers or levels is BAD:
        return
    expected.pop(f"levels_{levels - 1}_post_smoother", None)
    if expected.get("coarse_solver", BAD) is not BAD:
        expected.pop(f"levels_{levels - 1}_smoother", None)
    if levels == 1:
        for name in ("smoother", "post_smoother"):
            if expected.get(name) is not BAD:
                expected.pop(name, None)


def _contradict(expected: dict[str, Any], layers: bool) -> bool:
    """Whether values that are good do not go together."""
    if layers:
        cycles = [expected.get(f"{way}_max_cycles", 1) for way in ("forward", "backward")]
        return expected.get("control") == "tolerance" and 0 in cycles
    levels = expected.get("levels", 3)
    named = [int(name.split("_")[1]) for name in expected if name.startswith("levels_")]
    return any(level >= levels for level in named)


def _same_solver(solver: Any, hierarchy: Any, given: dict[str, Any]) -> bool:
    levels = given.get("levels", 3)
    schedule = parse(given.get("cycle", "V(1,1)"), levels)
    steps = []
    for step in schedule:
        count = given.get(f"levels_{step.level}_sweeps")
        if step.action in ("pre", "post"):
            count = count or given.get("sweeps")
        steps.append(step._replace(count=count if count and step.action in SWEEPS else step.count))
    everywhere, after = given.get("smoother"), given.get("post_smoother")
    parts = []
    for level in range(levels - 1):
        before = given.get(f"levels_{level}_smoother", everywhere)
        parts.append(
            (before or hierarchy[level].smoother, given.get(f"levels_{level}_post_smoother", after))
        )
    coarsest = given.get("coarse_solver") or given.get(f"levels_{levels - 1}_smoother")
    parts.append((coarsest or Direct(), None))
    return (
        solver.schedule == Schedule(steps)
        and [(level.smoother, level.post_smoother) for level in solver.hierarchy] == parts
        and solver.rtol == given.get("rtol", 1e-8)
        and solver.atol == given.get("atol", 0.0)
        and solver.max_cycles == given.get("max_cycles", 50)
        and solver.acceleration == given.get("acceleration")
        and (solver.monitor is not None) == given.get("monitor", False)
    )


def _same_layers(made: LayerParallel, net: ODENet, given: dict[str, Any]) -> bool:
    tolerance, kind = given.get("tolerance", 0.1), given.get("control", "fixed")
    forward, backward = given.get("forward_max_cycles"), given.get("backward_max_cycles")
    control: Any
    if kind == "tolerance":
        most = 20 if forward is None else forward
        control = CyclesToTolerance(
            tolerance, None, max(most, most if backward is None else backward)
        )
    elif kind == "adaptive":
        counts = [1 if count is None else count for count in (forward, backward)]
        control = AdaptiveCycles(counts[0], counts[1], tolerance)
    else:
        control = FixedCycles(1 if forward is None else forward, backward, tolerance)
    (factor,) = given.get("coarsening", (4,))
    byhand = LayerParallel(
        net,
        given.get("levels", 2),
        factor,
        given.get("forward_cycle", "cascade + V"),
        given.get("backward_cycle", "cascade + V"),
        control,
        relaxation=given.get("relaxation", ("F", "FCF")),
        mode=given.get("mode", "mgrit"),
    )
    return made.settings == byhand.settings and made.control == control
