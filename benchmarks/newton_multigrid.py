"""Linear systems of Gauss-Newton for a PINN: conjugate gradients with patches over the knots.

    OMP_NUM_THREADS=1 python benchmarks/newton_multigrid.py [--seconds 2] [--rights 5]
        [--widths 2,6,1 2,16,1] [--intervals 8 16] [--dampings 1e-3] [--dense 4000]
        [--methods "V, patches" Jacobi] [--save]

u = sin(pi x) sin(2 pi y) on [-1, 1]^2 by its Poisson equation: 1500 points inside and 400 on the
boundary (weight 100), more where 4 residuals per parameter ask for it. J is that of a KAN of cubic
splines after Levenberg-Marquardt on every level from 4 intervals up to this one: 20 steps on each,
down to 3 where there are more than 2000 parameters; levels of more than 4000 (--trained) are the
one before, refined. The systems are (J^T J + c I) d = b, c the relative damping times the mean
diagonal; b is the negative gradient and J^T y of random y: all systems of the method are of this
form. Iterations to 1e-6: median, and the most, over the right sides. Seconds (of the processor):
set-up and one solve (median), all there is to do once J is known. "points", "edges" and "patches"
are the blocks of the smoother of one V-cycle over the knots, down to 8 intervals (4 below 16).
Nystroem: Frangella, Tropp and Udell, SIAM J. Matrix Anal. Appl. 44 (2023). Patches and the dense
solvers come first; a method is "too slow" when set-up or a solve takes longer than the given
seconds and than the fastest of them or 10 s. One that has spent 20 s gets no further right side;
"of" tells how many it had. Cases that need more memory are left out, and the table shows how much.

A run of one matrix also takes the peak memory of its process, Python and PyTorch included.
With --save the rows of this run replace those in results/newton_multigrid.json, or join them.
"""

import argparse
import itertools
import math
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import saved
import scipy.sparse as sp
import torch

from mgnet.knots import KAN, KnotMultigrid, Patches
from mgnet.knots.local_jacobian import linearize_residual
from mgnet.knots.local_rows import LocalJacobian
from mgnet.knots.patches import GaussNewtonMatrix
from mgnet.training import NewtonKrylov, levenberg_marquardt
from mgnet.training.least_squares.newton_krylov import conjugate_gradients
from mgnet.training.least_squares.normal_equations import NormalEquations

WIDTHS = ("2,6,1", "2,16,1", "2,32,1", "2,6,6,1", "2,16,16,1", "2,32,32,1")
INTERVALS = (8, 16, 32, 64)
PATIENCE = 20.0  # seconds after which a method gets no further right side
DAMPINGS = (1e-3, 1e-6)
MOST = {1e-3: 40, 1e-6: 110}  # iterations with patches for [2, 6, 1], the target
FORMED = 1500  # parameters up to which J^T J is formed for the products
GIGABYTES = 0.25  # of J, at most; its making takes up to 3 times that, all levels about 4
EDGES = 1.0  # gigabytes of the blocks of the edges, at most

Product = Callable[[torch.Tensor], torch.Tensor]
Prepare = Callable[[Callable[[Product], Product]], tuple[Product, Product]]


class Row(NamedTuple):
    """A method for a matrix: iterations and seconds of each right-hand side, or why not."""

    method: str
    setup: float = 0.0
    iterations: tuple[int, ...] = ()
    seconds: tuple[float, ...] = ()
    note: str = ""

    @property
    def total(self) -> float:
        """Set-up and one solve."""
        return self.setup + statistics.median(self.seconds) if self.seconds else math.inf

    def flat(self) -> saved.Row:
        if self.note:
            return {"method": self.method, "note": self.note}
        return {
            "method": self.method,
            "iterations_median": statistics.median(self.iterations),
            "iterations_largest": max(self.iterations),
            "right_sides": len(self.iterations),
            "setup": round(self.setup, 4),
            "seconds_median": round(self.total, 4),
        }


