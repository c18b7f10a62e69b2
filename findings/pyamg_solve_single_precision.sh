#!/usr/bin/env bash
# PyAMG 5.4.1: pyamg.solve refuses single precision with NumPy 2, and with NumPy 1 where the matrix is
# not symmetric.
#
# Guess: pyamg.solve takes float32 and complex64 as it takes float64 and complex128.
# Seen, for Poisson and for upwind advection on 40 x 40 points: in double precision all converge. With
# NumPy 2.2.6 every matrix in single precision ends in "Failed generating smoothed_aggregation_solver":
# the evolution measure of the black box divides by a NumPy scalar of double precision, which since
# NEP 50 makes the matrix a double one, and the compiled loop is given two precisions. With NumPy
# 1.26.4 the symmetric matrix is solved; the other ends in "unexpected keyword argument 'rtol'",
# though nobody gave it: gauss_seidel_nr, which the black box takes there, has no single precision, and
# the solver takes its TypeError for that of a Krylov method of SciPy and tries another argument.
#
# Exits with 0 while that is so. Needs Python 3.10 to 3.12 and a package index; runs without mgnet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/solve.py" <<'PY'
import numpy as np
import pyamg

matrices = {
    "symmetric": pyamg.gallery.poisson((40, 40), format="csr"),
    "nonsymmetric": pyamg.gallery.advection_2d((40, 40))[0].tocsr(),
}
print(f"PyAMG {pyamg.__version__}, NumPy {np.__version__}")
for name, matrix in matrices.items():
    for kind in (np.float32, np.complex64, np.float64, np.complex128):
        A, b = matrix.astype(kind), np.ones(matrix.shape[0], kind)
        try:
            x = pyamg.solve(A, b, verb=False, tol=1e-4)
        except TypeError as error:
            print(f"  {name}, {kind.__name__}: TypeError: {error}")
        else:
            solved = np.linalg.norm(b - A @ x) < 1e-3 * np.linalg.norm(b)
            print(f"  {name}, {kind.__name__}: {'solved' if solved else 'wrong'}")
PY
said=""
for numpy in 1.26.4 2.2.6; do
  python3 -m venv "$folder/venv$numpy"
  "$folder/venv$numpy/bin/python" -m pip install --quiet --disable-pip-version-check \
    pyamg==5.4.1 scipy==1.15.3 "numpy==$numpy"
  said+=$("$folder/venv$numpy/bin/python" -W ignore "$folder/solve.py" 2> /dev/null)$'\n'
done
echo "$said"
count() { grep -c "$1" <<< "$said" || true; }
if [ "$(count ': solved')" = 10 ] && [ "$(count "'rtol'")" = 2 ] \
  && [ "$(count 'Failed generating')" = 4 ]; then
  echo "as seen before"
else
  echo "changed: look again"
  exit 1
fi
