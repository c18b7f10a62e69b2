"""The problems of `linear_zoo.py`: a matrix, a right-hand side, and what its user knows of them.

Right-hand sides are random, standard normal (seed 0), so that no method meets a smooth one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyamg
import scipy.sparse as sp

__all__ = ["PROBLEMS", "Method", "Problem", "Setup", "Solve", "problem"]

#: `solve(rtol, cap) -> (x, iterations)`
Solve = Callable[[float, int], tuple[np.ndarray, int]]
#: What is timed as set-up. What comes before it, such as copying the matrix into the format of a
#: library, is not timed.
Setup = Callable[[], Solve]


@dataclass
class Problem:
    """A linear system.

    `kind` is "spd", "singular" (positive semidefinite, constants in the null space), "general",
    "complex" (symmetric) or "saddle".
    """

    A: Any
    f: np.ndarray
    kind: str
    shape: tuple[int, ...] = ()
    near_null: np.ndarray | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def residual(self, x: np.ndarray) -> float:
        """|f - A x| / |f|, of the matrix as it was given."""
        return float(np.linalg.norm(self.f - self.A @ x) / np.linalg.norm(self.f))


#: A way to solve a problem, by one library.
Method = Callable[[Problem], Setup]


def random(size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(size)


def anisotropy(n: int, degrees: float) -> Problem:
    """Bilinear elements, 1e-3 across the strong direction, which is that angle from the axis 0."""
    kind = {"epsilon": 1e-3, "theta": np.radians(degrees), "type": "FE"}
    stencil = pyamg.gallery.diffusion_stencil_2d(**kind)
    A = sp.csr_matrix(pyamg.gallery.stencil_grid(stencil, (n, n), format="csr"))
    more = {"degrees": degrees, "constant": True}
    return Problem(A, random(n * n), "spd", (n, n), more=more)


def jumps(n: int, jump: float) -> Problem:
    """-div(k grad u), finite volumes with harmonic means; k is 1 or `jump` on 16 x 16 blocks."""
    blocks = np.random.default_rng(1).integers(0, 2, (16, 16))
    place = np.arange(-1, n + 1).clip(0, n - 1) * 16 // n
    k = np.where(blocks[np.ix_(place, place)] == 1, jump, 1.0)
    A = five_points(faces(k))
    return Problem(A, random(n * n), "spd", (n, n))


def faces(k: np.ndarray) -> list[np.ndarray]:
    """Harmonic means of each point of the interior with its north, south, west and east."""
    inner = k[1:-1, 1:-1]
    others = k[:-2, 1:-1], k[2:, 1:-1], k[1:-1, :-2], k[1:-1, 2:]
    return [2.0 * inner * other / (inner + other) for other in others]


def five_points(around: list[np.ndarray]) -> sp.csr_matrix:
    """The matrix with minus these couplings, and their sums on the diagonal."""
    north, south, west, east = around
    middle, columns = north + south + west + east, north.shape[1]
    west, east = west.copy(), east.copy()
    west[:, 0] = east[:, -1] = 0.0
    parts = [middle.ravel(), -north.ravel()[columns:], -south.ravel()[:-columns]]
    parts += [-west.ravel()[1:], -east.ravel()[:-1]]
    A = sp.diags(parts, [0, -columns, columns, -1, 1], shape=(middle.size, middle.size))  # type: ignore
    A = sp.csr_matrix(A)
    A.eliminate_zeros()
    return A


def convection(n: int, eps: float) -> Problem:
    """-eps Laplace(u) + w . grad(u) on (-1, 1)^2, upwind; w = (2 y (1 - x^2), -2 x (1 - y^2))."""
    h = 2.0 / (n + 1)
    x, y = np.meshgrid(*(np.arange(1, n + 1) * h - 1.0,) * 2, indexing="ij")
    first, second = 2.0 * y * (1.0 - x**2) * h, -2.0 * x * (1.0 - y**2) * h
    around = [eps + np.maximum(w, 0.0) for w in (first, -first, second, -second)]
    A = five_points(around)
    return Problem(A, random(n * n), "general", (n, n))


def neumann(n: int) -> Problem:
    """The Laplacian of n x n cells with no flow through the boundary: constants are in its null."""
    ones = np.ones((n, n))
    around = [ones.copy() for _ in range(4)]
    around[0][0] = around[1][-1] = around[2][:, 0] = around[3][:, -1] = 0.0
    f = random(n * n)
    return Problem(five_points(around), f - f.mean(), "singular", (n, n), more={"constant": True})


def poisson_3d(n: int) -> Problem:
    A = sp.csr_matrix(pyamg.gallery.poisson((n, n, n), format="csr"))
    return Problem(A, random(n**3), "spd", (n, n, n))


def elasticity(n: int) -> Problem:
    """Plane strain, Young's modulus 1e5, Poisson's ratio 0.3, bilinear elements, clamped."""
    A, near_null = pyamg.gallery.linear_elasticity((n, n))
    return Problem(sp.bsr_matrix(A), random(2 * n * n), "spd", (n, n), near_null)


def helmholtz(n: int) -> Problem:
    """-Laplace(u) - (1 - 0.5 i) k^2 u, ten points to a wavelength."""
    A = pyamg.gallery.poisson((n, n), format="csr").astype(complex)
    A = sp.csr_matrix(A - (1.0 - 0.5j) * (2.0 * np.pi / 10.0) ** 2 * sp.identity(n * n))
    f = random(2 * n * n).view(complex)
    return Problem(A, f, "complex", (n, n))


def stokes(n: int) -> Problem:
    """Marker and cell, n x n cells, velocities zero on the boundary; times the area of a cell."""
    h = 1.0 / n
    one = sp.identity(n)
    # Velocities sit on faces; those along the wall are half a cell away from it.
    across = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n - 1, n - 1))  # type: ignore
    along = sp.lil_matrix(sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n)))  # type: ignore
    along[0, 0] = along[-1, -1] = 3.0
    inner = sp.identity(n - 1)
    u = sp.kron(across, one) + sp.kron(inner, along)
    v = sp.kron(along, inner) + sp.kron(one, across)
    step = sp.diags([1.0, -1.0], [0, -1], shape=(n, n - 1)) * h  # type: ignore
    B = sp.hstack([sp.kron(step, one), sp.kron(one, step)])
    L: Any = sp.block_diag([u, v])
    A = sp.csr_matrix(sp.bmat([[L, -B.T], [-B, None]]))
    velocities = L.shape[0]
    f = np.concatenate([random(velocities), np.zeros(n * n)])
    constant = np.concatenate([np.zeros(velocities), np.ones(n * n)])
    more = {"velocities": velocities, "L": sp.csr_matrix(L), "B": sp.csr_matrix(B)}
    return Problem(A, f, "saddle", (n, n), more=more | {"constant": constant})


def l_shape(refinements: int) -> Problem:
    """Linear elements of scikit-fem on an L-shape, refined uniformly, zero on the boundary."""
    import skfem
    from skfem.models.poisson import laplace

    mesh: Any = skfem.MeshTri.init_lshaped()
    between: list[Any] = []
    inside = [mesh.interior_nodes()]
    for _ in range(refinements):
        nodes, edges = mesh.p.shape[1], mesh.facets.shape[1]
        # New nodes are the midpoints of edges, behind the old ones.
        middle = nodes + np.arange(edges)
        rows = np.concatenate([np.arange(nodes), middle, middle])
        columns = np.concatenate([np.arange(nodes), *mesh.facets])
        weights = np.repeat([1.0, 0.5], [nodes, 2 * edges])
        P = sp.csr_matrix((weights, (rows, columns)), shape=(nodes + edges, nodes))
        mesh = mesh.refined()
        inside.append(mesh.interior_nodes())
        between.append(P[inside[-1]][:, inside[-2]])
    A: Any = laplace.assemble(skfem.Basis(mesh, skfem.ElementTriP1()))
    A = sp.csr_matrix(sp.csr_matrix(A)[inside[-1]][:, inside[-1]])
    between = [sp.csr_matrix(P) for P in between[::-1] if P.shape[1] > 0]
    return Problem(A, random(A.shape[0]), "spd", more={"prolongations": between})


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "anisotropy 0": lambda scale: anisotropy(512 // scale - 1, 0.0),
    "anisotropy 30": lambda scale: anisotropy(512 // scale - 1, 30.0),
    "anisotropy 45": lambda scale: anisotropy(512 // scale - 1, 45.0),
    "jumps 1e3": lambda scale: jumps(512 // scale - 1, 1e3),
    "jumps 1e6": lambda scale: jumps(512 // scale - 1, 1e6),
    "convection 1e-2": lambda scale: convection(512 // scale - 1, 1e-2),
    "convection 1e-3": lambda scale: convection(512 // scale - 1, 1e-3),
    "convection 1e-4": lambda scale: convection(512 // scale - 1, 1e-4),
    "convection 1e-5": lambda scale: convection(512 // scale - 1, 1e-5),
    "Neumann": lambda scale: neumann(512 // scale),
    "Poisson 3-D": lambda scale: poisson_3d(128 // scale),
    "elasticity": lambda scale: elasticity(256 // scale - 1),
    "Helmholtz": lambda scale: helmholtz(512 // scale - 1),
    "Stokes": lambda scale: stokes(256 // scale),
    "L-shape": lambda scale: l_shape(9 - scale.bit_length()),
}


def problem(name: str, scale: int = 1) -> Problem:
    """The problem of this name, with `scale` times as wide meshes (a power of two)."""
    return PROBLEMS[name](scale)
