"""Many time steps of a GRU in one call, with analytic derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mgnet.depth.recurrent.step_tape import by_weights, jacobian_of_gates, through_gates

__all__ = ["GRUSteps", "GRUTape"]


class _Gates(NamedTuple):
    """Gates of some steps; `inner` is the state's part of the candidate before the reset gate."""

    reset: Tensor
    update: Tensor
    opening: Tensor  # argument of the sigmoid of the update gate
    inner: Tensor
    candidate: Tensor


@dataclass(frozen=True, eq=False)
class GRUSteps:
    """Steps `h' = n + p (h - n)` with the gates of `torch.nn.GRUCell`, `p = z` for one step.

    A coarse step over k steps keeps the gates and the candidate n of its start: `p = z^k`, or, for
    implicit steps, `p = 1 / (1 + k (1 - z))`.

    Parameters
    ----------
    weight : Tensor of shape (3 H, H)
        The matrix `weight_hh` of reset gate, update gate and candidate.
    bias : Tensor of shape (3 H,), optional
        The vector `bias_hh`.
    implicit : bool
        Whether to use the second formula for p even for single steps. Source: Moon, Cyr, "Parallel
        training of GRU networks with a multi-grid solver for long sequences", ICLR 2022.

    Examples
    --------
    >>> cell = torch.nn.GRUCell(2, 3)
    >>> x, h = torch.randn(5, 4, 2), torch.randn(5, 4, 3)
    >>> gates = F.linear(x, cell.weight_ih, cell.bias_ih)
    >>> steps = GRUSteps(cell.weight_hh, cell.bias_hh)
    >>> torch.allclose(steps.advance(gates, None, h)[2], cell(x[2], h[2]), atol=1e-6)
    True
    """

    weight: Tensor
    bias: Tensor | None
    implicit: bool = False

    def advance(self, inputs: Tensor, lengths: Tensor | None, states: Tensor) -> Tensor:
        """Compute the states after the steps.

        Parameters
        ----------
        inputs : Tensor of shape (k, batch, 3 H)
            Contributions of the inputs to the gates, `weight_ih x + bias_ih`.
        lengths : Tensor of shape (k, 1, 1), optional
            Number of steps of the finest level that each step represents; one by default.
        states : Tensor of shape (k, batch, H)
            States before the steps.
        """
        gates = self._gates(inputs, states)
        return self._new(gates, self._kept(gates, lengths), states)

    def record(self, inputs: Tensor, lengths: Tensor | None, states: Tensor) -> GRUTape:
        """The derivatives of `advance` at the same arguments."""
        gates = self._gates(inputs, states)
        return self._tape(gates, self._kept(gates, lengths), lengths, states)

    def linearize(
        self, inputs: Tensor, lengths: Tensor | None, states: Tensor, structure: str
    ) -> tuple[Tensor, Tensor]:
        """The result of `advance`, and the `jacobian` of the tape."""
        gates = self._gates(inputs, states)
        kept = self._kept(gates, lengths)
        tape = self._tape(gates, kept, lengths, states)
        return self._new(gates, kept, states), tape.jacobian(structure)

    def _new(self, gates: _Gates, kept: Tensor, states: Tensor) -> Tensor:
        return torch.addcmul(gates.candidate, kept, states - gates.candidate)

    def _tape(self, gates: _Gates, kept: Tensor, lengths: Tensor | None, states: Tensor) -> GRUTape:
        reset, update, _, inner, candidate = gates
        slope = (1.0 if lengths is None else lengths) * kept * (1.0 - update)
        if self.implicit:
            slope = slope * kept * update
        of_candidate = (1.0 - kept) * (1.0 - candidate * candidate)
        through_reset = of_candidate * reset
        of_reset = through_reset * inner * (1.0 - reset)
        of_update = (states - candidate) * slope  # dp / d(argument of the sigmoid)
        factors = torch.stack([of_reset, of_update, through_reset], -2)
        return GRUTape(self.weight, states, kept, factors, of_candidate, self.bias is not None)

    def _gates(self, inputs: Tensor, states: Tensor) -> _Gates:
        width = states.shape[-1]
        of_state = F.linear(states, self.weight, self.bias)
        opening = inputs[..., : 2 * width] + of_state[..., : 2 * width]
        reset, update = torch.sigmoid(opening).split(width, -1)
        inner = of_state[..., 2 * width :]
        candidate = torch.addcmul(inputs[..., 2 * width :], reset, inner).tanh_()
        return _Gates(reset, update, opening[..., width:], inner, candidate)

    def _kept(self, gates: _Gates, lengths: Tensor | None) -> Tensor:
        """The fraction p of the state that is kept."""
        if self.implicit:
            return 1.0 / (1.0 + (1.0 if lengths is None else lengths) * (1.0 - gates.update))
        if lengths is None:
            return gates.update
        return torch.exp(lengths * F.logsigmoid(gates.opening))


@dataclass(frozen=True, eq=False)
class GRUTape:
    """Derivatives of some steps of a GRU.

    Parameters
    ----------
    weight : Tensor of shape (3 H, H)
        The matrix `weight_hh`.
    states : Tensor of shape (k, batch, H)
        States before the steps.
    kept : Tensor of shape (k, batch, H)
        Fraction of the state that is kept.
    factors : Tensor of shape (k, batch, 3, H)
        Derivatives of the new state with respect to the state's contributions to gates and
        candidate.
    of_candidate : Tensor of shape (k, batch, H)
        Derivative with respect to the input's contribution to the candidate; for the gates, it
        equals `factors`.
    biased : bool
        Whether there is a bias for which derivatives are needed.

    Examples
    --------
    >>> steps = GRUSteps(torch.zeros(3, 1), None)  # all gates are half open
    >>> tape = steps.record(torch.zeros(2, 1, 3), None, torch.ones(2, 1, 1))
    >>> tape.vjp(torch.ones(2, 1, 1)).ravel()
    tensor([0.5000, 0.5000])
    """

    weight: Tensor
    states: Tensor
    kept: Tensor
    factors: Tensor
    of_candidate: Tensor
    biased: bool

    def __getitem__(self, which: slice) -> GRUTape:
        return GRUTape(
            self.weight,
            self.states[which],
            self.kept[which],
            self.factors[which],
            self.of_candidate[which],
            self.biased,
        )

    def vjp(self, v: Tensor) -> Tensor:
        """The product of `v` with the derivative with respect to the states, (k, batch, H)."""
        return torch.addcmul(through_gates(v, self.factors) @ self.weight, v, self.kept)

    def gradients(self, v: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """The products of `v` with the derivatives with respect to inputs, `weight` and `bias`."""
        of_state, width = through_gates(v, self.factors), v.shape[-1]
        of_inputs = torch.cat([of_state[..., : 2 * width], v * self.of_candidate], -1)
        return of_inputs, by_weights(of_state, self.states, self.biased)

    def jacobian(self, structure: str) -> Tensor:
        """The derivative with respect to states: "dense" (.., H, H) or "diagonal" (.., H)."""
        found = jacobian_of_gates(self.factors, self.weight, structure)
        return found + (torch.diag_embed(self.kept) if structure == "dense" else self.kept)
