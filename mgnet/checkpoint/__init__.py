"""Checkpoints: a run in files, from which it goes on with the same bits.

Reading order: `checkpoint`, `storage`, `architecture`. Needs safetensors (extra `app`).
"""

from mgnet.checkpoint.checkpoint import Checkpoint, Checkpoints

__all__ = ["Checkpoint", "Checkpoints"]
