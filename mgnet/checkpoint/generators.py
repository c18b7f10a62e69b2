"""States of random generators: stored, checked, and restored."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import torch

__all__ = ["Generator", "check_torch_state", "restore_state", "state_of"]

Generator = torch.Generator | np.random.Generator
# Bounds of the entries in the states of NumPy's generators.
BOUNDS = {"pos": 624, "buffer_pos": 4, "has_uint32": 1, "uinteger": 2**32 - 1}


def state_of(generator: Generator, name: str) -> dict[str, Any]:
    """The state and the kind of a generator.

    Parameters
    ----------
    generator : torch.Generator or numpy.random.Generator
        Generator whose state is read.
    name : str
        Name of the generator in error messages.

    Raises
    ------
    TypeError
        If the object is not a generator of torch or NumPy.

    Examples
    --------
    >>> state_of(np.random.default_rng(0), "rows")["state"]["bit_generator"]
    'PCG64'
    """
    if isinstance(generator, torch.Generator):
        return {"kind": "torch", "state": generator.get_state()}
    if isinstance(generator, np.random.Generator):
        return {"kind": "numpy", "state": dict(generator.bit_generator.state)}
    raise TypeError(
        f"a checkpoint got the generator '{name}' of type {type(generator).__name__}; give a "
        "torch.Generator or numpy.random.Generator"
    )


def restore_state(generator: Generator, told: dict[str, Any], name: str) -> None:
    """Set a generator to the state of another one of its kind.

    Parameters
    ----------
    generator : torch.Generator or numpy.random.Generator
        Generator to set.
    told : dict
        Result of `state_of`.
    name : str
        Name of the generator in error messages.

    Raises
    ------
    TypeError
        If the generator and the state belong to different libraries.
    ValueError
        If the state does not fit the generator, which then remains unchanged.

    Examples
    --------
    >>> generator, other = (np.random.default_rng(seed) for seed in (0, 1))
    >>> restore_state(other, state_of(generator, "rows"), "rows")
    >>> bool(generator.random() == other.random())
    True
    """
    kind = type(generator).__module__.partition(".")[0]
    if told["kind"] != kind:
        raise TypeError(
            f"Checkpoint.restore got a {kind} generator for '{name}'; the checkpoint has one of "
            f"{told['kind']}"
        )
    if isinstance(generator, torch.Generator):
        check_torch_state(told["state"], generator.device)
        generator.set_state(told["state"])
        return
    bits = generator.bit_generator
    if not _fits(told["state"], dict(bits.state)):
        raise ValueError(
            f"Checkpoint.restore got a {type(bits).__name__} generator for '{name}', and the "
            "checkpoint has no state of this kind; give the generator that was saved"
        )
    bits.state = told["state"]


def check_torch_state(state: Any, device: torch.device | str = "cpu") -> None:
    """Refuse a value that is not a state of torch's generators, before it is set.

    Parameters
    ----------
    state : tensor
        State to check.
    device : torch.device, optional
        Device of the generator.

    Raises
    ------
    ValueError
        If the state is damaged or of another kind.

    Examples
    --------
    >>> check_torch_state(torch.get_rng_state())
    >>> check_torch_state(torch.zeros(3))
    Traceback (most recent call last):
    ValueError: the state of a random generator of torch (cpu) is damaged, or of another kind
    """
    trial = torch.Generator(device)
    own = trial.get_state()
    fits = (
        isinstance(state, torch.Tensor)
        and (state.dtype, state.shape, state.device) == (own.dtype, own.shape, own.device)
        and (trial.device.type != "cpu" or _place(state) in (1, 625) or _place(own) not in (1, 625))
    )
    if fits:
        try:
            trial.set_state(state)
        except RuntimeError:
            fits = False
    if not fits:
        raise ValueError(
            f"the state of a random generator of torch ({device}) is damaged, or of another kind"
        )


def _place(state: torch.Tensor) -> int:
    """Numbers left of 624, plus the index of the next number: 625, or 1 before the first draw.

    torch checks the two separately, and reads beyond its memory if they do not fit together.
    """
    left, place = struct.unpack_from("<8xi4xQ", bytes(state[:24].tolist()))
    return left + place


def _fits(state: Any, own: Any) -> bool:
    """Whether a state has the same form as another, with all numbers within their bounds."""
    if isinstance(own, dict):
        same = isinstance(state, dict) and set(state) == set(own)
        return same and all(
            _fits(state[key], own[key]) and (key not in BOUNDS or 0 <= state[key] <= BOUNDS[key])
            for key in own
        )
    if isinstance(own, np.ndarray):
        same = isinstance(state, np.ndarray)
        return same and (state.dtype, state.shape) == (own.dtype, own.shape)
    if isinstance(own, int):
        return type(state) is int and 0 <= state < 2**128
    return type(state) is type(own) and state == own
