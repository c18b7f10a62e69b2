#!/usr/bin/env bash
# PyTorch 2.13.0: a sparse CSR matrix has `.mT`, `.t()` and `.H`, but `.T` raises an error.
#
# Guess: for a matrix `.T`, `.mT`, `.t()` and `.transpose(0, 1)` are four spellings of one operation,
# so either all of them work on a CSR tensor or none does. The documentation of `Tensor.T` lists no
# exception for sparse tensors.
# Seen: `.mT`, `.t()`, `.H`, `.adjoint()` and `.transpose(0, 1)` give the CSC tensor that shares the
# entries. `.T` and `.permute(1, 0)` raise NotImplementedError about 'aten::as_strided', a name that
# the caller never wrote. Code for dense matrices that uses `.T`, such as a Galerkin product P.T @ A @ P,
# fails on CSR tensors; write P.mT or P.transpose(0, 1).
#
# Exits with 0 while that is so. Needs Python 3.10 to 3.13 and a package index (200 MB to several
# GB, by the build of PyTorch that it serves); runs without mgnet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.2.6
cat > "$folder/transposed.py" <<'PY'
import sys
import warnings

import torch

warnings.filterwarnings("ignore", message="Sparse CSR")
dense = torch.tensor([[1.0, 2.0, 0.0], [0.0, 3.0, 4.0]])
matrix = dense.to_sparse_csr()
ways = {
    ".mT": lambda: matrix.mT,
    ".t()": lambda: matrix.t(),
    ".H": lambda: matrix.H,
    ".adjoint()": lambda: matrix.adjoint(),
    ".transpose(0, 1)": lambda: matrix.transpose(0, 1),
    ".T": lambda: matrix.T,
    ".permute(1, 0)": lambda: matrix.permute(1, 0),
}
seen = {}
for name, way in ways.items():
    try:
        seen[name] = torch.equal(way().to_dense(), dense.mT)
    except NotImplementedError as error:
        seen[name] = "as_strided" in str(error) and "NotImplementedError: as_strided"
    print(f"{name:17} {seen[name]}")
fails = [name for name, what in seen.items() if what == "NotImplementedError: as_strided"]
works = [name for name, what in seen.items() if what is True]
same = fails == [".T", ".permute(1, 0)"] and len(works) == 5
print("as seen before" if same else "changed", "with PyTorch", torch.__version__)
sys.exit(not same)
PY
"$folder/venv/bin/python" "$folder/transposed.py"
