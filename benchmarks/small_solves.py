"""Small solves: time per cycle of `Solver` beside PyAMG, and beside an earlier commit of mgnet.

    OMP_NUM_THREADS=1 python benchmarks/small_solves.py [points per direction ...] [--save]

On 15 x 15 unknowns a cycle is Python, on 1023 x 1023 it is memory. `Solver` with V(1,1) and
Gauss-Seidel and PyAMG's `solve` do ten cycles each on one and the same hierarchy: the levels of
`gallery.poisson`, given to PyAMG and taken back by `Hierarchy.from_pyamg`. Both take a residual
norm after every cycle. "gallery" is the hierarchy as `gallery.poisson` makes it.

    git worktree add ../earlier cb918c4
    OMP_NUM_THREADS=1 python benchmarks/small_solves.py --base ../earlier --save

also measures the mgnet that lies in a folder, in a process of its own. All take turns, set-up is
excluded; a turn is the median of several solves, a time the median of the turns, a ratio the median
of the ratios within the turns. Seconds are those of the processor: on a busy machine the clock
favors solves that are shorter than a time slice. "fast" is the extra of that name: compiled loops
by numba.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyamg
import saved

from mgnet import GaussSeidel, Hierarchy, Solver, gallery, kernels

CYCLES, SIZES = 10, [15, 31, 63, 127, 255, 1023]
HERE = Path(__file__).resolve()
Solve = Callable[[], float]  # returns the last residual norm


def pyamg_solver(n: int) -> Any:
    levels = []
    for level in gallery.poisson((n, n)):
        part: Any = pyamg.multilevel.MultilevelSolver.Level()
        part.A = level.matrix
        transfer: Any = level.transfer
        if transfer is not None:
            part.P, part.R = transfer.P, transfer.P.T.tocsr()
            part.presmoother = part.postsmoother = pyamg.relaxation.relaxation.gauss_seidel
        levels.append(part)
    return pyamg.multilevel.MultilevelSolver(levels, coarse_solver="pinv")


def prepared(method: str, n: int, fast: bool) -> Solve:
    """A solve whose set-up is done."""
    f, theirs = gallery.sine((n, n))[1], pyamg_solver(n)
    if method == "PyAMG":

        def solve_theirs() -> float:
            norms: list[float] = []
            theirs.solve(f, tol=1e-300, maxiter=CYCLES, residuals=norms)
            return norms[-1]

        return solve_theirs
    kernels.available = fast
    if method == "gallery":
        hierarchy = gallery.poisson((n, n), smoother=GaussSeidel())
    else:
        hierarchy = Hierarchy.from_pyamg(theirs, GaussSeidel())
    solver = Solver(hierarchy, "V(1,1)", rtol=0.0, max_cycles=CYCLES)
    memory = solver.solve(f).memory

    def solve() -> float:
        kernels.available = fast
        return solver.solve(f, memory=memory).residual_norms[-1]

    return solve


def turn(solve: Solve, least: float = 0.02) -> tuple[float, float]:
    """Seconds per cycle, the median of at least three solves; the residual norm."""
    seconds: list[float] = []
    residual = 0.0
    while sum(seconds) < least or len(seconds) < 3:
        began = time.process_time()
        residual = solve()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds) / CYCLES, residual


def serve() -> None:
    """Take turns as lines "method n fast" on the standard input ask for them."""
    solves: dict[str, Solve] = {}
    for line in sys.stdin:
        if line not in solves:
            method, n, fast = line.split()
            solves = {k: v for k, v in solves.items() if k.split()[1:] == [n, fast]}
            solves[line] = prepared(method, int(n), fast == "True")
            solves[line]()
        print(*turn(solves[line]), flush=True)


class Build:
    """A process with the mgnet of one folder."""

    def __init__(self, folder: Path):
        environment = os.environ | {"PYTHONPATH": str(folder)}
        command = [sys.executable, str(HERE), "--serve"]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, cwd=folder, **pipes)

    def turn(self, method: str, n: int, fast: bool) -> tuple[float, float]:
        asked: Any = self.process.stdin
        answer: Any = self.process.stdout
        print(method, n, fast, file=asked, flush=True)
        seconds, residual = answer.readline().split()
        return float(seconds), float(residual)

    def end(self) -> None:
        self.process.communicate()


def case(builds: dict[str, Build], n: int, fast: bool, rounds: int) -> list[saved.Row]:
    """The rows of one size; a ratio is that of its time to mgnet's on the same hierarchy."""
    asked = [("this", "gallery"), ("this", "from_pyamg"), ("this", "PyAMG")]
    asked += [("earlier", "gallery"), ("earlier", "from_pyamg")] * ("earlier" in builds)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in asked}
    residuals = {}
    for _ in range(rounds):
        for build, method in asked:
            seconds, residual = builds[build].turn(method, n, fast)
            times[build, method].append(seconds)
            residuals[build, method] = residual
    rows = []
    for build, method in asked:
        own = "gallery" if method == "gallery" else "from_pyamg"
        pairs = zip(times[build, method], times["this", own], strict=True)
        ratios = sorted(theirs / ours for theirs, ours in pairs)
        name = {"PyAMG": "PyAMG"}.get(method, "mgnet" if build == "this" else "mgnet, earlier")
        row: saved.Row = {"n": n, "fast": fast, "hierarchy": own, "method": name}
        row |= {"ms_median": 1e3 * statistics.median(times[build, method])}
        row |= {"ratio_median": statistics.median(ratios)}
        row |= {"ratio_least": ratios[0], "ratio_largest": ratios[-1]}
        rows.append(row | {"residual": residuals[build, method]})
    return rows


