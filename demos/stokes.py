"""Stokes flow: a saddle-point problem, smoothed by Vanka's cells and by a class of this script.

python demos/stokes.py [folder for the picture]
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from mgnet import (
    GMRES,
    AdditiveSchwarz,
    Direct,
    GaussSeidel,
    Hierarchy,
    Level,
    MatrixTransfer,
    MultiplicativeSchwarz,
    Smoother,
    interpolation_matrix,
)
from mgnet.options import init, solver_from_options

arguments = init(sys.argv)
out = Path(arguments[1] if len(arguments) > 1 else "out/stokes")
out.mkdir(parents=True, exist_ok=True)

# n x n cells of width h = 1/n. Pressures p[i, j] are at their centers, velocities u[i, j] in the
# middle of the faces between cells (i, j) and (i + 1, j), v[i, j] between (i, j) and (i, j + 1).
# Velocities on the walls are known. An unknown vector is u, v, p one after the other; all
# equations are multiplied by h^2.


def blocks(n):
    """The matrices A of -Laplacian, for both velocities, and B of -divergence."""
    wall = sp.csr_matrix(([1.0, 1.0], ([0, n - 1], [0, n - 1])), shape=(n, n))  # by reflection
    faces, cells = second_difference(n - 1), second_difference(n) + wall
    over_x, over_y = sp.kronsum(cells, faces), sp.kronsum(faces, cells)
    one, difference = sp.identity(n), (sp.eye(n, n - 1) - sp.eye(n, n - 1, k=-1)) / n
    A = sp.block_diag([over_x, over_y], format="csr")
    return A, -sp.hstack([sp.kron(difference, one), sp.kron(one, difference)], format="csr")


def second_difference(points):
    return 2.0 * sp.identity(points) - sp.eye(points, k=1) - sp.eye(points, k=-1)


def saddle_point(A, B) -> Any:
    return sp.bmat([[A, B.T], [B, None]], format="csr")


def interpolation(n):
    """From n/2 x n/2 cells: velocities linearly, zero at the walls, and pressures constantly."""
    half = sp.identity(n // 2)
    twice = sp.kron(half, [[1.0], [1.0]])
    beyond = sp.kron(sp.eye(n // 2, k=-1), [[1.0], [0.0]])
    beyond += sp.kron(sp.eye(n // 2, k=1), [[0.0], [1.0]])
    wall = sp.csr_matrix(([1.0, 1.0], ([0, n - 1], [0, n // 2 - 1])), shape=twice.shape)
    cells, faces = 0.75 * twice + 0.25 * (beyond - wall), interpolation_matrix(n // 2 - 1)
    parts = sp.kron(faces, cells), sp.kron(cells, faces), sp.kron(twice, twice)
    return sp.block_diag(parts, format="csr")


def vanka_cells(n):
    """For each cell its unknowns: the velocities of the faces that are not walls, and p."""
    B = blocks(n)[1]
    velocities = np.split(B.indices, B.indptr[1:-1])
    return [np.append(own, B.shape[1] + cell) for cell, own in enumerate(velocities)]


@dataclass(frozen=True, eq=False)
class Distributive(Smoother):
    """Gauss-Seidel for velocities, then for a potential q that corrects the divergence.

    Velocities change by the gradient of q and pressures by its Laplacian, so that away from the
    walls the momentum equation is not affected. Source: Brandt and Dinar (1979).
    """

    A: Any
    B: Any
    direction: str = "forward"

    def start(self, level, u):
        point = GaussSeidel(self.direction)  # smoothers are parts of other smoothers
        inner = Level(self.A, point), Level(sp.csr_matrix(self.B @ self.B.T), point)
        return [(part, point.start(part, np.zeros(part.unknowns))) for part in inner]

    def smooth(self, level, u, f, sweeps, memory):
        def swept(part, r):
            inner, held = part
            return inner.smoother.smooth(inner, np.zeros_like(r), r, 1, held)[0]

        momentum, potential = memory
        k, cells = self.B.shape[1], self.B.shape[0]  # h^2 = 1 / cells
        for _ in range(sweeps):
            r = level.residual_at(u, f)
            d = swept(momentum, r[:k])
            q = swept(potential, r[k:] - self.B @ d)
            gradient = self.B.T @ q
            u = u + np.concatenate([d + gradient, -cells * (self.B @ gradient)])
            level.charge(1.5)  # by the nonzeros of all these products and sweeps
        return u, memory

    def work(self, level, sweeps):
        return sweeps * (level.residual_work + 1.5)


# All smoothers as (before, after) the coarse correction, for n x n cells.
def multiplicative(n):
    return (MultiplicativeSchwarz(vanka_cells(n)),) * 2


def additive(n):
    return (AdditiveSchwarz(vanka_cells(n), omega=0.6),) * 2


def distributive(n):
    return tuple(Distributive(*blocks(n), direction) for direction in ("forward", "backward"))


def stokes(size, smoothers):
    """All levels down to 4 x 4 cells, each with the matrix for its own grid."""
    levels, n = [], size
    while n > 4:
        before, after = smoothers(n)
        transfer = MatrixTransfer(interpolation(n))
        levels.append(Level(saddle_point(*blocks(n)), before, transfer, after, name=f"{n} x {n}"))
        n //= 2
    levels.append(Level(saddle_point(*blocks(n)), Direct("pinv"), name=f"{n} x {n}"))
    # The part of the pressures that the equations do not determine.
    constant = np.zeros(levels[0].unknowns)
    constant[-size * size :] = 1.0
    return Hierarchy(levels, nullspace=constant)


def swirl(n):
    """The exact solution (u, v, p) for a force, and the right-hand side; walls are at rest."""
    pi, centres, faces = np.pi, (np.arange(n) + 0.5) / n, np.arange(1, n) / n

    def velocity(x, y):
        return np.sin(pi * x) ** 2 * np.sin(2 * pi * y)

    def force(x, y):  # -Laplacian of that velocity
        return 2 * pi**2 * (2 * np.sin(pi * x) ** 2 - np.cos(2 * pi * x)) * np.sin(2 * pi * y)

    grids = (faces, centres), (centres, faces), (centres, centres)
    (xu, yu), (xv, yv), (x, y) = (np.meshgrid(*axes, indexing="ij") for axes in grids)
    exact = velocity(xu, yu), -velocity(yv, xv), np.cos(pi * x) * np.cos(pi * y)
    over_x = force(xu, yu) - pi * np.sin(pi * xu) * np.cos(pi * yu)
    over_y = -force(yv, xv) - pi * np.cos(pi * xv) * np.sin(pi * yv)
    f = np.concatenate([over_x.ravel(), over_y.ravel(), np.zeros(n * n)]) / n**2
    return np.concatenate([part.ravel() for part in exact]), f


def cavity(n):
    """The right-hand side for walls at rest and a lid that moves with velocity 1."""
    u = np.zeros((n - 1, n))
    u[:, -1] = 2.0  # its reflection at the lid is 2 - u
    return np.concatenate([u.ravel(), np.zeros(n * (n - 1) + n * n)])


def solved(n, smoothers, f, cycle="F(1,1)", **settings):
    solver = solver_from_options(stokes(n, smoothers), cycle=cycle, **settings)
    return solver.solve(f).require()


SIZES = 16, 32, 64, 128
print("Stokes flow on n x n cells, levels down to 4 x 4\n")
print("A force whose flow is known, F(1,1), Vanka's smoother, residual down by 1e-10:\n")
print(f"{'n':>3} {'unknowns':>9} {'cycles':>7} {'factor':>7} {'error of u':>11} {'of p':>9}")
for n in SIZES[:-1]:
    exact, f = swirl(n)
    solution = solved(n, multiplicative, f, rtol=1e-10)
    u, p = (abs(part).max() for part in np.split(solution.value - exact, [-n * n]))
    row = f"{n:>3} {len(f):>9} {solution.cycles:>7} {solution.factor:>7.3f}"
    print(f"{row} {u:>11.2e} {p:>9.2e}")
    if n == 32:  # with one given pressure the matrix is regular
        matrix = saddle_point(*blocks(n))
        direct: Any = spla.spsolve(matrix[:-1, :-1].tocsc(), f[:-1])
        direct = np.append(direct, 0.0)
        direct[-n * n :] -= direct[-n * n :].mean()
        difference = abs(solution.value - direct).max()
print(f"\nLargest difference to SciPy's sparse LU, n = 32: {difference:.1e}")

RUNS = {
    "Vanka, one cell after the other": (multiplicative, "F(1,1)", None),
    "Vanka, all cells at once, omega = 0.6": (additive, "F(1,1)", None),
    "distributive, a class of this script": (distributive, "F(1,1)", None),
    "Vanka, one cell after the other, V": (multiplicative, "V(1,1)", None),
    "distributive, V, inside GMRES": (distributive, "V(1,1)", GMRES()),
}
print("\nA cavity with a moving lid, residual down by 1e-8: factors of the cycles\n")
head = f"{'smoother':<38}" + "".join(f" {n:>6}" for n in SIZES)
print(f"{head} {'cycles':>7} {'work':>6} {'seconds':>8}")
solutions = {}
for name, (smoothers, cycle, acceleration) in RUNS.items():
    factors = []
    for n in SIZES:
        solution = solved(n, smoothers, cavity(n), cycle, acceleration=acceleration)
        factors.append(f" {solution.factor:>6.3f}")
    solutions[name] = solution
    told = f"{solution.cycles:>7} {solution.work:>6.0f} {solution.seconds:>8.2f}"
    print(f"{name:<38}{''.join(factors)} {told}")
print(
    f"\n(cycles, work units, and seconds with set-up: n = {SIZES[-1]}; F-cycles but for the rows "
    "with V)"
)

print(f"\ncycle  residual norm, relative to the first, of the first row, n = {SIZES[-1]}")
norms = np.array(solutions["Vanka, one cell after the other"].residual_norms)
for number, norm in enumerate(norms / norms[0]):
    print(f"{number:>5}  {norm:.2e}")

u = solution.value[: n * (n - 1)].reshape(n - 1, n)
stream = np.zeros((n + 1, n + 1))  # at the corners of cells, zero on the walls
stream[1:-1, 1:-1] = u.cumsum(axis=1)[:, :-1] / n
x, y = np.unravel_index(stream.argmin(), stream.shape)
print(f"\nThe vortex: stream function {stream.min():.5f} at x = {x / n:.3f}, y = {y / n:.3f}")
x, y = np.unravel_index(stream.argmax(), stream.shape)
print(f"An eddy in a corner: {stream.max():.2e} at x = {x / n:.3f}, y = {y / n:.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
at = np.linspace(0.0, 1.0, n + 1)
levels = [*np.linspace(-0.098, -0.005, 10), -1e-3, -1e-4, -1e-5, 0.0, 1e-7, 1e-6, 2e-6]
left.contour(at, at, stream.T, levels, colors="#0072B2", linewidths=0.9, linestyles="-")
left.set(title="Streamlines, lid moving to the right", xlabel="x", ylabel="y", aspect="equal")
colors = "#0072B2", "#E69F00", "#D55E00", "#0072B2", "#D55E00"
for color, (name, solution) in zip(colors, solutions.items(), strict=True):
    norms = np.array(solution.residual_norms)
    line = "-" if RUNS[name][1] == "F(1,1)" else "--"
    right.semilogy(norms / norms[0], line, marker=".", color=color, label=name)
right.set(title=f"{n} x {n} cells", xlabel="cycles", ylabel="residual, relative")
right.legend(frameon=False, fontsize="small")
figure.savefig(out / "cavity.png", dpi=120)
print(f"\nwrote {out / 'cavity.png'}")
