"""The subspace form of the coarse problem of a descent: the objective over u + P w.

`Recentred` is for a least-squares problem and has residuals and a Jacobian; `Around` is for any
other objective.
"""

from __future__ import annotations

import torch

from mgnet.training.least_squares.jacobian import Jacobian, ProlongedJacobian
from mgnet.training.least_squares.problem import LeastSquares
from mgnet.training.loss.objective import Objective
from mgnet.transfer import Transfer

__all__ = ["Around", "Recentred"]


class Recentred(LeastSquares):
    """The coarse problem around a fine state u: minimize `J(u + P w) - <A(u), P w>` over w.

    Any decrease of the coarse objective, with `f = restrict(r)`, is a decrease of J. Its gradient
    vanishes at w = 0.

    Parameters
    ----------
    fine : LeastSquares
        Problem of the level above, which may itself be recentered.
    u : tensor
        The fine state.
    transfer : Transfer
        Transfer with the prolongation P.
    shift : tensor
        The vector `P^T A(u)`; `of` evaluates it.

    Examples
    --------
    >>> from mgnet import MatrixTransfer
    >>> network = torch.nn.Linear(1, 1, dtype=torch.float64)
    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> u, P = torch.zeros(2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    >>> coarse = Recentred.of(LeastSquares(network, (x, 2.0 * x)), u, MatrixTransfer(P))
    >>> coarse(torch.zeros(1, dtype=torch.float64)).tolist()
    [0.0]
    """

    def __init__(
        self, fine: LeastSquares, u: torch.Tensor, transfer: Transfer, shift: torch.Tensor
    ):
        super().__init__(fine.network, fine.data, residual=fine.residual)
        self.fine = fine
        self.u = u
        self.transfer = transfer
        self.shift = shift

    @classmethod
    def of(cls, fine: LeastSquares, u: torch.Tensor, transfer: Transfer) -> Recentred:
        """The coarse problem at u; the gradient at u is evaluated."""
        # This is the gradient of 1/2 |r|^2, without the term that the level above subtracts.
        whole = fine.gradient(u)
        whole = whole if fine.shift is None else whole + fine.shift
        return cls(fine, u, transfer, transfer.restrict(whole))

    def point(self, w: torch.Tensor) -> torch.Tensor:
        """The fine state u + P w."""
        return self.transfer.correct(self.u, w)

    def residuals(self, u: torch.Tensor) -> torch.Tensor:
        return self.fine.residuals(self.point(u))

    def linearize(self, u: torch.Tensor) -> tuple[torch.Tensor, Jacobian]:
        r, J = self.fine.linearize(self.point(u))
        return r, ProlongedJacobian(J, self.transfer, len(u), u.dtype)

    def half_square(self, r: torch.Tensor) -> float:
        return self.fine.half_square(r)

    def largest(self, r: torch.Tensor) -> float:
        return self.fine.largest(r)

    def value(self, u: torch.Tensor) -> float:
        return super().value(u) - float(self.shift @ u)  # type: ignore[operator]

    def value_and_gradient(self, u: torch.Tensor) -> tuple[float, torch.Tensor]:
        point = self.point(u)
        value, whole = self.fine.value_and_gradient(point)
        if self.fine.shift is not None:
            value, whole = value + float(self.fine.shift @ point), whole + self.fine.shift
        return value - float(self.shift @ u), self.transfer.restrict(whole) - self.shift  # type: ignore[operator]


class Around:
    """The coarse problem `J(u + P w) - <A(u), P w>` over w, for any objective J with gradient A.

    It corresponds to `Recentred`, but has no residuals and no Jacobian.

    Parameters
    ----------
    fine : Objective or Around
        Objective J of the level above.
    u : tensor
        The fine state.
    transfer : Transfer
        Transfer with the prolongation P.
    shift : tensor
        The vector `P^T A(u)`; `of` evaluates it.

    Examples
    --------
    >>> from mgnet import MatrixTransfer
    >>> module = torch.nn.Linear(1, 2, bias=False, dtype=torch.float64)
    >>> fine = Objective.from_torch(module, lambda m: (m.weight - 3.0).square().sum())
    >>> u, P = torch.zeros(2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    >>> around = Around.of(fine, u, MatrixTransfer(P))
    >>> around(torch.tensor([0.0], dtype=torch.float64)).tolist()
    [0.0]
    >>> around.value(torch.tensor([1.0], dtype=torch.float64))
    20.0
    """

    def __init__(
        self, fine: Objective | Around, u: torch.Tensor, transfer: Transfer, shift: torch.Tensor
    ):
        self.fine = fine
        self.u = u
        self.transfer = transfer
        self.shift = shift

    @classmethod
    def of(cls, fine: Objective | Around, u: torch.Tensor, transfer: Transfer) -> Around:
        """The coarse problem at u; the gradient at u is evaluated."""
        return cls(fine, u, transfer, transfer.restrict(fine.gradient(u)))

    def value(self, w: torch.Tensor) -> float:
        """The value at w."""
        return self.fine.value(self.transfer.correct(self.u, w)) - float(self.shift @ w)

    def gradient(self, w: torch.Tensor) -> torch.Tensor:
        """The gradient of the value at w; it vanishes at 0."""
        point = self.transfer.correct(self.u, w)
        return self.transfer.restrict(self.fine.gradient(point)) - self.shift

    def __call__(self, w: torch.Tensor) -> torch.Tensor:
        return self.gradient(w)
