#!/usr/bin/env bash
# PyTorch 2.13.0, CPU build: fake CUDA tensors compute sums and products, but x[0] raises an error.
#
# Guess: FakeTensorMode needs no device. Its tensors have shapes, types and a device, but no memory, so
# code for a GPU can be traced on a machine without one, in any build of PyTorch; if a build does not
# support that, creating the tensor fails.
# Seen: torch.empty(9, 4, device="cuda") works, and so do x + 1, x.sum(), x @ x.mT, x.clone() and
# x.select(0, 0). x[0], x[1:3] and x.copy_(y) raise RuntimeError "PyTorch is not linked with support
# for cuda devices", although x[0] and x.select(0, 0) are the same view. So a test that traces CUDA
# code with fake tensors in a CPU build (on a machine for continuous integration, say) has to avoid
# indexing, or play the device with another kind of tensor.
#
# Exits with 0 while that is so. Needs x86-64 Linux, Python 3.10 to 3.13 and a package index that
# serves the CPU build of PyTorch (200 MB); a CUDA build may differ and ends the script with a
# message. Runs without mgnet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.2.6
cat > "$folder/fake.py" <<'PY'
import sys

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

if torch.version.cuda is not None:
    sys.exit(f"this is a CUDA build ({torch.__version__}); set pip's index to the CPU builds")
seen = {}
with FakeTensorMode():
    x = torch.empty(9, 4, device="cuda")
    ways = {
        "x + 1": lambda: x + 1,
        "x.sum()": lambda: x.sum(),
        "x @ x.mT": lambda: x @ x.mT,
        "x.clone()": lambda: x.clone(),
        "x.select(0, 0)": lambda: x.select(0, 0),
        "x[0]": lambda: x[0],
        "x[1:3]": lambda: x[1:3],
        "x.copy_(x)": lambda: x.copy_(x),
    }
    for name, way in ways.items():
        try:
            seen[name] = str(way().device)
        except RuntimeError as error:
            seen[name] = str(error)
        print(f"{name:15} {seen[name]}")
fails = [name for name, what in seen.items() if "not linked with support for cuda" in what]
works = [name for name, what in seen.items() if what == "cuda:0"]
same = fails == ["x[0]", "x[1:3]", "x.copy_(x)"] and len(works) == 5
print("as seen before" if same else "changed", "with PyTorch", torch.__version__)
sys.exit(not same)
PY
"$folder/venv/bin/python" "$folder/fake.py"
