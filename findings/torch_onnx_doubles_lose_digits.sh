#!/usr/bin/env bash
# torch 2.13.0, onnxscript 0.7.2: torch.onnx.export rounds the constants of a network of doubles to
# single precision.
#
# Guess: a module in float64 that multiplies by a Python number, x * 0.1, becomes a graph of doubles
# whose constant is 0.1 as a double; onnxruntime then agrees with PyTorch to about 1e-16.
# Seen: inputs, weights and outputs are doubles, but the constant is 0.10000000149011612, that is 0.1
# in single precision, written as a double: relative error 1.5e-8. With a buffer in float64 in place
# of the Python number the file agrees to all digits, so constants belong into buffers.
#
# Exits with 0 while that is so. Needs Python 3 and a package index; runs without mgnet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.2.6
"$folder/venv/bin/python" - <<'PY'
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch


class ByNumber(torch.nn.Module):
    def forward(self, x):
        return x * 0.1


class ByBuffer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("factor", torch.tensor(0.1, dtype=torch.float64))

    def forward(self, x):
        return x * self.factor


def error(module):
    x = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "module.onnx"))
        torch.onnx.export(module.eval(), (x,), path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path)
        (there,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    here = module(x).numpy()
    return there.dtype, float(np.max(np.abs(there - here) / np.abs(here)))


(kind, number), (_, buffer) = error(ByNumber()), error(ByBuffer())
print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, outputs {kind}")
print(f"  x * 0.1: relative error {number:.1e}")
print(f"  x * buffer: relative error {buffer:.1e}")
as_seen = kind == np.float64 and 1e-9 < number < 1e-7 and buffer < 1e-15
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
