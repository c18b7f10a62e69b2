#!/usr/bin/env bash
# PyTorch 2.13.0: get_swa_multi_avg_fn averages double precision weights with single precision
# factors; AveragedModel without it does not.
#
# Guess: AveragedModel(model) and AveragedModel(model, multi_avg_fn=get_swa_multi_avg_fn()) are the
# same mean of the weights, in double precision to 1e-16 of the mean itself.
# Seen: the first is, the second is off by 2e-8: its factor 1 / (n + 1) is computed from the counter,
# an integer tensor, whose reciprocal has the default dtype. With torch.set_default_dtype(
# torch.float64) both agree.
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
from torch.optim.swa_utils import AveragedModel, get_swa_multi_avg_fn

generator = torch.Generator().manual_seed(0)
weights = torch.randn(10, 1, 100, generator=generator, dtype=torch.float64)


def error(**options):
    """Of the mean of ten weights, the largest."""
    model = torch.nn.Linear(100, 1, bias=False, dtype=torch.float64)
    average = AveragedModel(model, **options)
    with torch.no_grad():
        for weight in weights:
            model.weight.copy_(weight)
            average.update_parameters(model)
        return float((average.module.weight - weights.mean(0)).abs().max())


default, multi = error(), error(multi_avg_fn=get_swa_multi_avg_fn())
torch.set_default_dtype(torch.float64)
double = error(multi_avg_fn=get_swa_multi_avg_fn())
print(f"torch {torch.__version__}, mean of ten tensors in float64, largest error")
print(f"  AveragedModel(model):                      {default:.1e}")
print(f"  with get_swa_multi_avg_fn():               {multi:.1e}")
print(f"  the same, default dtype float64:           {double:.1e}")
as_seen = default < 1e-15 and double < 1e-15 and 1e-9 < multi < 1e-7
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
