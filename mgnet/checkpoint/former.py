"""The first format of checkpoints: `checkpoint.json`, and a file of tensors that it names."""

from __future__ import annotations

import hashlib
from pathlib import Path
from re import fullmatch
from typing import Any

import torch

from mgnet.checkpoint.storage import (
    LONGEST_HEADER,
    check_ordinary,
    is_count,
    refusal,
    strict_json,
    tensors_in,
)

__all__ = ["read_pair"]


def read_pair(file: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read the values of `checkpoint.json`, and the tensors of its second file.

    Only the tensors have a digest. Damage to `checkpoint.json` itself is found only if it makes a
    value invalid.

    Parameters
    ----------
    file : Path
        Path of `checkpoint.json`.

    Raises
    ------
    OSError, ValueError
        If a file is missing or damaged.

    Examples
    --------
    >>> read_pair(Path("no", "checkpoint.json"))
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'no/checkpoint.json'
    """
    check_ordinary(file)
    try:
        told = strict_json(file.read_bytes())
        name = told.get("tensors") if isinstance(told, dict) else None
        if not isinstance(name, str) or not fullmatch(r"tensors-[0-9a-f]{16}\.safetensors", name):
            raise ValueError("it names no file of tensors")
        if not is_count(told.get("format"), 1) or told["format"] > 1:
            raise ValueError(f"it has the format {told.get('format')!r}; 1 is expected")
        path = file.with_name(name)
        if not path.exists():
            raise ValueError(f"{name} is missing")
        check_ordinary(path)
        content = bytearray(path.read_bytes())
        if hashlib.sha256(content).hexdigest() != told.get("sha256"):
            raise ValueError(f"{name} is not the file that was written")
        length = int.from_bytes(content[:8], "little")
        if length > min(LONGEST_HEADER, len(content) - 8):
            raise ValueError(f"{name} is shorter than its header")
        header = strict_json(content[8 : 8 + length])
        if not isinstance(header, dict):
            raise ValueError(f"{name} has no header")
        header.pop("__metadata__", None)
        return told, tensors_in(header, torch.frombuffer(content, dtype=torch.uint8)[8 + length :])
    except (ValueError, RecursionError) as error:
        raise refusal(file, error) from None
