"""A cell of the user: what cannot be solved in parallel over time is refused before it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mgnet import vector
from mgnet.depth.parallel.control import CyclesToTolerance, FixedCycles
from mgnet.depth.recurrent.cell_steps import Cell, CellState, CoarseStep, joined, parts_of
from mgnet.depth.recurrent.recurrence import check_module

__all__ = ["check_arguments", "check_cell"]

MODES = "mgrit", "serial", "auto"


def check_cell(
    cell: Cell, coarse: CoarseStep | None, x: Tensor, start: Tensor, widths: Sequence[int]
) -> None:
    """Refuse a cell that mixes rows, draws random numbers, edits tensors or hides weights.

    A coarse step can only be slow, so of it only what it gives is looked at.

    Parameters
    ----------
    cell : callable
    coarse : callable, optional
        The user's coarse step.
    x : Tensor of shape (batch, ...)
        The inputs of the first step.
    start : Tensor of shape (batch, S)
    widths : sequence of int
        Of the parts of a state, side by side.

    Raises
    ------
    TypeError, ValueError
        One sentence.

    Examples
    --------
    >>> check_cell(lambda x, h: h - h.mean(0), None, torch.zeros(2, 1), torch.ones(2, 3), (3,))
    Traceback (most recent call last):
    ValueError: TimeParallel got a cell, function, that gives a row another state beside other \
rows than alone; all steps are one call, so it must take each row on its own
    """
    name = f"TimeParallel got a cell, {type(cell).__name__},"
    x, start = x.detach(), start.detach()
    generator = _generator(x)
    buffers = [*cell.buffers()] if isinstance(cell, nn.Module) else []
    with torch.enable_grad():
        given = x.clone().requires_grad_(), start.clone().requires_grad_()
        state = parts_of(given[1] * 1.0, widths)  # no leaves: an edit is seen, not refused by torch
        read = [given[0] * 1.0, *([state] if isinstance(state, Tensor) else state)]
        before = [t._version for t in (*read, *buffers)]
        new = cell(read[0], state)
    _check_kind(name, new, state)
    if [t._version for t in (*read, *buffers)] != before:
        raise ValueError(
            f"{name} that edits its arguments or its buffers in place; let it work on copies, or "
            "use mode='serial'"
        )
    found = joined(new)
    if not torch.equal(generator, _generator(x)):
        raise ValueError(
            f"{name} that draws random numbers, so it is not the same in every cycle; move dropout "
            "out of it, or use mode='serial'"
        )
    weights = [*cell.parameters()] if isinstance(cell, nn.Module) else []
    if torch.is_grad_enabled() and _hides(found, [*given, *weights]):
        raise ValueError(
            f"{name} that uses a tensor with requires_grad that is not among its parameters; make "
            "it an nn.Module that holds it as a parameter, or use mode='serial'"
        )
    with torch.no_grad():
        alone = found.detach()
        other = 0.5 * start + 0.25
        beside = torch.cat([other, start]), torch.cat([x, x])
        together = joined(cell(beside[1], parts_of(beside[0], widths)))[len(x) :]
        apart, size = vector.norm(together - alone), vector.norm(alone) + vector.norm(start)
    if apart > 1e-4 * size:
        raise ValueError(
            f"{name} that gives a row another state beside other rows than alone; all steps are "
            "one call, so it must take each row on its own"
        )
    if coarse is not None:
        with torch.no_grad():
            new = coarse(x, parts_of(start, widths), torch.full_like(start[:, :1], 2.0))
        _check_kind("TimeParallel got a coarse step", new, parts_of(start, widths))


def _generator(x: Tensor) -> Tensor:
    """The state of the random numbers of a device."""
    return torch.cuda.get_rng_state(x.device) if x.is_cuda else torch.random.get_rng_state()


def _check_kind(name: str, new: object, state: CellState) -> None:
    parts = new if isinstance(new, tuple) else (new,)
    wanted: tuple[Tensor, ...] = state if isinstance(state, tuple) else (state,)
    fits = len(parts) == len(wanted) and isinstance(new, tuple) == isinstance(state, tuple)
    if not fits or not all(
        isinstance(a, Tensor) and a.shape == b.shape and a.dtype == b.dtype
        for a, b in zip(parts, wanted, strict=True)
    ):
        got, want = [", ".join(vector.describe(p) for p in ps) for ps in (parts, wanted)]
        raise TypeError(
            f"{name} that gives {got}; it must give a state like the one that it gets, {want}"
        )


def _hides(found: Tensor, known: Iterable[Tensor]) -> bool:
    """Whether a result depends on a leaf that is not known."""
    leaves = {id(x) for x in known}
    inner = {x.grad_fn for x in known if x.grad_fn is not None}
    waiting, seen = [found.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen or node in inner:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in leaves:
            return True
        waiting += [following for following, _ in node.next_functions]
    return False


def check_arguments(
    cell: Any, control: Any, mode: Any, coarse: Any, batch_first: Any, warm_start: Any
) -> None:
    """Raise unless these can be the arguments of `TimeParallel`.

    Raises
    ------
    TypeError, ValueError

    Examples
    --------
    >>> check_arguments(nn.GRUCell(2, 3), None, "parallel", None, False, False)
    Traceback (most recent call last):
    ValueError: TimeParallel got mode 'parallel'; use one of mgrit, serial, auto
    """
    if not callable(cell):
        raise TypeError(
            f"TimeParallel got a {type(cell).__name__}; give a cell, as nn.GRUCell(3, 8), an "
            "nn.GRU, an nn.LSTM, or a function (x, h) -> h"
        )
    if isinstance(cell, nn.RNNBase):
        check_module(cell)
        if batch_first and not cell.batch_first:
            raise ValueError(
                "TimeParallel got batch_first=True for a module without; a module has its own"
            )
        if coarse is not None:
            raise ValueError("TimeParallel got coarse for a whole module; give it with one cell")
    for name, flag in (("batch_first", batch_first), ("warm_start", warm_start)):
        if not isinstance(flag, bool):
            raise TypeError(f"TimeParallel got {name} {flag!r}; give True or False")
    if mode not in MODES:
        raise ValueError(f"TimeParallel got mode {mode!r}; use one of {', '.join(MODES)}")
    if control is not None and not isinstance(control, FixedCycles | CyclesToTolerance):
        raise TypeError(
            f"TimeParallel got control {control!r}; give CyclesToTolerance(1e-6) or FixedCycles(2)"
        )
    if coarse is not None and not callable(coarse):
        raise TypeError(
            f"TimeParallel got coarse of type {type(coarse).__name__}; give a function "
            "(x, h, k) -> h"
        )
