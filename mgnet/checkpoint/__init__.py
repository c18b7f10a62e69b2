"""Checkpoints: files that store a run, which then continues with bitwise identical results.

Reading order: `checkpoint`, `content`, `values`, `storage`; `architecture`, `generators`, `former`.
`mgnet.petsc.resumable_steps` also writes its file with `values` and `storage`.
"""

from mgnet.checkpoint.checkpoint import Checkpoint, Checkpoints

__all__ = ["Checkpoint", "Checkpoints"]
