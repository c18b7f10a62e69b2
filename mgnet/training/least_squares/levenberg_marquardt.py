"""Levenberg-Marquardt: Gauss-Newton steps in a trust region, as a smoother and as a tool.

`(J^T J + mu s I) d = f - J^T r` with s the mean of the diagonal of `J^T J`; mu follows the gain
ratio. Marquardt's own choice, that diagonal in place of `s I`, lets parameters run away that few
samples see: on the data of `make demo` held-out errors were worse with it, most for tanh networks.
Sources: Levenberg (1944); Nielsen, "Damping parameter in Marquardt's method" (1999); Transtrum and
Sethna, arXiv 1201.5885 (geodesic acceleration).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from mgnet.level import Level
from mgnet.smoother import Smoother
from mgnet.training.least_squares.jacobian import Jacobian
from mgnet.training.least_squares.linearization import Residual
from mgnet.training.least_squares.newton_krylov import KrylovEquations, NewtonKrylov, forcing_term
from mgnet.training.least_squares.normal_equations import NormalEquations
from mgnet.training.least_squares.problem import LeastSquares

if TYPE_CHECKING:
    from mgnet.transfer import Transfer

__all__ = ["Ending", "LevenbergMarquardt", "Minimum", "levenberg_marquardt"]


class Damping(NamedTuple):
    """What Levenberg-Marquardt remembers: mu, and its growth at the next refusal.

    With inexact linear solves, of the last sweep: the gradient norm and the tolerance.
    """

    mu: float
    growth: float
    gradient: float = 0.0
    tolerance: float = 0.0


@dataclass(frozen=True)
class LevenbergMarquardt(Smoother):
    """One sweep: one Jacobian, and steps from it until one lowers the objective.

    A sweep never raises the objective. For levels whose operator is a `LeastSquares`.

    Parameters
    ----------
    mu : float
        Initial damping, relative to the mean diagonal of `J^T J`, dimensionless.
    trials : int
        Steps tried per Jacobian before the sweep gives up and leaves the state.
    acceleration : float
        Largest ratio of twice the geodesic acceleration to the step, dimensionless; 0 leaves the
        acceleration out.
    linear_solver : NewtonKrylov, optional
        Of the linear systems; direct, by `NormalEquations`, without one.

    Examples
    --------
    >>> from mgnet import Hierarchy, Level, Solver
    >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64).unsqueeze(1)
    >>> network = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> problem = LeastSquares(network.double(), (x, torch.sin(3 * x)))
    >>> level = Level(problem, LevenbergMarquardt(), objective=problem.value)
    >>> solver = Solver(Hierarchy([level]), "V(0,0,40)", max_cycles=1)
    >>> problem.value(solver.solve(u=problem.start()).value) < 1e-4
    True
    """

    mu: float = 1e-2
    trials: int = 12
    acceleration: float = 0.75
    linear_solver: NewtonKrylov | None = field(default=None, repr=False)
    fixed_work: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.mu <= 0.0 or self.trials < 1 or self.acceleration < 0.0:
            raise ValueError(
                f"{self} needs a positive mu, at least one trial and a ratio that is not negative"
            )

    def start(self, level: Level, u: torch.Tensor) -> Damping:
        if not isinstance(level.operator, LeastSquares):
            raise TypeError(
                f"{level} has an operator of type {type(level.operator).__name__}; "
                "LevenbergMarquardt needs a LeastSquares"
            )
        return Damping(self.mu, 2.0)

    def carry(self, memory: Damping, transfer: Transfer) -> Damping:
        return memory  # mu is relative to the diagonal, so it means the same on the finer level

    def work(self, level: Level, sweeps: int) -> float:
        return 2.0 * sweeps

    def smooth(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, sweeps: int, memory: Damping
    ) -> tuple[torch.Tensor, Damping]:
        for _ in range(sweeps):
            u, memory = self._sweep(level, u, f, memory)
        return u, memory

    def _sweep(
        self, level: Level, u: torch.Tensor, f: torch.Tensor | None, memory: Damping
    ) -> tuple[torch.Tensor, Damping]:
        problem: Any = level.operator
        if problem.shift is not None:
            f = problem.shift if f is None else f + problem.shift
        r, J = problem.linearize(u)
        level.charge(1.0)
        system, memory = self._system(J, r, None if f is None else f.double(), memory)
        mu, growth = memory.mu, memory.growth
        now = problem.half_square(r) - (0.0 if f is None else float(f @ u))
        # A decrease below the rounding of the value cannot be seen. Such a state is a minimum, and
        # refusals there say nothing about the damping, which the next level inherits.
        unseen = torch.finfo(r.dtype).eps * abs(now)
        for _ in range(self.trials):
            solve = system.damped(mu)
            d = solve(None)
            predicted = 0.5 * float(d @ (mu * system.scale * d + system.descent))
            if 0.0 < predicted <= unseen:
                return u, memory
            step = d if not self.acceleration else self._accelerated(problem, u, d, r, J, solve)
            level.charge(1.0 / 3.0 if not self.acceleration else 2.0 / 3.0)
            if step is not None and bool(torch.isfinite(step).all()) and predicted > 0.0:
                new = u + step.to(u.dtype)
                then = problem.half_square(problem.residuals(new))
                then -= 0.0 if f is None else float(f @ new)
                gain = (now - then) / predicted
                if gain > 1e-4:
                    shrink = max(1.0 / 3.0, 1.0 - (2.0 * min(gain, 1.0) - 1.0) ** 3)
                    return new, memory._replace(mu=max(mu * shrink, 1e-15), growth=2.0)
            mu, growth = min(mu * growth, 1e15), 2.0 * growth
        return u, memory._replace(mu=mu, growth=2.0)

    def _system(
        self, J: Jacobian, r: torch.Tensor, f: torch.Tensor | None, memory: Damping
    ) -> tuple[NormalEquations | KrylovEquations, Damping]:
        if self.linear_solver is None:
            return NormalEquations(J, r, f), memory
        gradient = J.rmatvec(r)
        norm = float((gradient if f is None else gradient - f).norm())
        tolerance = forcing_term(
            norm, memory.gradient, memory.tolerance, self.linear_solver.loosest
        )
        known = memory._replace(gradient=norm, tolerance=tolerance)
        return self.linear_solver.system(J, r, f, tolerance), known

    def _accelerated(
        self,
        problem: LeastSquares,
        u: torch.Tensor,
        d: torch.Tensor,
        r: torch.Tensor,
        J: Jacobian,
        solve: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor | None:
        """The step with its geodesic acceleration; None where that is too large to trust."""
        h = 0.1
        curvature = (problem.residuals(u + (h * d).to(u.dtype)) - r) / h - J.matvec(d)
        a = solve(curvature * (-2.0 / h))
        if not 2.0 * float(a.norm()) <= self.acceleration * float(d.norm()):
            return None
        return d + 0.5 * a


class Ending(Enum):
    """Why `levenberg_marquardt` ended; `converged` tells whether a minimum was met.

    Examples
    --------
    >>> Ending.GRADIENT.converged, Ending.MAX_STEPS.converged
    (True, False)
    """

    GRADIENT = "the gradient norm fell below its tolerance"
    STATIONARY = "no step lowers the objective any more, it is minimal to rounding"
    MAX_STEPS = "max_steps were done; allow more if the values still fall"
    SECONDS = "the seconds were used up; allow more if the values still fall"
    NOT_FINITE = "the gradient became NaN or Inf, though the residuals are finite"

    @property
    def converged(self) -> bool:
        return self in (Ending.GRADIENT, Ending.STATIONARY)


@dataclass(frozen=True, eq=False)
class Minimum:
    """What `levenberg_marquardt` tells about its course; the parameters are in the module.

    Attributes
    ----------
    values : tuple of float
        `1/2 |r|^2` at the start and after each step; never rising.
    gradient_norms : tuple of float
        `|J^T r|` at the same places.
    ending : Ending
    evaluations : int
        Calls of the residual function.
    seconds : float

    Examples
    --------
    >>> print(Minimum((2.0, 0.5), (1.0, 1e-12), Ending.GRADIENT, 5, 0.1))
    converged (GRADIENT) after 1 steps: 1/2 |r|^2 is 0.5 from 2, 5 evaluations, 0.1 s
    """

    values: tuple[float, ...]
    gradient_norms: tuple[float, ...]
    ending: Ending
    evaluations: int
    seconds: float

    def __str__(self) -> str:
        verdict = "converged" if self.ending.converged else "not converged"
        text = f"{verdict} ({self.ending.name}) after {len(self.values) - 1} steps: "
        text += f"1/2 |r|^2 is {self.values[-1]:.4g} from {self.values[0]:.4g}, "
        text += f"{self.evaluations} evaluations, {self.seconds:.3g} s"
        return text if self.ending.converged else f"{text}; {self.ending.value}"


def levenberg_marquardt(
    residual: Residual,
    module: torch.nn.Module,
    *,
    max_steps: int = 200,
    rtol: float = 1e-8,
    atol: float = 0.0,
    seconds: float = math.inf,
    mu: float = 1e-2,
    acceleration: float = 0.75,
    linear_solver: NewtonKrylov | None = None,
    chunk_size: int | None = None,
    monitor: Callable[[int, float, float], None] | None = None,
) -> Minimum:
    """Train any PyTorch module on `1/2 |residual(module)|^2`.

    The parameters that require a gradient are the unknowns. Linear algebra is in float64 whatever
    the precision of the module. Cost and memory grow with residuals times parameters: a tool for up
    to a few thousand parameters, where it reaches errors that first-order methods do not.

    Parameters
    ----------
    residual : callable
        `module -> tensor` of any shape, or a tuple of tensors; it may differentiate by its inputs
        (`torch.autograd.grad(..., create_graph=True)`). Fastest where entry i of each tensor
        depends on sample i of each call `module(x)` alone: for points of several kinds return a
        tuple, not one long tensor.
    module : torch.nn.Module
        Trained in place. It holds the best parameters at the end, also after an error or Ctrl-C.
    max_steps : int
    rtol, atol : float
        Ends when the gradient norm `|J^T r|` is at most `rtol` times that of the start, or `atol`.
    seconds : float
        Wall time; a step that has begun is finished.
    mu, acceleration : float
        As in `LevenbergMarquardt`.
    linear_solver : NewtonKrylov, optional
        As in `LevenbergMarquardt`: for large KANs, where no matrix can be formed.
    chunk_size : int, optional
        Rows or columns of the Jacobian at once where it is made by them; less needs less memory.
    monitor : callable, optional
        `(step, value, gradient norm)`, at the start and after every step.

    Returns
    -------
    Minimum

    Raises
    ------
    ValueError
        If the module has no parameters to train, or the residuals are not finite at the start or do
        not depend on them.
    TypeError
        If the residuals are not real tensors.

    Examples
    --------
    >>> module = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> x = torch.linspace(-1, 1, 50).unsqueeze(1)
    >>> minimum = levenberg_marquardt(lambda module: module(x) - torch.sin(3 * x), module)
    >>> minimum.values[-1] < 1e-4
    True
    """
    if max_steps < 1 or seconds <= 0.0 or rtol < 0.0 or atol < 0.0:
        raise ValueError(
            f"levenberg_marquardt got max_steps {max_steps}, seconds {seconds}, rtol {rtol}, atol "
            f"{atol}; steps and seconds must be positive, tolerances not negative"
        )
    if not callable(residual) or isinstance(residual, torch.nn.Module | torch.Tensor):
        raise TypeError(
            f"levenberg_marquardt got a residual of type {type(residual).__name__}; give a "
            "function first, then the module, as (lambda module: module(x) - y, module)"
        )
    began, calls = time.perf_counter(), 0

    def counted(module: torch.nn.Module) -> Any:
        nonlocal calls
        calls += 1
        made = residual(module)
        if isinstance(made, torch.Tensor) and not made.dim():
            raise ValueError(
                "residual(module) returned one number; it must return all residuals, as module(x) "
                "- y, not the mean of their squares: that is taken here"
            )
        return made

    problem = LeastSquares.from_torch(module, counted, chunk_size)
    smoother = LevenbergMarquardt(mu, acceleration=acceleration, linear_solver=linear_solver)
    level = Level(problem, smoother, name="levenberg_marquardt")
    u = problem.start().double()
    memory = smoother.start(level, u)
    first = problem.residuals(u)
    values, norms = [], []
    try:
        while True:
            value, gradient = problem.value_and_gradient(u)
            values.append(value)
            norms.append(float(gradient.norm()))
            if monitor is not None:
                monitor(len(values) - 1, value, norms[-1])
            if len(values) == 1:
                _check_start(first, value, norms[0])
            ending = _ending(values, norms, max(rtol * norms[0], atol), max_steps)
            if ending is None and time.perf_counter() - began >= seconds:
                ending = Ending.SECONDS
            if ending is not None:
                break
            before = u
            u, memory = smoother.smooth(level, u, None, 1, memory)
            if u is before:
                ending = Ending.STATIONARY
                break
    finally:
        problem.flat.write(u)
    return Minimum(tuple(values), tuple(norms), ending, calls, time.perf_counter() - began)


def _check_start(r: torch.Tensor, value: float, gradient: float) -> None:
    """Raise unless there are residuals, the same at a second look, and finite."""
    if not len(r):
        raise ValueError("levenberg_marquardt got no residuals; give at least one sample")
    if not math.isfinite(value + gradient):
        raise ValueError(
            f"levenberg_marquardt got residuals with 1/2 |r|^2 = {value} and gradient norm "
            f"{gradient} at the start; both must be finite: check the data and initial parameters"
        )
    again = 0.5 * float(r @ r)
    if abs(again - value) > 1e-3 * max(again, value):
        raise ValueError(
            f"levenberg_marquardt got residuals with 1/2 |r|^2 = {value:.4g} and, for the same "
            f"parameters, {again:.4g}; they must not be random: call module.eval() where there is "
            "dropout, and draw samples before"
        )


def _ending(
    values: list[float], norms: list[float], tolerance: float, max_steps: int
) -> Ending | None:
    if not math.isfinite(norms[-1]):
        return Ending.NOT_FINITE
    if norms[-1] <= tolerance:
        return Ending.GRADIENT
    return Ending.MAX_STEPS if len(values) > max_steps else None
