"""Files of JSON and tensors with a single digest; a file is read completely or refused.

The files have the safetensors format, whose tools can read the tensors. The metadata begin with
`sha256`, the digest of all bytes but its own 64, which have a fixed position. The digest is
compared before anything else in the file is used. `docs/training.md`, "Files of checkpoints",
describes the format.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from errno import EINVAL
from glob import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgnet import __version__

__all__ = ["DTYPES", "FORMAT", "check_ordinary", "is_count", "read_file", "refusal"]
__all__ += ["replace_file", "strict_json", "tensors_in", "write_file"]

FORMAT = 2
BEFORE = b'{"__metadata__":{"sha256":"'
DIGEST = slice(8 + len(BEFORE), 8 + len(BEFORE) + 64)
LONGEST_HEADER = 10**8  # bytes
MOST_AXES = 64
LEFT_OVER = 3600.0  # seconds after which an unfinished file counts as abandoned
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class _RemediedError(ValueError):
    """A refusal whose message contains a remedy."""


def write_file(path: Path, kind: str, told: Mapping[str, Any], tensors: Mapping[str, Tensor]):
    """Write a file, or replace an existing one in one step.

    Parameters
    ----------
    path : Path
        Path of the file; missing folders above it are created.
    kind : str
        Kind of the contents.
    told : mapping
        Values that JSON can hold; `kind`, `format` and `mgnet` are added.
    tensors : mapping
        Contiguous tensors on the CPU with the types in `DTYPES`.

    Raises
    ------
    OSError
        If the file cannot be written; an existing file is then intact.
    ValueError
        If the header would exceed 100 MB, because there are too many values besides tensors.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "a.safetensors"
    >>> write_file(path, "example", {"step": 3}, {"u": torch.ones(2)})
    >>> told, tensors = read_file(path, "example")
    >>> told["step"], tensors
    (3, {'u': tensor([1., 1.])})
    """
    told = {"kind": kind, "format": FORMAT, "mgnet": __version__, **told}
    metadata = {"sha256": "0" * 64, "mgnet": json.dumps(told, allow_nan=False)}
    entries: dict[str, Any] = {"__metadata__": metadata}
    # So that all are aligned.
    order, end = sorted(tensors, key=lambda name: -tensors[name].itemsize), 0
    for name in order:
        tensor, begin = tensors[name], end
        end += tensor.nbytes
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > LONGEST_HEADER:
        raise ValueError(
            f"the checkpoint {path} would have {len(header)} bytes of names and numbers besides "
            f"its tensors; at most {LONGEST_HEADER} can be read: keep long lists as tensors"
        )
    head = bytearray(len(header).to_bytes(8, "little") + header)
    parts = [tensors[name].reshape(-1).view(torch.uint8).numpy() for name in order]
    head[DIGEST] = _digest(head, parts)
    replace_file(path, [head, *parts])


def read_file(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the values and the tensors of a file that `write_file` wrote.

    Parameters
    ----------
    path : Path
        Path of the file.
    kind : str
        Kind under which the file was written.

    Raises
    ------
    OSError
        If there is no file, or it cannot be read.
    ValueError
        If it is damaged, has another kind, or a newer version wrote it.

    Examples
    --------
    >>> import os
    >>> read_file(Path(os.devnull), "example")
    Traceback (most recent call last):
    ValueError: the checkpoint /dev/null cannot be read: it is not an ordinary file; use another one
    """
    check_ordinary(path)
    try:
        content = _content(path)
        length = int.from_bytes(content[:8], "little")
        header = strict_json(content[8 : 8 + length])
        metadata = header.pop("__metadata__")
        if set(metadata) != {"sha256", "mgnet"} or not isinstance(metadata["mgnet"], str):
            raise ValueError("its metadata are not those of mgnet")
        told = strict_json(metadata["mgnet"])
        known = isinstance(told, dict) and isinstance(told.get("mgnet"), str)
        if not known or not is_count(told.get("format"), 1):
            raise ValueError("its version and format are missing")
        if told["format"] > FORMAT:
            raise _RemediedError(
                f"it has format {told['format']}, of mgnet {told['mgnet'][:20]}, and this mgnet "
                f"{__version__} reads up to {FORMAT}: upgrade it"
            )
        if told.get("kind") != kind or told["format"] != FORMAT:
            raise ValueError(f"it was not written by {kind}")
        return told, tensors_in(header, torch.frombuffer(content, dtype=torch.uint8)[8 + length :])
    except (ValueError, RecursionError) as error:
        raise refusal(path, error) from None


