"""The two files of a model, which are written together and read completely or refused.

`model.json` contains the digest of the weights and its own. Its contents are checked before
anything is built from them, whether the digests are correct or, as in files of format 1, absent.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import save

from mgnet import __version__
from mgnet.app.exchange import JSON, MARK, WEIGHTS, kept_aside, replace_pair, sync
from mgnet.app.model_checks import (
    DTYPES,
    EXTRA,
    are,
    check_description,
    check_finite,
    is_count,
    shapes_of,
    short,
)

__all__ = ["read_model", "write_model"]

FORMAT = 3  # 1 has no digests; in 1 and 2 all columns are numbers, and one is predicted
OWN, OF_WEIGHTS = "sha256", "weights_sha256"
JSON_BYTES, HEADER_BYTES = 2**23, 2**20  # in addition to a part that grows with the weights
TRIES = 100  # tries of a reader while others replace the model


class NewerFormatError(ValueError):
    """The model was written by a newer version."""


# Writing


def write_model(folder: Path, told: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> None:
    """Write both files into an existing folder, replacing an earlier pair.

    At every moment the folder has one complete model, the old or the new one.

    Parameters
    ----------
    folder : Path
        Existing folder.
    told : mapping
        Contents of model.json, without versions and digests.
    state : mapping
        Tensors of the network.

    Raises
    ------
    ValueError
        If the model could not be read again: a number is not finite, or a name has several lines.

    Examples
    --------
    >>> write_model(Path("."), {"kind": "KAN", "widths": [1, 1], "inputs": ["a", "b"]}, {})
    Traceback (most recent call last):
    ValueError: a model cannot be saved: classes is missing
    """
    weights = save({name: value.contiguous() for name, value in state.items()})
    every = {"mgnet": __version__, "format": FORMAT, **told}
    every = json.loads(json.dumps(every)) | {OF_WEIGHTS: hashlib.sha256(weights).hexdigest()}
    try:
        check_description(every)
        check_finite(state)
    except ValueError as error:
        raise ValueError(f"a model cannot be saved: {error}") from None
    text = json.dumps(every | {OWN: _digest(every)}, indent=2, ensure_ascii=False) + "\n"
    made = [folder / f".{name}{MARK}{os.getpid()}" for name in (WEIGHTS, JSON)]
    with ExitStack() as stack:
        for path, content in zip(made, (weights, text.encode()), strict=True):
            stack.callback(path.unlink, True)
            path.write_bytes(content)  # not `save_file`, which ignores the umask
            sync(path)
        replace_pair(made[0], made[1], folder)


def _digest(told: Mapping[str, Any]) -> str:
    """The digest of the contents of model.json, which does not depend on their layout."""
    content = {key: value for key, value in told.items() if key != OWN}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


# Reading


def read_model(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The checked contents of model.json, and the weights that belong to it.

    Parameters
    ----------
    path : Path
        The folder, or model.json in it.

    Returns
    -------
    told : dict
        Contents of model.json.
    state : dict
        Tensors by name; they are finite and have the sizes that `told` requires.

    Raises
    ------
    OSError, ValueError
        If there is no model, or if it is damaged or was written by a newer version.

    Examples
    --------
    >>> read_model(Path("/nowhere"))
    Traceback (most recent call last):
    FileNotFoundError: /nowhere holds no model.json; give a folder written by mgnet fit
    """
    file, sentence = path, OSError(f"the model {path} cannot be read (it changes all the time)")
    for _ in range(TRIES):
        text = None
        try:
            file = path / JSON if path.is_dir() else path
            text = _content(file, JSON_BYTES + 8 * _size(file.with_name(WEIGHTS)))
            told = _parsed(text, file)
            return told, _weights(file, told)
        except NewerFormatError:
            raise
        except FileNotFoundError:
            if text is None:
                raise FileNotFoundError(
                    f"{path} holds no model.json; give a folder written by mgnet fit"
                ) from None
            sentence = FileNotFoundError(
                f"{file.with_name(WEIGHTS)} is missing; it belongs to {file}"
            )
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(f"the model {path} cannot be read ({reason})") from None
        except (ValueError, RecursionError) as error:
            if text is None and file == path and path.is_dir():
                continue  # it was missing a moment ago
            reason = " ".join(str(error).split())[:120]
            sentence = ValueError(f"the model {file} is damaged ({reason}); fit it again")
        if text is None or not _is_replaced(file, text):
            break
    raise sentence


