#!/usr/bin/env bash
# PyAMG 5.4.1: SOR ignores omega for BSR matrices and for symmetric sweeps, without a word.
#
# Guess: relaxation.sor(A, x, b, omega) gives the same x for one matrix in CSR and in BSR format of
# 1 x 1 blocks, and another x for another omega.
# Seen, for one sweep with omega = 0.5 from zero: in CSR the forward sweep is SOR; in BSR format, and
# in both formats for sweep="symmetric", x is that of Gauss-Seidel, as if omega were 1. The coarse
# levels of smoothed_aggregation_solver are BSR matrices, also of scalar equations, so its
# presmoother=("sor", {"omega": ...}) over- or underrelaxes on the finest level alone.
#
# Exits with 0 while that is so. Needs Python 3 and a package index; runs without mgnet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  pyamg==5.4.1 scipy==1.15.3 numpy==2.2.6
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import pyamg
from pyamg.relaxation.relaxation import gauss_seidel, sor
from scipy.linalg import solve_triangular

A = pyamg.gallery.poisson((8, 8), format="csr")
b, omega = np.linspace(1.0, 2.0, 64), 0.5
dense = A.toarray()
D, L = np.diag(np.diag(dense)), np.tril(dense, -1)
by_formula = solve_triangular(D / omega + L, b, lower=True)


def sweep(matrix, direction):
    x = np.zeros(64)
    sor(matrix, x, b, omega=omega, sweep=direction)
    return x


def plain(direction):
    x = np.zeros(64)
    gauss_seidel(A, x, b, sweep=direction)
    return x


print(f"PyAMG {pyamg.__version__}, NumPy {np.__version__}")
found = {}
for direction in ("forward", "symmetric"):
    for name, matrix in (("CSR", A), ("BSR", A.tobsr((1, 1)))):
        x = sweep(matrix, direction)
        found[name, direction] = bool(np.allclose(x, plain(direction)))
        same = "that of Gauss-Seidel" if found[name, direction] else "another than Gauss-Seidel's"
        print(f"  omega {omega}, {direction} sweep, {name}: x is {same}")
right = np.allclose(sweep(A, "forward"), by_formula)
levels = pyamg.smoothed_aggregation_solver(pyamg.gallery.poisson((40, 40), format="csr")).levels
formats = [level.A.format for level in levels]
print(f"  formats of the levels of smoothed aggregation: {', '.join(formats)}")
as_seen = right and not found["CSR", "forward"] and "bsr" in formats[1:]
as_seen = as_seen and all(found[k] for k in found if k != ("CSR", "forward"))
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