def check_ordinary(path: Path) -> None:
    """Refuse a path that is not an ordinary file; reading a pipe would block.

    Examples
    --------
    >>> check_ordinary(Path("."))
    Traceback (most recent call last):
    ValueError: the checkpoint . cannot be read: it is not an ordinary file; use another one
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise refusal(path, "it is not an ordinary file")


def refusal(path: Path, why: Exception | str) -> ValueError:
    """The error for a file that cannot be used, in one line.

    Examples
    --------
    >>> print(refusal(Path("run.pt"), "it is empty"))
    the checkpoint run.pt cannot be read: it is empty; use another one
    """
    text = "its values are nested too deeply" if isinstance(why, RecursionError) else str(why)
    text = " ".join(text.split())
    short = text if len(text) <= 300 else f"{text[:300]}..."
    remedy = "" if isinstance(why, _RemediedError) else "; use another one"
    return ValueError(f"the checkpoint {path} cannot be read: {short}{remedy}")


def is_count(value: Any, least: int = 0) -> bool:
    """Whether a value from JSON is an integer of at least `least`, and not a bool.

    Examples
    --------
    >>> is_count(3), is_count(True), is_count(-1), is_count(2.0)
    (True, False, False, False)
    """
    return type(value) is int and value >= least


def strict_json(text: str | bytes | bytearray) -> Any:
    """The value of a JSON text, which is refused if other readers could read it differently.

    Parameters
    ----------
    text : str or bytes
        Text to read.

    Raises
    ------
    ValueError, RecursionError
        If it is not JSON, a key occurs twice, or a number is not finite.

    Examples
    --------
    >>> strict_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: the key 'a' occurs twice
    """
    if not isinstance(text, str):
        text = text.decode("utf-8")
    hooks: dict[str, Any] = {"parse_constant": _not_json, "parse_float": _finite}
    return json.loads(text, object_pairs_hook=_unique, **hooks)


def tensors_in(header: Mapping[str, Any], data: Tensor) -> dict[str, Tensor]:
    """The tensors that a header describes, each with its own memory.

    Parameters
    ----------
    header : mapping
        Header without metadata.
    data : uint8 tensor (bytes,)
        Bytes after the header.

    Raises
    ------
    ValueError
        If they are not described as in the safetensors format, or do not fill the data.

    Examples
    --------
    >>> entry = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
    >>> tensors_in({"a": entry}, torch.tensor([1, 2], dtype=torch.uint8))
    {'a': tensor([1, 2], dtype=torch.uint8)}
    """
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"the tensor '{name}' is not described by dtype, shape and offsets")
        shape, offsets = entry["shape"], entry["data_offsets"]
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
            raise ValueError(f"the tensor '{name}' has the dtype {entry['dtype']!r}")
        if not isinstance(shape, list) or len(shape) > MOST_AXES or not all(map(is_count, shape)):
            raise ValueError(f"the tensor '{name}' has the shape {shape!r}")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_count, offsets)):
            raise ValueError(f"the tensor '{name}' has the offsets {offsets!r}")
    found, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda each: each[1]["data_offsets"]):
        dtype, shape, (begin, stop) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if math.prod(max(n, 1) for n in shape) >= 2**63:
            raise ValueError(f"the tensor '{name}' has the shape {shape!r}")
        if begin != end or stop - begin != math.prod(shape) * dtype.itemsize or stop > len(data):
            raise ValueError(f"the tensor '{name}' of shape {shape} is not at the bytes {begin} on")
        own = data[begin:stop].clone()
        if dtype is torch.bool and (own > 1).any():
            raise ValueError(f"the tensor '{name}' of bools contains numbers other than 0 and 1")
        found[name], end = own.view(dtype).view(shape), stop
    if end != len(data):
        raise ValueError(f"it has {len(data)} bytes for tensors, of which {end} are described")
    return {name: found[name] for name in header}


def replace_file(path: Path, parts: Iterable[Any]) -> None:
    """Write bytes to a file so that at all times either the old or the new file is there, complete.

    The new file is complete on the disk before it is renamed. If several processes write, the last
    one wins. A process that is killed leaves an unfinished file, which later calls remove after an
    hour.

    Parameters
    ----------
    path : Path
        Path of the file; missing folders are created. Links and the file's mode are kept.
    parts : iterable of bytes
        Contents of the file.

    Raises
    ------
    OSError
        If the file cannot be written; an existing file is then intact.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "a"
    >>> replace_file(path, [b"one, ", b"two"])
    >>> path.read_bytes()
    b'one, two'
    """
    path = Path(os.path.realpath(path))
    unfinished = path.with_name((begun := f".unfinished-{path.name}-") + secrets.token_hex(4))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(unfinished, "xb") as stream:
                for part in parts:
                    stream.write(part)
                stream.flush()
                os.fsync(stream.fileno())
            with suppress(OSError):  # there is no file yet
                shutil.copymode(path, unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        blocked = isinstance(error, FileExistsError | NotADirectoryError)
        way = f"a file is in the way of the folder {path.parent}"
        why = way if blocked else error.strerror or str(error)
        former = "; the old one is intact" if os.path.isfile(path) else ""
        why = f"the checkpoint was not saved ({why}); give another folder{former}"
        raise OSError(error.errno or 0, why, str(path)) from None
    _sync(path.parent)
    for old in path.parent.glob(f"{escape(begun)}????????"):
        with suppress(OSError):  # another process may remove it, or own it
            if time.time() - old.stat().st_mtime > LEFT_OVER:
                old.unlink()


def _content(path: Path) -> bytearray:
    """Read the whole file, if its digest is correct."""
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(DIGEST.stop)
        if head[:4] == b"PK\x03\x04":
            raise _RemediedError(
                "it is a file of torch.save, written by an older mgnet without a digest, so "
                "damage cannot be detected; use that version, or start again in another folder"
            )
        if head[8 : DIGEST.start] != BEFORE or len(head) < DIGEST.stop:
            raise ValueError("mgnet has not written it, or its beginning is damaged")
        length = int.from_bytes(head[:8], "little")
        if length > LONGEST_HEADER or 8 + length > size or length < DIGEST.stop - 8:
            raise ValueError("its header is longer than the file, or its beginning is damaged")
        content = bytearray(size)
        content[: len(head)] = head
        more = stream.readinto(memoryview(content)[len(head) :])
        if len(head) + more != size:
            raise ValueError("it was changed while it was read")
    if _digest(content, []) != content[DIGEST]:
        raise ValueError("it is damaged: its digest does not match")
    return content


def _digest(content: bytearray, parts: Iterable[Any]) -> bytes:
    found = hashlib.sha256(memoryview(content)[: DIGEST.start])
    found.update(memoryview(content)[DIGEST.stop :])
    for part in parts:
        found.update(part)
    return found.hexdigest().encode()


def _sync(folder: Path) -> None:
    """Flush the folder, which holds the new name, to the disk as well."""
    if sys.platform == "win32":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != EINVAL:  # from file systems that cannot do that
            raise
    finally:
        os.close(descriptor)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key '{key}' occurs twice")
        found[key] = value
    return found


def _not_json(text: str) -> Any:
    raise ValueError(f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value
