#!/usr/bin/env bash
# PyTorch 2.13.0: a compiled module has no truth value, so `compiled or module` raises.
#
# Guess: every nn.Module without __len__ is true; torch.compile(module) is one, so that
# `if self.compiled:` and `(call or module)(x)` take it.
# Seen: bool(torch.compile(nn.Linear(2, 2))) raises TypeError "Linear does not support len()":
# the wrapper defines __len__ for all modules, which Python asks for a truth value. Where the module
# has a length, that of the wrapper decides. `is not None` is the test that works.
#
# Exits with 0 while that is so. Needs Python 3 and a package index; runs without mgnet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.2.6
"$folder/venv/bin/python" - <<'PY'
import sys

import torch

module = torch.nn.Linear(2, 2)
compiled = torch.compile(module, backend="eager")
try:
    raised = f"none, {bool(compiled)}"
except TypeError as error:
    raised = str(error)
print(f"torch {torch.__version__}")
print(f"  bool(module): {bool(module)}; bool(compiled): {raised}")
x = torch.ones(1, 2)
same = torch.equal(compiled(x), module(x))
print(f"  a call gives the same: {same}")
as_seen = bool(module) and same and raised == "Linear does not support len()"
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
