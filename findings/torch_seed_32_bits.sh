#!/usr/bin/env bash
# PyTorch 2.13.0: on the CPU a generator takes 32 bits of its 64-bit seed, and says it took all.
#
# Guess: seeds that differ give different numbers, as those of NumPy do; manual_seed takes 64 bits,
# and initial_seed() gives all of them back.
# Seen: seeds that are equal modulo 2^32 give the same numbers, by rand, randperm and randn, in a
# generator of one's own and by torch.manual_seed. initial_seed() and get_state() differ all the
# same. A program that packs a rank or an epoch into the upper half, seed = epoch * 2^32 + rank,
# draws the same numbers in every epoch.
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

print(f"PyTorch {torch.__version__}")
draws = {
    "rand": lambda g: torch.rand(1000, generator=g, dtype=torch.float64),
    "randn": lambda g: torch.randn(1000, generator=g),
    "randperm": lambda g: torch.randperm(1000, generator=g),
}
same = []
for name, draw in draws.items():
    one, other = (torch.Generator().manual_seed(s) for s in (7, 7 + 5 * 2**32))
    told = one.initial_seed() != other.initial_seed()
    told = told and not torch.equal(one.get_state(), other.get_state())
    same.append(told and torch.equal(draw(one), draw(other)))
    print(f"  {name}: seeds differ, numbers are {'the same' if same[-1] else 'different'}")
torch.manual_seed(7)
first = torch.rand(10)
torch.manual_seed(7 + 2**40)
same.append(torch.equal(first, torch.rand(10)))
print(f"  torch.manual_seed: {'the same' if same[-1] else 'different'}")
as_seen = all(same)
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
