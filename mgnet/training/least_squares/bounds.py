"""Bounds on parameters: the box of allowed values, and the unknowns that may move in it.

Sources: Bertsekas, "Projected Newton methods" (1982), for the unknowns that are held; Kanzow,
Yamashita and Fukushima, "Levenberg-Marquardt methods with strong local convergence properties for
solving nonlinear equations with convex constraints" (2004), for projected steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from mgnet.training.least_squares.jacobian import Jacobian
from mgnet.training.loss.parameters import FlatParameters

__all__ = [
    "Bounds",
    "Box",
    "Boxed",
    "HeldJacobian",
    "box_of",
    "boxed_step",
    "check_inside",
    "damped_beside",
]

# (lower, upper) for all parameters, or for each parameter of these names.
Bounds = tuple[Any, Any] | Mapping[str, tuple[Any, Any]]
Solve = Callable[[torch.Tensor | None], torch.Tensor]

ROUNDS = 8


@dataclass(frozen=True, eq=False)
class Box:
    """All u with `lower <= u <= upper`.

    Attributes
    ----------
    lower, upper : tensor of shape (parameters,)
        Bounds in float64; minus or plus infinity where there is no bound.

    Examples
    --------
    >>> box = Box(torch.tensor([0.0, 0.0]).double(), torch.tensor([1.0, math.inf]).double())
    >>> u = box.project(torch.tensor([2.0, -3.0]).double())
    >>> u.tolist(), box.inside(u)
    ([1.0, 0.0], True)
    >>> gradient = torch.tensor([-1.0, -1.0]).double()  # both want to grow, the first one must not
    >>> box.free(u, gradient).tolist(), box.projected_gradient(u, gradient).tolist()
    ([False, True], [0.0, -1.0])
    """

    lower: torch.Tensor
    upper: torch.Tensor

    def inside(self, u: torch.Tensor) -> bool:
        """Whether u is allowed."""
        return bool(((self.lower <= u) & (u <= self.upper)).all())

    def project(self, u: torch.Tensor) -> torch.Tensor:
        """The nearest allowed state, with the dtype of u."""
        return torch.minimum(torch.maximum(u, self.lower.to(u)), self.upper.to(u))

    def free(self, u: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Which unknowns may move: all but those at a bound that descent would push beyond it.

        Parameters
        ----------
        u : tensor of shape (parameters,)
            Current state.
        gradient : tensor of shape (parameters,)
            Gradient of the objective at u.

        Returns
        -------
        tensor of bool, of shape (parameters,)
            True for unknowns that may move.
        """
        below = (u <= self.lower) & (gradient > 0.0)
        above = (u >= self.upper) & (gradient < 0.0)
        return ~(below | above)

    def scaled(self, factor: float) -> Box:
        """The box of `factor u`, for a positive factor."""
        return Box(factor * self.lower, factor * self.upper)

    def projected_gradient(self, u: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient with zeros for the held unknowns; it vanishes at a minimum over the box.

        A gradient of zero is then the condition of Karush, Kuhn and Tucker: held unknowns have
        multipliers of the right sign, and for all other unknowns the derivative is 0.
        """
        return torch.where(self.free(u, gradient), gradient, torch.zeros_like(gradient))


class HeldJacobian(Jacobian):
    """The Jacobian J with zeros in the columns of held unknowns.

    Parameters
    ----------
    J : Jacobian of shape (residuals, parameters)
        The complete Jacobian.
    free : tensor of bool, of shape (parameters,)
        Unknowns that may move.

    Examples
    --------
    >>> from mgnet.training.least_squares.jacobian import DenseJacobian
    >>> J = DenseJacobian(torch.tensor([[1.0, 2.0]], dtype=torch.float64))
    >>> held = HeldJacobian(J, torch.tensor([True, False]))
    >>> held.dense().tolist(), held.gram().tolist()
    ([[1.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]])
    """

    def __init__(self, J: Jacobian, free: torch.Tensor):
        self.J = J
        self.free = free
        self._whole: list[torch.Tensor] = []  # J^T J, computed on demand

    def also(self, free: torch.Tensor) -> HeldJacobian:
        """The same Jacobian with other free unknowns; products computed so far are kept."""
        other = HeldJacobian(self.J, free)
        other._whole = self._whole
        return other

    @property
    def shape(self) -> tuple[int, int]:
        return self.J.shape

    def matvec(self, d: torch.Tensor) -> torch.Tensor:
        return self.J.matvec(self.free * d)

    def rmatvec(self, y: torch.Tensor) -> torch.Tensor:
        return self.free * self.J.rmatvec(y)

    def gram(self) -> torch.Tensor:
        if not self._whole:
            self._whole.append(self.J.gram())
        return self._whole[0] * self.free * self.free.unsqueeze(1)

    def dense(self) -> torch.Tensor:
        return self.J.dense() * self.free

    def root(self) -> torch.Tensor:
        return self.J.root() * self.free


class Boxed:
    """A least-squares problem whose residuals are never evaluated outside its box.

    Parameters
    ----------
    problem : LeastSquares
        Problem to evaluate.
    box : Box
        Allowed parameters.
    """

    #: Subtrahend of the coarse problem of a descent (see `LeastSquares`); f contains it.
    shift = None

    def __init__(self, problem: Any, box: Box):
        self.problem = problem
        self.box = box
        self.unit, self.flat, self.shapes = problem.unit, problem.flat, problem.shapes
        self.tells_units = problem.tells_units

    def residuals(self, u: torch.Tensor) -> torch.Tensor:
        """The residuals at the nearest allowed state."""
        return self.problem.residuals(self.box.project(u))

    def half_square(self, r: torch.Tensor) -> float:
        """The same as for `LeastSquares`."""
        return self.problem.half_square(r)

    def largest(self, r: torch.Tensor) -> float:
        """The same as for `LeastSquares`."""
        return self.problem.largest(r)


def boxed_step(
    box: Box,
    u: torch.Tensor,
    free: torch.Tensor,
    J: Jacobian,
    solver: Callable[[torch.Tensor], Solve],
) -> tuple[torch.Tensor, Solve]:
    """End of a damped Gauss-Newton step in the free unknowns, inside the box.

    If the step would leave the box, the unknowns that leave it stop at their bounds, and the system
    is solved again for the other unknowns, since a projection alone would spoil their step. If
    unknowns still leave the box after several rounds, the step is projected.

    Parameters
    ----------
    box : Box
        Allowed parameters.
    u : tensor of shape (parameters,)
        Current state, in the box.
    free : tensor of bool, of shape (parameters,)
        Unknowns that may move; see `Box.free`.
    J : Jacobian
        Jacobian at u.
    solver : callable
        `mask -> solve`: the damped system for the unknowns in the mask, with 0 for the other
        unknowns. As for `NormalEquations.damped`, `solve(None)` is the step and `solve(y)` solves
        for `J^T y`.

    Returns
    -------
    point : tensor of shape (parameters,)
        End of the step, with the dtype of u.
    solve : callable
        Solver for the unknowns that did not reach a bound.

    Examples
    --------
    Minimize `1/2 |u - (3, 1)|^2 + 1/2 (u_1 + u_2)^2`, from 0, with u_1 at most 1:

    >>> from mgnet.training.least_squares.jacobian import DenseJacobian
    >>> J = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    >>> r = torch.tensor([-3.0, -1.0, 0.0], dtype=torch.float64)
    >>> def solver(mask):
    ...     inverse = torch.linalg.pinv(J * mask)
    ...     return lambda y: inverse @ (-r if y is None else y)
    >>> box = Box(torch.full((2,), -9.0).double(), torch.tensor([1.0, 9.0]).double())
    >>> u, free = torch.zeros(2).double(), torch.tensor([True, True])
    >>> point, _ = boxed_step(box, u, free, DenseJacobian(J), solver)
    >>> [round(x, 9) + 0.0 for x in point.tolist()]
    [1.0, 0.0]
    """
    step, moving = torch.zeros_like(u, dtype=torch.float64), free
    for _ in range(ROUNDS):
        solve = solver(moving)
        d = solve(None)
        if bool(step.any()):
            d = d - solve(J.matvec(step))
        aim = u + torch.where(moving, d, step).to(u.dtype)
        point = box.project(aim)
        beyond = moving & (point != aim)
        moving = moving & ~beyond
        if not bool(beyond.any()) or not bool(moving.any()):
            break
        step = torch.where(moving, 0.0, (point - u).double())
    return point, solve


def box_of(owner: str, parameters: FlatParameters, bounds: Bounds) -> Box:
    """Convert the bounds of the trained parameters to one flat box.

    If a module has less precision than float64, bounds are rounded inward, so that its stored
    parameters satisfy them too.

    Parameters
    ----------
    owner : str
        Name of the caller in errors.
    parameters : FlatParameters
        Trained parameters.
    bounds : (lower, upper) or dict of str to (lower, upper)
        Numbers or tensors. In a dict, the key is the name of a parameter, such as "0.weight", and
        shapes broadcast to that of the parameter. -inf and inf mean no bound. Parameters that are
        not in the dict have no bounds.

    Raises
    ------
    TypeError, ValueError
        If the bounds have the wrong form, or a lower bound is not below its upper bound.

    Examples
    --------
    >>> module = torch.nn.Linear(2, 1)
    >>> box = box_of("levenberg_marquardt", FlatParameters(module), {"bias": (-3, math.inf)})
    >>> box.lower.tolist()
    [-inf, -inf, -3.0]
    """
    trained = parameters.own
    if isinstance(bounds, Mapping):
        for name in bounds:
            if name not in trained:
                raise ValueError(
                    f"{owner} got bounds for {name!r}, which is not a trained parameter of "
                    f"{type(parameters.module).__name__}; these are {', '.join(trained)}"
                )
        given = {name: _pair(owner, name, bounds[name]) for name in bounds}
    else:
        pair = _pair(owner, "all parameters", bounds)
        if any(isinstance(side, torch.Tensor) and side.dim() for side in pair):
            raise ValueError(
                f"{owner} got bounds that are tensors for all parameters; give two numbers, or "
                "tensors by the names of the parameters: {'0.weight': (lower, upper)}"
            )
        given = dict.fromkeys(trained, pair)
    sides = [_sides(owner, name, p, given.get(name)) for name, p in trained.items()]
    return Box(torch.cat([low for low, _ in sides]), torch.cat([high for _, high in sides]))


def _pair(owner: str, name: str, pair: Any) -> tuple[Any, Any]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(
            f"{owner} got bounds {pair!r} for {name}; give (lower, upper), or a dict from the "
            "names of parameters to such pairs"
        )
    return pair[0], pair[1]


def _sides(
    owner: str, name: str, parameter: torch.Tensor, pair: tuple[Any, Any] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The flat bounds of one parameter."""
    ends = (-math.inf, math.inf) if pair is None else pair
    try:
        low, high = (
            torch.as_tensor(end, dtype=torch.float64, device=parameter.device)
            .detach()
            .broadcast_to(parameter.shape)
            .flatten()
            for end in ends
        )
    except (RuntimeError, TypeError, ValueError):
        raise ValueError(
            f"{owner} got bounds for {name!r} that do not broadcast to its shape "
            f"{tuple(parameter.shape)}; give numbers, or tensors of that shape"
        ) from None
    low, high = _inwards(low, parameter.dtype, math.inf), _inwards(high, parameter.dtype, -math.inf)
    if not bool((low < high).all()):  # also False if one is NaN
        raise ValueError(
            f"{owner} got bounds for {name!r} where the lower one is not below the upper one; to "
            "hold a parameter, call requires_grad_(False)"
        )
    return low, high


def _inwards(bound: torch.Tensor, dtype: torch.dtype, towards: float) -> torch.Tensor:
    """The nearest number of this precision on the inner side of a bound, in float64."""
    rounded = bound.to(dtype)
    outside = rounded.double() < bound if towards > 0.0 else rounded.double() > bound
    inner = torch.nextafter(rounded, torch.full_like(rounded, towards))
    return torch.where(outside, inner, rounded).double()


def check_inside(owner: str, parameters: FlatParameters, box: Box, u: torch.Tensor) -> None:
    """Raise an error unless parameters satisfy their bounds; NaN is left to other checks.

    Raises
    ------
    ValueError
        If a parameter is outside its bounds.
    """
    beyond = ~((box.lower <= u) & (u <= box.upper)) & ~u.isnan()
    if bool(beyond.any()):
        place = int(beyond.nonzero()[0])
        name = next(n for n, part in parameters.named(beyond).items() if bool((part != 0).any()))
        raise ValueError(
            f"{owner} got a state outside its bounds in {int(beyond.sum())} of {len(u)} "
            f"parameters, first in {name!r}, which holds {float(u[place]):.4g} for bounds of "
            f"[{float(box.lower[place]):.4g}, {float(box.upper[place]):.4g}]; start inside, "
            "without corrections from coarser levels"
        )


def damped_beside(
    system: Any, J: HeldJacobian, mu: float, free: torch.Tensor
) -> Callable[[torch.Tensor | None], torch.Tensor]:
    """The damped system with more unknowns held, and the same damping for the free ones."""
    if torch.equal(free, J.free):
        return system.damped(mu)
    part = replace(system, J=J.also(free))
    return part.damped(mu * system.scale / part.scale if part.scale else 0.0)
