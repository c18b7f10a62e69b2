#!/usr/bin/env bash
# SciPy 1.15.3: least_squares(method="lm", x_scale="jac") says success where it has not moved.
#
# Guess: success with xtol means a minimum, at least on the standard problem Chebyquad (n = m = 9).
# Seen: from ten times the standard start it ends after 11 evaluations of one Jacobian with status 3
# (xtol), success True and a cost of 1.2e25, the cost of the start; with x_scale=1 it reaches 1e-31
# in 12. The column norms differ by 1e12 there, so a radius that is short for the largest unknown is
# far too long for the others; every step fails, and the radius falls below xtol times |D x|.
#
# Exits with 0 while that is so. Needs Python 3 and a package index; runs without mgnet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  scipy==1.15.3 numpy==2.2.6
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import scipy
from numpy.polynomial import chebyshev
from scipy.optimize import least_squares

print(f"SciPy {scipy.__version__}, NumPy {np.__version__}")
n = 9
basis = [chebyshev.Chebyshev.basis(k, domain=[0.0, 1.0]) for k in range(1, n + 1)]
integrals = np.array([0.0 if k % 2 else -1.0 / (k * k - 1.0) for k in range(1, n + 1)])
slopes = [polynomial.deriv() for polynomial in basis]
residual = lambda x: np.array([p(x).mean() for p in basis]) - integrals
jacobian = lambda x: np.array([p(x) for p in slopes]) / n
start = 10.0 * np.arange(1, n + 1) / (n + 1)
first = 0.5 * float(residual(start) @ residual(start))
found = {}
for scale in ("jac", 1.0):
    found[scale] = least_squares(residual, start, jacobian, method="lm", x_scale=scale)
    end = found[scale]
    print(
        f"  x_scale={scale}: success {end.success}, status {end.status}, cost {end.cost:.2g} from "
        f"{first:.2g}, {end.nfev} evaluations, {end.njev} Jacobians"
    )
as_seen = found["jac"].success and found["jac"].cost > 0.9 * first and found[1.0].cost < 1e-20
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
