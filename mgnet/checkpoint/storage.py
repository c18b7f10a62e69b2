"""Nested values as JSON beside named tensors, without pickle.

Numbers, strings, lists, tuples, named tuples, dicts, NumPy arrays and tensors come back as they
were, bit for bit. A tensor that occurs twice is stored once and comes back as one object.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from mgnet import __version__

__all__ = ["Reader", "Writer", "damage", "read_json", "read_tensors", "replace_files"]

TENSORS = "tensors-{}.safetensors"  # by the hash of its content


class Writer:
    """Turns values into JSON, and collects their tensors.

    Attributes
    ----------
    tensors : dict
        By name, contiguous and on the CPU, none sharing memory with another.
    packed : dict
        Of each flat vector that was cut into named pieces: a list of [name, shape, by edge].

    Examples
    --------
    >>> writer = Writer()
    >>> writer.encode((1.5, None, torch.zeros(2)), "memory")
    {'tuple': [1.5, None, {'tensor': 'memory.2'}]}
    """

    def __init__(self):
        self.tensors: dict[str, torch.Tensor] = {}
        self.packed: dict[str, list[list[Any]]] = {}
        self._nodes: dict[int, dict[str, str]] = {}
        self._seen: list[torch.Tensor] = []  # alive, so that no id is used twice

    def encode(self, value: Any, name: str) -> Any:
        """A value as JSON.

        Parameters
        ----------
        value : object
        name : str
            Begins the names of its tensors, and tells what it is in errors.

        Raises
        ------
        TypeError
            If something in it cannot be stored.
        """
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if type(value) is list:
            return self._entries(value, name)
        if isinstance(value, tuple):
            kind = type(value)
            entries = self._entries(value, name)
            if kind is tuple:
                return {"tuple": entries}
            if "_fields" in vars(kind):
                return {"named tuple": f"{kind.__module__}:{kind.__qualname__}", "values": entries}
        if type(value) is dict:
            pairs = [(key, self.encode(entry, f"{name}.{key}")) for key, entry in value.items()]
            if all(type(key) in (int, str) for key in value):
                return {"dict": [list(pair) for pair in pairs]}
        if isinstance(value, torch.Tensor) and value.layout is torch.strided:
            return self._keep(value, name)
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
            kind = "array" if isinstance(value, np.ndarray) else "scalar"
            return {kind: self._keep(torch.from_numpy(np.array(value)), name)["tensor"]}
        raise TypeError(
            f"a checkpoint got {name} of type {type(value).__name__}; it stores numbers, strings, "
            "lists, tuples, dicts with int or str keys, arrays and tensors"
        )

    def pack(
        self, vector: torch.Tensor, name: str, shapes: Mapping[str, Any], edges: bool
    ) -> dict[str, str]:
        """A flat vector as JSON, cut into the parameters of a network.

        Parameters
        ----------
        vector : tensor
        name : str
        shapes : mapping
            Of the parameters, by name, in their order.
        edges : bool
            Whether "coefficients.<k>" are those of a KAN, to be cut into edges.
        """
        pieces = []
        sizes = [math.prod(shape) for shape in shapes.values()]
        for (parameter, shape), part in zip(shapes.items(), vector.split(sizes), strict=True):
            layer = parameter.removeprefix("coefficients.")
            by_edge = edges and layer != parameter
            own = f"{name}.layer{layer}.edge" if by_edge else f"{name}.{parameter}"
            pieces.append([own, list(shape), by_edge])
            whole = part.detach().view(tuple(shape))
            for key, place in _edges(own, shape) if by_edge else [(own, ...)]:
                self.tensors[key] = _copy(whole[place])
        self.packed[name] = pieces
        return self._note(vector, name)

    def _entries(self, values: Any, name: str) -> list[Any]:
        return [self.encode(value, f"{name}.{number}") for number, value in enumerate(values)]

    def _keep(self, value: torch.Tensor, name: str) -> dict[str, str]:
        if id(value) in self._nodes:
            return self._nodes[id(value)]
        while name in self.tensors:  # {"a": {"b": ...}, "a.b": ...}
            name += "_"
        self.tensors[name] = _copy(value)
        return self._note(value, name)

    def _note(self, value: torch.Tensor, name: str) -> dict[str, str]:
        node = {"tensor": name}
        if value.device.type != "cpu":
            node["device"] = str(value.device)
        self._nodes[id(value)] = node
        self._seen.append(value)
        return node


class Reader:
    """Turns JSON and named tensors into the values that a `Writer` was given.

    Parameters
    ----------
    tensors : mapping
    packed : mapping

    Examples
    --------
    >>> Reader({"memory.2": torch.zeros(2)}, {}).decode({"tuple": [1.5, {"tensor": "memory.2"}]})
    (1.5, tensor([0., 0.]))
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], packed: Mapping[str, Any]):
        self.tensors = tensors
        self.packed = packed
        self._made: dict[str, torch.Tensor] = {}

    def decode(self, told: Any) -> Any:
        """The value.

        Raises
        ------
        KeyError, TypeError, ValueError, RuntimeError
            If this is not what a `Writer` makes, or tensors or their devices are missing.
        """
        if isinstance(told, list):
            return [self.decode(entry) for entry in told]
        if not isinstance(told, dict):
            return told
        kind, entry = next(iter(told.items()))
        if kind == "float":
            return float(entry)
        if kind == "tuple":
            return tuple(self.decode(entry))
        if kind == "named tuple":
            return _class_of(entry)(*self.decode(told["values"]))
        if kind == "dict":
            return {key: self.decode(value) for key, value in entry}
        if kind == "tensor":
            return self._tensor(entry, told.get("device", "cpu"))
        if kind in ("array", "scalar"):
            array = self._tensor(entry).numpy()
            return array if kind == "array" else array[()]
        raise ValueError(f"'{kind}' is no kind of value")

    def _tensor(self, name: str, device: str = "cpu") -> torch.Tensor:
        """The same object for the same name."""
        if name not in self._made:
            value = self._joined(name) if name in self.packed else self.tensors[name]
            # A copy: memory as torch aligns it, on which the bits of later sums may depend.
            try:
                self._made[name] = value.clone().to(device)
            except (AssertionError, RuntimeError):  # torch raises either, by how it was built
                raise ValueError(f"{name} was on {device}, which is not here") from None
        return self._made[name]

    def _joined(self, name: str) -> torch.Tensor:
        parts = []
        for own, shape, by_edge in self.packed[name]:
            if by_edge:
                edges = torch.stack([self.tensors[key] for key, _ in _edges(own, shape)])
                inputs, splines, outputs = shape
                part = edges.view(inputs, outputs, splines).transpose(1, 2)
            else:
                part = self.tensors[own].view(shape)
            parts.append(part.reshape(-1))
        return torch.cat(parts)


