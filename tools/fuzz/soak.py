"""Long runs: thousands of solves and fits in one process, and what grows meanwhile.

`python -m tools.fuzz soak NAME --count N`, from the root of the repository; NAME is one of `TASKS`.
After the first tenth, what is measured must stay: memory to 5 %, files, threads and child
processes exactly, and the objects that Python tracks to a few dozen, whatever N is. The exit code
is 1 if not.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import linecache
import os
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tools.fuzz import positive

__all__ = ["TASKS", "Sample", "grown", "sample", "soak"]

Step = Callable[[int], None]
MEMORY = 0.05  # that the resident memory may grow, a fraction
OBJECTS = 100  # that may be added in a whole run
SAMPLES = 20
KINDS = 12  # steps after which every kind was there once
EXACT = "files", "threads", "children", "sources", "registries"


class Sample(NamedTuple):
    """What a process holds at one time.

    Attributes
    ----------
    megabytes : float
        Resident, after a collection and after free pages were given back.
    objects : int
        That Python's collector tracks.
    files, threads, children : int
        Open descriptors; threads of the operating system; child processes.
    sources : int
        Files that `linecache` keeps.
    registries : int
        Warnings that modules remember.
    compiled : int
        Signatures that numba and torch keep: versions of compiled loops, entries of torch's
        registry of operators.
    """

    megabytes: float
    objects: int
    files: int
    threads: int
    children: int
    sources: int
    registries: int
    compiled: int


def sample() -> Sample:
    """Measure, after a full collection."""
    for _ in range(3):
        gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)
    status = Path("/proc/self/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0]) / 1024
    tasks = Path("/proc/self/task")
    children = sum(len((task / "children").read_text().split()) for task in tasks.iterdir())
    modules = [module for module in list(sys.modules.values()) if module is not None]
    known = sum(len(getattr(m, "__dict__", {}).get("__warningregistry__") or ()) for m in modules)
    return Sample(
        resident,
        len(gc.get_objects()),
        len(os.listdir("/proc/self/fd")),
        len(list(tasks.iterdir())),
        children,
        len(linecache.cache),
        known,
        _compiled(),
    )


def _compiled() -> int:
    count = 0
    if "numba" in sys.modules:
        from numba.core.dispatcher import Dispatcher

        loops = [each for each in gc.get_objects() if isinstance(each, Dispatcher)]
        count += sum(len(loop.overloads) for loop in loops)
    if "torch" in sys.modules:
        import torch

        count += len(torch._C._dispatch_get_all_op_names())
    return count


def grown(first: Sample, last: Sample) -> list[str]:
    """What grew too much, in words; empty for a flat run."""
    found = []
    if last.megabytes > (1.0 + MEMORY) * first.megabytes:
        found.append(f"memory from {first.megabytes:.0f} to {last.megabytes:.0f} MB")
    if last.objects > first.objects + OBJECTS:
        found.append(f"{last.objects - first.objects} objects more")
    for name in (*EXACT, "compiled"):
        before, after = getattr(first, name), getattr(last, name)
        if after > before:
            found.append(f"{name} from {before} to {after}")
    return found


def soak(
    step: Step, count: int, report: Callable[[int, Sample], None] | None = None
) -> list[Sample]:
    """The samples of a run of `count` steps: after the first tenth, and at equal distances.

    A short run has two.
    """
    first = max(count // 10, min(count // 2, KINDS))
    parts = SAMPLES if count >= 10 * SAMPLES else 1
    places = {first + round(k * (count - first) / parts) for k in range(parts + 1)}
    samples: list[Sample] = []
    for number in range(count + 1):
        if number in places:
            if not samples:
                sample()  # imports its own modules, which is not growth
            samples.append(sample())
            if report is not None:
                report(number, samples[-1])
        if number < count:
            step(number)
    return samples


def _solves(folder: Path) -> Step:
    """A fresh hierarchy and solver each time, of several smoothers, schedules and problems."""
    from mgnet import Anderson, Chebyshev, GaussSeidel, Jacobi, Krylov, Solver, gallery

    smoothers = Jacobi(), GaussSeidel(), Chebyshev()

    def step(number: int) -> None:
        smoother = smoothers[number % 3]
        shape = (15,) if number % 2 else (15, 15)
        if number % 5 == 4:
            hierarchy = gallery.reaction(shape, smoother=smoother)
            f = np.full(int(np.prod(shape)), 16.0**-2)
        else:
            coarse = Krylov("cg") if number % 7 == 6 else None
            hierarchy = gallery.poisson(shape, smoother=smoother, coarse_solver=coarse)
            f = gallery.sine(shape)[1]
        text = ("V(1,1)", "F(1,1)", "W(2,1)")[number % 4 % 3]
        acceleration = Anderson() if number % 6 == 5 else None
        solution = Solver(hierarchy, text, max_cycles=8, acceleration=acceleration).solve(f)
        if number % 50 == 0:
            assert str(solution) and solution.explain()

    return step


def _kept(folder: Path) -> Step:
    """One solver for all right-hand sides."""
    from mgnet import GaussSeidel, Solver, gallery

    solver = Solver(gallery.poisson((15, 15), smoother=GaussSeidel()))
    rng = np.random.default_rng(0)

    def step(number: int) -> None:
        solver.solve(rng.standard_normal(225))

    return step


def _ksp(folder: Path) -> Step:
    """KSPs as smoothers and coarse solvers: hierarchies of their own, and one for many solves."""
    from mgnet import Solver, gallery
    from mgnet.petsc import KSPSmoother

    def solver() -> Solver:
        relax = {"ksp_type": "richardson", "pc_type": "sor", "ksp_max_it": 1}
        lu = KSPSmoother("coarse_", {"ksp_type": "preonly", "pc_type": "lu"})
        smoother = KSPSmoother("relax_", relax)
        hierarchy = gallery.poisson((7, 7), smoother=smoother, coarse_solver=lu)
        return Solver(hierarchy, max_cycles=5)

    kept, f = solver(), gallery.sine((7, 7))[1]

    def step(number: int) -> None:
        (kept if number % 2 else solver()).solve(f)

    return step


def _fits(folder: Path) -> Step:
    """Small regressions and classifications, with every optimizer, and predictions."""
    import pickle

    from mgnet.estimators import KANClassifier, KANRegressor

    def step(number: int) -> None:
        rng = np.random.default_rng(number)
        x = rng.uniform(-1.0, 1.0, (40 + number % 3, 2))
        y = np.sin(3.0 * x[:, 0]) + x[:, 1]
        options: dict[str, Any] = {"hidden": 2, "levels": 2, "intervals": 2, "max_iter": 6}
        if number % 3 == 2:
            model = KANClassifier(**options).fit(x, y > 0.0)
        else:
            name = ("lm", "lbfgs", "adam")[number // 3 % 3]
            weights = rng.uniform(0.5, 1.0, len(x)) if number % 2 else None
            model = KANRegressor(**options, optimizer=name).fit(x, y, weights)
        pickle.loads(pickle.dumps(model)).predict(x)

    return step


def _training(folder: Path) -> Step:
    """Cascades of three optimizers that save checkpoints, and go on from them."""
    import torch

    from mgnet import cascade, run
    from mgnet.checkpoint import Checkpoint, Checkpoints
    from mgnet.knots import KAN, knot_hierarchy
    from mgnet.training import LBFGS, LeastSquares, LevenbergMarquardt, TorchOptimizer, train

    smoothers = LevenbergMarquardt(), LBFGS(), TorchOptimizer(torch.optim.Adam, {"lr": 1e-2})
    x = torch.linspace(-1.0, 1.0, 50, dtype=torch.float64).unsqueeze(1)

    def step(number: int) -> None:
        kan = KAN([1, 2, 1], intervals=2)
        problem = LeastSquares(kan, (x, torch.sin(8.0 * x)))
        hierarchy = knot_hierarchy(kan, problem, 2, smoothers[number % 3])
        u = hierarchy[0].operator.start()
        if number % 4 == 3:
            train(hierarchy, u, max_cycles=4)
            return
        checkpoints = Checkpoints(folder / "run", hierarchy, every=2)
        schedule = cascade([3, 3])
        run(schedule, hierarchy, u, None, record=checkpoints)
        saved = Checkpoint.load(folder / "run")
        saved.network()(x)
        if number % 4 == 2:
            run(schedule, hierarchy, None, None, resume=saved.resume_on(schedule, hierarchy))

    return step


TASKS: dict[str, Callable[[Path], Step]] = {
    "solves": _solves,
    "kept": _kept,
    "ksp": _ksp,
    "fits": _fits,
    "training": _training,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for, and print a line for each task."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz soak", description=__doc__)
    parser.add_argument("tasks", choices=TASKS, nargs="+", help="one after another")
    parser.add_argument("--count", type=positive, default=1000, help="steps, a positive integer")
    parser.add_argument("--show", action="store_true", help="print every sample")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")

    def show(number: int, found: Sample) -> None:
        print(f"{number}: {found}", flush=True)

    grew = False
    for task in given.tasks:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            samples = soak(TASKS[task](Path(folder)), given.count, show if given.show else None)
        first, last = samples[0], samples[-1]
        faults = grown(first, last)
        grew |= bool(faults)
        share = 100.0 * (last.megabytes / first.megabytes - 1.0)
        print(
            f"{task}: {given.count} steps in {time.perf_counter() - began:.0f} s; memory "
            f"{first.megabytes:.1f} to {last.megabytes:.1f} MB ({share:+.1f} %), objects "
            f"{last.objects - first.objects:+d}, files {last.files}, threads {last.threads} "
            f"({threading.active_count()} of Python), children {last.children}, sources "
            f"{last.sources - first.sources:+d}, registries "
            f"{last.registries - first.registries:+d}, "
            f"compiled {last.compiled - first.compiled:+d}: {'; '.join(faults) or 'flat'}",
            flush=True,
        )
    return grew


if __name__ == "__main__":
    sys.exit(main())
