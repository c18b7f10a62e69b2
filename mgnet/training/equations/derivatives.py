"""Outputs of a network and their derivatives with respect to its inputs.

Any module can be differentiated up to twice; a network that propagates derivatives itself, such as
a KAN, supplies its own. `Ansatz` wraps either kind, adding features of the points before the
network, hard constraints after it, and unknown coefficients of the equation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from mgnet.limits import is_whole
from mgnet.training.equations.row_wise import columns_by, is_row_wise
from mgnet.training.loss.own_forward import alteration, knows

__all__ = [
    "Ansatz",
    "Derivatives",
    "MixedSamplesError",
    "Points",
    "carries",
    "derivatives_of",
    "differentiated",
]

Function = Callable[..., torch.Tensor]


class Derivatives(Protocol):
    """A differentiable function of the points: the argument of a residual function.

    Attributes
    ----------
    points : tensor of shape (samples, inputs)
        Points of evaluation.
    """

    points: torch.Tensor

    @property
    def value(self) -> torch.Tensor:
        """Values of shape (samples, outputs)."""
        ...

    def d(self, *axes: int) -> torch.Tensor:
        """The value, or a derivative with respect to one or two inputs: (samples, outputs)."""
        ...


class MixedSamplesError(ValueError):
    """A function in an `Ansatz` mixes samples, so there is no derivative at a single point."""


def check_axes(axes: tuple[int, ...], inputs: int) -> None:
    """Raise an error unless all axes are valid indices of inputs."""
    if not all(is_whole(axis, 0, inputs - 1) for axis in axes):
        raise ValueError(
            f"u.d got the axes {axes}; an axis is a column of the points, 0 to {inputs - 1}"
        )


class Coefficients(dict[str, torch.Tensor]):
    """The coefficients of an `Ansatz` by name; empty for other networks.

    Examples
    --------
    >>> Coefficients()["c"]
    Traceback (most recent call last):
    ValueError: u.coefficients has no 'c', it has none; give Ansatz(network, coefficients={'c': \
1.0})
    """

    def __missing__(self, name: str) -> torch.Tensor:
        known = ", ".join(map(repr, self)) or "none"
        raise ValueError(
            f"u.coefficients has no {name!r}, it has {known}; give Ansatz(network, "
            f"coefficients={{{name!r}: 1.0}})"
        )


class Points:
    """The points as a function of themselves.

    Examples
    --------
    >>> Points(torch.zeros(1, 2)).d(1).tolist()
    [[0.0, 1.0]]
    """

    def __init__(self, points: torch.Tensor):
        self.points = points

    @property
    def value(self) -> torch.Tensor:
        """Values of shape (samples, inputs)."""
        return self.points

    def d(self, *axes: int) -> torch.Tensor:
        """A unit vector for one axis, zero for two.

        Raises
        ------
        ValueError
            If there are no axes, more than two, or axes that do not exist.
        """
        if not axes:
            return self.points
        check_axes(axes, self.points.shape[1])
        if len(axes) > 2:
            raise ValueError(
                f"u.d got the axes {axes}; give one or two (for higher derivatives introduce "
                "unknowns, as in a first-order system)"
            )
        unit = torch.zeros_like(self.points)
        if len(axes) == 1:
            unit[:, axes[0]] = 1.0
        return unit


class Composed:
    """The composition `outer(points, inner)`, where `inner` is a function of the points.

    Its derivatives are those of `outer` along the curves `points + s e_i + t e_j`.

    Examples
    --------
    >>> x = torch.tensor([[3.0]])
    >>> Composed(lambda x, y: x * y, Points(x)).d(0, 0).tolist()
    [[2.0]]
    """

    def __init__(self, outer: Function | None, inner: Derivatives, coefficients: Any = ()):
        self.outer = outer
        self.inner = inner
        self.points = inner.points
        self.coefficients = Coefficients(coefficients)
        self._made: dict[tuple[int, ...], torch.Tensor] = {}
        # Variables of differentiation of `outer`: its arguments, then also first tangents.
        self._arguments: tuple[torch.Tensor, ...] = ()
        self._slopes: dict[int, torch.Tensor] = {}
        self._checked = False  # whether `outer` treats each row separately

    @property
    def value(self) -> torch.Tensor:
        """Values of shape (samples, outputs)."""
        return self.d()

    def d(self, *axes: int) -> torch.Tensor:
        """The derivative with respect to one or two inputs, of shape (samples, outputs)."""
        axes = tuple(sorted(axes))
        if axes not in self._made:
            self._made[axes] = self._along(axes)
        return self._made[axes]

    @torch.enable_grad()
    def _along(self, axes: tuple[int, ...]) -> torch.Tensor:
        if self.outer is None:
            return self.inner.d(*axes)
        if not axes:
            self._arguments = _differentiable(self.points), _differentiable(self.inner.d())
            return self.outer(*self._arguments)
        value, (*others, last) = self.d(*axes[:-1]), axes
        if not others and not self._checked:
            self._checked = True
            _check_row_wise(value, self._arguments)
        arguments = [*self._arguments, *(self._slopes[axis] for axis in others)]
        for axis in axes:
            if axis not in self._slopes:
                self._slopes[axis] = _differentiable(self.inner.d(axis))
        tangents = [Points(self.points).d(last), self._slopes[last]]
        if others:
            tangents.append(self.inner.d(*axes))
        return _directional(value, arguments, tangents)

    def add_jacobian(self, residual: torch.Tensor, J: torch.Tensor) -> None:
        """Add derivatives of residuals with respect to the parameters, then the coefficients."""
        own = len(self.coefficients)
        network = J.shape[1] - own
        self.inner.add_jacobian(residual, J[:, :network])  # type: ignore[attr-defined]
        if own:
            coefficients = list(self.coefficients.values())
            if not coefficients[0].dim():
                J[:, network:] += columns_by(coefficients, residual)
                return
            columns = torch.autograd.grad(
                residual.sum(),
                coefficients,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            J[:, network:] += torch.cat(columns, 1)


def _differentiable(part: torch.Tensor) -> torch.Tensor:
    return part if part.requires_grad else part.detach().requires_grad_()


def _check_row_wise(value: torch.Tensor, arguments: Sequence[torch.Tensor]) -> None:
    """Raise an error if a function mixes rows, so that there is no slope at a single point."""
    for column in value.unbind(1):
        if not column.requires_grad:
            continue
        gradients = torch.autograd.grad(
            column.sum(), arguments, retain_graph=True, allow_unused=True
        )
        if not is_row_wise(column, arguments, gradients):
            raise MixedSamplesError(
                "the output or features of an Ansatz mix samples, for example by a mean over "
                "points; derivatives at a point need a function of each row alone: compute such "
                "numbers in advance, from fixed points"
            )


def _directional(
    value: torch.Tensor, arguments: Sequence[torch.Tensor], tangents: Sequence[torch.Tensor]
) -> torch.Tensor:
    """The directional derivative of a function that treats every row separately."""
    columns = []
    for column in value.unbind(1):
        gradients = torch.autograd.grad(
            column.sum(), arguments, create_graph=True, allow_unused=True, materialize_grads=True
        )
        pairs = zip(gradients, tangents, strict=True)
        columns.append(torch.stack([(g * t).sum(1) for g, t in pairs]).sum(0))
    return torch.stack(columns, 1)


class _ByAutograd:
    """The derivatives of any module, by automatic differentiation."""

    def __init__(self, network: torch.nn.Module, points: torch.Tensor):
        self.network = network
        self.points = points.detach().requires_grad_()
        own = network.coefficients.items() if isinstance(network, Ansatz) else ()
        self.coefficients = Coefficients(own)
        self._made: dict[tuple[int, ...], torch.Tensor] = {(): network(self.points)}

    @property
    def value(self) -> torch.Tensor:
        return self.d()

    def d(self, *axes: int) -> torch.Tensor:
        check_axes(axes, self.points.shape[1])
        for count in range(len(axes)):
            if axes[: count + 1] not in self._made:
                if not count and isinstance(self.network, Ansatz) and self._made[()].requires_grad:
                    _check_row_wise(self._made[()], [self.points])
                self._made |= self._gradients(axes[:count])
        return self._made[axes]

    def _gradients(self, axes: tuple[int, ...]) -> dict[tuple[int, ...], torch.Tensor]:
        columns = []
        for output in self._made[axes].unbind(1):
            if not output.requires_grad:  # the slope of a linear function with fixed parameters
                columns.append(torch.zeros_like(self.points))
                continue
            (column,) = torch.autograd.grad(
                output.sum(),
                self.points,
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            columns.append(column)
        by_axis = torch.stack(columns, 1).unbind(2)
        return {(*axes, axis): part for axis, part in enumerate(by_axis)}


class Ansatz(torch.nn.Module):
    """A network inside a function, `output(x, network(features(x)))`, which is a network itself.

    Parameters
    ----------
    network : torch.nn.Module
        Network to wrap.
    output : callable, optional
        `(points, outputs) -> outputs`, which imposes a hard constraint: built from torch functions
        that treat each row separately.
    features : callable, optional
        `points -> inputs of the network`, such as periodic functions or a level set; it treats each
        row separately.
    coefficients : mapping of str to float, optional
        Unknown coefficients of the equation and their initial values. The coefficients are trained
        like all parameters; a residual function reads them as `u.coefficients[name]`.

    Examples
    --------
    >>> from mgnet.knots import KAN
    >>> zero_at_ends = Ansatz(KAN([1, 4, 1]), output=lambda x, y: (1.0 - x**2) * y)
    >>> zero_at_ends(torch.tensor([[-1.0], [1.0]], dtype=torch.float64)).abs().max().item()
    0.0
    """

    __call__: Callable[..., torch.Tensor]

    def __init__(
        self,
        network: torch.nn.Module,
        *,
        output: Function | None = None,
        features: Function | None = None,
        coefficients: Mapping[str, float] | None = None,
    ):
        super().__init__()
        self.network = network
        self.output = output
        self.features = features
        like = next(network.parameters())
        self.coefficients = torch.nn.ParameterDict(
            {name: like.new_tensor(value) for name, value in (coefficients or {}).items()}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.network(x if self.features is None else self.features(x))
        return y if self.output is None else self.output(x, y)


def derivatives_of(network: torch.nn.Module, points: torch.Tensor) -> Derivatives:
    """The outputs of a network at points, and their derivatives with respect to the points.

    Parameters
    ----------
    network : torch.nn.Module
        Network to differentiate.
    points : tensor of shape (samples, inputs)
        Points of evaluation.

    Examples
    --------
    >>> u = derivatives_of(torch.nn.Linear(2, 1), torch.zeros(5, 2))
    >>> u.d(0).shape, u.d(0, 1).abs().max().item()
    (torch.Size([5, 1]), 0.0)
    """
    if not carries(network):
        return differentiated(network, points)
    if not isinstance(network, Ansatz):
        return network.derivatives(Points(points))  # type: ignore[operator]
    inputs: Derivatives = Points(points)
    if network.features is not None:
        features = network.features
        inputs = Composed(lambda x, _: features(x), inputs)
    copies = {name: c.expand(len(points), 1) for name, c in network.coefficients.items()}
    for copy in copies.values():
        if torch.is_grad_enabled() and not copy.requires_grad:
            copy.requires_grad_()  # one per sample, see `Composed.add_jacobian`
    return Composed(network.output, network.network.derivatives(inputs), copies)  # type: ignore


def differentiated(network: torch.nn.Module, points: torch.Tensor) -> Derivatives:
    """Differentiate automatically, even if the network has its own derivatives.

    Examples
    --------
    >>> differentiated(torch.nn.Linear(2, 1), torch.zeros(5, 2)).d(0).shape
    torch.Size([5, 1])
    """
    return _ByAutograd(network, points)


def carries(network: torch.nn.Module) -> bool:
    """Whether a network propagates derivatives itself and can compute their Jacobian.

    The network needs a method `derivatives(inputs: Derivatives)` with `add_jacobian`, as a KAN has;
    see `mgnet.knots.derivatives`. The result is False if the method would skip code of a subclass
    or a hook.

    Examples
    --------
    >>> carries(torch.nn.Linear(1, 1))
    False
    """
    if not isinstance(network, Ansatz):
        return knows(network, "derivatives")
    return not alteration(network, Ansatz) and knows(network.network, "derivatives")
