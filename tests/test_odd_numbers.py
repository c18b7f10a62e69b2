"""Law: whatever stands where a number should be, it is taken as it is, or refused in one sentence.

Every public number of the core, of plans and of layers, one at a time, with values of all kinds.
"""

import math
import random
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from mgnet import (
    ILU,
    AdditiveSchwarz,
    Anderson,
    AxisTransfer,
    Backtracking,
    BlockGaussSeidel,
    BlockJacobi,
    Chebyshev,
    Direct,
    GaussSeidel,
    Injection,
    Jacobi,
    Krylov,
    Level,
    LineRelaxation,
    MatrixTransfer,
    MultiplicativeSchwarz,
    ProgressLines,
    Solver,
    gallery,
    interpolation_matrix,
)
from mgnet.app.cost_model import cost_model
from mgnet.depth import (
    AdaptiveCycles,
    CyclesToTolerance,
    FixedCycles,
    Intervals,
    Machine,
    Relaxation,
    best_plan,
    dahlquist,
    heat,
    layer_hierarchy,
    mgrit,
    plan,
)
from mgnet.training import Sine, periodic, quasi_random, sine_network

HIERARCHY = gallery.poisson(7)
ONE = np.ones((2, 1))
ODD = {
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "zero": 0,
    "minus one": -1,
    "half": 0.5,
    "huge": 10**12,
    "30 digits": 10**30,
    "5000 digits": 10**5000,
    "-5000 digits": -(10**5000),
    "largest float": 1.7e308,
    "tiny": 5e-324,
    "true": True,
    "text": "1",
    "long text": "x" * 10**6,
    "none": None,
    "complex": 1j,
    "list": [1],
    "rows": np.ones((50, 50)),
    "int8": np.int8(3),
    "float32": np.float32(0.25),
    "fraction": Fraction(10**400, 3),
    "decimal": Decimal("0.5"),
    "type": int,
    "object": object(),
}
# Name, function, and arguments that are fine; each of them is replaced.
CASES = [
    ("Solver", lambda **k: Solver(HIERARCHY, **k), {"rtol": 1e-8, "atol": 0.0, "max_cycles": 5}),
    ("Solver", lambda **k: Solver(HIERARCHY, **k), {"seconds": 1.0}),
    ("ProgressLines", ProgressLines, {"every": 1.0}),
    ("periodic", periodic, {"domain": [(0.0, 1.0)], "dims": 0, "harmonics": 1}),
    ("low end", lambda low: periodic([(low, 1.0)], 0), {"low": 0.0}),
    ("Sine", Sine, {"frequency": 1.0}),
    ("sine_network", sine_network, {"widths": [1, 2, 1], "frequency": 1.0}),
    ("quasi_random", lambda **k: quasi_random(domain=[(0.0, 1.0)], **k),
     {"count": 5, "seed": 0, "kind": "latin"}),
    ("solve", lambda **k: Solver(HIERARCHY, **k).solve(np.ones(7)), {"rtol": 0.1, "atol": 0.0}),
    ("Jacobi", Jacobi, {"omega": 0.5}),
    ("GaussSeidel", GaussSeidel, {"direction": "forward"}),
    ("Chebyshev", Chebyshev, {"degree": 2, "lower": 0.1, "upper": 1.1, "steps": 5, "seed": 0}),
    ("kinds of Chebyshev", Chebyshev, {"kind": "fourth", "degree": 2}),
    ("degree of Chebyshev", lambda k: Chebyshev(k, kind="opt_fourth"), {"k": 2}),
    ("AdditiveSchwarz", AdditiveSchwarz, {"omega": 0.5, "weights": "none"}),
    ("MultiplicativeSchwarz", MultiplicativeSchwarz, {"omega": 0.5, "direction": "backward"}),
    ("subdomains", lambda k: MultiplicativeSchwarz([[0, k]]), {"k": 1}),
    ("ILU", ILU, {"drop_tol": 0.1, "fill_factor": 2.0}),
    ("BlockJacobi", BlockJacobi, {"sizes": 2, "omega": 0.5}),
    ("BlockGaussSeidel", BlockGaussSeidel, {"sizes": 2, "direction": "backward"}),
    ("LineRelaxation", LineRelaxation, {"axes": 0, "order": "zebra", "omega": 0.5, "offset": 0}),
    ("LineRelaxation", LineRelaxation, {"direction": "forward", "shape": (7,)}),
    ("Direct", Direct, {"method": "lu"}),
    ("Krylov", Krylov, {"method": "cg", "iterations": 3, "rtol": 0.0}),
    ("Anderson", Anderson, {"memory": 3, "damping": 1.0, "growth": 2.0, "rcond": 1e-8}),
    ("Backtracking", Backtracking, {"decrease": 0.1, "shrink": 0.5, "trials": 3}),
    ("Level", lambda **k: Level(ONE, Jacobi(), **k),
     {"size": 1, "cost": 1.0, "residual_cost": 1.0}),
    ("Injection", Injection, {"size": 7, "factor": 2}),
    ("AxisTransfer", lambda **k: AxisTransfer(ONE, **k), {"axis": 0}),
    ("interpolation_matrix", interpolation_matrix, {"coarse": 3, "factor": 2, "degree": 1}),
    ("boundary", lambda **k: interpolation_matrix(3, **k), {"boundary": "zero"}),
    ("poisson", gallery.poisson, {"shape": 7, "levels": 2}),
    ("poisson in 2-D", lambda n: gallery.poisson((n, 3)), {"n": 7}),
    ("sine", gallery.sine, {"shape": 7}),
    ("reaction", gallery.reaction, {"shape": 7, "strength": 1.0, "levels": 2}),
    ("peaks", gallery.peaks, {"samples": 20, "classes": 3}),
    ("cost_model", cost_model, {"levels": 3, "ratio": 2.0}),
    ("plan", plan, {"layers": 64, "ranks": 2, "coarsening": 4, "levels": 2}),
    ("cycles of a plan", lambda k: plan(64, cycles=(k, 1)), {"k": 1}),
    ("texts of a plan", plan, {"layers": 64, "cycle": "V", "relaxation": ("F",), "cycles": (1,)}),
    ("machine of a plan", lambda machine: plan(64, machine=machine), {"machine": Machine()}),
    ("best_plan", best_plan, {"layers": 64, "ranks": 2, "coarsest": 4, "coarsenings": (2, 4)}),
    ("factors of a best_plan", lambda k: best_plan(64, coarsenings=(k,)), {"k": 4}),
    ("Machine", Machine, {"layer_seconds": 1.0, "latency": 0.0, "bandwidth": 1.0}),
    ("Machine", Machine, {"backward_ratio": 2.0, "state_bytes": 0.0, "layer_bytes": 0.0}),
    ("FixedCycles", FixedCycles, {"cycles": 1, "backward": 2, "tolerance": 0.1}),
    ("CyclesToTolerance", CyclesToTolerance, {"tolerance": 0.1, "backward": 0.2, "max_cycles": 3}),
    ("AdaptiveCycles", AdaptiveCycles, {"forward": 1, "backward": 1, "tolerance": 0.1}),
    ("AdaptiveCycles", AdaptiveCycles, {"every": 10, "max_cycles": 3}),
    ("Intervals", Intervals, {"layers": 10, "factor": 2}),
    ("Relaxation", Relaxation, {"order": "FCF", "weight": 1.0}),
    ("dahlquist", dahlquist, {"rate": -1.0, "steps": 8, "final_time": 1.0, "theta": 1.0}),
    ("heat", heat, {"points": 3, "steps": 8, "theta": 1.0, "conductivity": 1.0}),
    ("mgrit", mgrit, {"levels": 2, "text": "V"}),
    ("layer_hierarchy", lambda **k: layer_hierarchy(Halve(), initial=np.ones(1), **k),
     {"layers": 16, "levels": 2, "coarsening": 4, "weight": 1.0}),
]  # fmt: skip


class Halve:
    """A propagator."""

    def advance(self, level, which, states):
        return 0.5 * states


def check(made):
    """Fail if a number was taken that shows up as NaN, or does not print."""
    text = str(made) if not isinstance(made, MatrixTransfer | tuple) else ""
    assert len(text) < 10**5


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "make", "fine"), CASES, ids=[name for name, *_ in CASES])
def test_odd_values(name, make, fine):
    check(make(**fine))
    values = list(ODD.items())
    random.Random(0).shuffle(values)
    for argument in fine:
        for what, value in values:
            try:
                made = make(**{**fine, argument: value})
            except (ValueError, TypeError) as refusal:
                told = str(refusal)
                # Ours names what it got; Python's own of a wrong call does not.
                assert " got " in told or " are allowed" in told, (argument, what, told)
                assert "\n" not in told and len(told) < 500, (argument, what, told)
            else:
                wrong = {"nan", "rows", "object", "complex" if argument != "rate" else ""}
                assert what not in wrong, (argument, what)
                check(made)
