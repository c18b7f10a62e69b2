"""Derivatives of a KAN with respect to its inputs, carried forward through the layers.

A layer `y = sum_p phi_p(z_p)` maps values and derivatives in the same way,

    y_i  = sum_p phi_p'(z_p) z_p,i
    y_ij = sum_p phi_p''(z_p) z_p,i z_p,j + phi_p'(z_p) z_p,ij

and all of these are linear in its coefficients. A row of the Jacobian of a residual therefore needs
no copy of the parameters: if S, S_i and S_ij are the derivatives of the residual with respect to y,
y_i and y_ij, the part of the row that belongs to a layer is

    b(z) S + sum_i b'(z) z_i S_i + sum_ij (b''(z) z_i z_j + b'(z) z_ij) S_ij

where only degree + 1 of the splines b are nonzero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mgnet.knots.layer import weighted_layer
from mgnet.knots.spline import local_basis
from mgnet.knots.spline_network import SplineNetwork

if TYPE_CHECKING:
    from mgnet.training.equations.derivatives import Derivatives

__all__ = ["KANDerivatives"]

Axes = tuple[int, ...]
Parts = dict[Axes, torch.Tensor]  # a value () and its derivatives (i,), (i, j), if needed


class KANDerivatives:
    """Outputs of a KAN and their derivatives, computed on demand; see `Derivatives`.

    Parameters
    ----------
    kan : SplineNetwork
        The network.
    inputs : Derivatives
        The inputs of the network and their derivatives with respect to the points.

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> from mgnet.training.equations.derivatives import Points
    >>> x = torch.full((5, 2), 0.1, dtype=torch.float64)
    >>> u = KANDerivatives(KAN([2, 3, 1]), Points(x))
    >>> residual, J = u.d(0, 0) + u.d(1, 1), torch.zeros(5, 63, dtype=torch.float64)
    >>> u.add_jacobian(residual.squeeze(1), J)
    >>> int((J[0] != 0).sum())  # of 2 inputs and 3 hidden values, 4 splines each
    36
    """

    def __init__(self, kan: SplineNetwork, inputs: Derivatives):
        kan.check_inputs(inputs.d(), axes=2)
        self.kan = kan
        self.inputs = inputs
        self.points = inputs.points
        self._values: list[Parts] = [{} for _ in range(len(kan.coefficients) + 1)]
        self._mapped: list[Parts] = [{} for _ in self._values]

    @property
    def value(self) -> torch.Tensor:
        """The outputs, shape (samples, outputs)."""
        return self.d()

    @property
    def coefficients(self) -> Any:
        """Raise an AttributeError, because a KAN alone has no coefficients of an equation."""
        raise AttributeError(
            "u.coefficients needs an Ansatz; give Ansatz(kan, coefficients={name: start})"
        )

    def d(self, *axes: int) -> torch.Tensor:
        """The derivative with respect to one or two inputs, shape (samples, outputs)."""
        return self._value(len(self._values) - 1, tuple(sorted(axes)))

    def _value(self, layer: int, axes: Axes) -> torch.Tensor:
        """The values of layer number `layer`; layer 0 is the leading linear layer."""
        made = self._values[layer]
        if axes not in made:
            value = self._linear(axes) if layer == 0 else self._splines(layer, axes)
            if torch.is_grad_enabled() and not value.requires_grad:
                value.requires_grad_()  # `add_jacobian` needs the sensitivity to it
            made[axes] = value
        return made[axes]

    def _linear(self, axes: Axes) -> torch.Tensor:
        linear, z = self.kan.linear, self.inputs.d(*axes)
        if linear is None:
            return z
        return torch.nn.functional.linear(z, linear.weight, None if axes else linear.bias)

    def _splines(self, layer: int, axes: Axes) -> torch.Tensor:
        kan = self.kan
        U, spline = kan.coefficients[layer - 1], (kan.intervals[layer - 1], kan.degree, kan.domain)
        z = self._input(layer, ())
        if not axes:
            return weighted_layer(z, U, None, *spline, 0)
        once = weighted_layer(z, U, self._input(layer, axes), *spline, 1)
        if len(axes) == 1:
            return once
        i, j = (self._input(layer, (axis,)) for axis in axes)
        return once + weighted_layer(z, U, i * j, *spline, 2)

    def _input(self, layer: int, axes: Axes) -> torch.Tensor:
        """The inputs of the splines of a layer: hidden values mapped into the domain."""
        if layer == 1 and self.kan.linear is None:
            return self.inputs.d(*axes)
        if self.kan.hidden == "identity":
            return self._value(layer - 1, axes)
        made = self._mapped[layer]
        if axes not in made:
            half = 0.5 * (self.kan.domain[1] - self.kan.domain[0])
            y = self._value(layer - 1, axes)
            if not axes:
                made[axes] = self.kan.into_domain(y)
            else:
                tanh = (self._input(layer, ()) - 0.5 * sum(self.kan.domain)) / half
                slope = 1.0 - tanh.square()
                made[axes] = half * slope * y
                if len(axes) == 2:
                    i, j = (self._value(layer - 1, (axis,)) for axis in axes)
                    made[axes] = made[axes] - 2.0 * half * tanh * slope * i * j
        return made[axes]

    def add_jacobian(self, residual: torch.Tensor, J: torch.Tensor) -> None:
        """Add to J the derivatives of residuals with respect to all parameters, in their order.

        Parameters
        ----------
        residual : tensor of shape (samples,)
            Residuals; entry i is computed from the values and derivatives of sample i.
        J : tensor of shape (samples, parameters)
            The matrix to which the derivatives are added.
        """
        begin = 0 if self.kan.linear is not None else 1
        parts = [
            (layer, axes, y)
            for layer in range(begin, len(self._values))
            for axes, y in self._values[layer].items()
        ]
        gradients = torch.autograd.grad(
            residual.sum(),
            [y for _, _, y in parts],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        sensitivities: list[Parts] = [{} for _ in self._values]
        for (layer, axes, _), gradient in zip(parts, gradients, strict=True):
            sensitivities[layer][axes] = gradient
        with torch.no_grad():
            start = self._fill_linear(J, sensitivities[0]) if begin == 0 else 0
            for layer in range(1, len(self._values)):
                size = self.kan.coefficients[layer - 1].numel()
                self._fill(J[:, start : start + size], layer, sensitivities[layer])
                start += size

    def _fill_linear(self, J: torch.Tensor, sensitivity: Parts) -> int:
        linear = self.kan.linear
        if linear is None:
            return 0
        outputs, inputs = linear.weight.shape
        block = J[:, : outputs * inputs].unflatten(1, (outputs, inputs))
        for axes, S in sensitivity.items():
            block += S.unsqueeze(2) * self.inputs.d(*axes).unsqueeze(1)
        J[:, outputs * inputs : outputs * (inputs + 1)] += sensitivity[()]
        return outputs * (inputs + 1)

    def _fill(self, J: torch.Tensor, layer: int, sensitivity: Parts) -> None:
        kan = self.kan
        inputs, splines, outputs = kan.coefficients[layer - 1].shape
        z = self._input(layer, ())
        first, *b = local_basis(z, kan.intervals[layer - 1], kan.degree, kan.domain, 2)
        bases, S = [], []
        for axes, gradient in sensitivity.items():
            S.append(gradient)
            if not axes:
                bases.append(b[0])
                continue
            basis = b[1] * self._input(layer, axes).unsqueeze(2)
            if len(axes) == 2:
                i, j = (self._input(layer, (axis,)) for axis in axes)
                basis = torch.addcmul(basis, b[2], (i * j).unsqueeze(2))
            bases.append(basis)
        # (samples, inputs (degree + 1), kinds) @ (samples, kinds, outputs)
        entries = torch.stack(bases, 3).flatten(1, 2) @ torch.stack(S, 1)
        row = first + splines * torch.arange(inputs, device=z.device)
        columns = (row.unsqueeze(2) + torch.arange(kan.degree + 1, device=z.device)).flatten(1)
        columns = columns.unsqueeze(2) * outputs + torch.arange(outputs, device=z.device)
        J.scatter_add_(1, columns.flatten(1), entries.flatten(1))
