#!/usr/bin/env bash
# PyTorch 2.13.0, CPU: the operators behind the backward passes of layer norm and group norm are
# wrong for tensors that are not contiguous.
#
# Guess: an operator of aten takes tensors of any strides: every fourth sample of what the forward
# pass was given and kept gives every fourth sample of the gradient.
# Seen: native_layer_norm_backward takes input and gradient of any strides, but reads mean and rstd
# one after another from the first one, so that rows get the statistics of other rows;
# native_group_norm_backward reads all four like that. Without a word. Who takes a part of what vmap,
# a graph of torch.fx or a hook recorded, for some layers or samples, gets a wrong gradient.
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

aten = torch.ops.aten


def layer(x, lam, mean, rstd):
    only_x = [True, False, False]
    return aten.native_layer_norm_backward(lam, x, [10], mean, rstd, None, None, only_x)[0]


def group(x, lam, mean, rstd):
    only_x = [True, False, False]
    sizes = len(x), 6, 10, 2
    return aten.native_group_norm_backward(lam, x, mean, rstd, None, *sizes, only_x)[0]


torch.manual_seed(0)
x = torch.randn(16, 6, 10, dtype=torch.float64) * torch.logspace(-1, 1, 16)[:, None, None]
lam = torch.randn_like(x)
kept = {
    "layer norm": (layer, aten.native_layer_norm(x, [10], None, None, 1e-5)[1:]),
    "group norm": (group, aten.native_group_norm(x, None, None, 16, 6, 10, 2, 1e-5)[1:]),
}
print(f"torch {torch.__version__}; relative errors for every fourth sample")
as_seen = True
for name, (backward, (mean, rstd)) in kept.items():
    whole = [x, lam, mean, rstd]
    right = backward(*whole)[::4]
    errors = []
    for strided in range(4):
        given = [t[::4] if n == strided else t[::4].contiguous() for n, t in enumerate(whole)]
        errors.append(float((backward(*given) - right).norm() / right.norm()))
    names = "input", "gradient", "mean", "rstd"
    print(f"  {name}: " + ", ".join(f"{n} {e:.0e}" for n, e in zip(names, errors)))
    wrong = [error > 1e-3 for error in errors]
    as_seen = as_seen and wrong == [name == "group norm", name == "group norm", True, True]
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
