"""A network as an equation: the loss over its flat parameter vector, and the gradient of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch

from mgnet.training.least_squares.jacobian import (
    Jacobian,
    ProlongedJacobian,
    SparseJacobian,
    StackedJacobian,
)
from mgnet.training.least_squares.linearization import Residual, blocks_of, linearize
from mgnet.training.loss.checks import check_data, check_loss
from mgnet.training.loss.parameters import FlatParameters

if TYPE_CHECKING:
    from mgnet.transfer import Transfer

__all__ = ["LeastSquares", "Objective", "Recentred"]

Data = tuple[torch.Tensor, torch.Tensor]


@runtime_checkable
class Linearizes(Protocol):
    """A network with a faster way than autograd to its derivatives by all parameters."""

    def linearize(self, x: torch.Tensor, /) -> tuple[torch.Tensor, Jacobian]:
        """Outputs, and their Jacobian with a row per sample and output."""
        ...


class Objective:
    """The equation "gradient of the loss = f"; calling it gives the gradient.

    Parameters
    ----------
    network : torch.nn.Module
        A template: its own parameters are not changed. Those that require a gradient are the
        unknowns.
    loss : callable
        `(outputs, targets) -> scalar tensor`.
    data : (inputs, targets)
        Two tensors with the samples on axis 0. None: the loss is a function of the network alone,
        see `from_torch`.

    Examples
    --------
    >>> network = torch.nn.Linear(1, 1, dtype=torch.float64)
    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> objective = Objective(network, torch.nn.functional.mse_loss, (x, 2.0 * x))
    >>> u = torch.tensor([1.0, 0.0], dtype=torch.float64)  # weight, bias
    >>> objective.value(u), objective(u).tolist()
    (0.5, [-1.0, -1.0])
    """

    def __init__(
        self,
        network: torch.nn.Module,
        loss: Callable[..., torch.Tensor],
        data: Data | None,
    ):
        if not callable(loss):
            raise TypeError(
                f"Objective got a loss of type {type(loss).__name__}; give a function, as "
                "torch.nn.functional.mse_loss"
            )
        if data is not None:
            check_data(type(self).__name__, data)
        self.network = network
        self.loss = loss
        self.data: Any = data
        self.flat = FlatParameters(network)

    @classmethod
    def from_torch(cls, module: torch.nn.Module, loss: Callable[..., torch.Tensor]) -> Objective:
        """The objective of any module: `loss(module) -> scalar tensor`, over whatever it likes.

        Examples
        --------
        >>> module = torch.nn.Linear(1, 1, bias=False)
        >>> objective = Objective.from_torch(module, lambda m: (m.weight - 3.0).square().sum())
        >>> objective(torch.tensor([5.0])).tolist()
        [4.0]
        """
        return Objective(module, loss, None)

    def on(self, network: torch.nn.Module) -> Objective:
        """The same objective for another network."""
        return Objective(network, self.loss, self.data)

    def at(self, batch: Any) -> Objective:
        """The same objective for other data, say a batch of it."""
        self._require_data("at")
        return Objective(self.network, self.loss, batch)

    def thinned(self, fraction: float) -> Objective:
        """The same objective on a part of the samples, evenly spread over their order."""
        self._require_data("thinned")
        samples = len(self.data[0])
        count = max(1, round(fraction * samples))
        kept = torch.arange(count, device=self.data[0].device) * samples // count
        return self if count >= samples else self.at(tuple(part[kept] for part in self.data))

    def _require_data(self, method: str) -> None:
        if self.data is None:
            raise ValueError(
                f"{type(self).__name__}.{method} needs data, but this objective is a function of "
                "the module alone; give (inputs, targets)"
            )

    def start(self) -> torch.Tensor:
        """The parameters of the template as one flat vector, a copy."""
        return self.flat.start()

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Of the parameters in u, by name."""
        return {name: p.shape for name, p in self.flat.trainable.items()}

    def parameters(self, u: torch.Tensor) -> dict[str, torch.Tensor]:
        """The flat vector as named parameters."""
        return self.flat.named(u)

    def outputs(self, u: torch.Tensor) -> torch.Tensor:
        """Of the network with the parameters u, for all inputs."""
        return self.flat.evaluate(lambda network: network(self.data[0]), u)

    def value(self, u: torch.Tensor) -> float:
        """The loss."""
        return float(self._loss(u.detach()).detach())

    def gradient(self, u: torch.Tensor) -> torch.Tensor:
        """Of the loss, a flat vector."""
        return self.value_and_gradient(u)[1]

    def value_and_gradient(self, u: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Both, from one forward and one backward pass."""
        u = u.detach().requires_grad_()
        loss = self._loss(u)
        if not loss.requires_grad:
            raise ValueError(
                f"the loss does not depend on the parameters of {type(self.network).__name__}; it "
                "must call the module that it is given, without torch.no_grad or detach"
            )
        (gradient,) = torch.autograd.grad(loss, u)
        return float(loss.detach()), gradient

    def __call__(self, u: torch.Tensor) -> torch.Tensor:
        return self.gradient(u)

    def _loss(self, u: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():  # a loss may differentiate by the inputs
            if self.data is None:
                return check_loss(self.flat.evaluate(self.loss, u))
            return check_loss(self.loss(self.outputs(u), self.data[1]))


class LeastSquares(Objective):
    """Half the mean squared error: the objective whose residual vector and Jacobian are known.

    The value is `1/2 |r(u)|^2` with `r = (outputs - targets) / sqrt(samples)`; with `from_torch`,
    r is what a function of the module returns. Residuals and Jacobians are in float64.

    Parameters
    ----------
    network : torch.nn.Module
        Uses its own `linearize(x)` when it has one (a KAN has), else automatic differentiation.
    data : (inputs, targets)
    penalty : callable, optional
        `network -> R`, a matrix with one column per parameter: the rows `R u` join the residual
        vector. `mgnet.knots.roughness` is one.
    residual : callable, optional
        `module -> tensor` or tuple of tensors, instead of data; see `from_torch`.
    chunk_size : int, optional
        Rows or columns of the Jacobian at once, where it is made by them.

    Examples
    --------
    >>> network = torch.nn.Linear(1, 1, dtype=torch.float64)
    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> problem = LeastSquares(network, (x, 2.0 * x))
    >>> u = torch.tensor([1.0, 0.0], dtype=torch.float64)
    >>> problem.value(u), problem(u).tolist()
    (0.25, [-0.5, -0.5])
    """

    # What the coarse problem of a descent subtracts, <shift, u>: see `Recentred`.
    shift: torch.Tensor | None = None

    def __init__(
        self,
        network: torch.nn.Module,
        data: Data | None,
        penalty: Callable[[Any], torch.Tensor] | None = None,
        *,
        residual: Residual | None = None,
        chunk_size: int | None = None,
    ):
        if (data is None) == (residual is None):
            raise ValueError("LeastSquares needs either data or a residual function; give one")
        super().__init__(network, _half_square, data)
        self.penalty = penalty
        self.residual = residual
        self.chunk_size = chunk_size

    @classmethod
    def from_torch(
        cls, module: torch.nn.Module, residual: Residual, chunk_size: int | None = None
    ) -> LeastSquares:
        """Half the squared residuals of any module: `residual(module) -> tensor` or tuple of them.

        Parameters
        ----------
        module : torch.nn.Module
        residual : callable
            Fastest where entry i of each tensor depends on sample i of each call of the module
            alone: for points of several kinds return a tuple, not one long tensor.
        chunk_size : int, optional

        Examples
        --------
        >>> module = torch.nn.Linear(1, 1, bias=False)
        >>> problem = LeastSquares.from_torch(module, lambda m: m(torch.ones(1, 1)) - 3.0)
        >>> problem.value(torch.tensor([5.0]))
        2.0
        """
        return LeastSquares(module, None, residual=residual, chunk_size=chunk_size)

    def on(self, network: torch.nn.Module) -> LeastSquares:
        return LeastSquares(
            network,
            self.data,
            self.penalty,
            residual=self.residual,
            chunk_size=self.chunk_size,
        )

    def at(self, batch: Any) -> LeastSquares:
        self._require_data("at")
        return LeastSquares(self.network, batch, self.penalty, chunk_size=self.chunk_size)

    @cached_property
    def rows(self) -> torch.Tensor | None:
        """The matrix of the penalty."""
        return None if self.penalty is None else self.penalty(self.network).detach()

    @cached_property
    def penalties(self) -> SparseJacobian | None:
        """The same as an operator, in float64."""
        return None if self.rows is None else SparseJacobian(self.rows.double())

    @property
    def weight(self) -> float:
        """Of each residual: 1 / sqrt(samples), or 1 without data."""
        return 1.0 if self.data is None else len(self.data[0]) ** -0.5

    def differences(self, network: torch.nn.Module) -> Any:
        """The residuals of a network, without weight and penalty."""
        if self.residual is not None:
            return self.residual(network)
        return self._against_targets(network(self.data[0]))

    def _against_targets(self, outputs: torch.Tensor) -> torch.Tensor:
        targets = self.data[1]
        if outputs.shape != targets.shape:  # torch would broadcast (n, 1) - (n,) to (n, n)
            raise ValueError(
                f"LeastSquares got targets of shape {tuple(targets.shape)} for outputs of shape "
                f"{tuple(outputs.shape)}; give targets of the shape of the outputs"
            )
        return outputs - targets

    def residuals(self, u: torch.Tensor) -> torch.Tensor:
        """The residual vector r: samples times outputs, then the rows of the penalty."""
        u = u.detach()
        with torch.enable_grad():  # a residual may differentiate by the inputs
            blocks = blocks_of(self.flat.evaluate(self.differences, u))
        r = torch.cat([block.detach().reshape(-1) for block in blocks]).double() * self.weight
        return r if self.penalties is None else torch.cat([r, self.penalties.matvec(u.double())])

    def half_square(self, r: torch.Tensor) -> float:
        """`1/2 |r|^2` of what `residuals` gives: a sum over ranks, where each has its own rows."""
        return 0.5 * float(r @ r)

    def value(self, u: torch.Tensor) -> float:
        return self.half_square(self.residuals(u))

    def value_and_gradient(self, u: torch.Tensor) -> tuple[float, torch.Tensor]:
        value, gradient = super().value_and_gradient(u)
        if self.penalties is None:
            return value, gradient
        extra = self.penalties.matvec(u.detach().double())
        return value + 0.5 * float(extra @ extra), gradient + self.penalties.rmatvec(extra).to(
            gradient
        )

    def _loss(self, u: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            blocks = blocks_of(self.flat.evaluate(self.differences, u))
            return _half_square(blocks) * self.weight**2

    def penalty_at(self, u: torch.Tensor) -> float:
        """Half the squared norm of the rows of the penalty; 0 without one."""
        return (
            0.0
            if self.penalties is None
            else 0.5 * float(self.penalties.matvec(u.double()).square().sum())
        )

    def mean_square(self, u: torch.Tensor) -> float:
        """The mean squared error alone, without the half and the penalty."""
        return 2.0 * super().value(u)

    def linearize(self, u: torch.Tensor) -> tuple[torch.Tensor, Jacobian]:
        """The residual vector and its Jacobian as an operator."""
        u = u.detach()
        J: Jacobian
        network = self.network
        if self.data is not None and isinstance(network, Linearizes) and self.flat.all_trainable:
            outputs, J = self.flat.evaluate(lambda network: network.linearize(self.data[0]), u)
            r = self._against_targets(outputs).double().reshape(-1)
        else:
            inputs = None if self.data is None else self.data[0]
            r, J = linearize(self.flat, self.differences, u, self.chunk_size, inputs)
        r, J = r * self.weight, StackedJacobian(((self.weight, J),))
        if self.penalties is None:
            return r, J
        r = torch.cat([r, self.penalties.matvec(u.double())])
        return r, StackedJacobian((*J.parts, (1.0, self.penalties)))

    def jacobian(self, u: torch.Tensor) -> torch.Tensor:
        """Of the residual vector, as a dense matrix: shape (its length, parameters)."""
        return self.linearize(u)[1].dense()


def _half_square(blocks: list[torch.Tensor]) -> torch.Tensor:
    return 0.5 * torch.stack([block.square().sum() for block in blocks]).sum()


class Recentred(LeastSquares):
    """The coarse problem around a fine state u: `J(u + P w) - <A(u), P w>`, over w.

    Any decrease of it, with `f = restrict(r)`, is a decrease of J. Its gradient vanishes at w = 0.

    Parameters
    ----------
    fine : LeastSquares
        Of the level above, itself recentred or not.
    u : tensor
        The fine state.
    transfer : Transfer
        With the prolongation P.

    Examples
    --------
    >>> from mgnet import MatrixTransfer
    >>> network = torch.nn.Linear(1, 1, dtype=torch.float64)
    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> u, P = torch.zeros(2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
    >>> coarse = Recentred(LeastSquares(network, (x, 2.0 * x)), u, MatrixTransfer(P))
    >>> coarse(torch.zeros(1, dtype=torch.float64)).tolist()
    [0.0]
    """

    def __init__(self, fine: LeastSquares, u: torch.Tensor, transfer: Transfer):
        super().__init__(fine.network, fine.data, residual=fine.residual)
        self.fine = fine
        self.u = u
        self.transfer = transfer
        whole = fine.gradient(u)  # of 1/2 |r|^2 alone: without what the level above subtracts
        self.shift = transfer.restrict(whole if fine.shift is None else whole + fine.shift)

    def point(self, w: torch.Tensor) -> torch.Tensor:
        """The fine state u + P w."""
        return self.transfer.correct(self.u, w)

    def residuals(self, u: torch.Tensor) -> torch.Tensor:
        return self.fine.residuals(self.point(u))

    def linearize(self, u: torch.Tensor) -> tuple[torch.Tensor, Jacobian]:
        r, J = self.fine.linearize(self.point(u))
        return r, ProlongedJacobian(J, self.transfer, len(u))

    def half_square(self, r: torch.Tensor) -> float:
        return self.fine.half_square(r)

    def value(self, u: torch.Tensor) -> float:
        return super().value(u) - float(self.shift @ u)  # type: ignore[operator]

    def value_and_gradient(self, u: torch.Tensor) -> tuple[float, torch.Tensor]:
        point = self.point(u)
        value, whole = self.fine.value_and_gradient(point)
        if self.fine.shift is not None:
            value, whole = value + float(self.fine.shift @ point), whole + self.fine.shift
        return value - float(self.shift @ u), self.transfer.restrict(whole) - self.shift  # type: ignore[operator]
