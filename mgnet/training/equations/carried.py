"""The arguments of residual functions for a plain network or a KAN, alone or in an `Ansatz`.

The features of the points have no parameters, so their derivatives do not change while a network is
trained on fixed points, and they are computed only once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from mgnet.training.equations.derivatives import (
    Ansatz,
    Composed,
    Derivatives,
    Function,
    Points,
    carries,
)
from mgnet.training.equations.mlp_derivatives import (
    MLPDerivatives,
    NotCarriedError,
    gradients_by_sample,
)
from mgnet.training.least_squares.device_reads import holds
from mgnet.training.loss.own_forward import alteration

__all__ = ["CutDerivatives", "FixedInputs", "carried_derivatives", "check_only_carried"]


class FixedInputs:
    """Features of fixed points with their derivatives, each computed once; see `Derivatives`.

    Parameters
    ----------
    points : tensor of shape (samples, inputs)
        Points of evaluation.
    features : callable, optional
        Function `points -> inputs of the network`; the points themselves by default.

    Examples
    --------
    >>> inputs = FixedInputs(torch.full((1, 1), 3.0), lambda x: torch.cat([x, x**2], 1))
    >>> inputs.d(0), inputs.d(0) is inputs.d(0)
    (tensor([[1., 6.]]), True)
    """

    def __init__(self, points: torch.Tensor, features: Function | None = None):
        self.source = points
        self.points = points.detach()
        self.features = features
        # Derivatives requested of networks at these points, see `MLPDerivatives`.
        self.asked = set[tuple[int, ...]]()
        self._made: dict[tuple[int, ...], torch.Tensor] = {}

    @property
    def value(self) -> torch.Tensor:
        """Values of shape (samples, features)."""
        return self.d()

    def d(self, *axes: int) -> torch.Tensor:
        """The derivative with respect to one or two inputs, of shape (samples, features)."""
        if axes not in self._made:
            source: Derivatives = Points(self.points)
            if self.features is not None:
                features = self.features
                source = Composed(lambda x, _: features(x), source)
            self._made[axes] = source.d(*axes).detach()
        return self._made[axes]

    def hold(self, points: torch.Tensor, features: Function | None) -> bool:
        """Whether the stored features are still those of the points; calls the function to check.

        Raises
        ------
        NotCarriedError
            If the features depend on parameters that are being differentiated.
        """
        if features is None:
            return self.features is None and points is self.source
        value = features(self.points)
        if value.requires_grad:
            raise NotCarriedError("features that depend on parameters")
        same = features is self.features and points is self.source
        same = same and value.shape == self.value.shape
        return same and holds((value == self.value).all())


class CutDerivatives:
    """Derivatives from a network, detached from its parameters for automatic differentiation.

    Any other dependence of a residual on parameters or on other samples is thus revealed; see
    `check_only_carried`.

    Parameters
    ----------
    inner : Derivatives
        Derivatives with a method `add_jacobian`, such as `KANDerivatives`.

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> u = CutDerivatives(KAN([1, 1]).derivatives(Points(torch.zeros(5, 1, dtype=torch.float64))))
    >>> u.d(0).is_leaf, u.d(0).requires_grad
    (True, True)
    """

    def __init__(self, inner: Any):
        self.inner = inner
        self.points: torch.Tensor = inner.points
        self._made: dict[tuple[int, ...], torch.Tensor] = {}

    @property
    def value(self) -> torch.Tensor:
        """Values of shape (samples, outputs)."""
        return self.d()

    @property
    def coefficients(self) -> Any:
        """The coefficients of the network, if any."""
        return self.inner.coefficients

    def d(self, *axes: int) -> torch.Tensor:
        """The derivative with respect to one or two inputs, of shape (samples, outputs)."""
        axes = tuple(sorted(axes))
        if axes not in self._made:
            self._made[axes] = self.inner.d(*axes).detach().requires_grad_()
        return self._made[axes]

    def add_jacobian(self, residual: torch.Tensor, J: torch.Tensor) -> None:
        """Add to J the derivatives of residuals with respect to all parameters, in their order.

        Parameters
        ----------
        residual : tensor of shape (samples,)
            Residuals; entry i depends only on the values and derivatives of sample i.
        J : tensor of shape (samples, parameters)
            Matrix to add to.

        Raises
        ------
        NotCarriedError
            If entries depend on other samples.
        """
        outputs = list(self._made.values())
        gradients = gradients_by_sample(residual, outputs)
        # It has the same derivatives with respect to the parameters.
        parts = [
            (gradient * self.inner.d(*axes)).sum(1)
            for axes, gradient in zip(self._made, gradients, strict=True)
            if gradient is not None
        ]
        if parts:
            self.inner.add_jacobian(torch.stack(parts).sum(0), J)


def carried_derivatives(
    network: torch.nn.Module, points: torch.Tensor, known: dict[int, FixedInputs]
) -> Composed | CutDerivatives | MLPDerivatives:
    """The outputs of a network at points and their derivatives, with their own Jacobian.

    Parameters
    ----------
    network : torch.nn.Module
        Network that computes derivatives or that `layers_of` supports, alone or in an `Ansatz`.
    points : tensor of shape (samples, inputs)
        Points of evaluation.
    known : dict
        Features of points that were used before, by the `id` of the points; the caller must keep
        the points alive.

    Raises
    ------
    NotCarriedError
        If the network is of an unsupported kind, or its features depend on its parameters.

    Examples
    --------
    >>> u = carried_derivatives(torch.nn.Linear(2, 1), torch.zeros(5, 2), {})
    >>> J = torch.zeros(5, 3)
    >>> u.add_jacobian(u.value.squeeze(1), J)
    >>> J[0].tolist()
    [0.0, 0.0, 1.0]
    """
    inner, features, output, coefficients = network, None, None, {}
    if isinstance(network, Ansatz):
        inner, features, output = network.network, network.features, network.output
        coefficients = dict(network.coefficients.items())
        own = [*inner.parameters(), *coefficients.values()]
        if alteration(network, Ansatz) or [*map(id, own)] != [*map(id, network.parameters())]:
            raise NotCarriedError("an Ansatz that does more than its network and its functions")
    inputs = known.get(id(points))
    if inputs is None or not inputs.hold(points, features):
        inputs = known[id(points)] = FixedInputs(points, features)
        inputs.hold(points, features)
    made = (
        CutDerivatives(inner.derivatives(inputs))  # type: ignore[operator]
        if carries(inner)
        else MLPDerivatives(inner, inputs, inputs.asked)
    )
    if not isinstance(network, Ansatz):
        return made
    copies = {name: c.detach().requires_grad_() for name, c in coefficients.items()}
    return Composed(output, made, copies)


def check_only_carried(
    network: torch.nn.Module,
    residuals: Iterable[torch.Tensor],
    functions: Iterable[Iterable[Derivatives]],
) -> None:
    """Raise an error if residuals depend on parameters other than through their arguments.

    A residual may, for example, call the network itself or differentiate with respect to
    `u.points`. The Jacobian of carried derivatives would lack the contribution of this dependence.

    Parameters
    ----------
    network : torch.nn.Module
        Network whose parameters require gradients.
    residuals : iterable of tensors
        Residuals of all terms.
    functions : iterable of iterables of Derivatives
        Functions that the residuals were computed from.

    Raises
    ------
    NotCarriedError
        If residuals depend on the parameters in any other way.

    Examples
    --------
    >>> network = torch.nn.Linear(1, 1)
    >>> check_only_carried(network, [network(torch.ones(3, 1))], [])
    Traceback (most recent call last):
    mgnet.training.equations.mlp_derivatives.NotCarriedError: residuals that call the network
    """
    total = torch.stack([residual.sum() for residual in residuals]).sum()
    parameters = list(network.parameters())
    if any(
        g is not None
        for g in torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
    ):
        raise NotCarriedError("residuals that call the network")
    if any(function.points.requires_grad for of_term in functions for function in of_term):
        raise NotCarriedError("residuals that differentiate with respect to the points")
