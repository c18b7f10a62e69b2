"""Law: events change no bit, and count every smoothing and transfer of every level."""

import json
import subprocess
import sys

import numpy as np

from mgnet import gallery
from mgnet.options.log import logged

SCRIPT = """
import json, sys
import numpy as np
from mgnet import Solver, gallery
from mgnet.options.reader import init
from mgnet.options.solver_options import solver_from_options
init(sys.argv)
hierarchy = gallery.reaction(15, coarse_solver=None)
f = np.full(15, 1.0 / 16)
expected = Solver(hierarchy, "nested F(1,1)", max_cycles=3).solve(f)
solver = solver_from_options(hierarchy, cycle="nested F(1,1)", max_cycles=3)
solution = solver.solve(f)
from petsc4py import PETSc
counts = {}
for part in ("smooth", "down", "up"):
    counts[part] = [PETSc.Log.Event(f"mgnet {l} {part}").getPerfInfo()["count"] for l in range(4)]
same = (solution.value == expected.value).all() and solution.work == expected.work
print(json.dumps([bool(same), str(solver.hierarchy) == str(hierarchy), counts,
                  [str(entry.step) + f" {entry.step.level}" for entry in solution.record]]))
"""


def test_without_a_log_nothing_is_wrapped():
    hierarchy = gallery.poisson(7)
    assert logged(hierarchy) is hierarchy


def test_counts_of_log_view(petsc):
    command = [sys.executable, "-c", SCRIPT, "-log_view", ":/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    same, names, counts, steps = json.loads(done.stdout.splitlines()[0])
    assert same
    assert names
    smooths = [s.rsplit(" ", 1) for s in steps if s.split()[0] in ("pre", "post", "solve")]
    for level in range(4):
        # One more each: the set-up.
        assert counts["smooth"][level] == 1 + sum(int(l) == level for _, l in smooths)
    assert np.all(np.array(counts["up"][:3]) > 0)
    assert counts["down"][3] == 0
