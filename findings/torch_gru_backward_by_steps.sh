#!/usr/bin/env bash
# PyTorch 2.13.0, CPU: nn.GRU has no backward pass of its own. Its gradient is an autograd graph with
# fourteen nodes for every time step, where nn.LSTM in float32 has one node for the whole sequence.
#
# Guess: both are fused recurrent layers, on a CPU by oneDNN, in one node each, forward and backward;
# float64 may be slower, and is otherwise alike.
# Seen: a graph of 1409 nodes for a GRU of 100 steps in float32 and float64; of 5 for an LSTM in
# float32 (MkldnnRnnLayerBackward0), and of 1309 for the same LSTM in float64, without a warning. So
# a GRU in training, and an LSTM after .double(), cost about as much as a Python loop over cells.
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
from torch import nn


def graph(output):
    """How many nodes the graph of a tensor has, and the names of those of oneDNN."""
    left, seen = [output.grad_fn], set()
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [following for following, _ in node.next_functions]
    return len(seen), sorted({type(n).__name__ for n in seen if "Mkldnn" in type(n).__name__})


print(f"torch {torch.__version__}, oneDNN {torch.backends.mkldnn.is_available()}")
found = {}
for kind in (nn.GRU, nn.LSTM):
    for dtype in (torch.float32, torch.float64):
        for steps in (10, 100):
            x = torch.randn(steps, 2, 4, dtype=dtype)
            found[kind.__name__, dtype, steps] = graph(kind(4, 4).to(dtype)(x)[0])
            told = found[kind.__name__, dtype, steps]
            print(f"  {kind.__name__:<5}{dtype!s:<15}{steps:>4} steps: {told[0]:>5} nodes {told[1]}")
fused = {key for key, (_, names) in found.items() if names}
as_seen = fused == {("LSTM", torch.float32, 10), ("LSTM", torch.float32, 100)}
for key, (count, _) in found.items():
    kind, dtype, steps = key
    as_seen = as_seen and ((count < 10) if key in fused else count > 10 * steps)
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
