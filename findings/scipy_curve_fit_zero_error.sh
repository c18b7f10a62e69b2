#!/usr/bin/env bash
# SciPy 1.15.3: curve_fit with bounds, or method="trf", gives standard errors of zero in large units.
#
# Guess: the errors of a fit do not depend on the unit of a parameter, or come with a warning.
# Seen: for a x + b sin(9 x) / s with s = 1e15 both methods find b = 3e15 with the same digits, but
# the error of b is 2e13 (0.02 s) by method "lm" and 8e-18 by "trf" and "dogbox", without a warning.
# These two take the pseudoinverse of J^T J with a threshold relative to the largest singular value,
# and the column of b lies below it: it is left out as if it were no unknown.
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
from scipy.optimize import curve_fit

print(f"SciPy {scipy.__version__}, NumPy {np.__version__}")
unit = 1e15
noise = 0.1 * np.random.default_rng(0).standard_normal(40)
x = np.linspace(0.0, 1.0, 40)
y = 2.0 * x + 3.0 * np.sin(9.0 * x) + noise
errors = {}
for method in ("lm", "trf", "dogbox"):
    scale = {} if method == "lm" else {"x_scale": "jac"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found, covariance = curve_fit(
            lambda x, a, b: a * x + b * np.sin(9.0 * x) / unit, x, y, [1.0, unit],
            method=method, **scale,
        )
    errors[method] = covariance[1, 1] ** 0.5 / unit
    print(f"  {method}: b / s = {found[1] / unit:.6f} +- {errors[method]:.2g}, {len(caught)} warnings")
as_seen = errors["lm"] > 1e-2 and max(errors["trf"], errors["dogbox"]) < 1e-20
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
