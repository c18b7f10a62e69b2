"""Damage to files of `mgnet.checkpoint.storage`: bytes, JSON, with the old digest or a new one.

Reads and writes them without mgnet.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tools.fuzz.damage import damage_file, odd_number

__all__ = [
    "damage_json",
    "damage_stored",
    "decoded",
    "sealed",
    "unchanged_but",
    "unsealed",
    "with_tensors",
    "without_sync",
]

BEFORE = b'{"__metadata__":{"sha256":"'
DIGEST = slice(8 + len(BEFORE), 8 + len(BEFORE) + 64)
PARTS = "dtype", "device"
HERE = '"@@here@@"'
LARGE = [
    "[" * 20000 + "]" * 20000,
    '{"tuple":[' * 3000 + "]}" * 3000,
    "[" * 100000,
    '"' + "x" * 200000 + '"',
    "[" + "0," * 10000 + "0]",
    "9" * 5000,
    "[100000000000,100000000000]",
    "[0,1000000000000000000000]",
    '"cascade 999999999"',
    '"W(1,1)"',
    '"nested K999999999(1,1)"',
    '{"float":"nan"}',
    '{"tensor":"random","device":"meta"}',
    '{"tensor":"random","dtype":"x"}',
    '{"a":1,"a":2}',
    '"\\ud800"',
    "1e-400",
]


@contextmanager
def without_sync() -> Iterator[None]:
    """Files do not wait for the disk."""
    sync, os.fsync = os.fsync, lambda descriptor: None
    try:
        yield
    finally:
        os.fsync = sync


def unsealed(content: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The JSON, the description of the tensors, and their bytes."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    told = json.loads(header.pop("__metadata__")["mgnet"])
    return told, header, content[8 + length :]


def sealed(told: str, header: str, data: bytes) -> bytes:
    """A file of these texts, with a right digest; `header` without the metadata."""
    metadata = BEFORE.decode() + "0" * 64 + '","mgnet":' + json.dumps(told) + "}"
    rest = header.strip()[1:] if header.strip() not in ("{}", "") else "}"
    text = (metadata + ("" if rest == "}" else ",") + rest).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    content = bytearray(len(text).to_bytes(8, "little") + text + data)
    digest = hashlib.sha256(content[: DIGEST.start] + content[DIGEST.stop :])
    content[DIGEST] = digest.hexdigest().encode()
    return bytes(content)


def decoded(content: bytes) -> Any:
    """What two files must agree in: the JSON with its tensors, and those that it does not name."""
    told, header, data = unsealed(content)
    told.pop("mgnet")
    return with_tensors(told, header, data)


def with_tensors(told: Any, header: dict[str, Any], data: bytes) -> Any:
    """A JSON value with dtype, shape and bytes in the place of names, and the other tensors."""
    tensors = {
        name: [each["dtype"], each["shape"], data[slice(*each["data_offsets"])].hex()]
        for name, each in header.items()
    }
    named: set[str] = set()

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(each) for each in value]
        if not isinstance(value, dict):
            return value
        name = value.get("tensor") or value.get("array") or value.get("scalar")
        if isinstance(name, str) and name in tensors:
            named.add(name)
            return {key: each if key in PARTS else tensors[name] for key, each in value.items()}
        return {key: filled(each) for key, each in value.items()}

    whole = filled(told)
    return whole, {name: tensors[name] for name in tensors if name not in named}


def damage_stored(rng: np.random.Generator, path: Path) -> tuple[str, bool]:
    """Damage a file; what was done, and whether its digest is right all the same."""
    kind = rng.choice(["bytes", "stale", "told", "header", "data"], p=[0.25, 0.1, 0.4, 0.15, 0.1])
    if kind == "bytes":
        return damage_file(rng, path), False
    content = path.read_bytes()
    told, header, data = unsealed(content)
    if kind == "data":
        wrong = bytearray(data)
        how = rng.choice(["flip", "nan", "zero", "cut", "more"])
        place = int(rng.integers(len(data)))
        if how == "flip":
            wrong[place] ^= 1 << int(rng.integers(8))
        elif how in ("nan", "zero"):
            begin = place - place % 8
            wrong[begin : begin + 8] = (b"\xff" if how == "nan" else b"\0") * len(
                wrong[begin : begin + 8]
            )
        elif how == "cut":
            del wrong[place:]
        else:
            wrong += bytes(int(rng.integers(1, 20)))
        path.write_bytes(sealed(json.dumps(told), json.dumps(header), bytes(wrong)))
        return f"data {how} {place}", True
    texts = [json.dumps(told), json.dumps(header)]
    which = 1 if kind == "header" else 0
    done = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))):
        try:
            texts[which], how = damage_json(rng, texts[which])
        except (ValueError, RecursionError):  # it is not JSON any more
            break
        done.append(how)
    new = sealed(texts[0], texts[1], data)
    if kind == "stale":
        new = new[: DIGEST.start] + content[DIGEST] + new[DIGEST.stop :]
    path.write_bytes(new)
    return f"{kind}: {'; '.join(done)}", kind != "stale"


def damage_json(rng: np.random.Generator, text: str) -> tuple[str, str]:
    """Change a JSON text in one place; the text, and what was done."""
    value = json.loads(text)
    places: list[tuple[Any, Any, str]] = []
    _walk(value, "", places)
    if not places:
        return odd_number(rng), "replaced"
    holder, key, path = places[_index(rng, places)]
    how = str(rng.choice(["odd", "large", "number", "drop", "double", "copy", "name", "kind"]))
    path = path[:150]
    if how in ("odd", "large"):
        new = odd_number(rng) if how == "odd" else LARGE[_index(rng, LARGE)]
        holder[key] = HERE[1:-1]
        return json.dumps(value).replace(HERE, new, 1), f"{path} = {new[:40]}"
    old = holder[key]
    if how == "number":
        factor, shift = rng.choice([-1, 0, 1, 2, 1000]), rng.choice([-1, 0, 1, 2**31])
        holder[key] = type(old)(old * factor + shift) if type(old) in (int, float) else int(factor)
    elif how == "drop":
        del holder[key]
    elif how == "double":
        if isinstance(holder, list):
            holder.insert(key, old)
        else:
            holder[f"{key}_"] = old
    elif how == "copy":
        other, theirs, _ = places[_index(rng, places)]
        holder[key] = json.loads(json.dumps(other[theirs]))
    elif how == "name" and isinstance(holder, dict):
        del holder[key]
        holder[str(rng.choice(["x", "", "tensor", "tuple", "dict", "level0", key + "x"]))] = old
    else:
        new = {"array": old} if isinstance(old, str) else {"tuple": [old]}
        holder[key] = [old] if rng.random() < 0.5 else new
    return json.dumps(value), f"{how} {path}"


def _walk(value: Any, path: str, places: list[tuple[Any, Any, str]]) -> None:
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    for key, each in pairs:
        places.append((value, key, f"{path}/{key}"))
        _walk(each, f"{path}/{key}", places)


def _index(rng: np.random.Generator, values: Any) -> int:
    return int(rng.integers(len(values)))


def unchanged_but(saved: Any, now: Any, more: Callable[[str], bool], path: str = "") -> str:
    """Where a JSON value is not what was saved; "" if nowhere.

    At the paths that `more` names, dicts may have more entries than were saved.
    """
    if isinstance(saved, dict) and isinstance(now, dict) and saved.keys() == now.keys():
        if list(saved) == ["dict"] and more(path):
            keys = [pair[0] for pair in saved["dict"]]
            now = {"dict": [pair for pair in now["dict"] if pair[0] in keys]}
            order = [pair[0] for pair in now["dict"]]
            saved = {"dict": sorted(saved["dict"], key=lambda pair: order.index(pair[0]))}
        found = (unchanged_but(saved[k], now[k], more, f"{path}/{k}") for k in saved)
        return next(filter(None, found), "")
    if isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now):
        pairs = enumerate(zip(saved, now, strict=True))
        found = (unchanged_but(a, b, more, f"{path}/{n}") for n, (a, b) in pairs)
        return next(filter(None, found), "")
    same = type(saved) is type(now) and repr(saved) == repr(now)
    return "" if same else f"{path}: {str(saved)[:60]} {str(now)[:60]}"
