"""Many time steps of an LSTM in one call, and their derivatives by formulas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mgnet.depth.recurrent.step_tape import by_weights, jacobian_of_gates

__all__ = ["LSTMSteps", "LSTMTape"]


class _Gates(NamedTuple):
    """Of some steps, and the new cells; `kept` of the old ones stays, `added` times i g comes."""

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

    A coarse step over k of them keeps the gates that it has at its beginning:
    `c' = f^k c + i g (1 + f + ... + f^(k - 1))`.

    Parameters
    ----------
    weight : Tensor of shape (4 H, H)
        `weight_hh`: of input gate, forget gate, proposal g and output gate.
    bias : Tensor of shape (4 H,), optional
        `bias_hh`.

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
        """The states after the steps.

        Parameters
        ----------
        inputs : Tensor of shape (k, batch, 4 H)
            What the inputs give to the gates, `weight_ih x + bias_ih`.
        lengths : Tensor of shape (k, 1, 1), optional
            How many steps each one stands for; one by default.
        states : Tensor of shape (k, batch, 2 H)
        """
        gates, cells = self._gates(inputs, lengths, states)
        return torch.cat([gates.out * gates.squashed, cells], -1)

    def record(self, inputs: Tensor, lengths: Tensor | None, states: Tensor) -> LSTMTape:
        """The derivatives of `advance`, with its arguments."""
        gates, _ = self._gates(inputs, lengths, states)
        return self._tape(gates, lengths, states)

    def linearize(
        self, inputs: Tensor, lengths: Tensor | None, states: Tensor, structure: str
    ) -> tuple[Tensor, Tensor]:
        """What `advance` gives, and `jacobian` of the tape."""
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
            slope = forget * added - lengths * kept  # of the sum of powers, by what opens f
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
            # Both vanish where the gate is open; below the least number there is no quotient.
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
    hidden : Tensor of shape (k, batch, H)
        h before the steps.
    kept : Tensor of shape (k, batch, H)
        How much of c stays.
    of_cells : Tensor of shape (k, batch, 4, H)
        Derivatives of the new c by what opens the gates.
    through : Tensor of shape (k, batch, H)
        The derivative of the new h by the new c.
    of_out : Tensor of shape (k, batch, H)
        The one of the new h by what opens the output gate, beside that.
    biased : bool
        Whether there is a bias to differentiate by.

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
        """`v` times the derivatives by what opens the gates (k, batch, 4 H), and by the new c."""
        of_hidden, of_cells = v.chunk(2, -1)
        of_cells = torch.addcmul(of_cells, of_hidden, self.through)
        found = of_cells[..., None, :] * self.of_cells
        found[..., 3, :] = of_hidden * self.of_out
        return found.flatten(-2), of_cells

    def vjp(self, v: Tensor) -> Tensor:
        """`v` times the derivative by the states, shape (k, batch, 2 H)."""
        opening, of_cells = self._opening(v)
        return torch.cat([opening @ self.weight, of_cells * self.kept], -1)

    def gradients(self, v: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """`v` times the derivatives by the inputs, and by `weight` and `bias`."""
        opening, _ = self._opening(v)
        return opening, by_weights(opening, self.hidden, self.biased)

    def jacobian(self, structure: str) -> Tensor:
        """The derivative by the states: "dense" (k, batch, 2 H, 2 H), "diagonal" (.., 2 H)."""
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
