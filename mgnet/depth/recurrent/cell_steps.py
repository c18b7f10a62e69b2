"""Many time steps of any cell in one call, with time folded into the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CellSteps", "CellTape", "joined", "parts_of"]

CellState = Tensor | tuple[Tensor, ...]
Cell = Callable[[Tensor, CellState], CellState]
CoarseStep = Callable[[Tensor, CellState, Tensor], CellState]


def joined(state: CellState) -> Tensor:
    """The tensors of a state side by side on the last axis.

    Examples
    --------
    >>> joined((torch.zeros(2, 3), torch.zeros(2, 1))).shape
    torch.Size([2, 4])
    """
    return state if isinstance(state, Tensor) else torch.cat(tuple(state), -1)


def parts_of(state: Tensor, widths: Sequence[int]) -> CellState:
    """The inverse of `joined`: a tensor where there is one width, else a tuple.

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
        A state may be a tuple of tensors.
    coarse : callable, optional
        `(x, h, k) -> h`: a step over k of the cell's, k of shape (rows, 1). By default the cell's
        own step.
    widths : sequence of int
        S of every part of a state.
    weights : Tensor
        The parameters of the cell, if it is a module, in their order.

    Examples
    --------
    >>> cell = torch.nn.RNNCell(2, 3)
    >>> x, h = torch.randn(5, 4, 2), torch.randn(5, 4, 3)
    >>> steps = CellSteps(cell, None, (3,), *cell.parameters())
    >>> torch.allclose(steps.advance(x, None, h)[2], cell(x[2], h[2]), atol=1e-6)
    True
    """

    def __init__(
        self, cell: Cell, coarse: CoarseStep | None, widths: Sequence[int], *weights: Tensor
    ):
        self.widths = widths
        self.weights = weights
        self._call = _Call(cell, coarse)

    def advance(self, inputs: Tensor, lengths: Tensor | None, states: Tensor) -> Tensor:
        """The states after the steps.

        Parameters
        ----------
        inputs : Tensor of shape (k, batch, ...)
        lengths : Tensor of shape (k, 1, 1), optional
            How many steps each one stands for; one by default.
        states : Tensor of shape (k, batch, S)
        """
        return joined(self._call(*self.folded(inputs, lengths, states))).reshape(states.shape)

    def record(self, inputs: Tensor, lengths: Tensor | None, states: Tensor) -> CellTape:
        """The derivatives of `advance`, with its arguments; evaluated when they are asked for."""
        return CellTape(self, inputs, lengths, states)

    def with_weights(self, weights: Sequence[Tensor]) -> CellSteps:
        """The same steps with other weights."""
        return CellSteps(self._call.cell, self._call.coarse, self.widths, *weights)

    def linearize(
        self, inputs: Tensor, lengths: Tensor | None, states: Tensor, structure: str
    ) -> tuple[Tensor, Tensor]:
        """What `advance` gives, and `jacobian` of the tape."""
        tape = self.record(inputs, lengths, states)
        return tape.value, tape.jacobian(structure)

    def evaluate(self, inputs: Tensor, lengths: Tensor | None, states: Tensor) -> Tensor:
        """As `advance`, as a function of the weights that were given, and in one row per step."""
        given = self.folded(inputs, lengths, states)
        cell, weights = self._call.cell, dict[str, Tensor]()
        if isinstance(cell, nn.Module):
            names = [f"cell.{name}" for name, _ in cell.named_parameters()]
            weights.update(zip(names, self.weights, strict=True))
        return joined(torch.func.functional_call(self._call, weights, given))

    def folded(
        self, inputs: Tensor, lengths: Tensor | None, states: Tensor
    ) -> tuple[Tensor, CellState, Tensor | None]:
        """The arguments of one call of the cell."""
        rows = None
        if lengths is not None:
            rows = lengths.expand(*states.shape[:2], 1).reshape(-1, 1)
        return inputs.flatten(0, 1), parts_of(states.flatten(0, 1), self.widths), rows


class _Call(nn.Module):
    """The cell, or a coarse step of it; a module, so that its parameters can be given anew."""

    def __init__(self, cell: Cell, coarse: CoarseStep | None):
        super().__init__()
        self.cell = cell
        self.coarse = coarse

    def forward(self, x: Tensor, state: CellState, lengths: Tensor | None) -> CellState:
        if lengths is None or self.coarse is None:
            return self.cell(x, state)
        return self.coarse(x, state, lengths)


@dataclass(frozen=True, eq=False)
class CellTape:
    """Derivatives of some steps of a cell, by autograd.

    Parameters
    ----------
    steps : CellSteps
    inputs, lengths, states
        As in `CellSteps.advance`.

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
        """`v` times the derivative by the states, shape (k, batch, S)."""
        new, states = self._recorded()
        return _gradients(new, [states], v)[0]

    @property
    def value(self) -> Tensor:
        """The states after the steps."""
        return self._recorded()[0].detach().reshape(self.states.shape)

    def gradients(self, v: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """`v` times the derivatives by the inputs, and by the weights."""
        with torch.enable_grad():
            inputs = self.inputs.detach().requires_grad_()
            weights = [w.detach().requires_grad_() for w in self.steps.weights]
            new = self.steps.with_weights(weights).evaluate(inputs, self.lengths, self.states)
        of_inputs, *of_weights = _gradients(new, [inputs, *weights], v)
        return of_inputs, tuple(of_weights)

    def jacobian(self, structure: str) -> Tensor:
        """The derivative by the states: "dense" (k, batch, S, S), "diagonal" (k, batch, S)."""
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
                graph[:] = self.steps.evaluate(self.inputs, self.lengths, states), states
        return graph[0], graph[1]


def _gradients(new: Tensor, of: Sequence[Tensor], v: Tensor) -> list[Tensor]:
    """`v` times the derivatives; zeros where there is none."""
    if not new.requires_grad:
        return [torch.zeros_like(x) for x in of]
    found = torch.autograd.grad(new, of, v.reshape(new.shape), retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(of, found, strict=True)]
