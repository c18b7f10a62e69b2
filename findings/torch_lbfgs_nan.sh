#!/usr/bin/env bash
# PyTorch 2.13.0: torch.optim.LBFGS with line_search_fn="strong_wolfe" accepts a step to a point
# where the loss is NaN, and goes on from there.
#
# Guess: a line search shortens a step whose loss is NaN, as SciPy's L-BFGS-B gives up with the start
# and a message.
# Seen: for (log p)^2 from p = 20, whose minimum is p = 1, it ends at p = -5.9e35, where the loss is
# NaN; no error, no warning. The comparisons of the search are all false for NaN, and its bracket
# ends there. Without a line search the same optimizer goes downhill.
#
# Exits with 0 while that is so. Needs Python 3 and a package index; runs without mgnet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.2.6
"$folder/venv/bin/python" - <<'PY'
import math
import sys

import torch


def minimized(line_search):
    p = torch.nn.Parameter(torch.tensor([20.0], dtype=torch.float64))
    optimizer = torch.optim.LBFGS([p], line_search_fn=line_search, max_iter=40)

    def closure():
        optimizer.zero_grad()
        loss = torch.log(p).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return p.item(), torch.log(p).square().item()


print(f"torch {torch.__version__}")
found = {name: minimized(name) for name in ("strong_wolfe", None)}
for name, (p, loss) in found.items():
    print(f"  line_search_fn={name!r}: p = {p:.4g}, loss {loss:.4g}, loss at the start 8.974")
as_seen = math.isnan(found["strong_wolfe"][1]) and found[None][1] < 8.974
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
