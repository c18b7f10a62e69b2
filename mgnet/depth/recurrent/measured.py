"""The possible modes of a `TimeParallel` call, and their timings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from mgnet.depth.parallel.control import Control, FixedCycles, PassReport
from mgnet.depth.parallel.evaluation import fastest
from mgnet.depth.recurrent.initial_state import InitialState
from mgnet.depth.recurrent.sequences import TimeSequence

__all__ = ["faster", "mode_for", "seconds_of_modes", "widened"]

MODES = "serial", "mgrit"


def mode_for(x: Tensor, mode: str, control: Control, transform: str | None, few: bool) -> str:
    """Return the requested mode of a call, or "serial" if no other mode is possible.

    Parameters
    ----------
    x : Tensor of shape (T, batch, features)
        The input.
    mode : {"mgrit", "serial", "auto"}
        The requested mode.
    control : FixedCycles or CyclesToTolerance
        The control of the cycles.
    transform : str, optional
        Name of the function transform under which the call is made.
    few : bool
        Whether there are too few steps for cycles.

    Raises
    ------
    RuntimeError
        If the call is made under a function transform and the number of cycles is fixed.
    TypeError
        If the input does not have float32 or float64 numbers.

    Examples
    --------
    >>> mode_for(torch.zeros(100, 1, 2), "mgrit", FixedCycles(2), None, False)
    'mgrit'
    """
    if transform and mode != "serial" and isinstance(control, FixedCycles):
        raise RuntimeError(
            f"TimeParallel was called under {transform}, which does not pass through a fixed "
            "number of cycles; use control=CyclesToTolerance(1e-6), for example, or mode='serial'"
        )
    if transform or few or not x.numel() or x.is_meta or mode == "serial":
        return "serial"
    if x.dtype in (torch.float32, torch.float64):
        return mode
    if mode == "auto":
        return "serial"
    raise TypeError(
        f"TimeParallel got an input of {x.dtype}; its cycles need float32 or float64, or use "
        "mode='serial'"
    )


def widened(weight: Tensor | None, given: Any) -> Any:
    """Convert an input that autocast has reduced in precision to the precision of the weights.

    Examples
    --------
    >>> widened(torch.ones(1), torch.ones(2, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    lower = given.dtype in (torch.float16, torch.bfloat16)
    return given.to(weight.dtype) if lower and weight is not None else given


def faster(seconds: dict[str, float], made: Sequence[PassReport], control: Control) -> str:
    """The faster mode, or "serial" if the error of a fixed number of cycles is too large.

    Parameters
    ----------
    seconds : dict
        Time of each mode.
    made : sequence of PassReport
        Reports on the cycles.
    control : FixedCycles or CyclesToTolerance
        The control of the cycles.

    Examples
    --------
    >>> faster({"serial": 2.0, "mgrit": 1.0}, [], FixedCycles(2))
    'mgrit'
    """
    if isinstance(control, FixedCycles):
        if not all(each.estimate <= control.tolerance for each in made):
            return "serial"
    return min(seconds, key=seconds.__getitem__)


def seconds_of_modes(
    call: Callable[[TimeSequence, InitialState, str], Any],
    sequence: TimeSequence,
    start: InitialState,
    parameters: Sequence[Tensor],
) -> dict[str, float]:
    """Measure the modes "serial" and "mgrit": the forward pass, and the backward pass in training.

    Parameters
    ----------
    call : callable
        A function `(sequence, start, mode) -> (output, last state)`.
    sequence : TimeSequence
        The input.
    start : InitialState
        The initial states.
    parameters : sequence of Tensor
        The parameters of the module.

    Returns
    -------
    dict of str to float
        Time of each mode, in seconds.

    Examples
    --------
    >>> sequence = TimeSequence.of(torch.zeros(7, 1, 2), batch_first=False)
    >>> start = InitialState.of(torch.nn.GRUCell(2, 3), sequence, None)
    >>> sorted(seconds_of_modes(lambda given, *_: (given.x, None), sequence, start, []))
    ['mgrit', 'serial']
    """
    x, packed = sequence.x, sequence.packed

    def run(data: Tensor, side: dict[str, Tensor], mode: str) -> Tensor:
        other, state = sequence.with_data(data), start.with_states(side["states"])
        y = call(other, state, mode)[0]
        return y.data if isinstance(y, PackedSequence) else y

    data, given = x if packed is None else packed.data, {"states": start.states}
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        return {m: fastest(partial(run, mode=m), data, given, parameters) for m in MODES}
