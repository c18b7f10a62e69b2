"""Nested values as JSON and named tensors, without pickle: `Writer`, `Reader`.

Numbers, strings, lists, tuples, named tuples, dicts, sets, NumPy arrays and tensors are restored
bit for bit. A tensor that occurs twice is stored once and restored as one object.
`docs/training.md`, "Files of checkpoints", describes the encoding of each.
"""

from __future__ import annotations

import math
import sys
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mgnet.checkpoint.storage import DTYPES

__all__ = ["Reader", "Writer", "pieces"]

DICTS = {dict: "dict", OrderedDict: "ordered dict", Counter: "counter"}
PAIRS = {
    "complex32": torch.float16,
    "complex64": torch.float32,
    "complex128": torch.float64,
}
BYTES = {
    name: getattr(torch, name)
    for name in ("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2")
    if hasattr(torch, name)
}
NOT_OF_NUMPY = torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2
ACCELERATORS = "cuda", "mps", "xpu"
DEEPEST = 100  # depth of nested lists; JSON can be read to a depth of some hundreds
NOT_FINITE = "nan", "inf", "-inf"

Pieces = list[tuple[str, list[int], bool]]


class Writer:
    """Converts values to JSON, and collects their tensors.

    Attributes
    ----------
    tensors : dict
        Tensors by name, contiguous and on the CPU; they may share memory with the given tensors.

    Examples
    --------
    >>> writer = Writer()
    >>> writer.encode((1.5, None, torch.zeros(2)), "memory")
    {'tuple': [1.5, None, {'tensor': 'memory.2'}]}
    """

    def __init__(self):
        self.tensors: dict[str, torch.Tensor] = {}
        self._nodes: dict[int, dict[str, str]] = {}
        self._seen: list[torch.Tensor] = []  # kept alive, so that no id is used twice
        self._depth = 0

    def encode(self, value: Any, name: str) -> Any:
        """A value as JSON.

        Parameters
        ----------
        value : object
            Value to encode.
        name : str
            Beginning of the names of its tensors, and its name in error messages.

        Raises
        ------
        TypeError
            If a part of the value cannot be stored.
        """
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if kind is complex:
            return {"complex": self._entries([value.real, value.imag], name)}
        if kind is bytes:
            return {"bytes": value.hex()}
        if kind is list:
            return self._entries(value, name)
        if kind is tuple or (kind is set and all(map(_is_key, value))):
            return {kind.__name__: self._entries(value, name)}
        if kind in DICTS and all(map(_is_key, value)):
            keys = self._entries(value, f"{name}, its keys,")
            values = self._entries(value.values(), name, value)
            return {DICTS[kind]: [list(pair) for pair in zip(keys, values, strict=True)]}
        if isinstance(value, tuple) and _named_tuple(_path_of(kind)) is kind:
            return {"named tuple": _path_of(kind), "values": self._entries(value, name)}
        if isinstance(value, torch.Tensor) and kind in (torch.Tensor, torch.nn.Parameter):
            return self._keep(value, name)
        if isinstance(value, np.ndarray | np.generic) and kind in (np.ndarray, value.dtype.type):
            sizes = {"b": 1, "i": 8, "u": 8, "f": 8, "c": 16}  # torch has no longer types
            if value.dtype.isnative and value.dtype.itemsize <= sizes.get(value.dtype.kind, 0):
                node = self._keep(torch.from_numpy(np.array(value)), name)
                return {"array" if kind is np.ndarray else "scalar": node.pop("tensor"), **node}
        raise self._refusal(name, value)

    def pack(self, vector: torch.Tensor, name: str, parts: Pieces) -> dict[str, str]:
        """Encode a flat vector as JSON, cut into the parameters of a network.

        Parameters
        ----------
        vector : tensor
            Flat vector of all parameters.
        name : str
            Name of the vector.
        parts : list
            Result of `pieces`.
        """
        sizes = [math.prod(shape) for _, shape, _ in parts]
        for (own, shape, by_edge), part in zip(parts, vector.split(sizes), strict=True):
            whole = part.detach().view(tuple(shape))
            for key, place in _edges(own, shape) if by_edge else [(own, ...)]:
                self.tensors[key] = _stored(whole[place])[0]
        return self._note(vector, name, None)

    def _entries(self, values: Any, name: str, keys: Any = None) -> list[Any]:
        self._depth += 1
        if self._depth > DEEPEST:  # such as a list that contains itself
            raise TypeError(f"a checkpoint got {name[:100]}, of values nested too deeply")
        keys = range(len(values)) if keys is None else keys
        found = [self.encode(value, f"{name}.{k}") for k, value in zip(keys, values, strict=True)]
        self._depth -= 1
        return found

    def _keep(self, value: torch.Tensor, name: str) -> dict[str, str]:
        if id(value) in self._nodes:
            return dict(self._nodes[id(value)])
        name = name.encode("utf-8", "backslashreplace").decode()  # lone surrogates
        while name in self.tensors:  # {"a": {"b": ...}, "a.b": ...}
            name += "_"
        if value.layout is not torch.strided or value.device.type == "meta" or value.is_quantized:
            raise self._refusal(name, value)
        stored, dtype = _stored(value)
        if stored.dtype not in DTYPES.values():
            raise self._refusal(name, value)
        self.tensors[name] = stored
        return dict(self._note(value, name, dtype))

    def _note(self, value: torch.Tensor, name: str, dtype: str | None) -> dict[str, str]:
        node = {"tensor": name} | ({} if dtype is None else {"dtype": dtype})
        if value.device.type != "cpu":
            node["device"] = str(value.device)
        self._nodes[id(value)] = node
        self._seen.append(value)
        return node

    @staticmethod
    def _refusal(name: str, value: Any) -> TypeError:
        kind = type(value).__name__
        if isinstance(value, torch.Tensor | np.ndarray | np.generic):
            kind += f" of {value.dtype}"
        return TypeError(
            f"a checkpoint got {name} of type {kind}; it stores numbers, strings, lists, tuples, "
            "dicts, sets, dense arrays and tensors"
        )


