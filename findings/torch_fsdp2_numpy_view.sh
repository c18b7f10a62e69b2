#!/usr/bin/env bash
# PyTorch 2.13.0: a module that looks at its weight by weight.detach().numpy() cannot be trained
# under FSDP2 on the CPU.
#
# Guess: .numpy() shares memory and changes nothing about the tensor; a view that is gone before the
# call ends, as compiled loops take one, does not concern fully_shard.
# Seen: the first backward pass ends with "Trying to resize storage that is not resizable".
# .numpy() marks the storage as not resizable, for ever, and fully_shard frees gathered weights by
# storage.resize_(0). The same module without that line trains.
#
# Exits with 0 while that is so. Needs Python 3 and a package index; runs without mgnet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 numpy==2.2.6
cat > "$folder/train.py" <<'PY'
import os
import sys
import warnings

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

warnings.simplefilter("ignore")


class Looking(torch.nn.Linear):
    def forward(self, x):
        self.weight.detach().numpy().max()
        return super().forward(x)


def trained(kind, mesh):
    """What a first pass ends with."""
    module = fully_shard(kind(3, 4), mesh=mesh)
    try:
        module(torch.ones(2, 3)).sum().backward()
    except RuntimeError as error:
        return str(error)
    return "no error"


def main(rank, folder):
    group = {"init_method": f"file://{folder}/group", "rank": rank, "world_size": 2}
    torch.distributed.init_process_group("gloo", **group)
    mesh = init_device_mesh("cpu", (2,))
    plain, looking = trained(torch.nn.Linear, mesh), trained(Looking, mesh)
    if rank == 0:
        print(f"torch {torch.__version__}, 2 processes (gloo)")
        print(f"  Linear: {plain}")
        print(f"  Linear that calls weight.detach().numpy(): {looking}")
        as_seen = (plain, looking) == ("no error", "Trying to resize storage that is not resizable")
        print("as seen before" if as_seen else "changed: look again", flush=True)
        with open(os.path.join(folder, "as_seen"), "w") as file:
            file.write(str(as_seen))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    folder = os.path.dirname(os.path.abspath(__file__))
    torch.multiprocessing.spawn(main, args=(folder,), nprocs=2)
    with open(os.path.join(folder, "as_seen")) as file:
        sys.exit(file.read() != "True")
PY
"$folder/venv/bin/python" "$folder/train.py"
