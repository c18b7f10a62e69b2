"""Options of a network in its `state_dict`: stored as a tensor, checked when a state is loaded.

Two networks may have tensors with the same names and shapes and yet be different functions, for
example with different final times, domains or degrees. A module therefore stores its options with
its weights, through torch's `get_extra_state`. They are stored as a tensor, since safetensors and
accelerate save nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import torch

__all__ = ["allow_without_extra_state", "check_options", "decode", "encode", "refuse_script"]

SIZE = 1024  # torch.distributed.checkpoint loads in place, into tensors of the same size


def encode(told: Mapping[str, Any]) -> torch.Tensor:
    """Encode JSON values as bytes, with a length that is a multiple of 1024.

    Parameters
    ----------
    told : mapping
        Values to encode.

    Returns
    -------
    uint8 tensor, on the CPU
        The bytes.

    Examples
    --------
    >>> encode({"degree": 3}).shape, decode(encode({"domain": (-1.0, 1.0)}))
    (torch.Size([1024]), {'domain': [-1.0, 1.0]})
    """
    text = _as_json(told).encode()
    text += b" " * (-len(text) % SIZE)
    return torch.tensor(list(text), dtype=torch.uint8, device="cpu")


def decode(state: torch.Tensor) -> dict[str, Any]:
    """Decode a tensor from `encode`, after any conversion of its type or device.

    Parameters
    ----------
    state : tensor
        Tensor to decode.

    Raises
    ------
    ValueError
        If the tensor does not contain encoded options.

    Examples
    --------
    >>> decode(torch.zeros(3))
    Traceback (most recent call last):
    ValueError: the extra state of a network is a tensor of torch.float32 of shape (3,) that holds \
no options; it is damaged, or from another module
    """
    if not isinstance(state, torch.Tensor):
        raise ValueError(
            f"the extra state of a network is of type {type(state).__name__}; it must be the "
            "tensor from state_dict()"
        )
    try:
        whole = state.round() if state.is_floating_point() else state  # the mean of equal states
        told = json.loads(bytes(whole.to("cpu", torch.uint8).tolist()))
        if isinstance(told, dict):
            return told
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"the extra state of a network is a tensor of {state.dtype} of shape {tuple(state.shape)} "
        "that holds no options; it is damaged, or from another module"
    )


def check_options(owner: str, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise an error that names both values unless all saved options equal those of the network.

    Call this function before anything is loaded. Options that only the network has are not
    compared, since the state may have been saved by an older version.

    Parameters
    ----------
    owner : str
        Class of the network.
    saved : mapping
        Saved options by the names of the constructor's arguments, from `decode`.
    own : mapping
        Options of the network.

    Raises
    ------
    RuntimeError
        If options differ, as `load_state_dict` raises for different shapes.

    Examples
    --------
    >>> check_options("KAN", {"degree": 3}, {"degree": 4, "linear": False})
    Traceback (most recent call last):
    RuntimeError: KAN got the state of a network with degree=3, but this one has degree=4: with \
the same weights they are different functions; make the network with degree=3
    """
    own = json.loads(_as_json(own))
    other = [n for n, value in saved.items() if n not in own or not _alike(own[n], value)]
    if other:
        theirs = _listed({name: saved[name] for name in other})
        ours = _listed({name: own[name] for name in other if name in own}) or "no such option"
        remedy = f"make the network with {theirs}"
        if not own.keys() >= set(other):
            remedy = "load it into a network of the class and version that saved it"
        raise RuntimeError(
            f"{owner} got the state of a network with {theirs}, but this one has {ours}: with the "
            f"same weights they are different functions; {remedy}"
        )


def allow_without_extra_state(prefix: str, missing: list[str]) -> None:
    """Let a state that was saved without options load with `strict=True`; it is not checked.

    Parameters
    ----------
    prefix : str
        Prefix of the module, an argument of `_load_from_state_dict`.
    missing : list of str
        Names that are missing in the state; changed in place.

    Examples
    --------
    >>> missing = ["net.weight", "net._extra_state"]
    >>> allow_without_extra_state("net.", missing)
    >>> missing
    ['net.weight']
    """
    missing[:] = [name for name in missing if name != f"{prefix}_extra_state"]


def refuse_script(module: torch.nn.Module) -> NoReturn:
    """Implementation of `__prepare_scriptable__`, which `torch.jit.script` calls first.

    Raises
    ------
    TypeError
        Always.

    Examples
    --------
    >>> refuse_script(torch.nn.Identity())
    Traceback (most recent call last):
    TypeError: torch.jit.script cannot compile an Identity, which TorchScript does not support; \
use torch.jit.trace, torch.export.export or torch.compile
    """
    name = type(module).__name__
    article = "an" if name[:1] in "AEIOU" else "a"
    raise TypeError(
        f"torch.jit.script cannot compile {article} {name}, which TorchScript does not support; "
        "use torch.jit.trace, torch.export.export or torch.compile"
    )


def _as_json(told: Mapping[str, Any]) -> str:
    """Convert NumPy numbers to Python numbers."""
    return json.dumps(told, default=lambda number: number.item())


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are equal; numbers may differ by rounding, like 0.1 + 0.2 and 0.3."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12) or (math.isnan(one) and math.isnan(other))
    return one == other


def _listed(options: Mapping[str, Any]) -> str:
    parts = [f"{name}={value!r}" for name, value in options.items()]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
