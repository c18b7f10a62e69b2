"""Checks of a user's cell, which refuse cells that cannot be solved in parallel over time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mgnet import vector
from mgnet.depth.batched.lending import lending
from mgnet.depth.batched.scheme import version_of
from mgnet.depth.parallel.control import CyclesToTolerance, FixedCycles
from mgnet.depth.recurrent.cell_call import CellCall, KeptCell
from mgnet.depth.recurrent.cell_steps import Cell, CellState, CoarseStep, joined, parts_of
from mgnet.depth.recurrent.recurrence import check_module, coarse_of

__all__ = ["check_arguments", "check_cell"]

MODES = "mgrit", "serial", "auto"


def check_cell(
    cell: Cell, coarse: CoarseStep | None, x: Tensor, start: Tensor, widths: Sequence[int]
) -> KeptCell:
    """Refuse a cell that mixes rows, varies between calls, edits tensors or hides weights.

    The cell is tested on copies of its buffers. A poor coarse step only slows convergence, so only
    the type and shape of its result are checked.

    Parameters
    ----------
    cell : callable
        The user's cell.
    coarse : callable, optional
        The user's coarse step; by default the cell's own method `coarse`.
    x : Tensor of shape (T, batch, ...)
        The inputs of all steps.
    start : Tensor of shape (batch, S)
        The initial states.
    widths : sequence of int
        Widths of the parts of a state, which are concatenated.

    Returns
    -------
    KeptCell
        What the cell depends on besides its arguments and weights.

    Raises
    ------
    TypeError, ValueError
        If the cell cannot be solved in parallel over time.

    Examples
    --------
    >>> x, h = torch.zeros(5, 2, 1), torch.ones(2, 3)
    >>> _ = check_cell(lambda x, h: h - h.mean(0), None, x, h, (3,))
    Traceback (most recent call last):
    ValueError: TimeParallel got a cell, function, that returns another state for a row if \
