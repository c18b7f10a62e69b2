#!/usr/bin/env bash
# PyTorch 2.13.0: an optimizer that loads the state of a live one goes on sharing its tensors.
#
# Guess: load_state_dict copies, as that of a module does, so a fork of a training (two rates from
# one warm start, a population, a look ahead) is `new.load_state_dict(old.state_dict())`.
# Seen: moments are the same tensors in both optimizers, and steps change them in place: after the
# fork each step of one moves the moments of the other, without a word. A copy.deepcopy of the state
# before it is loaded gives the bits of an undisturbed run; so does a file, by torch.save.
#
# Exits with 0 while that is so. Needs Python 3 and a package index; runs without mgnet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.2.6
"$folder/venv/bin/python" - <<'PY'
import copy
import sys

import torch

print(f"PyTorch {torch.__version__}")
x = torch.linspace(-1.0, 1.0, 30).reshape(10, 3)


def steps(network, optimizer, count):
    for _ in range(count):
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()


def fork(kind, copied):
    """The weights of a run that was forked after 5 steps, and whether the fork shares a tensor."""
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 1)
    optimizer = kind(network.parameters(), lr=1e-2)
    steps(network, optimizer, 5)
    other = copy.deepcopy(network)
    second = kind(other.parameters(), lr=1e-2)
    state = optimizer.state_dict()
    second.load_state_dict(copy.deepcopy(state) if copied else state)
    mine, theirs = optimizer.state[network.weight], second.state[other.weight]
    shared = any(torch.is_tensor(value) and value is theirs[name] for name, value in mine.items())
    steps(other, second, 20)
    steps(network, optimizer, 20)
    return network.weight.detach(), shared


as_seen = True
for kind in (torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad):
    alone, apart = fork(kind, copied=True)
    beside, shared = fork(kind, copied=False)
    change = float((alone - beside).abs().max())
    print(f"  {kind.__name__}: shares tensors: {shared}, weights moved by {change:.1e}")
    as_seen &= shared and not apart and change > 1e-4
module = torch.nn.Linear(3, 1)
module.load_state_dict(other := torch.nn.Linear(3, 1).state_dict())
as_seen &= module.weight.data_ptr() != other["weight"].data_ptr()
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
