#!/usr/bin/env bash
# PyTorch 2.13.0, CPU: batch_norm edits its running statistics without counting the edit, so that
# autograd does not notice that a tensor it saved has changed, and gives a wrong gradient.
#
# Guess: F.batch_norm(..., training=True) writes to running_mean and running_var, so their version
# counters rise, and a backward pass that needs the former mean raises "one of the variables needed
# for gradient computation has been modified by an inplace operation", as after mean.add_().
# Seen: the counter stays 0; the derivative of (scale * mean).sum() with respect to scale is the mean
# of after the call, not the one that was multiplied with. instance_norm, which writes the same
# statistics, counts (1), and the backward pass raises.
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
from torch.nn import functional


def tried(edit):
    """The version of the mean after it was edited, and the gradient, or that there is none."""
    mean, scale = torch.zeros(3), torch.ones(3, requires_grad=True)
    product = (scale * mean).sum()  # its derivative is the mean of now: 0
    edit(mean)
    try:
        product.backward()
        told = f"gradient {[round(value, 3) for value in scale.grad.tolist()]}"
    except RuntimeError as error:
        told = str(error).partition(":")[0]
    return mean._version, told


x = torch.arange(24.0).reshape(2, 3, 4)
edits = {
    "add_": lambda mean: mean.add_(1.0),
    "instance_norm": lambda mean: functional.instance_norm(x, mean, torch.ones(3)),
    "batch_norm": lambda mean: functional.batch_norm(x, mean, torch.ones(3), training=True),
}
print(f"torch {torch.__version__}; the right gradient is [0, 0, 0], or an error")
found = {name: tried(edit) for name, edit in edits.items()}
for name, (version, told) in found.items():
    print(f"  {name}: version {version}, {told}")
raised = "one of the variables needed for gradient computation has been modified"
as_seen = all(found[name][0] == 1 and raised in found[name][1] for name in list(edits)[:2])
as_seen = as_seen and found["batch_norm"] == (0, "gradient [0.75, 1.15, 1.55]")
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
