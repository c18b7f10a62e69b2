"""The hidden layers as an adaptive basis: any step for them, with the last layer always solved.

For hidden parameters xi let W(xi) be the solved last layer. The steps work on the reduced objective
`J(xi, W(xi))`. Its gradient is the partial gradient with respect to xi alone, because the partial
gradient with respect to W vanishes, so any first-order step applies unchanged:

| step | method |
| --- | --- |
| `TorchOptimizer(SGD)` | LSGD, Cyr et al., arXiv 1912.04862 |
| `TorchOptimizer(Adam)`, `LBFGS()` | LSGD with momentum or memory |
| `LevenbergMarquardt()` | variable projection, Golub and Pereyra (1973), with Kaufman's Jacobian |
| `TorchOptimizer(SGD)`, last = `NewtonLastLayer()` | NGD, Patel et al., arXiv 2006.10123 |

Kaufman's Jacobian (BIT 15, 1975) projects the columns of xi onto the complement of the basis. It
omits a second term, which does not contribute to the gradient, costs one derivative per feature,
and barely affects convergence (Chen et al., arXiv 2402.13865).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from mgnet.level import Level
from mgnet.smoother import Smoother
from mgnet.training.least_squares.factorizations import range_basis
from mgnet.training.least_squares.jacobian import DenseJacobian, Jacobian
from mgnet.training.least_squares.last_layer import (
    DistributedSamples,
    LastLayer,
    LinearPart,
    features_of,
)
from mgnet.training.least_squares.newton_last_layer import NewtonLastLayer
from mgnet.training.least_squares.problem import LeastSquares
from mgnet.training.least_squares.scaling import power_of_two
from mgnet.training.loss.checks import check_finite

if TYPE_CHECKING:
    from mgnet.transfer import Transfer

__all__ = ["AdaptiveBasis"]


@dataclass(frozen=True)
class AdaptiveBasis(Smoother):
    """Sweeps of `step` on the hidden layers; the last layer is solved at every point they visit.

    A visit never raises the objective: it returns the best state found. Steps that may increase the
    objective in between, such as those of Adam, need tens of sweeps per visit.

    Parameters
    ----------
    step : Smoother
        Smoother of the hidden layers. Its state is the whole flat vector, whose gradient and
        Jacobian are zero for the last layer.
    last : LastLayer or NewtonLastLayer
        Solver for the last layer.

    Examples
    --------
    >>> from mgnet import Hierarchy, Level, Solver
    >>> from mgnet.training import LevenbergMarquardt, TorchOptimizer, box_init_
    >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1)
    >>> _ = torch.manual_seed(0)
    >>> network = torch.nn.Sequential(torch.nn.Linear(1, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    >>> _ = box_init_(network.double(), (-1, 1))
    >>> problem = LeastSquares(network, (x, torch.sin(6 * x)))
    >>> def train(smoother):
    ...     solver = Solver(Hierarchy([Level(problem, smoother)]), "V(0,0,20)", max_cycles=5)
    ...     return problem.value(solver.solve(u=problem.start()).value)
    >>> adam = TorchOptimizer(torch.optim.Adam, {"lr": 1e-2})
    >>> train(AdaptiveBasis(adam)) < 0.1 * train(adam)
    True
    >>> train(AdaptiveBasis(LevenbergMarquardt())) < train(AdaptiveBasis(adam))  # varpro
    True
    """

    step: Smoother
    last: LastLayer | NewtonLastLayer = field(default_factory=LastLayer)
    fixed_work: ClassVar[bool] = False

    def start(self, level: Level, u: torch.Tensor) -> Any:
        self.last.start(level, u)
        return self.step.start(_Reduced(level, self.last, None).level_for(self.step), u)

    def carry(self, memory: Any, transfer: Transfer) -> Any:
        return self.step.carry(memory, transfer)

    def work(self, level: Level, sweeps: int) -> float:
        return self.step.work(level, sweeps) + 2.0 / 3.0  # the solves at its first and last state

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Any
    ) -> tuple[torch.Tensor, Any]:
        unit = _unit(level.operator, f)
        if unit != 1.0:
            size = LinearPart(level.operator.flat.module).size
            measured = _in_unit(level, unit)
            v = torch.cat([u[:-size], u[-size:] / unit])
            v, memory = self.smooth(measured, v, f, sweeps, memory)
            level.charge(measured.tally[0])
            return torch.cat([v[:-size], v[-size:] * unit]), memory
        reduced = _Reduced(level, self.last, f)
        below = reduced.level_for(self.step)
        reduced.best = u
        check_finite(self, level, u, reduced.value(u))
        v, memory = self.step.smooth(below, u, reduced.outside, sweeps, memory)
        reduced.value(v)
        level.charge(below.tally[0])
        return reduced.best, memory

    def __str__(self) -> str:
        return f"AdaptiveBasis({self.step}, {self.last})"


def _unit(problem: Any, f: torch.Tensor | None) -> float:
    """Unit for targets whose squares overflow or underflow; 1 otherwise.

    Outputs are linear in the last layer, so it scales with the targets. A penalty or an f would
    not.
    """
    if not isinstance(problem, LeastSquares) or problem.penalty is not None or f is not None:
        return 1.0
    size = float(problem.data[1].abs().max())
    return 1.0 if 1e-100 < size < 1e100 else power_of_two(size)


def _in_unit(level: Level, unit: float) -> Level:
    problem: Any = level.operator
    x, y = problem.data
    return replace(level, operator=problem.with_data((x, y / unit)), objective=None)


class _Reduced:
    """`J(xi, W(xi)) - <f, W(xi)>` as a function of the flat vector, whose last layer is ignored.

    The best evaluated state is stored with its solved last layer.
    """

    def __init__(self, level: Level, last: LastLayer | NewtonLastLayer, f: torch.Tensor | None):
        problem: Any = level.operator
        self.level = level
        self.problem = problem
        self.last = last
        self.f = f
        self.part = LinearPart(problem.flat.module)
        # One forward pass is then used for the solve and the gradient.
        plain = not isinstance(problem, LeastSquares) or problem.penalty is None
        spread = isinstance(problem, DistributedSamples)
        self.fused = plain and self.part.linear is not None and not spread
        self.outside = None if f is None else self.without_last(f)  # the f of the step
        self.asked: torch.Tensor | None = None
        self.known: float | None = None  # the value at `asked`
        self.solved = torch.empty(0)
        self.best = torch.empty(0)
        self.least = float("inf")

    def level_for(self, step: Smoother) -> Level:
        """The level for a step on the hidden layers."""
        least_squares = isinstance(self.problem, LeastSquares)
        operator = _Projected(self) if least_squares else self.gradient
        size, name = self.level.size, str(self.level)
        return Level(operator, step, objective=self.value, size=size, name=name)

    def without_last(self, v: torch.Tensor) -> torch.Tensor:
        """A copy of v with zeros for the last layer."""
        return torch.cat([v[: -self.part.size], torch.zeros_like(v[-self.part.size :])])

    def at(self, u: torch.Tensor) -> torch.Tensor:
        """The state with the hidden parameters of u and the last layer solved."""
        if not self._asked_for(u):
            self._solve(u, features_of(self.problem, self.part, u))
            self.level.charge(1.0 / 3.0)
        return self.solved

    def _asked_for(self, u: torch.Tensor) -> bool:
        return self.asked is not None and torch.equal(self.asked, u)

    def _solve(self, u: torch.Tensor, basis: Any) -> None:
        # Each solve starts from the last solution; u provides the first one only.
        W = (u if self.asked is None else self.solved)[-self.part.size :]
        self.asked, self.known = u.clone(), None
        state = torch.cat([u[: -self.part.size], W])
        self.solved = self.last.solve(self.problem, self.part, basis, state, self.f)

    def _seen(self, value: float) -> float:
        """Store the solved state if it is the best; return the value without the step's own f."""
        last = self.solved[-self.part.size :]
        if self.last.ridge:
            value += 0.5 * self.last.ridge * float(last.square().sum())
        self.known = value if self.f is None else value - float(self.f[-self.part.size :] @ last)
        whole = value if self.f is None else value - float(self.f @ self.solved)
        if whole < self.least:
            self.least, self.best = whole, self.solved
        return self.known

    def value(self, u: torch.Tensor) -> float:
        solved = self.at(u)
        return self._seen(self.problem.value(solved)) if self.known is None else self.known

    def gradient(self, u: torch.Tensor) -> torch.Tensor:
        if self.fused:
            hidden = u.detach().clone().requires_grad_()
            x, y = self.problem.data
            basis = self.part.features(self.problem.parameters(hidden), x)
            if not self._asked_for(u):
                self._solve(u.detach(), basis.detach())
            outputs = basis @ self.part.unpack(self.solved[-self.part.size :])
            if isinstance(self.problem, LeastSquares):
                loss = 0.5 * (outputs.view(y.shape) - y).square().sum() / len(y)
            else:
                loss = self.problem.loss(outputs, y)
            (gradient,) = torch.autograd.grad(loss, hidden)
            value = float(loss.detach())
        else:
            value, gradient = self.problem.value_and_gradient(self.at(u))
        self._seen(value)
        return self.without_last(gradient)


class _Projected(LeastSquares):
    """The reduced objective as a least-squares problem, with Kaufman's Jacobian."""

    # Parameters whose effect the last layer can replace, such as a factor, have columns of
    # rounding.
    tells_units = False

    def __init__(self, reduced: _Reduced):
        problem = reduced.problem
        super().__init__(problem.network, problem.data, problem.penalty)
        self.reduced = reduced

    def value(self, u: torch.Tensor) -> float:
        return self.reduced.value(u)

    def half_square(self, r: torch.Tensor) -> float:
        return self.reduced.problem.half_square(r)

    def largest(self, r: torch.Tensor) -> float:
        return self.reduced.problem.largest(r)

    def value_and_gradient(self, u: torch.Tensor) -> tuple[float, torch.Tensor]:
        gradient = self.reduced.gradient(u)
        return self.reduced.value(u), gradient  # already known

    def residuals(self, u: torch.Tensor) -> torch.Tensor:
        f, size = self.reduced.f, self.reduced.part.size
        if f is not None and bool(f[-size:].any()):
            raise ValueError(
                "variable projection got a right-hand side for the last layer, which does not fit "
                "into a sum of squares; give AdaptiveBasis a step that takes gradients"
            )
        solved = self.reduced.at(u)
        r = self.reduced.problem.residuals(solved)
        if self.reduced.last.ridge:
            r = torch.cat([r, self.reduced.last.ridge**0.5 * solved[-size:]])
        return r

    def linearize(self, u: torch.Tensor) -> tuple[torch.Tensor, Jacobian]:
        last: Any = self.reduced.last  # a LastLayer: other solvers do not accept LeastSquares
        size, problem = self.reduced.part.size, self.reduced.problem
        if isinstance(problem, DistributedSamples):
            J = problem.projected(self.reduced.at(u), size, last.ridge, last.rcond)
            return self.residuals(u), J
        J = problem.jacobian(self.reduced.at(u))
        hidden, basis = J[:, :-size], J[:, -size:]
        if last.ridge:
            extra = last.ridge**0.5 * torch.eye(size, dtype=J.dtype, device=J.device)
            hidden = torch.cat([hidden, hidden.new_zeros(size, hidden.shape[1])])
            basis = torch.cat([basis, extra])
        Q = range_basis(basis, last.rcond)
        hidden = hidden - Q @ (Q.T @ hidden)
        J = torch.cat([hidden, hidden.new_zeros(len(hidden), size)], 1)
        return self.residuals(u), DenseJacobian(J)
