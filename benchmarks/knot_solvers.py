"""Linear systems with many knots: preconditioners of conjugate gradients, and other solvers.

    OMP_NUM_THREADS=1 python benchmarks/knot_solvers.py [--seeds 5] [--rows 100000]
        [--intervals 64 256 1024 4096] [--problems bending additive pinn]
        [--cases "roughness 0"] [--save]

Three problems, all to a relative residual of 1e-8 (pinn: 1e-6), from zero:

bending    u'' + sin(20 x) at 4 points per interval (at least 1000, drawn evenly in each of them)
           and u at both ends, one edge of degree 5: a single input, which is banded.
additive   [4, 1], cubic, 1e5 rows drawn evenly, targets sum of sin(5 x_p) + noise 0.1, weight of
           the penalty `roughness` 0, 1e-8, 1e-6, 1e-5; and 1e-5 with columns correlated by 0.998.
pinn       [2, 6, 1], the Poisson equation of newton_multigrid.py, dampings 1e-3 and 1e-6, 64 and
           256 intervals; one network, a right side J^T y drawn for each seed.

Seconds are of the processor, one thread, medians over the seeds with set-up; J is given. "Jacobi"
has the diagonal, "BPX" all knot levels, "bands" each input exactly, "bands + coarse" a coarse level
of 8 intervals beside them, "V, patches" one V-cycle, which leaves a penalty out; "KnotSolver"
chooses. "sparse direct" is SuperLU of SciPy on J^T J (with several inputs up to 4200 unknowns and
for the heaviest penalty alone), "dense direct" Cholesky, up to 4200 unknowns. A method that has
taken 1 s (additive: 1.5 s, pinn: 6 s) or 3000 iterations ends there, "more than" so many; it gets
no further seed and no larger system of the same kind.

With --save the rows of this run replace those in results/knot_solvers.json, or join them.
"""

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import newton_multigrid
import numpy as np
import saved
import scipy.sparse as sp
import scipy.sparse.linalg
import torch

from mgnet.knots import KAN, InputBands, KnotBPX, KnotMultigrid, KnotSolver
from mgnet.knots.local_jacobian import linearize_residual, local_form
from mgnet.knots.spline import roughness_rows
from mgnet.training import LeastSquares
from mgnet.training.least_squares.jacobian import Jacobian, SparseJacobian, StackedJacobian
from mgnet.training.least_squares.newton_krylov import Diagonal, conjugate_gradients

LIMIT = {"bending": 1.0, "additive": 1.5, "pinn": 6.0}  # seconds
MOST = 3000
LARGEST = 4200  # unknowns: factorizations of more take gigabytes or minutes
WEIGHTS = (0.0, 1e-8, 1e-6, 1e-5)
CORRELATED = 20.0
METHODS: dict[str, Any] = {
    "plain": None,
    "Jacobi": Diagonal(),
    "BPX": KnotBPX(),
    "bands": InputBands(),
    "bands + coarse": InputBands(8),
    "V, patches": KnotMultigrid(),
    "KnotSolver": KnotSolver(),
}


class System(NamedTuple):
    """`(J^T J + shift I) d = b`, its problem in words, and the tolerance."""

    problem: str
    case: str
    intervals: int
    J: Jacobian
    b: torch.Tensor
    damping: float
    rtol: float


def penalty(kan: KAN, weight: float) -> SparseJacobian:
    """The rows of `roughness`, sparse also for few parameters."""
    blocks = []
    for u, n in zip(kan.coefficients, kan.intervals, strict=True):
        rows = roughness_rows(n, kan.degree) * weight**0.5
        blocks.append(sp.kron(sp.kron(sp.identity(u.shape[0]), rows), sp.identity(u.shape[2])))
    matrix = sp.coo_matrix(sp.block_diag(blocks))
    places = torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
    entries = torch.from_numpy(matrix.data)
    rows = torch.sparse_coo_tensor(places, entries, matrix.shape, check_invariants=True)
    return SparseJacobian(rows.coalesce())


