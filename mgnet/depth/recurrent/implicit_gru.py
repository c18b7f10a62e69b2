"""`ImplicitGRUCell`: a GRU cell whose update is an implicit Euler step."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mgnet.depth.recurrent.gru_steps import GRUSteps

__all__ = ["ImplicitGRUCell"]


class ImplicitGRUCell(nn.GRUCell):
    """A GRU cell with `h' = (h + (1 - z) n) / (2 - z)`: implicit in the decay of h.

    A step of length k on a coarse level is `h' = (h + k (1 - z) n) / (1 + k (1 - z))`, which stays
    bounded for any k. Gates, parameters and their names are those of `torch.nn.GRUCell`, but
    trained weights cannot be exchanged between the two cells.

    The arguments are those of `torch.nn.GRUCell`: `input_size`, `hidden_size`, `bias`, `device`,
    `dtype`.

    Notes
    -----
    Source: Moon, Cyr, "Parallel training of GRU networks with a multi-grid solver for long
    sequences", ICLR 2022; their z is 1 - z here.

    Examples
    --------
    >>> import torch
    >>> cell = ImplicitGRUCell(3, 5)
    >>> cell(torch.randn(4, 3)).shape, cell(torch.randn(3), torch.zeros(5)).shape
    (torch.Size([4, 5]), torch.Size([5]))
    """

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Compute the next state, from input (batch, input_size) or (input_size,) and state.

        Raises
        ------
        ValueError
            If the input has neither of these shapes.
        """
        if input.dim() not in (1, 2):
            raise ValueError(
                f"ImplicitGRUCell got an input of shape {tuple(input.shape)}; give "
                f"(batch, {self.input_size}) or ({self.input_size},)"
            )
        if hx is None:
            hx = input.new_zeros(*input.shape[:-1], self.hidden_size)
        gates = F.linear(input, self.weight_ih, self.bias_ih)
        return GRUSteps(self.weight_hh, self.bias_hh, implicit=True).advance(gates, None, hx)
