"""Pointwise activations with their derivatives up to the third order.

The activations in the table have formulas that express each derivative by lower ones. Any other
module is differentiated automatically if each entry of its output depends only on the same entry of
its input. Such a module may have scalar parameters, such as a frequency.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from mgnet.training.equations.row_wise import is_row_wise
from mgnet.training.equations.sine import Sine

__all__ = ["FORMULAS", "POINTWISE", "Activated"]


def _tanh(module: torch.nn.Module, x: torch.Tensor, s: list[torch.Tensor]) -> torch.Tensor:
    if not s:
        return torch.tanh(x)
    if len(s) == 1:
        return torch.addcmul(torch.ones((), dtype=x.dtype, device=x.device), s[0], s[0], value=-1.0)
    if len(s) == 2:
        return (s[0] * s[1]).mul_(-2.0)
    return s[1].square().addcmul_(s[0], s[2]).mul_(-2.0)


def _logistic(x: torch.Tensor, s: list[torch.Tensor]) -> torch.Tensor:
    """The next derivative of the logistic function, after its value and derivatives in s."""
    if not s:
        return torch.sigmoid(x)
    if len(s) == 1:
        return s[0] * (1.0 - s[0])
    if len(s) == 2:
        return s[1] * (1.0 - 2.0 * s[0])
    return s[2] * (1.0 - 2.0 * s[0]) - 2.0 * s[1].square()


def _sigmoid(module: torch.nn.Module, x: torch.Tensor, s: list[torch.Tensor]) -> torch.Tensor:
    return _logistic(x, s)


def _logistic_up_to(x: torch.Tensor, order: int) -> list[torch.Tensor]:
    made = list[torch.Tensor]()
    for _ in range(order + 1):
        made.append(_logistic(x, made))
    return made


def _silu(module: torch.nn.Module, x: torch.Tensor, s: list[torch.Tensor]) -> torch.Tensor:
    if not s:
        return torch.nn.functional.silu(x)
    logistic = _logistic_up_to(x, len(s))
    return len(s) * logistic[-2] + x * logistic[-1]


def _softplus(module: torch.nn.Module, x: torch.Tensor, s: list[torch.Tensor]) -> torch.Tensor:
    beta, threshold = float(module.beta), float(module.threshold)  # type: ignore[arg-type]
    if not s:
        return torch.nn.functional.softplus(x, beta, threshold)
    slope = _logistic_up_to(beta * x, len(s) - 1)[-1] * beta ** (len(s) - 1)
    return slope.masked_fill(beta * x > threshold, 1.0 if len(s) == 1 else 0.0)


def _gelu(module: torch.nn.Module, x: torch.Tensor, s: list[torch.Tensor]) -> torch.Tensor:
    if not s:
        return torch.nn.functional.gelu(x)
    density = torch.exp(-0.5 * x.square()) / math.sqrt(2.0 * math.pi)
    if len(s) == 1:
        return torch.special.ndtr(x) + x * density
    return density * (2.0 - x.square() if len(s) == 2 else x * (x.square() - 4.0))


def _sine(module: torch.nn.Module, x: torch.Tensor, s: list[torch.Tensor]) -> torch.Tensor:
    frequency: Any = module.frequency
    if len(s) < 2:
        return torch.cos(frequency * x) * frequency if s else torch.sin(frequency * x)
    return s[len(s) - 2] * -(frequency**2)


# For each class, a function that gives the next derivative at x after those in the list.
FORMULAS: dict[
    type[torch.nn.Module],
    Callable[[torch.nn.Module, torch.Tensor, list[torch.Tensor]], torch.Tensor],
] = {
    torch.nn.Tanh: _tanh,
    torch.nn.Sigmoid: _sigmoid,
    torch.nn.SiLU: _silu,
    torch.nn.Softplus: _softplus,
    torch.nn.GELU: _gelu,
    Sine: _sine,
}


#: Further classes of PyTorch that act on each entry separately, whatever the shape; they are
#: differentiated. A user's module may depend on the shape or on neighbors, so it is not included.
POINTWISE = (
    torch.nn.CELU,
    torch.nn.ELU,
    torch.nn.LogSigmoid,
    torch.nn.Mish,
    torch.nn.SELU,
    torch.nn.Softsign,
    torch.nn.Tanhshrink,
)


class Activated:
    """An activation at x and its derivatives there, computed on demand.

    Parameters
    ----------
    activation : torch.nn.Module
        Activation to evaluate.
    x : tensor
        Points of evaluation.
    check : bool
        Whether to check that an activation outside the table is pointwise.

    Raises
    ------
    ValueError
        If entries of the activation's result depend on other entries of x or on parameters of other
        modules.

    Examples
    --------
    >>> s = Activated(torch.nn.Tanh(), torch.zeros(2))
    >>> s[0].tolist(), s[1].tolist(), s[3].tolist()
    ([0.0, 0.0], [1.0, 1.0], [-2.0, -2.0])
    """

    def __init__(self, activation: torch.nn.Module, x: torch.Tensor, check: bool = True):
        self.activation = activation
        self.check = check
        self.has_parameters = any(True for _ in activation.parameters())
        self.formula = FORMULAS.get(type(activation))
        if isinstance(activation, torch.nn.GELU) and activation.approximate != "none":
            self.formula = None
        self.x = x if self.formula else x.detach().requires_grad_()
        self._made: list[torch.Tensor] = []

    def __getitem__(self, order: int) -> torch.Tensor:
        """The derivative of this order; 0 is the value."""
        return self.attached(order).detach()

    def attached(self, order: int) -> torch.Tensor:
        """The derivative of this order, connected to the activation's parameters by a graph."""
        while len(self._made) <= order:
            if self.formula is None:
                self._made.append(self._differentiated())
                continue
            with torch.set_grad_enabled(self.has_parameters):
                self._made.append(self.formula(self.activation, self.x, self._made))
        return self._made[order]

    @torch.enable_grad()
    def _differentiated(self) -> torch.Tensor:
        if not self._made:
            value = self.activation(self.x.clone())  # some activations work in place
            if self.check:
                self._check(value)
            return value
        if not self._made[-1].requires_grad:
            return torch.zeros_like(self.x)
        (slope,) = torch.autograd.grad(
            self._made[-1].sum(),
            self.x,
            create_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return slope

    def _check(self, value: torch.Tensor) -> None:
        name = type(self.activation).__name__
        if value.shape != self.x.shape:
            raise ValueError(f"{name} maps {tuple(self.x.shape)} to {tuple(value.shape)}")
        own = {key: p.detach() for key, p in self.activation.named_parameters()}
        fixed = torch.func.functional_call(self.activation, own, self.x.detach().clone())
        if fixed.requires_grad:
            raise ValueError(f"{name} depends on parameters of other modules")
        if value.requires_grad:
            slope = torch.autograd.grad(value.sum(), [self.x], retain_graph=True, allow_unused=True)
            if not is_row_wise(value, [self.x], slope):
                raise ValueError(f"{name} is not a function of single entries of its input")
