#!/usr/bin/env bash
# accelerate 1.15.0: a checkpoint that save_model wrote is refused by load_checkpoint_and_dispatch
# if the module has an extra state.
#
# Guess: what Accelerator.save_model writes, load_checkpoint_and_dispatch loads into a module made
# under init_empty_weights, as its documentation shows; an extra state that is a tensor is an entry
# of the file like any other and arrives in set_extra_state.
# Seen: ValueError "... does not have a parameter or a buffer named _extra_state." With a device_map
# the entries of the file are set one by one as parameters or buffers; load_state_dict, which knows
# extra states, is only called without one. load_checkpoint_in_model(module, folder) and
# safetensors.torch.load_model read the same file.
#
# Exits with 0 while that is so. Needs Python 3 and a package index; runs without mgnet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  accelerate==1.15.0 safetensors==0.8.0 torch==2.13.0 numpy==2.2.6
"$folder/venv/bin/python" - <<'PY'
import sys
import tempfile

import accelerate
import torch


class Counting(torch.nn.Linear):
    """A layer whose state holds a number besides its tensors."""

    calls = 0

    def get_extra_state(self):
        return torch.tensor([self.calls])

    def set_extra_state(self, state):
        self.calls = int(state[0])


saved = Counting(2, 2)
saved.calls = 3
with tempfile.TemporaryDirectory() as folder:
    accelerate.Accelerator(cpu=True).save_model(saved, folder)
    plain = Counting(2, 2)
    accelerate.load_checkpoint_in_model(plain, folder)
    with accelerate.init_empty_weights():
        empty = Counting(2, 2)
    try:
        accelerate.load_checkpoint_and_dispatch(empty, folder, device_map={"": "cpu"})
        raised = f"none, calls = {empty.calls}"
    except ValueError as error:
        raised = str(error)
print(f"accelerate {accelerate.__version__}, torch {torch.__version__}, saved with calls = 3")
print(f"  load_checkpoint_in_model: calls = {plain.calls}")
print(f"  load_checkpoint_and_dispatch: {raised}")
as_seen = plain.calls == 3 and raised.endswith("a parameter or a buffer named _extra_state.")
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
