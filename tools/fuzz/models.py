"""Models of `mgnet fit` whose files were damaged: read as they were, or refused.

Damage of bytes, of what model.json says, and of the header and the numbers of the weights. Half of
the structural damage is followed by new digests, or goes to files of format 1, which have none:
then the file tells another model, which must work or be refused.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from mgnet.app.columns.encoding import Encoding
from mgnet.app.columns.targets import Targets
from mgnet.app.model import Model
from mgnet.app.prediction import predict_file
from mgnet.estimators.scales import Scales
from mgnet.knots import KAN
from tools.fuzz.damage import damage_file, odd_number

__all__ = ["Fuzzer"]

JSON, WEIGHTS = "model.json", "model.safetensors"
ROWS = np.random.default_rng(0).uniform(-1.5, 1.5, (7, 3))
KINDS = "bytes", "bytes 1", "json", "json new", "json 1", "header", "header new", "values new"
NUMBERS = "nan", "inf", "-inf", "1e308", "-1e308", "0", "1e-320"
NAMES = '"a"', '"b"', '"a\\nb"', '"\\ud800"', '"\\u0000"', '""', '" "', '"y"', '"ä"', '"a\\u2028"'


def _models() -> list[Model]:
    made = []
    for number, (widths, options) in enumerate(
        [
            ([2, 3, 1], {}),
            ([1, 1], {"degree": 1}),
            ([3, 2, 2, 1], {"linear": True, "hidden": "identity", "degree": 2}),
            ([2, 2, 1], {"dtype": torch.float32, "domain": (0.0, 2.0)}),
            ([3, 1], {"intervals": [7], "degree": 5}),
        ]
    ):
        generator = torch.Generator().manual_seed(number)
        kan = KAN(widths, generator=generator, **options)
        ranges = tuple((-1.0 - k, 0.5 * k + 1.0) for k in range(widths[0]))
        scales = Scales(ranges, (200.0 + number,), (50.0,), kan.domain)
        made.append(Model(kan, Encoding.of_numbers("abc"[: widths[0]]), Targets(("y",)), scales))
    return made


def _told(model: Model, folder: Path) -> tuple[Any, ...]:
    """All that a user sees of a model."""
    rows = ROWS[:, : len(model.names)]
    lines, remarks = predict_file(folder, folder.with_name("data.csv"))
    told = model.predict(rows).tobytes(), list(lines), remarks, str(model)
    return (*told, model.encoding, model.targets, model.scales, model.network.widths)


class Fuzzer:
    """See `tools.fuzz.harness.Target`."""

    refusals = (OSError, ValueError)

    def prepare(self, folder: Path) -> None:
        """Save some models and note what they tell."""
        self.files: list[tuple[bytes, bytes]] = []
        self.told: list[tuple[Any, ...]] = []
        rows = "\n".join(",".join(map(repr, row)) for row in ROWS.tolist())
        (folder / "data.csv").write_text(f"a,b,c\n{rows}\n")
        self.table = (folder / "data.csv").read_bytes()
        for number, model in enumerate(_models()):
            own = folder / str(number)
            own.mkdir()
            model.save(own)
            self.files.append(((own / JSON).read_bytes(), (own / WEIGHTS).read_bytes()))
            self.told.append(_told(Model.load(own), own))

    def draw(self, rng: np.random.Generator, folder: Path) -> str:
        """Damage one of the models."""
        self.number, kind = int(rng.integers(len(self.files))), str(rng.choice(KINDS))
        own = folder / "model"
        own.mkdir()
        (folder / "data.csv").write_bytes(self.table)
        text, weights = self.files[self.number]
        self.strict = kind in ("bytes", "json", "header")
        self.by_file = bool(rng.integers(2))
        done = ""
        if kind == "header" or kind == "header new":
            weights, done = _edit_header(rng, weights)
        elif kind == "values new":
            weights, done = _edit_values(rng, weights)
        elif kind.startswith("json"):
            edited, done = _edit_json(rng, text.decode())
            text = edited.encode("utf-8", "surrogatepass")
        if kind.endswith("1"):
            text = _without_digests(text)
        elif kind.endswith("new"):
            text = _with_digests(text, weights)
        (own / JSON).write_bytes(text)
        (own / WEIGHTS).write_bytes(weights)
        if kind.startswith("bytes"):
            done = damage_file(rng, own / str(rng.choice([JSON, WEIGHTS])))
        return f"model {self.number}, {kind}: {done}"

    def use(self, folder: Path) -> bool:
        """Load it, predict, and tell what it is."""
        with mock.patch("os.fsync"):  # a busy disk is not what is timed
            return self._is_right(folder)

    def _is_right(self, folder: Path) -> bool:
        own = folder / "model"
        model = Model.load(own / JSON if self.by_file else own)
        told = _told(model, own)
        if self.strict:
            return told == self.told[self.number]
        again = folder / "again"
        again.mkdir()
        model.save(again)
        return _told(Model.load(again), again) == told


# Structure


def _with_digests(text: bytes, weights: bytes) -> bytes:
    """New digests, where the text still is an object."""
    try:
        told = json.loads(text)
        told["weights_sha256"] = hashlib.sha256(weights).hexdigest()
        told.pop("sha256", None)
        canonical = json.dumps(told, sort_keys=True)
        told["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
        return json.dumps(told).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return text


def _without_digests(text: bytes) -> bytes:
    try:
        told = json.loads(text)
        for key in ("sha256", "weights_sha256"):
            told.pop(key, None)
        return json.dumps(told | {"format": 1} if "format" in told else told).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return text


MARK = "@@@"  # stands for an odd value until the text is made


def _edit_json(rng: np.random.Generator, text: str) -> tuple[str, str]:
    """A value replaced, removed, doubled or renamed, somewhere in an object."""
    told = json.loads(text)
    places = list(_places(told))
    parent, key = places[int(rng.integers(len(places)))]
    kind = str(rng.choice(["odd", "name", "deep", "remove", "double", "rename", "swap", "long"]))
    odd = odd_number(rng)
    if kind in ("odd", "name", "deep", "long"):
        if kind == "name":
            odd = str(rng.choice(NAMES))
        elif kind == "deep":
            depth = int(rng.choice([50, 900, 5000, 100_000]))
            odd = "[" * depth + "]" * depth
        elif kind == "long":
            ones = "[" + "1," * 50_000 + "1]"
            odd = str(rng.choice([ones, '"' + "a" * 50_000 + '"', "9" * 5000]))
        parent[key] = MARK
    elif kind == "remove":
        del parent[key]
    elif kind == "double" and isinstance(parent, list):
        parent.insert(key, parent[key])
    elif kind == "rename" and isinstance(parent, dict):
        parent[f"{key}_"] = parent.pop(key)
    elif kind == "swap":
        other, name = places[int(rng.integers(len(places)))]
        parent[key], other[name] = json.loads(json.dumps([other[name], parent[key]]))
    made = json.dumps(told).replace(f'"{MARK}"', odd)
    return made, f"{kind} at {key}, {odd[:30]}"


def _places(told: Any) -> Any:
    """All (container, key) in nested values."""
    keys = list(told) if isinstance(told, dict) else range(len(told))
    for key in keys:
        yield told, key
        if isinstance(told[key], dict | list):
            yield from _places(told[key])


def _parts(weights: bytes) -> tuple[str, bytes]:
    size = struct.unpack("<Q", weights[:8])[0]
    return weights[8 : 8 + size].decode(), weights[8 + size :]


def _edit_header(rng: np.random.Generator, weights: bytes) -> tuple[bytes, str]:
    text, data = _parts(weights)
    text, done = _edit_json(rng, text)
    content = text.encode("utf-8", "surrogatepass")
    odd = (0, 1, 2**31, 2**63, 2**64 - 1)[int(rng.integers(5))]
    size = len(content) if rng.random() < 0.8 else odd
    if rng.random() < 0.1:
        data = data[: int(rng.integers(len(data)))]
    return struct.pack("<Q", size) + content + data, f"{done}; size {size}"


def _edit_values(rng: np.random.Generator, weights: bytes) -> tuple[bytes, str]:
    text, data = _parts(weights)
    entries = [entry for entry in json.loads(text).values() if entry["dtype"] in ("F64", "F32")]
    entry = entries[int(rng.integers(len(entries)))]
    kind = "<f8" if entry["dtype"] == "F64" else "<f4"
    values, value = bytearray(data), str(rng.choice(NUMBERS))
    begin, end = entry["data_offsets"]
    numbers = np.frombuffer(bytes(values[begin:end]), kind).copy()
    with np.errstate(over="ignore"):
        numbers[int(rng.integers(len(numbers)))] = float(value)
    values[begin:end] = numbers.tobytes()
    content = text.encode()
    return struct.pack("<Q", len(content)) + content + bytes(values), value
