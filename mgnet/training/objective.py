"""A network as an equation: the loss over its flat parameter vector, and the gradient of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch.func import functional_call, jacrev, vmap

if TYPE_CHECKING:
    from mgnet.transfer import Transfer

__all__ = ["LeastSquares", "Objective", "Recentred"]

Data = tuple[torch.Tensor, torch.Tensor]


@runtime_checkable
class KnowsJacobian(Protocol):
    """A network with a faster way than autograd to its derivatives by all parameters."""

    def jacobian(self, x: torch.Tensor, /) -> torch.Tensor: ...


class Objective:
    """The equation "gradient of the loss = f"; calling it gives the gradient.

    Parameters
    ----------
    network : torch.nn.Module
        A template: its own parameters are not changed.
    loss : callable
        `(outputs, targets) -> scalar tensor`.
    data : (inputs, targets)
        Two tensors with the samples on axis 0.

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
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        data: Data,
    ):
        if len(data[0]) != len(data[1]):
            raise ValueError(
                f"Objective got {len(data[0])} inputs and {len(data[1])} targets; "
                "axis 0 must hold the same samples in both"
            )
        self.network = network
        self.loss = loss
        self.data = data
        self.shapes = {name: p.shape for name, p in network.named_parameters()}

    def on(self, network: torch.nn.Module) -> Objective:
        """The same objective for another network."""
        return Objective(network, self.loss, self.data)

    def start(self) -> torch.Tensor:
        """The parameters of the template as one flat vector, a copy."""
        return torch.nn.utils.parameters_to_vector(self.network.parameters()).detach().clone()

    def parameters(self, u: torch.Tensor) -> dict[str, torch.Tensor]:
        """The flat vector as named parameters (views)."""
        parts = torch.split(u, [math.prod(shape) for shape in self.shapes.values()])
        return {
            name: part.view(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def outputs(self, u: torch.Tensor) -> torch.Tensor:
        """Of the network with the parameters u, for all inputs."""
        return functional_call(self.network, self.parameters(u), (self.data[0],))

    def value(self, u: torch.Tensor) -> float:
        """The loss."""
        with torch.no_grad():
            return float(self.loss(self.outputs(u), self.data[1]))

    def gradient(self, u: torch.Tensor) -> torch.Tensor:
        """Of the loss, a flat vector."""
        return self.value_and_gradient(u)[1]

    def value_and_gradient(self, u: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Both, from one forward and one backward pass."""
        u = u.detach().requires_grad_()
        loss = self.loss(self.outputs(u), self.data[1])
        (gradient,) = torch.autograd.grad(loss, u)
        return float(loss.detach()), gradient

    def __call__(self, u: torch.Tensor) -> torch.Tensor:
        return self.gradient(u)


def _half_mean_square(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return 0.5 * (outputs - targets).square().sum() / len(outputs)


class LeastSquares(Objective):
    """Half the mean squared error: the objective whose residual vector and Jacobian are known.

    The value is `1/2 |r(u)|^2` with `r = (outputs - targets) / sqrt(samples)`.

    Parameters
    ----------
    network : torch.nn.Module
        Uses its own `jacobian(x)` when it has one (a KAN has), else `torch.func`.
    data : (inputs, targets)
    penalty : callable, optional
        `network -> R`, a matrix with one column per parameter: the rows `R u` join the residual
        vector. `mgnet.knots.roughness` is one.

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
        data: Data,
        penalty: Callable[[Any], torch.Tensor] | None = None,
    ):
        super().__init__(network, _half_mean_square, data)
        self.penalty = penalty

    def on(self, network: torch.nn.Module) -> LeastSquares:
        return LeastSquares(network, self.data, self.penalty)

    @cached_property
    def rows(self) -> torch.Tensor | None:
        """The matrix of the penalty."""
        return None if self.penalty is None else self.penalty(self.network)

    def residuals(self, u: torch.Tensor) -> torch.Tensor:
        """The residual vector r: samples times outputs, then the rows of the penalty."""
        with torch.no_grad():
            difference = self.outputs(u) - self.data[1]
            r = difference.reshape(-1) / len(difference) ** 0.5
            return r if self.rows is None else torch.cat([r, self.rows @ u])

    def value(self, u: torch.Tensor) -> float:
        r = self.residuals(u)
        return 0.5 * float(r @ r)

    def value_and_gradient(self, u: torch.Tensor) -> tuple[float, torch.Tensor]:
        value, gradient = super().value_and_gradient(u)
        if self.rows is None:
            return value, gradient
        extra = self.rows @ u.detach()
        return value + 0.5 * float(extra @ extra), gradient + self.rows.T @ extra

    def penalty_at(self, u: torch.Tensor) -> float:
        """Half the squared norm of the rows of the penalty; 0 without one."""
        return 0.0 if self.rows is None else 0.5 * float((self.rows @ u).square().sum())

    def mean_square(self, u: torch.Tensor) -> float:
        """The mean squared error alone, without the half and the penalty."""
        return 2.0 * super().value(u)

    def jacobian(self, u: torch.Tensor) -> torch.Tensor:
        """Of the residual vector: shape (its length, parameters)."""
        x, parameters = self.data[0], self.parameters(u.detach())
        with torch.no_grad():
            if isinstance(self.network, KnowsJacobian):
                network = _Jacobian(self.network)
                named = {f"network.{name}": p for name, p in parameters.items()}
                derivatives = functional_call(network, named, (x,))
            else:

                def outputs(named: dict[str, torch.Tensor], sample: torch.Tensor) -> torch.Tensor:
                    return functional_call(self.network, named, (sample.unsqueeze(0),))[0]

                by_name = vmap(jacrev(outputs), in_dims=(None, 0))(parameters, x)
                blocks = [part.flatten(2) for part in by_name.values()]
                derivatives = torch.cat(blocks, -1)
            J = derivatives.flatten(0, 1) / len(x) ** 0.5
            return J if self.rows is None else torch.cat([J, self.rows])


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
        super().__init__(fine.network, fine.data)
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

    def jacobian(self, u: torch.Tensor) -> torch.Tensor:
        return torch.func.vmap(self.transfer.restrict)(self.fine.jacobian(self.point(u)))

    def value(self, u: torch.Tensor) -> float:
        r = self.residuals(u)
        return 0.5 * float(r @ r) - float(self.shift @ u)  # type: ignore[operator]

    def gradient(self, u: torch.Tensor) -> torch.Tensor:
        whole = self.fine.gradient(self.point(u))
        if self.fine.shift is not None:
            whole = whole + self.fine.shift
        return self.transfer.restrict(whole) - self.shift


class _Jacobian(torch.nn.Module):
    """Lets `functional_call` reach `network.jacobian`."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.jacobian(x)  # type: ignore[operator]
