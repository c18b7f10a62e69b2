#!/usr/bin/env bash
# Triton 3.9.0: its interpreter computes with bfloat16 as with whole numbers, without a word.
#
# Guess: TRITON_INTERPRET=1, which runs kernels on the CPU to debug them, gives for 16-bit numbers
# what a GPU gives, up to rounding.
# Seen, for a kernel that writes 2 x: float32 and float16 are right; bfloat16 tensors [1, 2, 3, 4] give
# four zeros. NumPy has no bfloat16, so the interpreter holds their bits in 16-bit integers and
# multiplies those. Cast to float32 before the arithmetic, and the interpreter is right; a kernel on a
# GPU would be right without. A test of kernels by the interpreter should therefore compare bfloat16
# with another implementation, not one kernel with another.
#
# Exits with 0 while that is so. Needs Python 3.10 to 3.13 on x86-64 Linux and a package index (800
# MB); runs without mgnet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.2.6
# Alone: PyTorch for CUDA asks for a Triton of its own.
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps triton==3.9.0
cat > "$folder/twice.py" <<'PY'
import sys

import torch
import triton
import triton.language as tl


@triton.jit
def twice(x, y, n: tl.constexpr):
    at = tl.arange(0, n)
    tl.store(y + at, tl.load(x + at) * 2.0)


@triton.jit
def twice_in_single(x, y, n: tl.constexpr):
    at = tl.arange(0, n)
    doubled = tl.load(x + at).to(tl.float32) * 2.0
    tl.store(y + at, doubled.to(y.dtype.element_ty))


print(f"Triton {triton.__version__}, PyTorch {torch.__version__}")
right = {}
for kind in (torch.float32, torch.float16, torch.bfloat16):
    for kernel in (twice, twice_in_single):
        x = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=kind)
        y = torch.zeros_like(x)
        kernel[(1,)](x, y, 4)
        name = kernel.fn.__name__
        right[kind, name] = torch.equal(y, 2 * x)
        print(f"  {kind}, {name}: {y.tolist()}")
wrong = [key for key, fine in right.items() if not fine]
as_seen = wrong == [(torch.bfloat16, "twice")]
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
TRITON_INTERPRET=1 "$folder/venv/bin/python" -W ignore "$folder/twice.py"
