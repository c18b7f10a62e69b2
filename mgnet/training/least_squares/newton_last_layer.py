"""Newton-CG for the last layer with any loss that is convex in the outputs, such as cross entropy.

With fixed features `Phi`, `loss(Phi W)` is convex in W. A Newton step solves `H d = -G` by a few
conjugate-gradient iterations. Each iteration costs two products with Phi, `H V = Phi^T (L'' (Phi
V))`, where L'' is the second derivative of the loss; no Hessian is assembled. A line search
follows. H is singular if a common shift of the logits has no effect, which conjugate gradients
tolerate.
Source: Patel et al., arXiv 2006.10123, where a Newton step and a gradient step on the hidden layers
alternate (NGD); in mgnet, this method is `AdaptiveBasis(step, NewtonLastLayer())`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from mgnet.smoother import Smoother
from mgnet.training.least_squares.last_layer import LinearPart, basis_at, check_level
from mgnet.training.loss.checks import check_finite
from mgnet.training.loss.objective import Objective

if TYPE_CHECKING:
    from mgnet.level import Level

__all__ = ["NewtonLastLayer"]

Product = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class NewtonLastLayer(Smoother):
    """Newton steps on the last layer, for losses that are convex in the outputs.

    A visit never raises the objective plus `ridge / 2` times the squared norm of the layer. The
    level's operator must be an `Objective` (for a `LeastSquares` use `LastLayer`) with any loss
    that can be differentiated twice.

    Parameters
    ----------
    steps : int
        Newton steps per sweep; fewer if a step yields no decrease above rounding.
    iterations : int
        Conjugate-gradient iterations per Newton step; fewer if the residual falls to 1 % of the
        gradient.
    ridge : float
        Weight of the squared norm, not negative. It must be positive if the classes can be
        separated perfectly, since the minimum is then at infinity.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from mgnet import Hierarchy, Level, Solver
    >>> x = torch.linspace(-1, 1, 100, dtype=torch.float64).unsqueeze(1)
    >>> y = (x + 0.3 * torch.cos(50 * x) > 0)[:, 0].long()  # two classes that overlap
    >>> network = torch.nn.Linear(1, 2, dtype=torch.float64)
    >>> objective = Objective(network, torch.nn.functional.cross_entropy, (x, y))
    >>> level = Level(objective, NewtonLastLayer(steps=20))
    >>> u = Solver(Hierarchy([level]), "V(0,0,1)", max_cycles=1).solve(u=objective.start()).value
    >>> bool(objective(u).norm() < 1e-6)
    True
    """

    steps: int = 5
    iterations: int = 10
    ridge: float = 0.0
    fixed_work: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.iterations < 1 or self.ridge < 0.0:
            raise ValueError(
                f"{self} needs at least one step and iteration and a ridge that is not negative"
            )

    def start(self, level: Level, u: torch.Tensor) -> tuple[()]:
        check_level(level, u, Objective, "NewtonLastLayer")
        return ()

    def work(self, level: Level, sweeps: int) -> float:
        return 1.0 / 3.0  # one forward pass; the rest uses the features only

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Any
    ) -> tuple[torch.Tensor, Any]:
        problem: Any = level.operator
        part, basis = basis_at(level, u)
        start = u
        for _ in range(sweeps):
            u = self.solve(problem, part, basis, u, f)
        if torch.equal(u, start):
            check_finite(self, level, u, *problem.value_and_gradient(u))
        return u, memory

    def solve(
        self,
        problem: Any,
        part: LinearPart,
        basis: torch.Tensor,
        u: torch.Tensor,
        f: torch.Tensor | None,
    ) -> torch.Tensor:
        """The state u after `steps` Newton steps on the last layer for this basis."""
        slope = None if f is None else part.unpack(f[-part.size :])
        convex = _Convex(problem.loss, problem.data[1], basis, self.ridge, slope)
        W = part.unpack(u[-part.size :])
        for _ in range(self.steps):
            J, G, hessian = convex.expand(W)
            d = _conjugate_gradients(hessian, -G, self.iterations)
            gain = -float((G * d).sum())
            if not gain > torch.finfo(W.dtype).eps * abs(J):  # also if it is NaN
                break
            length = convex.line_search(W, d, J, gain)
            if not length:
                break
            W = W + length * d
        return torch.cat([u[: -part.size], part.pack(W)])


class _Convex:
    """`J(W) = loss(Phi W) + ridge / 2 |W|^2 - <f, W>`."""

    def __init__(
        self,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        targets: torch.Tensor,
        basis: torch.Tensor,
        ridge: float,
        f: torch.Tensor | None,
    ):
        self.loss = loss
        self.targets = targets
        self.basis = basis
        self.ridge = ridge
        self.f = f

    def value(self, outputs: torch.Tensor, W: torch.Tensor) -> float:
        J = float(self.loss(outputs, self.targets)) + 0.5 * self.ridge * float(W.square().sum())
        return J if self.f is None else J - float((self.f * W).sum())

    def expand(self, W: torch.Tensor) -> tuple[float, torch.Tensor, Product]:
        """The value, the gradient, and a function for products with the Hessian at W."""
        outputs = (self.basis @ W).requires_grad_()
        loss = self.loss(outputs, self.targets)
        (slopes,) = torch.autograd.grad(loss, outputs, create_graph=True)
        G = self.basis.T @ slopes.detach() + self.ridge * W
        if self.f is not None:
            G = G - self.f

        def hessian(V: torch.Tensor) -> torch.Tensor:
            (change,) = torch.autograd.grad(slopes, outputs, self.basis @ V, retain_graph=True)
            return self.basis.T @ change + self.ridge * V

        return self.value(outputs.detach(), W), G, hessian

    def line_search(self, W: torch.Tensor, d: torch.Tensor, J: float, gain: float) -> float:
        """The first of 1, 1/2, 1/4, ... with a sufficient decrease (Armijo); 0 if there is none."""
        outputs, change = self.basis @ W, self.basis @ d
        length = 1.0
        for _ in range(30):
            if self.value(outputs + length * change, W + length * d) <= J - 1e-4 * length * gain:
                return length
            length *= 0.5
        return 0.0


def _conjugate_gradients(product: Product, b: torch.Tensor, iterations: int) -> torch.Tensor:
    """An approximate solution of `H d = b`, a descent direction after any number of iterations."""
    d, r, p = torch.zeros_like(b), b, b
    rho = first = float((r * r).sum())
    for _ in range(iterations):
        q = product(p)
        curvature = float((p * q).sum())
        if not curvature > 0.0:  # rounding, or no further gain
            break
        d = d + (rho / curvature) * p
        r = r - (rho / curvature) * q
        rho, previous = float((r * r).sum()), rho
        if rho <= 1e-4 * first:
            break
        p = r + (rho / previous) * p
    return d
