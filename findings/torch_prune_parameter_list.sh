#!/usr/bin/env bash
# PyTorch 2.13.0: pruning an entry of a ParameterList freezes the weight that the module uses.
#
# Guess: prune.l1_unstructured(module.weights, "0", amount=0.5) masks the entry of a ParameterList
# as it masks the weight of a layer: every call uses the mask times the current weights.
# Seen: the mask is applied by a hook before the *list* is called, which never happens. The product
# of the first moment is used for ever after: a step of an optimizer changes the outputs not at all,
# and the second backward pass raises "Trying to backward through the graph a second time".
# torch.nn.utils.parametrize on the same entry works, because it makes the entry a property.
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
from torch.nn.utils import parametrize, prune


class Sum(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = torch.nn.ParameterList([torch.tensor([1.0, 2.0, 3.0, 4.0])])

    def forward(self):
        return self.weights[0].sum()


class Masked(torch.nn.Module):
    def forward(self, weight):
        return weight * torch.tensor([0.0, 0.0, 1.0, 1.0])


def after_a_step(module):
    """The output before and after a step of length 1, and what the next backward pass raises."""
    before = module()
    before.backward()
    torch.optim.SGD(module.parameters(), 1.0).step()
    after = module()
    try:
        after.backward()
        return before.item(), after.item(), ""
    except RuntimeError as error:
        return before.item(), after.item(), str(error).split(".")[0]


pruned, parametrized = Sum(), Sum()
prune.l1_unstructured(pruned.weights, "0", amount=0.5)
parametrize.register_parametrization(parametrized.weights, "0", Masked())
found = {"prune": after_a_step(pruned), "parametrize": after_a_step(parametrized)}
print(f"torch {torch.__version__}, outputs before and after a step; right: 7 and 5")
for name, (before, after, raised) in found.items():
    print(f"  {name}: {before:g} and {after:g}; {raised or 'no error'}")
told = "Trying to backward through the graph a second time (or directly access saved tensors after"
as_seen = found["parametrize"] == (7.0, 5.0, "")
as_seen = as_seen and found["prune"][:2] == (7.0, 7.0) and found["prune"][2].startswith(told)
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