def _edges(name: str, shape: Any) -> list[tuple[str, Any]]:
    """The tensors of all edges of a layer, and where they are in (inputs, splines, outputs)."""
    inputs, _, outputs = shape
    return [(f"{name}.{p}.{q}", (p, slice(None), q)) for p in range(inputs) for q in range(outputs)]


def _copy(value: torch.Tensor) -> torch.Tensor:
    return value.detach().cpu().contiguous().clone()


def _class_of(name: str) -> Any:
    """The named tuple of this name, among the modules that are loaded; nothing is imported."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, tuple) and "_fields" in vars(found)):
        raise ValueError(f"{name} is no named tuple that this program knows")
    return found


def replace_files(file: Path, told: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a JSON file and its tensors beside it, or replace both as if at once.

    The JSON file names the other by its hash, so the former pair is whole until the new one is.

    Parameters
    ----------
    file : Path
        Folders above it are made if need be.
    told : mapping
    tensors : mapping
    """
    folder = file.parent
    folder.mkdir(parents=True, exist_ok=True)
    content = save(dict(tensors))
    digest = hashlib.sha256(content).hexdigest()
    name = TENSORS.format(digest[:16])
    text = json.dumps({**told, "tensors": name, "sha256": digest}, allow_nan=False)
    for target, written in ((name, content), (file.name, (text + "\n").encode())):
        unfinished = folder / f".unfinished-{target}"
        with open(unfinished, "wb") as stream:
            stream.write(written)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(folder / target)
    for old in folder.glob(TENSORS.format("?" * 16)):
        if old.name != name:
            old.unlink(missing_ok=True)


def read_json(file: Path, newest: int) -> dict[str, Any]:
    """A file that `replace_files` wrote, of a format up to `newest`."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        number, version = int(told["format"]), str(told["mgnet"])
    except (KeyError, TypeError, ValueError) as error:
        raise damage(file, error) from None
    if number > newest:
        raise ValueError(
            f"{file} has format {number}, written by mgnet {version}; this mgnet {__version__} "
            f"reads up to {newest}: upgrade it"
        )
    return told


def read_tensors(file: Path, told: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors that belong to a JSON file; an error where they are not those it names."""
    path = file.with_name(Path(told["tensors"]).name)
    if not path.is_file():
        raise ValueError(f"{path.name} is missing")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != told["sha256"]:
        raise ValueError(f"{path.name} is not what was written")
    return load(content)


def damage(file: Path, error: Exception) -> ValueError:
    """The error for a file that cannot be used."""
    reason = " ".join(str(error).split())[:120]
    return ValueError(
        f"the checkpoint {file} cannot be read ({type(error).__name__}: {reason}); use another one"
    )