def line(rows: list[saved.Row]) -> str:
    """Printed rows of one size: times, then those of the others over mgnet's."""
    found = {(row["method"], row["hierarchy"]): row for row in rows}
    text = f"{rows[0]['n']:>5} {'with' if rows[0]['fast'] else 'without':<8}"
    for hierarchy in ("from_pyamg", "gallery"):
        text += f" {found['mgnet', hierarchy]['ms_median']:>8.3f}"
        for method in ("PyAMG", "mgnet, earlier"):
            row = found.get((method, hierarchy))
            if row is not None:
                text += f" {row['ms_median']:>8.3f} {row['ratio_median']:>5.2f}"
            elif method != "PyAMG" or hierarchy == "from_pyamg":
                text += f" {'-':>8} {'-':>5}"
    return text + f"  {found['mgnet', 'from_pyamg']['residual']:.1e}"


GOALS = {15: (1.3, 2.2), 31: (1.0, 2.2), 63: (1.0, 1.8), 127: (1.0, 1.4), 255: (1.0, None)}


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    """Times over PyAMG's, and those of the earlier mgnet if measured; with `fast`."""
    found = []
    for row in rows:
        most, least = GOALS.get(row["n"], (None, None)) if row["fast"] else (None, None)
        if row["method"] == "PyAMG" and most is not None:
            ratio = 1.0 / row["ratio_median"]
            name = f"time per cycle over PyAMG's, {row['n']}^2 unknowns"
            found.append(saved.target(name, f"at most {most}", f"{ratio:.2f}", ratio <= most))
        if (row["method"], row["hierarchy"]) == ("mgnet, earlier", "gallery") and least is not None:
            ratio = row["ratio_median"]
            name = f"times as fast as the earlier commit, {row['n']}^2 unknowns"
            found.append(saved.target(name, f"at least {least}", f"{ratio:.2f}", ratio >= least))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("n", type=int, nargs="*", default=SIZES, help="points per direction")
    parser.add_argument("--base", type=Path, metavar="PATH", help="a folder with an earlier mgnet")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    saved.add_option(parser)
    given = parser.parse_args()
    if given.serve:
        serve()
        return
    if importlib.util.find_spec("numba"):
        import numba  # noqa: F401 (its version is told)
    builds = {"this": Build(HERE.parent.parent)}
    if given.base is not None:
        builds["earlier"] = Build(given.base.resolve())
    setting = (
        f"2-D Poisson, V(1,1), Gauss-Seidel, {CYCLES} cycles, {given.rounds} alternating rounds"
    )
    lines = [
        setting,
        saved.heading(),
        "",
        f"{'milliseconds per cycle,':<14} {'PyAMG / mgnet':>22} {'earlier / mgnet':>14}"
        f" {'gallery':>8} {'earlier / mgnet':>14}",
        f"{'n':>5} {'fast':<8} {'mgnet':>8} {'PyAMG':>8} {'ratio':>5} {'earlier':>8} {'ratio':>5}"
        f" {'mgnet':>8} {'earlier':>8} {'ratio':>5}  residual",
    ]
    print("\n".join(lines), flush=True)
    rows: list[saved.Row] = []
    for fast in (True, False) if kernels.available else (False,):
        for n in given.n:
            of_case = case(builds, n, fast, given.rounds if n < 500 else min(5, given.rounds))
            rows += of_case
            lines.append(line(of_case))
            print(lines[-1], flush=True)
    for build in builds.values():
        build.end()
    if given.save:
        saved.save(given.save, "small_solves", setting, rows, targets(rows), "\n".join(lines))


if __name__ == "__main__":
    main()
