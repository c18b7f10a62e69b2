#!/usr/bin/env bash
# torch 2.13.0: torch.load reads a file with a flipped bit and gives other numbers, without an error,
# though the file has checksums that tell.
#
# Guess: torch.save writes a zip archive, with a CRC-32 of each tensor (set_crc32_options is on by
# default), so torch.load notices when a disk or a transfer has changed a bit of a tensor.
# Seen: the tensor comes back with another number in it, with weights_only=True and False, with
# mmap=True, too. zipfile.testzip() of the standard library names the damaged record of the same
# file. Who keeps checkpoints by torch.save can call that before torch.load.
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
import tempfile
import zipfile
from pathlib import Path

import torch

saved = torch.arange(1000.0)
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "state.pt")
    torch.save({"weight": saved}, file)
    content = bytearray(file.read_bytes())
    place = content.index(saved.numpy().tobytes()) + 4 * 500 + 3
    content[place] ^= 1
    file.write_bytes(content)
    ways = [{"weights_only": True}, {"weights_only": False}, {"weights_only": True, "mmap": True}]
    found = [float(torch.load(file, **way)["weight"][500]) for way in ways]
    with zipfile.ZipFile(file) as archive:
        record = archive.testzip()
print(f"torch {torch.__version__}, crc32 written: {torch.serialization.get_crc32_options()}")
print(f"  saved {float(saved[500])}, loaded after one flipped bit: {found}")
print(f"  zipfile.testzip names {record}")
as_seen = all(value != 500.0 for value in found) and record is not None and "data/0" in record
print("as seen before" if as_seen else "changed: look again")
sys.exit(not as_seen)
PY
