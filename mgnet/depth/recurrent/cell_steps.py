"""Many time steps of any cell in one call, with the time axis folded into the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mgnet.depth.recurrent.cell_call import CellCall, KeptCell

__all__ = ["CellSteps", "CellTape", "joined", "parts_of"]

CellState = Tensor | tuple[Tensor, ...]
Cell = Callable[[Tensor, CellState], CellState]
CoarseStep = Callable[[Tensor, CellState, Tensor], CellState]


def joined(state: CellState) -> Tensor:
    """Concatenate the tensors of a state on the last axis.

    Examples
    --------
    >>> joined((torch.zeros(2, 3), torch.zeros(2, 1))).shape
    torch.Size([2, 4])
    """
    return state if isinstance(state, Tensor) else torch.cat(tuple(state), -1)


def parts_of(state: Tensor, widths: Sequence[int]) -> CellState:
    """Split a joined state: a tensor if there is one width, else a tuple.

    Examples
    --------
    >>> [part.shape for part in parts_of(torch.zeros(2, 4), (3, 1))]
    [torch.Size([2, 3]), torch.Size([2, 1])]
    """
    return state if len(widths) == 1 else tuple(state.split(list(widths), -1))


class CellSteps:
    """Steps of a cell `(x, h) -> h`, x of shape (rows, ...) and h of shape (rows, S).

    Parameters
    ----------
    cell : callable
        The user's cell; a state may be a tuple of tensors.
    coarse : callable, optional
        A coarse step `(x, h, k) -> h` over k steps of the cell, with k of shape (rows, 1). The
        default is the cell's own step.
    widths : sequence of int
        Width S of every part of a state.
    weights : Tensor
        The parameters of the cell in their order, if it is a module.
    kept : KeptCell, optional
        What else the cell depends on, which must not change between the pass and its derivatives.

    Raises
    ------
    RuntimeError
        In `record`, if the cell has changed.

    Examples
    --------
    >>> cell = torch.nn.RNNCell(2, 3)
    >>> x, h = torch.randn(5, 4, 2), torch.randn(5, 4, 3)
    >>> steps = CellSteps(cell, None, (3,), *cell.parameters())
    >>> torch.allclose(steps.advance(x, None, h)[2], cell(x[2], h[2]), atol=1e-6)
    True
    """

    def __init__(
        self,
        cell: Cell,
        coarse: CoarseStep | None,
        widths: Sequence[int],
        *weights: Tensor,
        kept: KeptCell | None = None,
    ):
        self.widths = widths
        self.weights = weights
        self._call = CellCall(cell, coarse)
        self._kept, self._checked = kept, kept is None

    def advance(self, inputs: Tensor, lengths: Tensor | None, states: Tensor) -> Tensor:
        """Compute the states after the steps.

        Parameters
        ----------
        inputs : Tensor of shape (k, batch, ...)
            Inputs of the steps.
        lengths : Tensor of shape (k, 1, 1), optional
            Number of steps of the finest level that each step represents; one by default.
        states : Tensor of shape (k, batch, S)
            States before the steps.
        """
        given = self.folded(inputs, lengths, states)
        return joined(self._call.step(*given)).reshape(states.shape)

    def record(self, inputs: Tensor, lengths: Tensor | None, states: Tensor) -> CellTape:
        """The derivatives of `advance` at the same arguments, evaluated on demand."""
        if not self._checked and self._kept is not None:
            self._kept.check()
            self._checked = True
        return CellTape(self, inputs, lengths, states)

    def linearize(
        self, inputs: Tensor, lengths: Tensor | None, states: Tensor, structure: str
    ) -> tuple[Tensor, Tensor]:
        """The result of `advance`, and the `jacobian` of the tape."""
        tape = self.record(inputs, lengths, states)
        return tape.value, tape.jacobian(structure)

    def lent(self, weights: Sequence[Tensor], run: Callable[[Callable[..., Any]], Any]) -> Any:
        """Call `CellCall.lent` with the buffers of the forward pass."""
        return self._call.lent(weights, self._kept.buffers if self._kept else {}, run)

    def folded(
        self, inputs: Tensor, lengths: Tensor | None, states: Tensor
    ) -> tuple[Tensor, CellState, Tensor | None]:
        """The arguments of one call of the cell."""
        rows = None
        if lengths is not None:
            rows = lengths.expand(*states.shape[:2], 1).reshape(-1, 1)
        return inputs.flatten(0, 1), parts_of(states.flatten(0, 1), self.widths), rows


@dataclass(frozen=True, eq=False)
class CellTape:
    """Derivatives of some steps of a cell, by autograd.

    Parameters
    ----------
    steps : CellSteps
        The steps.
    inputs, lengths, states
        The arguments of `CellSteps.advance`.

    Examples
    --------
    >>> steps = CellSteps(lambda x, h: 0.5 * h + x, None, (1,))
    >>> tape = steps.record(torch.ones(2, 1, 1), None, torch.ones(2, 1, 1))
    >>> tape.vjp(torch.ones(2, 1, 1)).ravel()
    tensor([0.5000, 0.5000])
    """

    steps: CellSteps
    inputs: Tensor
    lengths: Tensor | None
    states: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "_graph", [])

    def __getitem__(self, which: slice) -> CellTape:
        lengths = None if self.lengths is None else self.lengths[which]
        return CellTape(self.steps, self.inputs[which], lengths, self.states[which])

    def vjp(self, v: Tensor) -> Tensor:
        """The product of `v` with the derivative with respect to the states, (k, batch, S)."""
        new, states = self._recorded()
        found = self.steps.lent(self.steps.weights, lambda _: _gradients(new, [states], v))[0]
        return torch.zeros_like(states) if found is None else found

    @property
    def value(self) -> Tensor:
        """The states after the steps."""
        return self._recorded()[0].detach().reshape(self.states.shape)

    def gradients(self, v: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """The products of `v` with the derivatives with respect to inputs and weights."""
        weights = [w.detach().requires_grad_(w.is_floating_point()) for w in self.steps.weights]
        inputs = self.inputs.detach().requires_grad_()
        wanted = [inputs, *[w for w in weights if w.requires_grad]]

        def run(step: Callable[..., Any]) -> list[Tensor | None]:
            return _gradients(joined(step(*given)), wanted, v)

        with torch.enable_grad():
            given = self.steps.folded(inputs, self.lengths, self.states)
            of_inputs, *found = self.steps.lent(weights, run)
        rest = iter(found)
        of_weights = [next(rest) if w.requires_grad else None for w in weights]
        return torch.zeros_like(inputs) if of_inputs is None else of_inputs, tuple(of_weights)

    def jacobian(self, structure: str) -> Tensor:
        """The derivative with respect to states: "dense" (.., S, S) or "diagonal" (.., S)."""
        units = torch.eye(self.states.shape[-1]).to(self.states)
        rows = [self.vjp(unit.expand_as(self.states)) for unit in units]
        if structure == "diagonal":
            return torch.stack([row[..., i] for i, row in enumerate(rows)], -1)
        return torch.stack(rows, -2)

    def _recorded(self) -> tuple[Tensor, Tensor]:
        graph: list[Any] = self._graph  # type: ignore[attr-defined]
        if not graph:
            with torch.enable_grad():
                states = self.states.detach().requires_grad_()
                given = self.steps.folded(self.inputs, self.lengths, states)
                new = self.steps.lent(self.steps.weights, lambda step: joined(step(*given)))
                graph[:] = new, states
        return graph[0], graph[1]


def _gradients(new: Tensor, of: Sequence[Tensor], v: Tensor) -> list[Tensor | None]:
    """The products of `v` with the derivatives; None for inputs without influence."""
    if not new.requires_grad:
        return [None] * len(of)
    v = v.reshape(new.shape)
    return list(torch.autograd.grad(new, of, v, retain_graph=True, allow_unused=True))