there are other rows; all steps are one call, so it must take each row on its own
    """
    graph = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(graph):
        trial = _Trial(cell, x, start, widths)
        found = trial.alone()
        kept = KeptCell(cell)
        with torch.no_grad():
            trial.again(found)
            if not kept.looks_the_same():
                raise ValueError(
                    f"{trial.name} that changes its attributes, or those of others, when it is "
                    "called; all steps are one call, so let it keep nothing, or use mode='serial'"
                )
            trial.beside(found)
            coarse = coarse or coarse_of(cell)
            if coarse is not None:
                state = parts_of(trial.start, widths)
                new = CellCall(cell, coarse).step(
                    trial.x, state, torch.full_like(trial.start[:, :1], 2.0)
                )
                _check_kind("TimeParallel got a coarse step", new, state)
    return kept


class _Trial:
    """One step of a cell, computed in several ways."""

    def __init__(self, cell: Cell, x: Tensor, start: Tensor, widths: Sequence[int]):
        self.name = f"TimeParallel got a cell, {type(cell).__name__},"
        self.x, self.start, self.widths = x[0].detach().clone(), start.detach().clone(), widths
        # Other rows are inputs of the step that differs most, because others may be invalid inputs.
        apart = (x.detach() - self.x).abs().flatten(1)
        step = int(apart.amax(1).argmax()) if apart.numel() else 0
        self._other = x[step].detach().clone()
        self._call = CellCall(cell, None)
        with lending():
            is_module = isinstance(cell, nn.Module)
            self._weights = [*cell.parameters()] if is_module else []
            self._buffers = dict(cell.named_buffers()) if is_module else {}

    def alone(self) -> Tensor:
        """The new states of these rows, with a graph if gradients are needed."""
        weights = [_leaf(w, w.requires_grad) for w in self._weights]
        given = [_leaf(x, torch.is_grad_enabled()) for x in (self.x, self.start)]
        # With a graph, no leaves: an edit is then detected, instead of being refused by torch.
        x, state = given[0] * 1.0, parts_of(given[1] * 1.0, self.widths)
        read = [x, *([state] if isinstance(state, Tensor) else state)]
        before, generator = [version_of(t) for t in read], _generator(x)
        new = self._new(weights, x, state)
        if [version_of(t) for t in read] != before:
            self._refuse_edits()
        _check_kind(self.name, new, state)
        if not torch.equal(generator, _generator(x)):
            self._refuse_draws(weights, x.detach(), parts_of(self.start, self.widths))
        found = joined(new)
        if torch.is_grad_enabled():
            _refuse_hidden(self.name, found, [*given, *weights], self._weights)
        return found.detach()

    def again(self, found: Tensor) -> None:
        """Refuse a cell whose results differ for the same arguments."""
        new = joined(self._new(self._weights, self.x, parts_of(self.start, self.widths)))
        if _differ(new, found, self.start):
            raise ValueError(
                f"{self.name} that returns another state for the same arguments in a second "
                "call; all steps are one call, so let it keep nothing and draw nothing, or "
                "use mode='serial'"
            )

    def beside(self, found: Tensor) -> None:
        """Refuse a cell whose results depend on other rows."""
        other = 0.5 * self.start + 0.25
        state = parts_of(torch.cat([other, self.start]), self.widths)
        try:
            new = joined(self._new(self._weights, torch.cat([self._other, self.x]), state))
        except (RuntimeError, ValueError, IndexError) as error:
            told = str(error).strip().split("\n")[0]
            raise ValueError(
                f"{self.name} that fails for another number of rows than the batch has ({told}); "
                "all steps are one call, so pass data of a sample with its inputs or "
                "states, or use mode='serial'"
            ) from error
        if new.shape[1:] != found.shape[1:] or _differ(new[len(self.x) :], found, self.start):
            raise ValueError(
                f"{self.name} that returns another state for a row if there are other rows; all "
                "steps are one call, so it must take each row on its own"
            )

    def _new(self, weights: Sequence[Tensor], x: Tensor, state: CellState) -> Any:
        lent = {name: value.clone() for name, value in self._buffers.items()}
        before = [(value, value.clone(), version_of(value)) for value in lent.values()]

        def run(step: Callable[..., Any]) -> Any:
            new = step(x, state, None)
            named = dict(self._call.cell.named_buffers()) if lent else {}
            for name, (value, old, version) in zip(lent, before, strict=True):
                same = version_of(value) == version and torch.equal(value, old)
                if named.get(name) is not value or not (same or value.isnan().any()):
                    self._refuse_edits()
            return new

        return self._call.lent(weights, lent, run)

    def _refuse_edits(self) -> None:
        raise ValueError(
            f"{self.name} that edits its arguments or its buffers in place; let it work on copies, "
            "or use mode='serial'"
        )

    def _refuse_draws(self, weights: Sequence[Tensor], x: Tensor, state: CellState) -> None:
        """Refuse a cell that has drawn random numbers, unless another thread has drawn them."""
        with torch.no_grad(), _Draws() as draws:
            self._new(weights, x, state)
        if draws.seen:
            raise ValueError(
                f"{self.name} that draws random numbers, so it is not the same in every cycle; "
                "move dropout out of it, or use mode='serial'"
            )


class _Draws(TorchDispatchMode):
    """Detects operations of this thread that draw random numbers."""

    seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen = self.seen or torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


def _leaf(x: Tensor, wanted: bool) -> Tensor:
    return x.detach().requires_grad_(wanted and torch.is_grad_enabled())


def _differ(one: Tensor, other: Tensor, start: Tensor) -> bool:
    apart, size = vector.norm(one - other), vector.norm(other) + vector.norm(start)
    return apart > 1e-4 * size


def _generator(x: Tensor) -> Tensor:
    """The state of the random number generator of a device."""
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
            f"{name} that returns {got}; it must return a state like the one that it gets, {want}"
        )


def _refuse_hidden(
    name: str, found: Tensor, known: Iterable[Tensor], weights: Sequence[Tensor]
) -> None:
    """Refuse a result that depends on leaf tensors other than the `known` ones."""
    leaves, own = {id(x) for x in known}, {id(w) for w in weights}
    waiting, seen = [found.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) in own:
            raise ValueError(
                f"{name} that uses a tensor computed from its parameters before the call; compute "
                "it in forward, or use mode='serial'"
            )
        if variable is not None and id(variable) not in leaves:
            raise ValueError(
                f"{name} that uses a tensor with requires_grad that is not among its parameters; "
                "make it an nn.Module that holds it as a parameter, or use mode='serial'"
            )
        waiting += [following for following, _ in node.next_functions]


def check_arguments(
    cell: Any, control: Any, mode: Any, coarse: Any, batch_first: Any, warm_start: Any
) -> None:
    """Raise an error unless these are valid arguments of `TimeParallel`.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.

    Examples
    --------
    >>> check_arguments(nn.GRUCell(2, 3), None, "parallel", None, False, False)
    Traceback (most recent call last):
    ValueError: TimeParallel got mode 'parallel'; use one of mgrit, serial, auto
    """
    if not callable(cell):
        raise TypeError(
            f"TimeParallel got a {type(cell).__name__}; give a cell such as nn.GRUCell(3, 8), an "
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
