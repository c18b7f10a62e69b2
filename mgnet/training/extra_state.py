"""Options of a network in its `state_dict`: as a tensor, and checked when a state is loaded.

Two networks may have tensors of the same names and shapes and yet be different functions: of other
final times, domains, degrees. A module therefore keeps its options beside its weights, by torch's
`get_extra_state`. They are a tensor, since safetensors and accelerate save nothing else.
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
    """What JSON can hold as bytes, of a length that is a multiple of 1024.

    Parameters
    ----------
    told : mapping

    Returns
    -------
    uint8 tensor, on the CPU

    Examples
    --------
    >>> encode({"degree": 3}).shape, decode(encode({"domain": (-1.0, 1.0)}))
    (torch.Size([1024]), {'domain': [-1.0, 1.0]})
    """
    text = _as_json(told).encode()
    text += b" " * (-len(text) % SIZE)
    return torch.tensor(list(text), dtype=torch.uint8, device="cpu")


def decode(state: torch.Tensor) -> dict[str, Any]:
    """What was encoded, from the tensor after any conversion of its type or device.

    Parameters
    ----------
    state : tensor

    Raises
    ------
    ValueError
        If it holds something else.

    Examples
    --------
    >>> decode(torch.zeros(3))
    Traceback (most recent call last):
    ValueError: the extra state of a network is a tensor of torch.float32 of shape (3,) that holds \
no options; it is damaged, or another module's
    """
    if not isinstance(state, torch.Tensor):
        raise ValueError(
            f"the extra state of a network is of type {type(state).__name__}; it must be the "
            "tensor that state_dict() gave"
        )
    try:
        whole = state.round() if state.is_floating_point() else state  # a mean of equal states
        told = json.loads(bytes(whole.to("cpu", torch.uint8).tolist()))
        if isinstance(told, dict):
            return told
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"the extra state of a network is a tensor of {state.dtype} of shape {tuple(state.shape)} "
        "that holds no options; it is damaged, or another module's"
    )


def check_options(owner: str, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise an error that names both values, unless all saved options are those of the network.

    To be called before anything is loaded. What only the network has is not compared: an older
    version may have saved the state.

    Parameters
    ----------
    owner : str
        The class of the network.
    saved : mapping
        By the names of the constructor's arguments; from `decode`.
    own : mapping

    Raises
    ------
    RuntimeError
        As `load_state_dict` does where shapes differ.

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
    """Let a state that was saved without options load with `strict=True`, too; not checked then.

    Parameters
    ----------
    prefix : str
        Of the module, as `_load_from_state_dict` gets it.
    missing : list of str
        The names that are missing in the state; edited.

    Examples
    --------
    >>> missing = ["net.weight", "net._extra_state"]
    >>> allow_without_extra_state("net.", missing)
    >>> missing
    ['net.weight']
    """
    missing[:] = [name for name in missing if name != f"{prefix}_extra_state"]


def refuse_script(module: torch.nn.Module) -> NoReturn:
    """What `__prepare_scriptable__` of a network does, which `torch.jit.script` asks for first.

    Raises
    ------
    TypeError

    Examples
    --------
    >>> refuse_script(torch.nn.Identity())
    Traceback (most recent call last):
    TypeError: torch.jit.script cannot compile an Identity, which is more than TorchScript knows; \
use torch.jit.trace, torch.export.export or torch.compile
    """
    name = type(module).__name__
    article = "an" if name[:1] in "AEIOU" else "a"
    raise TypeError(
        f"torch.jit.script cannot compile {article} {name}, which is more than TorchScript knows; "
        "use torch.jit.trace, torch.export.export or torch.compile"
    )


def _as_json(told: Mapping[str, Any]) -> str:
    """Numbers of NumPy are written as Python's."""
    return json.dumps(told, default=lambda number: number.item())


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are the same; numbers may differ by rounding, as 0.1 + 0.2 and 0.3."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12) or (math.isnan(one) and math.isnan(other))
    return one == other


def _listed(options: Mapping[str, Any]) -> str:
    parts = [f"{name}={value!r}" for name, value in options.items()]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
