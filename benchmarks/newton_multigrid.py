"""Linear systems of Gauss-Newton for a PINN: conjugate gradients with patches over the knots.

    OMP_NUM_THREADS=1 python benchmarks/newton_multigrid.py [--seconds 2] [--rights 5]
        [--widths 2,6,1 2,16,1] [--intervals 8 16] [--parameters 4000] [--save]

u = sin(pi x) sin(2 pi y) on [-1, 1]^2 by its Poisson equation: 1500 points inside and 400 on the
boundary (weight 100), more where 4 residuals per parameter ask for it. J is that of a KAN of cubic
splines after Levenberg-Marquardt on every level from 4 intervals up to this one: 20 steps on each,
down to 3 where there are more than 2000 parameters. The systems are
(J^T J + c I) d = b, c the relative damping times the mean diagonal; b is the negative gradient and
J^T y of random y: all systems of the method are of this form. Iterations to 1e-6: median, and the
most, over the right sides. Seconds: set-up and one solve (median), all there is to do once J is
known. "points", "edges" and "patches" are the blocks of the smoother of one V-cycle over the knots,
down to 8 intervals (4 below 16). Nystroem: Frangella, Tropp and Udell, SIAM J. Matrix Anal. Appl.
44 (2023). Patches and the dense solvers come first; a solve of another method is "too slow" when it
takes longer than the given seconds and than the fastest of them or 10 s. One that has spent 20 s
gets no further right side; "of" tells how many it had.
"""

import argparse
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from mgnet.knots import KAN, KnotMultigrid, Patches
from mgnet.knots.local_jacobian import LocalJacobian, linearize_residual
from mgnet.knots.patches import GaussNewtonMatrix
from mgnet.training import NewtonKrylov, levenberg_marquardt
from mgnet.training.newton_krylov import conjugate_gradients
from mgnet.training.normal_equations import NormalEquations

WIDTHS = ("2,6,1", "2,16,1", "2,32,1", "2,6,6,1", "2,16,16,1", "2,32,32,1")
INTERVALS = (8, 16, 32, 64)
LARGER = ("2,6,1", [512, 2048])  # at the end: widths and intervals
PATIENCE = 20.0  # seconds after which a method gets no further right side
DAMPINGS = (1e-3, 1e-6)
FORMED = 1500  # parameters up to which J^T J is formed for the products
RESULT = Path(__file__).parent / "results" / "newton_multigrid.txt"

Product = Callable[[torch.Tensor], torch.Tensor]


class Row(NamedTuple):
    """Of one method for one matrix; iterations and seconds of each right side, None: too slow."""

    method: str
    setup: float
    iterations: list[int] | None
    seconds: list[float] | None

    @property
    def total(self) -> float:
        """Set-up and one solve."""
        return math.inf if self.seconds is None else self.setup + statistics.median(self.seconds)

    def __str__(self) -> str:
        if self.iterations is None:
            return f"    {self.method:<14} {'too slow':>9}"
        middle, most = statistics.median(self.iterations), max(self.iterations)
        times = f"{len(self.iterations):>3} {self.setup:>9.3f} {self.total:>9.3f}"
        return f"    {self.method:<14} {middle:>9.0f} {most:>6} {times}"


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


def matrices(
    widths: list[int], intervals: list[int]
) -> Iterator[tuple[int, torch.Tensor, LocalJacobian]]:
    """The Jacobian on each level, nested training up to it."""
    network, n = KAN(widths, 4), 4
    while n <= max(intervals, default=0):
        size = parameters(widths, n)
        problem, solver = Poisson(size), NewtonKrylov(KnotMultigrid())
        steps = 20 if size <= 2000 else max(3, 40_000 // size)
        levenberg_marquardt(problem, network, max_steps=steps, acceleration=0.0, solver=solver)
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
    name: str, prepare: Callable[[], tuple[Product, Product]], bs: list[torch.Tensor], limit: float
) -> Row:
    """A method of conjugate gradients; `prepare` gives the products with A and its inverse."""
    began = time.perf_counter()
    product, precondition = prepare()
    precondition(bs[0])  # what is set up on first use
    setup, iterations, seconds = time.perf_counter() - began, [], []
    if setup > limit:
        return Row(name, setup, None, None)

    def timed(d: torch.Tensor) -> torch.Tensor:
        if time.perf_counter() - began > limit:
            raise TimeoutError
        return product(d)

    for b in bs:
        began = time.perf_counter()
        try:
            found = conjugate_gradients(timed, b, precondition, 1e-6, 100_000)
        except TimeoutError:
            return Row(name, setup, None, None)
        if not found.converged:
            return Row(f"{name}: broke", setup, None, None)
        iterations.append(found.iterations)
        seconds.append(time.perf_counter() - began)
        if sum(seconds) > PATIENCE:
            break
    return Row(name, setup, iterations, seconds)


def direct(J: LocalJacobian, r: torch.Tensor, mu: float) -> Row:
    began = time.perf_counter()
    NormalEquations(J, r).damped(mu)(None)
    return Row("dense Cholesky", time.perf_counter() - began, [0], [0.0])


