"""Many time steps of an LSTM in one call, with analytic derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mgnet.depth.recurrent.step_tape import by_weights, jacobian_of_gates

__all__ = ["LSTMSteps", "LSTMTape"]


class _Gates(NamedTuple):
    """Gates of some steps; new cells are `kept` times the old ones plus `added` times i g."""

    enter: Tensor
    forget: Tensor
    proposal: Tensor
    out: Tensor
    kept: Tensor
    added: Tensor
    squashed: Tensor  # tanh of the new cells


@dataclass(frozen=True, eq=False)
class LSTMSteps:
    """Steps `c' = f c + i g`, `h' = o tanh(c')` of `torch.nn.LSTMCell`; states are `[h, c]`.

    A coarse step over k steps keeps the gates of its start:
    `c' = f^k c + i g (1 + f + ... + f^(k - 1))`.

    Parameters
    ----------
    weight : Tensor of shape (4 H, H)
        The matrix `weight_hh` of input gate, forget gate, proposal g and output gate.
    bias : Tensor of shape (4 H,), optional
        The vector `bias_hh`.

    Examples
    --------
    >>> cell = torch.nn.LSTMCell(2, 3)
    >>> x, h, c = torch.randn(5, 4, 2), torch.randn(5, 4, 3), torch.randn(5, 4, 3)
    >>> gates = F.linear(x, cell.weight_ih, cell.bias_ih)
    >>> new = LSTMSteps(cell.weight_hh, cell.bias_hh).advance(gates, None, torch.cat([h, c], -1))
    >>> torch.allclose(new[2], torch.cat(cell(x[2], (h[2], c[2])), -1), atol=1e-6)
    True
    """

    weight: Tensor
    bias: Tensor | None

    def advance(self, inputs: Tensor, lengths: Tensor | None, states: Tensor) -> Tensor:
        """Compute the states after the steps.

        Parameters
        ----------
        inputs : Tensor of shape (k, batch, 4 H)
            Contributions of the inputs to the gates, `weight_ih x + bias_ih`.
        lengths : Tensor of shape (k, 1, 1), optional
            Number of steps of the finest level that each step represents; one by default.
        states : Tensor of shape (k, batch, 2 H)
            States before the steps.
        """
        gates, cells = self._gates(inputs, lengths, states)
        return torch.cat([gates.out * gates.squashed, cells], -1)

    def record(self, inputs: Tensor, lengths: Tensor | None, states: Tensor) -> LSTMTape:
        """The derivatives of `advance` at the same arguments."""
        gates, _ = self._gates(inputs, lengths, states)
        return self._tape(gates, lengths, states)

    def linearize(
        self, inputs: Tensor, lengths: Tensor | None, states: Tensor, structure: str
    ) -> tuple[Tensor, Tensor]:
        """The result of `advance`, and the `jacobian` of the tape."""
        gates, cells = self._gates(inputs, lengths, states)
        new = torch.cat([gates.out * gates.squashed, cells], -1)
        return new, self._tape(gates, lengths, states).jacobian(structure)

    def _tape(self, gates: _Gates, lengths: Tensor | None, states: Tensor) -> LSTMTape:
        enter, forget, proposal, out, kept, added, squashed = gates
        width = states.shape[-1] // 2
        cells = states[..., width:]
        if lengths is None:
            of_forget = cells * forget * (1.0 - forget)
        else:
            slope = forget * added - lengths * kept  # d(sum of powers) / d(argument of f)
            of_forget = cells * lengths * kept * (1.0 - forget) + enter * proposal * slope
        of_enter = added * proposal * enter * (1.0 - enter)
        of_proposal = added * enter * (1.0 - proposal * proposal)
        through = out * (1.0 - squashed * squashed)  # from the new c to the new h
        none = torch.zeros_like(of_enter)
        of_cells = torch.stack([of_enter, of_forget, of_proposal, none], -2)
        of_out = squashed * out * (1.0 - out)
        biased = self.bias is not None
        hidden = states[..., :width]
        return LSTMTape(self.weight, hidden, kept, of_cells, through, of_out, biased)

    def _gates(
        self, inputs: Tensor, lengths: Tensor | None, states: Tensor
    ) -> tuple[_Gates, Tensor]:
        width = states.shape[-1] // 2
        opening = inputs + F.linear(states[..., :width], self.weight, self.bias)
        enter, forget = torch.sigmoid(opening[..., : 2 * width]).split(width, -1)
        proposal = torch.tanh(opening[..., 2 * width : 3 * width])
        out = torch.sigmoid(opening[..., 3 * width :])
        kept, added = forget, torch.ones_like(forget)
        if lengths is not None:
            opens = opening[..., width : 2 * width]
            powers = lengths * F.logsigmoid(opens)
            kept, closed = torch.exp(powers), torch.sigmoid(-opens)
            # Both vanish if the gate is open; below the smallest number there is no quotient.
            none = closed < torch.finfo(closed.dtype).tiny
            added = torch.where(none, lengths, -torch.expm1(powers) / closed)
        cells = torch.addcmul(enter * proposal * added, kept, states[..., width:])
        gates = _Gates(enter, forget, proposal, out, kept, added, torch.tanh(cells))
        return gates, cells


@dataclass(frozen=True, eq=False)
class LSTMTape:
    """Derivatives of some steps of an LSTM.

    Parameters
    ----------
    weight : Tensor of shape (4 H, H)
        The matrix `weight_hh`.
    hidden : Tensor of shape (k, batch, H)
        The states h before the steps.
    kept : Tensor of shape (k, batch, H)
        Fraction of c that is kept.
    of_cells : Tensor of shape (k, batch, 4, H)
        Derivatives of the new c with respect to the arguments of the gates' activations.
    through : Tensor of shape (k, batch, H)
        Derivative of the new h with respect to the new c.
    of_out : Tensor of shape (k, batch, H)
        Direct derivative of the new h with respect to the argument of the output gate.
    biased : bool
        Whether there is a bias for which derivatives are needed.

    Examples
    --------
    >>> steps = LSTMSteps(torch.zeros(4, 1), None)  # all gates are half open
    >>> tape = steps.record(torch.zeros(1, 1, 4), None, torch.zeros(1, 1, 2))
    >>> tape.vjp(torch.ones(1, 1, 2)).ravel()
    tensor([0.0000, 0.7500])
    """

    weight: Tensor
    hidden: Tensor
    kept: Tensor
    of_cells: Tensor
    through: Tensor
    of_out: Tensor
    biased: bool

    def __getitem__(self, which: slice) -> LSTMTape:
        return LSTMTape(
            self.weight,
            self.hidden[which],
            self.kept[which],
            self.of_cells[which],
            self.through[which],
            self.of_out[which],
            self.biased,
        )

    def _opening(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The products of `v` with the derivatives with respect to gate arguments and the new c."""
        of_hidden, of_cells = v.chunk(2, -1)
        of_cells = torch.addcmul(of_cells, of_hidden, self.through)
        found = of_cells[..., None, :] * self.of_cells
        found[..., 3, :] = of_hidden * self.of_out
        return found.flatten(-2), of_cells

    def vjp(self, v: Tensor) -> Tensor:
        """The product of `v` with the derivative with respect to the states, (k, batch, 2 H)."""
        opening, of_cells = self._opening(v)
        return torch.cat([opening @ self.weight, of_cells * self.kept], -1)

    def gradients(self, v: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """The products of `v` with the derivatives with respect to inputs, `weight` and `bias`."""
        opening, _ = self._opening(v)
        return opening, by_weights(opening, self.hidden, self.biased)

    def jacobian(self, structure: str) -> Tensor:
        """The derivative with respect to states: "dense" (.., 2 H, 2 H) or "diagonal" (.., 2 H)."""
        of_hidden = self.through[..., None, :] * self.of_cells
        of_hidden[..., 3, :] = self.of_out
        hidden, cells = [
            jacobian_of_gates(factors, self.weight, structure)
            for factors in (of_hidden, self.of_cells)
        ]
        if structure == "diagonal":
            return torch.cat([hidden, self.kept], -1)
        top = torch.cat([hidden, torch.diag_embed(self.through * self.kept)], -1)
        return torch.cat([top, torch.cat([cells, torch.diag_embed(self.kept)], -1)], -2)
