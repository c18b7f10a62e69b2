#!/usr/bin/env bash
# SciPy 1.15.3: gmres of a complex system in long double solves it without its imaginary parts.
#
# Guess: complex256 is computed with, or refused, as LAPACK's drivers refuse it.
# Seen: for diag(1 + i, 2, 3) x = (1, 1, 1) gmres gives x = (1, 1/2, 1/3), whose residual is i in the
# first row, with nothing but NumPy's ComplexWarning, and info = 30 (its iterations). In complex128 the
# same call is right: x[0] = (1 - i) / 2. The right-hand side is cast to float64 ("non-FP types to
# double") since the test for known types does not know complex256.
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
import warnings

import numpy as np
import scipy
from scipy.sparse.linalg import LinearOperator, gmres

print(f"SciPy {scipy.__version__}, NumPy {np.__version__}")
residuals = {}
for dtype in (np.complex128, np.clongdouble):
    A = np.diag([1 + 1j, 2, 3]).astype(dtype)
    system = LinearOperator((3, 3), matvec=lambda x, A=A: A @ x, dtype=dtype)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x, info = gmres(system, np.ones(3, dtype))
    kinds = sorted({each.category.__name__ for each in caught})
    residuals[dtype] = float(abs(A @ x - 1).max())
    print(f"  {np.dtype(dtype)}: x = {x}, info {info}, residual {residuals[dtype]:.2g}, {kinds}")
as_seen = residuals[np.complex128] < 1e-4 and residuals[np.clongdouble] > 0.5
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