def _is_replaced(file: Path, text: bytearray) -> bool:
    """Whether another process has replaced the model in the meantime."""
    try:
        return _content(file, len(text)) != text
    except (OSError, ValueError):
        return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def _content(path: Path, most: int) -> bytearray:
    """The content of a regular file of at most this many bytes; any other file is refused."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    stream = os.open(path, flags)
    try:
        about = os.fstat(stream)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError(f"{path.name} is not a regular file")
        if about.st_size > most:
            raise ValueError(f"{path.name} has {about.st_size} bytes; the limit is {most}")
        content = bytearray(about.st_size)
        with open(stream, "rb", buffering=0, closefd=False) as file:
            view, count = memoryview(content), 0
            while count < len(content) and (got := file.readinto(view[count:])):
                count += got
            view.release()
        del content[count:]
        return content
    finally:
        os.close(stream)


def _parsed(text: bytearray, file: Path) -> dict[str, Any]:
    told = _json(text, JSON)
    if not isinstance(told, dict) or "mgnet" not in told:
        raise ValueError("it is not a description of a model")
    number = told.get("format")
    if not is_count(number):
        raise ValueError(f"format is {short(number)}")
    if number > FORMAT:
        raise NewerFormatError(
            f"{file} has format {short(number)}, written by mgnet {short(told['mgnet'])}; "
            f"this mgnet {__version__} reads up to {FORMAT}: upgrade it"
        )
    if number > 1 or OWN in told or OF_WEIGHTS in told:
        weights = told.get(OF_WEIGHTS)
        if not (isinstance(weights, str) and re.fullmatch("[0-9a-f]{64}", weights)):
            raise ValueError("the digest of its weights is missing")
        if told.get(OWN) != _digest(told):
            raise ValueError("model.json does not match its digest")
    check_description(told)
    return told


def _json(text: bytes | bytearray, name: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise ValueError("an entry occurs twice")
        return made

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a number")

    try:
        return json.loads(text.decode(), object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not a JSON text: {error}") from None


# Weights


def _weights(file: Path, told: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    kind, dtype = DTYPES[told.get("dtype", "float64")]
    shapes = shapes_of(told)
    bytes_each = torch.finfo(dtype).bits // 8
    size = sum(bytes_each * math.prod(shape) for shape in shapes.values())
    most = size + HEADER_BYTES + 1000 * len(shapes)
    digest = told.get(OF_WEIGHTS)
    if digest is None:
        content = _content(file.with_name(WEIGHTS), most)
    else:
        content = _content_of(file, digest, most)
    state = {}
    for name, kind_there, shape, begin, end in _entries(content):
        if name == EXTRA and kind_there == "U8" and len(shape) == 1:
            state[name] = torch.frombuffer(content[begin:end], dtype=torch.uint8)
            continue
        if shapes.get(name) != shape or kind_there != kind:
            raise ValueError(f"{WEIGHTS} has {short(name)} of {kind_there} and {short(shape)}")
        if end - begin != bytes_each * math.prod(shape):
            raise ValueError(f"{WEIGHTS} has {end - begin} bytes for {short(name)}")
        flat = torch.frombuffer(content, dtype=dtype, count=math.prod(shape), offset=begin)
        state[name] = flat.view(shape).clone()
    if missing := sorted(shapes.keys() - state.keys()):
        raise ValueError(f"{WEIGHTS} lacks {missing[0]}")
    check_finite(state)
    return state


def _content_of(file: Path, digest: str, most: int) -> bytearray:
    """Find weights by their digest, under one of the names that `replace_pair` gives them."""
    # The first name is tried twice: the file may get it after the first try, before the second.
    for name in (WEIGHTS, kept_aside(digest), WEIGHTS):
        if name == WEIGHTS or file.with_name(name).exists():
            try:
                content = _content(file.with_name(name), most)
            except FileNotFoundError:
                continue
            if hashlib.sha256(content).hexdigest() == digest:
                return content
    if not file.with_name(WEIGHTS).exists():
        raise FileNotFoundError(WEIGHTS)
    raise ValueError(f"{WEIGHTS} does not match the digest in model.json")


def _entries(content: bytearray) -> Iterator[tuple[str, str, tuple[int, ...], int, int]]:
    """Name, type, shape and position of each tensor of a safetensors file."""
    start = 8 + int.from_bytes(content[:8], "little")
    if not 8 < start <= len(content):
        raise ValueError(f"{WEIGHTS} is cut")
    header = _json(content[8:start], f"the header of {WEIGHTS}")
    if not isinstance(header, dict):
        raise ValueError(f"{WEIGHTS} has no header")
    places = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict):
            raise ValueError(f"{WEIGHTS} does not describe {short(name)}")
        kind, shape, place = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
        if not isinstance(kind, str) or not are(shape, is_count):
            raise ValueError(f"{WEIGHTS} has {short(name)} of {short(kind)} and {short(shape)}")
        if not are(place, lambda n: type(n) is int) or len(place) != 2:
            raise ValueError(f"{WEIGHTS} has no position for {short(name)}")
        begin, end = start + place[0], start + place[1]
        places.append((begin, end))
        if not start <= begin < end <= len(content):
            raise ValueError(f"{WEIGHTS} is cut: {short(name)} is missing")
        yield name, kind, tuple(shape), begin, end
    ends = [start, *(end for _, end in sorted(places))]
    if ends != [*(begin for begin, _ in sorted(places)), len(content)]:
        raise ValueError(f"{WEIGHTS} has gaps")
