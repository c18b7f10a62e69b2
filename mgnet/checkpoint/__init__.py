"""Checkpoints: a run in a file, from which it goes on with the same bits.

Reading order: `checkpoint`, `content`, `values`, `storage`; `architecture`, `generators`, `former`.
`mgnet.petsc.resumable_steps` writes its file by `values` and `storage`, too.
"""

from mgnet.checkpoint.checkpoint import Checkpoint, Checkpoints

__all__ = ["Checkpoint", "Checkpoints"]
