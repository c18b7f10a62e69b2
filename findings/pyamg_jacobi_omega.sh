#!/usr/bin/env bash
# PyAMG 5.4.1: the omega of a Jacobi smoother is not the damping of the sweep.
#
# Guess: presmoother=("jacobi", {"omega": 2/3}) does x = x + 2/3 D^-1 (b - A x), as the textbooks
# write it, as mgnet's Jacobi(2/3) does, and as PETSc does with -ksp_richardson_scale 0.6666667.
# Seen: omega is divided by an estimate of the spectral radius of D^-1 A, unless withrho=False. For
# the Poisson matrix on 31 points that radius is nearly 2, so one sweep moves half as far, and
# histories of residuals differ from those of a solver with the same omega.
#
# Exits with 0 while that is so. Needs Python 3 and a package index; runs without mgnet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  pyamg==5.4.1 numpy==1.26.4 scipy==1.15.3
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import pyamg
import scipy.sparse as sp

n, omega = 31, 2.0 / 3.0
A = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n), format="csr")
b = np.random.default_rng(0).standard_normal(n)
radius = 1.0 + np.cos(np.pi / (n + 1))  # of D^-1 A, known in closed form


def damping(**options):
    """What one pre-smoothing sweep from zero multiplies D^-1 b by; the same for all entries."""
    solver = pyamg.ruge_stuben_solver(A, max_coarse=10, presmoother=("jacobi", options))
    x = np.zeros(n)
    solver.levels[0].presmoother(A, x, b)
    ratio = x / (b / 2.0)
    assert np.ptp(ratio) < 1e-12
    return ratio[0]


default, plain = damping(omega=omega), damping(omega=omega, withrho=False)
print(f"pyamg {pyamg.__version__}, omega = {omega:.4f}, spectral radius of D^-1 A {radius:.4f}")
print(f"  sweep with omega alone:           damping {default:.4f}")
print(f"  sweep with omega, withrho=False:  damping {plain:.4f}")
as_seen = abs(plain - omega) < 1e-12 and abs(default - omega / radius) < 0.01
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
