"""The loss of a network over its flat parameter vector, and the equation for its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mgnet.training.loss.checks import check_data, check_loss
from mgnet.training.loss.parameters import FlatParameters, lift
from mgnet.training.loss.sample_order import sample_order
from mgnet.training.loss.user_functions import check_loss_pairs

__all__ = ["Data", "Objective", "check_objective"]

Data = tuple[torch.Tensor, torch.Tensor]


class Objective:
    """The equation "gradient of the loss = f"; calling it returns the gradient.

    Parameters
    ----------
    network : torch.nn.Module
        Template network; its own parameters are not changed. The unknowns are the parameters that
        require a gradient.
    loss : callable
        `(outputs, targets) -> scalar tensor`.
    data : (inputs, targets)
        Two tensors with the samples on axis 0. With None, the loss is a function of the network
        alone; see `from_torch`.

    Raises
    ------
    TypeError, ValueError
        If the loss is not a function or the data do not fit together.

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
                f"Objective got a loss of type {type(loss).__name__}; give a function, such as "
                "torch.nn.functional.mse_loss"
            )
        if data is not None:
            check_data(type(self).__name__, data)
        self.network = network
        self.loss = loss
        self.data: Any = data
        self.flat = FlatParameters(network)
        self._looked = False  # whether broadcasting in loss or residual was checked

    @classmethod
    def from_torch(cls, module: torch.nn.Module, loss: Callable[..., torch.Tensor]) -> Objective:
        """The objective of any module: `loss(module) -> scalar tensor`, with any data of its own.

        Examples
        --------
        >>> module = torch.nn.Linear(1, 1, bias=False)
        >>> objective = Objective.from_torch(module, lambda m: (m.weight - 3.0).square().sum())
        >>> objective(torch.tensor([5.0])).tolist()
        [4.0]
        """
        return Objective(module, loss, None)

    def with_network(self, network: torch.nn.Module) -> Objective:
        """The same objective for another network."""
        return Objective(network, self.loss, self.data)

    def with_data(self, batch: Any) -> Objective:
        """The same objective for other data, such as a batch."""
        self._require_data("with_data")
        return Objective(self.network, self.loss, batch)

    def subsampled(self, fraction: float) -> Objective:
        """The same objective on a subset of the samples, evenly spaced in their order."""
        self._require_data("subsampled")
        samples = len(self.data[0])
        count = max(1, round(fraction * samples))
        kept = torch.arange(count, device=self.data[0].device) * samples // count
        return self if count >= samples else self.with_data(tuple(part[kept] for part in self.data))

    @property
    def samples(self) -> int:
        """Number of samples; 0 if the loss is a function of the module alone."""
        return 0 if self.data is None else len(self.data[0])

    def split(self, count: int) -> tuple[Objective, Objective]:
        """The same objective on the first `count` samples of `sample_order`, and on all the rest.

        The samples for a smaller count are thus a subset of those for a larger count, however the
        data are sorted. If `count` is at least `samples`, both results are the objective itself.
        """
        self._require_data("split")
        if count >= self.samples:
            return self, self
        order = sample_order(self.samples, self.data[1])
        return self._at(order[:count]), self._at(order[count:])

    def _at(self, kept: torch.Tensor) -> Objective:
        """The same objective on some samples."""
        return self.with_data(tuple(part[kept] for part in self.data))

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
        """Shapes of the parameters in u, by name."""
        return {name: p.shape for name, p in self.flat.trainable.items()}

    def parameters(self, u: torch.Tensor) -> dict[str, torch.Tensor]:
        """The flat vector as a dict of named parameters."""
        return self.flat.named(u)

    def outputs(self, u: torch.Tensor) -> torch.Tensor:
        """Outputs of the network with the parameters u, for all inputs."""
        return self.flat.evaluate(lambda network: network(self.data[0]), u)

    def value(self, u: torch.Tensor) -> float:
        """Value of the loss."""
        return float(self._loss(u.detach()).detach())

    def gradient(self, u: torch.Tensor) -> torch.Tensor:
        """Gradient of the loss, a flat vector."""
        return self.value_and_gradient(u)[1]

    def value_and_gradient(self, u: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Value and gradient from one forward and one backward pass.

        Raises
        ------
        ValueError
            If the loss does not depend on the parameters.
        """
        u = u.detach().requires_grad_()
        loss, gradient = self._loss(u), None
        if loss.requires_grad:
            (gradient,) = torch.autograd.grad(loss, u, allow_unused=True)
        if gradient is None:
            raise ValueError(
                f"the loss does not depend on the parameters of {type(self.network).__name__}; it "
                "must call the module that it is given, without torch.no_grad or detach"
            )
        return float(loss.detach()), gradient

    def __call__(self, u: torch.Tensor) -> torch.Tensor:
        return self.gradient(u)

    def _loss(self, u: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():  # a loss may contain derivatives with respect to the inputs
            if self.data is None:
                return check_loss(self.flat.evaluate(self.loss, u))
            outputs, targets = self.outputs(u), self.data[1]
            if self.flat.module is not self.network:
                targets = lift(targets)
            loss = check_loss(self.loss(outputs, targets))
            if not self._looked:
                self._looked = True
                check_loss_pairs(self.loss, outputs, targets)
            return loss


def check_objective(owner: str, objective: Any) -> None:
    """Check that an object is an Objective.

    Raises
    ------
    TypeError
        If the object is not an Objective.

    Examples
    --------
    >>> check_objective("knot_hierarchy", "mse")
    Traceback (most recent call last):
    TypeError: knot_hierarchy got an objective of type str; give an Objective or a LeastSquares
    """
    if not isinstance(objective, Objective):
        raise TypeError(
            f"{owner} got an objective of type {type(objective).__name__}; give an Objective or a "
            "LeastSquares"
        )