def bending(n: int, seed: int) -> System:
    count = max(1000, 4 * n)
    generator = torch.Generator().manual_seed(seed)
    places = torch.arange(count) + torch.rand(count, generator=generator)
    x = (2.0 * places.double() / count - 1.0).unsqueeze(1)
    ends = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)

    def residual(kan: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        own = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(kan(own).sum(), own, create_graph=True)
        (second,) = torch.autograd.grad(slope.sum(), own, create_graph=True)
        return (second + torch.sin(20.0 * x)) / count**0.5, 10.0 * kan(ends)

    r, J = linearize_residual(KAN([1, 1], n, degree=5), residual)
    return System("bending", "u'' and two ends", n, J, -J.rmatvec(r), 1e-14, 1e-8)


def case_of(weight: float, correlated: bool) -> str:
    return f"roughness {weight:g}" + (", correlated" if correlated else "")


def additive(n: int, seed: int, rows: int, weight: float, correlated: bool) -> System:
    generator = torch.Generator().manual_seed(seed)
    x = 2.0 * torch.rand(rows, 4, generator=generator).double() - 1.0
    if correlated:
        x = (x + CORRELATED * x[:, :1]) / (1.0 + CORRELATED)
    noise = torch.randn(rows, 1, generator=generator).double()
    y = torch.sin(5.0 * x).sum(1, keepdim=True) + 0.1 * noise
    kan = KAN([4, 1], n)
    problem = LeastSquares(kan, (x, y))
    u = problem.start()
    r, made = problem.linearize(u)
    J: Any = made
    b = -J.rmatvec(r)
    if weight:
        R = penalty(kan, weight)
        b = b - R.rmatvec(R.matvec(u.double()))
        J = StackedJacobian((*J.parts, (1.0, R)))
    case = case_of(weight, correlated)
    return System("additive", case, n, J, b, 1e-9, 1e-8)


def pinn(sizes: list[int], seeds: int) -> Iterator[System]:
    for n, _, J in newton_multigrid.matrices([2, 6, 1], sizes, 700):
        for damping, seed in itertools.product((1e-3, 1e-6), range(seeds)):
            generator = torch.Generator().manual_seed(seed)
            y = torch.randn(J.rows, generator=generator, dtype=torch.float64)
            case = f"damping {damping:g}"
            yield System("pinn", case, n, J, J.rmatvec(y), damping, 1e-6)


def systems(given: argparse.Namespace) -> Iterator[System]:
    """Of all seeds, sizes growing."""
    if "bending" in given.problems:
        for n, seed in itertools.product(given.intervals, range(given.seeds)):
            yield bending(n, seed)
    if "additive" in given.problems:
        kinds = [(weight, False) for weight in WEIGHTS] + [(WEIGHTS[-1], True)]
        kinds = [kind for kind in kinds if not given.cases or case_of(*kind) in given.cases]
        for weight, correlated in kinds:
            for n, seed in itertools.product(given.intervals, range(given.seeds)):
                yield additive(n, seed, given.rows, weight, correlated)
    if "pinn" in given.problems:
        yield from pinn([n for n in (64, 256) if n in given.intervals], given.seeds)


def scale_of(J: Jacobian) -> float:
    """The mean of the diagonal of `J^T J` without a penalty."""
    return InputBands().prepare(J).scale


def krylov(method: Any, system: System, scale: float) -> saved.Row:
    """Iterations, seconds and whether it got there."""
    J, shift, began = system.J, system.damping * scale, time.process_time()

    def timed(product: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        def watched(d: torch.Tensor) -> torch.Tensor:
            if time.process_time() - began > LIMIT[system.problem]:
                return math.nan * d  # ends as a breakdown does
            return product(d)

        return watched

    if isinstance(method, KnotSolver):
        found = method.prepare(J).solver(shift)(system.b, system.rtol, MOST)
    else:
        if method is None:
            product, inverse = Diagonal().prepare(J).shifted(shift)[0], torch.clone
        else:
            product, inverse = method.prepare(J).shifted(shift)
        found = conjugate_gradients(timed(product), system.b, inverse, system.rtol, MOST)
    seconds = time.process_time() - began
    return {"iterations": found.iterations, "seconds": seconds, "done": found.converged}


def sparse_matrix(J: Jacobian) -> Any:
    """J^T J with the entries that do not vanish."""
    if isinstance(J, StackedJacobian):
        return sum(w**2 * sparse_matrix(part) for w, part in J.parts)
    if isinstance(J, SparseJacobian):
        rows = J.matrix.coalesce()
        rows = sp.csr_matrix((rows.values().numpy(), rows.indices().numpy()), shape=J.shape)
    else:
        local: Any = local_form(J)
        columns = np.concatenate(
            [
                part.place + part.outputs * local.first[:, p : p + 1] + np.arange(part.width)
                for p, part in enumerate(local.inputs)
            ],
            1,
        )
        ends = np.arange(0, columns.size + 1, columns.shape[1])
        entries = local.values.ravel(), columns.ravel(), ends
        rows = sp.csr_matrix(entries, shape=local.shape)
    return rows.T @ rows


def direct(name: str, system: System, scale: float) -> saved.Row | None:
    """None where it would take too much."""
    size, shift, began = system.J.shape[1], system.damping * scale, time.process_time()
    if name == "sparse direct":
        dear = size > LARGEST or "1e-05" not in system.case
        if dear and system.problem != "bending":
            return None
        matrix = sp.csc_matrix(sparse_matrix(system.J)) + shift * sp.identity(size, format="csc")
        scipy.sparse.linalg.splu(matrix).solve(system.b.numpy())
    else:
        if size > LARGEST:
            return None
        gram = system.J.gram()
        gram.diagonal().add_(shift)
        factor, _ = torch.linalg.cholesky_ex(gram)
        torch.cholesky_solve(system.b.unsqueeze(1), factor)
    return {"iterations": 0, "seconds": time.process_time() - began, "done": True}


def warm_up() -> None:
    """Compile the loops, which is not part of a solve."""
    for system in (bending(16, 0), additive(16, 0, 500, 1e-5, False)):
        for method in METHODS.values():
            krylov(method, system, scale_of(system.J))


def run(own: Iterator[System]) -> list[saved.Row]:
    """A row per method and size, over the seeds."""
    runs: dict[tuple[Any, ...], list[saved.Row]] = {}
    gone: set[tuple[str, str, str]] = set()  # what was too slow
    for system in own:
        scale = scale_of(system.J)
        for name in [*METHODS, "sparse direct", "dense direct"]:
            kind = name, system.problem, system.case
            if kind in gone:
                continue
            if name in METHODS:
                row: saved.Row | None = krylov(METHODS[name], system, scale)
            else:
                row = direct(name, system, scale)
            if row is None:
                continue
            key = system.problem, system.case, system.intervals, system.J.shape[1], name
            runs.setdefault(key, []).append(row)
            if not row["done"] or row["seconds"] > LIMIT[system.problem]:
                gone.add(kind)
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return [summary(key, same) for key, same in runs.items()]


def summary(key: tuple[Any, ...], own: list[saved.Row]) -> saved.Row:
    names = "problem", "case", "intervals", "parameters", "method"
    row: saved.Row = dict(zip(names, key, strict=True))
    counts, seconds = [run["iterations"] for run in own], [run["seconds"] for run in own]
    return row | {
        "seeds": len(own),
        "done": all(run["done"] for run in own),
        "iterations_median": statistics.median(counts),
        "iterations_least": min(counts),
        "iterations_largest": max(counts),
        "seconds_median": round(statistics.median(seconds), 4),
        "seconds_least": round(min(seconds), 4),
        "seconds_largest": round(max(seconds), 4),
    }


def find(rows: list[saved.Row], **keys: Any) -> saved.Row | None:
    return next((row for row in rows if all(row[k] == v for k, v in keys.items())), None)


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    made = []
    own = [r for r in rows if r["problem"] == "bending" and r["method"] == "BPX"]
    if own:
        told = ", ".join(f"{row['iterations_largest']}" for row in own)
        met = all(row["done"] and row["iterations_largest"] <= 150 for row in own)
        name = "u'' least squares, BPX: largest number of iterations at each size"
        made.append(saved.target(name, "at most 150", told, met))
    hardest = {"problem": "additive", "case": "roughness 1e-05"}
    for method in ("BPX", "bands", "KnotSolver"):
        ours = [r for r in rows if {**hardest, "method": method}.items() <= r.items()]
        if ours:
            told = ", ".join(f"{row['iterations_largest']}" for row in ours)
            counts = [row["iterations_largest"] for row in ours]
            name = f"additive, roughness 1e-5, {method}: largest number of iterations at each size"
            met = max(counts) <= 2 * min(counts)
            made.append(saved.target(name, "grow at most twofold", told, met))
        for rival, n in (("Jacobi", 256), ("sparse direct", 1024)):
            first = find(rows, **hardest, intervals=n, method=method)
            other = find(rows, **hardest, intervals=n, method=rival)
            if first and other:
                ratio = other["seconds_median"] / first["seconds_median"]
                more = "" if other["done"] else "more than "
                name = f"the same, {method}: seconds of {rival} at n = {n} over its own"
                made.append(saved.target(name, "at least 5", f"{more}{ratio:.1f}", ratio >= 5.0))
    return made


def table(rows: list[saved.Row]) -> str:
    """Rows of one problem and case."""
    lines = ["{problem}, {case}".format(**rows[0])]
    head = "    n     method          iterations (least, most)    seconds (least, most)"
    lines.append(f"{head}    seeds")
    for row in rows:
        more = "" if row["done"] else "> "
        count = f"{more}{row['iterations_median']:g}"
        span = f"({row['iterations_least']}, {row['iterations_largest']})"
        seconds = f"({row['seconds_least']:.3f}, {row['seconds_largest']:.3f})"
        lines.append(
            f"    {row['intervals']:<5} {row['method']:<15} {count:>10} {span:<16} "
            f"{more + format(row['seconds_median'], '.3f'):>9} {seconds:<16} {row['seeds']:>3}"
        )
    return "\n".join(lines)


def place(row: saved.Row) -> tuple[int, str, int]:
    """The title of a system in the tables."""
    return list(LIMIT).index(row["problem"]), row["case"], row["intervals"]


def joined(rows: list[saved.Row]) -> list[saved.Row]:
    """With the rows of earlier runs of other systems."""
    ran = {place(row) for row in rows}
    before = saved.read("knot_solvers") or {"rows": []}
    return sorted(rows + [row for row in before["rows"] if place(row) not in ran], key=place)


def report(rows: list[saved.Row], folder: Path | None) -> str:
    """The tables, saved where asked for."""
    rows = joined(rows) if folder else rows
    groups = itertools.groupby(rows, lambda row: (row["problem"], row["case"]))
    tables = [table(list(own)) for _, own in groups]
    goals = targets(rows)
    ends = [f"{g['name']}: {g['measured']}, target {g['target']}, met: {g['met']}" for g in goals]
    setting = "relative residual 1e-8, pinn 1e-6; processor seconds with set-up, J given; seeds: "
    setting += ", ".join(f"{name} {count}" for name, count in seeds_of(rows).items())
    text = "\n\n".join([f"{saved.heading()}\n{setting}", *tables, "\n".join(ends)])
    if folder:
        saved.save(folder, "knot_solvers", setting, rows, goals, text)
    return text


def seeds_of(rows: list[saved.Row]) -> dict[str, int]:
    """Of each problem."""
    return {
        name: max(row["seeds"] for row in rows if row["problem"] == name)
        for name in LIMIT
        if any(row["problem"] == name for row in rows)
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=100_000, help="of the additive problems")
    parser.add_argument("--intervals", nargs="+", type=int, default=[64, 256, 1024, 4096])
    problems = ["bending", "additive", "pinn"]
    parser.add_argument("--problems", nargs="+", choices=problems, default=problems)
    parser.add_argument("--cases", nargs="+", help="of the additive problems, all by default")
    saved.add_option(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warm_up()
    rows: list[saved.Row] = []
    text = ""
    for _, own in itertools.groupby(systems(given), lambda one: (one.problem, one.case)):
        rows += run(own)
        text = report(rows, given.save)
    print(text)


if __name__ == "__main__":
    main()
