# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Solve a sparse linear system
#
# The matrix comes from SciPy, the hierarchy from PyAMG or from the grid, and mgnet runs the
# cycles. This notebook needs mgnet, PyAMG and matplotlib.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pyamg
import scipy.sparse as sp
from scipy.sparse.linalg import cg, splu

import mgnet
from mgnet import CG, Hierarchy, Solver
from mgnet.plot import plot_convergence

# %% [markdown]
# The problem is $-\nabla \cdot (c \nabla u) = 1$ on a square with $u = 0$ on its boundary, where
# the coefficient $c$ is a thousand times larger inside a disc. Finite volumes use harmonic means
# of $c$ at the faces of the cells.

# %%
n = 100
i, j = np.indices((n, n))
c = np.where(np.hypot(i - 60.0, j - 40.0) < 20.0, 1000.0, 1.0)
cells = np.arange(n * n).reshape(n, n)


def fluxes(left, right, a, b):
    """Return the matrix of the fluxes through the faces between pairs of cells."""
    conductance = (2.0 / (1.0 / a + 1.0 / b)).ravel()
    faces = np.arange(conductance.size)
    rows, columns = np.concatenate([faces, faces]), np.concatenate([left.ravel(), right.ravel()])
    signs = np.repeat([1.0, -1.0], conductance.size)
    difference = sp.coo_matrix((signs, (rows, columns)), shape=(conductance.size, n * n)).tocsr()
    return difference.T @ sp.diags(conductance) @ difference


edge = np.zeros((n, n))  # the faces on the boundary, half a cell away from the centers
for side in (edge[0], edge[-1], edge[:, 0], edge[:, -1]):
    side += 2.0
A = fluxes(cells[:-1], cells[1:], c[:-1], c[1:])
A = A + fluxes(cells[:, :-1], cells[:, 1:], c[:, :-1], c[:, 1:]) + sp.diags((edge * c).ravel())
A = sp.csr_matrix(A)
f = np.full(n * n, 1.0 / n**2)

# %% [markdown]
# ## One line
#
# `mgnet.solve` inspects the matrix, chooses a method and prints the Python code of its choice.

# %%
u = mgnet.solve(A, f)
exact = splu(A.tocsc()).solve(f)
difference = np.linalg.norm(u - exact) / np.linalg.norm(exact)
print(f"relative difference from a direct solver {difference:.0e}")

# %% [markdown]
# ## Cycles on PyAMG's levels
#
# `Hierarchy.from_pyamg` takes the levels of any PyAMG solver. A cycle is a text, and a Krylov
# method can run around it.

# %%
hierarchy = Hierarchy.from_pyamg(pyamg.ruge_stuben_solver(A))
print(hierarchy)
solvers = {
    "V-cycles": Solver(hierarchy, "V(1,1)", rtol=1e-8),
    "W-cycles": Solver(hierarchy, "W(1,1)", rtol=1e-8),
    "V-cycles in CG": Solver(hierarchy, "V(1,1)", rtol=1e-8, acceleration=CG()),
}
solutions = {name: solver.solve(f).require() for name, solver in solvers.items()}
for name, solution in solutions.items():
    print(f"{name:<15} {solution}")

# %%
ax = plot_convergence(solutions)

# %% [markdown]
# ## A preconditioner for SciPy
#
# The cycle is also a preconditioner $B \approx A^{-1}$ for the Krylov methods of SciPy.

# %%
steps = []
preconditioner = Solver(hierarchy, "V(1,1)").as_preconditioner()
by_scipy, info = cg(A, f, rtol=1e-8, M=preconditioner, callback=steps.append)
print(f"SciPy's cg: {len(steps)} iterations, info {info}")

# %%
figure, ax = plt.subplots(figsize=(4.5, 3.5), layout="constrained")
figure.colorbar(ax.imshow(u.reshape(n, n).T, origin="lower"), label="u")