class Reader:
    """Converts JSON and named tensors back to the values that a `Writer` was given.

    Parameters
    ----------
    tensors : mapping
        Tensors by name.
    packed : mapping
        The `pieces` of flat vectors, by name.

    Examples
    --------
    >>> Reader({"memory.2": torch.zeros(2)}, {}).decode({"tuple": [1.5, {"tensor": "memory.2"}]})
    (1.5, tensor([0., 0.]))
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], packed: Mapping[str, Pieces]):
        self.packed = packed
        self._left = dict(tensors)  # each is used once, so that a small file gives a small value
        self._made: dict[tuple[Any, ...], torch.Tensor] = {}

    def decode(self, told: Any) -> Any:
        """Decode a value.

        Raises
        ------
        ValueError
            If no `Writer` writes such values, or if tensors or their devices are missing.
        RecursionError
            If the values are nested too deeply.
        """
        if isinstance(told, list):
            return [self.decode(entry) for entry in told]
        if not isinstance(told, dict):
            return told
        kind, entry = next(iter(told.items()), ("", None))
        if kind in ("tensor", "array", "scalar"):
            return self._tensor_or_array(kind, told)
        if set(told) - {"named tuple", "values"} and len(told) != 1:
            raise ValueError(f"{_shown(told)} is not a kind of value")
        if kind == "float" and entry in NOT_FINITE:
            return float(entry)
        if kind == "bytes" and isinstance(entry, str):
            return bytes.fromhex(entry)
        if kind in ("complex", "tuple", "set") and isinstance(entry, list):
            return self._of_entries(kind, [self.decode(each) for each in entry])
        if kind in DICTS.values():
            return self._dict(kind, entry)
        if kind == "named tuple" and isinstance(told.get("values"), list):
            found, values = _named_tuple(entry), self.decode(told["values"])
            if found is None or len(values) != len(found._fields):
                raise ValueError(f"{_shown(entry)} is not a named tuple of this program")
            return found._make(values)
        raise ValueError(f"{_shown(told)} is not a kind of value")

    def finish(self) -> None:
        """Refuse a file with tensors that no value refers to.

        Raises
        ------
        ValueError
            If there is such a tensor.
        """
        if self._left:
            raise ValueError(f"nothing refers to its tensor '{next(iter(self._left))}'")

    def _of_entries(self, kind: str, entries: list[Any]) -> Any:
        if kind == "tuple":
            return tuple(entries)
        if kind == "complex" and [type(entry) for entry in entries] == [float, float]:
            return complex(*entries)
        if kind == "set" and all(map(_is_key, entries)) and len(set(entries)) == len(entries):
            return set(entries)
        raise ValueError(f"{_shown(entries)} are not entries of a {kind}")

    def _dict(self, kind: str, pairs: Any) -> Any:
        found = next(each for each, name in DICTS.items() if name == kind)()
        for pair in pairs if isinstance(pairs, list) else [None]:
            if not isinstance(pair, list) or len(pair) != 2:
                raise ValueError(f"{_shown(pair)} is not a key with its value")
            key = self.decode(pair[0])
            if not _is_key(key) or key in found:
                raise ValueError(f"{_shown(key)} is not a key, or it occurs twice")
            found[key] = self.decode(pair[1])
        return found

    def _tensor_or_array(self, kind: str, told: dict[str, Any]) -> Any:
        name, dtype, device = (told.get(key) for key in (kind, "dtype", "device"))
        if set(told) - {kind, "dtype", "device"} or not isinstance(name, str):
            raise ValueError(f"{_shown(told)} is not a kind of value")
        if kind != "tensor":
            value = _of_dtype(self._taken(name), dtype)
            known = value.dtype not in NOT_OF_NUMPY and value.dtype != torch.complex32
            if device is not None or not known or value.dim() > (32 if kind == "array" else 0):
                raise ValueError(f"{name} of shape {list(value.shape)} is not a {kind}")
            array = value.numpy()
            return array if kind == "array" else array[()]
        key = name, _shown(dtype), _shown(device)
        if key not in self._made:
            value = self._joined(name) if name in self.packed else self._taken(name)
            self._made[key] = _on_device(_of_dtype(value, dtype), name, device)
        return self._made[key]

    def _taken(self, name: str) -> torch.Tensor:
        if name not in self._left:
            raise ValueError(f"the tensor '{name}' is missing, or used twice")
        return self._left.pop(name)

    def _joined(self, name: str) -> torch.Tensor:
        sizes = [math.prod(shape) for _, shape, _ in self.packed[name]]
        vector, begin = torch.empty(0), 0
        if sum(sizes) > sum(tensor.numel() for tensor in self._left.values()):
            raise ValueError(f"the tensors of '{name}' are missing, or used twice")
        for (own, shape, by_edge), size in zip(self.packed[name], sizes, strict=True):
            for key, place in _edges(own, shape) if by_edge else [(own, ...)]:
                part, wanted = self._taken(key), [shape[1]] if by_edge else shape
                if not len(vector):
                    vector = torch.empty(sum(sizes), dtype=part.dtype)
                if list(part.shape) != wanted or part.dtype != vector.dtype:
                    raise ValueError(
                        f"the tensor '{key}' is {part.dtype} of shape {list(part.shape)}; {wanted} "
                        "is expected, in one precision"
                    )
                vector[begin : begin + size].view(tuple(shape))[place] = part
            begin += size
        return vector


def pieces(name: str, shapes: Mapping[str, list[int]], edges: bool) -> Pieces:
    """Name, shape, and whether it is cut by edges, for each parameter in a flat vector.

    Parameters
    ----------
    name : str
        Name of the vector.
    shapes : mapping
        Shapes of the parameters by name, in order.
    edges : bool
        Whether the parameters "coefficients.<k>" belong to a KAN and are cut into edges.

    Examples
    --------
    >>> pieces("level0", {"coefficients.0": [1, 5, 2], "linear.bias": [2]}, edges=True)
    [('level0.layer0.edge', [1, 5, 2], True), ('level0.linear.bias', [2], False)]
    """
    found = []
    for parameter, shape in shapes.items():
        layer = parameter.removeprefix("coefficients.")
        by_edge = edges and layer != parameter and len(shape) == 3 and 0 not in shape
        own = f"{name}.layer{layer}.edge" if by_edge else f"{name}.{parameter}"
        found.append((own, list(shape), by_edge))
    return found


def _edges(name: str, shape: Any) -> list[tuple[str, Any]]:
    """The tensors of all edges of a layer, and their positions in (inputs, splines, outputs)."""
    inputs, _, outputs = shape
    return [(f"{name}.{p}.{q}", (p, slice(None), q)) for p in range(inputs) for q in range(outputs)]


def _stored(value: torch.Tensor) -> tuple[torch.Tensor, str | None]:
    """The tensor in the form of the file, and the name of its dtype if that form is ambiguous."""
    value = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    name = str(value.dtype).removeprefix("torch.")
    if value.dtype in DTYPES.values():
        return value, None
    if name in PAIRS:
        return torch.view_as_real(value), name
    if name in BYTES:
        return value.view(torch.uint8), name
    return value, name


def _of_dtype(value: torch.Tensor, name: Any) -> torch.Tensor:
    """The inverse of `_stored`."""
    if name is None:
        return value
    if isinstance(name, str) and value.dtype == PAIRS.get(name) and value.shape[-1:] == (2,):
        return torch.view_as_complex(value)
    if isinstance(name, str) and value.dtype == torch.uint8 and name in BYTES:
        return value.view(BYTES[name])
    raise ValueError(f"a tensor of {value.dtype} cannot represent the dtype {_shown(name)}")


def _on_device(value: torch.Tensor, name: str, device: Any) -> torch.Tensor:
    if device is None:
        return value
    kind, _, number = device.partition(":") if isinstance(device, str) else ("", "", "")
    if kind in ACCELERATORS and (not number or number.isdecimal() and len(number) < 4):
        there = getattr(torch, kind, None)
        if there is not None and there.is_available() and int(number or 0) < there.device_count():
            return value.to(device)
    raise ValueError(f"{name} was on {_shown(device)}, which is not available")


def _is_key(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_key, value))
    return value is None or isinstance(value, bool | int | float | complex | str | bytes)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _path_of(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _named_tuple(name: Any) -> Any:
    """The named tuple with this name in the loaded modules; nothing is imported."""
    module, _, path = name.partition(":") if isinstance(name, str) else ("", "", "")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    if isinstance(found, type) and issubclass(found, tuple) and "_fields" in vars(found):
        return found
    return None