class Poisson:
    """The residuals, with fixed points."""

    def __init__(self, parameters: int):
        generator = torch.Generator().manual_seed(1)
        factor = max(1.0, 4.0 * parameters / 1900)
        self.inside = self._draw(math.ceil(1500 * factor), generator)
        edge = self._draw(math.ceil(400 * factor), generator)
        side = torch.arange(len(edge)) % 4
        edge[side < 2, 0] = (2.0 * side - 1.0)[side < 2].double()
        edge[side > 1, 1] = (2.0 * side - 5.0)[side > 1].double()
        self.edge = edge

    def _draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        return 2.0 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 1.0

    def solution(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(math.pi * x[:, :1]) * torch.sin(2.0 * math.pi * x[:, 1:])

    def __call__(self, network: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.inside.clone().requires_grad_()
        (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
        laplacian = torch.zeros_like(x[:, :1])
        for axis in (0, 1):
            (second,) = torch.autograd.grad(slope[:, axis].sum(), x, create_graph=True)
            laplacian = laplacian + second[:, axis : axis + 1]
        source = 5.0 * math.pi**2 * self.solution(self.inside)
        edge = (network(self.edge) - self.solution(self.edge)) * (100.0 / len(self.edge)) ** 0.5
        return (laplacian + source) / len(x) ** 0.5, edge


def parameters(widths: list[int], intervals: int) -> int:
    return sum(a * b for a, b in zip(widths[:-1], widths[1:], strict=True)) * (intervals + 3)


def gigabytes(widths: list[int], intervals: int) -> float:
    """Bytes of the stored entries of J: degree + 1 per edge and residual."""
    size = parameters(widths, intervals)
    return 8e-9 * max(1900, 4 * size) * 4 * size / (intervals + 3)


def matrices(
    widths: list[int], intervals: list[int], trained: int
) -> Iterator[tuple[int, torch.Tensor, LocalJacobian]]:
    """The Jacobian on each level, nested training up to it."""
    network, n = KAN(widths, 4), 4
    while n <= max(intervals, default=0):
        size = parameters(widths, n)
        problem, solver = Poisson(size), NewtonKrylov(KnotMultigrid())
        steps = 20 if size <= 2000 else max(3, 40_000 // size)
        if size <= trained:
            levenberg_marquardt(
                problem, network, max_cycles=steps, acceleration=0.0, linear_solver=solver
            )
        if n in intervals:
            r, J = linearize_residual(network, problem)
            yield n, r, J
        network, n = network.refine(), 2 * n


def nystroem(product: Product, J: LocalJacobian, shift: float, rank: int) -> Product:
    """An approximate inverse of `J^T J + shift I`."""
    size = J.shape[1]
    generator = torch.Generator().manual_seed(2)
    test = torch.linalg.qr(torch.randn(size, rank, generator=generator, dtype=torch.float64)).Q
    image = torch.stack([product(column) - shift * column for column in test.T], 1)
    small = size**0.5 * torch.finfo(image.dtype).eps * float(image.norm())
    image = image + small * test
    gram = test.T @ image
    factor = torch.linalg.cholesky(0.5 * (gram + gram.T))
    half = torch.linalg.solve_triangular(factor.T, image, upper=True, left=False)
    U, singular, _ = torch.linalg.svd(half, full_matrices=False)
    values = (singular.square() - small).clamp_min(0.0)
    weights = (values[-1] + shift) / (values + shift) - 1.0
    return lambda r: r + U @ (weights * (U.T @ r))


def iterative(
    name: str,
    prepare: Prepare,
    bs: list[torch.Tensor],
    limit: float,
) -> Row:
    """A method of conjugate gradients; `prepare` gives the products with A and its inverse."""
    began, products = time.process_time(), 0

    def timed(product: Product) -> Product:
        def watched(d: torch.Tensor) -> torch.Tensor:
            nonlocal products
            if time.process_time() - began > limit:
                raise TimeoutError
            products += 1
            return product(d)

        return watched

    iterations, seconds = [], []
    try:
        product, precondition = prepare(timed)
        precondition(bs[0])  # what is set up on first use
        setup = time.process_time() - began
        for b in bs:
            began, products = time.process_time(), 0
            found = conjugate_gradients(timed(product), b, precondition, 1e-6, 100_000)
            if not found.converged:
                return Row(name, note="broke down")
            iterations.append(found.iterations)
            seconds.append(time.process_time() - began)
            if sum(seconds) > PATIENCE:
                break
    except TimeoutError:
        return Row(name, note=f"too slow: {products} products in {limit:.3g} s")
    return Row(name, setup, tuple(iterations), tuple(seconds))


def direct(J: LocalJacobian, r: torch.Tensor, mu: float, most: int) -> Row:
    size = J.shape[1]
    if size > most:
        return Row("dense Cholesky", note=f"left out: J^T J takes {8e-9 * size**2:.2g} GB")
    began = time.process_time()
    NormalEquations(J, r).damped(mu)(None)
    return Row("dense Cholesky", time.process_time() - began, (0,), (0.0,))


def dual(J: LocalJacobian, r: torch.Tensor, shift: float, most: int) -> Row:
    """`J^T (J J^T + shift I)^-1`, which needs b = J^T y."""
    if J.rows > most:
        return Row("dual Cholesky", note=f"left out: J J^T takes {8e-9 * J.rows**2:.2g} GB")
    began = time.process_time()
    rows = J.dense()
    matrix = rows @ rows.T
    matrix.diagonal().add_(shift)
    factor = torch.linalg.cholesky(matrix)
    torch.mv(rows.T, torch.cholesky_solve(-r.unsqueeze(1), factor).squeeze(1))
    return Row("dual Cholesky", time.process_time() - began, (0,), (0.0,))


def compare(
    n: int, r: torch.Tensor, J: LocalJacobian, mu: float, given: argparse.Namespace
) -> list[Row]:
    generator = torch.Generator().manual_seed(3)
    size, shift = J.shape[1], mu * J.mean_diagonal
    bs = [-J.rmatvec(r)]
    for _ in range(given.rights - 1):
        bs.append(J.rmatvec(torch.randn(J.rows, generator=generator, dtype=torch.float64)))

    def plain() -> GaussNewtonMatrix:
        gram = J.gram() if size <= FORMED else None
        return GaussNewtonMatrix(J, shift, [sp.eye_array(n + 3).tocsr()] * len(J.inputs), gram)

    def none(timed: Callable[[Product], Product]) -> tuple[Product, Product]:
        return plain().__matmul__, lambda r: r

    def jacobi(timed: Callable[[Product], Product]) -> tuple[Product, Product]:
        M = plain()
        diagonal = torch.empty(size, dtype=torch.float64)
        for index, entries in M.blocks("point"):
            diagonal[index.flatten()] = entries.flatten()
        return M.__matmul__, lambda r: r / diagonal

    def sketched(rank: int) -> Prepare:
        def prepare(timed: Callable[[Product], Product]) -> tuple[Product, Product]:
            product = plain().__matmul__
            return product, nystroem(timed(product), J, shift, min(rank, size - 1))

        return prepare

    def multigrid(blocks: str) -> Prepare:
        smoother, coarsest = Patches(blocks=blocks), min(8, n // 2)
        return lambda timed: KnotMultigrid(smoother, coarsest).prepare(J).shifted(shift)

    methods = {"V, patches": multigrid("patch")}
    methods |= {f"V, {kind}s": multigrid(kind) for kind in ("edge", "point")}
    methods |= {f"Nystroem {rank}": sketched(rank) for rank in (50, 200)}
    methods |= {"Jacobi": jacobi, "none": none}
    rows = [direct(J, r, mu, given.dense), dual(J, r, shift, min(4000, given.dense))]
    limit, edges = math.inf, 8e-9 * size * (n + 3)
    for name, prepare in methods.items():
        if given.methods and name not in given.methods:
            continue
        if name == "V, edges" and edges > EDGES:
            rows.append(Row(name, note=f"left out: its blocks take {edges:.2g} GB"))
            continue
        rows.append(iterative(name, prepare, bs, limit))
        limit = max(given.seconds, min(10.0, *(row.total for row in rows)))
    return rows


def table(rows: list[saved.Row]) -> str:
    """Of one matrix."""
    first = rows[0]
    lines = ["[{widths}], {intervals} intervals, {parameters} parameters".format(**first)]
    if "residuals" in first:
        head = ", {residuals} residuals, loss {loss:.1e}, damping {damping:g}"
        lines[0] += head.format(**first)
        if "peak_gigabytes" in first:
            lines[0] += f", {first['peak_gigabytes']:.2f} GB at the peak"
        columns = f"    {'':<14} {'median':>9} {'most':>6} {'of':>3}"
        lines.append(f"{columns} {'set-up':>9} {'seconds':>9}")
    for row in rows:
        entry = f"    {row['method']:<14} "
        if "note" in row:
            lines.append(entry + row["note"])
            continue
        entry += f"{row['iterations_median']:>9.0f} {row['iterations_largest']:>6} "
        entry += f"{row['right_sides']:>3} {row['setup']:>9.3f} {row['seconds_median']:>9.3f}"
        lines.append(entry)
    done = [row for row in rows if "note" not in row]
    if done:
        lines.append(f"    fastest: {min(done, key=lambda row: row['seconds_median'])['method']}")
    return "\n".join(lines)


def place(row: saved.Row) -> tuple[int, int, float]:
    """The title of the matrix in the tables."""
    return WIDTHS.index(row["widths"]), row["intervals"], -row["damping"]


def targets(rows: list[saved.Row]) -> list[saved.Row]:
    made = []
    for mu, most in MOST.items():
        found = [
            row["iterations_median"]
            for row in rows
            if (row["widths"], row["method"], row["damping"]) == (WIDTHS[0], "V, patches", mu)
            and row["intervals"] in INTERVALS
            and "note" not in row
        ]
        if found:
            measured = ", ".join(f"{count:g}" for count in found)
            name = f"patches, [2,6,1], damping {mu:g}, median iterations at 8 to 64 intervals"
            made.append(saved.target(name, f"at most {most}", measured, max(found) <= most))
    return made


def save(folder: Path, rows: list[saved.Row]) -> None:
    """The rows of this run, and those of earlier ones."""
    before = saved.read("newton_multigrid")
    known = {(place(row), row["method"]): row for row in before["rows"]} if before else {}
    known |= {(place(row), row["method"]): row for row in rows}
    merged = sorted(known.values(), key=place)
    setting = (
        "Poisson PINN, cubic KANs; conjugate gradients to 1e-6; 5 right sides or as the table says"
    )
    tables = [table(list(group)) for _, group in itertools.groupby(merged, place)]
    goals = targets(merged)
    ends = [f"{g['name']}: {g['measured']}, target {g['target']}, met: {g['met']}" for g in goals]
    text = "\n\n".join([f"{saved.heading()}\n{setting}", *tables, "\n".join(ends)])
    saved.save(folder, "newton_multigrid", setting, merged, goals, text)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0, help="per solve, at least")
    parser.add_argument("--rights", type=int, default=5, help="right sides")
    parser.add_argument("--widths", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    parser.add_argument("--intervals", nargs="+", type=int, default=list(INTERVALS))
    parser.add_argument("--dampings", nargs="+", type=float, default=list(DAMPINGS))
    parser.add_argument("--methods", nargs="+", help="iterative ones, as in the tables")
    parser.add_argument("--trained", type=int, default=4_000, help="parameters of a level, at most")
    parser.add_argument("--dense", type=int, default=4_000, help="rows of dense matrices, at most")
    saved.add_option(parser)
    given = parser.parse_args()
    rows: list[saved.Row] = []

    def add(matrix: saved.Row, made: list[saved.Row]) -> None:
        made = [matrix | row for row in made]
        print(f"\n{table(made)}", flush=True)
        rows.extend(made)
        if given.save:  # as far as it is
            save(given.save, rows)

    for text in given.widths:
        widths = [int(width) for width in text.split(",")]
        fit = [n for n in given.intervals if gigabytes(widths, n) <= GIGABYTES]
        for n in given.intervals:
            if n not in fit:
                matrix = {"widths": text, "intervals": n, "parameters": parameters(widths, n)}
                note = f"left out: J takes {gigabytes(widths, n):.2g} GB"
                add(matrix | {"damping": 0.0}, [{"method": "all", "note": note}])
        for n, r, J in matrices(widths, fit, given.trained):
            for mu in given.dampings:
                matrix = {"widths": text, "intervals": n, "parameters": J.shape[1]}
                matrix |= {"residuals": J.rows, "loss": 0.5 * float(r @ r), "damping": mu}
                found = [row.flat() for row in compare(n, r, J, mu, given)]
                if len(given.widths) == len(given.intervals) == len(given.dampings) == 1:
                    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                    matrix["peak_gigabytes"] = round(1.024e-6 * kilobytes, 3)
                add(matrix, found)


if __name__ == "__main__":
    main()