def dual(J: LocalJacobian, r: torch.Tensor, shift: float) -> Row:
    """`J^T (J J^T + shift I)^-1`, which needs b = J^T y."""
    began = time.perf_counter()
    rows = J.dense()
    matrix = rows @ rows.T
    matrix.diagonal().add_(shift)
    factor = torch.linalg.cholesky(matrix)
    torch.mv(rows.T, torch.cholesky_solve(-r.unsqueeze(1), factor).squeeze(1))
    return Row("dual Cholesky", time.perf_counter() - began, [0], [0.0])


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
        return GaussNewtonMatrix(J, shift, {n: sp.eye_array(n + 3).tocsr()}, gram)

    def none() -> tuple[Product, Product]:
        return plain().__matmul__, lambda r: r

    def jacobi() -> tuple[Product, Product]:
        M = plain()
        diagonal = torch.empty(size, dtype=torch.float64)
        for index, entries in M.blocks("point"):
            diagonal[index.flatten()] = entries.flatten()
        return M.__matmul__, lambda r: r / diagonal

    def sketched(rank: int) -> Callable[[], tuple[Product, Product]]:
        def prepare() -> tuple[Product, Product]:
            M = plain()
            return M.__matmul__, nystroem(M.__matmul__, J, shift, min(rank, size - 1))

        return prepare

    def multigrid(blocks: str) -> Callable[[], tuple[Product, Product]]:
        smoother, coarsest = Patches(blocks=blocks), min(8, n // 2)
        return lambda: KnotMultigrid(smoother, coarsest).prepare(J).shifted(shift)

    methods = {"V, patches": multigrid("patch")}
    methods |= {f"V, {kind}s": multigrid(kind) for kind in ("edge", "point")}
    methods |= {f"Nystroem {rank}": sketched(rank) for rank in (50, 200)}
    methods |= {"Jacobi": jacobi, "none": none}
    rows = []
    if size <= given.dense:
        rows.append(direct(J, r, mu))
    if J.rows <= given.dense:
        rows.append(dual(J, r, shift))
    limit = math.inf
    for name, prepare in methods.items():
        for part in J.inputs:  # each method pays for its own
            part.__dict__.pop("element_matrices", None)
            part.__dict__.pop("by_row", None)
        rows.append(iterative(name, prepare, bs, limit))
        limit = max(given.seconds, min(10.0, *(row.total for row in rows)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0, help="per solve, at least")
    parser.add_argument("--rights", type=int, default=5, help="right sides")
    parser.add_argument("--widths", nargs="+", default=list(WIDTHS))
    parser.add_argument("--intervals", nargs="+", type=int, default=list(INTERVALS))
    parser.add_argument("--parameters", type=int, default=4_000, help="at most, but for LARGER")
    parser.add_argument("--dense", type=int, default=4_000, help="rows of dense matrices, at most")
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.name}")
    given = parser.parse_args()
    lines = [
        f"Poisson PINN, cubic KANs, {given.rights} right sides, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, {platform.machine()}, PyTorch {torch.__version__}, "
        f"NumPy {np.__version__}"
    ]
    patches: dict[float, list[float]] = {mu: [] for mu in DAMPINGS}
    print(lines[0], flush=True)
    for text, intervals in [*((text, given.intervals) for text in given.widths), LARGER]:
        widths = [int(width) for width in text.split(",")]
        most = 100_000 if intervals is LARGER[1] else given.parameters
        kept = [n for n in intervals if parameters(widths, n) <= most]
        for n in [n for n in intervals if n not in kept]:
            lines.append(f"\n{widths}, {n} intervals: {parameters(widths, n)} parameters, left out")
        for n, r, J in matrices(widths, kept):
            for mu in DAMPINGS:
                rows = compare(n, r, J, mu, given)
                head = f"{widths}, {n} intervals, {J.rows} residuals, {J.shape[1]} parameters, "
                head += f"loss {0.5 * float(r @ r):.1e}, damping {mu:g}"
                columns = f"    {'':<14} {'median':>9} {'most':>6} {'of':>3}"
                fastest = min(rows, key=lambda row: row.total)
                entry = ["", head, f"{columns} {'set-up':>9} {'seconds':>9}", *map(str, rows)]
                lines += [*entry, f"    fastest: {fastest.method}"]
                print("\n".join(entry), flush=True)
                for row in rows:
                    if row.method == "V, patches" and row.iterations and text == WIDTHS[0]:
                        patches[mu].append(statistics.median(row.iterations))
                if given.save:  # as far as it is
                    RESULT.write_text("\n".join([*lines, "", target(patches)]) + "\n")
    print(target(patches))


def target(patches: dict[float, list[float]]) -> str:
    found = ", ".join(
        f"{patches[mu]} at damping {mu:g} (at most {most})"
        for mu, most in zip(DAMPINGS, (40, 110), strict=True)
    )
    return f"target, patches for [2, 6, 1], median iterations by intervals: {found}"


if __name__ == "__main__":
    main()
